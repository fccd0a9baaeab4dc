//! The reader that handlers use: takes members by name and notes what is wrong with each.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{Object, pointer};
use crate::hint;
use crate::problem::{Problem, Problems};

/// An object whose members are taken one by one; [`Members::finish`] refuses those that nobody took.
///
/// ```
/// use rollcall_edge::{Problem, Problems, json::Members};
///
/// fn read(body: &[u8]) -> Result<u64, Problem> {
///     let mut problems = Problems::default();
///     let mut members = Members::read(body, "")?.named("Revert");
///     let to_version = members.required_unsigned(&mut problems, "to_version");
///     members.finish(&mut problems);
///     problems.into_value(to_version)
/// }
/// assert_eq!(read(br#"{"to_version": 3}"#), Ok(3));
/// assert_eq!(read(b"{}").map_err(|problem| problem.code), Err("invalid-members"));
/// ```
#[derive(Debug)]
pub struct Members<'a> {
    members: Vec<Member<'a>>,
    /// Every name that was asked for, for hints.
    asked: Vec<&'static str>,
    pointer: String,
    name: &'static str,
}

#[derive(Debug)]
struct Member<'a> {
    name: Cow<'a, str>,
    value: &'a RawValue,
    taken: bool,
}

impl<'a> Members<'a> {
    /// Reads a whole body; `pointer` is put before the pointers of errors and is empty but for a part of a larger body.
    ///
    /// # Errors
    /// As [`Object::parse`].
    pub fn read(bytes: &'a [u8], pointer: impl Into<String>) -> Result<Self, Problem> {
        Ok(Self::over(Object::parse(bytes)?, pointer.into()))
    }

    /// Reads a value within a body, which stands at `pointer`.
    ///
    /// # Errors
    /// As [`Object::of`].
    pub fn of(raw: &'a RawValue, pointer: impl Into<String>) -> Result<Self, Problem> {
        let pointer = pointer.into();
        Ok(Self::over(Object::of(raw, &pointer)?, pointer))
    }

    fn over(object: Object<'a>, pointer: String) -> Self {
        let member = |(name, value)| Member { name, value, taken: false };
        let members = object.into_members().into_iter().map(member).collect();
        Self { members, asked: Vec::with_capacity(16), pointer, name: "this object" }
    }

    /// What messages call the object: "is not a member of CreateUser".
    #[must_use]
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// The pointer to the object itself.
    #[must_use]
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// The pointer to a member, be it there or not.
    #[must_use]
    pub fn pointer_to(&self, name: &str) -> String {
        pointer::member(&self.pointer, name)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Takes a member as it is; a null is there.
    pub fn raw(&mut self, name: &'static str) -> Option<&'a RawValue> {
        if !self.asked.contains(&name) {
            self.asked.push(name);
        }
        let member = self.members.iter_mut().find(|member| member.name == name)?;
        member.taken = true;
        Some(member.value)
    }

    /// Takes every member that nobody took yet, in the order of the text: for maps with names of the caller's own.
    pub fn rest(&mut self) -> impl Iterator<Item = (Cow<'a, str>, &'a RawValue)> {
        self.members.iter_mut().filter(|member| !member.taken).map(|member| {
            member.taken = true;
            (member.name.clone(), member.value)
        })
    }

    /// Notes an error at a member.
    pub fn refuse(&self, problems: &mut Problems, name: &str, detail: impl Into<String>) {
        problems.push(self.pointer_to(name), detail);
    }

    /// Notes each member that nobody took, with the name that may have been meant.
    pub fn finish(self, problems: &mut Problems) {
        for member in self.members.iter().filter(|member| !member.taken) {
            // Past the bound errors are only counted, so a huge body costs no search for names.
            let hint = if problems.full() {
                String::new()
            } else {
                hint::suffix(&member.name, self.asked.iter().copied())
            };
            problems.push(self.pointer_to(&member.name), format!("is not a member of {}{hint}", self.name));
        }
    }
}
