//! The read models and the publisher on a real PostgreSQL and a real nats-server.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod cache;
mod drift;
mod laws;
mod leases;
mod nats;
mod overtaking;
mod parking;
mod publisher;
mod runtime;
#[path = "../../../event-store/tests/log/server.rs"]
mod server;
mod status;
mod support;
mod users;
mod versions;
