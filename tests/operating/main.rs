//! Rollcall in an operator's hands: its roles as processes of their own on given servers, restarted one after the other,
//! configured, limited, asked how they are. Each test runs the real binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod audit_projections;
mod balancer;
mod compression;
mod configuration;
mod filling;
mod from_memory;
mod limits;
mod parked;
mod rebuild;
mod restored;
mod roles;
#[path = "../support/rollcall.rs"]
#[expect(dead_code, reason = "other test programs use the rest of it")]
mod rollcall;
mod rolling;
mod site;
mod status;
mod waiting;
