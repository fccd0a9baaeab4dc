//! The members of CreateUser.

use std::collections::BTreeSet;

use rollcall_domain::{
    Address, AddressPart, Email, ExternalId, FormattedAddress, Kind, Locale, Name, NewUser, Phone, Source,
    StreetAddress, TimeZone, TraitName, UserId,
};
use rollcall_edge::{Problems, json::Members};

use super::{association, entries, preferences, string, trait_value};

/// Associations that one body may list; the user's own bound is a rule.
const ASSOCIATIONS_MAX: usize = 1_000;

/// A user to be created, and the id where the caller chose one.
pub(crate) fn new_user(
    members: &mut Members<'_>,
    problems: &mut Problems,
) -> Option<(NewUser, Option<UserId>)> {
    let id = members.text(problems, "id", UserId::parse);
    let email = members.required_text(problems, "email", Email::parse);
    let kind = members.text(problems, "kind", kind).unwrap_or_default();
    let nameless = ["given_name", "family_name", "display_name"]
        .into_iter()
        .all(|name| members.raw(name).is_none_or(|raw| raw.get() == "null"));
    if nameless {
        members.refuse(problems, "given_name", "one of given_name, family_name and display_name is required");
    }
    let given_name = members.text(problems, "given_name", Name::parse);
    let family_name = members.text(problems, "family_name", Name::parse);
    let display_name = members.text(problems, "display_name", Name::parse);
    let phone = members.text(problems, "phone", Phone::parse);
    let address = members.object(problems, "address").map(|nested| address(nested, problems));
    let locale = members.text(problems, "locale", Locale::parse);
    let time_zone = members.text(problems, "time_zone", TimeZone::parse);
    let preferences = members
        .object(problems, "preferences")
        .map(|mut nested| {
            let read = preferences(&mut nested, problems);
            nested.finish(problems);
            read
        })
        .unwrap_or_default();
    let traits = members
        .object(problems, "traits")
        .map(|nested| entries(nested, problems, TraitName::parse, trait_value))
        .unwrap_or_default();
    let associations: BTreeSet<_> = members
        .objects(problems, "associations", ASSOCIATIONS_MAX)
        .into_iter()
        .flatten()
        .filter_map(|mut nested| {
            let read = association(&mut nested, problems);
            nested.finish(problems);
            read
        })
        .collect();
    let external_ids = members
        .object(problems, "external_ids")
        .map(|nested| entries(nested, problems, Source::parse, string(ExternalId::parse)))
        .unwrap_or_default();
    let user = NewUser {
        kind,
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
        ..NewUser::with_email(email?)
    };
    Some((user, id))
}

fn kind(text: &str) -> Result<Kind, &'static str> {
    match text {
        "customer" => Ok(Kind::Customer),
        "admin" => Ok(Kind::Admin),
        _ => Err("must be customer or admin"),
    }
}

fn address(mut members: Members<'_>, problems: &mut Problems) -> Address {
    let address = Address {
        formatted: members.text(problems, "formatted", FormattedAddress::parse),
        street_address: members.text(problems, "street_address", StreetAddress::parse),
        locality: members.text(problems, "locality", AddressPart::parse),
        region: members.text(problems, "region", AddressPart::parse),
        postal_code: members.text(problems, "postal_code", AddressPart::parse),
        country: members.text(problems, "country", AddressPart::parse),
    };
    members.finish(problems);
    address
}
