//! The log and the projectors at full strength: rebuilds, tails, lag, take-overs, several processes, a large log, an old
//! snapshot. Ratios of one run count; absolute times belong to the machine.
//!
//! `BENCH_EVENTS` (1,000,000), `BENCH_LARGE_EVENTS` (5,000,000) and `BENCH_HOLD_SECONDS` (300) make it shorter; so do the names of
//! its parts: `cargo bench --bench log -- rebuild snapshot`.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on panics")]

mod large;
mod processes;
mod rebuild;
#[path = "../../tests/support/rollcall.rs"]
#[expect(dead_code, reason = "the harness serves the tests")]
mod rollcall;
#[path = "../../tests/operating/site.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod site;
mod snapshot;
#[path = "../support/lib.rs"]
#[expect(dead_code, reason = "the other benchmarks use the rest of it")]
mod support;
mod take_over;

use support::{report::Report, run};

/// Callers at which the service does most.
const CALLERS: usize = 256;

fn main() {
    if !run::is_wanted() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut report = Report::new("log", run::rounds());
        if run::is_part("processes") {
            processes::measure(&mut report).await;
        }
        if run::is_part("take_over") {
            take_over::measure(&mut report).await;
        }
        if run::is_part("rebuild") {
            rebuild::measure(&mut report).await;
        }
        if run::is_part("large") {
            large::measure(&mut report).await;
        }
        if run::is_part("snapshot") {
            snapshot::measure(&mut report).await;
        }
        report.finish();
    });
}
