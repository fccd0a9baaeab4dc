//! Turns: within one process the commands of a stream follow each other, so that a hot user costs time, not conflicts.

use std::hash::{BuildHasher, RandomState};

use tokio::sync::{Mutex, MutexGuard};

use crate::StreamId;

/// Streams share a turn where their hashes meet, which costs them time and nothing else; in exchange the memory is
/// bounded whatever the number of streams.
const SLOTS: usize = 4096;

pub(crate) struct Turns {
    slots: Box<[Mutex<()>]>,
    hasher: RandomState,
}

impl Default for Turns {
    fn default() -> Self {
        Self { slots: (0..SLOTS).map(|_| Mutex::new(())).collect(), hasher: RandomState::new() }
    }
}

impl Turns {
    /// Waits for the stream's turn, first come first served; the turn ends when the guard is dropped.
    pub(crate) async fn take(&self, stream: &StreamId) -> MutexGuard<'_, ()> {
        let slot =
            usize::try_from(self.hasher.hash_one(stream) % SLOTS as u64).expect("a slot's number is small");
        self.slots[slot].lock().await
    }
}
