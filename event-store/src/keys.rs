//! Keys: what makes immutable events and the right to erasure live together.
//!
//! Shape: master key (a file) -wraps-> data key (one a subject) -seals-> personal values;
//! master key -wraps-> digest root -derives-> a digest key for each tenant and scope.
//!
//! Invariants: a data key never leaves this module in clear but inside a [`DataKey`]; a key that is missing without a
//! tombstone is [`Error::Missing`], never "erased"; a data key lives in the cache at most [`CACHE_TTL`].

mod cache;
mod data_key;
mod master;

use std::{collections::HashMap, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use sqlx::{PgConnection, Row};

pub use data_key::{DataKey, Point, WrappedKey};
pub use master::{MASTER_KEY_BYTES, MasterKey};

use crate::{Recorded, StreamId};

/// How long a data key may be used after its row was last read.
pub const CACHE_TTL: Duration = Duration::from_secs(60);

const HITS: &str = "rollcall_key_cache_hits_total";
const MISSES: &str = "rollcall_key_cache_misses_total";

/// Bytes of a digest: HMAC-SHA-256 cut to its first 128 bits (RFC 2104, section 5), half the index for no
/// collision in reach.
pub const DIGEST_BYTES: usize = 16;

/// A keyed digest of a normalised value; equal values of one tenant and scope have equal digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; DIGEST_BYTES]);

impl AsRef<[u8]> for Digest {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the data key of a subject is missing although it was never erased (stream {0}): restore the vault"
    )]
    Missing(StreamId),
    #[error("a stored value cannot be opened: it was changed or belongs elsewhere ({what})")]
    Unreadable { what: &'static str },
    #[error("the vault could not be read")]
    Database(#[from] sqlx::Error),
}

/// What opens a subject's values, or the fact that nothing ever will again.
#[derive(Clone)]
pub enum SubjectKey {
    Alive(DataKey),
    Erased,
}

/// What a personal value turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The event has no personal value.
    None,
    Value(Vec<u8>),
    Erased,
}

/// Makes digests of one tenant and scope: HMAC-SHA-256 under a key that is derived for them.
pub struct Digester(hmac::Key);

impl Digester {
    /// A digest over parts; each is preceded by its length, so that no two lists of parts look the same.
    pub fn digest(&self, parts: &[&[u8]]) -> Digest {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let tag = context.sign();
        Digest(tag.as_ref()[..DIGEST_BYTES].try_into().expect("a tag has 32 bytes"))
    }
}

/// The process's keys. Cheap to clone.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    master: MasterKey,
    master_generation: i32,
    digest_root: hmac::Key,
    digest_generation: i32,
    cache: cache::Cache,
}

impl Keys {
    pub(crate) fn new(
        master: MasterKey,
        master_generation: i32,
        digest_root: &[u8],
        digest_generation: i32,
    ) -> Self {
        let digest_root = hmac::Key::new(hmac::HMAC_SHA256, digest_root);
        for name in [HITS, MISSES] {
            metrics::counter!(name).increment(0);
        }
        let cache = cache::Cache::new();
        Self(Arc::new(Inner { master, master_generation, digest_root, digest_generation, cache }))
    }

    /// The generation that stands beside every digest.
    pub fn digest_generation(&self) -> i32 {
        self.0.digest_generation
    }

    /// A keyed digest of one value; see [`Digester`].
    pub fn digest(&self, tenant: &str, scope: &str, value: &[u8]) -> Digest {
        self.digester(tenant, scope).digest(&[value])
    }

    /// Digests values of one tenant and scope under a key of their own.
    pub fn digester(&self, tenant: &str, scope: &str) -> Digester {
        let mut context = hmac::Context::with_key(&self.0.digest_root);
        context.update(tenant.as_bytes());
        context.update(&[0]);
        context.update(scope.as_bytes());
        Digester(hmac::Key::new(hmac::HMAC_SHA256, context.sign().as_ref()))
    }

    /// A new random data key, and its wrapped form, which is stored with the subject's first event.
    pub fn new_data_key(&self, subject: &StreamId) -> (DataKey, WrappedKey) {
        DataKey::generate(&self.0.master, self.0.master_generation, subject)
    }

    /// Remembers a key whose row was just committed.
    pub(crate) fn remember(&self, subject: &StreamId, key: &DataKey) {
        self.0.cache.insert(subject, key);
    }

    /// Data keys in the cache, once those are gone that have lived their time.
    pub(crate) fn cached(&self) -> usize {
        self.0.cache.sweep();
        self.0.cache.len()
    }

    /// The keys of many subjects, in their order: from the cache, the rest in one statement. What is read is remembered.
    ///
    /// # Errors
    /// [`Error::Missing`] where a key is not there and its subject was never erased.
    pub async fn of_subjects(
        &self,
        connection: &mut PgConnection,
        subjects: &[&StreamId],
    ) -> Result<Vec<SubjectKey>, Error> {
        self.find(connection, subjects, Source::Remembering).await
    }

    /// The same for who passes through the log, and meets most subjects once: what is read is not remembered, because a
    /// rebuild would push out of the cache what readers come back for.
    ///
    /// # Errors
    /// As [`of_subjects`](Self::of_subjects).
    pub async fn of_passing(
        &self,
        connection: &mut PgConnection,
        subjects: &[&StreamId],
    ) -> Result<Vec<SubjectKey>, Error> {
        self.find(connection, subjects, Source::Passing).await
    }

    /// The same as the vault has them in the snapshot of the connection's transaction, whatever is in the cache: for who
    /// compares what belongs together.
    ///
    /// # Errors
    /// As [`of_subjects`](Self::of_subjects).
    pub async fn in_vault(
        &self,
        connection: &mut PgConnection,
        subjects: &[&StreamId],
    ) -> Result<Vec<SubjectKey>, Error> {
        self.find(connection, subjects, Source::Vault).await
    }

    async fn find(
        &self,
        connection: &mut PgConnection,
        subjects: &[&StreamId],
        source: Source,
    ) -> Result<Vec<SubjectKey>, Error> {
        let cached = |subject: &&StreamId| match source {
            Source::Vault => None,
            Source::Remembering | Source::Passing => self.0.cache.get(subject).map(SubjectKey::Alive),
        };
        let found: Vec<Option<SubjectKey>> = subjects.iter().map(cached).collect();
        // Each unknown subject once.
        let mut unknown: Vec<&StreamId> = Vec::new();
        let mut places: HashMap<&StreamId, usize> = HashMap::new();
        for (subject, _) in subjects.iter().zip(&found).filter(|(_, found)| found.is_none()) {
            places.entry(subject).or_insert_with(|| {
                unknown.push(subject);
                unknown.len() - 1
            });
        }
        if source != Source::Vault {
            metrics::counter!(MISSES).increment(unknown.len() as u64);
            metrics::counter!(HITS).increment(found.iter().flatten().count() as u64);
        }
        let read = self.read(connection, &unknown, source == Source::Remembering).await?;
        let keys = subjects.iter().zip(found);
        Ok(keys.map(|(subject, found)| found.unwrap_or_else(|| read[places[subject]].clone())).collect())
    }

    async fn read(
        &self,
        connection: &mut PgConnection,
        subjects: &[&StreamId],
        remember: bool,
    ) -> Result<Vec<SubjectKey>, Error> {
        if subjects.is_empty() {
            return Ok(Vec::new());
        }
        let rows = sqlx::query(
            "SELECT k.wrapped, t.erased_at IS NOT NULL AS erased
             FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY
                  AS q(tenant_id, aggregate_type, aggregate_id, ordinal)
             LEFT JOIN LATERAL (SELECT d.wrapped FROM vault.data_keys d
                  WHERE d.aggregate_id = q.aggregate_id AND d.tenant_id = q.tenant_id
                    AND d.aggregate_type = q.aggregate_type LIMIT 1) k ON true
             LEFT JOIN LATERAL (SELECT e.erased_at FROM vault.tombstones e
                  WHERE e.aggregate_id = q.aggregate_id AND e.tenant_id = q.tenant_id
                    AND e.aggregate_type = q.aggregate_type LIMIT 1) t ON true
             ORDER BY q.ordinal",
        )
        .bind(subjects.iter().map(|s| &*s.tenant).collect::<Vec<_>>())
        .bind(subjects.iter().map(|s| &*s.aggregate_type).collect::<Vec<_>>())
        .bind(subjects.iter().map(|s| &*s.aggregate_id).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
        let keys = subjects.iter().zip(rows).map(|(subject, row)| {
            let key = self.judge(subject, row.try_get(0)?, row.try_get(1)?)?;
            if let (true, SubjectKey::Alive(key)) = (remember, &key) {
                self.remember(subject, key);
            }
            Ok(key)
        });
        keys.collect()
    }

    /// A subject's key from what its rows say.
    fn judge(&self, subject: &StreamId, wrapped: Option<&[u8]>, erased: bool) -> Result<SubjectKey, Error> {
        match (wrapped, erased) {
            (_, true) => Ok(SubjectKey::Erased),
            (Some(wrapped), false) => {
                Ok(SubjectKey::Alive(DataKey::unwrap(&self.0.master, subject, wrapped)?))
            }
            (None, false) => Err(Error::Missing(subject.clone())),
        }
    }
}

/// Where keys come from, and whether they are remembered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Remembering,
    Passing,
    Vault,
}

impl SubjectKey {
    /// Opens the personal values of an event.
    ///
    /// # Errors
    /// [`Error::Unreadable`] where they were changed, or moved to another event, stream or place in it.
    pub fn open_event(&self, event: &Recorded) -> Result<Opened, Error> {
        match (&event.personal, self) {
            (None, Self::Alive(_)) => Ok(Opened::None),
            (_, Self::Erased) => Ok(Opened::Erased),
            (Some(sealed), Self::Alive(key)) => {
                Ok(Opened::Value(key.open_event(event.event_id, &event.stream, event.sequence, sealed)?))
            }
        }
    }
}
