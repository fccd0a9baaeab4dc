//! What kind of value a raw one is.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::problem::{Problem, code};

/// A value, with scalars read and the rest left raw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    Null,
    Boolean(bool),
    /// As it is written: what precision counts is the caller's to say.
    Number(&'a str),
    Text(Cow<'a, str>),
    Array,
    Object,
}

impl<'a> Kind<'a> {
    /// # Errors
    /// 400 `malformed-json` for a string with half a surrogate pair, which a value out of a body that
    /// [`Members::read`](super::Members::read) or [`document`](super::document) took cannot have.
    pub fn of(raw: &'a RawValue) -> Result<Self, Problem> {
        let text = raw.get();
        Ok(match text.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't') => Self::Boolean(true),
            Some(b'f') => Self::Boolean(false),
            Some(b'"') => Self::Text(string(text)?),
            Some(b'[') => Self::Array,
            Some(b'{') => Self::Object,
            _ => Self::Number(text),
        })
    }

    /// With its article, for messages: "a string".
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }
}

/// A string in place where it has no escapes.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

fn string(text: &str) -> Result<Cow<'_, str>, Problem> {
    // Without a backslash the bytes between the quotes are the string.
    let inner = &text[1..text.len() - 1];
    if !inner.as_bytes().contains(&b'\\') {
        return Ok(Cow::Borrowed(inner));
    }
    match serde_json::from_str::<Text<'_>>(text) {
        Ok(Text(text)) => Ok(text),
        Err(_) => Err(Problem::new(code::MALFORMED_JSON, "a string holds half a surrogate pair")),
    }
}
