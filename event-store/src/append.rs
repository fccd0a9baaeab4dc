//! Appending: concurrent commands are collected by a few writers and stored with one statement, each with its own
//! outcome.
//!
//! Shape: `Append` -> queue -> [`batch`] (twins settled, sorted by partition) -> `log.append` -> an outcome for each.
//!
//! What is left if the process dies: before the statement, nothing; after it, everything of every accepted append. A
//! statement whose answer was lost is asked about and sent again under the same event ids, never decided anew.

mod batch;
mod outcome;
mod statement;
mod writer;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnectOptions;
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    Partition, Position, StreamId,
    claims::ClaimChange,
    commands::Record,
    hints::Hints,
    keys::{DataKey, Digest, Keys, WrappedKey},
    spawn_vital,
    tail::{Heads, recent::Recent},
};

/// Bounds of the writers.
#[derive(Clone, Debug)]
pub struct Options {
    /// Writers, each with a connection; the partitions are split between them.
    pub writers: u16,
    /// Appends that wait for the writers at most; more are refused at once.
    pub queue_appends_max: usize,
    /// Appends that one statement stores at most.
    pub batch_appends_max: usize,
    /// Batches of a writer that are looked through before they are stored, after one that met a taken claim or a used key.
    pub batches_looked_through: u32,
}

impl Default for Options {
    fn default() -> Self {
        // With two, one batch is made while the other is flushed to the disk: a tenth more over 256 connections.
        // Who repeats himself does so more than once, and a batch that meets what it did not look for is run twice: at the
        // worst one in 65.
        Self { writers: 2, queue_appends_max: 8_192, batch_appends_max: 512, batches_looked_through: 64 }
    }
}

/// What a command wants stored: all of it or nothing.
#[derive(Debug)]
pub struct Append {
    pub stream: StreamId,
    pub expected: Expected,
    /// May be empty where only a record is to be kept.
    pub events: Vec<NewEvent>,
    pub claims: Vec<ClaimChange>,
    pub record: Option<Record>,
    /// The data key of a subject whose first event this is.
    pub data_key: Option<NewDataKey>,
}

/// The version that an append was decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A stream whose random id was made a moment ago: nothing to probe.
    Fresh,
    /// The stream's highest sequence, 0 where it has none.
    Version(u64),
}

impl Expected {
    pub(crate) fn version(self) -> u64 {
        match self {
            Self::Fresh => 0,
            Self::Version(version) => version,
        }
    }
}

/// An event on its way in; `personal` is ciphertext.
#[derive(Debug)]
pub struct NewEvent {
    pub event_id: Uuid,
    pub event_type: &'static str,
    pub event_version: &'static str,
    pub payload: String,
    pub personal: Option<Vec<u8>>,
    pub metadata: Arc<str>,
}

/// A data key that becomes known when the append is stored.
pub struct NewDataKey {
    pub key: DataKey,
    pub wrapped: WrappedKey,
}

impl std::fmt::Debug for NewDataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<data key>")
    }
}

/// Where an append was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub partition: Partition,
    /// Position of the append's last event; for an append without events, the head that its decision had seen.
    pub position: Position,
    /// When its last event was recorded; none for an append without events.
    pub recorded_at: Option<DateTime<Utc>>,
}

/// Why an append was not stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("the stream has another version than the one decided on")]
    Conflict,
    #[error("another stream holds the claim")]
    ClaimTaken(Digest),
    #[error("the idempotency key was used")]
    KeyUsed,
    #[error("too many commands are waiting")]
    Overloaded,
    #[error("the service is stopping")]
    Stopping,
    /// Nothing was stored.
    #[error("PostgreSQL cannot be reached")]
    Unreachable,
    /// Nothing was stored; see [`Log::halt`](crate::Log::halt).
    #[error("the log was restored to an earlier point and takes no commands")]
    Restored,
    /// It may or may not have been stored; asking again with the same idempotency key tells.
    #[error("the connection to PostgreSQL was lost before it answered")]
    Unknown,
    #[error("the append was refused by the database")]
    Database(#[source] Arc<sqlx::Error>),
}

type Reply = oneshot::Sender<Result<Appended, Error>>;

struct Pending {
    append: Append,
    partition: Partition,
    reply: Reply,
}

/// Hands appends to the writers. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    queues: Arc<[mpsc::Sender<Pending>]>,
    heads: Heads,
    partitions: Partition,
}

impl Handle {
    /// Stores an append. Once the call was polled the append goes on even if the caller goes away: a dropped call has
    /// an unknown outcome, never half of one.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Overloaded`] comes at once where the queue is full.
    pub async fn append(&self, append: Append) -> Result<Appended, Error> {
        if self.heads.halt().is_some() {
            outcome::count(&Error::Restored);
            return Err(Error::Restored);
        }
        let partition = append.stream.partition(self.partitions);
        let (reply, answer) = oneshot::channel();
        let queue = &self.queues[usize::from(partition) % self.queues.len()];
        queue.try_send(Pending { append, partition, reply }).map_err(|refused| {
            let error = match refused {
                mpsc::error::TrySendError::Full(_) => Error::Overloaded,
                mpsc::error::TrySendError::Closed(_) => Error::Stopping,
            };
            outcome::count(&error);
            error
        })?;
        answer.await.unwrap_or(Err(Error::Unknown))
    }

    /// Appends that may wait for a writer.
    pub fn capacity(&self) -> usize {
        self.queues.iter().map(mpsc::Sender::max_capacity).sum()
    }

    /// Appends that wait for a writer.
    pub fn depth(&self) -> usize {
        self.queues.iter().map(|queue| queue.max_capacity() - queue.capacity()).sum()
    }
}

/// Where the writers tell of what they stored.
#[derive(Clone)]
pub(crate) struct Stored {
    pub keys: Keys,
    pub heads: Heads,
    pub hints: Hints,
    pub recent: Arc<Recent>,
}

pub(crate) fn start(
    service: &PgConnectOptions,
    stored: &Stored,
    partitions: Partition,
    options: &Options,
    tasks: &TaskTracker,
    failed: &CancellationToken,
    shutdown: &CancellationToken,
) -> Handle {
    outcome::register();
    let writers = options.writers.clamp(1, partitions);
    let queues = (0..writers).map(|_| {
        let (queue, pending) = mpsc::channel(options.queue_appends_max.div_ceil(usize::from(writers)));
        let writer = writer::Writer::new(service, stored.clone(), options.clone());
        spawn_vital(tasks, failed, "append", writer.run(pending, shutdown.clone()));
        queue
    });
    Handle { queues: queues.collect(), heads: stored.heads.clone(), partitions }
}
