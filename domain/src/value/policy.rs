//! Which terms document a user accepted.

use super::text::{Word, text_value};

text_value! {
    /// A terms document: `[a-z0-9][a-z0-9-]{0,62}`, for example `privacy`.
    plain PolicySlug, |raw| POLICY.parse(raw)
}

text_value! {
    /// One version of a terms document: `[A-Za-z0-9._-]{1,64}`, for example `2026-01`.
    plain PolicyVersion, |raw| VERSION.parse(raw)
}

const POLICY: Word = Word {
    first: |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(),
    rest: |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-',
    length_max: 63,
    rule: "1 to 63 characters from a-z, 0-9 and -, the first a letter or digit",
};

const VERSION: Word = Word {
    first: is_version_byte,
    rest: is_version_byte,
    length_max: 64,
    rule: "1 to 64 characters from A-Z, a-z, 0-9, dot, _ and -",
};

fn is_version_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}
