//! What a user could pick instead, on the same cluster, in databases of their own.

mod copy;
mod handlers;
mod pgbench;
mod postgres_es;

use sqlx::{Connection, Executor, PgConnection};

pub use copy::Copies;
pub use handlers::{Handler, serve_asked};
pub use pgbench::Pgbench;
pub use postgres_es::PostgresEs;

/// A new one beside the log's.
async fn database(owner: &str, name: &str) -> String {
    let mut connection = PgConnection::connect(owner).await.unwrap();
    connection.execute(format!("CREATE DATABASE {name}").as_str()).await.unwrap();
    let (server, _) = owner.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}
