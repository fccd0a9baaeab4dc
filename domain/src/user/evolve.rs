//! The fold: state from events.

use super::change::apply_all;
use super::details::{CreatedDetails, ProfileChanges};
use super::{Change, Status, User, UserEvent};

impl User {
    /// Takes an event into account. It cannot fail: what happened, happened.
    ///
    /// Of an erased event status, kind and accepted terms are known, its values are not. A person's events are erased
    /// all at once, so an erased event finds no older value that it would have to overwrite.
    pub fn evolve(&mut self, event: &UserEvent) {
        match event {
            UserEvent::UserCreated { kind, changed: _, personal } => {
                self.status = Some(Status::Active);
                self.kind = *kind;
                if let Some(details) = personal.expose() {
                    self.take_details(details);
                }
            }
            UserEvent::ProfileChanged { changed: _, personal } => {
                if let Some(changes) = personal.expose() {
                    self.take_profile(changes);
                }
            }
            UserEvent::EmailChanged { verification_lost: _, personal } => {
                self.email = personal.expose().map(|change| change.to.clone());
                self.email_verified = false;
            }
            UserEvent::EmailVerified { personal: _ } => self.email_verified = true,
            UserEvent::PreferencesChanged { personal } => {
                if let Some(changes) = personal.expose() {
                    apply_all(&mut self.preferences.email, &changes.preferences.email);
                }
            }
            UserEvent::TraitsChanged { personal } => {
                if let Some(changes) = personal.expose() {
                    apply_all(&mut self.traits, &changes.traits);
                }
            }
            UserEvent::AssociationAdded { personal } => {
                if let Some(details) = personal.expose() {
                    self.associations.insert(details.association.clone());
                }
            }
            UserEvent::AssociationRemoved { personal } => {
                if let Some(details) = personal.expose() {
                    self.associations.remove(&details.association);
                }
            }
            UserEvent::TermsAccepted { policy, version, personal: _ } => {
                self.accepted_terms.entry(policy.clone()).or_default().insert(version.clone());
            }
            UserEvent::UserDeactivated { personal: _ } => self.status = Some(Status::Deactivated),
            UserEvent::UserReactivated { personal: _ } => self.status = Some(Status::Active),
        }
    }

    fn take_details(&mut self, details: &CreatedDetails) {
        // Named one by one, so that a new member of the event cannot be forgotten here.
        let CreatedDetails {
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
            reason: _,
        } = details.clone();
        self.email = Some(email);
        self.given_name = given_name;
        self.family_name = family_name;
        self.display_name = display_name;
        self.phone = phone;
        self.address = address;
        self.locale = locale;
        self.time_zone = time_zone;
        self.preferences = preferences;
        self.traits = traits;
        self.associations = associations;
        self.external_ids = external_ids;
    }

    fn take_profile(&mut self, changes: &ProfileChanges) {
        let ProfileChanges {
            given_name,
            family_name,
            display_name,
            phone,
            address,
            locale,
            time_zone,
            external_ids,
            reason: _,
        } = changes;
        take(&mut self.given_name, given_name.as_ref());
        take(&mut self.family_name, family_name.as_ref());
        take(&mut self.display_name, display_name.as_ref());
        take(&mut self.phone, phone.as_ref());
        take(&mut self.address, address.as_ref());
        take(&mut self.locale, locale.as_ref());
        take(&mut self.time_zone, time_zone.as_ref());
        apply_all(&mut self.external_ids, external_ids);
    }
}

fn take<T: Clone>(member: &mut Option<T>, change: Option<&Change<T>>) {
    if let Some(change) = change {
        member.clone_from(&change.to);
    }
}
