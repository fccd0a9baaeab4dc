//! The ids by which other systems know a user.

use super::text::{Controls, SLUG, text, text_value};

text_value! {
    /// The system that gave the id: `[a-z0-9][a-z0-9_-]{0,62}`, for example `hr`.
    plain Source, |raw| SLUG.parse(raw)
}

text_value! {
    /// The id there: 1 to 200 characters, no control characters, compared exactly.
    personal ExternalId, |raw| text(raw, 1..=200, Controls::None)
}
