//! Every command against every status, as one table.

use std::collections::BTreeMap;

use super::super::*;
use super::examples::*;
use super::scenario::*;
use crate::value::Category;

#[derive(Debug, PartialEq)]
enum Outcome {
    Events(Vec<&'static str>),
    Refused(Refusal),
}

fn one(event_type: &'static str) -> Outcome {
    Outcome::Events(vec![event_type])
}

fn nothing() -> Outcome {
    Outcome::Events(vec![])
}

fn refused(refusal: Refusal) -> Outcome {
    Outcome::Refused(refusal)
}

fn outcome(events: &[UserEvent], command: UserCommand) -> Outcome {
    match given(events.iter().cloned()).when(command).result() {
        Ok(events) => Outcome::Events(events.iter().map(UserEvent::event_type).collect()),
        Err(refusal) => Outcome::Refused(refusal),
    }
}

/// What happens to a wish for a user that is active, deactivated, and deactivated with a caller that may rectify.
fn table() -> Vec<(Wish, Outcome, Outcome, Outcome)> {
    use Refusal::{AlreadyExists, Deactivated, EmailDiffers, NameMissing, TooMany};

    let renamed = || UserPatch { given_name: Patch::Set(name("Augusta")), ..UserPatch::default() };
    let other_traits =
        || MapPatch::Merge(BTreeMap::from([(trait_name("vip"), Some(TraitValue::Boolean(true)))]));
    let other_preferences =
        || MapPatch::Merge(BTreeMap::from([(Category::parse("events").unwrap(), Some(true))]));
    let nameless = UserPatch {
        given_name: Patch::Clear,
        family_name: Patch::Clear,
        display_name: Patch::Clear,
        ..UserPatch::default()
    };
    let corrections = UserPatch { traits: other_traits(), ..renamed() };
    let more_than_corrections = UserPatch { preferences: other_preferences(), ..renamed() };
    let too_many = Wish::SetTraits {
        traits: (0..501).map(|number| (trait_name(&format!("t{number}")), Some(text("x")))).collect(),
    };
    let too_many_traits = || refused(TooMany { what: "traits", max: TRAITS_MAX });
    let shut = || refused(Deactivated);

    vec![
        (create(ada()), refused(AlreadyExists), refused(AlreadyExists), refused(AlreadyExists)),
        (update(UserPatch::default()), nothing(), nothing(), nothing()),
        (update(renamed()), one("ProfileChanged"), shut(), one("ProfileChanged")),
        (
            update(corrections),
            Outcome::Events(vec!["ProfileChanged", "TraitsChanged"]),
            shut(),
            Outcome::Events(vec!["ProfileChanged", "TraitsChanged"]),
        ),
        (
            update(more_than_corrections),
            Outcome::Events(vec!["ProfileChanged", "PreferencesChanged"]),
            shut(),
            shut(),
        ),
        (update(nameless), refused(NameMissing), shut(), refused(NameMissing)),
        (change_email("ada@example.com"), nothing(), nothing(), nothing()),
        (change_email("a@example.com"), one("EmailChanged"), shut(), one("EmailChanged")),
        (verify_email("ada@example.com"), one("EmailVerified"), shut(), shut()),
        (verify_email("a@example.com"), refused(EmailDiffers), shut(), shut()),
        (
            Wish::ChangePreferences { preferences: preferences(&[("newsletter", true)]) },
            nothing(),
            nothing(),
            nothing(),
        ),
        (
            Wish::ChangePreferences { preferences: preferences(&[]) },
            one("PreferencesChanged"),
            shut(),
            shut(),
        ),
        (set_traits(&[("seats", Some(number("3.5")))]), nothing(), nothing(), nothing()),
        (set_traits(&[("seats", None)]), one("TraitsChanged"), shut(), one("TraitsChanged")),
        (too_many, too_many_traits(), shut(), too_many_traits()),
        (Wish::AddAssociation(association("membership", "gold")), nothing(), nothing(), nothing()),
        (Wish::AddAssociation(association("membership", "silver")), one("AssociationAdded"), shut(), shut()),
        (Wish::RemoveAssociation(association("membership", "silver")), nothing(), nothing(), nothing()),
        (
            Wish::RemoveAssociation(association("membership", "gold")),
            one("AssociationRemoved"),
            shut(),
            shut(),
        ),
        (accept("privacy", "1"), nothing(), nothing(), nothing()),
        (accept("privacy", "2"), one("TermsAccepted"), shut(), shut()),
        (Wish::DeactivateUser, one("UserDeactivated"), nothing(), nothing()),
        (Wish::ReactivateUser, nothing(), one("UserReactivated"), one("UserReactivated")),
    ]
}

#[test]
fn every_command_has_its_outcome_in_every_status() {
    let active = [created(ada()), accepted("privacy", "1")];
    let inactive = [created(ada()), accepted("privacy", "1"), deactivated()];
    for (wish, when_active, when_deactivated, when_rectifying) in table() {
        let plain = || UserCommand::from(wish.clone());
        let rectifying = || wish.clone().rectifying();
        assert_eq!(outcome(&active, plain()), when_active, "active: {wish:?}");
        assert_eq!(outcome(&active, rectifying()), when_active, "active, rectifying: {wish:?}");
        assert_eq!(outcome(&inactive, plain()), when_deactivated, "deactivated: {wish:?}");
        assert_eq!(outcome(&inactive, rectifying()), when_rectifying, "deactivated, rectifying: {wish:?}");
    }
}

#[test]
fn nobody_can_only_be_created() {
    for (wish, ..) in table() {
        let expected = match &wish {
            Wish::CreateUser(_) => one("UserCreated"),
            Wish::UpdateUser(_)
            | Wish::ChangeEmail { .. }
            | Wish::VerifyEmail { .. }
            | Wish::ChangePreferences { .. }
            | Wish::SetTraits { .. }
            | Wish::AddAssociation(_)
            | Wish::RemoveAssociation(_)
            | Wish::AcceptTerms { .. }
            | Wish::DeactivateUser
            | Wish::ReactivateUser => refused(Refusal::NotFound),
        };
        assert_eq!(outcome(&[], wish.rectifying()), expected);
    }
}
