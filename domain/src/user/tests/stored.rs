//! The reader of stored events: whatever the log holds, the answer is an event or an error, and no error tells a value.

use std::error::Error as _;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::*;
use super::examples::examples;
use crate::stored::{Error, PersonalJson, Stored};

fn a_type() -> impl Strategy<Value = String> {
    prop_oneof![9 => select(UserEvent::types().collect::<Vec<_>>()).prop_map(str::to_owned), 1 => ".{0,12}"]
}

fn a_version() -> impl Strategy<Value = String> {
    prop_oneof![9 => select(vec!["1", "2"]).prop_map(str::to_owned), 1 => "[0-9+ -]{0,12}|.{0,4}"]
}

/// JSON with the names and values that stored events have, in any place.
fn some_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        select(vec!["customer", "given_name", "email", "true", "1.5", "2026-05-03", "gold", ""])
            .prop_map(Into::into),
        ".{0,6}".prop_map(Into::into),
    ];
    let names = select(vec![
        "kind",
        "changed",
        "reason",
        "email",
        "from",
        "to",
        "number",
        "text",
        "date",
        "details",
        "traits",
        "preferences",
        "address",
        "association",
        "external_ids",
        "policy",
        "version",
        "set",
        "cleared",
    ]);
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::hash_map(names.clone(), inner, 0..6).prop_map(|members| {
                serde_json::Value::Object(
                    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
                )
            }),
        ]
    })
}

/// What can be read is written in a form that reads as the same.
fn read(
    event_type: &str,
    event_version: &str,
    payload: &str,
    personal: PersonalJson<'_>,
) -> Result<(), TestCaseError> {
    let Ok(event) = UserEvent::restore(event_type, event_version, payload, personal) else { return Ok(()) };
    let written = event.personal();
    let again = match (&written, personal) {
        (Some(json), _) => PersonalJson::Json(json),
        (None, PersonalJson::Erased) => PersonalJson::Erased,
        (None, PersonalJson::None | PersonalJson::Json(_)) => PersonalJson::Json(b"{}"),
    };
    let again = UserEvent::restore(event.event_type(), event.event_version(), &event.payload(), again);
    prop_assert_eq!(again.unwrap(), event);
    Ok(())
}

fn said(error: &Error) -> String {
    format!("{error} {error:?} {:?}", error.source())
}

proptest! {
    #[test]
    fn any_bytes_are_an_event_or_an_error(
        event_type in a_type(),
        version in a_version(),
        payload in ".{0,40}",
        personal in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        for personal in [PersonalJson::None, PersonalJson::Erased, PersonalJson::Json(&personal)] {
            read(&event_type, &version, &payload, personal)?;
        }
    }

    #[test]
    fn any_json_is_an_event_or_an_error(
        event_type in a_type(),
        version in a_version(),
        body in some_json(),
        personal in some_json(),
    ) {
        let payload = serde_json::json!({ &event_type: body }).to_string();
        let personal = personal.to_string();
        for personal in [PersonalJson::None, PersonalJson::Erased, PersonalJson::Json(personal.as_bytes())] {
            read(&event_type, &version, &payload, personal)?;
        }
    }

    #[test]
    fn any_damage_to_an_event_is_an_event_or_an_error(
        which in any::<Index>(),
        place in any::<Index>(),
        replaced in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let examples = examples();
        let (_, event) = which.get(&examples);
        let mut personal = event.personal().unwrap_or_else(|| b"{}".to_vec());
        let place = place.index(personal.len());
        if cut { personal.truncate(place) } else { personal[place] = replaced }
        read(event.event_type(), event.event_version(), &event.payload(), PersonalJson::Json(&personal))?;
    }

    #[test]
    fn any_value_in_the_wrong_place_is_an_error_that_does_not_tell_it(
        which in any::<Index>(),
        member in any::<Index>(),
        wrong in select(vec![r#""Lovelace""#, r#"["Lovelace"]"#, r#"{"Lovelace":"Lovelace"}"#]),
    ) {
        let examples = examples();
        let (_, event) = which.get(&examples);
        let personal = event.personal().unwrap_or_else(|| br#"{"reason":""}"#.to_vec());
        let mut personal: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&personal).unwrap();
        let member = member.index(personal.len());
        let value = personal.values_mut().nth(member).unwrap();
        *value = serde_json::from_str(wrong).unwrap();
        let personal = serde_json::Value::Object(personal).to_string();
        let restored = UserEvent::restore(
            event.event_type(), event.event_version(), &event.payload(), PersonalJson::Json(personal.as_bytes()));
        if let Err(error) = restored {
            prop_assert!(!said(&error).contains("Lovelace"), "{}", said(&error));
        }
    }
}
