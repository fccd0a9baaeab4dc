//! Checkpoints: the position up to which a projection has applied each partition.

use rollcall_event_store::{Position, tail::Span};
use sqlx::{PgConnection, Row};

/// The checkpoints of a projection, by partition.
///
/// # Errors
/// Where the database cannot be read.
pub async fn read(
    connection: &mut PgConnection,
    projection: &str,
    version: i32,
) -> Result<Vec<Position>, sqlx::Error> {
    sqlx::query(
        "SELECT position FROM projections.checkpoints WHERE projection = $1 AND version = $2 ORDER BY partition",
    )
    .bind(projection)
    .bind(version)
    .fetch_all(connection)
    .await?
    .iter()
    .map(|row| Ok(Position::try_from(row.try_get::<i64, _>(0)?).unwrap_or_default()))
    .collect()
}

/// Moves checkpoints over spans. False where one of them is not where its span begins: another process was faster, and
/// the transaction must be given up. The rows stay locked to the transaction's end.
///
/// # Errors
/// Where the database refuses.
pub async fn advance(
    connection: &mut PgConnection,
    projection: &str,
    version: i32,
    spans: &[Span],
) -> Result<bool, sqlx::Error> {
    let partitions: Vec<i32> = spans.iter().map(|span| i32::from(span.partition)).collect();
    let positions = |of: fn(&Span) -> Position| -> Vec<i64> {
        spans.iter().map(|span| i64::try_from(of(span)).expect("positions do not reach 2^63")).collect()
    };
    let moved = sqlx::query(
        "UPDATE projections.checkpoints c SET position = s.until
         FROM unnest($3::int4[], $4::int8[], $5::int8[]) AS s(partition, after, until)
         WHERE c.projection = $1 AND c.version = $2 AND c.partition = s.partition AND c.position = s.after",
    )
    .bind(projection)
    .bind(version)
    .bind(partitions)
    .bind(positions(|span| span.after))
    .bind(positions(|span| span.until))
    .execute(connection)
    .await?;
    Ok(moved.rows_affected() == spans.len() as u64)
}
