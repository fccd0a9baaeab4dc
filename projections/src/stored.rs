//! From the log's bytes to the domain's events.

use rollcall_domain::{PersonalJson, Stored, UserEvent};
use rollcall_event_store::{Recorded, keys::Opened};

use crate::projector::Error;

/// The aggregate type of users.
pub(crate) const USER: &str = "user";

/// A user's event. Personal values come opened by the caller.
pub(crate) fn user_event(event: &Recorded, personal: &Opened) -> Result<UserEvent, Error> {
    let personal = match personal {
        Opened::None => PersonalJson::None,
        Opened::Value(json) => PersonalJson::Json(json),
        Opened::Erased => PersonalJson::Erased,
    };
    UserEvent::restore(&event.event_type, &event.event_version, &event.payload, personal)
        .map_err(|source| Error::Event { partition: event.partition, position: event.position, source })
}

/// What every event carries beside itself.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct Metadata {
    pub actor: Option<String>,
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    pub traceparent: Option<String>,
}

impl Metadata {
    pub(crate) fn of(event: &Recorded) -> Self {
        // Metadata is written by the command side alone; what it did not write is absent.
        serde_json::from_str(&event.metadata).unwrap_or_default()
    }
}
