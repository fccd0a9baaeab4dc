//! What the benchmarks share: a client that costs little, loads, what a run is told, and the report.

pub mod client;
pub mod load;
pub mod machine;
pub mod process;
pub mod report;
pub mod requests;
pub mod run;
pub mod schedule;
