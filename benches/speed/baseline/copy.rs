//! COPY of rows that the log has, into tables like the log's, with all of their indexes.

use std::time::{Duration, Instant};

use futures_util::{TryStreamExt, future::join_all};
use sqlx::{Connection, Executor, PgConnection};

/// The tables that a creation without a key writes to.
const TABLES: [&str; 3] = ["log.events", "log.claims", "vault.data_keys"];
/// What one piece of a COPY holds at least.
const PIECE_BYTES: usize = 256 * 1024;

/// Copies of the log's tables, which so many sessions fill at once.
pub struct Copies {
    owner_url: String,
    schema: &'static str,
    sessions: usize,
}

/// Rows in COPY's text form, for each table as pieces that end with a row.
pub struct Rows([Vec<Vec<u8>>; 3]);

impl Copies {
    /// Makes the tables, with the rows that the log has by now.
    pub async fn prepare(owner_url: &str, schema: &'static str, sessions: usize) -> Self {
        let copies = Self { owner_url: owner_url.to_owned(), schema, sessions };
        let mut owner = copies.connect().await;
        owner.execute(format!("CREATE SCHEMA {schema}").as_str()).await.unwrap();
        for table in TABLES {
            let copy = copies.of(table);
            owner
                .execute(format!("CREATE TABLE {copy} (LIKE {table} INCLUDING ALL)").as_str())
                .await
                .unwrap();
            owner.execute(format!("INSERT INTO {copy} SELECT * FROM {table}").as_str()).await.unwrap();
            owner.execute(format!("VACUUM ANALYZE {copy}").as_str()).await.unwrap();
        }
        copies
    }

    /// What the log has and the copies have not.
    pub async fn missing(&self) -> Rows {
        let mut owner = self.connect().await;
        let fresh = format!(
            "CREATE TEMPORARY TABLE fresh AS SELECT aggregate_id FROM log.events e
             WHERE NOT EXISTS (
                 SELECT FROM {} c WHERE c.partition = e.partition AND c.position = e.position);
             ANALYZE fresh",
            self.of(TABLES[0])
        );
        owner.execute(fresh.as_str()).await.unwrap();
        let mut rows = Rows(Default::default());
        for (table, pieces) in TABLES.iter().zip(&mut rows.0) {
            let order = if *table == TABLES[0] { "ORDER BY partition, position" } else { "" };
            let sql = format!(
                "COPY (SELECT * FROM {table} WHERE aggregate_id IN (SELECT aggregate_id FROM fresh) {order}) TO STDOUT"
            );
            let mut out = owner.copy_out_raw(&sql).await.unwrap();
            // The server sends a row a message.
            while let Some(row) = out.try_next().await.unwrap() {
                match pieces.last_mut() {
                    Some(piece) if piece.len() < PIECE_BYTES => piece.extend_from_slice(&row),
                    _ => pieces.push(row.to_vec()),
                }
            }
        }
        rows
    }

    /// How long it takes until all of them are committed.
    pub async fn copy(&self, rows: &Rows) -> Duration {
        let mut connections = Vec::new();
        for _ in 0..self.sessions {
            connections.push(self.connect().await);
        }
        let begun = Instant::now();
        let sessions = connections.iter_mut().enumerate().map(|(session, connection)| async move {
            for (table, pieces) in TABLES.iter().zip(&rows.0) {
                let sql = format!("COPY {} FROM STDIN", self.of(table));
                let mut copy = connection.copy_in_raw(&sql).await.unwrap();
                for piece in pieces.iter().skip(session).step_by(self.sessions) {
                    copy.send(piece.as_slice()).await.unwrap();
                }
                copy.finish().await.unwrap();
            }
        });
        join_all(sessions).await;
        begun.elapsed()
    }

    async fn connect(&self) -> PgConnection {
        let mut owner = PgConnection::connect(&self.owner_url).await.unwrap();
        owner.execute("SET statement_timeout = 0").await.unwrap();
        owner
    }

    fn of(&self, table: &str) -> String {
        format!("{}.{}", self.schema, table.rsplit('.').next().unwrap())
    }
}
