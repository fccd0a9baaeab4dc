//! Idempotency records: what a command with an Idempotency-Key answered, so that asking again answers the same.

use std::time::Duration;

use sqlx::{PgPool, Row};
use tokio_util::sync::CancellationToken;

use crate::{Borrowed, Partition, StreamId, bounded, keys::Digest};

/// How long a record is kept at least.
pub const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

const EXPIRE_EVERY: Duration = Duration::from_secs(60);
const EXPIRE_PAUSE: Duration = Duration::from_millis(50);
/// Rows that one clean-up statement removes at most: a short transaction, not a long one.
const EXPIRE_ROWS_MAX: i64 = 5_000;

/// Who asked (tenant, subject and key in one digest) and what exactly (method, path, precondition and body in one).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotency {
    pub key: Digest,
    pub fingerprint: Digest,
}

/// What is stored beside a command's events.
#[derive(Clone, Debug)]
pub struct Record {
    pub idempotency: Idempotency,
    pub status: u16,
    pub version: u64,
}

/// What an earlier command with the same key answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    pub fingerprint: Digest,
    pub status: u16,
    pub aggregate_id: String,
    pub version: u64,
    pub partition: Partition,
    /// Position of the stream's event at `version`; 0 where the command knew no stream.
    pub position: u64,
}

/// The record of a key.
///
/// # Errors
/// Where the database cannot be read.
pub async fn find(
    pool: &PgPool,
    tenant: &str,
    aggregate_type: &str,
    key: Digest,
    partitions: Partition,
) -> Result<Option<Replay>, sqlx::Error> {
    let mut connection = Borrowed::from(pool).await?;
    let Some(row) =
        sqlx::query("SELECT fingerprint, status, aggregate_id, version FROM log.commands WHERE key = $1")
            .bind(&key.0[..])
            .fetch_optional(&mut *connection)
            .await?
    else {
        connection.done();
        return Ok(None);
    };
    let aggregate_id: String = row.try_get(2)?;
    let version: i64 = row.try_get(3)?;
    let partition = StreamId::new(tenant, aggregate_type, aggregate_id.as_str()).partition(partitions);
    let position: Option<i64> = sqlx::query_scalar(
        "SELECT position FROM log.events
         WHERE partition = $1 AND tenant_id = $2 AND aggregate_type = $3 AND aggregate_id = $4 AND sequence = $5",
    )
    .bind(i32::from(partition))
    .bind(tenant)
    .bind(aggregate_type)
    .bind(&aggregate_id)
    .bind(version)
    .fetch_optional(&mut *connection)
    .await?;
    connection.done();
    let fingerprint: Vec<u8> = row.try_get(0)?;
    Ok(Some(Replay {
        fingerprint: Digest(
            fingerprint.try_into().map_err(|_| sqlx::Error::Decode("a short fingerprint".into()))?,
        ),
        status: u16::try_from(row.try_get::<i16, _>(1)?).unwrap_or_default(),
        aggregate_id,
        version: u64::try_from(version).unwrap_or_default(),
        partition,
        position: position.and_then(|position| u64::try_from(position).ok()).unwrap_or_default(),
    }))
}

/// Removes records past their retention, a bounded number at a time.
pub(crate) async fn expire(pool: PgPool, shutdown: CancellationToken) {
    let mut pause = EXPIRE_EVERY;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let removed = async {
            let mut connection = Borrowed::from(&pool).await?;
            let done = sqlx::query(
                "DELETE FROM log.commands WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM log.commands
                 WHERE recorded_at < clock_timestamp() - make_interval(secs => $1) LIMIT $2))",
            )
            .bind(RETENTION.as_secs_f64())
            .bind(EXPIRE_ROWS_MAX)
            .execute(&mut *connection)
            .await?;
            connection.done();
            Ok::<_, sqlx::Error>(done)
        };
        pause = EXPIRE_EVERY;
        let removed = tokio::select! {
            () = shutdown.cancelled() => return,
            removed = bounded(removed) => removed,
        };
        match removed {
            // There may be more; the pause leaves room for commands.
            Ok(done) if done.rows_affected() == EXPIRE_ROWS_MAX.unsigned_abs() => pause = EXPIRE_PAUSE,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "old idempotency records could not be removed; trying again later")
            }
        }
    }
}
