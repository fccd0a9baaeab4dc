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

/// What the private servers would be run from, `[PostgreSQL, nats-server]`; starts nothing.
pub async fn find_binaries() -> [Result<String, Error>; 2] {
    let account = match account::Account::choose(&[]) {
        Ok(account) => account,
        Err(error) => return [Err(error), Err(Error::NoAccount)],
    };
    let found = {
        let account = account.clone();
        tokio::task::spawn_blocking(move || postgres::binaries::find(&account)).await.unwrap_or_default()
    };
    let postgres = postgres::binaries::choose(found, None, std::path::Path::new(""))
        .map(|binaries| format!("PostgreSQL {} in {}", binaries.major, binaries.directory.display()));
    let nats = nats::binary::find(&account)
        .await
        .map(|path| path.display().to_string())
        .map_err(|absence| Error::NatsMissing(absence.to_string()));
    [postgres, nats]
}

pub use data_dir::DataDir;
pub use error::Error;
pub use nats::Nats;
pub use postgres::Postgres;
