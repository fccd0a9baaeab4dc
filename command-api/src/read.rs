//! From bodies to wishes: everything is parsed here, and all problems of a body are found at once.

mod new_user;
mod patch;
mod wish;

use std::{borrow::Cow, collections::BTreeMap, fmt::Display};

use rollcall_domain::{
    Association, AssociationKey, AssociationKind, Category, Preferences, Reason, TraitName, TraitValue,
};
use rollcall_edge::{
    Problem, Problems,
    json::{Kind, Members},
};
use serde_json::value::RawValue;

pub(crate) use new_user::new_user;
pub(crate) use patch::user_patch;
pub(crate) use wish::{
    Item, accept_terms, change_email, change_preferences, item, set_traits, update_user, verify_email,
};

/// A wish with what stands beside it in its body.
#[derive(Debug)]
pub(crate) struct Wished<T> {
    pub wish: T,
    pub reason: Option<Reason>,
}

/// Reads a whole body whose members `read` takes; `reason` is taken here, since every command may have one.
pub(crate) fn body<T>(
    bytes: &[u8],
    name: &'static str,
    read: impl FnOnce(&mut Members<'_>, &mut Problems) -> Option<T>,
) -> Result<Wished<T>, Problem> {
    members(Members::read(bytes, "")?.named(name), read)
}

pub(crate) fn members<T>(
    mut members: Members<'_>,
    read: impl FnOnce(&mut Members<'_>, &mut Problems) -> Option<T>,
) -> Result<Wished<T>, Problem> {
    let mut problems = Problems::default();
    let reason = members.text(&mut problems, "reason", Reason::parse);
    let wish = read(&mut members, &mut problems);
    members.finish(&mut problems);
    Ok(Wished { wish: problems.into_value(wish)?, reason })
}

/// `{"email": {"newsletter": true}}`
pub(crate) fn preferences(members: &mut Members<'_>, problems: &mut Problems) -> Preferences {
    let email =
        members.object(problems, "email").map(|channel| entries(channel, problems, Category::parse, boolean));
    Preferences { email: email.unwrap_or_default() }
}

/// Traits whose nulls remove.
pub(crate) fn trait_changes(
    members: &mut Members<'_>,
    problems: &mut Problems,
) -> BTreeMap<TraitName, Option<TraitValue>> {
    let rest: Vec<_> = members.rest().collect();
    named(members, rest, problems, TraitName::parse, nullable(trait_value))
}

/// The value of a trait: a string, a number, a boolean; a string that is a date is one.
pub(crate) fn trait_value(
    members: &Members<'_>,
    problems: &mut Problems,
    name: &str,
    raw: &RawValue,
) -> Option<TraitValue> {
    let value = match members.kind(problems, name, raw)? {
        Kind::Text(text) => TraitValue::parse_text(&text),
        Kind::Number(number) => TraitValue::parse_number(number),
        Kind::Boolean(boolean) => return Some(TraitValue::Boolean(boolean)),
        other @ (Kind::Null | Kind::Array | Kind::Object) => {
            members.refuse(
                problems,
                name,
                format!("must be a string, a number or a boolean, not {}", other.name()),
            );
            return None;
        }
    };
    accepted(members, problems, name, value)
}

pub(crate) fn boolean(
    members: &Members<'_>,
    problems: &mut Problems,
    name: &str,
    raw: &RawValue,
) -> Option<bool> {
    match members.kind(problems, name, raw)? {
        Kind::Boolean(boolean) => Some(boolean),
        other => {
            members.refuse(problems, name, format!("must be true or false, not {}", other.name()));
            None
        }
    }
}

/// A string that `parse` makes a value of.
pub(crate) fn string<T, E: Display>(
    parse: impl Fn(&str) -> Result<T, E>,
) -> impl Fn(&Members<'_>, &mut Problems, &str, &RawValue) -> Option<T> {
    move |members, problems, name, raw| match members.kind(problems, name, raw)? {
        Kind::Text(text) => accepted(members, problems, name, parse(&text)),
        other => {
            members.refuse(problems, name, format!("must be a string, not {}", other.name()));
            None
        }
    }
}

/// A value that null removes.
pub(crate) fn nullable<V>(
    read: impl Fn(&Members<'_>, &mut Problems, &str, &RawValue) -> Option<V>,
) -> impl Fn(&Members<'_>, &mut Problems, &str, &RawValue) -> Option<Option<V>> {
    move |members, problems, name, raw| {
        if raw.get() == "null" { Some(None) } else { read(members, problems, name, raw).map(Some) }
    }
}

/// The entries of a nested map with names of the caller's own.
pub(crate) fn entries<K: Ord, V, E: Display>(
    mut members: Members<'_>,
    problems: &mut Problems,
    name: impl Fn(&str) -> Result<K, E>,
    value: impl Fn(&Members<'_>, &mut Problems, &str, &RawValue) -> Option<V>,
) -> BTreeMap<K, V> {
    let rest: Vec<_> = members.rest().collect();
    named(&members, rest, problems, name, value)
}

fn named<K: Ord, V, E: Display>(
    members: &Members<'_>,
    entries: Vec<(Cow<'_, str>, &RawValue)>,
    problems: &mut Problems,
    parse_name: impl Fn(&str) -> Result<K, E>,
    value: impl Fn(&Members<'_>, &mut Problems, &str, &RawValue) -> Option<V>,
) -> BTreeMap<K, V> {
    let mut map = BTreeMap::new();
    for (name, raw) in entries {
        let key = accepted(members, problems, &name, parse_name(&name));
        if let (Some(key), Some(value)) = (key, value(members, problems, &name, raw))
            && map.insert(key, value).is_some()
        {
            // Two spellings of one name, such as " a" and "a".
            members.refuse(problems, &name, "is there twice once white space is trimmed");
        }
    }
    map
}

fn accepted<T, E: Display>(
    members: &Members<'_>,
    problems: &mut Problems,
    name: &str,
    parsed: Result<T, E>,
) -> Option<T> {
    match parsed {
        Ok(value) => Some(value),
        Err(error) => {
            members.refuse(problems, name, error.to_string());
            None
        }
    }
}

/// `{"kind": "membership", "key": "gold"}`
pub(crate) fn association(members: &mut Members<'_>, problems: &mut Problems) -> Option<Association> {
    let kind = members.required_text(problems, "kind", AssociationKind::parse);
    let key = members.required_text(problems, "key", AssociationKey::parse);
    Some(Association { kind: kind?, key: key? })
}
