//! The rules: which events a command leads to, if any.

use std::collections::BTreeMap;

use super::change::differences;
use super::details::{
    AssociationDetails, ChannelChanges, CreatedDetails, EmailChange, EmailVerification, PreferenceChanges,
    ProfileChanges, ReasonOnly, TraitChanges,
};
use super::patch::merge;
use super::{
    ASSOCIATIONS_MAX, CATEGORIES_MAX, Change, EXTERNAL_IDS_MAX, NewUser, Refusal, Status, TERMS_MAX,
    TRAITS_MAX, User, UserCommand, UserEvent, UserPatch, Wish,
};
use crate::Personal;
use crate::value::{Association, Category, Email, PolicySlug, PolicyVersion, Reason, TraitName, TraitValue};

type Decision = Result<Vec<UserEvent>, Refusal>;

impl User {
    /// The events that the command leads to; none where its wish is true already.
    ///
    /// # Errors
    /// The [`Refusal`] that names the rule in the way.
    pub fn decide(&self, command: UserCommand) -> Decision {
        let UserCommand { wish, reason: given, may_rectify } = command;
        let (reason, correction) = (given.as_ref(), Correction::from(may_rectify));
        match (wish, self.status) {
            // Its values are the most that any command brings: they move into the event.
            (Wish::CreateUser(new_user), None) => create(*new_user, given),
            (Wish::CreateUser(_), Some(Status::Active | Status::Deactivated)) => Err(Refusal::AlreadyExists),

            (Wish::UpdateUser(patch), Some(status)) => {
                permit(status, correction, self.update(&patch, reason))
            }
            (Wish::ChangeEmail { email }, Some(status)) => {
                permit(status, correction, Ok(self.change_email(&email, reason)))
            }
            (Wish::SetTraits { traits }, Some(status)) => {
                let after = merge(&self.traits, &traits);
                permit(status, correction, self.set_traits(&after, reason))
            }

            (Wish::VerifyEmail { email }, Some(status)) => {
                permit(status, Correction::No, self.verify_email(&email, reason))
            }
            (Wish::ChangePreferences { preferences }, Some(status)) => {
                permit(status, Correction::No, self.change_preferences(&preferences.email, reason))
            }
            (Wish::AddAssociation(association), Some(status)) => {
                permit(status, Correction::No, self.add_association(&association, reason))
            }
            (Wish::RemoveAssociation(association), Some(status)) => {
                permit(status, Correction::No, Ok(self.remove_association(&association, reason)))
            }
            (Wish::AcceptTerms { policy, version }, Some(status)) => {
                permit(status, Correction::No, self.accept_terms(&policy, &version, reason))
            }

            (Wish::DeactivateUser, Some(Status::Active)) => {
                Ok(vec![UserEvent::UserDeactivated { personal: reason_only(reason) }])
            }
            (Wish::DeactivateUser, Some(Status::Deactivated)) => Ok(vec![]),
            (Wish::ReactivateUser, Some(Status::Deactivated)) => {
                Ok(vec![UserEvent::UserReactivated { personal: reason_only(reason) }])
            }
            (Wish::ReactivateUser, Some(Status::Active)) => Ok(vec![]),

            (
                Wish::UpdateUser(_)
                | Wish::ChangeEmail { .. }
                | Wish::SetTraits { .. }
                | Wish::VerifyEmail { .. }
                | Wish::ChangePreferences { .. }
                | Wish::AddAssociation(_)
                | Wish::RemoveAssociation(_)
                | Wish::AcceptTerms { .. }
                | Wish::DeactivateUser
                | Wish::ReactivateUser,
                None,
            ) => Err(Refusal::NotFound),
        }
    }

    fn update(&self, patch: &UserPatch, reason: Option<&Reason>) -> Decision {
        let mut events = self.update_profile(patch, reason)?;
        events.extend(self.change_preferences(&patch.preferences.apply(&self.preferences.email), reason)?);
        events.extend(self.set_traits(&patch.traits.apply(&self.traits), reason)?);
        Ok(events)
    }

    fn update_profile(&self, patch: &UserPatch, reason: Option<&Reason>) -> Decision {
        let given_name = patch.given_name.apply(self.given_name());
        let family_name = patch.family_name.apply(self.family_name());
        let display_name = patch.display_name.apply(self.display_name());
        if given_name.is_none() && family_name.is_none() && display_name.is_none() {
            return Err(Refusal::NameMissing);
        }
        let external_ids = patch.external_ids.apply(&self.external_ids);
        within("external ids", self.external_ids.len(), external_ids.len(), EXTERNAL_IDS_MAX)?;

        let changes = ProfileChanges {
            given_name: Change::between(self.given_name(), given_name.as_ref()),
            family_name: Change::between(self.family_name(), family_name.as_ref()),
            display_name: Change::between(self.display_name(), display_name.as_ref()),
            phone: Change::between(self.phone(), patch.phone.apply(self.phone()).as_ref()),
            address: Change::between(self.address(), patch.address.merge(self.address()).as_ref()),
            locale: Change::between(self.locale(), patch.locale.apply(self.locale()).as_ref()),
            time_zone: Change::between(self.time_zone(), patch.time_zone.apply(self.time_zone()).as_ref()),
            external_ids: differences(&self.external_ids, &external_ids),
            reason: reason.cloned(),
        };
        let changed = changes.fields();
        if changed.is_empty() {
            return Ok(vec![]);
        }
        Ok(vec![UserEvent::ProfileChanged { changed, personal: Personal::Value(Box::new(changes)) }])
    }

    fn change_email(&self, email: &Email, reason: Option<&Reason>) -> Vec<UserEvent> {
        if self.email() == Some(email) {
            return vec![];
        }
        let change = EmailChange { from: self.email.clone(), to: email.clone(), reason: reason.cloned() };
        vec![UserEvent::EmailChanged {
            verification_lost: self.email_verified,
            personal: Personal::Value(change),
        }]
    }

    fn verify_email(&self, email: &Email, reason: Option<&Reason>) -> Decision {
        if self.email() != Some(email) {
            return Err(Refusal::EmailDiffers);
        }
        if self.email_verified {
            return Ok(vec![]);
        }
        let verification = EmailVerification { email: email.clone(), reason: reason.cloned() };
        Ok(vec![UserEvent::EmailVerified { personal: Personal::Value(verification) }])
    }

    fn change_preferences(&self, after: &BTreeMap<Category, bool>, reason: Option<&Reason>) -> Decision {
        within("email preference categories", self.preferences.email.len(), after.len(), CATEGORIES_MAX)?;
        let email = differences(&self.preferences.email, after);
        if email.is_empty() {
            return Ok(vec![]);
        }
        let changes = PreferenceChanges { preferences: ChannelChanges { email }, reason: reason.cloned() };
        Ok(vec![UserEvent::PreferencesChanged { personal: Personal::Value(changes) }])
    }

    fn set_traits(&self, after: &BTreeMap<TraitName, TraitValue>, reason: Option<&Reason>) -> Decision {
        within("traits", self.traits.len(), after.len(), TRAITS_MAX)?;
        let traits = differences(&self.traits, after);
        if traits.is_empty() {
            return Ok(vec![]);
        }
        let changes = TraitChanges { traits, reason: reason.cloned() };
        Ok(vec![UserEvent::TraitsChanged { personal: Personal::Value(changes) }])
    }

    fn add_association(&self, association: &Association, reason: Option<&Reason>) -> Decision {
        if self.associations.contains(association) {
            return Ok(vec![]);
        }
        within("associations", self.associations.len(), self.associations.len() + 1, ASSOCIATIONS_MAX)?;
        Ok(vec![UserEvent::AssociationAdded { personal: association_details(association, reason) }])
    }

    fn remove_association(&self, association: &Association, reason: Option<&Reason>) -> Vec<UserEvent> {
        if !self.associations.contains(association) {
            return vec![];
        }
        vec![UserEvent::AssociationRemoved { personal: association_details(association, reason) }]
    }

    fn accept_terms(
        &self,
        policy: &PolicySlug,
        version: &PolicyVersion,
        reason: Option<&Reason>,
    ) -> Decision {
        if self.accepted_terms.get(policy).is_some_and(|versions| versions.contains(version)) {
            return Ok(vec![]);
        }
        let accepted = self.accepted_terms.values().map(std::collections::BTreeSet::len).sum::<usize>();
        within("accepted versions of policies", accepted, accepted + 1, TERMS_MAX)?;
        Ok(vec![UserEvent::TermsAccepted {
            policy: policy.clone(),
            version: version.clone(),
            personal: reason_only(reason),
        }])
    }
}

fn create(new_user: NewUser, reason: Option<Reason>) -> Decision {
    if new_user.given_name.is_none() && new_user.family_name.is_none() && new_user.display_name.is_none() {
        return Err(Refusal::NameMissing);
    }
    within("external ids", 0, new_user.external_ids.len(), EXTERNAL_IDS_MAX)?;
    within("email preference categories", 0, new_user.preferences.email.len(), CATEGORIES_MAX)?;
    within("traits", 0, new_user.traits.len(), TRAITS_MAX)?;
    within("associations", 0, new_user.associations.len(), ASSOCIATIONS_MAX)?;
    let kind = new_user.kind;
    let details = CreatedDetails::of(new_user, reason);
    Ok(vec![UserEvent::UserCreated {
        kind,
        changed: details.fields(),
        personal: Personal::Value(Box::new(details)),
    }])
}

/// Whether a command may correct a deactivated user, should its events be corrections.
#[derive(Clone, Copy)]
enum Correction {
    Yes,
    No,
}

impl From<bool> for Correction {
    fn from(may_rectify: bool) -> Self {
        if may_rectify { Self::Yes } else { Self::No }
    }
}

/// A deactivated user takes what changes nothing and what corrects it. Who may correct it also learns what else stands
/// in the way; everyone else learns of the deactivation alone.
fn permit(status: Status, correction: Correction, decision: Decision) -> Decision {
    match (status, correction, decision) {
        (Status::Active, Correction::Yes | Correction::No, decision) => decision,
        (Status::Deactivated, Correction::Yes, Ok(events)) if events.iter().all(corrects) => Ok(events),
        (Status::Deactivated, Correction::Yes, Err(refusal)) => Err(refusal),
        (Status::Deactivated, Correction::No, Ok(events)) if events.is_empty() => Ok(events),
        (Status::Deactivated, Correction::Yes | Correction::No, Ok(_) | Err(_)) => Err(Refusal::Deactivated),
    }
}

fn corrects(event: &UserEvent) -> bool {
    match event {
        UserEvent::ProfileChanged { .. }
        | UserEvent::EmailChanged { .. }
        | UserEvent::TraitsChanged { .. } => true,
        UserEvent::UserCreated { .. }
        | UserEvent::EmailVerified { .. }
        | UserEvent::PreferencesChanged { .. }
        | UserEvent::AssociationAdded { .. }
        | UserEvent::AssociationRemoved { .. }
        | UserEvent::TermsAccepted { .. }
        | UserEvent::UserDeactivated { .. }
        | UserEvent::UserReactivated { .. } => false,
    }
}

/// Removing is always possible, also where a bound has been lowered since.
fn within(what: &'static str, before: usize, after: usize, max: usize) -> Result<(), Refusal> {
    if after > max && after > before { Err(Refusal::TooMany { what, max }) } else { Ok(()) }
}

fn reason_only(reason: Option<&Reason>) -> Personal<ReasonOnly> {
    Personal::Value(ReasonOnly { reason: reason.cloned() })
}

fn association_details(association: &Association, reason: Option<&Reason>) -> Personal<AssociationDetails> {
    Personal::Value(AssociationDetails { association: association.clone(), reason: reason.cloned() })
}
