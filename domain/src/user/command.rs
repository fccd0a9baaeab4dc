//! Commands: what a caller wishes for a user.

use std::collections::{BTreeMap, BTreeSet};

use super::{Kind, UserPatch};
use crate::value::{
    Address, Association, Email, ExternalId, Locale, Name, Phone, PolicySlug, PolicyVersion, Preferences,
    Reason, Source, TimeZone, TraitName, TraitValue,
};

/// A wish, why it is made, and what its caller may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserCommand {
    pub wish: Wish,
    pub reason: Option<Reason>,
    /// Whether the caller has the scope `users:rectify` and so may correct a deactivated user.
    pub may_rectify: bool,
}

impl From<Wish> for UserCommand {
    /// A command without a reason, of a caller that may not rectify.
    fn from(wish: Wish) -> Self {
        Self { wish, reason: None, may_rectify: false }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    CreateUser(Box<NewUser>),
    UpdateUser(Box<UserPatch>),
    ChangeEmail {
        email: Email,
    },
    /// That this address is the user's own; refused where the user has another one by now.
    VerifyEmail {
        email: Email,
    },
    /// Replaces all preferences.
    ChangePreferences {
        preferences: Preferences,
    },
    /// Merges: a name that is not mentioned keeps its value, `None` removes it.
    SetTraits {
        traits: BTreeMap<TraitName, Option<TraitValue>>,
    },
    AddAssociation(Association),
    RemoveAssociation(Association),
    AcceptTerms {
        policy: PolicySlug,
        version: PolicyVersion,
    },
    DeactivateUser,
    ReactivateUser,
}

/// A user to be created. One of the three names is required, by a rule and not by type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUser {
    pub kind: Kind,
    pub email: Email,
    pub given_name: Option<Name>,
    pub family_name: Option<Name>,
    pub display_name: Option<Name>,
    pub phone: Option<Phone>,
    /// An address without members counts as none.
    pub address: Option<Address>,
    pub locale: Option<Locale>,
    pub time_zone: Option<TimeZone>,
    pub preferences: Preferences,
    pub traits: BTreeMap<TraitName, TraitValue>,
    pub associations: BTreeSet<Association>,
    pub external_ids: BTreeMap<Source, ExternalId>,
}

impl NewUser {
    /// A customer of whom nothing but the email is known.
    pub fn with_email(email: Email) -> Self {
        Self {
            kind: Kind::default(),
            email,
            given_name: None,
            family_name: None,
            display_name: None,
            phone: None,
            address: None,
            locale: None,
            time_zone: None,
            preferences: Preferences::default(),
            traits: BTreeMap::new(),
            associations: BTreeSet::new(),
            external_ids: BTreeMap::new(),
        }
    }
}
