//! The log and the projectors at full strength: rebuilds, tails, lag, take-overs, several processes, a large log, an old
//! snapshot. Ratios of one run count; absolute times belong to the machine.
//!
//! `BENCH_EVENTS` (1,000,000), `BENCH_LARGE_EVENTS` (5,000,000) and `BENCH_HOLD_SECONDS` (300) make it shorter.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on panics")]

#[path = "../throughput/client.rs"]
#[expect(dead_code, reason = "the other benchmark uses the rest of it")]
mod client;
mod large;
#[path = "../throughput/load.rs"]
#[expect(dead_code, reason = "the other benchmark uses the rest of it")]
mod load;
mod processes;
mod rebuild;
#[path = "../../tests/support/rollcall.rs"]
#[expect(dead_code, reason = "the harness serves the tests")]
mod rollcall;
#[path = "../../tests/operating/site.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod site;
mod snapshot;
mod take_over;

use std::time::Duration;

/// Callers at which the service does most.
const CALLERS: usize = 256;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Seconds of each measurement.
fn seconds() -> Duration {
    Duration::from_secs(number("BENCH_SECONDS", 5))
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    // `cargo test --benches` asks whether it builds, not how fast it is.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        println!("| figure | Rollcall | baseline | ratio | goal |");
        println!("| --- | --- | --- | --- | --- |");
        processes::measure().await;
        take_over::measure().await;
        rebuild::measure().await;
        large::measure().await;
        snapshot::measure().await;
    });
}
