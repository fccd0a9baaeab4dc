//! Whether a read model is what the log says: rows are counted, and streams folded anew and compared with their rows.
//!
//! All that is said of a row that differs is whose it is and which fields; values are personal.

use rollcall_event_store::{Log, Partition, Position, Recorded, StreamId, load};
use sqlx::{Connection, PgConnection, Row};

use crate::{
    projector::{Error, Projection},
    schema::Version,
};

/// Events that one statement reads of a stream that is folded anew.
const PAGE: u32 = 1_000;

/// How many rows a partition has, and how many it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    pub partition: Partition,
    pub rows: u64,
    pub expected: u64,
}

/// A stream whose rows are not what its events say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    pub stream: StreamId,
    pub partition: Partition,
    /// Names alone.
    pub fields: Vec<String>,
}

/// A stream's events up to where the read model has come, and how far that is.
pub struct Folded {
    pub stream: StreamId,
    pub partition: Partition,
    pub events: Vec<Recorded>,
}

/// Counts the rows of each partition and what they should be, in one snapshot.
///
/// # Errors
/// Where the database cannot be read.
pub async fn count<P: Projection>(
    projection: &P,
    connection: &mut PgConnection,
    version: Version,
) -> Result<Vec<Counted>, sqlx::Error> {
    let rows = sqlx::query(&version.sql(projection.count()))
        .bind(version.projection)
        .bind(version.number)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Counted {
                partition: Partition::try_from(row.try_get::<i32, _>(0)?).unwrap_or_default(),
                rows: row.try_get::<i64, _>(1)?.cast_unsigned(),
                expected: row.try_get::<i64, _>(2)?.cast_unsigned(),
            })
        })
        .collect()
}

/// Streams drawn at random among the events that a version has applied; longer ones are likelier.
///
/// # Errors
/// Where the database cannot be read.
pub async fn sample(
    connection: &mut PgConnection,
    version: Version,
    streams: usize,
) -> Result<Vec<StreamId>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT DISTINCT e.tenant_id, e.aggregate_type, e.aggregate_id
         FROM projections.checkpoints c
         CROSS JOIN LATERAL (
             SELECT 1 + floor(random() * c.position)::int8 AS position
             FROM generate_series(1, ceil($3 * c.position / greatest((SELECT sum(t.position) FROM projections.checkpoints t
                 WHERE t.projection = $1 AND t.version = $2), 1))::int4)) d
         JOIN log.events e ON e.partition = c.partition AND e.position = d.position
         WHERE c.projection = $1 AND c.version = $2 AND c.position > 0",
    )
    .bind(version.projection)
    .bind(version.number)
    .bind(i64::try_from(streams).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let text = |place: usize| row.try_get::<&str, _>(place);
            Ok(StreamId::new(text(0)?, text(1)?, text(2)?))
        })
        .collect()
}

/// Folds streams anew and compares them with their rows; those that differ. Rows and checkpoints are read in one snapshot,
/// and events do not change, so a read model at work does not differ from itself.
///
/// # Errors
/// Where the database, an event or a row cannot be read.
pub async fn compare<P: Projection>(
    log: &Log,
    projection: &P,
    connection: &mut PgConnection,
    version: Version,
    streams: &[StreamId],
) -> Result<Vec<Drift>, Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .execute(&mut *transaction)
        .await?;
    let positions: Vec<Position> = crate::checkpoint::read(&mut transaction, version).await?;
    let mut drifts = Vec::new();
    for stream in streams {
        let partition = stream.partition(log.partitions());
        let until = positions.get(usize::from(partition)).copied().unwrap_or_default();
        let folded = Folded {
            stream: stream.clone(),
            partition,
            events: events(&mut transaction, stream, partition, until).await?,
        };
        let fields = projection.differences(&mut transaction, &folded).await?;
        if !fields.is_empty() {
            drifts.push(Drift { stream: folded.stream, partition, fields });
        }
    }
    transaction.rollback().await?;
    Ok(drifts)
}

/// A stream's events up to a position of its partition.
async fn events(
    connection: &mut PgConnection,
    stream: &StreamId,
    partition: Partition,
    until: Position,
) -> Result<Vec<Recorded>, Error> {
    let mut events: Vec<Recorded> = Vec::new();
    loop {
        let after = events.last().map_or(0, |event| event.sequence);
        let page = load::page(connection, stream, partition, after, PAGE).await?;
        let more = page.len() == PAGE as usize;
        events.extend(page);
        if events.last().is_some_and(|last| last.position > until) || !more {
            events.retain(|event| event.position <= until);
            return Ok(events);
        }
    }
}
