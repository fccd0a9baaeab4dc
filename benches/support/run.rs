//! What a run is told by its environment, and how its rounds become one figure.

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Seconds of each measurement.
pub fn seconds() -> Duration {
    Duration::from_secs(number("BENCH_SECONDS", 5).max(1))
}

/// How often each is measured, in turns with its baseline.
pub fn rounds() -> usize {
    usize::try_from(number("BENCH_ROUNDS", 5)).unwrap_or(1).max(1)
}

/// Whether Cargo runs it as a benchmark: `cargo test --benches` asks whether it builds, not how fast it is.
pub fn is_wanted() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// Whether a part is to be measured: all are, or those that the command names.
pub fn is_part(part: &str) -> bool {
    let mut named = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    named.peek().is_none() || named.any(|name| name == part)
}

/// Lets this process and its children have as many connections as the system allows.
pub fn raise_open_files() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("a limit that is allowed");
}

pub fn median(figures: &[f64]) -> f64 {
    middle(figures.to_vec(), |figure| *figure)
}

/// The round in the middle, by `figure`.
pub fn middle<T>(mut rounds: Vec<T>, figure: impl Fn(&T) -> f64) -> T {
    rounds.sort_by(|a, b| figure(a).total_cmp(&figure(b)));
    let middle = rounds.len() / 2;
    rounds.swap_remove(middle)
}
