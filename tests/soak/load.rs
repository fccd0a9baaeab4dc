//! The load: clients in each other's way, on users and emails that all of them want, through whichever command-api is there.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    SETTLES_WITHIN,
    request::{Command, Done, Known, Request, TENANT, Wish},
    roles::{Roles, all_ready},
    rollcall::{Client, PATIENCE},
};

const CLIENTS: usize = 8;
/// Between two requests of a client, at most.
const PAUSE_MAX: Duration = Duration::from_millis(80);
/// Users that half of all changes go to.
const HOT_USERS: usize = 6;
/// Emails that users take from each other.
const HOT_EMAILS: usize = 5;
const BATCH_MAX: usize = 6;
/// A request with a key is sent again that often at once, where its answer did not come.
const TRIES: usize = 3;
/// Requests that are sent again in the end although they were answered.
const REPLAYED: usize = 300;

/// What all clients know of users: their newest version that somebody was told of.
#[derive(Default)]
struct Users {
    ids: Vec<String>,
    versions: HashMap<String, u64>,
}

pub struct Load {
    stop: Arc<AtomicBool>,
    clients: JoinSet<Vec<Request>>,
    http: reqwest::Client,
}

/// Everything that was asked for, and what was said.
pub struct Ledger {
    pub requests: Vec<Request>,
    http: reqwest::Client,
}

struct Worker {
    number: usize,
    asked: usize,
    rng: StdRng,
    roles: Roles,
    http: reqwest::Client,
    users: Arc<Mutex<Users>>,
    requests: Vec<Request>,
}

impl Load {
    pub fn start(roles: &Roles, rng: &mut StdRng) -> Self {
        let (stop, users) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let http = reqwest::Client::new();
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let worker = Worker {
                number,
                asked: 0,
                rng: StdRng::seed_from_u64(rng.random()),
                roles: roles.clone(),
                http: http.clone(),
                users: Arc::clone(&users),
                requests: Vec::new(),
            };
            clients.spawn(worker.work(Arc::clone(&stop)));
        }
        Self { stop, clients, http }
    }

    /// Ends only where a client saw what must not be, with that panic.
    pub async fn until_it_fails(&mut self) {
        if let Some(Err(error)) = self.clients.join_next().await {
            std::panic::resume_unwind(error.into_panic());
        }
    }

    /// When the last answer has come or been given up.
    pub async fn stop(self) -> Ledger {
        self.stop.store(true, Ordering::Release);
        let requests = self.clients.join_all().await.into_iter().flatten().collect();
        Ledger { requests, http: self.http }
    }
}

impl Worker {
    async fn work(mut self, stop: Arc<AtomicBool>) -> Vec<Request> {
        while !stop.load(Ordering::Acquire) {
            let mut request = self.request();
            for _ in 0..TRIES {
                let Some(url) = self.roles.urls("command-api").choose(&mut self.rng).cloned() else { break };
                let sent = request.send(&self.http, &url).await;
                self.note(&request);
                if let Some(token) = sent.token {
                    self.read_own_write(&request, &token).await;
                }
                if !request.open() || stop.load(Ordering::Acquire) {
                    break;
                }
            }
            self.requests.push(request);
            sleep(PAUSE_MAX.mul_f64(self.rng.random_range(0.0..1.0))).await;
        }
        self.requests
    }

    fn request(&mut self) -> Request {
        let batch = self.rng.random_bool(0.1);
        let count = if batch { self.rng.random_range(2..=BATCH_MAX) } else { 1 };
        let commands: Vec<Command> = (0..count).map(|_| self.command()).collect();
        let key = self.rng.random_bool(0.5).then(|| format!("key-{}", commands[0].marker));
        Request { commands, batch, key }
    }

    fn command(&mut self) -> Command {
        self.asked += 1;
        let marker = format!("{}-{}", self.number, self.asked);
        let own_email = format!("user-{marker}@example.com");
        let hot_email = format!("hot-{}@example.com", self.rng.random_range(0..HOT_EMAILS));
        let user = self.user();
        let wish = match (self.rng.random_range(0..10), &user) {
            (0..=1, _) | (_, None) => Wish::Create { email: own_email },
            (2, _) => Wish::Create { email: hot_email },
            (3..=4, _) => Wish::ChangeEmail { email: hot_email },
            (5, _) => Wish::ChangeEmail { email: own_email },
            _ => Wish::Update,
        };
        let user = user.filter(|_| !matches!(wish, Wish::Create { .. }));
        let named = self.rng.random_bool(0.3);
        let versions = &self.users.lock().unwrap().versions;
        let if_match = user.as_ref().filter(|_| named).and_then(|user| versions.get(user).copied());
        Command { marker, wish, user, if_match, known: Known::default() }
    }

    /// One of those that everybody changes, or any.
    fn user(&mut self) -> Option<String> {
        let users = self.users.lock().unwrap();
        let hot = &users.ids[..users.ids.len().min(HOT_USERS)];
        let among = if self.rng.random_bool(0.5) { hot } else { &users.ids };
        among.choose(&mut self.rng).cloned()
    }

    fn note(&self, request: &Request) {
        let mut users = self.users.lock().unwrap();
        for Done { id, version, .. } in
            request.commands.iter().filter_map(|command| command.known.done.as_ref())
        {
            match users.versions.get_mut(id) {
                Some(known) => *known = (*known).max(*version),
                None => {
                    users.ids.push(id.clone());
                    users.versions.insert(id.clone(), *version);
                }
            }
        }
    }

    /// Who comes with the token sees what it did, or is told that it is not to be seen yet.
    async fn read_own_write(&mut self, request: &Request, token: &str) {
        let done = request.commands.iter().rev().find_map(|command| command.known.done.as_ref());
        let url = self.roles.urls("query-api").choose(&mut self.rng).cloned();
        let (Some(done), Some(url), true) = (done, url, self.rng.random_bool(0.3)) else { return };
        let sought = self
            .http
            .get(format!("{url}/api/v1/users/{}", done.id))
            .timeout(PATIENCE / 10)
            .header("Tenant", TENANT)
            .header("Consistency-Token", token);
        let Ok(answer) = Client::send(sought).await else { return };
        match answer.status {
            200 => {
                let seen = answer.json()["version"].as_u64().unwrap();
                assert!(
                    seen >= done.version,
                    "a read with a token does not see what it names: {seen} < {done:?}"
                );
            }
            status => {
                assert!(status > 500, "a read with a token does not see what it names: {done:?} {answer:?}")
            }
        }
    }
}

impl Ledger {
    /// Asks again what has a key and an answer that is missing, and some of what was answered: each is done once, and
    /// answered as it was.
    pub async fn ask_again(&mut self, roles: &Roles) {
        all_ready(roles, &self.http).await;
        let urls = roles.urls("command-api");
        let answered = self.requests.iter_mut().filter(|request| request.key.is_some() && !request.open());
        let answered: Vec<&mut Request> = answered.collect();
        let step = answered.len().div_ceil(REPLAYED).max(1);
        let replayed = answered.into_iter().step_by(step);
        for (request, url) in replayed.zip(urls.iter().cycle()) {
            request.send(&self.http, url).await;
        }
        let http = &self.http;
        let open = self.requests.iter_mut().filter(|request| request.open());
        stream::iter(open.zip(urls.iter().cycle()))
            .for_each_concurrent(CLIENTS, async |(request, url)| {
                let deadline = Instant::now() + SETTLES_WITHIN;
                // What was wanted may be somebody else's by now: a refusal is an answer, too.
                while !request.send(http, url).await.heard {
                    assert!(Instant::now() < deadline, "stuck: a command gets no answer: {request:?}");
                }
            })
            .await;
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commands = || self.requests.iter().flat_map(|request| &request.commands);
        let done = commands().filter(|command| command.known.done.is_some()).count();
        let uncertain =
            commands().filter(|command| command.known.done.is_none() && command.known.uncertain).count();
        let refused = commands().count() - done - uncertain;
        write!(f, "{done} commands done, {refused} refused, of {uncertain} nobody was told")
    }
}
