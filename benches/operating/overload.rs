//! Three times as many commands as the machine can do: what is served, how fast, and what it costs in memory.
//!
//! The clients want three times the best rate between them. Each has one request out at a time, as clients do, so what is
//! sent is bounded by how many they are: more than may be at work, and then the rest is refused.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::{
    rollcall::{Rollcall, Setup},
    support::{
        client::Connection,
        load,
        process::resident_mb,
        report::{Figure, Goal, Report, thousands},
        requests::{Creates, Requests},
        run::{middle, rounds, seconds},
    },
};

const BEST_AT: usize = 256;
const TIMES: f64 = 3.0;
/// What every refusal says.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Clients: more than limits.requests by default.
const CALLERS: u64 = 8_000;

pub async fn measure(report: &mut Report) {
    let variables = vec![("ROLLCALL_LOG".to_owned(), "error".to_owned())];
    let service = Rollcall::start(Setup { variables, ..Setup::default() });
    let base = service.ready.http.clone();
    load::creates(&base, BEST_AT, Duration::from_secs(3)).await;
    let mut best = load::creates(&base, BEST_AT, seconds()).await.rate();
    // Buffers of that many connections are there, and caches are full, before memory is compared.
    offer(&base, best * TIMES, seconds() * 2).await;
    let mut seen_rounds = Vec::new();
    for _ in 0..rounds() {
        let memory = tokio::spawn(memory(service.pid(), seconds() * 3));
        let seen = offer(&base, best * TIMES, seconds() * 3).await;
        let memory_mb = memory.await.unwrap();
        // PostgreSQL tidies up as tables grow, now during one measurement, now during another: what came before and after
        // says how fast the machine was.
        let again = load::creates(&base, BEST_AT, seconds()).await.rate();
        let served = seen.served_rate / f64::midpoint(best, again);
        eprintln!("best {best:.0}/s, overloaded {:.0}/s, best again {again:.0}/s", seen.served_rate);
        seen_rounds.push(Round { wanted_rate: best * TIMES, served, memory_mb, seen });
        best = again;
    }
    let first_mb = seen_rounds[0].memory_mb.0;
    let last_mb = seen_rounds[seen_rounds.len() - 1].memory_mb.1;
    let Round { wanted_rate, served, seen, .. } = middle(seen_rounds, |round| round.served);
    let clients = thousands(CALLERS as f64);
    let name = format!("{clients} clients that want {} commands/s", thousands(wanted_rate));
    report.add(
        Figure::rate(format!("{name}: served"), seen.served_rate)
            .detail(format!("{}/s refused", thousands(seen.refused_rate)))
            .against("the best before and after", seen.served_rate / served)
            .goal(Goal::RatioAtLeast(0.9)),
    );
    let p99_ms = seen.latencies.value_at_quantile(0.99) as f64 / 1_000.0;
    report.add(Figure::ms(format!("{name}: p99 of what is served"), p99_ms).goal(Goal::Below(1_000.0)));
    report.add(
        Figure::mb(format!("{name}: memory in the last round"), last_mb)
            .against("in the first", first_mb)
            .goal(Goal::RatioAtMost(1.1)),
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
                let mut creates = Creates::new();
                let mut due = begun + interval.mul_f64(caller as f64 / CALLERS as f64);
                // Who is to wait past the end is done: what is told is a rate over `during` and nothing longer.
                while due.max(Instant::now()) < end {
                    tokio::time::sleep_until(due.into()).await;
                    let sent = Instant::now();
                    match connection.request(creates.next()).await.status {
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
