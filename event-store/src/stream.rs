//! What a stream, a position and a recorded event are.

use std::{borrow::Cow, fmt, sync::Arc};

use aws_lc_rs::digest::{Context, SHA256};
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// One of the log's ordered parts, counted from 0.
pub type Partition = u16;

/// An event's place in its partition, counted from 1.
pub type Position = u64;

/// The name of a stream: one aggregate of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    pub tenant: Arc<str>,
    pub aggregate_type: Arc<str>,
    pub aggregate_id: Arc<str>,
}

impl StreamId {
    pub fn new(
        tenant: impl Into<Arc<str>>,
        aggregate_type: impl Into<Arc<str>>,
        aggregate_id: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            tenant: tenant.into(),
            aggregate_type: aggregate_type.into(),
            aggregate_id: aggregate_id.into(),
        }
    }

    /// The partition of this stream: the first 8 bytes, big-endian, of SHA-256 over `tenant 0x00 type 0x00 id`,
    /// modulo the number of partitions. Fixed for the life of a log.
    pub fn partition(&self, partitions: u16) -> Partition {
        self.hash().partition(partitions)
    }

    pub fn hash(&self) -> StreamHash {
        StreamHash::of(&self.tenant, &self.aggregate_type, &self.aggregate_id)
    }
}

/// SHA-256 over `tenant 0x00 type 0x00 id`: says where a stream is, and stands for its name where that must be short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamHash([u8; 32]);

impl StreamHash {
    pub fn of(tenant: &str, aggregate_type: &str, aggregate_id: &str) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(tenant.as_bytes());
        context.update(&[0]);
        context.update(aggregate_type.as_bytes());
        context.update(&[0]);
        context.update(aggregate_id.as_bytes());
        Self(context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// See [`StreamId::partition`].
    pub fn partition(self, partitions: u16) -> Partition {
        let partition = self.number(0) % u64::from(partitions);
        Partition::try_from(partition).expect("a remainder is less than its divisor")
    }

    /// One of so many places, by bytes that say nothing of the partition.
    pub(crate) fn place(self, places: usize) -> usize {
        let place = self.number(8) % places as u64;
        usize::try_from(place).expect("a remainder is less than its divisor")
    }

    fn number(self, from: usize) -> u64 {
        u64::from_be_bytes(self.0[from..from + 8].try_into().expect("eight of 32 bytes"))
    }
}

/// `tenant/type/id`, as logs and tools name a stream.
impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tenant, self.aggregate_type, self.aggregate_id)
    }
}

/// An event as the log has it. `personal` is ciphertext.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub stream: StreamId,
    /// The stream's version with this event, counted from 1.
    pub sequence: u64,
    pub partition: Partition,
    pub position: Position,
    pub event_id: Uuid,
    pub event_type: Cow<'static, str>,
    pub event_version: Cow<'static, str>,
    /// JSON.
    pub payload: String,
    pub personal: Option<Vec<u8>>,
    /// A JSON object of strings.
    pub metadata: Arc<str>,
    pub recorded_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streams_partition_never_changes() {
        // printf 'acme\0user\000018f3c1e-0000-7000-8000-000000000001' | sha256sum begins with 7874521354b672b0:
        // another answer would lose every stream that was ever stored.
        let stream = StreamId::new("acme", "user", "018f3c1e-0000-7000-8000-000000000001");
        assert_eq!(stream.partition(1009), 21);
        assert_eq!(stream.partition(16), 0);
        assert_eq!(stream.partition(1), 0);
    }
}
