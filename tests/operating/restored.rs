//! A database that was restored from an earlier base backup: nobody writes to it, whether it was restored under processes
//! that run or before they start, until an operator has adopted it; then all goes on.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use rollcall_private_servers::{DataDir, Postgres};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    rollcall::{Client, Rollcall, Setup, data_directory, eventually},
    site::{Site, text},
};

/// A base backup of a server that goes on working.
async fn base_backup(owner_url: &str, data: &Path, to: &Path) {
    // The private server lets nobody in who takes backups.
    let rules = data.join("postgres/pg_hba.conf");
    let known = fs::read_to_string(&rules).unwrap();
    fs::write(&rules, format!("{known}host replication all 127.0.0.1/32 scram-sha-256\n")).unwrap();
    let mut connection = PgConnection::connect(owner_url).await.unwrap();
    sqlx::query("SELECT pg_reload_conf()").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    eventually("the base backup is taken", async || {
        let _ = fs::remove_dir_all(to);
        let mut taken = tokio::process::Command::new("pg_basebackup");
        taken.args(["--checkpoint=fast", "--wal-method=stream", "--dbname", owner_url, "--pgdata"]).arg(to);
        taken.output().await.unwrap().status.success().then_some(())
    })
    .await;
}

/// Puts a base backup where a stopped server had its data.
fn restore(backup: &Path, data: &Path) {
    let script = r#"mv "$1/postgres" "$1/lost" && cp -a "$0" "$1/postgres" &&
                    chown -R --reference="$1/lost" "$1/postgres" && rm -rf "$1/lost""#;
    let done = Command::new("sh").args(["-c", script]).arg(backup).arg(data).status().unwrap();
    assert!(done.success());
}

fn adopt(database_url: &str, nats_url: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
    command.arg("adopt-restored").args(arguments).stdin(std::process::Stdio::null());
    command.env("DATABASE_URL", database_url).env("NATS_URL", nats_url);
    let output = command.output().unwrap();
    (output.status.success(), format!("{}{}", text(output.stdout), text(output.stderr)))
}

async fn create_many(client: &Client, name: &str, users: usize) {
    let create = |n| {
        let email = format!("{name}-{n}@example.com");
        json!({"type": "CreateUser", "data": {"email": email, "given_name": "Ada"}})
    };
    let answer = client.post("/api/v1/commands", (0..users).map(create).collect()).await.expect(200).json();
    let outcomes = answer["outcomes"].as_array().unwrap();
    assert!(outcomes.iter().all(|outcome| outcome["status"] == 201), "{outcomes:?}");
}

async fn until_nothing_lags(up: &Client) {
    eventually("the projections catch up", async || {
        let health = up.get("/health/detailed").await.json();
        let projections = health["projections"].as_object()?;
        projections.values().all(|projection| projection["lag_events"] == 0).then_some(())
    })
    .await;
}

/// By partition, positions with the ids of their events.
type History = BTreeMap<u16, BTreeMap<u64, String>>;

/// What a subscriber makes of the stream: where a new `ce-source` comes with a position, what it took from others in that
/// partition from there on never happened.
async fn as_subscribed(nats_url: &str) -> (History, Vec<String>) {
    let address: async_nats::ServerAddr = nats_url.parse().unwrap();
    let (user, password) = (address.username().unwrap().to_owned(), address.password().unwrap().to_owned());
    let options = async_nats::ConnectOptions::with_user_and_password(user, password);
    let context = async_nats::jetstream::new(options.connect(address).await.unwrap());
    let stream = context.get_stream("ROLLCALL").await.unwrap();
    let state = stream.get_info().await.unwrap().state;
    let (mut history, mut sources) = (History::new(), Vec::new());
    let mut source_of: BTreeMap<u16, String> = BTreeMap::new();
    for sequence in state.first_sequence..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        let header = |name: &str| message.headers.get(name).unwrap().to_string();
        let (partition, position) =
            (header("ce-partition").parse().unwrap(), header("ce-position").parse().unwrap());
        let source = header("ce-source");
        let taken = history.entry(partition).or_default();
        if source_of.insert(partition, source.clone()).is_some_and(|before| before != source) {
            taken.split_off(&position);
        }
        taken.insert(position, header("ce-id"));
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    (history, sources)
}

async fn stored(owner_url: &str) -> History {
    let mut connection = PgConnection::connect(owner_url).await.unwrap();
    let events = sqlx::query("SELECT partition, position, event_id::text FROM log.events")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let mut history = History::new();
    for event in events {
        let partition = u16::try_from(event.get::<i32, _>(0)).unwrap();
        let position = u64::try_from(event.get::<i64, _>(1)).unwrap();
        history.entry(partition).or_default().insert(position, event.get(2));
    }
    history
}

#[tokio::test]
async fn a_log_restored_from_an_earlier_backup_takes_commands_once_it_is_adopted() {
    let directory = data_directory();
    let (data, backup) = (directory.path().join("data"), directory.path().join("backup"));
    let setup = Setup { directory: Some(directory.path().to_owned()), ..Setup::default() };
    let mut up = Rollcall::start(setup.clone());
    let client = up.client("acme");
    let kept = client.create("kept@example.com").await.expect(201).id();
    base_backup(&up.ready.postgres, &data, &backup).await;
    let lost = client.create("lost@example.com").await.expect(201);
    let (lost, old_token) = (lost.id(), lost.token().to_owned());
    create_many(&client, "lost", 100).await;
    until_nothing_lags(&client).await;
    assert!(up.stop().0.success());
    restore(&backup, &data);

    for _ in 0..2 {
        let mut up = Rollcall::start(setup.clone());
        let client = up.client("acme");
        let refused = client.create("new@example.com").await.expect(503);
        assert_eq!(refused.code(), "log-restored");
        assert!(refused.header("retry-after").is_some());
        client.get(&format!("/api/v1/users/{kept}")).await.expect(200);
        client.get(&format!("/api/v1/users/{lost}")).await.expect(404);
        let ready = client.get("/readyz").await.expect(200).json();
        assert_eq!(
            (&ready["status"], &ready["checks"]["log"]["status"]),
            (&json!("degraded"), &json!("halted"))
        );
        assert!(client.get("/metrics").await.text.contains("rollcall_log_halted 1"));
        assert!(up.logged().contains("no commands are taken"), "{}", up.logged());
        assert!(up.stop().0.success());
    }

    let mut up = Rollcall::start(setup.clone());
    let (postgres, nats) = (up.ready.postgres.clone(), up.ready.nats.clone());
    let (adopted, said) = adopt(&postgres, &nats, &[]);
    assert!(!adopted && said.contains("--yes"), "{said}");
    let (adopted, said) = adopt(&postgres, &nats, &["--yes"]);
    assert!(adopted && said.contains("events beyond") && said.contains("ahead of the log"), "{said}");
    assert!(said.contains("in all 101 events that this log does not have"), "{said}");
    let (status, logged) = (up.wait(), up.logged());
    assert_eq!(status.code(), Some(1), "{logged}");
    assert!(logged.lines().last().unwrap().contains("start this process again"), "{logged}");

    let up = Rollcall::start(setup);
    let client = up.client("acme");
    assert_eq!(client.get("/readyz").await.expect(200).json()["checks"].get("log"), None);
    let new = client.create("lost@example.com").await.expect(201);
    client.get_after(&format!("/api/v1/users/{}", new.id()), new.token()).await.expect(200);
    let refused = client.get_after(&format!("/api/v1/users/{kept}"), &old_token).await.expect(400);
    assert_eq!(refused.code(), "malformed-token");
    // Some for each partition.
    create_many(&client, "new", 400).await;
    until_nothing_lags(&client).await;
    let (subscribed, sources) = as_subscribed(&up.ready.nats).await;
    assert_eq!(subscribed, stored(&up.ready.postgres).await);
    assert_eq!(sources.len(), 2, "{sources:?}");
}

#[tokio::test]
async fn a_log_of_which_nothing_says_that_it_was_restored_is_not_adopted_by_mistake() {
    let site = Site::migrated().await;
    let (adopted, said) = adopt(site.owner_url(), site.nats_url(), &["--yes"]);
    assert!(!adopted && said.contains("--force") && said.contains("nothing beyond"), "{said}");
    let (adopted, said) = adopt(site.owner_url(), site.nats_url(), &["--yes", "--force"]);
    assert!(adopted, "{said}");
    site.stop().await;
}

/// An address that leads to one server and then to another.
struct Address(Arc<Mutex<SocketAddr>>);

impl Address {
    async fn of(url: &str) -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap();
        let target = Arc::new(Mutex::new(server(url)));
        let leads_to = Arc::clone(&target);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let target = *leads_to.lock().unwrap();
                tokio::spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(target).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        (Self(target), url.replace(&server(url).to_string(), &own.to_string()))
    }

    fn leads_to(&self, url: &str) {
        *self.0.lock().unwrap() = server(url);
    }
}

fn server(url: &str) -> SocketAddr {
    let (_, place) = url.rsplit_once('@').unwrap();
    place.split_once('/').unwrap().0.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_restored_under_processes_that_run_is_not_written_to() {
    let site = Site::new().await;
    let data = DataDir::open(Some(site.path().join("restored"))).unwrap();
    let first = Postgres::start(&data).await.unwrap();
    let (address, url) = Address::of(first.owner_url()).await;
    let own = [("DATABASE_URL", url.as_str())];
    let (migrated, said) = Rollcall::ended(site.command_on(&url, &["migrate"]));
    assert!(migrated.success(), "{said}");
    let roles = [&["command-api"][..], &["query-api"], &["projector", "profiles", "audit"]];
    let mut running = roles.map(|role| site.start(role, &own));
    let clients = |running: &[Rollcall; 3]| {
        let client = |role: &Rollcall| Client::new(&role.ready.http, "acme");
        (client(&running[0]), client(&running[1]))
    };
    let (write, read) = clients(&running);
    let kept = write.create("kept@example.com").await.expect(201).id();
    let backup = site.path().join("backup");
    base_backup(first.owner_url(), &site.path().join("restored"), &backup).await;
    create_many(&write, "lost", 100).await;
    until_nothing_lags(&read).await;

    first.stop().await;
    restore(&backup, &site.path().join("restored"));
    let second = Postgres::start(&data).await.unwrap();
    let before = stored(second.owner_url()).await;
    address.leads_to(second.owner_url());
    let mut n = 0;
    eventually("it is noticed", async || {
        n += 1;
        let refused = write.create(&format!("new-{n}@example.com")).await;
        assert_eq!(refused.status, 503, "{refused:?}");
        (refused.code() == "log-restored").then_some(())
    })
    .await;
    assert_eq!(stored(second.owner_url()).await, before, "nothing was written");
    eventually("queries go on", async || {
        (read.get(&format!("/api/v1/users/{kept}")).await.status == 200).then_some(())
    })
    .await;
    eventually("each is halted", async || {
        for role in &running {
            let ready: Value = Client::new(&role.ready.http, "acme").get("/readyz").await.json();
            if ready["checks"]["log"]["status"] != "halted" {
                return None;
            }
        }
        Some(())
    })
    .await;

    let known = Client::new(&running[0].ready.http, "acme").get("/readyz").await.json();
    let detail = known["checks"]["log"]["detail"].as_str().unwrap();
    assert!(detail.contains("adopt-restored") && detail.contains("start this process again"), "{detail}");
    let (adopted, said) = adopt(second.owner_url(), site.nats_url(), &["--yes"]);
    assert!(adopted && said.contains("ended at"), "{said}");
    for role in &mut running {
        let (status, logged) = (role.wait(), role.logged());
        assert_eq!(status.code(), Some(1), "{logged}");
        assert!(logged.contains("start this process again"), "{logged}");
    }
    let mut running = roles.map(|role| site.start(role, &own));
    let (write, read) = clients(&running);
    let new = write.create("lost-7@example.com").await.expect(201);
    read.get_after(&format!("/api/v1/users/{}", new.id()), new.token()).await.expect(200);
    for role in &mut running {
        assert!(role.stop().0.success());
    }
    second.stop().await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_has_yet_to_replay_what_it_has_is_no_restored_log() {
    let site = Site::new().await;
    let (before, after) = (site.path().join("before"), site.path().join("after"));
    let first = Postgres::start(&DataDir::open(Some(before.clone())).unwrap()).await.unwrap();
    let (address, url) = Address::of(first.owner_url()).await;
    let own = [("DATABASE_URL", url.as_str())];
    let (migrated, said) = Rollcall::ended(site.command_on(&url, &["migrate"]));
    assert!(migrated.success(), "{said}");
    let roles = [&["command-api"][..], &["query-api"], &["projector"]];
    let mut running = roles.map(|role| site.start(role, &own));
    let (write, read) =
        (Client::new(&running[0].ready.http, "acme"), Client::new(&running[1].ready.http, "acme"));
    let standby = after.join("postgres");
    fs::create_dir(&after).unwrap();
    base_backup(first.owner_url(), &before, &standby).await;
    create_many(&write, "replayed", 100).await;
    until_nothing_lags(&read).await;
    let whole = stored(first.owner_url()).await;

    // The standby received all of it before the primary died, and applies it when it is promoted.
    first.stop().await;
    let script = r#"cp -a "$0"/postgres/pg_wal/0* "$1/pg_wal/" && touch "$1/standby.signal" &&
                    echo "recovery_min_apply_delay = '1h'" >> "$1/postgresql.auto.conf" &&
                    cp -a "$0/postgres.password" "$1/.." && chown -R --reference="$0/postgres" "$1""#;
    assert!(Command::new("sh").args(["-c", script]).arg(&before).arg(&standby).status().unwrap().success());
    let second = Postgres::start(&DataDir::open(Some(after)).unwrap()).await.unwrap();
    assert!(stored(second.owner_url()).await.len() < whole.len(), "it is behind");
    address.leads_to(second.owner_url());
    eventually("each was there and asked", async || {
        running.iter().all(|role| role.logged().contains("is a standby")).then_some(())
    })
    .await;

    let mut owner = PgConnection::connect(second.owner_url()).await.unwrap();
    sqlx::query("SELECT pg_promote(wait => false)").execute(&mut owner).await.unwrap();
    let id = eventually("commands are taken again", async || {
        let created = write.create("after@example.com").await;
        assert!(created.status == 201 || created.code() != "log-restored", "{created:?}");
        (created.status == 201).then(|| created.id())
    })
    .await;
    let now = stored(second.owner_url()).await;
    for (partition, events) in whole {
        assert!(events.iter().all(|(position, event)| now[&partition].get(position) == Some(event)));
    }
    eventually("it is read", async || {
        (read.get(&format!("/api/v1/users/{id}")).await.status == 200).then_some(())
    })
    .await;
    for role in &mut running {
        assert!(!role.logged().contains("was restored"), "{}", role.logged());
        assert!(role.stop().0.success());
    }
    second.stop().await;
    site.stop().await;
}
