//! How far a projection has come, as this process knows it: what a reader with a consistency token waits for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rollcall_event_store::{Borrowed, Log, Partition, Position, bounded};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{checkpoint, schema::Schema};

/// How often the checkpoints of other processes are looked at while somebody waits for them, and else.
const POLL_WAITING: Duration = Duration::from_millis(5);
const POLL_IDLE: Duration = Duration::from_millis(250);

/// The applied position of each partition. Cheap to clone.
#[derive(Clone)]
pub struct Progress(Arc<Inner>);

struct Inner {
    positions: Box<[watch::Sender<Position>]>,
    waiting: AtomicUsize,
    /// Wakes who follows when somebody begins to wait.
    wanted: Notify,
}

impl Progress {
    pub fn new(partitions: Partition) -> Self {
        let positions = (0..partitions).map(|_| watch::Sender::new(0)).collect();
        Self(Arc::new(Inner { positions, waiting: AtomicUsize::new(0), wanted: Notify::new() }))
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
                waiting.get_or_insert_with(|| Waiting::begin(&self.0));
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

/// Keeps the progress of a projection that other processes run: reads its checkpoints, often while somebody waits, however
/// many do, and seldom otherwise. Works until the shutdown.
pub async fn follow(log: Log, schema: &'static Schema, progress: Progress, shutdown: CancellationToken) {
    let mut failing = false;
    loop {
        let read = bounded(async {
            let mut connection = Borrowed::from(log.pool()).await?;
            let positions = checkpoint::read(&mut connection, schema.name, schema.version).await?;
            connection.done();
            Ok::<_, sqlx::Error>(positions)
        });
        match read.await {
            Ok(positions) => {
                for (partition, position) in (0..progress.partitions()).zip(positions) {
                    progress.advance(partition, position);
                }
                failing = false;
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, projection = schema.name, "checkpoints cannot be read; trying again");
                }
                failing = true;
            }
        }
        let pause = async {
            if failing || progress.0.waiting.load(Ordering::Acquire) == 0 {
                // A wish that came while we looked is kept, so that none is missed.
                let idle = tokio::time::sleep(POLL_IDLE);
                tokio::select! {
                    () = idle => {}
                    () = progress.0.wanted.notified(), if !failing => {}
                }
            } else {
                tokio::time::sleep(POLL_WAITING).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = pause => {}
        }
    }
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
}
