//! Members as typed values. Null and absent are one, but for the readers of patches. Where a value is wrong, the error
//! is noted and the reader gives `None`, so that the handler goes on to the next member.

use std::borrow::Cow;
use std::fmt::Display;

use serde_json::value::RawValue;

use super::{Kind, Members, document, pointer};
use crate::problem::Problems;

/// A member of a merge patch (RFC 7396).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patch<T> {
    /// Leave it. Also what is given where the value is wrong; the error is noted then.
    #[default]
    Absent,
    /// Remove it.
    Null,
    /// Set it.
    Value(T),
}

/// A text of a merge patch.
pub type PatchText<T> = Patch<T>;

impl<T> Patch<T> {
    #[must_use]
    pub fn map<U>(self, set: impl FnOnce(T) -> U) -> Patch<U> {
        match self {
            Self::Absent => Patch::Absent,
            Self::Null => Patch::Null,
            Self::Value(value) => Patch::Value(set(value)),
        }
    }

    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<'a> Members<'a> {
    /// A string that `parse` makes a value of; its error completes "`/email` …".
    pub fn text<T, E: Display>(
        &mut self,
        problems: &mut Problems,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let raw = self.present(name)?;
        self.parse_text(problems, name, raw, parse)
    }

    /// As [`Members::text`]; missing and null are errors.
    pub fn required_text<T, E: Display>(
        &mut self,
        problems: &mut Problems,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let raw = self.required(problems, name)?;
        self.parse_text(problems, name, raw, parse)
    }

    /// As [`Members::text`], but null is told from absent.
    pub fn patch_text<T, E: Display>(
        &mut self,
        problems: &mut Problems,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> PatchText<T> {
        match self.raw(name) {
            None => Patch::Absent,
            Some(raw) if is_null(raw) => Patch::Null,
            Some(raw) => self.parse_text(problems, name, raw, parse).map_or(Patch::Absent, Patch::Value),
        }
    }

    pub fn boolean(&mut self, problems: &mut Problems, name: &'static str) -> Option<bool> {
        let raw = self.present(name)?;
        match raw.get() {
            "true" => Some(true),
            "false" => Some(false),
            _ => self.refused(problems, name, "must be true or false"),
        }
    }

    /// A whole number from 0 to 2^64-1, written with digits only.
    pub fn unsigned(&mut self, problems: &mut Problems, name: &'static str) -> Option<u64> {
        let raw = self.present(name)?;
        self.parse_unsigned(problems, name, raw)
    }

    /// As [`Members::unsigned`]; missing and null are errors.
    pub fn required_unsigned(&mut self, problems: &mut Problems, name: &'static str) -> Option<u64> {
        let raw = self.required(problems, name)?;
        self.parse_unsigned(problems, name, raw)
    }

    /// A nested object, with its errors under its own pointer. Its [`Members::finish`] is the caller's to call.
    pub fn object(&mut self, problems: &mut Problems, name: &'static str) -> Option<Members<'a>> {
        let raw = self.present(name)?;
        self.nested(problems, name, raw)
    }

    /// As [`Members::object`], but null is told from absent.
    pub fn patch_object(&mut self, problems: &mut Problems, name: &'static str) -> Patch<Members<'a>> {
        match self.raw(name) {
            None => Patch::Absent,
            Some(raw) if is_null(raw) => Patch::Null,
            Some(raw) => self.nested(problems, name, raw).map_or(Patch::Absent, Patch::Value),
        }
    }

    /// An array of at most `max` elements.
    pub fn array(
        &mut self,
        problems: &mut Problems,
        name: &'static str,
        max: usize,
    ) -> Option<Vec<&'a RawValue>> {
        let raw = self.present(name)?;
        match document::array(raw, max) {
            Ok(elements) => Some(elements),
            Err(detail) => self.refused(problems, name, detail),
        }
    }

    /// An array of at most `max` objects; elements that are none are noted and left out.
    pub fn objects(
        &mut self,
        problems: &mut Problems,
        name: &'static str,
        max: usize,
    ) -> Option<Vec<Members<'a>>> {
        let elements = self.array(problems, name, max)?;
        let array = self.pointer_to(name);
        let object = |(index, raw)| match Members::of(raw, pointer::element(&array, index)) {
            Ok(members) => Some(members),
            Err(problem) => {
                problems.absorb(problem);
                None
            }
        };
        Some(elements.into_iter().enumerate().filter_map(object).collect())
    }

    /// Takes a member that must be there and not null.
    pub fn required(&mut self, problems: &mut Problems, name: &'static str) -> Option<&'a RawValue> {
        match self.present(name) {
            Some(raw) => Some(raw),
            None => self.refused(problems, name, "is required"),
        }
    }

    /// What kind of value a member is, or its error noted; for values of several kinds, such as those of
    /// [`Members::rest`].
    pub fn kind(&self, problems: &mut Problems, name: &str, raw: &'a RawValue) -> Option<Kind<'a>> {
        match Kind::of(raw) {
            Ok(kind) => Some(kind),
            Err(_) => {
                problems.absorb(document::malformed_string(self.pointer(), name));
                None
            }
        }
    }

    fn present(&mut self, name: &'static str) -> Option<&'a RawValue> {
        self.raw(name).filter(|raw| !is_null(raw))
    }

    fn refused<T>(&self, problems: &mut Problems, name: &str, detail: impl Into<String>) -> Option<T> {
        self.refuse(problems, name, detail);
        None
    }

    fn nested(&self, problems: &mut Problems, name: &str, raw: &'a RawValue) -> Option<Members<'a>> {
        Members::of(raw, self.pointer_to(name)).map_err(|problem| problems.absorb(problem)).ok()
    }

    fn parse_text<T, E: Display>(
        &self,
        problems: &mut Problems,
        name: &str,
        raw: &'a RawValue,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text: Cow<'_, str> = match self.kind(problems, name, raw)? {
            Kind::Text(text) => text,
            other => return self.refused(problems, name, format!("must be a string, not {}", other.name())),
        };
        match parse(&text) {
            Ok(value) => Some(value),
            Err(error) => self.refused(problems, name, error.to_string()),
        }
    }

    fn parse_unsigned(&self, problems: &mut Problems, name: &str, raw: &RawValue) -> Option<u64> {
        match raw.get().parse() {
            Ok(number) => Some(number),
            Err(_) => self.refused(problems, name, "must be a whole number that is not negative"),
        }
    }
}

fn is_null(raw: &RawValue) -> bool {
    raw.get() == "null"
}
