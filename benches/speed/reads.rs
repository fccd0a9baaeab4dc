//! Queries, of an `up` that has nothing else to do.

use std::{sync::Arc, time::Duration};

use uuid::Uuid;

use crate::{
    baseline::Handler,
    rollcall::Rollcall,
    support::{
        client::Connection,
        load::{self, Seen},
        process::resident_mb,
        report::{Figure, Goal, Report, thousands},
        requests::{BatchGets, Gets, Pick, Requests},
        run::{median, middle, rounds, seconds},
    },
    world::World,
    writes::quantiles,
};

pub const READERS: usize = 64;
/// Users that are read over and over.
const HOT: usize = 1_000;
/// A rate at which the machine is idle nearly all the time.
const IDLE_RATE: f64 = 1_000.0;
const MANY: usize = 5_000;
/// How often the memory is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(100);
pub const BATCH_GOAL: Goal = Goal::Below(20.0);
pub const BATCH_NAME: &str = "POST /users/batch-get of 1,000: p50";

fn hot_users(world: &World) -> Arc<Vec<Uuid>> {
    Arc::new(world.users.iter().copied().take(HOT).collect())
}

fn hot_requests(users: &Arc<Vec<Uuid>>) -> Vec<Gets> {
    let pick = Pick::in_turn();
    (0..READERS).map(|_| Gets::new(users, pick.clone())).collect()
}

/// Any of all users, by each connection in another order.
pub fn random(users: &Arc<Vec<Uuid>>, connections: usize) -> Vec<Gets> {
    (0..connections).map(|seed| Gets::new(users, Pick::at_random(seed))).collect()
}

/// Reads of the same few users.
pub async fn hot(world: &World, up: &Rollcall, baseline: bool, report: &mut Report) -> Seen {
    let (base, users) = (&up.ready.http, hot_users(world));
    let size = Connection::open(base)
        .await
        .request(Gets::new(&users, Pick::in_turn()).next())
        .await
        .expect(200)
        .body
        .len();
    let constant = Handler::constant(size);
    let read = async |base: &str| load::closed(base, hot_requests(&users), 200, seconds()).await;
    read(base).await;
    let (mut ours, mut constants) = (Vec::new(), Vec::new());
    for _ in 0..rounds() {
        ours.push(read(base).await);
        if baseline {
            constants.push(read(&constant.base).await);
        }
    }
    let seen = middle(ours, Seen::rate);
    if baseline {
        let constants = middle(constants, Seen::rate);
        report.add(
            Figure::rate(format!("GET of a user, hot, {READERS} connections"), seen.rate())
                .detail(quantiles(&seen))
                .against(format!("an axum handler that returns a constant of {size} bytes"), constants.rate())
                .goal(Goal::RatioAtLeast(0.8)),
        );
        hot_and_idle(base, &constant, &users, report).await;
    }
    seen
}

async fn hot_and_idle(base: &str, constant: &Handler, users: &Arc<Vec<Uuid>>, report: &mut Report) {
    let read = async |base: &str| load::open(base, hot_requests(users), 200, IDLE_RATE, seconds()).await;
    let (mut ours, mut constants) = (Vec::new(), Vec::new());
    for _ in 0..rounds() {
        ours.push(read(base).await);
        constants.push(read(&constant.base).await.ms(0.99));
    }
    let seen = middle(ours, |seen| seen.ms(0.99));
    let name = format!("GET of a user, hot, at {}/s on an idle machine: p99", thousands(IDLE_RATE));
    report.add(
        Figure::ms(name, seen.ms(0.99))
            .detail(format!("p50 {:.2} ms", seen.ms(0.5)))
            .against("the constant: p99", median(&constants))
            .goal(Goal::Below(1.0)),
    );
}

/// Reads of any user; whether the goal is one of this size.
pub async fn cold(world: &mut World, up: &Rollcall, is_goal: bool, report: &mut Report) -> Seen {
    let (base, users) = (&up.ready.http, Arc::clone(&world.users));
    let table = world.profiles().await;
    let select = Handler::select(world.site.owner_url(), &table);
    let read = async |base: &str| load::closed(base, random(&users, READERS), 200, seconds()).await;
    read(base).await;
    read(&select.base).await;
    let (mut ours, mut selects) = (Vec::new(), Vec::new());
    for _ in 0..rounds() {
        ours.push(read(base).await);
        selects.push(read(&select.base).await.rate());
    }
    let seen = middle(ours, Seen::rate);
    let name =
        format!("GET of a user, at random over {}, {READERS} connections", thousands(users.len() as f64));
    let figure = Figure::rate(name, seen.rate())
        .detail(quantiles(&seen))
        .against("an axum handler with one SELECT, through a sqlx pool of 10", median(&selects));
    report.add(if is_goal { figure.goal(Goal::RatioAtLeast(2.0)) } else { figure });
    seen
}

/// Many users at once, over one connection.
pub async fn batch(world: &World, up: &Rollcall, figure: bool, report: &mut Report) -> Seen {
    let mut seen = Vec::new();
    for seed in 0..rounds() {
        let requests = vec![BatchGets::new(&world.users, Pick::at_random(seed))];
        seen.push(load::closed(&up.ready.http, requests, 200, seconds()).await);
    }
    let seen = middle(seen, |seen| seen.ms(0.5));
    if figure {
        report.add(
            Figure::ms(BATCH_NAME, seen.ms(0.5))
                .detail(format!("p99 {:.1} ms", seen.ms(0.99)))
                .goal(BATCH_GOAL),
        );
    }
    seen
}

/// More connections than a pool of clients ever has, all of them at work.
pub async fn many(world: &World, up: &Rollcall, report: &mut Report) {
    let (mut ours, mut memory_mb) = (Vec::new(), 0.0_f64);
    for _ in 0..rounds() {
        // Each connection has been used before, as those of clients have that keep 5,000 open.
        let requests = random(&world.users, MANY);
        let read = load::closed_after(1, &up.ready.http, requests, 200, seconds());
        let mut read = std::pin::pin!(read);
        let seen = loop {
            match tokio::time::timeout(LOOK_EVERY, &mut read).await {
                Ok(seen) => break seen,
                Err(_) => memory_mb = memory_mb.max(resident_mb(up.pid())),
            }
        };
        ours.push(seen);
    }
    let seen = middle(ours, |seen| seen.ms(0.99));
    let name = format!("GET of a user, {} open connections, all in use", thousands(MANY as f64));
    report.add(
        Figure::ms(format!("{name}: p99"), seen.ms(0.99))
            .detail(format!("{}/s, p50 {:.0} ms, no error", thousands(seen.rate()), seen.ms(0.5)))
            .goal(Goal::Below(150.0)),
    );
    report.add(Figure::mb(format!("{name}: memory of the process"), memory_mb).goal(Goal::Below(400.0)));
}
