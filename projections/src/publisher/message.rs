//! An event as a message: CloudEvents 1.0 in binary mode (NATS protocol binding). The body names what changed and holds
//! no value about a person.

use async_nats::HeaderMap;
use bytes::Bytes;
use rollcall_domain::{PersonalJson, Stored, UserEvent, stored};
use rollcall_event_store::{Partition, Position, Recorded};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    profile::rfc3339,
    stored::{Metadata, USER},
};

pub(super) const ID_HEADER: &str = "ce-id";
pub(super) const PARTITION_HEADER: &str = "ce-partition";
pub(super) const POSITION_HEADER: &str = "ce-position";
pub(super) const SOURCE_HEADER: &str = "ce-source";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("an event cannot be read (partition {partition}, position {position})")]
    Event { partition: Partition, position: Position, source: stored::Error },
    #[error(
        "an event of an unknown aggregate cannot be published (partition {partition}, position {position})"
    )]
    Aggregate { partition: Partition, position: Position },
}

/// The body of a message.
#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    tenant: &'a str,
    version: u64,
    /// The user's members that changed, by name.
    changed: Vec<&'static str>,
    /// The event's clear members.
    data: &'a RawValue,
}

/// `rollcall.events.<tenant>.<aggregate>.<Event>.<partition>`
fn subject(event: &Recorded) -> String {
    format!(
        "rollcall.events.{}.{}.{}.{}",
        event.stream.tenant, event.stream.aggregate_type, event.event_type, event.partition
    )
}

/// A message on its way.
pub(super) struct Message {
    pub subject: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Message {
    /// The message of an event that must follow the stream's message number `last`, which, inside a batch, must be that
    /// of the event `previous`.
    pub fn of_event(
        event: &Recorded,
        source: &str,
        last: u64,
        previous: Option<Uuid>,
    ) -> Result<Self, Error> {
        let place = |source| Error::Event { partition: event.partition, position: event.position, source };
        if &*event.stream.aggregate_type != USER {
            return Err(Error::Aggregate { partition: event.partition, position: event.position });
        }
        // Read without its personal members, as if erased: the publisher has no key and needs none.
        let erased = PersonalJson::Erased;
        let typed = UserEvent::restore(&event.event_type, &event.event_version, &event.payload, erased)
            .map_err(place)?;
        let clear = typed.payload();
        let body = Body {
            id: &event.stream.aggregate_id,
            tenant: &event.stream.tenant,
            version: event.sequence,
            changed: typed.changed(),
            data: inner(&clear),
        };
        let body = serde_json::to_vec(&body).expect("text and numbers are JSON");

        let metadata = Metadata::of(event);
        let id = event.event_id.to_string();
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id.as_str());
        headers.insert("ce-specversion", "1.0");
        headers.insert(ID_HEADER, id.as_str());
        headers.insert(SOURCE_HEADER, source);
        headers.insert("ce-type", event.event_type.as_str());
        headers.insert("ce-subject", &*event.stream.aggregate_id);
        headers.insert("ce-time", rfc3339(event.recorded_at));
        headers.insert("ce-sequence", event.sequence.to_string());
        headers.insert(PARTITION_HEADER, event.partition.to_string());
        headers.insert(POSITION_HEADER, event.position.to_string());
        headers.insert("content-type", "application/json");
        for (name, value) in [
            ("ce-correlationid", metadata.correlation_id),
            ("ce-causationid", metadata.causation_id),
            ("traceparent", metadata.traceparent),
        ] {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        headers.insert("Nats-Expected-Last-Sequence", last.to_string());
        if let Some(previous) = previous {
            headers.insert("Nats-Expected-Last-Msg-Id", previous.to_string());
        }
        Ok(Self { subject: subject(event), headers, body: body.into() })
    }
}

/// The members of `{"UserCreated":{…}}`.
fn inner(payload: &str) -> &RawValue {
    let envelope: std::collections::BTreeMap<&str, &RawValue> =
        serde_json::from_str(payload).expect("a payload is an object of one member, made a moment ago");
    envelope.into_values().next().expect("an object of one member")
}
