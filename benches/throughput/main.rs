//! What `make bench` runs: Rollcall over HTTP beside its baselines, all on one private PostgreSQL cluster with default
//! durability, in one run. Ratios count; absolute times belong to the machine.
//!
//! Baselines: postgres-es out of the box (one INSERT transaction a command, in-process, no HTTP, no encryption, no
//! uniqueness), and pgbench with one event row a transaction.

mod baseline;
#[expect(dead_code, reason = "the other benchmark uses the rest of it")]
mod client;
mod load;
#[path = "../../tests/support/rollcall.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "the harness serves the tests, and panics like one")]
mod rollcall;

use std::time::Duration;

use crate::{
    load::Closed,
    rollcall::{Rollcall, Setup},
};

const CALLERS: usize = 256;
const ROUNDS: usize = 3;

/// Seconds of each measurement.
fn seconds() -> Duration {
    let seconds = std::env::var("BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    Duration::from_secs(seconds)
}

fn main() {
    // `cargo test --benches` asks whether it builds, not how fast it is.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure());
}

async fn measure() {
    let setup = Setup { variables: vec![("ROLLCALL_LOG".to_owned(), "warn".to_owned())], ..Setup::default() };
    let service = Rollcall::start(setup);
    let postgres_es = baseline::PostgresEs::prepare(&service.ready.postgres).await;
    let pgbench = baseline::Pgbench::prepare(&service.ready.postgres, service.directory()).await;
    // Connections, plans and caches are warm before anything counts.
    load::creates(&service.ready.http, CALLERS, Duration::from_secs(3)).await;

    let (mut ours, mut es, mut pg, mut lags) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut acknowledged = 0;
    for round in 1..=ROUNDS {
        let before = baseline::events(&service.ready.postgres).await;
        let created = load::creates(&service.ready.http, CALLERS, seconds()).await;
        let stored = baseline::events(&service.ready.postgres).await - before;
        // A load that is cut off may leave up to one command a caller stored without its answer read.
        assert!(
            created.done <= stored && stored <= created.done + CALLERS as u64,
            "{} acknowledged, {stored} stored",
            created.done
        );
        acknowledged += created.done;
        es.push(postgres_es.run(CALLERS, seconds()).await);
        pg.push(pgbench.run(CALLERS, seconds()).await.max(pgbench.run(64, seconds()).await));
        eprintln!(
            "round {round}: rollcall {:.0}/s, postgres-es {:.0}/s, pgbench {:.0}/s",
            created.rate(),
            es[round - 1],
            pg[round - 1]
        );
        lags.push(load::readable_after(&service.ready.http, created.rate() / 2.0, seconds()).await);
        ours.push(created);
    }
    let one = load::creates(&service.ready.http, 1, seconds()).await;
    ours.sort_by(|a, b| a.rate().total_cmp(&b.rate()));
    let create = &ours[ROUNDS / 2];
    let (es, pg) = (median(es), median(pg));
    lags.sort_by(|a, b| a.ms(0.99).total_cmp(&b.ms(0.99)));
    report(create, &one, es, pg, &lags[ROUNDS / 2], acknowledged);
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn report(create: &Closed, one: &Closed, es: f64, pg: f64, lag: &load::Lag, acknowledged: u64) {
    let rate = create.rate();
    println!("| figure | Rollcall | baseline | ratio | goal |");
    println!("| --- | --- | --- | --- | --- |");
    println!(
        "| CreateUser over HTTP, {CALLERS} connections | {rate:.0}/s (p50 {:.1} ms, p99 {:.1} ms) | postgres-es in-process \
         {es:.0}/s | {:.2} | ≥ 2.5 |",
        create.ms(0.5),
        create.ms(0.99),
        rate / es
    );
    println!(
        "| the same | {rate:.0}/s | pgbench, one event row a transaction {pg:.0}/s | {:.2} | |",
        rate / pg
    );
    println!(
        "| CreateUser over HTTP, 1 connection | {:.0}/s (p50 {:.2} ms, p99 {:.2} ms) | | | |",
        one.rate(),
        one.ms(0.5),
        one.ms(0.99)
    );
    println!(
        "| from a command's answer to its profile being readable, at {:.0} commands/s | p50 {:.1} ms, p99 {:.1} ms | | | \
         p99 < 50 ms |",
        lag.rate,
        lag.ms(0.5),
        lag.ms(0.99)
    );
    println!();
    println!(
        "{acknowledged} commands were acknowledged in the closed loops, and all of them are in the log."
    );
}
