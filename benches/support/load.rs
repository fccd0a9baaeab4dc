//! Loads: closed (each connection sends when it has its answer) and open (requests are due when they are due, and what is
//! late counts from there). The clients run on threads of their own, without a scheduler that moves them about.

use std::{
    sync::{Arc, Barrier, Mutex},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use tokio::{
    runtime::{Builder, Runtime},
    sync::Mutex as FairMutex,
    task::{JoinSet, spawn_blocking},
};
use uuid::Uuid;

use super::{
    client::Connection,
    requests::{Creates, Requests, get_after},
    schedule::Schedule,
};

pub type Latencies = Histogram<u64>;

pub fn histogram() -> Latencies {
    Histogram::new(3).expect("three digits are a valid precision")
}

pub fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

pub fn ms(latencies: &Latencies, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1000.0
}

/// What a load saw. Every answer had the status that was expected.
pub struct Seen {
    pub done: u64,
    elapsed: Duration,
    /// In microseconds; of an open load from when each request was due.
    latencies: Latencies,
}

impl Seen {
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64()
    }

    pub fn ms(&self, quantile: f64) -> f64 {
        ms(&self.latencies, quantile)
    }
}

/// A thread's runtime for clients.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn open_all(base: &str, count: usize) -> Vec<Connection> {
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        connections.push(Connection::open(base).await);
    }
    connections
}

/// Waits for all, and panics where one did.
async fn all(mut tasks: JoinSet<()>) {
    while let Some(done) = tasks.join_next().await {
        done.expect("a caller ends well");
    }
}

/// A connection for each of `requests`; all of them are open before the first request is sent.
pub async fn closed<R: Requests>(base: &str, requests: Vec<R>, status: u16, during: Duration) -> Seen {
    closed_after(0, base, requests, status, during).await
}

/// The same over connections that have each had some answers before the first request that counts.
pub async fn closed_after<R: Requests>(
    answers: usize,
    base: &str,
    requests: Vec<R>,
    status: u16,
    during: Duration,
) -> Seen {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(requests.len());
    let mut shares: Vec<Vec<R>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, request) in requests.into_iter().enumerate() {
        shares[index % threads].push(request);
    }
    let barrier = Arc::new(Barrier::new(threads));
    let running: Vec<_> = shares
        .into_iter()
        .map(|share| {
            let (base, barrier) = (base.to_owned(), Arc::clone(&barrier));
            spawn_blocking(move || closed_share(answers, &base, share, status, during, &barrier))
        })
        .collect();
    let mut seen = Seen { done: 0, elapsed: Duration::ZERO, latencies: histogram() };
    for share in running {
        let share = share.await.expect("a thread of clients ends well");
        seen.done += share.done;
        seen.elapsed = seen.elapsed.max(share.elapsed);
        seen.latencies.add(&share.latencies).expect("the same precision");
    }
    seen
}

fn closed_share<R: Requests>(
    answers: usize,
    base: &str,
    mut requests: Vec<R>,
    status: u16,
    during: Duration,
    barrier: &Barrier,
) -> Seen {
    let runtime = runtime();
    let connections = runtime.block_on(async {
        let mut connections = open_all(base, requests.len()).await;
        for (connection, requests) in connections.iter_mut().zip(&mut requests) {
            for _ in 0..answers {
                connection.request(requests.next()).await.expect(status);
            }
        }
        connections
    });
    barrier.wait();
    let latencies = Arc::new(Mutex::new(histogram()));
    let begun = Instant::now();
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for (mut connection, mut requests) in connections.into_iter().zip(requests) {
            let latencies = Arc::clone(&latencies);
            tasks.spawn(async move {
                while begun.elapsed() < during {
                    let sent = Instant::now();
                    connection.request(requests.next()).await.expect(status);
                    record(&latencies, sent);
                }
            });
        }
        all(tasks).await;
    });
    finished(begun, &latencies)
}

fn record(latencies: &Mutex<Latencies>, since: Instant) {
    let mut latencies = latencies.lock().expect("no caller has panicked");
    latencies.record(micros(since.elapsed())).expect("within range");
}

fn finished(begun: Instant, latencies: &Mutex<Latencies>) -> Seen {
    let elapsed = begun.elapsed();
    let latencies = latencies.lock().expect("no caller has panicked").clone();
    Seen { done: latencies.len(), elapsed, latencies }
}

/// Requests at a fixed rate over a connection for each of `requests`, by whichever is free. Where none is, a request waits, and
/// its wait counts.
pub async fn open<R: Requests>(
    base: &str,
    requests: Vec<R>,
    status: u16,
    rate: f64,
    during: Duration,
) -> Seen {
    let base = base.to_owned();
    let work = move || {
        let runtime = runtime();
        runtime.block_on(async {
            let connections = open_all(&base, requests.len()).await;
            let latencies = Arc::new(Mutex::new(histogram()));
            let begun = Instant::now();
            // Fair: free connections take turns.
            let schedule = Arc::new(FairMutex::new(Schedule::begin(rate, during)));
            let mut tasks = JoinSet::new();
            for (mut connection, mut requests) in connections.into_iter().zip(requests) {
                let (schedule, latencies) = (Arc::clone(&schedule), Arc::clone(&latencies));
                tasks.spawn(async move {
                    while let Some(due) = next(&schedule).await {
                        connection.request(requests.next()).await.expect(status);
                        record(&latencies, due);
                    }
                });
            }
            all(tasks).await;
            finished(begun, &latencies)
        })
    };
    spawn_blocking(work).await.expect("a thread of clients ends well")
}

async fn next(schedule: &FairMutex<Schedule>) -> Option<Instant> {
    schedule.lock().await.next().await
}

/// Callers that create users one after the other, each over a connection of its own.
pub async fn creates(base: &str, callers: usize, during: Duration) -> Seen {
    creates_by(base, callers, during, &[String::new()]).await
}

/// The same with header lines that say who calls, for each caller in turn.
pub async fn creates_by(base: &str, callers: usize, during: Duration, who: &[String]) -> Seen {
    let requests = (0..callers).map(|caller| Creates::by(&who[caller % who.len()])).collect();
    closed(base, requests, 201, during).await
}

/// How long profiles took to become readable after their command was answered.
pub struct Lag {
    pub rate: f64,
    pub done: u64,
    waits: Latencies,
    /// Users of a sample, and when their command was answered.
    pub answered: Vec<(Uuid, Instant)>,
}

impl Lag {
    pub fn ms(&self, quantile: f64) -> f64 {
        ms(&self.waits, quantile)
    }
}

/// One in so many creations is looked at.
const SAMPLE: u64 = 8;
const LAG_CONNECTIONS: usize = 128;

/// Creates users at a fixed rate; of a sample, each profile is read at once, with the token of its creation.
pub async fn readable_after(base: &str, rate: f64, during: Duration) -> Lag {
    readable_after_on(base, base, rate, during).await
}

/// The same where another process is read.
pub async fn readable_after_on(base: &str, read_base: &str, rate: f64, during: Duration) -> Lag {
    let (base, read_base) = (base.to_owned(), read_base.to_owned());
    let work = move || runtime().block_on(lag(&base, &read_base, rate, during));
    spawn_blocking(work).await.expect("a thread of clients ends well")
}

async fn lag(base: &str, read_base: &str, rate: f64, during: Duration) -> Lag {
    let writing = open_all(base, LAG_CONNECTIONS).await;
    let reading = open_all(read_base, LAG_CONNECTIONS).await;
    let waits = Arc::new(Mutex::new(histogram()));
    let answered = Arc::new(Mutex::new((0_u64, Vec::new())));
    let begun = Instant::now();
    let schedule = Arc::new(FairMutex::new(Schedule::begin(rate, during)));
    let mut tasks = JoinSet::new();
    for (mut connection, mut reading) in writing.into_iter().zip(reading) {
        let (schedule, waits, answered) = (Arc::clone(&schedule), Arc::clone(&waits), Arc::clone(&answered));
        tasks.spawn(async move {
            let mut creates = Creates::new();
            while next(&schedule).await.is_some() {
                let answer = connection.request(creates.next()).await.expect(201);
                let at = Instant::now();
                let (path, token) = {
                    let mut answered = answered.lock().expect("no caller has panicked");
                    answered.0 += 1;
                    if !answered.0.is_multiple_of(SAMPLE) {
                        continue;
                    }
                    let (Some(path), Some(token)) =
                        (answer.header("location"), answer.header("consistency-token"))
                    else {
                        panic!("a create answers with a location and a token");
                    };
                    let id = path.rsplit('/').next().and_then(|id| id.parse().ok()).expect("an id in a path");
                    answered.1.push((id, at));
                    (path, token)
                };
                reading.request(&get_after(path, token)).await.expect(200);
                record(&waits, at);
            }
        });
    }
    all(tasks).await;
    let rate = {
        let done = answered.lock().expect("no caller has panicked").0;
        done as f64 / begun.elapsed().as_secs_f64()
    };
    let (done, answered) = std::mem::take(&mut *answered.lock().expect("no caller has panicked"));
    let waits = waits.lock().expect("no caller has panicked").clone();
    Lag { rate, done, waits, answered }
}
