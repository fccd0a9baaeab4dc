//! Three times as many commands as the machine can do: what is served, how fast, and what it costs in memory.
//!
//! The clients want three times the best rate between them. Each has one request out at a time, as clients do, so what is
//! sent is bounded by how many they are: more than may be at work, and then the rest is refused.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::{
    client::{Connection, create},
    load,
    rollcall::{Rollcall, Setup},
    seconds,
};

const BEST_AT: usize = 256;
const TIMES: f64 = 3.0;
const ROUNDS: usize = 3;
/// What every refusal says.
const RETRY_AFTER: Duration = Duration::from_secs(1);

static NEXT: AtomicU64 = AtomicU64::new(1 << 40);

/// Clients: more than limits.requests by default.
const CALLERS: u64 = 8_000;

pub async fn measure() {
    let variables = vec![("ROLLCALL_LOG".to_owned(), "error".to_owned())];
    let service = Rollcall::start(Setup { variables, ..Setup::default() });
    let base = service.ready.http.clone();
    load::creates(&base, BEST_AT, Duration::from_secs(3)).await;
    let mut best = load::creates(&base, BEST_AT, seconds()).await.rate();
    // Buffers of that many connections are there, and caches are full, before memory is compared.
    offer(&base, best * TIMES, seconds() * 2).await;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let memory = tokio::spawn(memory(service.pid(), seconds() * 3));
        let seen = offer(&base, best * TIMES, seconds() * 3).await;
        let memory_mb = memory.await.unwrap();
        // PostgreSQL tidies up as tables grow, now during one measurement, now during another: what came before and after
        // says how fast the machine was.
        let again = load::creates(&base, BEST_AT, seconds()).await.rate();
        let served = seen.served_rate / f64::midpoint(best, again);
        eprintln!("best {best:.0}/s, overloaded {:.0}/s, best again {again:.0}/s", seen.served_rate);
        rounds.push(Round { wanted_rate: best * TIMES, served, memory_mb, seen });
        best = again;
    }
    let (first_mb, last_mb) = (rounds[0].memory_mb.0, rounds[ROUNDS - 1].memory_mb.1);
    rounds.sort_by(|a, b| a.served.total_cmp(&b.served));
    let Round { wanted_rate, served, seen, .. } = &rounds[ROUNDS / 2];
    println!(
        "| {CALLERS} clients that want {wanted_rate:.0} commands/s: served | {:.0}/s | the best before and after: {:.0}/s | \
         {served:.2} | ≥ 0.90 |",
        seen.served_rate,
        seen.served_rate / served
    );
    println!(
        "| the same: p99 of what is served; refused; memory from the first round to the last | {:.0} ms; {:.0}/s; \
         {first_mb:.0} → {last_mb:.0} MB | | | < 1,000 ms; memory flat |",
        seen.latencies.value_at_quantile(0.99) as f64 / 1_000.0,
        seen.refused_rate,
    );
}

/// One load, and how fast the machine was around it.
struct Round {
    wanted_rate: f64,
    /// Of the best rate.
    served: f64,
    memory_mb: (f64, f64),
    seen: Seen,
}

/// In the middle and shortly before the end, with all connections open.
async fn memory(pid: u32, during: Duration) -> (f64, f64) {
    tokio::time::sleep(during / 2).await;
    let middle = resident_mb(pid);
    tokio::time::sleep(during / 3).await;
    (middle, resident_mb(pid))
}

struct Seen {
    served_rate: f64,
    refused_rate: f64,
    latencies: Histogram<u64>,
}

/// Offers a rate as far as the clients get to it. Whoever is refused waits for as long as the refusal says.
async fn offer(base: &str, rate: f64, during: Duration) -> Seen {
    let mut connections = Vec::new();
    for _ in 0..CALLERS {
        connections.push(Connection::open(base).await);
    }
    let (begun, end) = (Instant::now(), Instant::now() + during);
    let interval = Duration::from_secs_f64(CALLERS as f64 / rate);
    let refused = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .zip(connections)
        .map(|(caller, mut connection)| {
            let refused = Arc::clone(&refused);
            tokio::spawn(async move {
                let mut latencies = Histogram::<u64>::new(3).unwrap();
                let mut due = begun + interval.mul_f64(caller as f64 / CALLERS as f64);
                // Who is to wait past the end is done: what is told is a rate over `during` and nothing longer.
                while due.max(Instant::now()) < end {
                    tokio::time::sleep_until(due.into()).await;
                    let sent = Instant::now();
                    match connection.request(&create(NEXT.fetch_add(1, Ordering::Relaxed))).await.status {
                        // Answered too late to be counted in this time.
                        _ if Instant::now() > end => break,
                        201 => latencies.record(u64::try_from(sent.elapsed().as_micros()).unwrap()).unwrap(),
                        503 => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            due = sent + RETRY_AFTER;
                            continue;
                        }
                        other => panic!("{other}"),
                    }
                    due = (due + interval).max(Instant::now());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Histogram::new(3).unwrap();
    for caller in callers {
        latencies.add(caller.await.unwrap()).unwrap();
    }
    let elapsed = during.as_secs_f64();
    Seen {
        served_rate: latencies.len() as f64 / elapsed,
        refused_rate: refused.load(Ordering::Relaxed) as f64 / elapsed,
        latencies,
    }
}

fn resident_mb(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}
