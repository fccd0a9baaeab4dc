//! Answers about single users that were read of late, in memory.
//!
//! Shape: [`Cache::get`] -> an answer as good as a read now; else [`Cache::place`] -> the read -> [`Cache::keep`].
//!
//! *Invariant:* an answer is kept only where it shows every event that the log's tail knew of when it was read, and given
//! only where the tail knows of none since ([`Changes`]): with a token, up to what the token saw; without one, of all that
//! was committed more than 100 ms ago. What no event tells of (a row that was repaired, a key that is gone) is over within
//! a minute.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quick_cache::{Weighter, sync};
use rollcall_event_store::{
    Partition, Position, StreamHash, StreamId,
    tail::changes::{Changes, Mark},
};

use crate::{progress::Serving, schema::Version};

/// As long as a data key, the time to the next sweep included.
const KEPT_FOR: Duration = Duration::from_secs(55);
const SWEPT_EVERY: Duration = Duration::from_secs(5);
/// What an entry takes beside its answer.
const OVERHEAD_BYTES: u64 = 256;
/// What an answer takes, in the mean; where it takes more, fewer are kept.
const ANSWER_BYTES: u64 = 1_024;

const HITS: &str = "rollcall_profile_cache_hits_total";
const MISSES: &str = "rollcall_profile_cache_misses_total";

/// A user as an answer shows it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// JSON.
    pub body: Bytes,
    pub version: u64,
    pub partition: Partition,
    pub position: Position,
}

#[derive(Clone)]
struct Entry {
    /// Of the read model.
    of: Version,
    mark: Mark,
    read_at: Instant,
    shown: Shown,
}

#[derive(Clone)]
struct Bytewise;

impl Weighter<StreamHash, Entry> for Bytewise {
    fn weight(&self, _: &StreamHash, entry: &Entry) -> u64 {
        OVERHEAD_BYTES + entry.shown.body.len() as u64
    }
}

/// Where an answer may be kept, and what is known of its user before it is read.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    stream: StreamHash,
    mark: Mark,
}

pub(super) struct Cache {
    entries: sync::Cache<StreamHash, Entry, Bytewise>,
    changes: Changes,
    hits: metrics::Counter,
    misses: metrics::Counter,
}

impl Cache {
    /// Of so many bytes at most.
    pub fn new(bytes: u64, changes: Changes) -> Self {
        let items = usize::try_from(bytes / (OVERHEAD_BYTES + ANSWER_BYTES)).unwrap_or(usize::MAX);
        let (hits, misses) = (metrics::counter!(HITS), metrics::counter!(MISSES));
        hits.increment(0);
        misses.increment(0);
        Self { entries: sync::Cache::with_weighter(items, bytes, Bytewise), changes, hits, misses }
    }

    /// Takes away what has lived its time, now and then.
    pub async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEPT_EVERY).await;
            self.entries.retain(|_, entry| entry.read_at.elapsed() < KEPT_FOR);
        }
    }

    /// A user as it is shown with all of its events up to a position at least.
    pub fn get(&self, serving: &Serving, stream: StreamHash, up_to: Position) -> Option<Shown> {
        let shown = self.good(serving, stream, up_to);
        if shown.is_some() { &self.hits } else { &self.misses }.increment(1);
        shown
    }

    fn good(&self, serving: &Serving, stream: StreamHash, up_to: Position) -> Option<Shown> {
        // Before the mark: all up to there are in it.
        let seen = self.changes.seen(stream.partition(serving.progress.partitions()));
        let mark = self.changes.mark(stream)?;
        let entry = self.entries.get(&stream)?;
        let good = seen >= up_to
            && entry.mark == mark
            && entry.of == serving.version
            && entry.read_at.elapsed() < KEPT_FOR;
        good.then_some(entry.shown)
    }

    /// Where the answer of a read that comes after this may be kept; none where it may not show all that is known of the
    /// stream, or change without an event because it is parked.
    pub fn place(&self, serving: &Serving, stream: &StreamId) -> Option<Place> {
        let hash = stream.hash();
        let mark = self.changes.mark(hash)?;
        let Serving { progress, .. } = serving;
        let applied = progress.position(hash.partition(progress.partitions())) >= mark.position();
        let parked = progress.any_parked() && progress.parked(stream).is_some();
        (applied && !parked).then_some(Place { stream: hash, mark })
    }

    /// Keeps what was read after its place was given.
    pub fn keep(&self, Place { stream, mark }: Place, serving: &Serving, shown: Shown) {
        let (of, read_at) = (serving.version, Instant::now());
        // An event that came meanwhile raises the mark, and nobody takes this for good.
        self.entries.insert(stream, Entry { of, mark, read_at, shown });
    }
}
