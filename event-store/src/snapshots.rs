//! Snapshots: what a long stream's events came to, so that a load reads it and the events after it instead of everything.
//!
//! Shape: a load that read many events -> [`Handle::offer`] -> queue -> sealed -> one row a stream -> the next load.
//!
//! What a caller can rely on: no command waits for a snapshot. The queue is short, what finds no room is dropped, and a
//! stream stands in it once. A snapshot is a copy that may be lost or deleted at any time; where it does not fit (another
//! shape, events that are not there, bytes that do not open) the events decide and it is replaced.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{PgConnection, postgres::PgConnectOptions};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Partition, Position, StreamId, bounded, connect,
    keys::{DataKey, Error, Point},
    session,
    tail::signed,
};

/// Snapshots that wait to be stored at most.
const QUEUE_MAX: usize = 32;
/// A snapshot is stored up to this size; with the queue it bounds the memory.
const BYTES_MAX: usize = 1024 * 1024;
/// After a failure; meanwhile the queue fills and the rest is dropped.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

const SNAPSHOTS: &str = "rollcall_snapshots_total";

/// Bounds of the use of snapshots.
#[derive(Clone, Debug)]
pub struct Options {
    /// A load that reads more events than this offers a snapshot.
    pub after_events: usize,
}

impl Default for Options {
    fn default() -> Self {
        // PostgreSQL reads a hundred events in some four times the time of five, and a thousand in a hundred times; a row
        // written for every hundred events costs next to nothing.
        Self { after_events: 100 }
    }
}

/// A snapshot as the log has it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub point: Point,
    /// Of the last event in it.
    pub position: Position,
    pub(crate) sealed: Vec<u8>,
}

impl Snapshot {
    /// # Errors
    /// Where the bytes were changed, or made of other events.
    pub(crate) fn open(&self, stream: &StreamId, key: &DataKey) -> Result<Vec<u8>, Error> {
        key.open_snapshot(stream, self.point, &self.sealed)
    }
}

/// What became of a snapshot, for the counter.
#[derive(Clone, Copy)]
pub(crate) enum Outcome {
    Stored,
    /// Another process has stored one that is as good.
    Surpassed,
    /// There was no room in the queue, or it was too long.
    Dropped,
    Failed,
    /// It could not be opened or read, and was passed over.
    Unusable,
}

impl Outcome {
    const ALL: [Self; 5] = [Self::Stored, Self::Surpassed, Self::Dropped, Self::Failed, Self::Unusable];

    fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Surpassed => "surpassed",
            Self::Dropped => "dropped",
            Self::Failed => "failed",
            Self::Unusable => "unusable",
        }
    }

    pub(crate) fn count(self) {
        metrics::counter!(SNAPSHOTS, "outcome" => self.as_str()).increment(1);
    }
}

/// A snapshot to be stored.
pub(crate) struct New {
    pub stream: StreamId,
    pub point: Point,
    pub key: DataKey,
    /// The aggregate, in clear.
    pub plain: Vec<u8>,
    /// Whatever stands in its place is of no use.
    pub replaces: bool,
}

/// Takes snapshots to be stored. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle {
    after_events: usize,
    queue: mpsc::Sender<(New, Waiting)>,
    waiting: Arc<Mutex<HashSet<StreamId>>>,
}

impl Handle {
    /// Whether a load that read so many events should leave a snapshot behind.
    pub fn wanted(&self, events: usize) -> bool {
        events > self.after_events
    }

    /// Has a snapshot stored in the background. It is made only where there is room for it and none of the stream waits.
    pub fn offer(&self, stream: &StreamId, make: impl FnOnce() -> New) {
        let Ok(room) = self.queue.try_reserve() else {
            Outcome::Dropped.count();
            return;
        };
        let Some(waiting) = Waiting::enter(&self.waiting, stream) else { return };
        let new = make();
        if new.plain.len() > BYTES_MAX {
            Outcome::Dropped.count();
            return;
        }
        room.send((new, waiting));
    }
}

/// A stream whose snapshot is on its way, until this is dropped.
struct Waiting {
    streams: Arc<Mutex<HashSet<StreamId>>>,
    stream: StreamId,
}

impl Waiting {
    fn enter(streams: &Arc<Mutex<HashSet<StreamId>>>, stream: &StreamId) -> Option<Self> {
        let entered = streams.lock().unwrap_or_else(PoisonError::into_inner).insert(stream.clone());
        entered.then(|| Self { streams: Arc::clone(streams), stream: stream.clone() })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.stream);
    }
}

/// Starts the task that stores snapshots. It connects when the first one comes, and leaves what waits at the end.
pub(crate) fn start(
    service: &PgConnectOptions,
    partitions: Partition,
    options: &Options,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Handle {
    for outcome in Outcome::ALL {
        metrics::counter!(SNAPSHOTS, "outcome" => outcome.as_str()).increment(0);
    }
    let (queue, offered) = mpsc::channel(QUEUE_MAX);
    let keeper = Keeper {
        // Losing one costs nothing, so nobody waits for the disk.
        options: session(service, "rollcall-snapshots").options([("synchronous_commit", "off")]),
        connection: None,
        partitions,
        after_events: options.after_events,
    };
    let shutdown = shutdown.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = keeper.run(offered) => {}
            () = shutdown.cancelled() => {}
        }
    });
    Handle { after_events: options.after_events, queue, waiting: Arc::default() }
}

struct Keeper {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
    partitions: Partition,
    after_events: usize,
}

impl Keeper {
    async fn run(mut self, mut offered: mpsc::Receiver<(New, Waiting)>) {
        while let Some((new, waiting)) = offered.recv().await {
            match bounded(self.store(&new)).await {
                Ok(true) => Outcome::Stored.count(),
                Ok(false) => Outcome::Surpassed.count(),
                Err(error) => {
                    Outcome::Failed.count();
                    tracing::warn!(%error, "a snapshot could not be stored; loads go by the events meanwhile");
                    self.connection = None;
                    tokio::time::sleep(FAILURE_PAUSE).await;
                }
            }
            drop(waiting);
        }
    }

    /// Whether it stands there now.
    async fn store(&mut self, new: &New) -> Result<bool, sqlx::Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(connect(&self.options).await?),
        };
        // It never goes back, unless what stands there is of no use: told so by the load, of an older shape, or of events
        // that are not in the log (a restore). One of a newer shape belongs to newer binaries beside this one; it gives way
        // where it has grown old, so that after a return to this shape loads are short again.
        let done = sqlx::query(
            "INSERT INTO log.snapshots AS s
                 (sequence, recorded_at, partition, shape, tenant_id, aggregate_type, aggregate_id, sealed)
             VALUES ($1, clock_timestamp(), $2, $3, $4, $5, $6, $7)
             ON CONFLICT (partition, tenant_id, aggregate_type, aggregate_id) DO UPDATE
             SET sequence = excluded.sequence, recorded_at = excluded.recorded_at, shape = excluded.shape,
                 sealed = excluded.sealed
             WHERE $8 OR s.shape < excluded.shape
                OR s.sequence + CASE WHEN s.shape = excluded.shape THEN 1 ELSE $9::int8 END <= excluded.sequence
                OR NOT EXISTS (
                    SELECT FROM log.events e
                    WHERE e.partition = s.partition AND e.tenant_id = s.tenant_id
                      AND e.aggregate_type = s.aggregate_type AND e.aggregate_id = s.aggregate_id
                      AND e.sequence = s.sequence)",
        )
        .bind(signed(new.point.sequence))
        .bind(i32::from(new.stream.partition(self.partitions)))
        .bind(new.point.shape)
        .bind(&*new.stream.tenant)
        .bind(&*new.stream.aggregate_type)
        .bind(&*new.stream.aggregate_id)
        .bind(new.key.seal_snapshot(&new.stream, new.point, &new.plain))
        .bind(new.replaces)
        .bind(i64::try_from(self.after_events).unwrap_or(i64::MAX))
        .execute(connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }
}
