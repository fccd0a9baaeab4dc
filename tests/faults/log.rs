//! Looks into the log with the owner's eyes.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use chrono::{DateTime, Utc};
use sqlx::{
    PgPool, Row,
    postgres::{PgPoolOptions, PgRow},
};
use uuid::Uuid;

/// An event as it is stored.
#[derive(Clone, Debug)]
pub struct Event {
    pub partition: i32,
    pub position: i64,
    pub recorded_at: DateTime<Utc>,
    pub event_id: Uuid,
    pub tenant: String,
    pub id: String,
    pub sequence: i64,
    pub event_type: String,
}

pub struct Log {
    pub pool: PgPool,
}

impl Log {
    /// Of the URL in a ready file.
    pub async fn open(owner_url: &str) -> Self {
        Self { pool: PgPoolOptions::new().max_connections(2).connect(owner_url).await.unwrap() }
    }

    /// By partition and position.
    pub async fn events(&self) -> Vec<Event> {
        sqlx::query(
            "SELECT partition, position, recorded_at, event_id, tenant_id, aggregate_id, sequence, event_type
             FROM log.events ORDER BY partition, position",
        )
        .try_map(|row: PgRow| {
            Ok(Event {
                partition: row.try_get(0)?,
                position: row.try_get(1)?,
                recorded_at: row.try_get(2)?,
                event_id: row.try_get(3)?,
                tenant: row.try_get(4)?,
                id: row.try_get(5)?,
                sequence: row.try_get(6)?,
                event_type: row.try_get(7)?,
            })
        })
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    /// Checks every promise that can be read off the tables; the events.
    pub async fn assert_sound(&self) -> Vec<Event> {
        let events = self.events().await;
        self.assert_no_holes(&events).await;
        let mut ids = HashSet::new();
        let mut versions: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        for event in &events {
            assert!(ids.insert(event.event_id), "an event id stands twice: {event:?}");
            let version = versions.entry((&event.tenant, &event.id)).or_default();
            *version += 1;
            assert_eq!(event.sequence, *version, "a stream has a hole, or is out of order: {event:?}");
            assert_eq!(event.event_type == "UserCreated", event.sequence == 1, "{event:?}");
        }
        self.assert_whole(&versions).await;
        events
    }

    /// Positions of each partition are 1, 2, 3 …, end at the head, and `recorded_at` rises with them.
    async fn assert_no_holes(&self, events: &[Event]) {
        let rows = sqlx::query("SELECT partition, position, recorded_at FROM log.heads ORDER BY partition")
            .fetch_all(&self.pool)
            .await
            .unwrap();
        let mut stored = 0;
        for row in rows {
            let partition: i32 = row.get(0);
            let of_partition: Vec<&Event> =
                events.iter().filter(|event| event.partition == partition).collect();
            stored += of_partition.len();
            for (event, expected) in of_partition.iter().zip(1..) {
                assert_eq!(event.position, expected, "partition {partition} has a hole");
            }
            for pair in of_partition.windows(2) {
                assert!(pair[0].recorded_at < pair[1].recorded_at, "time does not rise: {pair:?}");
            }
            assert_eq!(row.get::<i64, _>(1), of_partition.last().map_or(0, |event| event.position));
            if let Some(last) = of_partition.last() {
                assert_eq!(row.get::<DateTime<Utc>, _>(2), last.recorded_at);
            }
        }
        assert_eq!(stored, events.len(), "an event stands in no partition");
    }

    /// Nothing is stored in part: a stream has its data key, a claim its stream, a record its event, and the other way
    /// round.
    async fn assert_whole(&self, versions: &BTreeMap<(&str, &str), i64>) {
        let streams: BTreeSet<(&str, &str)> = versions.keys().copied().collect();
        let keys = self.pairs("SELECT tenant_id, aggregate_id FROM vault.data_keys").await;
        let keys: BTreeSet<(&str, &str)> = keys.iter().map(|(t, id)| (t.as_str(), id.as_str())).collect();
        assert_eq!(keys, streams, "data keys and streams do not match");
        let claims = self.pairs("SELECT tenant_id, aggregate_id FROM log.claims").await;
        let claims: BTreeSet<(&str, &str)> = claims.iter().map(|(t, id)| (t.as_str(), id.as_str())).collect();
        assert_eq!(claims, streams, "every user has an email, and every claim a user");
        let records: Vec<(String, i64)> = sqlx::query_as("SELECT aggregate_id, version FROM log.commands")
            .fetch_all(&self.pool)
            .await
            .unwrap();
        let heads: BTreeMap<&str, i64> = versions.iter().map(|((_, id), version)| (*id, *version)).collect();
        for (id, version) in records {
            let head = heads.get(id.as_str()).copied().unwrap_or_default();
            assert!(version <= head, "a record names version {version} of {id}, which is at {head}");
        }
    }

    async fn pairs(&self, statement: &str) -> Vec<(String, String)> {
        sqlx::query_as(statement).fetch_all(&self.pool).await.unwrap()
    }

    /// The number of claims, for tests whose users have an email and nothing else that is claimed.
    pub async fn claims(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM log.claims").fetch_one(&self.pool).await.unwrap()
    }
}

/// How many events a stream has.
pub fn versions(events: &[Event]) -> BTreeMap<String, u64> {
    let mut versions = BTreeMap::new();
    for event in events {
        *versions.entry(event.id.clone()).or_default() += 1;
    }
    versions
}
