//! Everything in one process: what commands cost with every projection at work, how late readers and subscribers are, and
//! where the knee is.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, consumer::DeliverPolicy, consumer::pull};
use futures_util::StreamExt;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::{
    reads::{READERS, random},
    rollcall::Rollcall,
    support::{
        load::{self, Seen, histogram, micros, ms},
        process::resident_mb,
        report::{Figure, Goal, Report, thousands},
        requests::{BatchGets, Creates, Pick},
        run::{middle, rounds, seconds},
    },
    world::{self, World},
    writes::{CALLERS, create_once, quantiles},
};

const PERCENTS: [u32; 3] = [25, 50, 75];
const HEARD_WITHIN: Duration = Duration::from_secs(60);

/// The highest rate of creations.
pub async fn create(world: &mut World, up: &Rollcall, report: &mut Report) -> f64 {
    create_once(world, &up.ready.http).await;
    let mut seen = Vec::new();
    for _ in 0..rounds() {
        seen.push(create_once(world, &up.ready.http).await);
    }
    let seen = middle(seen, Seen::rate);
    let name =
        format!("CreateUser over HTTP, {CALLERS} connections, up with everything projected and published");
    report.add(Figure::rate(name, seen.rate()).detail(quantiles(&seen)));
    seen.rate()
}

/// From a command's answer to what others see of it, at half of the highest rate.
pub async fn lag(world: &mut World, up: &Rollcall, highest: f64, report: &mut Report) {
    let (mut readable, mut received) = (Vec::new(), Vec::new());
    for _ in 0..rounds() {
        let subscriber = Subscriber::start(&up.ready.nats).await;
        let lag = load::readable_after(&up.ready.http, highest / 2.0, seconds()).await;
        let done = usize::try_from(lag.done).unwrap();
        world.acknowledge(done, done).await;
        let mut waits = histogram();
        for wait in subscriber.waits(&lag.answered).await {
            waits.record(micros(wait)).unwrap();
        }
        received.push((ms(&waits, 0.5), ms(&waits, 0.99)));
        readable.push(lag);
    }
    let lag = middle(readable, |lag| lag.ms(0.99));
    let name = format!("from an answer, at {} commands/s", thousands(lag.rate));
    report.add(
        Figure::ms(format!("{name}, to its profile being readable: p99"), lag.ms(0.99))
            .detail(format!("p50 {:.1} ms", lag.ms(0.5)))
            .goal(Goal::Below(25.0)),
    );
    let (p50, p99) = middle(received, |(_, p99)| *p99);
    report.add(
        Figure::ms(format!("{name}, to a JetStream subscriber having its event: p99"), p99)
            .detail(format!("p50 {p50:.1} ms"))
            .goal(Goal::Below(25.0)),
    );
}

/// Hears of every event from now on, and notes when.
struct Subscriber {
    heard: Arc<Mutex<HashMap<Uuid, Instant>>>,
    task: JoinHandle<()>,
}

impl Subscriber {
    async fn start(url: &str) -> Self {
        // As anybody may: without a password.
        let place = url.rsplit_once('@').map_or(url, |(_, place)| place);
        let client =
            async_nats::connect(format!("nats://{}", place.trim_start_matches("nats://"))).await.unwrap();
        let stream = jetstream::new(client).get_stream("ROLLCALL").await.unwrap();
        let config = pull::OrderedConfig {
            filter_subject: "rollcall.events.>".to_owned(),
            deliver_policy: DeliverPolicy::New,
            ..pull::OrderedConfig::default()
        };
        let mut messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
        let heard = Arc::new(Mutex::new(HashMap::new()));
        let noted = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let (at, message) = (Instant::now(), message.unwrap());
                let headers = message.headers.as_ref().unwrap();
                let user = headers.get("ce-subject").unwrap().as_str().parse().unwrap();
                noted.lock().unwrap().entry(user).or_insert(at);
            }
        });
        Self { heard, task }
    }

    /// How long after their answers it heard of these users.
    async fn waits(self, answered: &[(Uuid, Instant)]) -> Vec<Duration> {
        let deadline = Instant::now() + HEARD_WITHIN;
        loop {
            let waits: Option<Vec<Duration>> = {
                let heard = self.heard.lock().unwrap();
                let wait = |(user, at): &(Uuid, Instant)| {
                    heard.get(user).map(|heard| heard.saturating_duration_since(*at))
                };
                answered.iter().map(wait).collect()
            };
            if let Some(waits) = waits {
                self.task.abort();
                return waits;
            }
            assert!(!self.task.is_finished() && Instant::now() < deadline, "events were not received");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Requests that are due at fixed rates below the highest.
pub async fn rates(world: &mut World, up: &Rollcall, highest: f64, report: &mut Report) {
    let base = &up.ready.http;
    for percent in PERCENTS {
        let rate = highest * f64::from(percent) / 100.0;
        let mut seen = Vec::new();
        for _ in 0..rounds() {
            let creates = (0..CALLERS).map(|_| Creates::new()).collect();
            let open = load::open(base, creates, 201, rate, seconds()).await;
            let done = usize::try_from(open.done).unwrap();
            world.acknowledge(done, done).await;
            seen.push(open);
        }
        at_rate("CreateUser", percent, rate, seen, report);
    }
    world.caught_up().await;
    let highest = load::closed(base, random(&world.users, READERS), 200, seconds()).await.rate();
    for percent in PERCENTS {
        let rate = highest * f64::from(percent) / 100.0;
        let mut seen = Vec::new();
        for _ in 0..rounds() {
            seen.push(load::open(base, random(&world.users, READERS), 200, rate, seconds()).await);
        }
        at_rate("GET of a user", percent, rate, seen, report);
    }
}

fn at_rate(what: &str, percent: u32, rate: f64, seen: Vec<Seen>, report: &mut Report) {
    let seen = middle(seen, |seen| seen.ms(0.99));
    report.add(
        Figure::ms(
            format!("{what} at {percent} % of the highest rate ({}/s): p99", thousands(rate)),
            seen.ms(0.99),
        )
        .detail(format!("p50 {:.2} ms, p99.9 {:.1} ms", seen.ms(0.5), seen.ms(0.999))),
    );
}

/// What the process holds once it has done everything that it can do.
pub async fn memory(world: &mut World, up: &Rollcall, report: &mut Report) {
    let base = &up.ready.http;
    let users = world::create_during(base, seconds()).await.len();
    world.acknowledge(users, users).await;
    let batches = vec![BatchGets::new(&world.users, Pick::at_random(1))];
    load::closed(base, batches, 200, seconds()).await;
    world.caught_up().await;
    report.add(
        Figure::mb("memory of up's own process after all of this", resident_mb(up.pid()))
            .goal(Goal::Below(300.0)),
    );
}
