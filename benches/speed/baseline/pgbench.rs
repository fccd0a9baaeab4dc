//! pgbench: one row of an event's size in one transaction, into a table with the log's primary key.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use sqlx::{Connection, Executor, PgConnection};

use super::database;
use crate::support::load::{histogram, ms};

/// Which number of clients does most depends on the machine.
const CLIENTS: [usize; 3] = [16, 64, 128];

pub struct Pgbench {
    program: PathBuf,
    directory: PathBuf,
    url: String,
}

impl Pgbench {
    pub async fn prepare(owner: &str, directory: &Path) -> Self {
        let url = database(owner, "pgbench").await;
        let mut connection = PgConnection::connect(&url).await.unwrap();
        connection
            .execute(
                "CREATE SEQUENCE positions CACHE 100;
                 CREATE TABLE events (position bigint NOT NULL, sequence bigint NOT NULL, recorded_at timestamptz NOT NULL,
                     event_id uuid NOT NULL, partition integer NOT NULL, tenant_id text NOT NULL, aggregate_type text NOT NULL,
                     aggregate_id text NOT NULL, event_type text NOT NULL, event_version text NOT NULL, payload json NOT NULL,
                     personal bytea, metadata json NOT NULL, PRIMARY KEY (partition, position))",
            )
            .await
            .unwrap();
        let directory = directory.join("pgbench");
        fs::create_dir(&directory).unwrap();
        let personal = "00".repeat(430);
        fs::write(
            directory.join("script.sql"),
            format!(
                "\\set partition random(0, 15)\n\
                 INSERT INTO events VALUES (nextval('positions'), 1, now(), gen_random_uuid(), :partition, 'default', 'user', \
                 '01934a1c-7c5e-7b6a-9d2f-3c4b5a697887', 'UserCreated', '1', \
                 '{{\"UserCreated\":{{\"kind\":\"customer\",\"changed\":[\"email\",\"given_name\",\"family_name\",\"phone\"]}}}}', \
                 '\\x{personal}', '{{\"actor\":\"anonymous\",\"correlation_id\":\"01934a1c-7c5e-7b6a-9d2f-3c4b5a697887\"}}');\n"
            ),
        )
        .unwrap();
        Self { program: program(), directory, url }
    }

    /// Transactions per second at its best.
    pub async fn best(&self, during: Duration) -> f64 {
        let mut best = 0.0_f64;
        for clients in CLIENTS {
            let output = self.run(clients, during, &[]).await;
            let text = String::from_utf8_lossy(&output.stdout);
            let tps =
                text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
            best = best.max(tps.unwrap_or_else(|| panic!("{text}")));
        }
        best
    }

    /// The median of what one client's transactions take.
    pub async fn p50_ms(&self, during: Duration) -> f64 {
        let prefix = self.directory.join("transactions");
        self.run(1, during, &["--log", &format!("--log-prefix={}", prefix.display())]).await;
        let mut latencies = histogram();
        for entry in fs::read_dir(&self.directory).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("transactions.") {
                for line in fs::read_to_string(entry.path()).unwrap().lines() {
                    // client, transaction, microseconds, …
                    latencies.record(line.split(' ').nth(2).unwrap().parse().unwrap()).unwrap();
                }
                fs::remove_file(entry.path()).unwrap();
            }
        }
        ms(&latencies, 0.5)
    }

    async fn run(&self, clients: usize, during: Duration, more: &[&str]) -> Output {
        let output = tokio::process::Command::new(&self.program)
            .args(["--no-vacuum", "--protocol=prepared"])
            .arg(format!("--jobs={}", clients.min(2)))
            .arg(format!("--client={clients}"))
            .arg(format!("--time={}", during.as_secs()))
            .arg(format!("--file={}", self.directory.join("script.sql").display()))
            .args(more)
            .arg(&self.url)
            .output()
            .await
            .expect("pgbench comes with PostgreSQL");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output
    }
}

/// Beside the server's other programs on Debian, else on the path.
fn program() -> PathBuf {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut candidates: Vec<PathBuf> =
        installed.map(|version| version.path().join("bin/pgbench")).filter(|path| path.exists()).collect();
    candidates.sort();
    candidates.pop().unwrap_or_else(|| "pgbench".into())
}
