//! Associations: what a user belongs to.

use serde::{Deserialize, Serialize};

use super::text::{Controls, Word, text, text_value};

text_value! {
    /// What sort of thing the user belongs to: `[a-z][a-z0-9_-]{0,62}`, for example `membership`.
    plain AssociationKind, |raw| KIND.parse(raw)
}

text_value! {
    /// Which one of them: 1 to 200 characters, no control characters.
    personal AssociationKey, |raw| text(raw, 1..=200, Controls::None)
}

const KIND: Word = Word {
    first: |byte| byte.is_ascii_lowercase(),
    rest: |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-'),
    length_max: 63,
    rule: "1 to 63 characters from a-z, 0-9, _ and -, the first a letter",
};

/// That a user belongs to something, as `membership` `gold`. A user has each at most once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Association {
    pub kind: AssociationKind,
    pub key: AssociationKey,
}
