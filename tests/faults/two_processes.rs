//! Two services on one database, one NATS and one master key.

use std::{collections::HashSet, fs, os::unix::fs::PermissionsExt};

use rollcall_private_servers::{DataDir, Nats, Postgres};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    log::{Log, versions},
    published,
    rollcall::{Answer, Client, Rollcall, Setup, data_directory, eventually},
};

struct Pair {
    one: Rollcall,
    other: Rollcall,
    log: Log,
    nats_url: String,
    _servers: (Postgres, Nats),
    _place: tempfile::TempDir,
}

impl Pair {
    /// Both start at once, on a database that is empty.
    async fn start() -> Self {
        let place = data_directory();
        let directory = DataDir::open(Some(place.path().join("servers"))).unwrap();
        let postgres = Postgres::start(&directory).await.unwrap();
        let nats = Nats::start(&directory).await.unwrap();
        let key = place.path().join("master.key");
        fs::write(&key, "5a".repeat(32)).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let variables = vec![
            ("DATABASE_URL".to_owned(), postgres.owner_url().to_owned()),
            ("NATS_URL".to_owned(), nats.url().to_owned()),
            ("ROLLCALL_MASTER_KEY_FILE".to_owned(), key.to_str().unwrap().to_owned()),
        ];
        let setup = Setup { variables, ..Setup::default() };
        let start = |setup: Setup| tokio::task::spawn_blocking(|| Rollcall::start(setup));
        let (one, other) = tokio::join!(start(setup.clone()), start(setup));
        let log = Log::open(postgres.owner_url()).await;
        let nats_url = nats.url().to_owned();
        Self {
            one: one.unwrap(),
            other: other.unwrap(),
            log,
            nats_url,
            _servers: (postgres, nats),
            _place: place,
        }
    }

    fn clients(&self) -> [Client; 2] {
        [self.one.client("default"), self.other.client("default")]
    }
}

/// What each of the requests that ran at once was answered, in their order.
async fn at_once<F: Future<Output = Answer> + Send + 'static>(
    requests: impl Iterator<Item = F>,
) -> Vec<Answer> {
    let mut tasks = JoinSet::new();
    for (number, request) in requests.enumerate() {
        tasks.spawn(async move { (number, request.await) });
    }
    let mut answers = tasks.join_all().await;
    answers.sort_by_key(|(number, _)| *number);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_services_on_one_database_lose_nothing_and_agree() {
    let pair = Pair::start().await;
    let clients = pair.clients();

    // One user, a hundred changes.
    let created = clients[0].create("ada@example.com").await.expect(201);
    let path = format!("/api/v1/users/{}", created.id());
    clients[1].get_after(&path, created.token()).await.expect(200);
    let changes = (0..100).map(|number| {
        let (client, path) = (clients[number % 2].clone(), path.clone());
        async move { client.patch(&path, json!({"traits": {format!("n{number}"): number}})).await }
    });
    let answers = at_once(changes).await;
    let mut accepted = HashSet::new();
    let mut versions_made = HashSet::new();
    for (number, answer) in answers.iter().enumerate() {
        match answer.status {
            200 => {
                accepted.insert(format!("n{number}"));
                assert!(versions_made.insert(answer.json()["version"].as_u64().unwrap()));
            }
            _ => assert_eq!((answer.status, answer.code().as_str()), (409, "conflict"), "{answer:?}"),
        }
    }
    println!("{} of 100 changes were accepted", accepted.len());
    assert!(accepted.len() >= 50, "half of them, at the very least, get their turn: {}", accepted.len());
    let expected_version = 1 + accepted.len();
    for client in &clients {
        let newest = answers.iter().filter(|answer| answer.status == 200);
        let newest = newest.max_by_key(|answer| answer.json()["version"].as_u64()).unwrap();
        let profile = client.get_after(&path, newest.token()).await.expect(200).json();
        assert_eq!(profile["version"], expected_version);
        let traits: HashSet<String> = profile["traits"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(traits, accepted, "a change was lost, or one that was refused happened");
    }

    // One email, fifty users who want it.
    let creations = (0..50).map(|number| {
        let client = clients[number % 2].clone();
        async move { client.create("bea@example.com").await }
    });
    let answers = at_once(creations).await;
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(created, 1);
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!((answer.status, answer.code().as_str()), (409, "email-taken"));
    }

    // One key, both at once.
    let body = json!({"email": "cyd@example.com", "given_name": "Cyd"});
    let keyed = (0..20).map(|number| {
        let (client, body) = (clients[number % 2].clone(), body.clone());
        async move { client.call("POST", "/api/v1/users", &[("Idempotency-Key", "key")], Some(&body)).await }
    });
    let answers = at_once(keyed).await;
    let ids: HashSet<String> = answers.into_iter().map(|answer| answer.expect(201).id()).collect();
    assert_eq!(ids.len(), 1, "one key made several users: {ids:?}");

    // Many users, all partitions.
    let many = (0..200).map(|number| {
        let client = clients[number % 2].clone();
        async move { client.create(&format!("user-{number}@example.com")).await }
    });
    for answer in at_once(many).await {
        answer.expect(201);
    }

    let events = pair.log.assert_sound().await;
    assert_eq!(events.len(), expected_version + 1 + 1 + 200);
    for (id, version) in versions(&events) {
        let path = format!("/api/v1/users/{id}");
        for client in &clients {
            eventually("the profile in both", async || {
                let answer = client.get(&path).await;
                (answer.status == 200 && answer.json()["version"] == version).then_some(())
            })
            .await;
        }
    }
    published::assert_all(&pair.nats_url, &events).await;
    // Both are content: the one that publishes, and the one that would.
    for client in &clients {
        let ready = client.get("/readyz").await.expect(200).json();
        assert_eq!(ready["checks"]["postgres"]["status"], "up", "{ready}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_one_of_two_services_is_killed_the_other_carries_on_alone() {
    let mut pair = Pair::start().await;
    let clients = pair.clients();
    let many = (0..100).map(|number| {
        let client = clients[number % 2].clone();
        async move { client.create(&format!("user-{number}@example.com")).await }
    });
    for answer in at_once(many).await {
        answer.expect(201);
    }
    pair.one.kill();
    let more = (100..150).map(|number| {
        let client = clients[1].clone();
        async move { client.create(&format!("user-{number}@example.com")).await }
    });
    for answer in at_once(more).await {
        answer.expect(201);
    }
    let events = pair.log.assert_sound().await;
    assert_eq!(events.len(), 150);
    for id in versions(&events).keys() {
        eventually("the profile", async || {
            (clients[1].get(&format!("/api/v1/users/{id}")).await.status == 200).then_some(())
        })
        .await;
    }
    published::assert_all(&pair.nats_url, &events).await;
}
