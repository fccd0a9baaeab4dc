//! Whether a read model is what the log says: rows are counted, and streams folded anew and compared with their rows; what
//! differs is made anew.
//!
//! All that is said of a row that differs is whose it is and which fields; values are personal.
//!
//! *Invariant:* a read model at work does not differ from itself. Checkpoints, rows and keys are read in one snapshot, and
//! events up to a checkpoint do not change. Of a parked stream the rows are what the events before that one say; an event that
//! was discarded counts only where the version had applied it before. A row whose data key is gone while events are still to
//! be applied is no drift, since the event that removes the row may be among them. A stream that cannot be folded at all is
//! told as such, and the others are compared.

use std::collections::BTreeSet;

use rollcall_event_store::{Log, Partition, Position, Recorded, StreamId, load};
use sqlx::{Connection, Executor, PgConnection, Postgres, Row, Transaction};

use crate::{
    checkpoint,
    parking::table,
    projector::{Error, Projection},
    schema::Version,
};

/// Instead of a field: there is no row.
pub const MISSING: &str = "missing";
/// Instead of a field: there is a row without an event.
pub const SURPLUS: &str = "surplus";

/// Streams that are compared in one snapshot, with one statement for each kind of thing that is read.
const STREAMS_MAX: usize = 200;
/// Events of each that are read at once; longer ones are read on by themselves.
const FIRST_EVENTS: u32 = 50;
/// Events that one statement reads of a longer stream.
const PAGE: u32 = 1_000;
/// With so many events in memory no further stream is read on in a snapshot: those that are left have another one.
const EVENTS_MAX: usize = 20_000;
/// Events of a stream that who compares in the background folds at most: a stream of years must neither fill the memory of a
/// process that has other things to do, nor keep the others from being looked at.
pub(crate) const BACKGROUND_EVENTS_MAX: usize = 10_000;
/// Events of a partition among which one statement looks for streams that begin.
const WALK_EVENTS: Position = 2_000;
/// For a transaction that finds what it reads by keys, however short the tables.
const LOOK_UPS: &str =
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";

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
    /// Of a row whose stream cannot be told, a place takes that of the id.
    pub stream: StreamId,
    pub partition: Partition,
    /// Names alone.
    pub fields: Vec<String>,
    /// A row that no stream accounts for, where it cannot be found by its stream.
    pub row: Option<RowKey>,
    /// Its stream is parked.
    pub parked: bool,
}

/// A stream that could not be folded, or was too long to be: nothing can be said of its rows.
#[derive(Debug)]
pub struct Unfolded {
    pub stream: StreamId,
    pub partition: Partition,
    pub error: Error,
}

/// What comparing streams has shown.
#[derive(Debug, Default)]
pub struct Compared {
    pub drifts: Vec<Drift>,
    /// How many of the streams are parked.
    pub parked: u64,
    pub unfolded: Vec<Unfolded>,
}

/// What a row's key is made of, as text.
pub type RowKey = Vec<String>;

/// A page of rows that were looked at.
#[derive(Debug, Default)]
pub struct Swept {
    pub rows: u64,
    /// The last of them; none where there are no more.
    pub last: Option<RowKey>,
    pub surplus: Vec<Drift>,
}

/// A stream's events up to where the read model has come.
pub struct Folded {
    pub stream: StreamId,
    pub partition: Partition,
    pub events: Vec<Recorded>,
    /// Those of them that were discarded and gone past: rows show nothing of them but, perhaps, that they were.
    pub skipped: BTreeSet<Position>,
    /// The event at which the stream is parked, and those behind it up to where the read model has come.
    pub queued: Vec<Recorded>,
    /// It is parked.
    pub parked: bool,
    /// There are events that have yet to be applied.
    pub more: bool,
}

impl Folded {
    /// The events that are to be seen in the rows.
    pub fn applied(&self) -> impl Iterator<Item = &Recorded> {
        self.events.iter().filter(|event| !self.skipped.contains(&event.position))
    }

    /// The events that are not.
    pub fn unapplied(&self) -> impl Iterator<Item = &Recorded> {
        let skipped = self.events.iter().filter(|event| self.skipped.contains(&event.position));
        skipped.chain(&self.queued)
    }
}

/// Streams that begin in a part of the log.
pub struct Walked {
    pub streams: Vec<StreamId>,
    /// The position from which to go on.
    pub until: Position,
}

/// Counts the rows of each partition and what they should be, in one snapshot. What is parked or was gone past is left out of
/// both.
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
    let mut snapshot = snapshot(connection).await?;
    let rows = sqlx::query(
        "SELECT tenant_id, aggregate_type, aggregate_id FROM (
         SELECT DISTINCT e.tenant_id, e.aggregate_type, e.aggregate_id
         FROM projections.checkpoints c
         CROSS JOIN LATERAL (
             SELECT 1 + floor(random() * c.position)::int8 AS position
             FROM generate_series(1, ceil($3 * c.position / greatest((SELECT sum(t.position) FROM projections.checkpoints t
                 WHERE t.projection = $1 AND t.version = $2), 1))::int4)) d
         JOIN log.events e ON e.partition = c.partition AND e.position = d.position
         WHERE c.projection = $1 AND c.version = $2 AND c.position > 0) drawn
         -- Each partition's part was rounded up.
         ORDER BY random() LIMIT $3",
    )
    .bind(version.projection)
    .bind(version.number)
    .bind(i64::try_from(streams).unwrap_or(i64::MAX))
    .fetch_all(&mut *snapshot)
    .await?;
    snapshot.rollback().await?;
    rows.iter().map(|row| stream_id(row, 0)).collect()
}

/// The streams that begin after a position, within a bounded number of events and no further than `until`.
///
/// # Errors
/// Where the database cannot be read.
pub async fn walk(
    connection: &mut PgConnection,
    partition: Partition,
    after: Position,
    until: Position,
) -> Result<Walked, sqlx::Error> {
    let until = until.min(after + WALK_EVENTS);
    let rows = sqlx::query(
        "SELECT tenant_id, aggregate_type, aggregate_id FROM log.events
         WHERE partition = $1 AND position > $2 AND position <= $3 AND sequence = 1 ORDER BY position",
    )
    .bind(i32::from(partition))
    .bind(after.cast_signed())
    .bind(until.cast_signed())
    .fetch_all(connection)
    .await?;
    let streams = rows.iter().map(|row| stream_id(row, 0)).collect::<Result<_, _>>()?;
    Ok(Walked { streams, until })
}

/// Folds streams anew and compares them with their rows. Those that have more events than `events_max` are not folded, and told
/// as such: [`Error::TooLong`].
///
/// # Errors
/// Where the database cannot be read. An event, a key or a row that cannot be is that stream's, which is told among the
/// others.
pub async fn compare<P: Projection>(
    log: &Log,
    projection: &P,
    connection: &mut PgConnection,
    version: Version,
    streams: &[StreamId],
    events_max: Option<usize>,
) -> Result<Compared, Error> {
    let mut compared = Compared::default();
    let mut parts: Vec<&[StreamId]> = streams.chunks(STREAMS_MAX).rev().collect();
    while let Some(part) = parts.pop() {
        let together = together(log, projection, connection, version, part, events_max).await;
        let (found, too_long) = match (together, part) {
            // The version was dropped: nothing can be said of its rows.
            (Ok(None), _) => return Err(sqlx::Error::RowNotFound.into()),
            (Ok(Some(found)), _) => found,
            (Err(error), _) if !error.lies_in_a_stream() => return Err(error),
            (Err(error), [stream]) => {
                let (stream, partition) = (stream.clone(), stream.partition(log.partitions()));
                compared.unfolded.push(Unfolded { stream, partition, error });
                continue;
            }
            (Err(_), part) => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
                continue;
            }
        };
        let (_, left) = part.split_at(found.len() + too_long.len());
        if !left.is_empty() {
            parts.push(left);
        }
        compared.unfolded.extend(too_long);
        for (Folded { stream, partition, parked, .. }, fields) in found {
            compared.parked += u64::from(parked);
            if !fields.is_empty() {
                compared.drifts.push(Drift { stream, partition, fields, row: None, parked });
            }
        }
    }
    Ok(compared)
}

/// Compares streams in one snapshot, the first of them: each with its fields that differ, and those that are too long. None where
/// the version is gone.
async fn together<P: Projection>(
    log: &Log,
    projection: &P,
    connection: &mut PgConnection,
    version: Version,
    streams: &[StreamId],
    events_max: Option<usize>,
) -> Result<Option<(Vec<(Folded, Vec<String>)>, Vec<Unfolded>)>, Error> {
    let mut snapshot = snapshot(connection).await?;
    let positions = checkpoint::read(&mut snapshot, version).await?;
    if positions.len() != usize::from(log.partitions()) {
        return Ok(None);
    }
    let placed = streams.iter().map(|stream| (stream.clone(), stream.partition(log.partitions())));
    let (folded, too_long) =
        fold(&mut snapshot, version, &positions, &placed.collect::<Vec<_>>(), events_max).await?;
    let fields = projection.differences(&mut snapshot, &folded).await?;
    snapshot.rollback().await?;
    Ok(Some((folded.into_iter().zip(fields).collect(), too_long)))
}

/// Looks at a page of rows for those that no applied event accounts for.
///
/// # Errors
/// Where the database cannot be read.
pub async fn sweep<P: Projection>(
    projection: &P,
    connection: &mut PgConnection,
    after: Option<&RowKey>,
    rows_max: u32,
) -> Result<Swept, Error> {
    let mut snapshot = snapshot(connection).await?;
    let swept = projection.swept(&mut snapshot, after, rows_max).await?;
    snapshot.rollback().await?;
    Ok(swept)
}

/// Makes the rows of a stream anew, in one short transaction that holds its partition's checkpoint, so that no batch writes
/// in between. Where the stream is parked, they are made of the events before that one, and a projector tries it again at
/// once: the row may have been what was wrong. False where there was nothing to repair any more.
///
/// # Errors
/// Where the database refuses, or an event cannot be read.
pub async fn repair<P: Projection>(
    projection: &P,
    connection: &mut PgConnection,
    version: Version,
    drift: &Drift,
) -> Result<bool, Error> {
    let mut transaction = connection.begin().await?;
    transaction.execute(LOOK_UPS).await?;
    let until: Option<i64> = sqlx::query_scalar(
        "SELECT position FROM projections.checkpoints
         WHERE projection = $1 AND version = $2 AND partition = $3 FOR UPDATE",
    )
    .bind(version.projection)
    .bind(version.number)
    .bind(i32::from(drift.partition))
    .fetch_optional(&mut *transaction)
    .await?;
    // A row may bear the number of a partition that there is not: nobody else writes it.
    let mut positions = vec![0; usize::from(drift.partition) + 1];
    positions[usize::from(drift.partition)] = until.unwrap_or_default().cast_unsigned();
    let streams = [(drift.stream.clone(), drift.partition)];
    let (folded, _) = fold(&mut transaction, version, &positions, &streams, None).await?;
    let fields = projection.differences(&mut transaction, &folded).await?;
    if drift.row.is_none() && fields.iter().all(Vec::is_empty) {
        return Ok(false);
    }
    projection.repair(&mut transaction, drift, &folded[0]).await?;
    table::make_stream_due(&mut transaction, version, &drift.stream, drift.partition).await?;
    transaction.commit().await?;
    Ok(true)
}

/// A transaction that sees one state.
async fn snapshot(connection: &mut PgConnection) -> Result<Transaction<'_, Postgres>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    transaction.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    transaction.execute(LOOK_UPS).await?;
    Ok(transaction)
}

/// The events of streams up to the positions of their partitions, and those that are too long: of the first one, and of as many
/// after it as there is room for.
async fn fold(
    connection: &mut PgConnection,
    version: Version,
    positions: &[Position],
    streams: &[(StreamId, Partition)],
    events_max: Option<usize>,
) -> Result<(Vec<Folded>, Vec<Unfolded>), Error> {
    let events_max = events_max.unwrap_or(usize::MAX);
    let left_out = table::left_out(connection, version, streams).await?;
    let read = load::firsts(connection, streams, FIRST_EVENTS).await?;
    let (mut folded, mut too_long, mut events_read) = (Vec::with_capacity(streams.len()), Vec::new(), 0);
    for (((stream, partition), left_out), mut events) in streams.iter().zip(left_out).zip(read) {
        if events_read >= EVENTS_MAX {
            break;
        }
        let until = positions.get(usize::from(*partition)).copied().unwrap_or_default();
        let mut full = events.len() == FIRST_EVENTS as usize;
        while full && events.len() <= events_max && events.last().is_some_and(|last| last.position <= until) {
            let after = events.last().map_or(0, |last| last.sequence);
            let page = load::page(connection, stream, *partition, after, PAGE).await?;
            full = page.len() == PAGE as usize;
            events.extend(page);
        }
        let table::LeftOut { parked, skipped } = left_out;
        let more = parked.is_some() || events.last().is_some_and(|last| last.position > until);
        events.retain(|event| event.position <= until);
        if events.len() > events_max {
            let (stream, partition, error) = (stream.clone(), *partition, Error::TooLong { events_max });
            too_long.push(Unfolded { stream, partition, error });
            continue;
        }
        events_read += events.len();
        let applied = events.partition_point(|event| parked.is_none_or(|at| event.position < at));
        let queued = events.split_off(applied);
        let (stream, partition, parked) = (stream.clone(), *partition, parked.is_some());
        folded.push(Folded { stream, partition, events, skipped, queued, parked, more });
    }
    Ok((folded, too_long))
}

fn stream_id(row: &sqlx::postgres::PgRow, first: usize) -> Result<StreamId, sqlx::Error> {
    let text = |place: usize| row.try_get::<&str, _>(first + place);
    Ok(StreamId::new(text(0)?, text(1)?, text(2)?))
}
