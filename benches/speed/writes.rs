//! Commands, by a command-api of its own; nothing is projected meanwhile.

use std::{sync::Arc, time::Instant};

use uuid::Uuid;

use crate::{
    baseline::{Copies, Pgbench, PostgresEs},
    support::{
        load::{self, Seen},
        report::{Figure, Goal, Report, thousands},
        requests::{BATCH_MAX, Pick, Renames},
        run::{median, middle, rounds, seconds},
    },
    world::{self, WRITERS, World},
};

pub const CALLERS: usize = 256;
const STREAM_EVENTS: usize = 5;
/// More than can be updated in a second, so that hardly a stream is updated twice.
const UPDATED_PER_SECOND: usize = 10_000;

pub fn quantiles(seen: &Seen) -> String {
    format!("p50 {:.1} ms, p99 {:.1} ms", seen.ms(0.5), seen.ms(0.99))
}

/// What creating users costs without anything beside it.
pub async fn create_alone(world: &mut World) -> Seen {
    let api = world.command_api();
    create_once(world, &api.ready.http).await;
    let mut ours = Vec::new();
    for _ in 0..rounds() {
        ours.push(create_once(world, &api.ready.http).await);
    }
    middle(ours, Seen::rate)
}

pub async fn create_once(world: &mut World, base: &str) -> Seen {
    let seen = load::creates(base, CALLERS, seconds()).await;
    let done = usize::try_from(seen.done).unwrap();
    world.acknowledge(done, done).await;
    seen
}

pub async fn create(world: &mut World, report: &mut Report) -> Seen {
    let es = PostgresEs::prepare(world.site.owner_url(), "postgres_es").await;
    let pgbench = Pgbench::prepare(world.site.owner_url(), world.site.path()).await;
    let api = world.command_api();
    // Connections, plans and caches are warm before anything counts.
    create_once(world, &api.ready.http).await;
    es.create(CALLERS, seconds() / 2).await;
    let (mut ours, mut es_rates, mut pg_rates) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds() {
        ours.push(create_once(world, &api.ready.http).await);
        es_rates.push(es.create(CALLERS, seconds()).await);
        pg_rates.push(pgbench.best(seconds()).await);
        eprintln!(
            "CreateUser: {:.0}/s, postgres-es {:.0}/s, pgbench {:.0}/s",
            ours[round].rate(),
            es_rates[round],
            pg_rates[round]
        );
    }
    let seen = middle(ours, Seen::rate);
    let name = format!("CreateUser over HTTP, {CALLERS} connections, command-api alone");
    report.add(
        Figure::rate(&name, seen.rate())
            .detail(quantiles(&seen))
            .against("postgres-es, in-process", median(&es_rates))
            .goal(Goal::RatioAtLeast(5.0)),
    );
    report.add(
        Figure::rate(&name, seen.rate())
            .against("pgbench, an event row a transaction, at its best", median(&pg_rates))
            .goal(Goal::RatioAtLeast(1.5)),
    );
    one(world, &api.ready.http, &pgbench, report).await;
    seen
}

/// One connection, which waits for each answer.
async fn one(world: &mut World, base: &str, pgbench: &Pgbench, report: &mut Report) {
    let (mut ours, mut transactions) = (Vec::new(), Vec::new());
    for _ in 0..rounds() {
        let seen = load::creates(base, 1, seconds()).await;
        let done = usize::try_from(seen.done).unwrap();
        world.acknowledge(done, done).await;
        ours.push(seen);
        transactions.push(pgbench.p50_ms(seconds()).await);
    }
    let seen = middle(ours, |seen| seen.ms(0.5));
    report.add(
        Figure::ms("CreateUser over HTTP, 1 connection: p50", seen.ms(0.5))
            .detail(format!("p99 {:.2} ms", seen.ms(0.99)))
            .against("one fsynced pgbench transaction: p50", median(&transactions))
            .goal(Goal::RatioAtMost(2.0)),
    );
}

/// As many commands in a request as there may be.
pub async fn commands(world: &mut World, report: &mut Report) {
    let one = Copies::prepare(world.site.owner_url(), "copies", 1).await;
    let several = Copies::prepare(world.site.owner_url(), "copies_of_several", WRITERS).await;
    let api = world.command_api();
    let (mut ours, mut by_one, mut by_several) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds() {
        let begun = Instant::now();
        let users = world::create_during(&api.ready.http, seconds()).await.len();
        let took = begun.elapsed();
        world.acknowledge(users, users).await;
        let rows = one.missing().await;
        let (one, several) = (one.copy(&rows).await, several.copy(&rows).await);
        // The first round warms up.
        if round > 0 {
            ours.push(users as f64 / took.as_secs_f64());
            by_one.push(users as f64 / one.as_secs_f64());
            by_several.push(users as f64 / several.as_secs_f64());
        }
    }
    let name =
        format!("POST /commands, {} creates each, {WRITERS} connections: users", thousands(BATCH_MAX as f64));
    report.add(
        Figure::rate(&name, median(&ours))
            .against("COPY of the same rows into the same tables", median(&by_one))
            .goal(Goal::RatioAtLeast(0.5)),
    );
    report.add(
        Figure::rate(&name, median(&ours))
            .against(format!("COPY by {WRITERS} sessions at once"), median(&by_several)),
    );
}

/// Updates of users whose streams have five events, each round of users of its own.
pub async fn update(world: &mut World, es: bool, report: &mut Report) -> Seen {
    let each = usize::try_from(seconds().as_secs()).unwrap() * UPDATED_PER_SECOND;
    let filling = world.command_api();
    let users = world::create_so_many(&filling.ready.http, each * (rounds() + 1)).await;
    world.acknowledge(users.len(), users.len()).await;
    world.rename(&filling.ready.http, &users, STREAM_EVENTS - 1).await;
    drop(filling);
    world.tidy().await;
    let framework = if es {
        let framework = PostgresEs::prepare(world.site.owner_url(), "postgres_es_updates").await;
        framework.fill(&users, STREAM_EVENTS).await;
        Some(framework)
    } else {
        None
    };
    // What filled the log knows these users; this one does not.
    let api = world.command_api();
    let (mut ours, mut es_rates) = (Vec::new(), Vec::new());
    for (round, users) in users.chunks_exact(each).take(rounds() + 1).enumerate() {
        let users = Arc::new(users.to_vec());
        let seen = update_once(world, &api.ready.http, &users).await;
        let es_rate = match &framework {
            Some(framework) => Some(framework.rename(&users, CALLERS, seconds()).await),
            None => None,
        };
        // The first round warms up.
        if round > 0 {
            eprintln!("UpdateUser: {:.0}/s, postgres-es {:.0}/s", seen.rate(), es_rate.unwrap_or_default());
            ours.push(seen);
            es_rates.extend(es_rate);
        }
    }
    let seen = middle(ours, Seen::rate);
    if es {
        let name = format!("UpdateUser of streams of {STREAM_EVENTS} events, {CALLERS} connections");
        report.add(
            Figure::rate(name, seen.rate())
                .detail(quantiles(&seen))
                .against("postgres-es, in-process", median(&es_rates))
                .goal(Goal::RatioAtLeast(3.0)),
        );
    }
    seen
}

async fn update_once(world: &mut World, base: &str, users: &Arc<Vec<Uuid>>) -> Seen {
    let pick = Pick::in_turn();
    let requests = (0..CALLERS).map(|_| Renames::new(users, pick.clone())).collect();
    let seen = load::closed(base, requests, 200, seconds()).await;
    world.acknowledge(usize::try_from(seen.done).unwrap(), 0).await;
    seen
}
