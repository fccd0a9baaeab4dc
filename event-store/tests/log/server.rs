//! One private PostgreSQL for the test program, and a fresh database for each test.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
};

use rollcall_private_servers::{DataDir, Postgres};
use sqlx::{Connection, PgConnection};

/// A directory that the servers' account can reach.
pub fn directory() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o711)).unwrap();
    root
}

/// The owner's URL of a database that nobody has used.
pub async fn fresh_database() -> String {
    static SERVER: OnceLock<String> = OnceLock::new();
    static DATABASES: AtomicU32 = AtomicU32::new(0);
    let owner = SERVER.get_or_init(start);
    let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    let mut connection = PgConnection::connect(owner).await.unwrap();
    sqlx::query(&format!("CREATE DATABASE {name}")).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let (server, _) = owner.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

/// Starts the server on a thread that lives as long as the program.
fn start() -> String {
    let root = directory().keep();
    remove_after_the_end(&root);
    let (ready, url) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let data = DataDir::open(Some(root.join("data"))).unwrap();
            let postgres = Postgres::start(&data).await.unwrap();
            ready.send(postgres.owner_url().to_owned()).unwrap();
            std::future::pending::<()>().await;
        });
    });
    url.recv().unwrap()
}

/// A test program ends without dropping its statics: a shell waits until it and its server have ended, and removes
/// the directory.
fn remove_after_the_end(root: &Path) {
    let script = r#"cat; for i in $(seq 100); do [ -e "$0/data/postgres/postmaster.pid" ] || break; sleep 0.1; done
                    rm -rf -- "$0""#;
    let watcher = Command::new("sh")
        .args(["-c", script])
        .arg(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Its input ends when this program does.
    std::mem::forget(watcher);
}
