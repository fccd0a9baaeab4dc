//! What operating costs: bearer tokens against open mode, a rolling restart, more load than there is room for. Ratios of
//! one run count; absolute times belong to the machine.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on panics")]

#[path = "../../tests/operating/balancer.rs"]
mod balancer;
#[path = "../throughput/client.rs"]
mod client;
#[path = "../throughput/load.rs"]
#[expect(dead_code, reason = "the other benchmark uses the rest of it")]
mod load;
mod overload;
#[path = "../../tests/support/rollcall.rs"]
#[expect(dead_code, reason = "the harness serves the tests")]
mod rollcall;
mod rolling;
#[path = "../../edge/src/auth/jwt/tests/signer.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod signer;
#[path = "../../tests/operating/site.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod site;
mod tokens;

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Seconds of each measurement.
fn seconds() -> Duration {
    let seconds = std::env::var("BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    Duration::from_secs(seconds)
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
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        println!("| figure | Rollcall | baseline | ratio | goal |");
        println!("| --- | --- | --- | --- | --- |");
        tokens::measure().await;
        rolling::measure().await;
        overload::measure().await;
    });
}
