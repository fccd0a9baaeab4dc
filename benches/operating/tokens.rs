//! Bearer tokens against open mode: two services side by side, measured in turns.

use std::{
    fs,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::json;

use crate::{
    client::{Connection, create_as, get_as},
    load, median,
    rollcall::{Rollcall, Setup, data_directory},
    seconds,
    signer::{Signer, set},
};

const WRITERS: usize = 256;
const READERS: usize = 64;
const ROUNDS: usize = 5;
/// Callers share tokens, as instances of a service do.
const TOKENS: usize = 16;
const USERS: usize = 1_000;
/// Tokens that nobody has seen, for what a signature costs.
const UNSEEN: usize = 20_000;

struct Side {
    service: Rollcall,
    /// Header lines that say who calls; one for each caller in turn.
    who: Vec<String>,
    paths: Vec<String>,
    creates: Vec<f64>,
    gets: Vec<f64>,
}

impl Side {
    fn new(variables: &[(&str, &str)], who: Vec<String>) -> Self {
        let quiet = [("ROLLCALL_LOG", "warn")];
        let variables = quiet.iter().chain(variables);
        let variables = variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let service = Rollcall::start(Setup { variables, ..Setup::default() });
        Self { service, who, paths: Vec::new(), creates: Vec::new(), gets: Vec::new() }
    }

    async fn prepare(&mut self) {
        let mut connection = Connection::open(&self.service.ready.http).await;
        for number in 0..USERS {
            let answer = connection.request(&create_as(&self.who[0], u64::MAX - number as u64)).await;
            assert_eq!(answer.status, 201);
            self.paths.push(answer.location.unwrap());
        }
        self.measure(Duration::from_secs(2)).await;
        (self.creates, self.gets) = (Vec::new(), Vec::new());
    }

    async fn measure(&mut self, during: Duration) {
        let created = load::creates_as(&self.service.ready.http, WRITERS, during, &self.who).await;
        self.creates.push(created.rate());
        let rate = self.read(during).await;
        self.gets.push(rate);
    }

    /// Reads a second by callers that take turns among the users.
    async fn read(&self, during: Duration) -> f64 {
        let begun = Instant::now();
        let readers = (0..READERS).map(|reader| {
            let (base, who) = (self.service.ready.http.clone(), self.who[reader % self.who.len()].clone());
            let paths = self.paths.clone();
            tokio::spawn(async move {
                let mut connection = Connection::open(&base).await;
                let mut done = 0_u64;
                for path in paths.iter().cycle().skip(reader * 17) {
                    if begun.elapsed() >= during {
                        break;
                    }
                    assert_eq!(connection.request(&get_as(&who, path)).await.status, 200);
                    done += 1;
                }
                done
            })
        });
        let mut done = 0;
        for reader in readers.collect::<Vec<_>>() {
            done += reader.await.unwrap();
        }
        done as f64 / begun.elapsed().as_secs_f64()
    }
}

impl Side {
    /// Reads a second, each with a token of its own, until there are no more.
    async fn read_unseen(&self, tokens: Vec<String>) -> f64 {
        let (begun, count) = (Instant::now(), tokens.len() as f64);
        let each = tokens.len() / READERS;
        let readers = tokens.chunks(each).map(|tokens| {
            let (base, path, tokens) =
                (self.service.ready.http.clone(), self.paths[0].clone(), tokens.to_vec());
            tokio::spawn(async move {
                let mut connection = Connection::open(&base).await;
                for who in tokens {
                    assert_eq!(connection.request(&get_as(&who, &path)).await.status, 200);
                }
            })
        });
        for reader in readers.collect::<Vec<_>>() {
            reader.await.unwrap();
        }
        count / begun.elapsed().as_secs_f64()
    }
}

pub async fn measure() {
    let directory = data_directory();
    let signer = Signer::es256("bench");
    let keys = directory.path().join("keys.json");
    fs::write(&keys, set(&[&signer]).to_string()).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let token = |n: usize| {
        let claims = json!({"iss": "https://id.example", "aud": "rollcall", "exp": now + 3_600, "iat": now,
            "sub": format!("svc:bench-{n}"), "tenant": "default", "scope": "users:read users:write"});
        format!("Authorization: Bearer {}\r\n", signer.token(&claims))
    };
    let keys = keys.display().to_string();
    let jwt = [
        ("ROLLCALL_AUTH_MODE", "jwt"),
        ("ROLLCALL_AUTH_ISSUER", "https://id.example"),
        ("ROLLCALL_AUTH_AUDIENCE", "rollcall"),
        ("ROLLCALL_AUTH_JWKS", keys.as_str()),
    ];
    let mut open = Side::new(&[], vec![String::new()]);
    let mut jwt = Side::new(&jwt, (0..TOKENS).map(token).collect());
    open.prepare().await;
    jwt.prepare().await;
    for round in 0..ROUNDS {
        // Who begins changes, so that what one leaves behind for the other evens out.
        let mut sides = [&mut open, &mut jwt];
        sides.rotate_left(round % 2);
        for side in sides {
            side.measure(seconds()).await;
        }
    }
    let unseen: Vec<String> = (TOKENS..TOKENS + UNSEEN).map(token).collect();
    let unseen = jwt.read_unseen(unseen).await;
    for (what, callers, with, without) in [
        ("CreateUser", WRITERS, median(jwt.creates.clone()), median(open.creates)),
        ("GET of a user", READERS, median(jwt.gets.clone()), median(open.gets)),
    ] {
        println!(
            "| {what} with bearer tokens (ES256, keys and tokens known), {callers} connections | {with:.0}/s | open mode \
             {without:.0}/s | {:.3} | ≥ 0.95 |",
            with / without
        );
    }
    println!("| GET of a user, each request with a token that was not seen before | {unseen:.0}/s | | | |");
}
