//! The fault run: the roles as processes of their own, under load, while processes are killed and frozen, PostgreSQL and NATS
//! go away, and connections break in every way at random. At the end nothing acknowledged is lost, nothing is there twice or
//! in part, every read model equals a fresh fold, the subscriber saw every event in order, and nothing is stuck.
//!
//! Shape: [`roles`] (processes under a supervisor, a proxy before each) + [`load`] (what clients were told) +
//! [`subscriber`] + [`faults`] (drawn from a seed) -> [`checks`].
//!
//! `ROLLCALL_TEST_SEED` repeats the draw of a run, `SOAK_MINUTES` makes it longer (`make soak`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod checks;
mod faults;
mod load;
#[path = "../faults/log.rs"]
#[expect(dead_code, reason = "other test programs use the rest of it")]
mod log;
#[path = "../faults/processes.rs"]
#[expect(dead_code, reason = "other test programs use the rest of it")]
mod processes;
#[path = "../faults/proxy.rs"]
#[expect(dead_code, reason = "other test programs use the rest of it")]
mod proxy;
mod request;
#[path = "../faults/rng.rs"]
mod rng;
mod roles;
#[path = "../support/rollcall.rs"]
#[expect(dead_code, reason = "other test programs use the rest of it")]
mod rollcall;
#[path = "../operating/site.rs"]
#[expect(dead_code, reason = "other test programs use the rest of it")]
mod site;
mod subscriber;

use std::time::{Duration, Instant};

use rand::{RngExt, rngs::StdRng};
use tokio::{sync::Mutex, time::sleep};

use self::{
    faults::{Fault, Kind},
    load::Load,
    log::Log,
    rng::seeded,
    roles::Roles,
    site::Site,
    subscriber::Subscriber,
};

/// How long the run's faults go on unless `SOAK_MINUTES` says otherwise.
const LENGTH: Duration = Duration::from_secs(120);
/// After the last fault everything must be where it should be within this time.
const SETTLES_WITHIN: Duration = Duration::from_secs(20);
/// How long the load goes on after the last fault.
const CALM: Duration = Duration::from_secs(2);

/// The runs load the machine: one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

fn length() -> Duration {
    let minutes = std::env::var("SOAK_MINUTES").ok().map(|text| text.parse::<f64>().unwrap());
    minutes.map_or(LENGTH, |minutes| Duration::from_secs_f64(minutes * 60.0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_nothing_is_lost_doubled_torn_or_stuck() {
    let cast: [&[&str]; 7] = [
        &["command-api"],
        &["command-api"],
        &["query-api"],
        &["projector", "profiles", "audit"],
        &["projector", "profiles", "audit"],
        // One that does everything: a second publisher, too.
        &["projector"],
        &["projector", "publisher"],
    ];
    run(&cast, |rng| faults::draw(rng, length(), cast.len())).await;
}

/// Short and aimed: each guard that is broken on purpose (`scripts/broken-guards.sh`) is caught here within seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_at_any_statement_cost_nothing() {
    let cast: [&[&str]; 4] = [&["command-api"], &["command-api"], &["query-api"], &["projector"]];
    let lasts = Duration::from_secs(8);
    let cut = |rng: &mut StdRng, role| Fault {
        at: Duration::from_secs(1),
        kind: Kind::CutConnections,
        role,
        lasts,
        seed: rng.random(),
    };
    run(&cast, |rng| [0, 1, 3].map(|role| cut(rng, role)).into()).await;
}

async fn run(cast: &[&[&str]], draw: impl FnOnce(&mut StdRng) -> Vec<Fault>) {
    let _turn = ONE_AT_A_TIME.lock().await;
    let (mut rng, seed) = seeded();
    let site = Site::migrated().await;
    let roles = Roles::start(&site, cast).await;
    let subscriber = Subscriber::start(site.nats_url());
    let mut load = Load::start(&roles, &mut rng);

    let survived = tokio::select! {
        survived = faults::strike(&site, &roles, draw(&mut rng)) => survived,
        () = load.until_it_fails() => panic!("the load ended by itself, seed {seed}"),
    };
    let calm_since = Instant::now();
    sleep(CALM).await;
    let mut ledger = load.stop().await;
    let log = Log::open(site.owner_url()).await;
    let settled = checks::settled(&log, &roles, calm_since + SETTLES_WITHIN).await;
    ledger.ask_again(&roles).await;
    checks::settled(&log, &roles, Instant::now() + SETTLES_WITHIN).await;
    checks::everything(&log, &roles, &ledger, &subscriber).await;

    println!(
        "seed {seed}: {} faults survived {survived:?}, {} processes started; at the heads {:.1} s after the last; {ledger}",
        survived.values().sum::<usize>(),
        roles.starts(),
        settled.duration_since(calm_since).as_secs_f64(),
    );
    roles.stop();
    site.stop().await;
}
