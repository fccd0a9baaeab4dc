//! The private servers: a PostgreSQL and a nats-server of our own, as children, for whoever has none to point at.
//!
//! Promises: they listen on loopback only and ask for a password; no child outlives this process, however it ends; the
//! next start carries on from the same data; two processes never share a data directory.
//!
//! Shape: `DataDir::open` (lock) -> `Postgres::start`, `Nats::start` (launch, wait until ready, supervise) -> `stop`.
//!
//! Layout of a data directory:
//! - `lock`: held for the life of the process, names its pid
//! - `postgres/`, `postgres.password`, `postgres.log`: the cluster, its owner's password, what the server says
//! - `nats/`, `nats.password`, `nats.log`: configuration and JetStream store, the password, what the server says

mod account;
mod data_dir;
mod error;
mod nats;
mod port;
mod postgres;
mod predecessor;
mod private_file;
mod server;
mod server_log;
mod spawner;

#[cfg(test)]
mod tests;

pub use data_dir::DataDir;
pub use error::Error;
pub use nats::Nats;
pub use postgres::Postgres;
