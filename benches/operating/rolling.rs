//! A rolling restart behind a load balancer: what fails (nothing), and what it adds to the slowest answers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::{
    balancer::Balancer,
    rollcall::{Client, Rollcall},
    site::Site,
    support::{
        report::{Figure, Goal, Report, Unit},
        run::seconds,
    },
};

const CALLERS: u64 = 16;
/// What is sent, whatever comes back: a fifth of what the machine could do, so that there is room for a start.
const PER_SECOND: u64 = 400;
const NOTICE: [(&str, &str); 2] = [("ROLLCALL_SHUTDOWN_NOTICE_S", "1"), ("ROLLCALL_LOG", "warn")];

#[derive(Default)]
struct Seen {
    failed: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
}

pub async fn measure(report: &mut Report) {
    let site = Site::migrated().await;
    let (balancer, url) = Balancer::start().await;
    let mut apis = Vec::new();
    for _ in 0..2 {
        let api = site.start(&["command-api"], &NOTICE);
        balancer.join(&api.ready.http).await;
        apis.push(api);
    }
    let _projector = site.start(&["projector"], &NOTICE);
    run(&url, async || tokio::time::sleep(Duration::from_secs(2)).await).await;
    let (steady, _) = run(&url, async || tokio::time::sleep(seconds() * 2).await).await;
    let (rolling, seen) = run(&url, async || {
        for _ in 0..2 {
            let new = site.start(&["command-api"], &NOTICE);
            balancer.join(&new.ready.http).await;
            let mut old: Rollcall = apis.remove(0);
            apis.push(new);
            tokio::task::spawn_blocking(move || assert!(old.stop().0.success())).await.unwrap();
        }
    })
    .await;
    let p99 = |waits: &Histogram<u64>| waits.value_at_quantile(0.99) as f64 / 1_000.0;
    let name = format!("a rolling restart of two command-api at {PER_SECOND} commands/s");
    let failed = seen.failed.load(Ordering::Relaxed) as f64;
    report.add(
        Figure::new(format!("{name}: failed"), failed, Unit::Count)
            .detail(format!("of {}", seen.done.load(Ordering::Relaxed)))
            .goal(Goal::None),
    );
    report.add(Figure::ms(format!("{name}: p99"), p99(&rolling)).against("without a restart", p99(&steady)));
    drop(apis);
    site.stop().await;
}

/// Sends at a fixed rate while `work` goes on. Each wait counts from when its request was due.
async fn run(url: &str, work: impl AsyncFnOnce()) -> (Histogram<u64>, Arc<Seen>) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let seen = Arc::new(Seen::default());
    let begun = Instant::now();
    let interval = Duration::from_secs_f64(CALLERS as f64 / PER_SECOND as f64);
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (client, seen) = (Client::new(url, "acme"), Arc::clone(&seen));
            tokio::spawn(async move {
                let mut waits = Histogram::<u64>::new(3).unwrap();
                let mut due = begun + interval.mul_f64(caller as f64 / CALLERS as f64);
                while !seen.stop.load(Ordering::Relaxed) {
                    tokio::time::sleep_until(due.into()).await;
                    let email = format!("roll-{}@example.com", NEXT.fetch_add(1, Ordering::Relaxed));
                    let answer = client.create(&email).await;
                    waits.record(u64::try_from(due.elapsed().as_micros()).unwrap()).unwrap();
                    seen.done.fetch_add(1, Ordering::Relaxed);
                    if answer.status != 201 {
                        eprintln!("{} {}", answer.status, answer.text);
                        seen.failed.fetch_add(1, Ordering::Relaxed);
                    }
                    due += interval;
                }
                waits
            })
        })
        .collect();
    work().await;
    seen.stop.store(true, Ordering::Relaxed);
    let mut waits = Histogram::new(3).unwrap();
    for caller in callers {
        waits.add(caller.await.unwrap()).unwrap();
    }
    (waits, seen)
}
