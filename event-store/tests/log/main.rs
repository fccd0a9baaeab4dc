//! The log on a real PostgreSQL.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod batches;
mod changes;
mod hints;
mod history;
mod idempotency;
mod immutability;
mod keys;
mod load;
mod loans;
mod lost_answers;
mod migrations;
mod model;
mod proxy;
mod seeing;
mod server;
mod snapshots;
mod support;
mod tail;
mod traps;
