//! Reading the audit: one user's history, or entries across users, with what changed from what to what.

use chrono::{DateTime, Utc};
use rollcall_domain::{FieldChange, UserEvent};
use rollcall_event_store::{
    Borrowed, Log, Partition, Position, Recorded, StreamId, bounded,
    keys::{self, Opened},
};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::{PgConnection, Postgres, QueryBuilder, Row};
use uuid::Uuid;

use crate::{
    profile::rfc3339,
    projector,
    schema::Version,
    stored::{Metadata, USER, user_event},
};

/// One event as an auditor sees it.
#[derive(Debug, Serialize)]
pub struct Entry {
    pub user_id: String,
    pub version: u64,
    pub event: String,
    pub event_id: Uuid,
    pub recorded_at: String,
    pub actor: Option<String>,
    pub reason: Option<String>,
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    /// The person was erased: what changed is known, from what to what is not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub erased: bool,
    pub changes: Vec<FieldChange>,
    #[serde(skip)]
    pub place: Place,
}

/// Where an entry stands: what a page goes on from, and what a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub recorded_at: DateTime<Utc>,
    pub partition: Partition,
    pub position: Position,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the audit could not be read")]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Keys(#[from] keys::Error),
    #[error(transparent)]
    Event(#[from] projector::Error),
}

/// What entries across users must satisfy.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub actor: Option<String>,
    pub event_type: Option<String>,
    pub import_id: Option<String>,
    /// Recorded at or after.
    pub from: Option<DateTime<Utc>>,
    /// Recorded before.
    pub to: Option<DateTime<Utc>>,
}

/// Entries, newest first, and whether older ones follow.
pub struct Page {
    pub entries: Vec<Entry>,
    pub more: bool,
}

/// The queries over the audit. Cheap to clone.
#[derive(Clone)]
pub struct Queries {
    log: Log,
}

impl Queries {
    pub fn new(log: Log) -> Self {
        Self { log }
    }

    /// A user's history, newest first, from below a version; straight from the log, so never behind.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn history(
        &self,
        tenant: &str,
        id: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page, Error> {
        let stream = StreamId::new(tenant, USER, id);
        let before = before.map_or(i64::MAX, u64::cast_signed);
        let mut query = QueryBuilder::new(EVENT);
        query.push(" FROM log.events e WHERE e.partition = ");
        query.push_bind(i32::from(stream.partition(self.log.partitions())));
        query.push(" AND e.tenant_id = ").push_bind(tenant).push(" AND e.aggregate_type = ").push_bind(USER);
        query.push(" AND e.aggregate_id = ").push_bind(id).push(" AND e.sequence < ").push_bind(before);
        query.push(" ORDER BY e.sequence DESC LIMIT ").push_bind(fetch_limit(limit));
        self.read(tenant, query, limit).await
    }

    /// Entries across a tenant's users in a version of the audit, newest first, from before a place.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn list(
        &self,
        version: Version,
        tenant: &str,
        filter: &Filter,
        before: Option<Place>,
        limit: usize,
    ) -> Result<Page, Error> {
        let mut query = select(version, tenant);
        if let Some(actor) = &filter.actor {
            query.push(" AND a.actor = ").push_bind(actor);
        }
        if let Some(event_type) = &filter.event_type {
            query.push(" AND a.event_type = ").push_bind(event_type);
        }
        if let Some(import_id) = &filter.import_id {
            query.push(" AND a.import_id = ").push_bind(import_id);
        }
        if let Some(from) = filter.from {
            query.push(" AND a.recorded_at >= ").push_bind(from);
        }
        if let Some(to) = filter.to {
            query.push(" AND a.recorded_at < ").push_bind(to);
        }
        if let Some(before) = before {
            query.push(" AND (a.recorded_at, a.partition, a.position) < (").push_bind(before.recorded_at);
            query.push(", ").push_bind(i32::from(before.partition));
            query.push(", ").push_bind(before.position.cast_signed()).push(")");
        }
        query.push(" ORDER BY a.recorded_at DESC, a.partition DESC, a.position DESC LIMIT ");
        query.push_bind(fetch_limit(limit));
        self.read(tenant, query, limit).await
    }

    /// A user's events as they are stored, oldest first, after a version; personal values opened.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn events(
        &self,
        tenant: &str,
        id: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let stream = StreamId::new(tenant, USER, id);
        let mut connection = Borrowed::from(self.log.readers()).await?;
        let partition = stream.partition(self.log.partitions());
        let events =
            bounded(rollcall_event_store::load::page(&mut connection, &stream, partition, after, limit))
                .await?;
        let opened = self.open(&mut connection, events).await?;
        connection.done();
        opened.into_iter().map(|(event, opened)| StoredEvent::of(event, opened)).collect()
    }

    async fn read(
        &self,
        tenant: &str,
        mut query: QueryBuilder<'_, Postgres>,
        limit: usize,
    ) -> Result<Page, Error> {
        let mut connection = Borrowed::from(self.log.readers()).await?;
        let rows = bounded(query.build().fetch_all(&mut *connection)).await?;
        let more = rows.len() > limit;
        let events = rows.iter().take(limit).map(|row| {
            Ok(Recorded {
                stream: StreamId::new(tenant, USER, row.try_get::<&str, _>(0)?),
                sequence: row.try_get::<i64, _>(1)?.cast_unsigned(),
                partition: u16::try_from(row.try_get::<i32, _>(2)?).unwrap_or_default(),
                position: row.try_get::<i64, _>(3)?.cast_unsigned(),
                event_id: row.try_get(4)?,
                event_type: row.try_get::<String, _>(5)?.into(),
                event_version: row.try_get::<String, _>(6)?.into(),
                payload: row.try_get(7)?,
                personal: row.try_get(8)?,
                metadata: row.try_get::<&str, _>(9)?.into(),
                recorded_at: row.try_get(10)?,
            })
        });
        let events = events.collect::<Result<Vec<_>, sqlx::Error>>()?;
        let opened = self.open(&mut connection, events).await?;
        connection.done();
        let entries = opened.iter().map(|(event, opened)| entry(event, opened));
        Ok(Page { entries: entries.collect::<Result<_, projector::Error>>()?, more })
    }

    async fn open(
        &self,
        connection: &mut PgConnection,
        events: Vec<Recorded>,
    ) -> Result<Vec<(Recorded, Opened)>, Error> {
        let subjects: Vec<&StreamId> = events.iter().map(|event| &event.stream).collect();
        let keys = bounded(self.log.keys().of_subjects(connection, &subjects)).await?;
        let opened = keys.iter().zip(&events).map(|(key, event)| key.open_event(event));
        let opened: Vec<Opened> = opened.collect::<Result<_, _>>()?;
        Ok(events.into_iter().zip(opened).collect())
    }
}

/// What is read of an event.
const EVENT: &str =
    "SELECT e.aggregate_id, e.sequence, e.partition, e.position, e.event_id, e.event_type, e.event_version,
    e.payload::text, e.personal, e.metadata::text, e.recorded_at";

/// The entries of a tenant's users with their events, which the primary key of the log finds.
fn select<'a>(version: Version, tenant: &'a str) -> QueryBuilder<'a, Postgres> {
    let mut query = QueryBuilder::new(EVENT);
    query.push(version.sql(
        " FROM {schema}.entries a JOIN log.events e ON e.partition = a.partition AND e.position = a.position
         WHERE a.tenant_id = ",
    ));
    query.push_bind(tenant).push(" AND a.aggregate_type = ").push_bind(USER);
    query
}

/// One more than asked for tells whether there is more.
fn fetch_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX - 1) + 1
}

fn entry(event: &Recorded, opened: &Opened) -> Result<Entry, projector::Error> {
    let typed = user_event(event, opened)?;
    let metadata = Metadata::of(event);
    Ok(Entry {
        user_id: event.stream.aggregate_id.to_string(),
        version: event.sequence,
        event: event.event_type.to_string(),
        event_id: event.event_id,
        recorded_at: rfc3339(event.recorded_at),
        actor: metadata.actor,
        reason: typed.reason().map(|reason| reason.as_str().to_owned()),
        correlation_id: metadata.correlation_id,
        causation_id: metadata.causation_id,
        erased: *opened == Opened::Erased,
        changes: typed.changes(),
        place: Place { recorded_at: event.recorded_at, partition: event.partition, position: event.position },
    })
}

/// An event as it is stored, for an auditor: clear and opened members as JSON.
#[derive(Debug, Serialize)]
pub struct StoredEvent {
    pub event_id: Uuid,
    pub event_type: String,
    pub event_version: String,
    pub sequence: u64,
    pub partition: Partition,
    pub position: Position,
    pub recorded_at: String,
    pub payload: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personal: Option<Box<RawValue>>,
    /// The person was erased: what stood in `personal` is unreadable for ever.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub erased: bool,
    pub metadata: Box<RawValue>,
}

impl StoredEvent {
    fn of(event: Recorded, opened: Opened) -> Result<Self, Error> {
        let row =
            || Error::Event(projector::Error::Row { partition: event.partition, position: event.position });
        let json = |text: String| RawValue::from_string(text).map_err(|_| row());
        let erased = opened == Opened::Erased;
        let personal = match opened {
            Opened::Value(bytes) => Some(json(String::from_utf8(bytes).map_err(|_| row())?)?),
            Opened::None | Opened::Erased => None,
        };
        Ok(Self {
            payload: json(event.payload.clone())?,
            metadata: json(event.metadata.to_string())?,
            event_id: event.event_id,
            event_type: event.event_type.into_owned(),
            event_version: event.event_version.into_owned(),
            sequence: event.sequence,
            partition: event.partition,
            position: event.position,
            recorded_at: rfc3339(event.recorded_at),
            personal,
            erased,
        })
    }
}

/// The types of events that there are.
pub fn event_types() -> impl Iterator<Item = &'static str> {
    UserEvent::types()
}

/// A type of event that there is.
///
/// # Errors
/// A message that lists them.
pub fn event_type(text: &str) -> Result<String, String> {
    if event_types().any(|known| known == text) {
        return Ok(text.to_owned());
    }
    Err(format!("must be one of {}", event_types().collect::<Vec<_>>().join(", ")))
}
