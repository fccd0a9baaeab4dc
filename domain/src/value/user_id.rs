//! Ids of users.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Invalid;

/// A user's id, the id of its stream. It prints as 36 characters in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserId(Uuid);

impl UserId {
    /// Takes the hyphenated form in either case.
    ///
    /// # Errors
    /// [`Invalid`] for everything else, the other forms of a UUID (braced, URN, without hyphens) included: an id has
    /// one spelling in a path.
    pub fn parse(raw: &str) -> Result<Self, Invalid> {
        let refusal = || {
            Invalid::new("must be a UUID of 36 characters, for example 01934a1c-7c5e-7b6a-9d2f-3c4b5a697887")
        };
        if raw.len() != 36 {
            return Err(refusal());
        }
        Uuid::try_parse(raw).map(Self).map_err(|_| refusal())
    }

    pub fn as_uuid(&self) -> &Uuid {
        &self.0
    }
}

impl From<Uuid> for UserId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(formatter)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hyphenated_form_is_an_id() {
        let id = UserId::parse("01934A1C-7C5E-7B6A-9D2F-3C4B5A697887").unwrap();
        assert_eq!(id.to_string(), "01934a1c-7c5e-7b6a-9d2f-3c4b5a697887");
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"01934a1c-7c5e-7b6a-9d2f-3c4b5a697887\"");
        for raw in [
            "",
            "01934a1c7c5e7b6a9d2f3c4b5a697887",
            "{01934a1c-7c5e-7b6a-9d2f-3c4b5a697887}",
            "urn:uuid:01934a1c-7c5e-7b6a-9d2f-3c4b5a697887",
            "01934a1c-7c5e-7b6a-9d2f-3c4b5a69788g",
            "01934a1c-7c5e-7b6a-9d2f-3c4b5a6978é",
            "01934a1c07c5e07b6a09d2f03c4b5a697887",
        ] {
            assert!(UserId::parse(raw).is_err(), "{raw}");
        }
    }
}
