//! Loads: closed (each caller sends when it has its answer) and open (requests come when they come).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::client::{Connection, create, create_as, get};

/// Numbers of users, each used once in a run.
static NEXT: AtomicU64 = AtomicU64::new(1);

fn next() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are a valid precision")
}

fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

/// A closed load's outcome.
pub struct Closed {
    pub done: u64,
    elapsed: Duration,
    latencies: Histogram<u64>,
}

impl Closed {
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64()
    }

    pub fn ms(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// Callers that create users one after the other, each over a connection of its own.
pub async fn creates(base: &str, callers: usize, during: Duration) -> Closed {
    creates_as(base, callers, during, &[String::new()]).await
}

/// The same with header lines that say who calls, for each caller in turn.
pub async fn creates_as(base: &str, callers: usize, during: Duration, who: &[String]) -> Closed {
    let begun = Instant::now();
    let callers = (0..callers).map(|caller| {
        let (base, who) = (base.to_owned(), who[caller % who.len()].clone());
        tokio::spawn(async move {
            let mut connection = Connection::open(&base).await;
            let mut latencies = histogram();
            while begun.elapsed() < during {
                let request = create_as(&who, next());
                let sent = Instant::now();
                let answer = connection.request(&request).await;
                assert_eq!(answer.status, 201, "a create failed");
                latencies.record(micros(sent.elapsed())).expect("within range");
            }
            latencies
        })
    });
    let mut latencies = histogram();
    for caller in callers.collect::<Vec<_>>() {
        latencies.add(caller.await.expect("a caller ends well")).expect("the same precision");
    }
    Closed { done: latencies.len(), elapsed: begun.elapsed(), latencies }
}

/// How long profiles took to become readable after their command was answered.
pub struct Lag {
    pub rate: f64,
    waits: Histogram<u64>,
}

impl Lag {
    pub fn ms(&self, quantile: f64) -> f64 {
        self.waits.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// Creates users at a fixed rate; a sample of the callers reads each profile at once, with the token of its creation.
pub async fn readable_after(base: &str, rate: f64, during: Duration) -> Lag {
    readable_after_on(base, base, rate, during).await
}

/// The same where another process is read.
pub async fn readable_after_on(base: &str, read_base: &str, rate: f64, during: Duration) -> Lag {
    const CALLERS: usize = 64;
    const READERS: usize = 4;
    let begun = Instant::now();
    let interval = Duration::from_secs_f64(CALLERS as f64 / rate);
    let done = Arc::new(AtomicU64::new(0));
    let callers = (0..CALLERS).map(|caller| {
        let (base, read_base, done) = (base.to_owned(), read_base.to_owned(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut connection = Connection::open(&base).await;
            let mut reading = Connection::open(&read_base).await;
            let mut waits = histogram();
            let mut due = begun + interval.mul_f64(caller as f64 / CALLERS as f64);
            while begun.elapsed() < during {
                tokio::time::sleep_until(due.into()).await;
                due += interval;
                let answer = connection.request(&create(next())).await;
                assert_eq!(answer.status, 201, "a create failed");
                done.fetch_add(1, Ordering::Relaxed);
                if caller < READERS {
                    let (Some(path), Some(token)) = (answer.location, answer.token) else {
                        panic!("a create answers with a location and a token");
                    };
                    let answered = Instant::now();
                    let read = reading.request(&get(&path, &token)).await;
                    assert_eq!(read.status, 200, "a profile is not readable");
                    waits.record(micros(answered.elapsed())).expect("within range");
                }
            }
            waits
        })
    });
    let mut waits = histogram();
    for caller in callers.collect::<Vec<_>>() {
        waits.add(caller.await.expect("a caller ends well")).expect("the same precision");
    }
    Lag { rate: done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64(), waits }
}
