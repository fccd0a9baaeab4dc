//! A whole body as one JSON text.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::pointer;
use crate::problem::{FieldError, Problem, code};

/// Checks that the bytes are one JSON text whose strings are all text (RFC 7493 2.1), in place and without recursion.
///
/// # Errors
/// 400 `malformed-json` with line and column, and nothing of the content.
pub fn document(bytes: &[u8]) -> Result<&RawValue, Problem> {
    let text = utf8(bytes)?;
    let raw = serde_json::from_str::<&RawValue>(text).map_err(|error| malformed(&error))?;
    check_surrogates(text)?;
    Ok(raw)
}

/// The elements of a body that is an array.
///
/// # Errors
/// 400 `malformed-json`; 422 where it is not an array or holds more than `max` elements.
pub fn elements(bytes: &[u8], max: usize) -> Result<Vec<&RawValue>, Problem> {
    array(document(bytes)?, max).map_err(|detail| {
        Problem::new(code::INVALID_MEMBERS, format!("the body {detail}"))
            .with_error(FieldError::pointer("", detail))
    })
}

/// The elements of an array, or what is wrong with it.
pub(super) fn array(raw: &RawValue, max: usize) -> Result<Vec<&RawValue>, String> {
    if !raw.get().starts_with('[') {
        return Err("must be an array".to_owned());
    }
    let (elements, count) = serde_json::Deserializer::from_str(raw.get())
        .deserialize_seq(Elements { max })
        .expect("a raw value that begins with a bracket has been parsed as an array before");
    if count > max {
        return Err(format!("must not hold more than {max} elements (it holds {count})"));
    }
    Ok(elements)
}

struct Elements {
    max: usize,
}

impl<'de> Visitor<'de> for Elements {
    type Value = (Vec<&'de RawValue>, usize);

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while elements.len() < self.max {
            match access.next_element()? {
                Some(element) => elements.push(element),
                None => break,
            }
        }
        let mut count = elements.len();
        while access.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok((elements, count))
    }
}

pub(super) fn utf8(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes).map_err(|error| {
        let (line, column) = place(&bytes[..error.valid_up_to()]);
        Problem::new(code::MALFORMED_JSON, format!("invalid UTF-8 at line {line} column {column}"))
    })
}

/// serde_json names what it expected and where, and quotes nothing.
pub(super) fn malformed(error: &serde_json::Error) -> Problem {
    Problem::new(code::MALFORMED_JSON, error.to_string())
}

/// Half a surrogate pair anywhere in a text that is known to be JSON. A backslash stands only in strings there, so the
/// strings need not be told apart.
pub(super) fn check_surrogates(text: &str) -> Result<(), Problem> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(found) = bytes[at..].iter().position(|b| *b == b'\\') {
        let escape = at + found;
        at = match unit(bytes, escape) {
            None => escape + 2,
            Some(0xd800..=0xdbff) if matches!(unit(bytes, escape + 6), Some(0xdc00..=0xdfff)) => escape + 12,
            Some(0xd800..=0xdfff) => {
                let (line, column) = place(&bytes[..escape]);
                let detail = format!("half a surrogate pair at line {line} column {column}");
                return Err(Problem::new(code::MALFORMED_JSON, detail));
            }
            Some(_) => escape + 6,
        };
    }
    Ok(())
}

/// The UTF-16 unit that the escape `\uXXXX` at `at` stands for.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let escape = bytes.get(at..at + 6)?;
    let digits = std::str::from_utf8(escape.strip_prefix(b"\\u")?).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

/// Line and column, both from 1, of what follows `before`; columns are bytes, as serde_json counts them.
fn place(before: &[u8]) -> (usize, usize) {
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = before.len() - before.iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1) + 1;
    (line, column)
}

/// What is wrong with a string that only [`document`] would have refused.
pub(super) fn malformed_string(prefix: &str, name: &str) -> Problem {
    let pointer = pointer::member(prefix, name);
    Problem::new(code::MALFORMED_JSON, "a string holds half a surrogate pair")
        .with_error(FieldError::pointer(pointer, "holds half a surrogate pair"))
}
