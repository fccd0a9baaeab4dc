//! Recorded samples of every form that was ever written: they are what the log holds, so they are never edited.
//!
//! A sample is a file `samples/<type>.<version>[.<word>].jsonl`: the payload, then the personal members if there are
//! any. A new form is recorded by running the tests with `RECORD_SAMPLES=1`, which writes missing samples only.

use std::path::PathBuf;
use std::{env, fs};

use super::super::*;
use super::examples::examples;
use crate::stored::{PersonalJson, Stored};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/user/samples")
}

fn written(event: &UserEvent) -> String {
    let personal = event.personal().map(|json| String::from_utf8(json).unwrap() + "\n");
    format!("{}\n{}", event.payload(), personal.unwrap_or_default())
}

fn restored(name: &str, sample: &str) -> UserEvent {
    let mut parts = name.split('.');
    let (event_type, event_version) = (parts.next().unwrap(), parts.next().unwrap());
    let mut lines = sample.lines();
    let payload = lines.next().unwrap();
    let personal = lines.next().map_or(PersonalJson::None, |json| PersonalJson::Json(json.as_bytes()));
    UserEvent::restore(event_type, event_version, payload, personal).unwrap()
}

#[test]
fn every_form_is_written_as_it_was_recorded() {
    for (name, event) in examples() {
        let path = folder().join(format!("{name}.jsonl"));
        if env::var_os("RECORD_SAMPLES").is_some() && !path.exists() {
            fs::write(&path, written(&event)).unwrap();
        }
        let sample = fs::read_to_string(&path).unwrap_or_else(|error| panic!("sample {name}: {error}"));
        assert_eq!(written(&event), sample, "{name}");
        assert_eq!(restored(name, &sample), event, "{name}");
    }
}

#[test]
fn every_recorded_sample_is_restored_and_written_back_byte_for_byte() {
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let sample = fs::read_to_string(&path).unwrap();
        let event = restored(name, &sample);
        let current = name.split('.').nth(1) == Some(event.event_version());
        assert!(!current || written(&event) == sample, "{name}");
    }
}

/// Samples of the forms of yesterday, each with the one of today that says the same.
#[test]
fn an_older_form_reads_as_the_current_one() {
    let old_forms = [("PreferencesChanged.1", "PreferencesChanged.2")];
    for (old, current) in old_forms {
        let sample = fs::read_to_string(folder().join(format!("{old}.jsonl"))).unwrap();
        let expected = examples().into_iter().find(|(name, _)| *name == current).unwrap().1;
        assert_eq!(restored(old, &sample), expected, "{old}");

        let (event_type, version) = old.split_once('.').unwrap();
        let payload = sample.lines().next().unwrap();
        let erased = UserEvent::restore(event_type, version, payload, PersonalJson::Erased).unwrap();
        assert_eq!((erased.changed(), erased.personal()), (expected.changed(), None), "{old}");
    }
    let listed: Vec<&str> = old_forms.iter().map(|(old, _)| *old).collect();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let event = restored(name, &fs::read_to_string(&path).unwrap());
        let current = name.split('.').nth(1) == Some(event.event_version());
        assert!(current || listed.contains(&name), "{name} has no current form beside it");
    }
}

#[test]
fn every_event_has_a_recorded_sample_of_its_current_version() {
    for event_type in UserEvent::types() {
        let (_, event) = examples().into_iter().find(|(_, event)| event.event_type() == event_type).unwrap();
        let start = format!("{event_type}.{}.", event.event_version());
        let recorded = |name: &str| name.starts_with(&start);
        let found = fs::read_dir(folder())
            .unwrap()
            .any(|entry| recorded(entry.unwrap().file_name().to_str().unwrap()));
        assert!(found, "{event_type}");
    }
}

#[test]
fn what_cannot_be_read_is_a_clear_error_without_values() {
    let restore = |event_type, version, payload, personal: Option<&str>| {
        let personal = personal.map_or(PersonalJson::None, |json| PersonalJson::Json(json.as_bytes()));
        UserEvent::restore(event_type, version, payload, personal).unwrap_err()
    };
    let unknown = restore("UserCloned", "1", "{}", None);
    assert_eq!(unknown.to_string(), "event type UserCloned is unknown to this program");
    let newer = restore("UserDeactivated", "2", r#"{"UserDeactivated":{}}"#, None);
    assert_eq!(newer.to_string(), "event UserDeactivated has version 2, this program knows versions up to 1");
    let older = restore("UserDeactivated", "0", r#"{"UserDeactivated":{}}"#, None);
    assert_eq!(older.to_string(), "event version 0 of UserDeactivated is no version");
    let mixed = restore("UserDeactivated", "1", r#"{"UserReactivated":{}}"#, None);
    assert_eq!(mixed.to_string(), "payload of UserDeactivated is that of another event");
    let missing = restore("EmailVerified", "1", r#"{"EmailVerified":{}}"#, None);
    assert_eq!(missing.to_string(), "personal members of EmailVerified are missing");
    let broken =
        restore("EmailVerified", "1", r#"{"EmailVerified":{}}"#, Some(r#"{"email":{"ada@example.com":1}}"#));
    let said = format!("{broken} {broken:?} {:?}", std::error::Error::source(&broken));
    assert!(said.contains("cannot be read") && !said.contains("ada"), "{said}");
}

#[test]
fn an_event_read_without_its_personal_part_is_erased() {
    for (_, event) in examples() {
        let alone: UserEvent = serde_json::from_str(&event.payload()).unwrap();
        let erased = UserEvent::restore(
            event.event_type(),
            event.event_version(),
            &event.payload(),
            PersonalJson::Erased,
        );
        assert_eq!(alone, erased.unwrap());
        assert_eq!(alone.changed(), event.changed());
        assert_eq!((alone.personal(), alone.reason(), alone.claims()), (None, None, vec![]));
        assert!(format!("{alone:?}").contains("<erased>"));
    }
}
