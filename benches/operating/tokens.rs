//! Bearer tokens against open mode: two services side by side, measured in turns.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::json;

use uuid::Uuid;

use crate::{
    rollcall::{Rollcall, Setup, data_directory},
    signer::{Signer, set},
    support::{
        client::Connection,
        load,
        report::{Figure, Goal, Report},
        requests::{Creates, Gets, Pick, Requests},
        run::{median, rounds, seconds},
    },
};

const WRITERS: usize = 256;
const READERS: usize = 64;
/// Callers share tokens, as instances of a service do.
const TOKENS: usize = 16;
const USERS: usize = 1_000;
const WARMED_FOR: Duration = Duration::from_secs(2);
/// How long it takes at most until nothing of what was created is still to be projected, which would slow down readers.
const PROJECTED_WITHIN: Duration = Duration::from_secs(10);
/// Tokens that nobody has seen, for what a signature costs.
const UNSEEN: usize = 20_000;

struct Side {
    service: Rollcall,
    /// Header lines that say who calls; one for each caller in turn.
    who: Vec<String>,
    users: Arc<Vec<Uuid>>,
    creates: Vec<f64>,
    gets: Vec<f64>,
}

impl Side {
    fn new(variables: &[(&str, &str)], who: Vec<String>) -> Self {
        let quiet = [("ROLLCALL_LOG", "warn")];
        let variables = quiet.iter().chain(variables);
        let variables = variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let service = Rollcall::start(Setup { variables, ..Setup::default() });
        Self { service, who, users: Arc::default(), creates: Vec::new(), gets: Vec::new() }
    }

    async fn prepare(&mut self) {
        let mut connection = Connection::open(&self.service.ready.http).await;
        let mut creates = Creates::by(&self.who[0]);
        let mut users = Vec::new();
        for _ in 0..USERS {
            let answer = connection.request(creates.next()).await.expect(201);
            let path = answer.header("location").unwrap();
            users.push(path.rsplit('/').next().unwrap().parse().unwrap());
        }
        self.users = Arc::new(users);
        self.create(WARMED_FOR).await;
        self.read(WARMED_FOR).await;
    }

    /// Creations a second.
    async fn create(&self, during: Duration) -> f64 {
        load::creates_by(&self.service.ready.http, WRITERS, during, &self.who).await.rate()
    }

    /// Reads a second by callers that take turns among the users.
    async fn read(&self, during: Duration) -> f64 {
        let pick = Pick::in_turn();
        let readers = (0..READERS)
            .map(|reader| Gets::with(&self.who[reader % self.who.len()], &self.users, pick.clone()))
            .collect();
        load::closed(&self.service.ready.http, readers, 200, during).await.rate()
    }
}

impl Side {
    /// Reads a second, each with a token of its own, until there are no more.
    async fn read_unseen(&self, tokens: Vec<String>) -> f64 {
        let (begun, count) = (Instant::now(), tokens.len() as f64);
        let each = tokens.len() / READERS;
        let readers = tokens.chunks(each).map(|tokens| {
            let (base, users, tokens) =
                (self.service.ready.http.clone(), Arc::clone(&self.users), tokens.to_vec());
            tokio::spawn(async move {
                let mut connection = Connection::open(&base).await;
                for who in tokens {
                    let mut get = Gets::with(&who, &users, Pick::in_turn());
                    connection.request(get.next()).await.expect(200);
                }
            })
        });
        for reader in readers.collect::<Vec<_>>() {
            reader.await.unwrap();
        }
        count / begun.elapsed().as_secs_f64()
    }
}

pub async fn measure(report: &mut Report) {
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
    // Who begins changes, so that what one leaves behind for the other evens out.
    for round in 0..rounds() {
        let mut sides = [&mut open, &mut jwt];
        sides.rotate_left(round % 2);
        for side in sides {
            let rate = side.create(seconds()).await;
            side.creates.push(rate);
        }
    }
    tokio::time::sleep(PROJECTED_WITHIN).await;
    for round in 0..rounds() {
        let mut sides = [&mut open, &mut jwt];
        sides.rotate_left(round % 2);
        for side in sides {
            let rate = side.read(seconds()).await;
            side.gets.push(rate);
        }
    }
    let unseen: Vec<String> = (TOKENS..TOKENS + UNSEEN).map(token).collect();
    let unseen = jwt.read_unseen(unseen).await;
    for (what, callers, with, without) in [
        ("CreateUser", WRITERS, median(&jwt.creates), median(&open.creates)),
        ("GET of a user", READERS, median(&jwt.gets), median(&open.gets)),
    ] {
        report.add(
            Figure::rate(
                format!("{what} with bearer tokens (ES256, keys and tokens known), {callers} connections"),
                with,
            )
            .against("open mode", without)
            .goal(Goal::RatioAtLeast(0.95)),
        );
    }
    report.add(Figure::rate("GET of a user, each request with a token that was not seen before", unseen));
}
