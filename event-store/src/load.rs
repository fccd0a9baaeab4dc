//! Loading whole streams: the loads of concurrent commands share a statement.

use sqlx::{PgConnection, postgres::PgConnectOptions};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Recorded, StreamId, gather,
    keys::{self, Keys, SubjectKey},
    tail::{recorded, signed},
};

/// Events of one stream that one statement reads at most; longer streams take several.
const STREAM_EVENTS_MAX: u64 = 1_000;

/// A stream as it was when it was read.
pub struct Loaded {
    /// In order, from the first.
    pub events: Vec<Recorded>,
    /// None where the stream has no event.
    pub key: Option<SubjectKey>,
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
}

impl gather::Fetch for Streams {
    type Key = StreamId;
    type Value = Loaded;
    type Error = Error;

    async fn fetch(&self, connection: &mut PgConnection, streams: &[StreamId]) -> Result<Vec<Loaded>, Error> {
        let mut loaded: Vec<Vec<Recorded>> = streams.iter().map(|_| Vec::new()).collect();
        let mut unfinished: Vec<usize> = (0..streams.len()).collect();
        while !unfinished.is_empty() {
            self.read_on(connection, streams, &mut loaded, &mut unfinished).await?;
        }
        let known =
            streams.iter().zip(&loaded).filter(|(_, events)| !events.is_empty()).map(|(stream, _)| stream);
        let keys = self.keys.of_subjects(connection, known).await?;
        Ok(streams
            .iter()
            .zip(loaded)
            .map(|(stream, events)| Loaded { events, key: keys.get(stream).cloned() })
            .collect())
    }

    fn transient(error: &Error) -> bool {
        matches!(error, Error::Database(_) | Error::Keys(keys::Error::Database(_)))
    }
}

impl Streams {
    /// Reads the next events of the unfinished streams; those that gave less than they may are finished.
    async fn read_on(
        &self,
        connection: &mut PgConnection,
        streams: &[StreamId],
        loaded: &mut [Vec<Recorded>],
        unfinished: &mut Vec<usize>,
    ) -> Result<(), Error> {
        let of = |part: fn(&StreamId) -> &str| -> Vec<&str> {
            unfinished.iter().map(|&index| part(&streams[index])).collect()
        };
        let partitions: Vec<u16> =
            unfinished.iter().map(|&index| streams[index].partition(self.partitions)).collect();
        let before: Vec<usize> = unfinished.iter().map(|&index| loaded[index].len()).collect();
        let after: Vec<i64> =
            unfinished.iter().map(|&i| loaded[i].last().map_or(0, |event| signed(event.sequence))).collect();
        // A lateral with its own ORDER BY and LIMIT: a plain join became a hash join over the whole log.
        let rows = sqlx::query(
            "SELECT e.position, e.sequence, e.recorded_at, e.event_id, e.tenant_id, e.aggregate_type, e.aggregate_id,
                    e.event_type, e.event_version, e.payload::text, e.personal, '{}', q.ordinal
             FROM unnest($1::int4[], $2::text[], $3::text[], $4::text[], $5::int8[]) WITH ORDINALITY
                  AS q(partition, tenant_id, aggregate_type, aggregate_id, after, ordinal)
             CROSS JOIN LATERAL (
                 SELECT * FROM log.events s
                 WHERE s.partition = q.partition AND s.tenant_id = q.tenant_id
                   AND s.aggregate_type = q.aggregate_type AND s.aggregate_id = q.aggregate_id
                   AND s.sequence > q.after
                 ORDER BY s.sequence LIMIT $6) e
             ORDER BY q.ordinal, e.sequence",
        )
        .bind(partitions.iter().map(|&partition| i32::from(partition)).collect::<Vec<_>>())
        .bind(of(|stream| &stream.tenant))
        .bind(of(|stream| &stream.aggregate_type))
        .bind(of(|stream| &stream.aggregate_id))
        .bind(&after)
        .bind(signed(STREAM_EVENTS_MAX))
        .fetch_all(connection)
        .await?;
        for row in &rows {
            let ordinal: i64 = sqlx::Row::try_get(row, 12)?;
            let place = usize::try_from(ordinal - 1).expect("ordinals count from 1");
            loaded[unfinished[place]].push(recorded(row, partitions[place])?);
        }
        let mut place = 0;
        unfinished.retain(|&index| {
            let read = loaded[index].len() - before[place];
            place += 1;
            read as u64 == STREAM_EVENTS_MAX
        });
        Ok(())
    }
}

pub(crate) fn start(
    service: &PgConnectOptions,
    keys: Keys,
    partitions: u16,
    connections: usize,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Handle {
    gather::start(Streams { keys, partitions }, service, "rollcall-load", connections, tasks, shutdown)
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
    rows.iter().map(|row| recorded(row, partition)).collect()
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
        let place =
            usize::try_from(sqlx::Row::try_get::<i64, _>(row, 12)? - 1).expect("ordinals count from 1");
        events[place].push(recorded(row, streams[place].1)?);
    }
    Ok(events)
}
