//! Random commands. The values come from a small stock, so that commands meet each other, and each of them can be told
//! from everything else by one of [`SENTINELS`].

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, btree_set};
use proptest::option;
use proptest::prelude::*;

use super::super::*;
use super::scenario::*;
use crate::value::{AddressPart, Category, FormattedAddress, Reason, StreetAddress};

/// What may stand in the personal part of an event alone.
pub(super) const SENTINELS: [&str; 4] = ["qzsenti", "998877", "Troll", "2091"];

fn word() -> impl Strategy<Value = String> {
    (0..3u8).prop_map(|digit| format!("qzsentinel{digit}"))
}

fn prose() -> impl Strategy<Value = String> {
    prop_oneof![
        word(),
        "\\PC{0,12}".prop_map(|tail| format!("qzsentinel{tail}")),
        word().prop_map(|word| format!("{word} \"\\/é\u{1f469}"))
    ]
}

fn an_email() -> impl Strategy<Value = Email> {
    word().prop_map(|word| email(&format!("{word}@example.com")))
}

fn a_name() -> impl Strategy<Value = Name> {
    prose().prop_map(|text| name(&text))
}

fn a_phone() -> impl Strategy<Value = Phone> {
    (0..3u8).prop_map(|digit| Phone::parse(&format!("+998877{digit}")).unwrap())
}

fn a_locale() -> impl Strategy<Value = Locale> {
    (0..3u8).prop_map(|digit| Locale::parse(&format!("en-x-qzsenti{digit}")).unwrap())
}

fn a_time_zone() -> impl Strategy<Value = TimeZone> {
    Just(TimeZone::parse("Antarctica/Troll").unwrap())
}

fn a_part() -> impl Strategy<Value = AddressPart> {
    prose().prop_map(|text| AddressPart::parse(&text).unwrap())
}

fn an_address() -> impl Strategy<Value = Address> {
    let lines = word().prop_map(|word| FormattedAddress::parse(&format!("{word}\r\n{word}")).unwrap());
    let street = word().prop_map(|word| StreetAddress::parse(&format!("{word}\nyard")).unwrap());
    (option::of(lines), option::of(street), option::of(a_part()), option::of(a_part())).prop_map(
        |(formatted, street_address, locality, country)| Address {
            formatted,
            street_address,
            locality,
            country,
            ..Address::default()
        },
    )
}

fn a_trait_value() -> impl Strategy<Value = TraitValue> {
    prop_oneof![
        prose().prop_map(|prose| text(&prose)),
        (-3..3i8).prop_map(|exponent| number(&format!("-998877e{exponent}"))),
        any::<bool>().prop_map(TraitValue::Boolean),
        (1..28u8).prop_map(|day| text(&format!("2091-02-{day:02}"))),
    ]
}

fn a_trait_name() -> impl Strategy<Value = TraitName> {
    word().prop_map(|word| trait_name(&word))
}

fn a_category() -> impl Strategy<Value = Category> {
    word().prop_map(|word| Category::parse(&word).unwrap())
}

fn a_source() -> impl Strategy<Value = Source> {
    word().prop_map(|word| source(&word))
}

fn an_external_id() -> impl Strategy<Value = ExternalId> {
    prose().prop_map(|text| external_id(&text))
}

fn an_association() -> impl Strategy<Value = Association> {
    (word(), word()).prop_map(|(kind, key)| association(&kind, &key))
}

fn some_preferences() -> impl Strategy<Value = Preferences> {
    btree_map(a_category(), any::<bool>(), 0..3).prop_map(|email| Preferences { email })
}

fn a_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Customer), Just(Kind::Admin)]
}

fn patch<T: Clone + std::fmt::Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Patch<T>> {
    prop_oneof![2 => Just(()).prop_map(|()| Patch::Keep), 1 => Just(()).prop_map(|()| Patch::Clear), 3 => value.prop_map(Patch::Set)]
}

fn entries<K: Ord + std::fmt::Debug, V: std::fmt::Debug>(
    key: impl Strategy<Value = K>,
    value: impl Strategy<Value = V>,
) -> impl Strategy<Value = BTreeMap<K, Option<V>>> {
    btree_map(key, option::of(value), 0..3)
}

fn map_patch<K: Ord + Clone + std::fmt::Debug, V: Clone + std::fmt::Debug>(
    key: impl Strategy<Value = K>,
    value: impl Strategy<Value = V>,
) -> impl Strategy<Value = MapPatch<K, V>> {
    prop_oneof![
        2 => Just(()).prop_map(|()| MapPatch::Keep),
        1 => Just(()).prop_map(|()| MapPatch::Clear),
        3 => entries(key, value).prop_map(MapPatch::Merge),
    ]
}

fn an_address_patch() -> impl Strategy<Value = AddressPatch> {
    let street = word().prop_map(|word| StreetAddress::parse(&word).unwrap());
    (patch(street), patch(a_part()), patch(a_part())).prop_map(|(street_address, locality, country)| {
        AddressPatch { street_address, locality, country, ..AddressPatch::default() }
    })
}

fn a_new_user() -> impl Strategy<Value = NewUser> {
    let names = (option::of(a_name()), option::of(a_name()), option::of(a_name()));
    let profile =
        (option::of(a_phone()), option::of(an_address()), option::of(a_locale()), option::of(a_time_zone()));
    let maps = (
        some_preferences(),
        btree_map(a_trait_name(), a_trait_value(), 0..3),
        btree_map(a_source(), an_external_id(), 0..3),
    );
    let associations = btree_set(an_association(), 0..3);
    (a_kind(), an_email(), names, profile, maps, associations).prop_map(
        |(kind, email, names, profile, maps, associations): (_, _, _, _, _, BTreeSet<Association>)| {
            let (given_name, family_name, display_name) = names;
            let (phone, address, locale, time_zone) = profile;
            let (preferences, traits, external_ids) = maps;
            NewUser {
                kind,
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
            }
        },
    )
}

fn a_user_patch() -> impl Strategy<Value = UserPatch> {
    let names = (patch(a_name()), patch(a_name()), patch(a_name()));
    let profile = (patch(a_phone()), patch(an_address_patch()), patch(a_locale()), patch(a_time_zone()));
    let maps = (
        map_patch(a_category(), any::<bool>()),
        map_patch(a_trait_name(), a_trait_value()),
        map_patch(a_source(), an_external_id()),
    );
    (names, profile, maps).prop_map(|(names, profile, maps)| {
        let (given_name, family_name, display_name) = names;
        let (phone, address, locale, time_zone) = profile;
        let (preferences, traits, external_ids) = maps;
        UserPatch {
            given_name,
            family_name,
            display_name,
            phone,
            address,
            locale,
            time_zone,
            preferences,
            traits,
            external_ids,
        }
    })
}

fn a_wish() -> impl Strategy<Value = Wish> {
    prop_oneof![
        2 => a_new_user().prop_map(create),
        5 => a_user_patch().prop_map(update),
        2 => an_email().prop_map(|email| Wish::ChangeEmail { email }),
        2 => an_email().prop_map(|email| Wish::VerifyEmail { email }),
        2 => some_preferences().prop_map(|preferences| Wish::ChangePreferences { preferences }),
        2 => entries(a_trait_name(), a_trait_value()).prop_map(|traits| Wish::SetTraits { traits }),
        2 => an_association().prop_map(Wish::AddAssociation),
        2 => an_association().prop_map(Wish::RemoveAssociation),
        2 => (0..3u8, 0..3u8).prop_map(|(policy, version)| accept(&format!("p{policy}"), &format!("v{version}"))),
        1 => Just(Wish::DeactivateUser),
        1 => Just(Wish::ReactivateUser),
    ]
}

pub(super) fn a_command() -> impl Strategy<Value = UserCommand> {
    let reason = option::of(prose().prop_map(|text| Reason::parse(&text).unwrap()));
    (a_wish(), reason, any::<bool>()).prop_map(|(wish, reason, may_rectify)| UserCommand {
        wish,
        reason,
        may_rectify,
    })
}

/// Commands of which the first creates the user.
pub(super) fn some_commands() -> impl Strategy<Value = Vec<UserCommand>> {
    let first = (a_new_user(), a_name())
        .prop_map(|(new_user, name)| create(NewUser { display_name: Some(name), ..new_user }).into());
    (first, proptest::collection::vec(a_command(), 0..12)).prop_map(|(first, mut rest)| {
        rest.insert(0, first);
        rest
    })
}
