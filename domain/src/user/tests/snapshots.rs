//! Snapshots: the user that they hold is the one that its events come to.

use std::path::PathBuf;
use std::{env, fs};

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::*;
use super::examples::{ada, created, examples, verified};
use super::generate::some_commands;
use super::laws::history;
use super::scenario::fold;

/// A user with something in every member.
fn eventful() -> User {
    let mut user = fold(&[created(ada())]);
    let takes_away =
        |name: &str| name.starts_with("ProfileChanged") || name.starts_with("AssociationRemoved");
    let examples =
        examples().into_iter().filter(|(name, _)| !name.starts_with("UserCreated") && !takes_away(name));
    for (_, event) in examples {
        user.evolve(&event);
    }
    user.evolve(&verified("a@example.com"));
    user
}

/// The sample is the shape: where this fails, raise `User::SNAPSHOT_SHAPE` and record a new one with `RECORD_SAMPLES=1`,
/// or users would be read from snapshots that other rules have made.
#[test]
fn a_snapshot_changes_with_its_shape_alone() {
    let name = format!("src/user/snapshots/{}.json", User::SNAPSHOT_SHAPE);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(&name);
    let written = String::from_utf8(eventful().snapshot()).unwrap() + "\n";
    if env::var_os("RECORD_SAMPLES").is_some() && !path.exists() {
        fs::write(&path, &written).unwrap();
    }
    let recorded = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(written, recorded, "{name}");
    assert_eq!(User::of_snapshot(recorded.as_bytes()), Some(eventful()), "{name}");
}

#[test]
fn what_is_no_snapshot_is_none() {
    for bytes in [&b""[..], b"[1]", b"{\"email\":1}", &eventful().snapshot()[1..]] {
        assert_eq!(User::of_snapshot(bytes), None);
    }
}

proptest! {
    #[test]
    fn a_snapshot_and_the_rest_come_to_what_all_events_come_to(commands in some_commands(), cut in any::<Index>()) {
        let events = history(&commands);
        let (before, after) = events.split_at(cut.index(events.len() + 1));
        let mut user = User::of_snapshot(&fold(before).snapshot()).unwrap();
        for event in after {
            user.evolve(event);
        }
        prop_assert_eq!(user, fold(&events));
    }
}
