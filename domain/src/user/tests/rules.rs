//! Each rule of a user, as a sentence.

use std::collections::BTreeMap;

use super::super::*;
use super::examples::*;
use super::scenario::*;
use crate::Personal;
use crate::value::{AddressPart, Category};

fn types(events: &[UserEvent]) -> Vec<&'static str> {
    events.iter().map(UserEvent::event_type).collect()
}

#[test]
fn a_user_is_created_with_all_its_values() {
    let user = fold(&[created(ada())]);
    assert_eq!(user.status(), Some(Status::Active));
    assert_eq!(user.email(), Some(&email("ada@example.com")));
    assert!(!user.email_verified());
    assert_eq!(user.display_name(), Some(&name("Ada Lovelace")));
    assert_eq!(user.address(), Some(&address("London")));
    assert_eq!(user.traits().len(), 2);
    assert_eq!(user.external_ids().get("hr"), Some(&external_id("E0001")));
}

#[test]
fn a_user_is_created_once() {
    given([created(bare_ada())]).when(create(bare_ada())).then_refused(Refusal::AlreadyExists);
}

#[test]
fn a_user_needs_one_of_three_names() {
    let nameless = || NewUser::with_email(email("ada@example.com"));
    given_nobody().when(create(nameless())).then_refused(Refusal::NameMissing);
    for named in [
        NewUser { given_name: Some(name("Ada")), ..nameless() },
        NewUser { family_name: Some(name("Lovelace")), ..nameless() },
        NewUser { display_name: Some(name("Ada")), ..nameless() },
    ] {
        assert!(given_nobody().when(create(named)).result().is_ok());
    }
}

#[test]
fn an_update_cannot_take_the_last_name() {
    let clear = UserPatch { display_name: Patch::Clear, ..UserPatch::default() };
    given([created(bare_ada())]).when(update(clear.clone())).then_refused(Refusal::NameMissing);
    let renamed = UserPatch { given_name: Patch::Set(name("Ada")), ..clear };
    let events = given([created(bare_ada())]).when(update(renamed)).result().unwrap();
    assert_eq!(types(&events), ["ProfileChanged"]);
}

#[test]
fn an_empty_address_is_none() {
    let created = created(NewUser { address: Some(Address::default()), ..bare_ada() });
    assert_eq!(created.changed(), ["kind", "status", "email", "display_name"]);
    assert_eq!(fold(&[created]).address(), None);
}

#[test]
fn an_update_yields_one_event_for_each_part_that_changes() {
    let patch = UserPatch {
        phone: Patch::Clear,
        preferences: MapPatch::Merge(BTreeMap::from([(Category::parse("events").unwrap(), Some(true))])),
        traits: MapPatch::Merge(BTreeMap::from([(trait_name("seats"), None)])),
        ..UserPatch::default()
    };
    let events = given([created(ada())]).when(update(patch).because("moved")).result().unwrap();
    assert_eq!(types(&events), ["ProfileChanged", "PreferencesChanged", "TraitsChanged"]);
    assert!(events.iter().all(|event| event.reason().is_some_and(|reason| reason.as_str() == "moved")));
}

#[test]
fn an_update_says_from_what_to_what() {
    let patch = UserPatch {
        given_name: Patch::Set(name("Augusta")),
        family_name: Patch::Set(name("Lovelace")),
        external_ids: MapPatch::Merge(BTreeMap::from([
            (source("crm"), Some(external_id("7"))),
            (source("no"), None),
        ])),
        ..UserPatch::default()
    };
    let changes = ProfileChanges {
        given_name: Some(Change { from: Some(name("Ada")), to: Some(name("Augusta")) }),
        external_ids: BTreeMap::from([(source("crm"), Change { from: None, to: Some(external_id("7")) })]),
        ..ProfileChanges::default()
    };
    given([created(ada())]).when(update(patch)).then([UserEvent::ProfileChanged {
        changed: vec![Field::GivenName, Field::ExternalIds],
        personal: Personal::Value(Box::new(changes)),
    }]);
}

#[test]
fn an_update_that_changes_nothing_yields_nothing() {
    let same = UserPatch {
        given_name: Patch::Set(name("Ada")),
        address: Patch::Set(AddressPatch::default()),
        preferences: MapPatch::Merge(BTreeMap::from([(Category::parse("newsletter").unwrap(), Some(true))])),
        traits: MapPatch::Merge(BTreeMap::from([
            (trait_name("seats"), Some(number("3.500"))),
            (trait_name("never"), None),
        ])),
        ..UserPatch::default()
    };
    given([created(ada())]).when(update(same)).then_nothing();
    given([created(ada())]).when(update(UserPatch::default())).then_nothing();
}

#[test]
fn an_address_is_merged_member_by_member() {
    let merged = |address| {
        let events =
            given([created(ada())]).when(update(UserPatch { address, ..UserPatch::default() })).result();
        fold([created(ada())].iter().chain(&events.unwrap())).address().cloned()
    };
    let horsley = AddressPatch {
        locality: Patch::Set(AddressPart::parse("Horsley").unwrap()),
        ..AddressPatch::default()
    };
    assert_eq!(merged(Patch::Set(horsley)), Some(address("Horsley")));
    let nowhere =
        AddressPatch { street_address: Patch::Clear, locality: Patch::Clear, ..AddressPatch::default() };
    assert_eq!(merged(Patch::Set(nowhere)), None);
    assert_eq!(merged(Patch::Clear), None);
    assert_eq!(merged(Patch::Keep), Some(address("London")));
}

#[test]
fn a_map_is_cleared_as_a_whole() {
    let clear = UserPatch {
        preferences: MapPatch::Clear,
        traits: MapPatch::Clear,
        external_ids: MapPatch::Clear,
        ..UserPatch::default()
    };
    let events = given([created(ada())]).when(update(clear)).result().unwrap();
    let user = fold([created(ada())].iter().chain(&events));
    assert!(user.preferences().is_empty() && user.traits().is_empty() && user.external_ids().is_empty());
}

#[test]
fn another_email_loses_the_verification() {
    let change =
        EmailChange { from: Some(email("ada@example.com")), to: email("a@example.com"), reason: None };
    let changed = UserEvent::EmailChanged { verification_lost: true, personal: Personal::Value(change) };
    let before = [created(bare_ada()), verified("ada@example.com")];
    given(before.clone()).when(change_email("A@EXAMPLE.com")).then([changed.clone()]);
    let user = fold(before.iter().chain([&changed]));
    assert_eq!((user.email(), user.email_verified()), (Some(&email("a@example.com")), false));
}

#[test]
fn the_same_email_in_other_case_is_no_change() {
    given([created(bare_ada())]).when(change_email("ADA@example.com")).then_nothing();
}

#[test]
fn only_the_current_email_is_verified() {
    given([created(bare_ada())]).when(verify_email("ada@example.com")).then([verified("ada@example.com")]);
    given([created(bare_ada())]).when(verify_email("other@example.com")).then_refused(Refusal::EmailDiffers);
    given([created(bare_ada()), verified("ada@example.com")])
        .when(verify_email("ada@example.com"))
        .then_nothing();
}

#[test]
fn preferences_are_replaced_as_a_whole() {
    let wish = Wish::ChangePreferences { preferences: preferences(&[("events", false)]) };
    let events = given([created(ada())]).when(wish).result().unwrap();
    assert_eq!(
        fold([created(ada())].iter().chain(&events)).preferences(),
        &preferences(&[("events", false)])
    );
    let same = Wish::ChangePreferences { preferences: preferences(&[("newsletter", true)]) };
    given([created(ada())]).when(same).then_nothing();
}

#[test]
fn traits_are_merged_and_removed() {
    let wish = set_traits(&[
        ("department", None),
        ("seats", Some(number("4"))),
        ("vip", Some(TraitValue::Boolean(true))),
    ]);
    let events = given([created(ada())]).when(wish).result().unwrap();
    let user = fold([created(ada())].iter().chain(&events));
    let expected = [(trait_name("seats"), number("4")), (trait_name("vip"), TraitValue::Boolean(true))];
    assert_eq!(user.traits(), &BTreeMap::from(expected));
    given([created(ada())]).when(set_traits(&[("seats", Some(number("3.5"))), ("vip", None)])).then_nothing();
}

#[test]
fn an_association_is_had_once() {
    let silver = || association("membership", "silver");
    let added = UserEvent::AssociationAdded {
        personal: Personal::Value(AssociationDetails { association: silver(), reason: None }),
    };
    given([created(ada())]).when(Wish::AddAssociation(silver())).then([added.clone()]);
    given([created(ada()), added.clone()]).when(Wish::AddAssociation(silver())).then_nothing();
    given([created(ada())]).when(Wish::RemoveAssociation(silver())).then_nothing();
    let events =
        given([created(ada()), added.clone()]).when(Wish::RemoveAssociation(silver())).result().unwrap();
    assert_eq!(fold([created(ada()), added].iter().chain(&events)).associations(), &ada().associations);
}

#[test]
fn all_versions_of_a_policy_are_remembered() {
    let before = [created(bare_ada()), accepted("privacy", "1"), accepted("privacy", "2")];
    given(before.clone()).when(accept("privacy", "1")).then_nothing();
    given(before.clone()).when(accept("privacy", "2")).then_nothing();
    given(before.clone()).when(accept("privacy", "3")).then([accepted("privacy", "3")]);
    given(before).when(accept("terms", "1")).then([accepted("terms", "1")]);
}

#[test]
fn a_user_may_have_500_traits() {
    let some = |range: std::ops::Range<usize>| -> BTreeMap<_, _> {
        range.map(|number| (trait_name(&format!("t{number}")), text("x"))).collect()
    };
    let full = created(NewUser { traits: some(0..500), ..bare_ada() });
    let refusal = Refusal::TooMany { what: "traits", max: 500 };
    given_nobody().when(create(NewUser { traits: some(0..501), ..bare_ada() })).then_refused(refusal.clone());
    given([full.clone()]).when(set_traits(&[("more", Some(text("x")))])).then_refused(refusal.clone());
    let patch = MapPatch::Merge(BTreeMap::from([(trait_name("more"), Some(text("x")))]));
    let wish = update(UserPatch { traits: patch, ..UserPatch::default() });
    given([full.clone()]).when(wish).then_refused(refusal);
    let swap = set_traits(&[("t0", None), ("more", Some(text("x")))]);
    assert!(given([full]).when(swap).result().is_ok());
}

#[test]
fn a_user_may_have_accepted_1000_versions_of_policies() {
    let all = || (0..1000).map(|number: i32| accepted("privacy", &number.to_string()));
    let events = || std::iter::once(created(bare_ada())).chain(all());
    let refusal = Refusal::TooMany { what: "accepted versions of policies", max: 1000 };
    given(events()).when(accept("privacy", "1000")).then_refused(refusal);
    given(events()).when(accept("privacy", "7")).then_nothing();
}

#[test]
fn a_user_may_have_500_associations() {
    let some = |count: usize| (0..count).map(|number| association("team", &number.to_string())).collect();
    let refusal = Refusal::TooMany { what: "associations", max: 500 };
    given_nobody()
        .when(create(NewUser { associations: some(501), ..bare_ada() }))
        .then_refused(refusal.clone());
    let full = created(NewUser { associations: some(500), ..bare_ada() });
    given([full.clone()]).when(Wish::AddAssociation(association("team", "x"))).then_refused(refusal);
    given([full]).when(Wish::AddAssociation(association("team", "7"))).then_nothing();
}

#[test]
fn a_user_may_have_preferences_for_100_categories() {
    let some = |count: usize| {
        let email =
            (0..count).map(|number| (Category::parse(&format!("c{number}")).unwrap(), true)).collect();
        Preferences { email }
    };
    let refusal = Refusal::TooMany { what: "email preference categories", max: 100 };
    given_nobody()
        .when(create(NewUser { preferences: some(101), ..bare_ada() }))
        .then_refused(refusal.clone());
    let wish = Wish::ChangePreferences { preferences: some(101) };
    given([created(bare_ada())]).when(wish).then_refused(refusal);
    assert!(
        given([created(bare_ada())])
            .when(Wish::ChangePreferences { preferences: some(100) })
            .result()
            .is_ok()
    );
}

#[test]
fn a_user_may_have_20_external_ids() {
    let some =
        |count: usize| (0..count).map(|number| (source(&format!("s{number}")), external_id("1"))).collect();
    let refusal = Refusal::TooMany { what: "external ids", max: 20 };
    given_nobody()
        .when(create(NewUser { external_ids: some(21), ..bare_ada() }))
        .then_refused(refusal.clone());
    let full = created(NewUser { external_ids: some(20), ..bare_ada() });
    let more = MapPatch::Merge(BTreeMap::from([(source("more"), Some(external_id("1")))]));
    let wish = update(UserPatch { external_ids: more, ..UserPatch::default() });
    given([full]).when(wish).then_refused(refusal);
}

#[test]
fn a_user_comes_and_goes() {
    given([created(bare_ada())]).when(Wish::DeactivateUser).then([deactivated()]);
    given([created(bare_ada()), deactivated()]).when(Wish::DeactivateUser).then_nothing();
    given([created(bare_ada()), deactivated()]).when(Wish::ReactivateUser).then([reactivated()]);
    given([created(bare_ada()), deactivated(), reactivated()]).when(Wish::ReactivateUser).then_nothing();
}
