//! Answers that are lost between the commit and whoever waits for them: on the client's side and on the database's.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollcall_private_servers::{DataDir, Postgres};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    log::{Log, versions},
    proxy::{Fault, Plan, Proxy},
    published,
    rng::seeded,
    rollcall::{Answer, Client, Rollcall, Setup, data_directory, eventually},
};

const APPEND: &str = "rollcall-append";
/// How long a connection may be silent in the middle of an answer before the service must have made another.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(60);

/// The service with a proxy between it and PostgreSQL.
struct Proxied {
    rollcall: Rollcall,
    proxy: Proxy,
    log: Log,
    _postgres: Postgres,
    _place: tempfile::TempDir,
}

impl Proxied {
    async fn start() -> Self {
        let place = data_directory();
        let directory = DataDir::open(Some(place.path().join("database"))).unwrap();
        let postgres = Postgres::start(&directory).await.unwrap();
        let log = Log::open(postgres.owner_url()).await;
        let (proxy, url) = Proxy::before(postgres.owner_url()).await;
        let variables = vec![("DATABASE_URL".to_owned(), url)];
        let rollcall =
            tokio::task::spawn_blocking(|| Rollcall::start(Setup { variables, ..Setup::default() }));
        Self { rollcall: rollcall.await.unwrap(), proxy, log, _postgres: postgres, _place: place }
    }

    fn next(&self, faults: &[Fault]) {
        self.proxy.plan(Plan::Next(APPEND, faults.iter().copied().collect()));
    }
}

fn user(email: &str) -> Value {
    json!({"email": email, "given_name": "Ada"})
}

async fn create_with_key(client: &Client, key: &str, email: &str) -> Answer {
    client.call("POST", "/api/v1/users", &[("Idempotency-Key", key)], Some(&user(email))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_up_before_the_answer_and_asks_again_with_its_key_makes_one_user() {
    let rollcall = Rollcall::start(Setup::default());
    let client = rollcall.client("default");
    let host = rollcall.ready.http.strip_prefix("http://").unwrap().to_owned();
    let (mut rng, _) = seeded();
    for number in 0..40 {
        let email = format!("user-{number}@example.com");
        let body = user(&email).to_string();
        let request = format!(
            "POST /api/v1/users HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nTenant: default\r\n\
             Idempotency-Key: key-{number}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(&host).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        // From before it was read to after it was answered.
        let until = Instant::now() + Duration::from_micros(rng.random_range(0..8_000));
        match number % 3 {
            0 => drop(stream),
            1 => {
                tokio::time::sleep_until(until.into()).await;
                drop(stream);
            }
            _ => {
                // The answer has begun: it was committed. What follows is never read.
                stream.read_u8().await.unwrap();
                drop(stream);
            }
        }
        let key = format!("key-{number}");
        let (one, other) =
            tokio::join!(create_with_key(&client, &key, &email), create_with_key(&client, &key, &email));
        let (one, other) = (one.expect(201), other.expect(201));
        assert_eq!((one.json(), one.header("location")), (other.json(), other.header("location")));
    }
    let log = Log::open(&rollcall.ready.postgres).await;
    assert_eq!(log.assert_sound().await.len(), 40);
    assert_eq!(log.claims().await, 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_of_the_database_is_asked_for_and_nothing_happens_twice() {
    let service = Proxied::start().await;
    let client = service.rollcall.client("default");
    let faults = [
        Fault::Before,
        Fault::Half,
        Fault::During,
        Fault::After,
        Fault::Late(Duration::from_secs(2)),
        Fault::SilentThenBroken(Duration::from_secs(1)),
    ];
    let mut expected = 0;
    for (number, fault) in faults.into_iter().enumerate() {
        for (key, times) in [(None, 1), (Some("key"), 1), (None, 3)] {
            let key = key.map(|key| format!("{key}-{number}"));
            let mut headers = vec![];
            if let Some(key) = &key {
                headers.push(("Idempotency-Key", key.as_str()));
            }
            let unique = format!("{number}-{}-{times}", key.is_some());
            let faults = vec![fault; times];
            let struck = service.proxy.faults();

            service.next(&faults);
            let email = format!("user-{unique}@example.com");
            let created =
                client.call("POST", "/api/v1/users", &headers, Some(&user(&email))).await.expect(201);
            assert_eq!(created.json()["version"], 1, "{fault:?}");
            let path = format!("/api/v1/users/{}", created.id());
            expected += 1;
            assert_eq!(service.log.events().await.len(), expected, "{fault:?}: creating");

            service.next(&faults);
            let renamed = client.call("PATCH", &path, &headers, Some(&json!({"given_name": "Bea"}))).await;
            match &key {
                // The key is the one of the creation.
                Some(_) => assert_eq!(renamed.expect(422).code(), "idempotency-key-reused"),
                None => {
                    assert_eq!(renamed.expect(200).json()["version"], 2, "{fault:?}");
                    expected += 1;
                }
            }
            assert_eq!(service.log.events().await.len(), expected, "{fault:?}: renaming");

            service.next(&faults);
            let body = json!({"email": format!("new-{email}")});
            let moved = client.post(&format!("{path}/change-email"), body.clone()).await.expect(200);
            expected += 1;
            assert_eq!(service.log.events().await.len(), expected, "{fault:?}: changing the email");
            // A command that changes nothing leaves a record alone.
            service.next(&faults);
            let nothing = format!("nothing-{unique}");
            let nothing = [("Idempotency-Key", nothing.as_str())];
            for _ in 0..2 {
                let same = client.call("POST", &format!("{path}/change-email"), &nothing, Some(&body)).await;
                assert_eq!(same.expect(200).json()["version"], moved.json()["version"], "{fault:?}");
            }
            assert_eq!(service.log.events().await.len(), expected, "{fault:?}: changing nothing");
            service.proxy.plan(Plan::Through);
            assert!(service.proxy.faults() >= struck + 3, "{fault:?} struck too rarely");
        }
    }
    // What was released is free, and what was taken is taken.
    client.create("user-0-false-1@example.com").await.expect(201);
    assert_eq!(client.create("new-user-0-false-1@example.com").await.expect(409).code(), "email-taken");
    let events = service.log.assert_sound().await;
    assert_eq!(events.len(), expected + 1);
    assert_eq!(service.log.claims().await, i64::try_from(versions(&events).len()).unwrap());
    published::assert_all(&service.rollcall.ready.nats, &events).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_whose_answer_was_lost_is_answered_item_by_item() {
    let service = Proxied::start().await;
    let client = service.rollcall.client("default");
    client.create("taken@example.com").await.expect(201);
    let mut events = 1;
    for (number, fault) in [Fault::During, Fault::After, Fault::Half].into_iter().enumerate() {
        let mut commands: Vec<Value> = (0..40)
            .map(
                |item| json!({"type": "CreateUser", "data": user(&format!("u-{number}-{item}@example.com"))}),
            )
            .collect();
        commands.push(json!({"type": "CreateUser", "data": user("taken@example.com")}));
        service.next(&[fault]);
        let struck = service.proxy.faults();
        let answer = client.post("/api/v1/commands", Value::Array(commands)).await.expect(200).json();
        assert!(service.proxy.faults() > struck, "{fault:?}");
        let outcomes = answer["outcomes"].as_array().unwrap();
        let (last, created) = outcomes.split_last().unwrap();
        assert!(created.iter().all(|outcome| outcome["status"] == 201), "{fault:?}: {answer}");
        assert_eq!(last["problem"]["code"], "email-taken", "{fault:?}: {last}");
        events += created.len();
        assert_eq!(service.log.assert_sound().await.len(), events, "{fault:?}");
    }
    assert_eq!(service.log.claims().await, i64::try_from(events).unwrap());
}

/// What a client of the random run was told.
#[derive(Default)]
struct Told {
    /// Versions of users that were acknowledged.
    acknowledged: HashMap<String, HashSet<u64>>,
    /// Commands on users whose outcome is unknown.
    unknown: HashMap<String, u64>,
    created: HashMap<String, String>,
    /// Emails of creations whose outcome is unknown.
    maybe_created: HashSet<String>,
    /// Emails of creations that were refused because nothing was stored.
    not_created: HashSet<String>,
}

impl Told {
    /// Whether it succeeded; a 503 says whether anything may have happened.
    fn outcome(answer: &Answer) -> Outcome {
        if answer.status < 300 {
            return Outcome::Done;
        }
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(matches!(answer.code().as_str(), "unavailable" | "overloaded"), "{answer:?}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        if detail.contains("nothing was changed") { Outcome::Nothing } else { Outcome::Unknown }
    }

    async fn ask(mut self, client: Client, mut rng: StdRng, number: usize, until: Instant) -> Self {
        let mut asked = 0;
        while Instant::now() < until {
            asked += 1;
            let unique = format!("{number}-{asked}");
            let key = format!("key-{unique}");
            let headers = [("Idempotency-Key", key.as_str())];
            let headers = if rng.random_bool(0.5) { &headers[..] } else { &[] };
            if self.created.is_empty() || rng.random_bool(0.4) {
                let email = format!("user-{unique}@example.com");
                let body = user(&email);
                let mut answer = client.call("POST", "/api/v1/users", headers, Some(&body)).await;
                if !headers.is_empty() && answer.status == 503 {
                    answer = client.call("POST", "/api/v1/users", headers, Some(&body)).await;
                }
                match Self::outcome(&answer) {
                    Outcome::Done => {
                        self.acknowledged.entry(answer.id()).or_default().insert(1);
                        self.created.insert(answer.id(), email);
                    }
                    Outcome::Unknown => drop(self.maybe_created.insert(email)),
                    Outcome::Nothing if headers.is_empty() => drop(self.not_created.insert(email)),
                    // Of the first of the two nothing is known.
                    Outcome::Nothing => drop(self.maybe_created.insert(email)),
                }
            } else {
                let nth = rng.random_range(0..self.created.len());
                let id = self.created.keys().nth(nth).unwrap().clone();
                let path = format!("/api/v1/users/{id}");
                let body = json!({"given_name": format!("Name {unique}")});
                let answer = client.call("PATCH", &path, headers, Some(&body)).await;
                match Self::outcome(&answer) {
                    Outcome::Done => {
                        let version = answer.json()["version"].as_u64().unwrap();
                        let new = self.acknowledged.entry(id).or_default().insert(version);
                        assert!(new, "two commands made one version: {answer:?}");
                    }
                    Outcome::Unknown => *self.unknown.entry(id).or_default() += 1,
                    Outcome::Nothing => {}
                }
                let read = client.get(&path).await;
                assert!(matches!(read.status, 200 | 404 | 503), "{read:?}");
            }
        }
        self
    }

    async fn check(&self, client: &Client, stored: &std::collections::BTreeMap<String, u64>) {
        for (id, acknowledged) in &self.acknowledged {
            let (stored, acknowledged) = (stored[id], acknowledged.len() as u64);
            let unknown = self.unknown.get(id).copied().unwrap_or_default();
            assert!(
                (acknowledged..=acknowledged + unknown).contains(&stored),
                "{stored} events of {acknowledged} acknowledged and {unknown} unknown commands on {id}"
            );
            let path = format!("/api/v1/users/{id}");
            eventually("the profile", async || {
                let answer = client.get(&path).await;
                (answer.status == 200 && answer.json()["version"] == stored).then_some(())
            })
            .await;
        }
        let users_of = async |email: &str| {
            let found = client.post("/api/v1/users/query", json!({"email": email})).await.expect(200).json();
            found["items"].as_array().unwrap().len()
        };
        for email in self.created.values() {
            assert_eq!(users_of(email).await, 1, "{email}");
        }
        for email in &self.maybe_created {
            assert!(users_of(email).await <= 1, "{email}");
        }
        for email in &self.not_created {
            assert_eq!(users_of(email).await, 0, "{email} was refused with \"nothing was changed\"");
        }
    }
}

enum Outcome {
    Done,
    Unknown,
    Nothing,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_random_cuts_what_was_acknowledged_is_there_once_and_the_rest_at_most_once() {
    let (mut rng, seed) = seeded();
    let service = Proxied::start().await;
    let client = service.rollcall.client("default");
    let short = Duration::from_millis(300);
    let faults = vec![
        Fault::Before,
        Fault::Half,
        Fault::During,
        Fault::After,
        Fault::Late(short),
        Fault::SilentThenBroken(short),
    ];
    let chance = StdRng::seed_from_u64(rng.random());
    service.proxy.plan(Plan::Chance(Box::new(chance), 0.03, faults));
    let until = Instant::now() + Duration::from_secs(15);
    let mut tasks = JoinSet::new();
    for number in 0..12 {
        let rng = StdRng::seed_from_u64(rng.random());
        tasks.spawn(Told::default().ask(client.clone(), rng, number, until));
    }
    let told = tasks.join_all().await;
    service.proxy.plan(Plan::Through);
    let acknowledged: usize = told.iter().flat_map(|told| told.acknowledged.values()).map(HashSet::len).sum();
    let faults = service.proxy.faults();
    println!("seed {seed}: {faults} faults, {acknowledged} commands acknowledged");
    assert!(faults > 50 && acknowledged > 200, "{faults} faults, {acknowledged} commands acknowledged");

    let events = service.log.assert_sound().await;
    let stored = versions(&events);
    let total: HashSet<&String> = told.iter().flat_map(|told| told.created.keys()).collect();
    let maybe: usize = told.iter().map(|told| told.maybe_created.len()).sum();
    assert!(stored.len() >= total.len() && stored.len() <= total.len() + maybe);
    assert_eq!(service.log.claims().await, i64::try_from(stored.len()).unwrap());
    for told in &told {
        told.check(&client, &stored).await;
    }
    published::assert_all(&service.rollcall.ready.nats, &events).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyed_command_of_unknown_outcome_is_not_answered_nothing_was_changed() {
    let service = Proxied::start().await;
    let client = service.rollcall.client("default");
    // Whichever writer takes it has its connection by then: the fault meets the append.
    for number in 0..16 {
        client.create(&format!("first-{number}@example.com")).await.expect(201);
    }
    // The answer is lost, and nobody can ask about it either.
    service.next(&[Fault::AfterThenAway]);
    let later = async {
        eventually("the fault", async || service.proxy.is_away().then_some(())).await;
        client.create("later@example.com").await
    };
    let (keyed, later) = tokio::join!(create_with_key(&client, "key", "keyed@example.com"), later);
    for answer in [&keyed, &later] {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.code(), "unavailable");
        assert!(answer.header("retry-after").is_some());
    }
    let detail = keyed.json()["detail"].as_str().unwrap().to_owned();
    assert_eq!(service.log.assert_sound().await.len(), 17, "the first was committed, the second never sent");
    assert!(detail.contains("unknown") && !detail.contains("nothing was changed"), "{detail}");

    service.proxy.come_back();
    let again = eventually("an answer", async || {
        let answer = create_with_key(&client, "key", "keyed@example.com").await;
        (answer.status != 503).then_some(answer)
    });
    let again = again.await.expect(201);
    let events = service.log.assert_sound().await;
    assert_eq!((events.len(), versions(&events).get(&again.id())), (17, Some(&1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_meets_no_connection_that_died_since_the_last_one() {
    let service = Proxied::start().await;
    let client = service.rollcall.client("default");
    let created = client.create("ada@example.com").await.expect(201);
    let path = format!("/api/v1/users/{}", created.id());
    client.get_after(&path, created.token()).await.expect(200);
    let listings = ["/api/v1/users".to_owned(), "/api/v1/audit".to_owned(), format!("{path}/events")];
    for _ in 0..3 {
        let all = listings.iter().cycle().take(12).map(|listing| client.get(listing));
        for answer in join_all(all).await {
            answer.expect(200);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        service.proxy.silence_all();
        for listing in &listings {
            let begun = Instant::now();
            client.get(listing).await.expect(200);
            assert!(begun.elapsed() < Duration::from_secs(3), "{listing} took {:?}", begun.elapsed());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_die_without_a_word_are_given_up() {
    let service = Proxied::start().await;
    let client = service.rollcall.client("default");
    let created = client.create("ada@example.com").await.expect(201);
    let path = format!("/api/v1/users/{}", created.id());
    client.get_after(&path, created.token()).await.expect(200);
    client.patch(&path, json!({"given_name": "Bea"})).await.expect(200);
    service.proxy.silence_all();
    let begun = Instant::now();
    let again = |what: &'static str| {
        let (client, path) = (client.clone(), path.clone());
        async move {
            let mut number = 0;
            while begun.elapsed() < GIVEN_UP_WITHIN {
                number += 1;
                let ask = async {
                    match what {
                        "creating" => client.create(&format!("user-{number}@example.com")).await,
                        "changing" => client.patch(&path, json!({"given_name": "Cyd"})).await,
                        "reading" => client.get(&path).await,
                        "history" => client.get(&format!("{path}/history")).await,
                        _ => client.get("/api/v1/users").await,
                    }
                };
                let answer = tokio::time::timeout(GIVEN_UP_WITHIN / 2, ask).await;
                if answer.is_ok_and(|answer| answer.status < 300) {
                    println!("{what} works after {:?}", begun.elapsed());
                    return None;
                }
            }
            Some(what)
        }
    };
    let (creating, changing, reading, history, listing) = tokio::join!(
        again("creating"),
        again("changing"),
        again("reading"),
        again("history"),
        again("listing")
    );
    let hanging = [creating, changing, reading, history, listing];
    let hanging: Vec<_> = hanging.into_iter().flatten().collect();
    assert!(hanging.is_empty(), "after {:?} these still hang: {hanging:?}", begun.elapsed());
    eventually("the projections", async || {
        let answer = tokio::time::timeout(Duration::from_secs(10), client.get(&path)).await.ok()?;
        (answer.status == 200 && answer.json()["given_name"] == "Cyd").then_some(())
    })
    .await;
    published::assert_all(&service.rollcall.ready.nats, &service.log.assert_sound().await).await;
}
