//! Checkpoints: the position up to which a projection has applied each partition.

use rollcall_event_store::{Partition, Position, tail::Span};
use sqlx::{PgConnection, Row};

use crate::{leases::Epoch, schema::Version};

/// The checkpoints of a projection, by partition.
///
/// # Errors
/// Where the database cannot be read.
pub async fn read(connection: &mut PgConnection, version: Version) -> Result<Vec<Position>, sqlx::Error> {
    sqlx::query(
        "SELECT position FROM projections.positions WHERE projection = $1 AND version = $2 ORDER BY partition",
    )
    .bind(version.projection)
    .bind(version.number)
    .fetch_all(connection)
    .await?
    .iter()
    .map(|row| Ok(Position::try_from(row.try_get::<i64, _>(0)?).unwrap_or_default()))
    .collect()
}

/// Each row is found by its whole key, whatever the planner makes of the table: a look-up by less would walk over all versions
/// of the rows that nobody has tidied up yet; hence the sums, which no index has. What another process changed meanwhile is
/// judged by the conditions after that.
const ADVANCE: &str = "UPDATE projections.checkpoints c SET position = s.until
     FROM unnest($3::int4[], $4::int8[], $5::int8[], $6::int8[]) AS s(partition, after, until, epoch)
     WHERE c.ctid = ANY (ARRAY(
           SELECT (SELECT k.ctid FROM projections.checkpoints k
                   WHERE k.projection = $1 AND k.version = $2 AND k.partition = q.partition AND k.position = q.after)
           FROM unnest($3::int4[], $4::int8[]) AS q(partition, after)))
       AND c.partition + 0 = s.partition AND c.position + 0 = s.after AND (c.epoch = s.epoch OR $7)";

/// Moves checkpoints over spans, each under the epoch of its partition's lease. False where one of them is not where its
/// span begins, or another process has taken the lease since: the transaction must be given up. The rows stay locked to
/// the transaction's end.
///
/// # Errors
/// Where the database refuses.
pub async fn advance(
    connection: &mut PgConnection,
    version: Version,
    spans: &[(Span, Epoch)],
) -> Result<bool, sqlx::Error> {
    let positions = |of: fn(&Span) -> Position| -> Vec<i64> {
        spans.iter().map(|(span, _)| i64::try_from(of(span)).expect("positions do not reach 2^63")).collect()
    };
    let moved = sqlx::query(ADVANCE)
        .bind(version.projection)
        .bind(version.number)
        .bind(spans.iter().map(|(span, _)| i32::from(span.partition)).collect::<Vec<_>>())
        .bind(positions(|span| span.after))
        .bind(positions(|span| span.until))
        .bind(spans.iter().map(|(_, epoch)| *epoch).collect::<Vec<_>>())
        // What a build with a broken guard does: any epoch will do.
        .bind(cfg!(rollcall_break = "fencing"))
        .execute(connection)
        .await?;
    Ok(moved.rows_affected() == spans.len() as u64)
}

/// A partition's checkpoint, held to the transaction's end; none where another process has taken the lease since.
///
/// # Errors
/// Where the database cannot be read.
pub async fn hold(
    connection: &mut PgConnection,
    version: Version,
    partition: Partition,
    epoch: Epoch,
) -> Result<Option<Position>, sqlx::Error> {
    let position: Option<i64> = sqlx::query_scalar(
        "SELECT position FROM projections.checkpoints
         WHERE projection = $1 AND version = $2 AND partition = $3 AND epoch = $4 FOR UPDATE",
    )
    .bind(version.projection)
    .bind(version.number)
    .bind(i32::from(partition))
    .bind(epoch)
    .fetch_optional(connection)
    .await?;
    Ok(position.and_then(|position| Position::try_from(position).ok()))
}
