//! The data keys that a process used of late.
//!
//! Held as bare keys: a cipher's context is forty times as large and made again in a fraction of a microsecond, while memory
//! that has grown cold costs more than that.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use quick_cache::sync;

use super::{CACHE_TTL, DataKey};
use crate::StreamId;

const KEYS_MAX: usize = 50_000;
/// How often keys are looked for that have lived their time.
const SWEPT_EVERY: Duration = Duration::from_secs(5);

/// Keys by subject. One that was not used in time is gone from memory, too.
pub(super) struct Cache {
    keys: sync::Cache<StreamId, Entry>,
    swept_at: Mutex<Instant>,
}

#[derive(Clone)]
struct Entry {
    key: DataKey,
    read_at: Instant,
}

impl Entry {
    /// Used for as long as it is sure to be swept before its time is over.
    fn may_be_used(&self, now: Instant) -> bool {
        now.duration_since(self.read_at) < CACHE_TTL - 2 * SWEPT_EVERY
    }
}

impl Cache {
    pub fn new() -> Self {
        Self { keys: sync::Cache::new(KEYS_MAX), swept_at: Mutex::new(Instant::now()) }
    }

    pub fn get(&self, subject: &StreamId) -> Option<DataKey> {
        let entry = self.keys.get(subject)?;
        entry.may_be_used(Instant::now()).then_some(entry.key)
    }

    /// Remembers a key whose row was read or committed just now.
    pub fn insert(&self, subject: &StreamId, key: &DataKey) {
        self.keys.insert(subject.clone(), Entry { key: key.clone(), read_at: Instant::now() });
    }

    /// Takes away what has lived its time, where that was not done of late.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut swept_at = self.swept_at.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(*swept_at) >= SWEPT_EVERY {
            *swept_at = now;
            self.keys.retain(|_, entry| entry.may_be_used(now));
        }
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }
}
