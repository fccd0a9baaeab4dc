//! How far a projection has come, as this process knows it: what a reader with a consistency token waits for.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rollcall_event_store::{Borrowed, Log, Partition, Position, StreamId, glance, hints::Topic};
use sqlx::Row;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    parking::{Streams, table::place},
    schema::Version,
};

/// How often the checkpoints of other processes are looked at while somebody waits for them, and else.
const POLL_WAITING: Duration = Duration::from_millis(50);
const POLL_IDLE: Duration = Duration::from_millis(250);
/// The shortest time between two looks, however many hints come.
const POLL_HINTED: Duration = Duration::from_millis(2);

/// The applied position of each partition. Cheap to clone.
#[derive(Clone)]
pub struct Progress(Arc<Inner>);

struct Inner {
    positions: Box<[watch::Sender<Position>]>,
    /// Streams that are parked at or before the position. Known before the position is: nobody is told of an event that its
    /// row does not show.
    parked: Box<[Mutex<Streams>]>,
    /// Partitions that this process projects itself, and need not ask the database about.
    own: Box<[AtomicBool]>,
    /// Who wait for other processes.
    waiting: AtomicUsize,
    /// Wakes who follows when somebody begins to wait.
    wanted: Arc<Notify>,
}

impl Progress {
    pub fn new(partitions: Partition) -> Self {
        Self::with(partitions, Arc::default())
    }

    fn with(partitions: Partition, wanted: Arc<Notify>) -> Self {
        let positions = (0..partitions).map(|_| watch::Sender::new(0)).collect();
        let own = (0..partitions).map(|_| AtomicBool::new(false)).collect();
        let parked = (0..partitions).map(|_| Mutex::default()).collect();
        Self(Arc::new(Inner { positions, parked, own, waiting: AtomicUsize::new(0), wanted }))
    }

    pub fn partitions(&self) -> Partition {
        Partition::try_from(self.0.positions.len()).expect("made from a number of partitions")
    }

    /// What is readable of a partition; the read model may be ahead of it, never behind.
    pub fn position(&self, partition: Partition) -> Position {
        self.0.positions.get(usize::from(partition)).map_or(0, |position| *position.borrow())
    }

    pub(crate) fn advance(&self, partition: Partition, position: Position) {
        self.0.positions[usize::from(partition)].send_if_modified(|known| {
            let news = position > *known;
            if news {
                *known = position;
            }
            news
        });
    }

    /// Where a stream is parked: its row shows nothing of this position or a later one.
    pub fn parked(&self, stream: &StreamId) -> Option<(Partition, Position)> {
        let partition = stream.partition(self.partitions());
        let position = self.streams(partition).get(stream).copied()?;
        Some((partition, position))
    }

    /// Whether any stream is parked; hardly ever is one.
    pub fn any_parked(&self) -> bool {
        (0..self.partitions()).any(|partition| !self.streams(partition).is_empty())
    }

    fn streams(&self, partition: Partition) -> MutexGuard<'_, Streams> {
        self.0.parked[usize::from(partition)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream is parked at a position.
    pub(crate) fn park(&self, partition: Partition, stream: &StreamId, position: Position) {
        let mut streams = self.streams(partition);
        streams.insert(stream.clone(), position);
        // Under the lock: what was read before this position is older news.
        self.advance(partition, position);
    }

    /// A stream is parked no longer.
    pub(crate) fn release(&self, partition: Partition, stream: &StreamId) {
        self.streams(partition).remove(stream);
    }

    /// What was read of a partition: its checkpoint, and not before that the streams that are parked. Where more is known
    /// already, it is old.
    pub(crate) fn follow(&self, partition: Partition, position: Position, parked: Streams) {
        let mut streams = self.streams(partition);
        if position >= self.position(partition) {
            *streams = parked;
            self.advance(partition, position);
        }
    }

    /// The same from somebody who looks at what others project. Of a partition that this process projects it is news only where
    /// others have brought it further: streams go on without moving the checkpoint, and the projector knows first.
    fn hear(&self, partition: Partition, position: Position, parked: Streams) {
        let own = self.0.own[usize::from(partition)].load(Ordering::Acquire);
        if !own || position > self.position(partition) {
            self.follow(partition, position, parked);
        }
    }

    /// Says whether this process projects a partition itself.
    pub(crate) fn own(&self, partition: Partition, own: bool) {
        self.0.own[usize::from(partition)].store(own, Ordering::Release);
    }

    /// Waits until all positions are readable; false where they were not within `at_most`. Wakes by notification.
    pub async fn wait(
        &self,
        positions: impl Iterator<Item = (Partition, Position)>,
        at_most: Duration,
    ) -> bool {
        let all = async {
            let mut waiting = None;
            for (partition, position) in positions {
                let Some(applied) = self.0.positions.get(usize::from(partition)) else { return false };
                if *applied.borrow() >= position {
                    continue;
                }
                if !self.0.own[usize::from(partition)].load(Ordering::Acquire) {
                    waiting.get_or_insert_with(|| Waiting::begin(&self.0));
                }
                if applied.subscribe().wait_for(|applied| *applied >= position).await.is_err() {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(at_most, all).await.unwrap_or(false)
    }
}

/// Somebody waits, for as long as this lives.
struct Waiting<'a>(&'a Inner);

impl<'a> Waiting<'a> {
    fn begin(progress: &'a Inner) -> Self {
        progress.waiting.fetch_add(1, Ordering::AcqRel);
        progress.wanted.notify_one();
        Self(progress)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The version of a projection that queries read, and how far it has come.
#[derive(Clone)]
pub struct Serving {
    pub version: Version,
    pub progress: Progress,
}

/// The versions that a process knows of, and which of them serve. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Known>);

struct Known {
    partitions: Partition,
    wanted: Arc<Notify>,
    projections: Vec<Followed>,
    versions: Mutex<BTreeMap<Version, Progress>>,
}

/// A projection of a shape whose versions are looked at.
struct Followed {
    projection: &'static str,
    shape: i32,
    serving: watch::Sender<Option<Serving>>,
}

impl Registry {
    /// For the versions of these projections and shapes.
    pub fn new(partitions: Partition, projections: impl IntoIterator<Item = (&'static str, i32)>) -> Self {
        let followed =
            |(projection, shape)| Followed { projection, shape, serving: watch::Sender::new(None) };
        Self(Arc::new(Known {
            partitions,
            wanted: Arc::default(),
            projections: projections.into_iter().map(followed).collect(),
            versions: Mutex::default(),
        }))
    }

    /// How far a version has come, as far as this process knows.
    pub fn progress(&self, version: Version) -> Progress {
        let mut versions = self.0.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let progress = || Progress::with(self.0.partitions, Arc::clone(&self.0.wanted));
        versions.entry(version).or_insert_with(progress).clone()
    }

    /// What queries of a projection read; none while it is being built, or where it is not followed.
    pub fn serving(&self, projection: &str) -> Option<watch::Receiver<Option<Serving>>> {
        let mut followed = self.0.projections.iter();
        followed
            .find(|followed| followed.projection == projection)
            .map(|followed| followed.serving.subscribe())
    }

    /// All versions that are known, and whether each serves.
    pub fn versions(&self) -> Vec<(Version, Progress, bool)> {
        let serving: Vec<Version> = self
            .0
            .projections
            .iter()
            .filter_map(|followed| followed.serving.borrow().as_ref().map(|serving| serving.version))
            .collect();
        let versions = self.0.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions
            .iter()
            .map(|(version, progress)| (*version, progress.clone(), serving.contains(version)))
            .collect()
    }

    /// Projections that no version serves yet.
    pub fn building(&self) -> Vec<&'static str> {
        let followed = self.0.projections.iter();
        followed.filter(|one| one.serving.borrow().is_none()).map(|one| one.projection).collect()
    }

    fn anybody_waits(&self) -> bool {
        let versions = self.0.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.values().any(|progress| progress.0.waiting.load(Ordering::Acquire) > 0)
    }
}

/// Keeps a [`Registry`]: reads which versions there are, which of them serve and all their checkpoints with one statement,
/// on every hint while somebody waits for another process, however many do, and seldom otherwise.
pub struct Follower {
    log: Log,
    registry: Registry,
}

impl Follower {
    /// Knows what there is at this time.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn start(log: Log, registry: Registry) -> Result<Self, sqlx::Error> {
        let follower = Self { log, registry };
        glance(follower.read()).await?;
        Ok(follower)
    }

    /// Works until the shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut failing = false;
        let mut heard = self.log.hints().heard(Topic::Checkpoints);
        loop {
            let pause = async {
                if failing || !self.registry.anybody_waits() {
                    // A wish that came while we looked is kept, so that none is missed.
                    let idle = tokio::time::sleep(POLL_IDLE);
                    tokio::select! {
                        () = idle => {}
                        () = self.registry.0.wanted.notified(), if !failing => {}
                    }
                } else {
                    let hinted = async {
                        tokio::time::sleep(POLL_HINTED).await;
                        // It ends with the log.
                        let _ = heard.changed().await;
                    };
                    tokio::select! {
                        () = tokio::time::sleep(POLL_WAITING) => {}
                        () = hinted => {}
                    }
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = pause => {}
            }
            match glance(self.read()).await {
                Ok(()) => failing = false,
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "checkpoints cannot be read; trying again");
                    }
                    failing = true;
                }
            }
        }
    }

    async fn read(&self) -> Result<(), sqlx::Error> {
        let projections = &self.registry.0.projections;
        let mut connection = Borrowed::from(self.log.pool()).await?;
        let names: Vec<&str> = projections.iter().map(|followed| followed.projection).collect();
        let shapes: Vec<i32> = projections.iter().map(|followed| followed.shape).collect();
        let rows = sqlx::query(
            "SELECT w.ordinal, v.version, s.version IS NOT NULL, c.partition, c.position, p.parked
             FROM unnest($1::text[], $2::int4[]) WITH ORDINALITY AS w(projection, shape, ordinal)
             JOIN projections.versions v ON v.projection = w.projection AND v.shape = w.shape
             CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM projections.parked k
                 WHERE k.projection = v.projection AND k.version = v.version) AS parked) p
             JOIN projections.positions c ON c.projection = v.projection AND c.version = v.version
             LEFT JOIN projections.serving s
                 ON s.projection = v.projection AND s.shape = v.shape AND s.version = v.version",
        )
        .bind(&names)
        .bind(&shapes)
        .fetch_all(&mut *connection)
        .await?;
        // A stream is parked in the transaction that moves the checkpoint, so whoever reads this after the checkpoints
        // misses none.
        let mut parked: BTreeMap<(Version, Partition), Streams> = BTreeMap::new();
        if rows.iter().any(|row| row.try_get(5).unwrap_or(true)) {
            let streams = sqlx::query(
                "SELECT k.tenant_id, k.aggregate_type, k.aggregate_id, k.partition, k.position, k.sequence, w.ordinal,
                        k.version
                 FROM unnest($1::text[]) WITH ORDINALITY AS w(projection, ordinal)
                 JOIN projections.parked k ON k.projection = w.projection",
            )
            .bind(&names)
            .fetch_all(&mut *connection)
            .await?;
            for row in &streams {
                let at = place(row)?;
                let projection = projections[ordinal(row.try_get(6)?)].projection;
                let version = Version { projection, number: row.try_get(7)? };
                parked.entry((version, at.partition)).or_default().insert(at.stream, at.position);
            }
        }
        connection.done();
        let mut serving: Vec<Option<Version>> = vec![None; projections.len()];
        let mut found = BTreeMap::new();
        for row in rows {
            let place = ordinal(row.try_get(0)?);
            let version = Version { projection: projections[place].projection, number: row.try_get(1)? };
            if row.try_get(2)? {
                serving[place] = Some(version);
            }
            let progress = found.entry(version).or_insert_with(|| self.registry.progress(version));
            let partition = Partition::try_from(row.try_get::<i32, _>(3)?).unwrap_or(Partition::MAX);
            let position = Position::try_from(row.try_get::<i64, _>(4)?).unwrap_or_default();
            if partition < progress.partitions() {
                let streams = parked.remove(&(version, partition)).unwrap_or_default();
                progress.hear(partition, position, streams);
            }
        }
        for (followed, version) in projections.iter().zip(serving) {
            followed.serving.send_if_modified(|serving| {
                let news = serving.as_ref().map(|serving| serving.version) != version;
                if news {
                    *serving = version.map(|version| Serving { version, progress: found[&version].clone() });
                }
                news
            });
        }
        let mut versions = self.registry.0.versions.lock().unwrap_or_else(PoisonError::into_inner);
        // One that somebody works with may be newer than what was read.
        versions
            .retain(|version, progress| found.contains_key(version) || Arc::strong_count(&progress.0) > 1);
        Ok(())
    }
}

/// A place in a list, from an ordinal that counts from 1.
fn ordinal(number: i64) -> usize {
    usize::try_from(number - 1).expect("ordinals count from 1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_waits_for_its_position_and_no_longer_than_it_may() {
        let progress = Progress::new(2);
        progress.advance(1, 5);
        assert!(progress.wait([(1, 5), (0, 0)].into_iter(), Duration::from_millis(1)).await);
        assert!(!progress.wait([(1, 6)].into_iter(), Duration::from_millis(5)).await);
        assert!(!progress.wait([(9, 1)].into_iter(), Duration::from_millis(5)).await);
        let waiting = {
            let progress = progress.clone();
            tokio::spawn(async move { progress.wait([(0, 3)].into_iter(), Duration::from_secs(10)).await })
        };
        progress.advance(0, 2);
        progress.advance(0, 4);
        assert!(waiting.await.unwrap());
        progress.advance(0, 1);
        assert_eq!(progress.position(0), 4);
    }

    #[test]
    fn nobody_is_told_of_a_position_before_what_is_parked_there() {
        let progress = Progress::new(1);
        let stream = StreamId::new("t", "user", "u");
        let parked = || progress.parked(&stream).map(|(_, position)| position);
        progress.follow(0, 4, Streams::new());
        // This process parks it, and then hears what was read before.
        progress.park(0, &stream, 5);
        progress.follow(0, 4, Streams::new());
        assert_eq!((progress.position(0), parked()), (5, Some(5)));
        // As others say, who read later.
        progress.follow(0, 7, Streams::from([(stream.clone(), 6)]));
        assert_eq!((progress.position(0), parked()), (7, Some(6)));
        progress.release(0, &stream);
        assert_eq!((progress.any_parked(), parked()), (false, None));
    }

    #[test]
    fn a_stream_that_this_process_let_go_on_is_not_parked_again_by_what_was_read_before() {
        let progress = Progress::new(1);
        let stream = StreamId::new("t", "user", "u");
        let at = |position| Streams::from([(stream.clone(), position)]);
        progress.follow(0, 4, at(3));
        progress.own(0, true);
        progress.release(0, &stream);
        progress.hear(0, 4, at(3));
        assert_eq!((progress.any_parked(), progress.parked(&stream)), (false, None));
        // Another process has taken over, and this one has yet to hear of it.
        progress.hear(0, 6, at(5));
        assert_eq!((progress.position(0), progress.parked(&stream)), (6, Some((0, 5))));
        progress.own(0, false);
        progress.hear(0, 6, Streams::new());
        assert!(!progress.any_parked());
    }
}
