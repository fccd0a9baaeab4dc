//! The personal members of the user's events. Their serde form is what gets encrypted; members that say nothing are
//! left out of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Change, Field, NewUser};
use crate::value::{
    Address, Association, Category, Email, ExternalId, Locale, Name, Phone, Preferences, Reason, Source,
    TimeZone, TraitName, TraitValue,
};

/// All values that a user was created with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedDetails {
    pub email: Email,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_name: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family_name: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<Phone>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<Locale>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<TimeZone>,
    #[serde(default, skip_serializing_if = "Preferences::is_empty")]
    pub preferences: Preferences,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub traits: BTreeMap<TraitName, TraitValue>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub associations: BTreeSet<Association>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub external_ids: BTreeMap<Source, ExternalId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

impl CreatedDetails {
    pub(super) fn of(new_user: NewUser, reason: Option<Reason>) -> Self {
        // Named one by one, so that a new member of a user cannot be forgotten here.
        let NewUser {
            kind: _,
            email,
            given_name,
            family_name,
            display_name,
            phone,
            address,
            locale,
            time_zone,
            preferences,
            traits,
            associations,
            external_ids,
        } = new_user;
        Self {
            email,
            given_name,
            family_name,
            display_name,
            phone,
            address: address.and_then(Address::into_option),
            locale,
            time_zone,
            preferences,
            traits,
            associations,
            external_ids,
            reason,
        }
    }

    /// The members that are set.
    pub(super) fn fields(&self) -> Vec<Field> {
        let set = [
            (Field::Email, true),
            (Field::GivenName, self.given_name.is_some()),
            (Field::FamilyName, self.family_name.is_some()),
            (Field::DisplayName, self.display_name.is_some()),
            (Field::Phone, self.phone.is_some()),
            (Field::Address, self.address.is_some()),
            (Field::Locale, self.locale.is_some()),
            (Field::TimeZone, self.time_zone.is_some()),
            (Field::Preferences, !self.preferences.is_empty()),
            (Field::Traits, !self.traits.is_empty()),
            (Field::Associations, !self.associations.is_empty()),
            (Field::ExternalIds, !self.external_ids.is_empty()),
        ];
        named(&set)
    }
}

/// What an update changed of who the user is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProfileChanges {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given_name: Option<Change<Name>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family_name: Option<Change<Name>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<Change<Name>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<Change<Phone>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Change<Address>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locale: Option<Change<Locale>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<Change<TimeZone>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub external_ids: BTreeMap<Source, Change<ExternalId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

impl ProfileChanges {
    /// The members that changed.
    pub(super) fn fields(&self) -> Vec<Field> {
        let changed = [
            (Field::GivenName, self.given_name.is_some()),
            (Field::FamilyName, self.family_name.is_some()),
            (Field::DisplayName, self.display_name.is_some()),
            (Field::Phone, self.phone.is_some()),
            (Field::Address, self.address.is_some()),
            (Field::Locale, self.locale.is_some()),
            (Field::TimeZone, self.time_zone.is_some()),
            (Field::ExternalIds, !self.external_ids.is_empty()),
        ];
        named(&changed)
    }
}

fn named(fields: &[(Field, bool)]) -> Vec<Field> {
    fields.iter().filter(|(_, named)| *named).map(|(field, _)| *field).collect()
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Email>,
    pub to: Email,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailVerification {
    pub email: Email,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreferenceChanges {
    pub preferences: ChannelChanges,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// Changed preferences by channel and category.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelChanges {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub email: BTreeMap<Category, Change<bool>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraitChanges {
    pub traits: BTreeMap<TraitName, Change<TraitValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssociationDetails {
    pub association: Association,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// For events whose only personal member is why they happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReasonOnly {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}
