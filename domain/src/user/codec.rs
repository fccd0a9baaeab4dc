//! The stored form of the user's events.
//!
//! This is on the way of every command and every read: structs are written to and read from text directly.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::UserEvent;
use crate::Personal;
use crate::stored::{self, PersonalJson, Step, Stored, Upcast};

/// The version that each event is written in.
struct Version {
    event_type: &'static str,
    text: &'static str,
    number: u32,
}

const fn first(event_type: &'static str) -> Version {
    Version { event_type, text: "1", number: 1 }
}

const VERSIONS: [Version; 11] = [
    first("UserCreated"),
    first("ProfileChanged"),
    first("EmailChanged"),
    first("EmailVerified"),
    Version { event_type: "PreferencesChanged", text: "2", number: 2 },
    first("TraitsChanged"),
    first("AssociationAdded"),
    first("AssociationRemoved"),
    first("TermsAccepted"),
    first("UserDeactivated"),
    first("UserReactivated"),
];

/// From every form that was ever written to the one after it.
const UPCASTERS: [Step; 1] =
    [Step { event_type: "PreferencesChanged", from_version: 1, upcaster: preferences_by_channel }];

/// Version 1 knew email alone and named the categories at once; version 2 says the channel first, as the user's state
/// and the API do, so that another channel has a place.
fn preferences_by_channel(body: Value, personal: Option<Value>) -> (Value, Option<Value>) {
    let personal = personal.map(|mut members| {
        if let Some(categories) = members.get_mut("preferences") {
            *categories = json!({ "email": categories.take() });
        }
        members
    });
    (body, personal)
}

impl UserEvent {
    /// The types of all events of a user, as the log names them.
    pub fn types() -> impl Iterator<Item = &'static str> {
        VERSIONS.iter().map(|version| version.event_type)
    }

    pub fn event_version(&self) -> &'static str {
        version_of(self.event_type())
            .map(|version| version.text)
            .expect("each event has a version in the table")
    }
}

impl Stored for UserEvent {
    fn event_type(&self) -> &'static str {
        self.event_type()
    }

    fn event_version(&self) -> &'static str {
        self.event_version()
    }

    fn payload(&self) -> String {
        serde_json::to_string(self).expect("enums of text and booleans are JSON")
    }

    fn personal(&self) -> Option<Vec<u8>> {
        match self {
            Self::UserCreated { personal, .. } => write(personal),
            Self::ProfileChanged { personal, .. } => write(personal),
            Self::EmailChanged { personal, .. } => write(personal),
            Self::EmailVerified { personal } => write(personal),
            Self::PreferencesChanged { personal } => write(personal),
            Self::TraitsChanged { personal } => write(personal),
            Self::AssociationAdded { personal } | Self::AssociationRemoved { personal } => write(personal),
            Self::TermsAccepted { personal, .. }
            | Self::UserDeactivated { personal }
            | Self::UserReactivated { personal } => write(personal),
        }
    }

    fn restore(
        event_type: &str,
        event_version: &str,
        payload: &str,
        personal: PersonalJson<'_>,
    ) -> Result<Self, stored::Error> {
        let current = version_of(event_type)
            .ok_or_else(|| stored::Error::UnknownType { event_type: event_type.to_owned() })?;
        if event_version == current.text {
            return read_current(event_type, payload, personal);
        }
        let form = (event_type, event_version, current.number);
        let upcast = Upcast::to_current(&UPCASTERS, form, payload, personal)?;
        read_current(event_type, &upcast.payload, upcast.personal())
    }
}

fn version_of(event_type: &str) -> Option<&'static Version> {
    VERSIONS.iter().find(|version| version.event_type == event_type)
}

fn read_current(event_type: &str, payload: &str, json: PersonalJson<'_>) -> Result<UserEvent, stored::Error> {
    let mut event: UserEvent = serde_json::from_str(payload)
        .map_err(|source| stored::Error::Payload { event_type: event_type.to_owned(), source })?;
    if event.event_type() != event_type {
        return Err(stored::Error::AnotherType { event_type: event_type.to_owned() });
    }
    match &mut event {
        UserEvent::UserCreated { personal, .. } => *personal = read(event_type, json)?,
        UserEvent::ProfileChanged { personal, .. } => *personal = read(event_type, json)?,
        UserEvent::EmailChanged { personal, .. } => *personal = read(event_type, json)?,
        UserEvent::EmailVerified { personal } => *personal = read(event_type, json)?,
        UserEvent::PreferencesChanged { personal } => *personal = read(event_type, json)?,
        UserEvent::TraitsChanged { personal } => *personal = read(event_type, json)?,
        UserEvent::AssociationAdded { personal } | UserEvent::AssociationRemoved { personal } => {
            *personal = read(event_type, json)?;
        }
        UserEvent::TermsAccepted { personal, .. }
        | UserEvent::UserDeactivated { personal }
        | UserEvent::UserReactivated { personal } => *personal = read_or_default(event_type, json)?,
    }
    Ok(event)
}

fn write<T: Serialize>(personal: &Personal<T>) -> Option<Vec<u8>> {
    let json =
        serde_json::to_vec(personal.expose()?).expect("structs of text, booleans and maps by text are JSON");
    // An event without a reason may have nothing to say: then there is nothing to encrypt either.
    (json != b"{}").then_some(json)
}

fn read<T: DeserializeOwned>(event_type: &str, json: PersonalJson<'_>) -> Result<Personal<T>, stored::Error> {
    match json {
        PersonalJson::Json(json) => {
            serde_json::from_slice(json).map(Personal::Value).map_err(|error| stored::Error::Personal {
                event_type: event_type.to_owned(),
                line: error.line(),
                column: error.column(),
            })
        }
        PersonalJson::None => Err(stored::Error::PersonalMissing { event_type: event_type.to_owned() }),
        PersonalJson::Erased => Ok(Personal::Erased),
    }
}

fn read_or_default<T: DeserializeOwned + Default>(
    event_type: &str,
    json: PersonalJson<'_>,
) -> Result<Personal<T>, stored::Error> {
    match json {
        PersonalJson::None => Ok(Personal::Value(T::default())),
        PersonalJson::Json(_) | PersonalJson::Erased => read(event_type, json),
    }
}
