//! NATS goes away and comes back: nothing waits for it, and nothing is lost.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    log::Log,
    processes, published,
    rollcall::{self, Client, Rollcall, Setup, data_directory, eventually},
};

/// A nats-server of the test's own, killed when it is dropped.
pub struct NatsServer {
    child: Child,
    pub url: String,
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn binary() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    places.map(|place| place.join("nats-server")).find(|file| file.exists()).unwrap()
}

impl NatsServer {
    /// With JetStream where it is given a place to store.
    pub fn start(port: u16, store: Option<&Path>) -> Self {
        Self::start_with(port, store, &[])
    }

    /// With more arguments.
    pub fn start_with(port: u16, store: Option<&Path>, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(["-a", "127.0.0.1", "-p", &port.to_string()]);
        if let Some(store) = store {
            command.arg("-js").arg("-sd").arg(store);
        }
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: rollcall::spawn(command), url: format!("nats://127.0.0.1:{port}") }
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Creates users, each answered as fast as ever.
async fn create(client: &Client, name: &str, count: usize) {
    for number in 0..count {
        let begun = Instant::now();
        client.create(&format!("{name}-{number}@example.com")).await.expect(201);
        assert!(begun.elapsed() < Duration::from_secs(2), "a command waited for NATS: {:?}", begun.elapsed());
    }
}

/// Waits until the service says that it is so with NATS; it is ready all the while.
pub async fn readiness(client: &Client, status: &str) -> Value {
    eventually(status, async || {
        let body = client.get("/readyz").await.expect(200).json();
        (body["status"] == status).then_some(body)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_nats_that_freezes_or_is_killed_costs_no_message() {
    let rollcall = Rollcall::start(Setup::default());
    let client = rollcall.client("default");
    let data = rollcall.directory().join("data");
    readiness(&client, "ready").await;
    create(&client, "before", 20).await;

    let frozen = processes::server(&data, "nats-server");
    processes::send(frozen, Signal::SIGSTOP);
    create(&client, "frozen", 50).await;
    let said = readiness(&client, "degraded").await;
    assert_eq!(said["checks"]["nats"]["status"], "down", "{said}");
    assert_eq!(said["checks"]["postgres"]["status"], "up", "{said}");
    create(&client, "still-frozen", 50).await;
    processes::send(frozen, Signal::SIGCONT);
    readiness(&client, "ready").await;
    create(&client, "thawed", 20).await;

    for round in 0..3 {
        let killed = processes::server(&data, "nats-server");
        processes::send(killed, Signal::SIGKILL);
        create(&client, &format!("killed-{round}"), 50).await;
        eventually("another nats-server", async || {
            let running = processes::running_servers(&data, "nats-server");
            running.iter().any(|server| server.pid != killed.as_raw()).then_some(())
        })
        .await;
    }
    readiness(&client, "ready").await;
    let events = Log::open(&rollcall.ready.postgres).await.assert_sound().await;
    assert_eq!(events.len(), 20 + 50 + 50 + 20 + 3 * 50);
    published::assert_all(&rollcall.ready.nats, &events).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_nats_may_come_later_and_go_and_what_it_loses_is_published_again() {
    let place = data_directory();
    let (port, store) = (free_port(), place.path().join("store"));
    let variables = vec![("NATS_URL".to_owned(), format!("nats://127.0.0.1:{port}"))];
    let rollcall = tokio::task::spawn_blocking(|| Rollcall::start(Setup { variables, ..Setup::default() }))
        .await
        .unwrap();
    let client = rollcall.client("default");
    let log = Log::open(&rollcall.ready.postgres).await;
    create(&client, "early", 40).await;
    readiness(&client, "degraded").await;

    let mut nats = NatsServer::start(port, Some(&store));
    published::assert_all(&nats.url, &log.assert_sound().await).await;
    readiness(&client, "ready").await;

    // Nobody publishes, and still it is seen that nobody could.
    nats.kill();
    readiness(&client, "degraded").await;
    create(&client, "away", 40).await;
    nats = NatsServer::start(port, Some(&store));
    published::assert_all(&nats.url, &log.assert_sound().await).await;
    readiness(&client, "ready").await;

    // Its data are gone: filled again from the log, without anybody's doing.
    nats.kill();
    fs::remove_dir_all(&store).unwrap();
    nats = NatsServer::start(port, Some(&store));
    published::assert_all(&nats.url, &log.assert_sound().await).await;
    create(&client, "after", 40).await;
    published::assert_all(&nats.url, &log.assert_sound().await).await;
    readiness(&client, "ready").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_lost_with_its_events_on_their_way_is_filled_again() {
    let place = data_directory();
    let (port, store) = (free_port(), place.path().join("store"));
    let mut nats = NatsServer::start(port, Some(&store));
    let variables = vec![("NATS_URL".to_owned(), nats.url.clone())];
    let rollcall = tokio::task::spawn_blocking(|| Rollcall::start(Setup { variables, ..Setup::default() }))
        .await
        .unwrap();
    let client = rollcall.client("default");
    let log = Log::open(&rollcall.ready.postgres).await;
    for round in 0..3 {
        create(&client, &format!("before-{round}"), 30).await;
        nats.kill();
        fs::remove_dir_all(&store).unwrap();
        create(&client, &format!("lost-{round}"), 30).await;
        nats = NatsServer::start(port, Some(&store));
        create(&client, &format!("after-{round}"), 30).await;
        let events = log.assert_sound().await;
        assert_eq!(events.len(), (round + 1) * 90);
        published::assert_all(&nats.url, &events).await;
    }
    readiness(&client, "ready").await;
}
