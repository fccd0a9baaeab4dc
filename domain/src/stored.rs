//! Stored forms: how an event is written to the log and read back, for ever.
//!
//! An event is stored in two parts. `payload` is JSON that anyone may read; `personal` is the JSON of what says
//! something about a person, which the caller encrypts under that person's key. A form that has been written once stays
//! readable: a change is either a new member with a default, or a new version with an upcaster in a table.
//!
//! *Invariant:* reading the current version never builds a JSON tree; only older versions pass through the upcasters.

mod upcast;

pub(crate) use upcast::{Step, Upcast};

/// What the log holds of an event's personal members.
#[derive(Clone, Copy)]
pub enum PersonalJson<'a> {
    /// Nothing was stored because there was nothing to say.
    None,
    /// The decrypted JSON.
    Json(&'a [u8]),
    /// The person's key has been destroyed, or the reader does without personal members.
    Erased,
}

/// An event that can be written to the log and read back.
pub trait Stored: Sized {
    fn event_type(&self) -> &'static str;

    /// The version of the form that this program writes; a number as text, as postgres-es keeps it.
    fn event_version(&self) -> &'static str;

    /// The clear part: JSON that holds no value about a person.
    fn payload(&self) -> String;

    /// The JSON of the personal members; `None` where there is nothing to say or it has been erased.
    fn personal(&self) -> Option<Vec<u8>>;

    /// Reads a stored event, of any version that was ever written.
    ///
    /// # Errors
    /// [`Error`], which never repeats a personal value.
    fn restore(
        event_type: &str,
        event_version: &str,
        payload: &str,
        personal: PersonalJson<'_>,
    ) -> Result<Self, Error>;
}

/// Why a stored event cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("event type {event_type} is unknown to this program")]
    UnknownType { event_type: String },
    #[error("event version {event_version} of {event_type} is no version")]
    NotAVersion { event_type: String, event_version: String },
    #[error("event {event_type} has version {event_version}, this program knows versions up to {known}")]
    NewerVersion { event_type: String, event_version: u32, known: u32 },
    #[error("event {event_type} of version {event_version} has no upcaster")]
    NoUpcaster { event_type: String, event_version: u32 },
    #[error("payload of {event_type} cannot be read")]
    Payload {
        event_type: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("payload of {event_type} is that of another event")]
    AnotherType { event_type: String },
    // The cause is not kept, because serde_json repeats the value that it stumbled over.
    #[error("personal members of {event_type} cannot be read at line {line}, column {column}")]
    Personal { event_type: String, line: usize, column: usize },
    #[error("personal members of {event_type} are missing")]
    PersonalMissing { event_type: String },
}
