//! The members of UpdateUser: a JSON merge patch (RFC 7396). Maps merge, null clears.

use rollcall_domain::{
    AddressPart, AddressPatch, Category, ExternalId, FormattedAddress, Invalid, Locale, MapPatch, Name,
    Patch, Phone, Source, StreetAddress, TimeZone, TraitName, UserPatch,
};
use rollcall_edge::{
    Problems,
    json::{self, Members},
};

use super::{boolean, entries, nullable, string, trait_value};

pub(crate) fn user_patch(members: &mut Members<'_>, problems: &mut Problems) -> Option<UserPatch> {
    for (name, instead) in [
        ("email", "it is changed with POST …/change-email"),
        ("associations", "they are changed one by one with PUT and DELETE …/associations/{kind}/{key}"),
        ("kind", "it is set when the user is created and does not change"),
        ("status", "it is changed with POST …/deactivate and …/reactivate"),
        ("accepted_terms", "they grow with POST …/accept-terms"),
        ("id", "it never changes"),
    ] {
        if members.raw(name).is_some() {
            members.refuse(problems, name, format!("cannot be patched: {instead}"));
        }
    }
    let preferences = match members.patch_object(problems, "preferences") {
        json::Patch::Absent => MapPatch::Keep,
        json::Patch::Null => MapPatch::Clear,
        json::Patch::Value(mut nested) => {
            let channel = nested.patch_object(problems, "email");
            let merged =
                map(channel, |channel| entries(channel, problems, Category::parse, nullable(boolean)));
            nested.finish(problems);
            merged
        }
    };
    let traits = members.patch_object(problems, "traits");
    let external_ids = members.patch_object(problems, "external_ids");
    let address = members.patch_object(problems, "address");
    Some(UserPatch {
        given_name: text(members, problems, "given_name", Name::parse),
        family_name: text(members, problems, "family_name", Name::parse),
        display_name: text(members, problems, "display_name", Name::parse),
        phone: text(members, problems, "phone", Phone::parse),
        address: patch(address.map(|nested| address_patch(nested, problems))),
        locale: text(members, problems, "locale", Locale::parse),
        time_zone: text(members, problems, "time_zone", TimeZone::parse),
        preferences,
        traits: map(traits, |nested| entries(nested, problems, TraitName::parse, nullable(trait_value))),
        external_ids: map(external_ids, |nested| {
            entries(nested, problems, Source::parse, nullable(string(ExternalId::parse)))
        }),
    })
}

fn text<T>(
    members: &mut Members<'_>,
    problems: &mut Problems,
    name: &'static str,
    parse: impl FnOnce(&str) -> Result<T, Invalid>,
) -> Patch<T> {
    patch(members.patch_text(problems, name, parse))
}

fn patch<T>(read: json::Patch<T>) -> Patch<T> {
    match read {
        json::Patch::Absent => Patch::Keep,
        json::Patch::Null => Patch::Clear,
        json::Patch::Value(value) => Patch::Set(value),
    }
}

fn map<'a, K, V>(
    read: json::Patch<Members<'a>>,
    merge: impl FnOnce(Members<'a>) -> std::collections::BTreeMap<K, Option<V>>,
) -> MapPatch<K, V> {
    match read {
        json::Patch::Absent => MapPatch::Keep,
        json::Patch::Null => MapPatch::Clear,
        json::Patch::Value(members) => MapPatch::Merge(merge(members)),
    }
}

fn address_patch(mut members: Members<'_>, problems: &mut Problems) -> AddressPatch {
    let patch = AddressPatch {
        formatted: text(&mut members, problems, "formatted", FormattedAddress::parse),
        street_address: text(&mut members, problems, "street_address", StreetAddress::parse),
        locality: text(&mut members, problems, "locality", AddressPart::parse),
        region: text(&mut members, problems, "region", AddressPart::parse),
        postal_code: text(&mut members, problems, "postal_code", AddressPart::parse),
        country: text(&mut members, problems, "country", AddressPart::parse),
    };
    members.finish(problems);
    patch
}
