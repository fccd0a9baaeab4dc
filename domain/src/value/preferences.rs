//! What a user wants to hear of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::text::{SLUG, text_value};

text_value! {
    /// A category of messages: `[a-z0-9][a-z0-9_-]{0,62}`, for example `newsletter`.
    plain Category, |raw| SLUG.parse(raw)
}

/// By channel and category, whether the user wants messages. A category that is missing has never been answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preferences {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub email: BTreeMap<Category, bool>,
}

impl Preferences {
    pub fn is_empty(&self) -> bool {
        self.email.is_empty()
    }
}
