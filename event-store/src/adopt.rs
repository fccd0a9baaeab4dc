//! Adopting a restored log: what is there becomes the one history, under a new log id.
//!
//! Works with the owner's rights. One transaction: the old log id and the heads go to `log.histories`, `log.meta` gets a
//! new log id, and `log.halt` is cleared. Appends and halts that are under way end before it or come to nothing after it,
//! because each names the log id that it belongs to.

use sqlx::{Connection, Executor, PgConnection, Row};
use uuid::Uuid;

use crate::{
    Position, bounded,
    history::{self, Halt, History},
    migrate::{self, connect_as_owner},
    tail::unsigned,
};

/// How many of each partition's newest events are looked at before a log is adopted: a copy that was damaged may lack some of
/// those. One whose end is missing looks like an earlier one.
const LOOKED_AT: i64 = 10_000;

/// A log as an operator is shown it before adopting it.
#[derive(Clone, Debug)]
pub struct Found {
    pub log_id: Uuid,
    pub heads: Vec<Position>,
    pub halt: Option<Halt>,
    pub histories: Vec<History>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Connect(#[from] migrate::Error),
    #[error("the log is {found} by now, and not {expected} any more: somebody else adopted it meanwhile")]
    Meanwhile { expected: Uuid, found: Uuid },
    #[error(
        "of the last {looked_at} events of partition {partition}, up to position {head}, {missing} are not there: this copy is \
         damaged, and not to be adopted"
    )]
    Damaged { partition: i32, head: i64, looked_at: i64, missing: i64 },
    #[error("the log could not be adopted")]
    Database(#[from] sqlx::Error),
}

/// Looks, and changes nothing.
///
/// # Errors
/// Where the log cannot be reached with the owner's rights, or was never made.
pub async fn find(owner: &str) -> Result<Found, Error> {
    let mut connection = connect_as_owner(owner, "rollcall-adopt").await?;
    let row =
        sqlx::query("SELECT log_id, ARRAY(SELECT position FROM log.heads ORDER BY partition) FROM log.meta")
            .fetch_one(&mut connection)
            .await?;
    let heads: Vec<i64> = row.try_get(1)?;
    let found = Found {
        log_id: row.try_get(0)?,
        heads: heads.into_iter().map(|head| unsigned(head, "head")).collect::<Result<_, _>>()?,
        halt: history::halt(&mut connection).await?,
        histories: history::histories(&mut connection).await?,
    };
    connection.close().await?;
    Ok(found)
}

/// Makes the log that is there the one history; its new log id. `expected` is the log id that the operator was shown.
///
/// # Errors
/// [`Error::Meanwhile`] where it has another one by now; nothing is changed then.
pub async fn adopt(owner: &str, expected: Uuid) -> Result<Uuid, Error> {
    let mut connection = connect_as_owner(owner, "rollcall-adopt").await?;
    let log_id = bounded(in_one_transaction(&mut connection, expected)).await?;
    connection.close().await?;
    Ok(log_id)
}

async fn in_one_transaction(connection: &mut PgConnection, expected: Uuid) -> Result<Uuid, Error> {
    let mut transaction = connection.begin().await?;
    // Every append reads this table from its beginning to its commit: this waits for those that are under way, and for who
    // writes a halt down; those that come meanwhile wait, and see what was adopted. A lock on the events would wait for whoever
    // tidies them up, too.
    transaction
        .execute("SET LOCAL lock_timeout = '10s'; LOCK TABLE log.halt IN ACCESS EXCLUSIVE MODE")
        .await?;
    let found: Uuid =
        sqlx::query_scalar("SELECT log_id FROM log.meta FOR UPDATE").fetch_one(&mut *transaction).await?;
    if found != expected {
        return Err(Error::Meanwhile { expected, found });
    }
    let damaged = sqlx::query(
        "SELECT h.partition, h.position, least(h.position, $1), least(h.position, $1) - e.found FROM log.heads h
         CROSS JOIN LATERAL (SELECT count(*) AS found FROM log.events l
             WHERE l.partition = h.partition AND l.position > h.position - $1) e
         WHERE e.found <> least(h.position, $1) ORDER BY h.partition LIMIT 1",
    )
    .bind(LOOKED_AT)
    .fetch_optional(&mut *transaction)
    .await?;
    if let Some(row) = damaged {
        return Err(Error::Damaged {
            partition: row.try_get(0)?,
            head: row.try_get(1)?,
            looked_at: row.try_get(2)?,
            missing: row.try_get(3)?,
        });
    }
    let log_id = Uuid::now_v7();
    sqlx::query(
        "INSERT INTO log.histories (log_id, heads)
         SELECT $1, ARRAY(SELECT position FROM log.heads ORDER BY partition)",
    )
    .bind(expected)
    .execute(&mut *transaction)
    .await?;
    sqlx::query("UPDATE log.meta SET log_id = $1").bind(log_id).execute(&mut *transaction).await?;
    sqlx::query("DELETE FROM log.halt").execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(log_id)
}
