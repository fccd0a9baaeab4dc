//! Tokens that were verified lately, so that a client's second request costs one hash instead of a signature.
//!
//! *Invariant:* what is remembered is exactly the token's bytes, by their SHA-256, with the keys that verified them; under
//! other keys it is forgotten. Times are checked on every use.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use moka::sync::Cache;

use super::claims::Validity;
use crate::principal::Principal;

const TOKENS_MAX: u64 = 50_000;
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

/// The SHA-256 of a token.
pub type Digest = [u8; SHA256_OUTPUT_LEN];

pub fn digest_of(token: &str) -> Digest {
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
}

/// Bounded in tokens and in time.
pub struct Memory(Cache<Digest, Arc<Entry>>);

impl Memory {
    pub fn new() -> Self {
        Self(Cache::builder().max_capacity(TOKENS_MAX).time_to_live(REMEMBERED_FOR).build())
    }

    pub fn get(&self, digest: &Digest) -> Option<Arc<Entry>> {
        self.0.get(digest)
    }

    pub fn put(&self, digest: Digest, entry: Entry) {
        self.0.insert(digest, Arc::new(entry));
    }
}
