//! What operators see: log lines, traces, metrics, and whether dashboard and alert rules speak of metrics that exist.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "../support/rollcall.rs"]
#[expect(
    dead_code,
    reason = "what kills an instance, or starts one for all tests, is for another test program"
)]
mod rollcall;

mod collector;
mod lines;
mod names;
mod traces;

use rollcall::{Rollcall, Setup};

/// An instance whose environment has these variables.
fn start(variables: &[(&str, &str)]) -> Rollcall {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Rollcall::start(Setup { variables, ..Setup::default() })
}
