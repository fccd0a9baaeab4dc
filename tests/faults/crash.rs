//! kill -9 of the whole service under load, again and again on one data directory.

use std::{collections::HashMap, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    log::{Log, versions},
    processes, published,
    rng::seeded,
    rollcall::{Answer, Client, Rollcall, Setup, data_directory, eventually},
};

const KILLS: usize = 10;
const WORKERS: usize = 6;

/// A user as its only writer knows it.
struct User {
    id: String,
    /// The given name that each acknowledged version brought.
    acknowledged: HashMap<u64, String>,
    /// Names of changes without a key whose answer was lost: each may have happened once.
    uncertain: Vec<String>,
}

/// A request whose answer never came.
enum Lost {
    Create { key: Option<String>, body: Value },
    Rename { key: Option<String>, user: usize, name: String },
}

/// One client: it asks, waits for the answer, and asks again.
struct Worker {
    rng: StdRng,
    number: usize,
    asked: usize,
    users: Vec<User>,
    lost: Vec<Lost>,
    /// Emails of creations without a key whose answer was lost.
    uncertain: Vec<String>,
}

impl Worker {
    async fn create(client: &Client, key: Option<&str>, body: &Value) -> Option<Answer> {
        let mut request = client.request("POST", "/api/v1/users").json(body);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        Client::send(request).await.ok()
    }

    async fn rename(client: &Client, key: Option<&str>, id: &str, name: &str) -> Option<Answer> {
        let path = format!("/api/v1/users/{id}");
        let mut request = client.request("PATCH", &path).json(&json!({"given_name": name}));
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        Client::send(request).await.ok()
    }

    fn created(&mut self, answer: &Answer, body: &Value) {
        let name = body["given_name"].as_str().unwrap().to_owned();
        let acknowledged = HashMap::from([(1, name)]);
        self.users.push(User { id: answer.id(), acknowledged, uncertain: Vec::new() });
    }

    fn renamed(&mut self, user: usize, answer: &Answer, name: String) {
        let version = answer.json()["version"].as_u64().unwrap();
        let before = self.users[user].acknowledged.insert(version, name);
        assert_eq!(before, None, "two commands made version {version}");
    }

    /// Asks until there is no answer any more.
    async fn work(mut self, client: Client) -> Self {
        loop {
            self.asked += 1;
            let unique = format!("{}-{}", self.number, self.asked);
            let key = self.rng.random_bool(0.5).then(|| format!("key-{unique}"));
            let name = format!("Name {unique}");
            if self.users.is_empty() || self.rng.random_bool(0.4) {
                let body = json!({"email": format!("user-{unique}@example.com"), "given_name": name});
                match Self::create(&client, key.as_deref(), &body).await {
                    Some(answer) => self.created(&answer.expect(201), &body),
                    None => {
                        self.lost.push(Lost::Create { key, body });
                        return self;
                    }
                }
            } else {
                let user = self.rng.random_range(0..self.users.len());
                match Self::rename(&client, key.as_deref(), &self.users[user].id, &name).await {
                    Some(answer) => self.renamed(user, &answer.expect(200), name),
                    None => {
                        self.lost.push(Lost::Rename { key, user, name });
                        return self;
                    }
                }
            }
        }
    }

    /// Asks again, twice at once, what was asked with a key and not answered.
    async fn ask_again(mut self, client: &Client) -> Self {
        for lost in std::mem::take(&mut self.lost) {
            match lost {
                Lost::Create { key: None, body } => {
                    self.uncertain.push(body["email"].as_str().unwrap().to_owned());
                }
                Lost::Rename { key: None, user, name } => self.users[user].uncertain.push(name),
                Lost::Create { key, body } => {
                    let again = || Self::create(client, key.as_deref(), &body);
                    let (one, other) = tokio::join!(again(), again());
                    let (one, other) = (one.unwrap().expect(201), other.unwrap().expect(201));
                    assert_eq!(one.json(), other.json(), "one key made two users");
                    self.created(&one, &body);
                }
                Lost::Rename { key, user, name } => {
                    let id = self.users[user].id.clone();
                    let again = || Self::rename(client, key.as_deref(), &id, &name);
                    let (one, other) = tokio::join!(again(), again());
                    let (one, other) = (one.unwrap().expect(200), other.unwrap().expect(200));
                    assert_eq!(one.json(), other.json(), "one key made two changes");
                    self.renamed(user, &one, name);
                }
            }
        }
        self
    }
}

async fn all<F: Future<Output = Worker> + Send + 'static>(
    workers: Vec<Worker>,
    task: impl Fn(Worker) -> F,
) -> Vec<Worker> {
    let mut tasks = JoinSet::new();
    for worker in workers {
        tasks.spawn(task(worker));
    }
    tasks.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_ten_kills_under_load_once_and_whole() {
    let (mut rng, _) = seeded();
    let place = data_directory();
    let setup = Setup { directory: Some(place.path().to_owned()), ..Setup::default() };
    let data = place.path().join("data");
    let mut workers: Vec<Worker> = (0..WORKERS)
        .map(|number| Worker {
            rng: StdRng::seed_from_u64(rng.random()),
            number,
            asked: 0,
            users: Vec::new(),
            lost: Vec::new(),
            uncertain: Vec::new(),
        })
        .collect();
    for _ in 0..KILLS {
        let mut rollcall = Rollcall::start(setup.clone());
        processes::assert_no_strangers(&data, rollcall.pid());
        let client = rollcall.client("default");
        workers = all(workers, |worker| {
            let client = client.clone();
            async move { worker.ask_again(&client).await }
        })
        .await;
        let alive = Duration::from_millis(rng.random_range(150..700));
        let killer = tokio::task::spawn_blocking(move || {
            std::thread::sleep(alive);
            rollcall.kill();
        });
        workers = all(workers, |worker| worker.work(client.clone())).await;
        killer.await.unwrap();
    }

    let mut rollcall = Rollcall::start(setup);
    processes::assert_no_strangers(&data, rollcall.pid());
    let client = rollcall.client("default");
    workers = all(workers, |worker| {
        let client = client.clone();
        async move { worker.ask_again(&client).await }
    })
    .await;
    assert_everything_is_there(&rollcall, &client, &workers).await;

    rollcall.kill();
    processes::assert_all_end(&data, Duration::from_secs(15));
}

async fn assert_everything_is_there(rollcall: &Rollcall, client: &Client, workers: &[Worker]) {
    let log = Log::open(&rollcall.ready.postgres).await;
    let events = log.assert_sound().await;
    let stored = versions(&events);
    assert_eq!(log.claims().await, i64::try_from(stored.len()).unwrap(), "every user has one email");
    let users: Vec<&User> = workers.iter().flat_map(|worker| &worker.users).collect();
    let commands: usize = users.iter().map(|user| user.acknowledged.len()).sum();
    assert!(commands > KILLS * WORKERS, "only {commands} commands were acknowledged: that is no load");
    println!("{commands} commands on {} users, {} events", users.len(), events.len());

    let maybe_created: usize = workers.iter().map(|worker| worker.uncertain.len()).sum();
    assert!(stored.len() >= users.len() && stored.len() <= users.len() + maybe_created);
    for email in workers.iter().flat_map(|worker| &worker.uncertain) {
        let found = client.post("/api/v1/users/query", json!({"email": email})).await.expect(200).json();
        assert!(found["items"].as_array().unwrap().len() <= 1, "{found}");
    }
    for user in users {
        assert_user(client, user, stored.get(&user.id).copied().unwrap_or_default()).await;
    }
    published::assert_all(&rollcall.ready.nats, &events).await;
}

/// Log, profile and history of a user say what its writer was told.
async fn assert_user(client: &Client, user: &User, stored: u64) {
    let acknowledged = user.acknowledged.len() as u64;
    assert!(
        (acknowledged..=acknowledged + user.uncertain.len() as u64).contains(&stored),
        "{stored} events of {acknowledged} acknowledged and {} uncertain commands",
        user.uncertain.len()
    );
    let path = format!("/api/v1/users/{}", user.id);
    let profile = eventually("the profile", async || {
        let answer = client.get(&path).await;
        (answer.status == 200 && answer.json()["version"] == stored).then(|| answer.json())
    })
    .await;
    let history = eventually("the history", async || {
        let answer = client.get(&format!("{path}/history?page_size=1000")).await;
        let items = (answer.status == 200).then(|| answer.json()["items"].as_array().unwrap().clone())?;
        (items.len() as u64 == stored).then_some(items)
    })
    .await;
    for (item, version) in history.iter().rev().zip(1_u64..) {
        assert_eq!(item["version"], version);
        let changes = item["changes"].as_array().unwrap();
        let name = changes.iter().find(|change| change["path"] == "/given_name").unwrap()["to"].clone();
        match user.acknowledged.get(&version) {
            Some(acknowledged) => assert_eq!(name, *acknowledged, "version {version} of {}", user.id),
            None => assert!(user.uncertain.iter().any(|uncertain| name == *uncertain), "{item}"),
        }
        if version == stored {
            assert_eq!(profile["given_name"], name);
        }
    }
}
