//! How fast everything is: each figure beside what a user could pick instead, on one PostgreSQL with default durability and in
//! one run. Ratios count; absolute times belong to the machine.
//!
//! `BENCH_USERS` names the sizes of the log, smallest first (10,000 and 1,000,000): at the first everything is measured, at
//! the others what the core figures have become. `BENCH_SECONDS` (5) and `BENCH_ROUNDS` (5) make it shorter; so do the names
//! of its parts, at the first size: `cargo bench --bench speed -- reads create`.
//!
//! Shape: fill -> queries of `up` -> commands of a `command-api` alone -> both of `up` -> what the log has grown by, updates.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on panics")]

mod baseline;
mod growth;
mod reads;
mod results;
#[path = "../../tests/support/rollcall.rs"]
#[expect(dead_code, reason = "the harness serves the tests")]
mod rollcall;
#[path = "../../tests/operating/site.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod site;
#[path = "../support/lib.rs"]
#[expect(dead_code, reason = "the other benchmarks use the rest of it")]
mod support;
mod together;
mod world;
mod writes;

use support::{
    report::{Figure, Report, thousands},
    run,
};
use world::World;

fn main() {
    baseline::serve_asked();
    if results::assemble_asked() || !run::is_wanted() {
        return;
    }
    run::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure());
}

/// What grows with the log, or does not.
#[derive(Default)]
struct Core {
    hot_rate: Option<f64>,
    cold_rate: Option<f64>,
    batch_p50_ms: Option<f64>,
    create_rate: Option<f64>,
    update_rate: Option<f64>,
}

async fn measure() {
    let named = std::env::var("BENCH_USERS").unwrap_or_else(|_| "10000,1000000".to_owned());
    let sizes: Vec<u64> =
        named.split(',').map(|size| size.trim().parse().expect("BENCH_USERS is numbers")).collect();
    let mut report = Report::new("speed", run::rounds());
    let (first, others) = sizes.split_first().expect("BENCH_USERS is numbers");
    report.section(with_users(*first));
    let small = all(*first, others.is_empty(), &mut report).await;
    for (index, size) in others.iter().enumerate() {
        report.section(with_users(*size));
        let large = core(*size, index + 1 == others.len(), &mut report).await;
        compare(&large, &small, *first, &mut report);
    }
    report.finish();
}

fn with_users(size: u64) -> String {
    format!("With {} users", thousands(size as f64))
}

async fn all(size: u64, is_last: bool, report: &mut Report) -> Core {
    let mut world = World::filled(size).await;
    let mut core = Core::default();
    if run::is_part("reads") {
        let up = world.up();
        world.caught_up().await;
        world.tidy().await;
        core.hot_rate = Some(reads::hot(&world, &up, true, report).await.rate());
        core.cold_rate = Some(reads::cold(&mut world, &up, is_last, report).await.rate());
        core.batch_p50_ms = Some(reads::batch(&world, &up, true, report).await.ms(0.5));
    }
    if run::is_part("create") {
        core.create_rate = Some(writes::create(&mut world, report).await.rate());
    }
    if run::is_part("commands") {
        writes::commands(&mut world, report).await;
    }
    if run::is_part("together") {
        let up = world.up();
        world.caught_up().await;
        let highest = together::create(&mut world, &up, report).await;
        world.caught_up().await;
        together::lag(&mut world, &up, highest, report).await;
        together::rates(&mut world, &up, highest, report).await;
        reads::many(&world, &up, report).await;
        together::memory(&mut world, &up, report).await;
    }
    if run::is_part("growth") {
        growth::measure(&mut world, report).await;
    }
    if run::is_part("update") {
        core.update_rate = Some(writes::update(&mut world, true, report).await.rate());
    }
    world.stop().await;
    core
}

async fn core(size: u64, is_last: bool, report: &mut Report) -> Core {
    let mut world = World::filled(size).await;
    let up = world.up();
    world.caught_up().await;
    world.tidy().await;
    let mut core = Core {
        hot_rate: Some(reads::hot(&world, &up, false, report).await.rate()),
        cold_rate: Some(reads::cold(&mut world, &up, is_last, report).await.rate()),
        batch_p50_ms: Some(reads::batch(&world, &up, false, report).await.ms(0.5)),
        ..Core::default()
    };
    drop(up);
    core.create_rate = Some(writes::create_alone(&mut world).await.rate());
    core.update_rate = Some(writes::update(&mut world, false, report).await.rate());
    world.stop().await;
    core
}

fn compare(large: &Core, small: &Core, small_size: u64, report: &mut Report) {
    let baseline = with_users(small_size).to_lowercase();
    for (name, large, small) in [
        ("CreateUser, command-api alone", large.create_rate, small.create_rate),
        ("UpdateUser of streams of 5 events", large.update_rate, small.update_rate),
        ("GET of a user, hot", large.hot_rate, small.hot_rate),
        ("GET of a user, at random over all", large.cold_rate, small.cold_rate),
    ] {
        let Some(rate) = large else { continue };
        let figure = Figure::rate(name, rate);
        report.add(if let Some(small) = small { figure.against(&baseline, small) } else { figure });
    }
    if let Some(p50) = large.batch_p50_ms {
        let figure = Figure::ms(reads::BATCH_NAME, p50).goal(reads::BATCH_GOAL);
        report.add(if let Some(small) = small.batch_p50_ms {
            figure.against(&baseline, small)
        } else {
            figure
        });
    }
}
