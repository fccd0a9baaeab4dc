//! Loading streams: the loads of concurrent commands share a statement.
//!
//! Most streams are short and have no snapshot, so a stream that this process does not know to be long is read without a
//! look for one; the first page is as long as a stream may be without. One that fills it is long, and stays known: its
//! next loads read snapshot and tail at once.

use sqlx::{PgConnection, Row, postgres::PgConnectOptions};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Partition, Position, Recorded, StreamId, gather,
    keys::{self, Keys, Point, SubjectKey},
    snapshots::{self, Snapshot},
    tail::{recorded, signed},
};

/// Events of one stream that one statement reads at most; longer streams take several.
const STREAM_EVENTS_MAX: u64 = 1_000;
/// Streams that are known to be long at most, some 200 bytes each. One that was forgotten costs a round trip.
const LONG_STREAMS_MAX: u64 = 10_000;

/// A lateral with its own ORDER BY and LIMIT: a plain join became a hash join over the whole log.
const EVENTS: &str = "
    SELECT e.position, e.sequence, e.recorded_at, e.event_id, e.tenant_id, e.aggregate_type, e.aggregate_id,
           e.event_type, e.event_version, e.payload::text, e.personal, '{}', q.ordinal
    FROM unnest($1::int4[], $2::text[], $3::text[], $4::text[], $5::int8[]) WITH ORDINALITY
         AS q(partition, tenant_id, aggregate_type, aggregate_id, after, ordinal)
    CROSS JOIN LATERAL (
        SELECT * FROM log.events s
        WHERE s.partition = q.partition AND s.tenant_id = q.tenant_id
          AND s.aggregate_type = q.aggregate_type AND s.aggregate_id = q.aggregate_id
          AND s.sequence > q.after
        ORDER BY s.sequence LIMIT $6) e
    ORDER BY q.ordinal, e.sequence";

/// The same from the snapshot on, where there is one of the shape further on. The last event in it is read once more: it
/// says that the snapshot belongs to this history. The subselect is a look-up by key; EXISTS became a join with all of the
/// stream's events.
const FROM_SNAPSHOTS: &str = "
    SELECT e.position, e.sequence, e.recorded_at, e.event_id, e.tenant_id, e.aggregate_type, e.aggregate_id,
           e.event_type, e.event_version, e.payload::text, e.personal, '{}', q.ordinal,
           CASE WHEN e.sequence = s.sequence THEN s.sealed END
    FROM unnest($1::int4[], $2::text[], $3::text[], $4::text[], $5::int8[], $7::int4[]) WITH ORDINALITY
         AS q(partition, tenant_id, aggregate_type, aggregate_id, after, shape, ordinal)
    LEFT JOIN LATERAL (
        SELECT p.sequence, p.sealed FROM log.snapshots p
        WHERE q.shape IS NOT NULL
          AND p.partition = q.partition AND p.tenant_id = q.tenant_id
          AND p.aggregate_type = q.aggregate_type AND p.aggregate_id = q.aggregate_id
          AND p.shape = q.shape AND p.sequence > q.after
          AND (SELECT l.sequence FROM log.events l
               WHERE l.partition = q.partition AND l.tenant_id = q.tenant_id
                 AND l.aggregate_type = q.aggregate_type AND l.aggregate_id = q.aggregate_id
                 AND l.sequence = p.sequence LIMIT 1) IS NOT NULL
        LIMIT 1) s ON true
    CROSS JOIN LATERAL (
        SELECT * FROM log.events l
        WHERE l.partition = q.partition AND l.tenant_id = q.tenant_id
          AND l.aggregate_type = q.aggregate_type AND l.aggregate_id = q.aggregate_id
          AND l.sequence >= coalesce(s.sequence, q.after + 1)
        ORDER BY l.sequence LIMIT $6) e
    ORDER BY q.ordinal, e.sequence";

/// What to read of a stream.
#[derive(Clone, Debug)]
pub struct Request {
    stream: StreamId,
    shape: Option<i32>,
}

impl Request {
    /// All events.
    pub fn whole(stream: StreamId) -> Self {
        Self { stream, shape: None }
    }

    /// The snapshot of that shape and the events after it; all events where there is none, where it ends with an event that
    /// is not in the log, and where the stream is short.
    pub fn from_snapshot(stream: StreamId, shape: i32) -> Self {
        Self { stream, shape: Some(shape) }
    }
}

/// A stream as it was when it was read.
#[derive(Default)]
pub struct Loaded {
    pub snapshot: Option<Snapshot>,
    /// In order, from the first, or from the one after the snapshot.
    pub events: Vec<Recorded>,
    /// None where the stream has no event.
    pub key: Option<SubjectKey>,
}

impl Loaded {
    /// Version and position of the last event, read or in the snapshot; `None` where there is none.
    pub fn end(&self) -> Option<(u64, Position)> {
        let snapshot = self.snapshot.as_ref().map(|snapshot| (snapshot.point.sequence, snapshot.position));
        self.events.last().map(|event| (event.sequence, event.position)).or(snapshot)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the log could not be read")]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Keys(#[from] keys::Error),
}

pub type Handle = gather::Handle<Streams>;

/// Reads the events and keys of streams.
#[derive(Clone)]
pub struct Streams {
    keys: Keys,
    partitions: u16,
    /// How many events of a stream are read before its snapshot is looked for.
    first_events: u64,
    long: moka::sync::Cache<StreamId, ()>,
}

/// A stream that is being read.
struct Reading<'a> {
    stream: &'a StreamId,
    partition: Partition,
    /// Of the snapshot that has yet to be looked for.
    shape: Option<i32>,
    finished: bool,
    loaded: Loaded,
}

impl gather::Fetch for Streams {
    type Key = Request;
    type Value = Loaded;
    type Error = Error;

    async fn fetch(&self, connection: &mut PgConnection, requests: &[Request]) -> Result<Vec<Loaded>, Error> {
        let mut readings: Vec<Reading<'_>> = requests
            .iter()
            .map(|Request { stream, shape }| Reading {
                stream,
                partition: stream.partition(self.partitions),
                shape: *shape,
                finished: false,
                loaded: Loaded::default(),
            })
            .collect();
        let mut all: Vec<&mut Reading<'_>> = readings.iter_mut().collect();
        self.read_first(connection, &mut all).await?;
        loop {
            let mut unfinished: Vec<_> = readings.iter_mut().filter(|reading| !reading.finished).collect();
            if unfinished.is_empty() {
                break;
            }
            let shapes: Vec<_> = unfinished.iter_mut().map(|reading| reading.shape.take()).collect();
            read(connection, &mut unfinished, &shapes, STREAM_EVENTS_MAX).await?;
        }
        let known = readings.iter().filter(|reading| reading.loaded.end().is_some());
        let known: Vec<&StreamId> = known.map(|reading| reading.stream).collect();
        let mut keys = self.keys.of_subjects(connection, &known).await?.into_iter();
        let loaded = readings.into_iter().map(|reading| {
            let key = reading.loaded.end().and_then(|_| keys.next());
            Loaded { key, ..reading.loaded }
        });
        Ok(loaded.collect())
    }

    fn transient(error: &Error) -> bool {
        matches!(error, Error::Database(_) | Error::Keys(keys::Error::Database(_)))
    }
}

impl Streams {
    /// Reads the first events of each stream, or of those that are known to be long the snapshot and what follows it.
    async fn read_first(
        &self,
        connection: &mut PgConnection,
        readings: &mut [&mut Reading<'_>],
    ) -> Result<(), Error> {
        let known = |reading: &mut &mut Reading<'_>| {
            reading.shape.take_if(|_| self.long.contains_key(reading.stream))
        };
        let shapes: Vec<_> = readings.iter_mut().map(known).collect();
        read(connection, readings, &shapes, self.first_events).await?;
        for reading in readings.iter().filter(|reading| !reading.finished && reading.shape.is_some()) {
            self.long.insert(reading.stream.clone(), ());
        }
        Ok(())
    }
}

/// Reads the next events of each stream, and its snapshot of that shape if it has one; streams that gave less than they may
/// are finished.
async fn read(
    connection: &mut PgConnection,
    readings: &mut [&mut Reading<'_>],
    shapes: &[Option<i32>],
    events_max: u64,
) -> Result<(), Error> {
    let of = |part: fn(&StreamId) -> &str| -> Vec<&str> {
        readings.iter().map(|reading| part(reading.stream)).collect()
    };
    let after = |reading: &&mut Reading<'_>| reading.loaded.end().map_or(0, |(version, _)| signed(version));
    let looks_for_snapshots = shapes.iter().any(Option::is_some);
    let mut query = sqlx::query(if looks_for_snapshots { FROM_SNAPSHOTS } else { EVENTS })
        .bind(readings.iter().map(|reading| i32::from(reading.partition)).collect::<Vec<_>>())
        .bind(of(|stream| &stream.tenant))
        .bind(of(|stream| &stream.aggregate_type))
        .bind(of(|stream| &stream.aggregate_id))
        .bind(readings.iter().map(after).collect::<Vec<_>>())
        .bind(signed(events_max));
    if looks_for_snapshots {
        query = query.bind(shapes);
    }
    let rows = query.fetch_all(connection).await?;
    let mut counts: Vec<u64> = vec![0; readings.len()];
    for row in &rows {
        let place = usize::try_from(row.try_get::<i64, _>(12)? - 1).expect("ordinals count from 1");
        let reading = &mut *readings[place];
        let event = recorded(row, reading.partition, None)?;
        let sealed: Option<Vec<u8>> = if looks_for_snapshots { row.try_get(13)? } else { None };
        match (sealed, shapes[place]) {
            (Some(sealed), Some(shape)) => {
                // It stands further on than what was read before.
                reading.loaded.events.clear();
                let point = Point { sequence: event.sequence, event_id: event.event_id, shape };
                reading.loaded.snapshot = Some(Snapshot { point, position: event.position, sealed });
            }
            (None | Some(_), None | Some(_)) => reading.loaded.events.push(event),
        }
        counts[place] += 1;
    }
    for (reading, count) in readings.iter_mut().zip(counts) {
        reading.finished = count < events_max;
    }
    Ok(())
}

pub(crate) fn start(
    service: &PgConnectOptions,
    keys: Keys,
    partitions: u16,
    connections: usize,
    snapshots: &snapshots::Options,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Handle {
    let first_events = u64::try_from(snapshots.after_events).unwrap_or(u64::MAX).saturating_add(1);
    let first_events = first_events.min(STREAM_EVENTS_MAX);
    let long = moka::sync::Cache::new(LONG_STREAMS_MAX);
    let streams = Streams { keys, partitions, first_events, long };
    gather::start(streams, service, "rollcall-load", connections, tasks, shutdown)
}

/// A page of one stream's events after a version, for auditors.
///
/// # Errors
/// Where the database cannot be read.
pub async fn page(
    connection: &mut PgConnection,
    stream: &StreamId,
    partition: u16,
    after: u64,
    limit: u32,
) -> Result<Vec<Recorded>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT position, sequence, recorded_at, event_id, tenant_id, aggregate_type, aggregate_id, event_type,
                event_version, payload::text, personal, metadata::text
         FROM log.events
         WHERE partition = $1 AND tenant_id = $2 AND aggregate_type = $3 AND aggregate_id = $4 AND sequence > $5
         ORDER BY sequence LIMIT $6",
    )
    .bind(i32::from(partition))
    .bind(&*stream.tenant)
    .bind(&*stream.aggregate_type)
    .bind(&*stream.aggregate_id)
    .bind(signed(after))
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| recorded(row, partition, None)).collect()
}

/// The first events of many streams, at most `limit` of each, for auditors: by stream, in order.
///
/// # Errors
/// Where the database cannot be read.
pub async fn firsts(
    connection: &mut PgConnection,
    streams: &[(StreamId, u16)],
    limit: u32,
) -> Result<Vec<Vec<Recorded>>, sqlx::Error> {
    let of = |part: fn(&StreamId) -> &str| -> Vec<&str> {
        streams.iter().map(|(stream, _)| part(stream)).collect()
    };
    let rows = sqlx::query(
        "SELECT e.position, e.sequence, e.recorded_at, e.event_id, e.tenant_id, e.aggregate_type, e.aggregate_id,
                e.event_type, e.event_version, e.payload::text, e.personal, e.metadata::text, q.ordinal
         FROM unnest($1::int4[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY
              AS q(partition, tenant_id, aggregate_type, aggregate_id, ordinal)
         CROSS JOIN LATERAL (
             SELECT * FROM log.events s
             WHERE s.partition = q.partition AND s.tenant_id = q.tenant_id
               AND s.aggregate_type = q.aggregate_type AND s.aggregate_id = q.aggregate_id
             ORDER BY s.sequence LIMIT $5) e
         ORDER BY q.ordinal, e.sequence",
    )
    .bind(streams.iter().map(|(_, partition)| i32::from(*partition)).collect::<Vec<_>>())
    .bind(of(|stream| &stream.tenant))
    .bind(of(|stream| &stream.aggregate_type))
    .bind(of(|stream| &stream.aggregate_id))
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    let mut events: Vec<Vec<Recorded>> = streams.iter().map(|_| Vec::new()).collect();
    for row in &rows {
        let place = usize::try_from(row.try_get::<i64, _>(12)? - 1).expect("ordinals count from 1");
        let event = recorded(row, streams[place].1, events[place].last())?;
        events[place].push(event);
    }
    Ok(events)
}
