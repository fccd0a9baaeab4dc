//! Why something was done, in free text.

use super::text::{Controls, text, text_value};

text_value! {
    /// The reason that a caller gives for a command: 1 to 500 characters, of the control characters only TAB, CR and
    /// LF. It is personal because people write about people.
    personal Reason, |raw| text(raw, 1..=500, Controls::Layout)
}
