//! Patches: what to keep, what to clear and what to set (RFC 7396, JSON merge patch, in types).

use std::collections::BTreeMap;

use crate::value::{
    Address, AddressPart, Category, ExternalId, FormattedAddress, Locale, Name, Phone, Source, StreetAddress,
    TimeZone, TraitName, TraitValue,
};

/// What to do with one member: absent, `null` or a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Patch<T> {
    #[default]
    Keep,
    Clear,
    Set(T),
}

impl<T: Clone> Patch<T> {
    /// The member's value afterwards.
    pub fn apply(&self, current: Option<&T>) -> Option<T> {
        match self {
            Self::Keep => current.cloned(),
            Self::Clear => None,
            Self::Set(value) => Some(value.clone()),
        }
    }
}

/// What to do with a map: a merge keeps the keys that it does not mention and removes those with `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum MapPatch<K, V> {
    #[default]
    Keep,
    Clear,
    Merge(BTreeMap<K, Option<V>>),
}

impl<K: Clone + Ord, V: Clone> MapPatch<K, V> {
    /// The map afterwards.
    pub fn apply(&self, current: &BTreeMap<K, V>) -> BTreeMap<K, V> {
        match self {
            Self::Keep => current.clone(),
            Self::Clear => BTreeMap::new(),
            Self::Merge(entries) => merge(current, entries),
        }
    }
}

/// The map with `entries` merged into it.
pub(super) fn merge<K: Clone + Ord, V: Clone>(
    current: &BTreeMap<K, V>,
    entries: &BTreeMap<K, Option<V>>,
) -> BTreeMap<K, V> {
    let mut merged = current.clone();
    for (key, value) in entries {
        match value {
            Some(value) => merged.insert(key.clone(), value.clone()),
            None => merged.remove(key),
        };
    }
    merged
}

/// Merged into the address that the user has, or into an empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPatch {
    pub formatted: Patch<FormattedAddress>,
    pub street_address: Patch<StreetAddress>,
    pub locality: Patch<AddressPart>,
    pub region: Patch<AddressPart>,
    pub postal_code: Patch<AddressPart>,
    pub country: Patch<AddressPart>,
}

impl Patch<AddressPatch> {
    /// The address afterwards; none where its last member went.
    pub fn merge(&self, current: Option<&Address>) -> Option<Address> {
        let patch = match self {
            Self::Keep => return current.cloned(),
            Self::Clear => return None,
            Self::Set(patch) => patch,
        };
        let nothing = Address::default();
        let current = current.unwrap_or(&nothing);
        Address {
            formatted: patch.formatted.apply(current.formatted.as_ref()),
            street_address: patch.street_address.apply(current.street_address.as_ref()),
            locality: patch.locality.apply(current.locality.as_ref()),
            region: patch.region.apply(current.region.as_ref()),
            postal_code: patch.postal_code.apply(current.postal_code.as_ref()),
            country: patch.country.apply(current.country.as_ref()),
        }
        .into_option()
    }
}

/// An update of a user. The default keeps everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserPatch {
    pub given_name: Patch<Name>,
    pub family_name: Patch<Name>,
    pub display_name: Patch<Name>,
    pub phone: Patch<Phone>,
    pub address: Patch<AddressPatch>,
    pub locale: Patch<Locale>,
    pub time_zone: Patch<TimeZone>,
    /// Email preferences by category.
    pub preferences: MapPatch<Category, bool>,
    pub traits: MapPatch<TraitName, TraitValue>,
    pub external_ids: MapPatch<Source, ExternalId>,
}
