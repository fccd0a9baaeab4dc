//! What a user could pick instead, on the same cluster, in databases of their own.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use cqrs_es::{Aggregate, DomainEvent, event_sink::EventSink};
use postgres_es::PostgresCqrs;
use serde::{Deserialize, Serialize};
use sqlx::{Connection, Executor, PgConnection, PgPool, postgres::PgPoolOptions};

/// The same members that a user's event has, in clear.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Created {
    email: String,
    given_name: String,
    family_name: String,
    phone: String,
    locale: String,
    time_zone: String,
    kind: String,
    traits: HashMap<String, String>,
    associations: Vec<(String, String)>,
    preferences: HashMap<String, bool>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    UserCreated(Created),
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        "UserCreated".to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

#[derive(Default, Serialize, Deserialize)]
pub struct Person(Created);

impl Aggregate for Person {
    const TYPE: &'static str = "person";
    type Command = Created;
    type Event = Event;
    type Error = std::fmt::Error;
    type Services = ();

    async fn handle(
        &mut self,
        command: Created,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), std::fmt::Error> {
        sink.write(Event::UserCreated(command), self).await;
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        let Event::UserCreated(created) = event;
        self.0 = created;
    }
}

async fn database(owner: &str, name: &str) -> String {
    let mut connection = PgConnection::connect(owner).await.expect("the owner may connect");
    connection.execute(format!("CREATE DATABASE {name}").as_str()).await.expect("a database");
    let (server, _) = owner.rsplit_once('/').expect("a URL with a database");
    format!("{server}/{name}")
}

/// How many events the log holds.
pub async fn events(owner: &str) -> u64 {
    let mut connection = PgConnection::connect(owner).await.expect("the owner may connect");
    let count: i64 = sqlx::query_scalar("SELECT coalesce(sum(position), 0)::int8 FROM log.heads")
        .fetch_one(&mut connection)
        .await
        .expect("the heads can be read");
    count.cast_unsigned()
}

/// postgres-es as its documentation sets it up, with its pool of ten connections.
pub struct PostgresEs {
    framework: Arc<PostgresCqrs<Person>>,
}

impl PostgresEs {
    pub async fn prepare(owner: &str) -> Self {
        let url = database(owner, "postgres_es").await;
        let pool: PgPool = PgPoolOptions::new().max_connections(10).connect(&url).await.expect("a pool");
        pool.execute(
            "CREATE TABLE events (
                 aggregate_type text NOT NULL, aggregate_id text NOT NULL, sequence bigint CHECK (sequence >= 0) NOT NULL,
                 event_type text NOT NULL, event_version text NOT NULL, payload json NOT NULL, metadata json NOT NULL,
                 PRIMARY KEY (aggregate_type, aggregate_id, sequence))",
        )
        .await
        .expect("the table of its documentation");
        Self { framework: Arc::new(postgres_es::postgres_cqrs(pool, Vec::new(), ())) }
    }

    /// Commands per second.
    pub async fn run(&self, callers: usize, during: Duration) -> f64 {
        let begun = Instant::now();
        let callers = (0..callers).map(|_| {
            let framework = Arc::clone(&self.framework);
            tokio::spawn(async move {
                let mut done = 0_u64;
                while begun.elapsed() < during {
                    let id = uuid::Uuid::now_v7().to_string();
                    let created = Created {
                        email: format!("{id}@example.com"),
                        given_name: "Ada".to_owned(),
                        family_name: "Lovelace".to_owned(),
                        phone: "+4930123456".to_owned(),
                        locale: "en-GB".to_owned(),
                        time_zone: "Europe/London".to_owned(),
                        kind: "customer".to_owned(),
                        traits: [("department", "R&D"), ("seats", "3")]
                            .map(|(k, v)| (k.to_owned(), v.to_owned()))
                            .into(),
                        associations: vec![("membership".to_owned(), "gold".to_owned())],
                        preferences: [("newsletter".to_owned(), true)].into(),
                    };
                    framework.execute(&id, created).await.expect("a command succeeds");
                    done += 1;
                }
                done
            })
        });
        let mut done = 0;
        for caller in callers.collect::<Vec<_>>() {
            done += caller.await.expect("a caller ends well");
        }
        done as f64 / begun.elapsed().as_secs_f64()
    }
}

/// pgbench: one row of an event's size in one transaction, into a table with the log's primary key.
pub struct Pgbench {
    program: PathBuf,
    script: PathBuf,
    url: String,
}

impl Pgbench {
    pub async fn prepare(owner: &str, directory: &Path) -> Self {
        let url = database(owner, "pgbench").await;
        let mut connection = PgConnection::connect(&url).await.expect("the owner may connect");
        connection
            .execute(
                "CREATE SEQUENCE positions CACHE 100;
                 CREATE TABLE events (position bigint NOT NULL, sequence bigint NOT NULL, recorded_at timestamptz NOT NULL,
                     event_id uuid NOT NULL, partition integer NOT NULL, tenant_id text NOT NULL, aggregate_type text NOT NULL,
                     aggregate_id text NOT NULL, event_type text NOT NULL, event_version text NOT NULL, payload json NOT NULL,
                     personal bytea, metadata json NOT NULL, PRIMARY KEY (partition, position))",
            )
            .await
            .expect("a table");
        let script = directory.join("pgbench.sql");
        let personal = "00".repeat(430);
        std::fs::write(
            &script,
            format!(
                "\\set partition random(0, 15)\n\
                 INSERT INTO events VALUES (nextval('positions'), 1, now(), gen_random_uuid(), :partition, 'default', 'user', \
                 '01934a1c-7c5e-7b6a-9d2f-3c4b5a697887', 'UserCreated', '1', \
                 '{{\"UserCreated\":{{\"kind\":\"customer\",\"changed\":[\"email\",\"given_name\",\"family_name\",\"phone\"]}}}}', \
                 '\\x{personal}', '{{\"actor\":\"anonymous\",\"correlation_id\":\"01934a1c-7c5e-7b6a-9d2f-3c4b5a697887\"}}');\n"
            ),
        )
        .expect("the directory can be written");
        Self { program: program(), script, url }
    }

    /// Transactions per second.
    pub async fn run(&self, clients: usize, during: Duration) -> f64 {
        let clients = clients.min(150);
        let output = tokio::process::Command::new(&self.program)
            .args(["--no-vacuum", "--protocol=prepared", "--jobs=2"])
            .arg(format!("--client={clients}"))
            .arg(format!("--time={}", during.as_secs()))
            .arg(format!("--file={}", self.script.display()))
            .arg(&self.url)
            .output()
            .await
            .expect("pgbench comes with PostgreSQL");
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines()
            .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("pgbench failed: {text} {}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// Beside the server's other programs on Debian, else on the path.
fn program() -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut candidates: Vec<PathBuf> =
        installed.map(|version| version.path().join("bin/pgbench")).filter(|path| path.exists()).collect();
    candidates.sort();
    candidates.pop().unwrap_or_else(|| "pgbench".into())
}
