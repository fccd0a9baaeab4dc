//! How far a projection has come, as this process knows it: what a reader with a consistency token waits for.

use std::{sync::Arc, time::Duration};

use rollcall_event_store::{Partition, Position};
use tokio::sync::watch;

/// The applied position of each partition. Cheap to clone.
#[derive(Clone)]
pub struct Progress(Arc<[watch::Sender<Position>]>);

impl Progress {
    pub fn new(partitions: Partition) -> Self {
        Self((0..partitions).map(|_| watch::Sender::new(0)).collect())
    }

    pub fn partitions(&self) -> Partition {
        Partition::try_from(self.0.len()).expect("made from a number of partitions")
    }

    /// What is readable of a partition; the read model may be ahead of it, never behind.
    pub fn position(&self, partition: Partition) -> Position {
        self.0.get(usize::from(partition)).map_or(0, |position| *position.borrow())
    }

    pub(crate) fn advance(&self, partition: Partition, position: Position) {
        self.0[usize::from(partition)].send_if_modified(|known| {
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
            for (partition, position) in positions {
                let Some(applied) = self.0.get(usize::from(partition)) else { return false };
                if *applied.borrow() >= position {
                    continue;
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
