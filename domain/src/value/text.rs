//! What all text values share: normalisation, the refusal of control characters, and the newtype around a string.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::Invalid;

/// The control characters that a text may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Controls {
    None,
    /// CR and LF, as in a postal address.
    LineBreaks,
    /// TAB, CR and LF, as in prose.
    Layout,
}

impl Controls {
    fn allows(self, character: char) -> bool {
        match self {
            Self::None => false,
            Self::LineBreaks => matches!(character, '\r' | '\n'),
            Self::Layout => matches!(character, '\t' | '\r' | '\n'),
        }
    }

    fn refusal(self) -> Invalid {
        Invalid::new(match self {
            Self::None => "must not contain control characters such as tabs or line breaks",
            Self::LineBreaks => "must not contain control characters other than line breaks",
            Self::Layout => "must not contain control characters other than tabs and line breaks",
        })
    }
}

/// Normalisation form C; text that is in it already, as nearly all is, is not copied.
pub(super) fn nfc(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.nfc().collect())
    }
}

/// Trimmed text in form C whose number of characters (Unicode scalar values) lies in `length`.
pub(super) fn text(raw: &str, length: RangeInclusive<usize>, controls: Controls) -> Result<String, Invalid> {
    let text = nfc(raw.trim());
    if !length.contains(&text.chars().count()) {
        return Err(Invalid::new(match length.start() {
            0 => format!("must be at most {} characters", length.end()),
            start => format!("must be between {start} and {} characters", length.end()),
        }));
    }
    if text.chars().any(|character| character.is_control() && !controls.allows(character)) {
        return Err(controls.refusal());
    }
    Ok(text.into_owned())
}

/// The rule of an ASCII word; `rule` completes "must be …".
pub(super) struct Word {
    pub first: fn(u8) -> bool,
    pub rest: fn(u8) -> bool,
    pub length_max: usize,
    pub rule: &'static str,
}

impl Word {
    pub(super) fn parse(&self, raw: &str) -> Result<String, Invalid> {
        let word = raw.trim();
        let well_formed = match word.as_bytes() {
            [first, rest @ ..] => {
                word.len() <= self.length_max
                    && (self.first)(*first)
                    && rest.iter().all(|byte| (self.rest)(*byte))
            }
            [] => false,
        };
        if well_formed { Ok(word.to_owned()) } else { Err(Invalid::new(format!("must be {}", self.rule))) }
    }
}

/// `[a-z0-9][a-z0-9_-]{0,62}`, the form of categories and sources.
pub(super) const SLUG: Word = Word {
    first: |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(),
    rest: |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-'),
    length_max: 63,
    rule: "1 to 63 characters from a-z, 0-9, _ and -, the first a letter or digit",
};

/// Declares a newtype around text: `personal` ones print `<personal>`, `plain` ones their text.
macro_rules! text_value {
    ($(#[$doc:meta])* personal $name:ident, $parse:expr) => {
        $crate::value::text::text_value!(@declare $(#[$doc])* $name, $parse);

        impl std::fmt::Debug for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("<personal>")
            }
        }
    };
    ($(#[$doc:meta])* plain $name:ident, $parse:expr) => {
        $crate::value::text::text_value!(@declare $(#[$doc])* $name, $parse);

        impl std::fmt::Debug for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(&self.0, formatter)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
    (@declare $(#[$doc:meta])* $name:ident, $parse:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// # Errors
            /// [`Invalid`](crate::value::Invalid) when the text breaks the rule in this type's description.
            pub fn parse(raw: &str) -> Result<Self, $crate::value::Invalid> {
                let parse: fn(&str) -> Result<String, $crate::value::Invalid> = $parse;
                parse(raw).map(Self)
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }

            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        // A map keyed by this value is asked with plain text.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}
pub(super) use text_value;
