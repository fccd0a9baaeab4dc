//! Tokens that were verified lately, so that a client's second request costs a comparison or a hash instead of a signature.
//!
//! Two levels: what each thread met last, by the token itself, and what the process has met, by its SHA-256.
//!
//! *Invariant:* what is remembered is exactly the token's bytes, with the keys that verified them; under other keys it is
//! forgotten. Times are checked on every use.

use std::{
    cell::RefCell,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use moka::sync::Cache;

use super::claims::Validity;
use crate::principal::Principal;

const TOKENS_MAX: u64 = 50_000;
const REMEMBERED_FOR_S: i64 = 60;

/// Tokens that a thread has at hand.
const AT_HAND: usize = 64;

/// The SHA-256 of a token.
type Digest = [u8; SHA256_OUTPUT_LEN];

fn digest_of(token: &str) -> Digest {
    let digest = digest(&SHA256, token.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has its length")
}

/// A verified token.
pub struct Entry {
    pub principal: Principal,
    pub validity: Validity,
    /// The place of its issuer.
    pub issuer: usize,
    /// Of the issuer's keys that verified it.
    pub generation: u64,
    /// Unix seconds of the verification.
    pub verified_at: i64,
}

impl Entry {
    fn fresh(&self, now: i64) -> bool {
        now - self.verified_at < REMEMBERED_FOR_S
    }
}

/// Bounded in tokens and in time.
pub struct Memory {
    tokens: Cache<Digest, Arc<Entry>>,
    /// Tells this memory's places in a thread's table from those of another.
    number: u64,
    hasher: RandomState,
}

thread_local! {
    static MET: RefCell<[Option<Met>; AT_HAND]> = const { RefCell::new([const { None }; AT_HAND]) };
}

/// A token that a thread met.
struct Met {
    memory: u64,
    token: Box<str>,
    entry: Arc<Entry>,
}

impl Memory {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let remembered_for = Duration::from_secs(REMEMBERED_FOR_S.unsigned_abs());
        Self {
            tokens: Cache::builder().max_capacity(TOKENS_MAX).time_to_live(remembered_for).build(),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            hasher: RandomState::new(),
        }
    }

    /// What is known of a token, `now` in Unix seconds.
    pub fn get(&self, token: &str, now: i64) -> Option<Arc<Entry>> {
        let place = self.place(token);
        let at_hand = MET.with_borrow(|met| {
            let met = met[place].as_ref()?;
            (met.memory == self.number && *met.token == *token).then(|| Arc::clone(&met.entry))
        });
        let entry = at_hand.or_else(|| {
            let entry = self.tokens.get(&digest_of(token))?;
            self.meet(place, token, Arc::clone(&entry));
            Some(entry)
        })?;
        entry.fresh(now).then_some(entry)
    }

    pub fn put(&self, token: &str, entry: Arc<Entry>) {
        self.tokens.insert(digest_of(token), Arc::clone(&entry));
        self.meet(self.place(token), token, entry);
    }

    fn meet(&self, place: usize, token: &str, entry: Arc<Entry>) {
        let met = Met { memory: self.number, token: token.into(), entry };
        MET.with_borrow_mut(|places| places[place] = Some(met));
    }

    fn place(&self, token: &str) -> usize {
        // The end of a token is its signature, as good as random; the hash keeps callers from choosing places.
        let end = &token.as_bytes()[token.len().saturating_sub(16)..];
        usize::try_from(self.hasher.hash_one(end) % AT_HAND as u64).expect("below the number of places")
    }
}
