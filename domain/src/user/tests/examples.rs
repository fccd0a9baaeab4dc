//! Ada, and one event of every form.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use super::scenario::*;
use crate::Personal;
use crate::value::{AddressPart, Category, Reason, StreetAddress};

/// Ada with every member set.
pub(super) fn ada() -> NewUser {
    NewUser {
        kind: Kind::Customer,
        given_name: Some(name("Ada")),
        family_name: Some(name("Lovelace")),
        display_name: Some(name("Ada Lovelace")),
        phone: Some(Phone::parse("+4930123456").unwrap()),
        address: Some(address("London")),
        locale: Some(Locale::parse("en-GB").unwrap()),
        time_zone: Some(TimeZone::parse("Europe/London").unwrap()),
        preferences: preferences(&[("newsletter", true)]),
        traits: BTreeMap::from([
            (trait_name("department"), text("R&D")),
            (trait_name("seats"), number("3.50")),
        ]),
        associations: BTreeSet::from([association("membership", "gold")]),
        external_ids: BTreeMap::from([(source("hr"), external_id("E0001"))]),
        ..NewUser::with_email(email("ada@example.com"))
    }
}

/// Ada with what a user needs and no more.
pub(super) fn bare_ada() -> NewUser {
    NewUser { display_name: Some(name("Ada")), ..NewUser::with_email(email("ada@example.com")) }
}

pub(super) fn address(locality: &str) -> Address {
    Address {
        street_address: Some(StreetAddress::parse("12 St James's Square\nBasement").unwrap()),
        locality: Some(AddressPart::parse(locality).unwrap()),
        ..Address::default()
    }
}

pub(super) fn created(new_user: NewUser) -> UserEvent {
    given_nobody().when(create(new_user)).result().unwrap().remove(0)
}

pub(super) fn deactivated() -> UserEvent {
    UserEvent::UserDeactivated { personal: Personal::Value(ReasonOnly::default()) }
}

pub(super) fn reactivated() -> UserEvent {
    UserEvent::UserReactivated { personal: Personal::Value(ReasonOnly::default()) }
}

pub(super) fn verified(address: &str) -> UserEvent {
    UserEvent::EmailVerified {
        personal: Personal::Value(EmailVerification { email: email(address), reason: None }),
    }
}

pub(super) fn accepted(policy: &str, version: &str) -> UserEvent {
    UserEvent::TermsAccepted {
        policy: PolicySlug::parse(policy).unwrap(),
        version: PolicyVersion::parse(version).unwrap(),
        personal: Personal::Value(ReasonOnly::default()),
    }
}

fn reason() -> Option<Reason> {
    Some(Reason::parse("asked by phone").unwrap())
}

fn with_reason() -> Personal<ReasonOnly> {
    Personal::Value(ReasonOnly { reason: reason() })
}

fn change<T>(from: Option<T>, to: Option<T>) -> Change<T> {
    Change { from, to }
}

/// One event of every form, by the name of its recorded sample: type, version and, where there are several, a word.
pub(super) fn examples() -> Vec<(&'static str, UserEvent)> {
    let membership = AssociationDetails { association: association("membership", "gold"), reason: reason() };
    let profile = ProfileChanges {
        given_name: Some(change(Some(name("Ada")), None)),
        family_name: Some(change(Some(name("Byron")), Some(name("Lovelace")))),
        display_name: Some(change(None, Some(name("Ada")))),
        phone: Some(change(None, Some(Phone::parse("+4930123456").unwrap()))),
        address: Some(change(Some(address("London")), Some(address("Horsley")))),
        locale: Some(change(None, Some(Locale::parse("en-GB").unwrap()))),
        time_zone: Some(change(Some(TimeZone::parse("UTC").unwrap()), None)),
        external_ids: BTreeMap::from([
            (source("crm"), change(Some(external_id("1")), Some(external_id("2")))),
            (source("hr"), change(None, Some(external_id("E0001")))),
            (source("old"), change(Some(external_id("x")), None)),
        ]),
        reason: reason(),
    };
    let traits = BTreeMap::from([
        (trait_name("born"), change(None, Some(text("1815-12-10")))),
        (trait_name("department"), change(Some(text("R&D")), Some(number("3.50")))),
        (trait_name("vip"), change(Some(TraitValue::Boolean(true)), None)),
    ]);
    let categories = BTreeMap::from([
        (Category::parse("events").unwrap(), change(Some(true), Some(false))),
        (Category::parse("newsletter").unwrap(), change(None, Some(true))),
        (Category::parse("offers").unwrap(), change(Some(false), None)),
    ]);
    let email_change =
        EmailChange { from: Some(email("ada@example.com")), to: email("a@example.com"), reason: None };
    vec![
        (
            "UserCreated.1.full",
            given_nobody().when(create(ada()).because("invited")).result().unwrap().remove(0),
        ),
        ("UserCreated.1.least", created(bare_ada())),
        (
            "ProfileChanged.1",
            UserEvent::ProfileChanged {
                changed: profile.fields(),
                personal: Personal::Value(Box::new(profile)),
            },
        ),
        (
            "EmailChanged.1",
            UserEvent::EmailChanged {
                verification_lost: false,
                personal: Personal::Value(EmailChange { reason: reason(), ..email_change.clone() }),
            },
        ),
        (
            "EmailChanged.1.verified",
            UserEvent::EmailChanged { verification_lost: true, personal: Personal::Value(email_change) },
        ),
        (
            "EmailVerified.1",
            UserEvent::EmailVerified {
                personal: Personal::Value(EmailVerification {
                    email: email("a@example.com"),
                    reason: reason(),
                }),
            },
        ),
        (
            "PreferencesChanged.2",
            UserEvent::PreferencesChanged {
                personal: Personal::Value(PreferenceChanges {
                    preferences: ChannelChanges { email: categories },
                    reason: reason(),
                }),
            },
        ),
        (
            "TraitsChanged.1",
            UserEvent::TraitsChanged { personal: Personal::Value(TraitChanges { traits, reason: reason() }) },
        ),
        ("AssociationAdded.1", UserEvent::AssociationAdded { personal: Personal::Value(membership.clone()) }),
        (
            "AssociationRemoved.1",
            UserEvent::AssociationRemoved {
                personal: Personal::Value(AssociationDetails { reason: None, ..membership }),
            },
        ),
        ("TermsAccepted.1", accepted("privacy", "2026-01")),
        (
            "TermsAccepted.1.reason",
            UserEvent::TermsAccepted {
                policy: PolicySlug::parse("terms").unwrap(),
                version: PolicyVersion::parse("v2").unwrap(),
                personal: with_reason(),
            },
        ),
        ("UserDeactivated.1", deactivated()),
        ("UserDeactivated.1.reason", UserEvent::UserDeactivated { personal: with_reason() }),
        ("UserReactivated.1", reactivated()),
        ("UserReactivated.1.reason", UserEvent::UserReactivated { personal: with_reason() }),
    ]
}
