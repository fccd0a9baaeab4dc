//! Percent-decoding that refuses what it cannot read.

use std::borrow::Cow;

#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("holds a % that begins no escape; a % itself is sent as %25")]
    Escape,
    #[error("is not UTF-8 once percent-decoded")]
    Utf8,
}

/// Decodes a name or value of a form; in place where there is nothing to decode.
pub fn form(text: &str) -> Result<Cow<'_, str>, Error> {
    if !text.bytes().any(|b| matches!(b, b'%' | b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let escape_stands =
        |at: usize| bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    if (0..bytes.len()).any(|at| bytes[at] == b'%' && !escape_stands(at)) {
        return Err(Error::Escape);
    }
    let spaced: Vec<u8> = bytes.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
    let decoded = percent_encoding::percent_decode(&spaced).collect();
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| Error::Utf8)
}
