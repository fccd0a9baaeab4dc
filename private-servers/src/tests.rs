//! The private servers as they are: real processes, killed in every way.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{Connection, PgConnection};

use crate::{DataDir, Error, Nats, Postgres};

const DIRECTORY_OF_VICTIM: &str = "ROLLCALL_TEST_DIRECTORY_OF_VICTIM";

fn data_in(root: &tempfile::TempDir) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o711)).unwrap();
    root.path().join("data")
}

fn first_line(path: &Path) -> Option<Pid> {
    Some(Pid::from_raw(fs::read_to_string(path).ok()?.lines().next()?.trim().parse().ok()?))
}

fn postmaster(data: &Path) -> Option<Pid> {
    first_line(&data.join("postgres/postmaster.pid"))
}

fn is_alive(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// async-nats leaves user and password in a URL unused.
async fn connect_to_nats(url: &str) -> Option<async_nats::Client> {
    let address: async_nats::ServerAddr = url.parse().unwrap();
    let (user, password) = (address.username()?.to_owned(), address.password()?.to_owned());
    async_nats::ConnectOptions::with_user_and_password(user, password).connect(address).await.ok()
}

async fn setting(connection: &mut PgConnection, name: &str) -> String {
    sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn data_are_there_again_after_a_stop_and_a_start() {
    let root = tempfile::tempdir().unwrap();
    let data = data_in(&root);
    let directory = DataDir::open(Some(data.clone())).unwrap();
    let postgres = Postgres::start(&directory).await.unwrap();
    let mut connection = PgConnection::connect(postgres.owner_url()).await.unwrap();
    for (name, expected) in [
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("lc_collate", "C"),
        ("fsync", "on"),
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
    ] {
        assert_eq!(setting(&mut connection, name).await, expected, "{name}");
    }
    sqlx::query("CREATE TABLE kept AS SELECT 7 AS number").execute(&mut connection).await.unwrap();
    let pid = postmaster(&data).unwrap();
    let begun = Instant::now();
    postgres.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(!is_alive(pid));
    drop(directory);

    let directory = DataDir::open(Some(data)).unwrap();
    let postgres = Postgres::start(&directory).await.unwrap();
    let mut connection = PgConnection::connect(postgres.owner_url()).await.unwrap();
    let kept: i32 = sqlx::query_scalar("SELECT number FROM kept").fetch_one(&mut connection).await.unwrap();
    assert_eq!(kept, 7);
    postgres.stop().await;
}

#[tokio::test]
async fn nobody_comes_in_without_the_password_and_no_value_reaches_the_log() {
    let root = tempfile::tempdir().unwrap();
    let data = data_in(&root);
    let directory = DataDir::open(Some(data.clone())).unwrap();
    let postgres = Postgres::start(&directory).await.unwrap();
    let (_, place) = postgres.owner_url().split_once('@').unwrap();
    let wrong = format!("postgres://rollcall_owner:wrong@{place}");
    let refusal = PgConnection::connect(&wrong).await.unwrap_err();
    assert_eq!(refusal.as_database_error().and_then(|error| error.code()).as_deref(), Some("28P01"));

    let mut connection = PgConnection::connect(postgres.owner_url()).await.unwrap();
    let complaint =
        sqlx::query("SELECT 'ada@example.com'::numeric").execute(&mut connection).await.unwrap_err();
    assert!(complaint.to_string().contains("ada@example.com"));
    postgres.stop().await;
    let log = fs::read_to_string(data.join("postgres.log")).unwrap();
    assert!(log.contains("database system is shut down") && !log.contains("ada@example.com"), "{log}");
}

#[tokio::test]
async fn what_was_left_of_an_interrupted_initdb_is_thrown_away() {
    let root = tempfile::tempdir().unwrap();
    let data = data_in(&root);
    let directory = DataDir::open(Some(data.clone())).unwrap();
    fs::create_dir_all(data.join("postgres.new/data/base")).unwrap();
    fs::write(data.join("postgres.new/data/PG_VERSION"), "15\n").unwrap();
    Postgres::start(&directory).await.unwrap().stop().await;
    assert!(!data.join("postgres.new").exists());
}

#[tokio::test]
async fn data_of_another_version_and_data_without_their_password_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let data = data_in(&root);
    let directory = DataDir::open(Some(data.clone())).unwrap();
    fs::create_dir(data.join("postgres")).unwrap();
    fs::write(data.join("postgres/PG_VERSION"), "99\n").unwrap();
    let refusal = Postgres::start(&directory).await.unwrap_err();
    assert!(matches!(refusal, Error::OtherVersion { made_by: 99, .. }), "{refusal}");
    fs::remove_dir_all(data.join("postgres")).unwrap();

    Postgres::start(&directory).await.unwrap().stop().await;
    let password = data.join("postgres.password");
    fs::write(&password, "somethingelse").unwrap();
    let refusal = Postgres::start(&directory).await.unwrap_err();
    assert!(matches!(refusal, Error::PasswordRefused { .. }), "{refusal}");
    fs::remove_file(&password).unwrap();
    let refusal = Postgres::start(&directory).await.unwrap_err();
    assert!(matches!(refusal, Error::PasswordMissing { .. }), "{refusal}");
    assert_eq!(postmaster(&data), None, "a refused start leaves no server");
}

#[tokio::test]
async fn servers_that_die_are_started_again_on_the_same_port() {
    let root = tempfile::tempdir().unwrap();
    let data = data_in(&root);
    let directory = DataDir::open(Some(data.clone())).unwrap();
    let (postgres, nats) = tokio::try_join!(Postgres::start(&directory), Nats::start(&directory)).unwrap();
    assert!(!nats.missing());
    for pid_file in ["postgres/postmaster.pid", "nats/nats.pid"] {
        let victim = first_line(&data.join(pid_file)).unwrap();
        kill(victim, Signal::SIGKILL).unwrap();
        eventually("a new server", async || first_line(&data.join(pid_file)).filter(|pid| *pid != victim))
            .await;
    }
    eventually("a connection to PostgreSQL", async || PgConnection::connect(postgres.owner_url()).await.ok())
        .await;
    let client = eventually("a connection to NATS", async || connect_to_nats(nats.url()).await).await;
    let jetstream = async_nats::jetstream::new(client);
    let stream = async_nats::jetstream::stream::Config {
        name: "LETTERS".to_owned(),
        subjects: vec!["letters".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(stream).await.unwrap();
    jetstream.publish("letters", "a letter".into()).await.unwrap().await.unwrap();
    tokio::join!(postgres.stop(), nats.stop());
}

/// Not a test of its own: the process that the test below kills.
#[tokio::test]
#[ignore = "run by another test, in a process that is killed"]
async fn victim() {
    let Some(data) = std::env::var_os(DIRECTORY_OF_VICTIM) else { return };
    let directory = DataDir::open(Some(data.into())).unwrap();
    let servers = tokio::try_join!(Postgres::start(&directory), Nats::start(&directory)).unwrap();
    println!("\nready {}", servers.0.owner_url());
    std::future::pending::<()>().await;
}

/// Starts a process with both servers on `data`, has a row stored, and kills it. Answers with the servers' pids.
async fn run_and_kill(data: &Path, number: i32) -> [Pid; 2] {
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", &format!("{module}::victim")])
        .env(DIRECTORY_OF_VICTIM, data)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines().map(Result::unwrap);
    let ready = lines.find(|line| line.starts_with("ready ")).unwrap();
    let mut connection = PgConnection::connect(ready.trim_start_matches("ready ")).await.unwrap();
    sqlx::query("CREATE TABLE IF NOT EXISTS kept (number integer)").execute(&mut connection).await.unwrap();
    sqlx::query("INSERT INTO kept VALUES ($1)").bind(number).execute(&mut connection).await.unwrap();
    let servers = [postmaster(data).unwrap(), first_line(&data.join("nats/nats.pid")).unwrap()];
    assert!(servers.iter().all(|pid| is_alive(*pid)));
    parent.kill().unwrap();
    parent.wait().unwrap();
    servers
}

#[tokio::test]
async fn a_killed_process_leaves_no_servers_and_the_next_carries_on() {
    let root = tempfile::tempdir().unwrap();
    let data = data_in(&root);
    let servers = run_and_kill(&data, 1).await;
    eventually("the end of all servers", async || servers.iter().all(|pid| !is_alive(*pid)).then_some(()))
        .await;

    let servers = run_and_kill(&data, 2).await;
    // At once, while the old servers may still be stopping.
    let directory = DataDir::open(Some(data)).unwrap();
    let (postgres, nats) = tokio::try_join!(Postgres::start(&directory), Nats::start(&directory)).unwrap();
    assert!(servers.iter().all(|pid| !is_alive(*pid)), "{servers:?}");
    let mut connection = PgConnection::connect(postgres.owner_url()).await.unwrap();
    let kept: Vec<i32> = sqlx::query_scalar("SELECT number FROM kept ORDER BY number")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    assert_eq!(kept, [1, 2]);
    tokio::join!(postgres.stop(), nats.stop());
}
