//! The user aggregate.
//!
//! Shape: [`UserCommand`] -> [`User::decide`] -> \[[`UserEvent`]\] -> [`User::evolve`] -> [`User`].
//!
//! *Invariant:* `decide` and `evolve` name every command, event and status; a new one makes the compiler speak.

mod change;
mod codec;
mod command;
mod decide;
mod details;
mod event;
mod evolve;
mod field_change;
mod patch;
mod refusal;
mod snapshot;
mod status;

use std::collections::{BTreeMap, BTreeSet};

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};

pub use change::Change;
pub use command::{NewUser, UserCommand, Wish};
pub use details::{
    AssociationDetails, ChannelChanges, CreatedDetails, EmailChange, EmailVerification, PreferenceChanges,
    ProfileChanges, ReasonOnly, TraitChanges,
};
pub use event::{Field, UserEvent};
pub use field_change::FieldChange;
pub use patch::{AddressPatch, MapPatch, Patch, UserPatch};
pub use refusal::Refusal;
pub use status::{Kind, Status};

use crate::value::{
    Address, Association, Email, ExternalId, Locale, Name, Phone, PolicySlug, PolicyVersion, Preferences,
    Source, TimeZone, TraitName, TraitValue,
};

/// Bounds on what one user holds.
pub const TRAITS_MAX: usize = 500;
pub const ASSOCIATIONS_MAX: usize = 500;
pub const CATEGORIES_MAX: usize = 100;
pub const EXTERNAL_IDS_MAX: usize = 20;
pub const TERMS_MAX: usize = 1_000;

/// A user as its events tell it. The default has never been created.
///
/// Its serialised form holds personal values in the clear: who writes it down (a snapshot, a read model) encrypts it. A
/// change of it is a change of [`User::SNAPSHOT_SHAPE`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    status: Option<Status>,
    kind: Kind,
    email: Option<Email>,
    email_verified: bool,
    given_name: Option<Name>,
    family_name: Option<Name>,
    display_name: Option<Name>,
    phone: Option<Phone>,
    address: Option<Address>,
    locale: Option<Locale>,
    time_zone: Option<TimeZone>,
    preferences: Preferences,
    traits: BTreeMap<TraitName, TraitValue>,
    associations: BTreeSet<Association>,
    external_ids: BTreeMap<Source, ExternalId>,
    accepted_terms: BTreeMap<PolicySlug, BTreeSet<PolicyVersion>>,
}

impl User {
    pub fn exists(&self) -> bool {
        self.status.is_some()
    }

    /// `None` for a user that has never been created.
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// `None` before creation, and where the events have been erased.
    pub fn email(&self) -> Option<&Email> {
        self.email.as_ref()
    }

    pub fn email_verified(&self) -> bool {
        self.email_verified
    }

    pub fn given_name(&self) -> Option<&Name> {
        self.given_name.as_ref()
    }

    pub fn family_name(&self) -> Option<&Name> {
        self.family_name.as_ref()
    }

    pub fn display_name(&self) -> Option<&Name> {
        self.display_name.as_ref()
    }

    pub fn phone(&self) -> Option<&Phone> {
        self.phone.as_ref()
    }

    pub fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    pub fn locale(&self) -> Option<&Locale> {
        self.locale.as_ref()
    }

    pub fn time_zone(&self) -> Option<&TimeZone> {
        self.time_zone.as_ref()
    }

    pub fn preferences(&self) -> &Preferences {
        &self.preferences
    }

    pub fn traits(&self) -> &BTreeMap<TraitName, TraitValue> {
        &self.traits
    }

    pub fn associations(&self) -> &BTreeSet<Association> {
        &self.associations
    }

    pub fn external_ids(&self) -> &BTreeMap<Source, ExternalId> {
        &self.external_ids
    }

    /// Every version of every policy that the user ever accepted.
    pub fn accepted_terms(&self) -> &BTreeMap<PolicySlug, BTreeSet<PolicyVersion>> {
        &self.accepted_terms
    }
}

impl Aggregate for User {
    const TYPE: &'static str = "user";
    type Command = UserCommand;
    type Event = UserEvent;
    type Error = Refusal;
    type Services = ();

    async fn handle(
        &mut self,
        command: UserCommand,
        _services: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), Refusal> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: UserEvent) {
        self.evolve(&event);
    }
}

#[cfg(test)]
mod tests;
