//! The log and the projectors at full strength: rebuilds, tails, lag, take-overs, several processes, a large log, an old
//! snapshot. Ratios of one run count; absolute times belong to the machine.
//!
//! `BENCH_EVENTS` (1,000,000), `BENCH_LARGE_EVENTS` (5,000,000) and `BENCH_HOLD_SECONDS` (300) make it shorter; so do the names of
//! its parts: `cargo bench --bench log -- rebuild snapshot`.

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
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |part: &str| named.is_empty() || named.iter().any(|name| name == part);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        println!("| figure | Rollcall | baseline | ratio | goal |");
        println!("| --- | --- | --- | --- | --- |");
        if wanted("processes") {
            processes::measure().await;
        }
        if wanted("take_over") {
            take_over::measure().await;
        }
        if wanted("rebuild") {
            rebuild::measure().await;
        }
        if wanted("large") {
            large::measure().await;
        }
        if wanted("snapshot") {
            snapshot::measure().await;
        }
    });
}
