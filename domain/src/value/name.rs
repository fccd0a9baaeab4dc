//! Names of people.

use super::text::{Controls, text, text_value};

text_value! {
    /// A given, family or display name: 1 to 200 characters in any script, no control characters.
    personal Name, |raw| text(raw, 1..=200, Controls::None)
}
