//! What holds when something breaks: processes that are killed, answers that are cut off, servers that go away, data
//! that must not leak. Each test runs the real binary on servers of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod answer_cut_off;
mod crash;
mod immutability;
mod log;
mod nats_away;
mod nats_tls;
mod personal_data;
mod processes;
mod proxy;
mod published;
mod refusals;
mod rng;
#[path = "../support/rollcall.rs"]
#[expect(dead_code, reason = "other test programs use the rest of it")]
mod rollcall;
mod stopping;
mod taking_over;
mod two_processes;
