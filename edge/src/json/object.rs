//! One object's top level, in place.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::kind::Text;
use super::{document, pointer};
use crate::problem::{FieldError, Problem, code};

/// Up to here comparing each name with each is cheaper than hashing.
const COMPARED_MAX: usize = 24;

/// The members of one object in the order of the text, none twice; values are raw.
#[derive(Debug)]
pub struct Object<'a> {
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Object<'a> {
    /// Parses a whole body.
    ///
    /// # Errors
    /// 400 `malformed-json` or `duplicate-member`; 422 where the body is JSON, but not an object.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Problem> {
        let text = document::utf8(bytes)?;
        if !text.trim_ascii_start().starts_with('{') {
            document(bytes)?;
            return Err(not_an_object(""));
        }
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let members = deserializer.deserialize_map(Entries).map_err(|error| document::malformed(&error))?;
        deserializer.end().map_err(|error| document::malformed(&error))?;
        document::check_surrogates(text)?;
        Self::without_duplicates(members, "")
    }

    /// Reads a value within a body; `pointer` says where it stands.
    ///
    /// # Errors
    /// 400 `duplicate-member`, or `malformed-json` for a name with half a surrogate pair; 422 where it is no object.
    pub fn of(raw: &'a RawValue, pointer: &str) -> Result<Self, Problem> {
        if !raw.get().starts_with('{') {
            return Err(not_an_object(pointer));
        }
        let members = serde_json::Deserializer::from_str(raw.get())
            .deserialize_map(Entries)
            .map_err(|_| document::malformed_string(pointer, ""))?;
        Self::without_duplicates(members, pointer)
    }

    #[must_use]
    pub fn members(&self) -> &[(Cow<'a, str>, &'a RawValue)] {
        &self.members
    }

    #[must_use]
    pub fn into_members(self) -> Vec<(Cow<'a, str>, &'a RawValue)> {
        self.members
    }

    fn without_duplicates(
        members: Vec<(Cow<'a, str>, &'a RawValue)>,
        pointer: &str,
    ) -> Result<Self, Problem> {
        match duplicate(&members) {
            None => Ok(Self { members }),
            Some(name) => {
                let place = pointer::member(pointer, name);
                Err(Problem::new(code::DUPLICATE_MEMBER, "an object has a member twice; see `errors`")
                    .with_error(FieldError::pointer(place, "stands more than once")))
            }
        }
    }
}

fn not_an_object(pointer: &str) -> Problem {
    let detail = if pointer.is_empty() {
        "the body must be an object"
    } else {
        "a value must be an object; see `errors`"
    };
    Problem::new(code::INVALID_MEMBERS, detail).with_error(FieldError::pointer(pointer, "must be an object"))
}

/// The first name that stands a second time.
fn duplicate<'m>(members: &'m [(Cow<'_, str>, &RawValue)]) -> Option<&'m str> {
    let mut names = members.iter().map(|(name, _)| &**name);
    if members.len() <= COMPARED_MAX {
        return names
            .enumerate()
            .find(|(i, name)| members[..*i].iter().any(|(other, _)| other == name))
            .map(|(_, name)| name);
    }
    let mut seen = HashSet::with_capacity(members.len());
    names.find(|name| !seen.insert(*name))
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::with_capacity(8);
        while let Some((Text(name), value)) = access.next_entry()? {
            members.push((name, value));
        }
        Ok(members)
    }
}
