//! What an event changed, member by member, for an audit history.

use std::fmt;

use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::{Change, Status, UserEvent};
use crate::value::{Address, Association, TraitName, TraitValue};

/// One change of a member. `from` and `to` are JSON text with exact numbers; `None` is null: not there, or erased.
///
/// The serde form holds the values as JSON, not as text, and is personal.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// A JSON pointer (RFC 6901) into the user as the API shows it; an association is `/associations/<kind>/<key>`.
    pub path: String,
    #[serde(serialize_with = "write_json", deserialize_with = "read_json")]
    pub from: Option<String>,
    #[serde(serialize_with = "write_json", deserialize_with = "read_json")]
    pub to: Option<String>,
}

impl fmt::Debug for FieldChange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The path may end in an association's key, so it is personal too.
        formatter.write_str("FieldChange(<personal>)")
    }
}

impl UserEvent {
    /// The changes in the order of the event's members. Of an erased event only [`UserEvent::changed`] and what the
    /// payload tells are left.
    pub fn changes(&self) -> Vec<FieldChange> {
        let mut list = Changes::default();
        match self {
            Self::UserCreated { kind, personal, .. } => {
                list.push(&["kind"], None, json(kind));
                list.push(&["status"], None, json(&Status::Active));
                match personal.expose() {
                    Some(details) => {
                        list.push(&["email"], None, json(&details.email));
                        list.value("given_name", None, details.given_name.as_ref());
                        list.value("family_name", None, details.family_name.as_ref());
                        list.value("display_name", None, details.display_name.as_ref());
                        list.value("phone", None, details.phone.as_ref());
                        list.address(None, details.address.as_ref());
                        list.value("locale", None, details.locale.as_ref());
                        list.value("time_zone", None, details.time_zone.as_ref());
                        for (category, wanted) in &details.preferences.email {
                            list.push(&["preferences", "email", category.as_str()], None, json(wanted));
                        }
                        for (name, value) in &details.traits {
                            list.trait_value(name, None, Some(value));
                        }
                        for association in &details.associations {
                            list.association(association, None, json(association));
                        }
                        for (source, id) in &details.external_ids {
                            list.push(&["external_ids", source.as_str()], None, json(id));
                        }
                    }
                    None => list.erased(
                        self.changed().into_iter().filter(|name| !matches!(*name, "kind" | "status")),
                    ),
                }
            }
            Self::ProfileChanged { personal, .. } => match personal.expose() {
                Some(changes) => {
                    list.change("given_name", changes.given_name.as_ref());
                    list.change("family_name", changes.family_name.as_ref());
                    list.change("display_name", changes.display_name.as_ref());
                    list.change("phone", changes.phone.as_ref());
                    if let Some(change) = &changes.address {
                        list.address(change.from.as_ref(), change.to.as_ref());
                    }
                    list.change("locale", changes.locale.as_ref());
                    list.change("time_zone", changes.time_zone.as_ref());
                    for (source, Change { from, to }) in &changes.external_ids {
                        list.push(
                            &["external_ids", source.as_str()],
                            optional(from.as_ref()),
                            optional(to.as_ref()),
                        );
                    }
                }
                None => list.erased(self.changed()),
            },
            Self::EmailChanged { verification_lost, personal } => {
                match personal.expose() {
                    Some(change) => list.push(&["email"], optional(change.from.as_ref()), json(&change.to)),
                    None => list.erased(["email"]),
                }
                if *verification_lost {
                    list.push(&["email_verified"], json(&true), json(&false));
                }
            }
            Self::EmailVerified { personal: _ } => list.push(&["email_verified"], json(&false), json(&true)),
            Self::PreferencesChanged { personal } => match personal.expose() {
                Some(changes) => {
                    for (category, Change { from, to }) in &changes.preferences.email {
                        let path = ["preferences", "email", category.as_str()];
                        list.push(&path, optional(from.as_ref()), optional(to.as_ref()));
                    }
                }
                None => list.erased(self.changed()),
            },
            Self::TraitsChanged { personal } => match personal.expose() {
                Some(changes) => {
                    for (name, Change { from, to }) in &changes.traits {
                        list.trait_value(name, from.as_ref(), to.as_ref());
                    }
                }
                None => list.erased(self.changed()),
            },
            Self::AssociationAdded { personal } => match personal.expose() {
                Some(details) => list.association(&details.association, None, json(&details.association)),
                None => list.erased(self.changed()),
            },
            Self::AssociationRemoved { personal } => match personal.expose() {
                Some(details) => list.association(&details.association, json(&details.association), None),
                None => list.erased(self.changed()),
            },
            Self::TermsAccepted { policy, version, personal: _ } => {
                list.push(&["accepted_terms", policy.as_str()], None, json(version));
            }
            Self::UserDeactivated { personal: _ } => {
                list.push(&["status"], json(&Status::Active), json(&Status::Deactivated));
            }
            Self::UserReactivated { personal: _ } => {
                list.push(&["status"], json(&Status::Deactivated), json(&Status::Active));
            }
        }
        list.0
    }
}

#[derive(Default)]
struct Changes(Vec<FieldChange>);

impl Changes {
    fn push(&mut self, path: &[&str], from: Option<String>, to: Option<String>) {
        self.0.push(FieldChange { path: pointer(path), from, to });
    }

    fn change<T: Serialize>(&mut self, name: &str, change: Option<&Change<T>>) {
        if let Some(Change { from, to }) = change {
            self.value(name, from.as_ref(), to.as_ref());
        }
    }

    fn value<T: Serialize>(&mut self, name: &str, from: Option<&T>, to: Option<&T>) {
        if from.is_some() || to.is_some() {
            self.push(&[name], optional(from), optional(to));
        }
    }

    fn address(&mut self, from: Option<&Address>, to: Option<&Address>) {
        let nothing = Address::default();
        let from = from.unwrap_or(&nothing).members();
        let to = to.unwrap_or(&nothing).members();
        for ((name, from), (_, to)) in from.into_iter().zip(to).filter(|((_, from), (_, to))| from != to) {
            self.push(&["address", name], optional(from), optional(to));
        }
    }

    fn trait_value(&mut self, name: &TraitName, from: Option<&TraitValue>, to: Option<&TraitValue>) {
        let plain = |value: &TraitValue| {
            let mut json = String::new();
            value.to_json(&mut json);
            json
        };
        self.push(&["traits", name.as_str()], from.map(plain), to.map(plain));
    }

    fn association(&mut self, association: &Association, from: Option<String>, to: Option<String>) {
        self.push(&["associations", association.kind.as_str(), association.key.as_str()], from, to);
    }

    fn erased<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        for name in names {
            self.push(&[name], None, None);
        }
    }
}

fn pointer(path: &[&str]) -> String {
    let mut pointer = String::new();
    for token in path {
        pointer.push('/');
        for character in token.chars() {
            match character {
                '~' => pointer.push_str("~0"),
                '/' => pointer.push_str("~1"),
                character => pointer.push(character),
            }
        }
    }
    pointer
}

fn json<T: Serialize + ?Sized>(value: &T) -> Option<String> {
    Some(serde_json::to_string(value).expect("text, booleans and structs of them are JSON"))
}

fn optional<T: Serialize + ?Sized>(value: Option<&T>) -> Option<String> {
    value.and_then(json)
}

// serde's attribute hands the member over as it is declared.
fn write_json<S: Serializer>(json: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    let raw: Option<&RawValue> = json
        .as_deref()
        .map(serde_json::from_str)
        .transpose()
        .map_err(|_| S::Error::custom("a change holds text that is not JSON"))?;
    raw.serialize(serializer)
}

fn read_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let raw = Option::<Box<RawValue>>::deserialize(deserializer)?;
    Ok(raw.map(|raw| raw.get().to_owned()))
}
