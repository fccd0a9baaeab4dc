//! An event as a message: CloudEvents 1.0 in binary mode (NATS protocol binding). The body names what changed and holds
//! no value about a person. *Every* event becomes a message, one that this program cannot read, too: the publisher neither
//! parks nor skips.

use async_nats::HeaderMap;
use bytes::Bytes;
use rollcall_domain::{PersonalJson, Stored, UserEvent};
use rollcall_event_store::Recorded;
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

/// The body of a message.
#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    tenant: &'a str,
    version: u64,
    /// The user's members that changed, by name; none where this program does not know the event.
    changed: Vec<&'static str>,
    /// The event's clear members, as they were stored where this program does not know the event.
    data: &'a RawValue,
}

/// `rollcall.events.<tenant>.<aggregate>.<Event>.<partition>`
fn subject(event: &Recorded) -> String {
    format!(
        "rollcall.events.{}.{}.{}.{}",
        event.stream.tenant,
        token(&event.stream.aggregate_type),
        token(&event.event_type),
        event.partition
    )
}

/// A part of a subject: what would end it, or stand for others, is left out.
fn token(name: &str) -> String {
    let token: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' })
        .collect();
    if token.is_empty() { "_".to_owned() } else { token }
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
    pub fn of_event(event: &Recorded, source: &str, last: u64, previous: Option<Uuid>) -> Self {
        let typed = known(event);
        let clear = typed.as_ref().map_or_else(|| event.payload.clone(), Stored::payload);
        let body = Body {
            id: &event.stream.aggregate_id,
            tenant: &event.stream.tenant,
            version: event.sequence,
            changed: typed.as_ref().map(UserEvent::changed).unwrap_or_default(),
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
        headers.insert("ce-type", line(&event.event_type));
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
                headers.insert(name, line(&value));
            }
        }
        headers.insert("Nats-Expected-Last-Sequence", last.to_string());
        if let Some(previous) = previous {
            headers.insert("Nats-Expected-Last-Msg-Id", previous.to_string());
        }
        Self { subject: subject(event), headers, body: body.into() }
    }
}

/// Read without its personal members, as if erased: the publisher has no key and needs none.
fn known(event: &Recorded) -> Option<UserEvent> {
    if &*event.stream.aggregate_type != USER {
        return None;
    }
    UserEvent::restore(&event.event_type, &event.event_version, &event.payload, PersonalJson::Erased).ok()
}

/// A header's value is one line.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The members of `{"UserCreated":{…}}`; all there is where a payload has another form.
fn inner(payload: &str) -> &RawValue {
    let envelope: Option<std::collections::BTreeMap<&str, &RawValue>> = serde_json::from_str(payload).ok();
    match envelope {
        Some(members) if members.len() == 1 => members.into_values().next(),
        _ => serde_json::from_str(payload).ok(),
    }
    .unwrap_or(RawValue::NULL)
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use rollcall_event_store::StreamId;

    use super::*;

    fn published(
        aggregate: &str,
        event_type: &str,
        event_version: &str,
        payload: &str,
    ) -> (Message, serde_json::Value) {
        let event = Recorded {
            stream: StreamId::new("acme", aggregate, "u"),
            sequence: 3,
            partition: 1,
            position: 7,
            event_id: Uuid::nil(),
            event_type: event_type.to_owned().into(),
            event_version: event_version.to_owned().into(),
            payload: payload.to_owned(),
            personal: Some(b"sealed".to_vec()),
            metadata: "[]".into(),
            recorded_at: Utc::now(),
        };
        let message = Message::of_event(&event, "/rollcall/x", 6, None);
        let body = serde_json::from_slice(&message.body).unwrap();
        (message, body)
    }

    #[test]
    fn an_event_that_this_program_does_not_know_is_published_as_it_was_stored() {
        let body = |data: &str| -> serde_json::Value {
            let data: serde_json::Value = serde_json::from_str(data).unwrap();
            serde_json::json!({"id": "u", "tenant": "acme", "version": 3, "changed": [], "data": data})
        };
        for (aggregate, event_type, event_version, payload, data) in [
            ("user", "UserPromoted", "1", r#"{"UserPromoted":{"to":"admin"}}"#, r#"{"to":"admin"}"#),
            ("user", "UserCreated", "999", r#"{"UserCreated":{"grade":1}}"#, r#"{"grade":1}"#),
            ("user", "UserCreated", "one", r#"{"a":1,"b":2}"#, r#"{"a":1,"b":2}"#),
            ("user", "UserCreated", "1", "[1, 2]", "[1, 2]"),
            ("user", "UserCreated", "1", r#"{"a\u0000b":1}"#, r#"{"a\u0000b":1}"#),
            ("workflow", "Started", "1", r#"{"Started":{}}"#, "{}"),
        ] {
            let (message, told) = published(aggregate, event_type, event_version, payload);
            assert_eq!(told, body(data), "{payload}");
            assert_eq!(message.subject, format!("rollcall.events.acme.{aggregate}.{event_type}.1"));
        }
    }

    #[test]
    fn a_name_stays_one_part_of_the_subject_and_one_line() {
        let (message, _) = published("user", "A.b >*\r\nx", "1", "{}");
        assert_eq!(message.subject, "rollcall.events.acme.user.A_b_____x.1");
        assert_eq!(message.headers.get("ce-type").unwrap().as_str(), "A.b >*  x");
        let (message, _) = published("user", "", "1", "{}");
        assert_eq!(message.subject, "rollcall.events.acme.user._.1");
    }
}
