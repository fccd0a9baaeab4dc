//! A log of its own for each test, and short ways to say what is appended.

use std::time::Duration;

use rollcall_event_store::{
    Log, Options, Partition, StreamId,
    append::{self, Append, Appended, Expected, NewDataKey, NewEvent},
    claims::ClaimChange,
    commands::{Idempotency, Record},
    keys::{Digest, Keys, MasterKey},
    migrate::{self, MasterKeySource, Provisioned},
};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::server;

/// How long anything that a test waits for may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const TENANT: &str = "acme";

/// A master key that is there, or is not.
pub struct Source(pub Option<[u8; 32]>);

impl MasterKeySource for Source {
    fn existing(&self) -> Result<Option<MasterKey>, String> {
        Ok(self.0.map(|bytes| MasterKey::new(&bytes)))
    }

    fn create(&self) -> Result<MasterKey, String> {
        Err("the test's key is made by the test".to_owned())
    }

    fn place(&self) -> String {
        "the test".to_owned()
    }
}

pub async fn migrate(owner: &str) -> Result<Provisioned, migrate::Error> {
    migrate::migrate(owner, migrate::Options::default(), &Source(Some([7; 32]))).await
}

pub fn of_one_writer() -> Options {
    let append = append::Options { writers: 1, ..append::Options::default() };
    Options { append, ..Options::default() }
}

/// A log whose batches are never looked through before they are stored, or are so after one that met something.
pub fn looking_after(batches_looked_through: u32) -> Options {
    let append = append::Options { batches_looked_through, ..append::Options::default() };
    Options { append, ..Options::default() }
}

/// A migrated database with a log open on it.
pub struct Test {
    pub owner: String,
    pub provisioned: Provisioned,
    pub log: Log,
}

impl Test {
    pub async fn new() -> Self {
        Self::with(Options::default()).await
    }

    /// One whose appends that wait together are stored together.
    pub async fn of_one_writer() -> Self {
        Self::with(of_one_writer()).await
    }

    pub async fn with(options: Options) -> Self {
        let owner = server::fresh_database().await;
        let provisioned = migrate(&owner).await.unwrap();
        let log = Log::open(&provisioned, options).await.unwrap();
        Self { owner, provisioned, log }
    }

    /// Another handle on the same database, as another process has it.
    pub async fn another_log(&self) -> Log {
        self.another_log_with(Options::default()).await
    }

    pub async fn another_log_with(&self, options: Options) -> Log {
        Log::open(&self.provisioned, options).await.unwrap()
    }

    /// A handle that has keys of its own, none of them cached.
    pub async fn restarted(&self) -> Log {
        Log::open(&migrate(&self.owner).await.unwrap(), Options::default()).await.unwrap()
    }

    pub async fn superuser(&self) -> PgConnection {
        PgConnection::connect(&self.owner).await.unwrap()
    }

    pub async fn execute(&self, sql: &str) {
        sqlx::raw_sql(sql).execute(&mut self.superuser().await).await.unwrap();
    }

    pub async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut self.superuser().await).await.unwrap()
    }

    /// What must hold for every log at any time.
    pub async fn assert_ordered_without_gaps(&self) {
        let wrong_positions = "SELECT count(*) FROM (
                 SELECT position, lag(position, 1, 0::int8) OVER w AS previous, recorded_at,
                        lag(recorded_at) OVER w AS earlier
                 FROM log.events WINDOW w AS (PARTITION BY partition ORDER BY position)) e
             WHERE position <> previous + 1 OR recorded_at <= earlier";
        assert_eq!(self.number(wrong_positions).await, 0, "positions follow each other, and instants rise");
        let wrong_sequences = "SELECT count(*) FROM (
                 SELECT sequence, lag(sequence, 1, 0::int8) OVER (
                     PARTITION BY partition, tenant_id, aggregate_type, aggregate_id ORDER BY position) AS previous
                 FROM log.events) e
             WHERE sequence <> previous + 1";
        assert_eq!(self.number(wrong_sequences).await, 0, "a stream's versions follow each other in order");
        let event_ids = "SELECT count(*) - count(DISTINCT event_id) FROM log.events";
        assert_eq!(self.number(event_ids).await, 0, "no event is stored twice");
    }
}

pub fn stream(id: &str) -> StreamId {
    StreamId::new(TENANT, "user", id)
}

/// A stream that lies in a partition of 16.
pub fn stream_in(partition: Partition, name: &str) -> StreamId {
    (0_u32..)
        .map(|n| stream(&format!("{name}-{n}")))
        .find(|stream| stream.partition(16) == partition)
        .unwrap()
}

pub fn digest(name: &str) -> Digest {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Digest(bytes)
}

pub fn take(name: &str) -> ClaimChange {
    ClaimChange::Take(digest(name))
}

pub fn release(name: &str) -> ClaimChange {
    ClaimChange::Release(digest(name))
}

pub fn event(payload: impl Into<String>) -> NewEvent {
    NewEvent {
        event_id: Uuid::now_v7(),
        event_type: "Happened",
        event_version: "1",
        payload: payload.into(),
        personal: None,
        metadata: "{}".into(),
    }
}

/// An append on its way to being described.
pub struct Wish(pub Append);

pub fn wish(stream: StreamId, expected: Expected, events: usize) -> Wish {
    let events = (0..events).map(|n| event(format!(r#"{{"n":{n}}}"#))).collect();
    Wish(Append { stream, expected, events, claims: Vec::new(), record: None, data_key: None })
}

impl Wish {
    pub fn claims(mut self, claims: impl IntoIterator<Item = ClaimChange>) -> Self {
        self.0.claims.extend(claims);
        self
    }

    pub fn key(mut self, name: &str) -> Self {
        let version = match self.0.expected {
            Expected::Fresh => 0,
            Expected::Version(version) => version,
        };
        let version = version + self.0.events.len() as u64;
        let idempotency = Idempotency { key: digest(name), fingerprint: digest("fingerprint") };
        self.0.record = Some(Record { idempotency, status: 201, version });
        self
    }

    pub fn data_key(mut self, keys: &Keys) -> Self {
        let (key, wrapped) = keys.new_data_key(&self.0.stream);
        self.0.data_key = Some(NewDataKey { key, wrapped });
        self
    }

    pub async fn append(self, log: &Log) -> Result<Appended, append::Error> {
        log.appender().append(self.0).await
    }
}
