//! Laws that hold for any commands in any order.

use cqrs_es::DomainEvent;
use proptest::prelude::*;

use super::super::*;
use super::generate::{SENTINELS, a_command, some_commands};
use super::scenario::fold;
use crate::stored::{PersonalJson, Stored};
use crate::{Claim, ClaimChange};

/// The events that commands lead to, one after the other; refused ones lead to none.
pub(super) fn history(commands: &[UserCommand]) -> Vec<UserEvent> {
    let mut user = User::default();
    let mut events = vec![];
    for command in commands {
        for event in user.decide(command.clone()).unwrap_or_default() {
            user.evolve(&event);
            events.push(event);
        }
    }
    events
}

fn stored_and_restored(event: &UserEvent) -> UserEvent {
    let personal = event.personal();
    let personal = personal.as_deref().map_or(PersonalJson::None, PersonalJson::Json);
    UserEvent::restore(Stored::event_type(event), Stored::event_version(event), &event.payload(), personal)
        .unwrap()
}

fn erased(event: &UserEvent) -> UserEvent {
    let payload = event.payload();
    UserEvent::restore(event.event_type(), event.event_version(), &payload, PersonalJson::Erased).unwrap()
}

fn assert_no_sentinel(text: &str) -> Result<(), TestCaseError> {
    for sentinel in SENTINELS {
        prop_assert!(!text.contains(sentinel), "{} in {}", sentinel, text);
    }
    Ok(())
}

/// Applies the changes of claims; a claim is taken when free and released when held.
fn claims_after(events: &[UserEvent]) -> Result<BTreeSet<Claim>, TestCaseError> {
    let mut held = BTreeSet::new();
    for change in events.iter().flat_map(UserEvent::claims) {
        match change {
            ClaimChange::Take(claim) => prop_assert!(held.insert(claim), "taken twice"),
            ClaimChange::Release(claim) => prop_assert!(held.remove(&claim), "released without being held"),
        }
    }
    Ok(held)
}

proptest! {
    #[test]
    fn a_stored_event_is_restored_as_it_was(commands in some_commands()) {
        for event in history(&commands) {
            let restored = stored_and_restored(&event);
            prop_assert_eq!(&restored, &event);
            prop_assert_eq!(restored.payload(), event.payload());
            prop_assert_eq!(restored.personal(), event.personal());
            prop_assert_eq!(DomainEvent::event_type(&event), event.event_type());
        }
    }

    #[test]
    fn replay_of_the_log_is_the_live_state(commands in some_commands()) {
        let events = history(&commands);
        let replayed: Vec<UserEvent> = events.iter().map(stored_and_restored).collect();
        let user = fold(&replayed);
        prop_assert_eq!(&user, &fold(&events));
    }

    #[test]
    fn a_wish_that_came_true_is_true(commands in some_commands(), last in a_command()) {
        let mut user = fold(&history(&commands));
        if let Ok(events) = user.decide(last.clone()) {
            for event in &events {
                prop_assert!(!event.changed().is_empty());
                prop_assert!(!event.changes().is_empty());
                user.evolve(event);
            }
            prop_assert_eq!(user.decide(last), Ok(vec![]));
        }
    }

    #[test]
    fn a_user_keeps_a_name_and_an_email(commands in some_commands()) {
        let user = fold(&history(&commands));
        prop_assert!(user.given_name().or(user.family_name()).or(user.display_name()).is_some());
        prop_assert!(user.email().is_some());
        prop_assert!(user.address().is_none_or(|address| !address.is_empty()));
    }

    #[test]
    fn claims_are_what_the_user_has(commands in some_commands()) {
        let events = history(&commands);
        let user = fold(&events);
        let email = Claim { scope: "email".into(), value: user.email().unwrap().as_str().into() };
        let ids = user.external_ids().iter().map(|(source, id)| Claim {
            scope: format!("external_id/{source}"),
            value: id.as_str().into(),
        });
        prop_assert_eq!(claims_after(&events)?, ids.chain([email]).collect::<BTreeSet<_>>());
    }

    #[test]
    fn erasing_leaves_what_is_not_about_the_person(commands in some_commands(), last in a_command()) {
        let events = history(&commands);
        let user = fold(&events);
        let erased: Vec<UserEvent> = events.iter().map(erased).collect();
        let shadow = fold(&erased);
        prop_assert_eq!(shadow.status(), user.status());
        prop_assert_eq!(shadow.kind(), user.kind());
        prop_assert_eq!(shadow.email_verified(), user.email_verified());
        prop_assert_eq!(shadow.accepted_terms(), user.accepted_terms());
        assert_no_sentinel(&serde_json::to_string(&shadow).unwrap())?;
        for (before, after) in events.iter().zip(&erased) {
            prop_assert_eq!(after.changed(), before.changed());
            for change in after.changes() {
                assert_no_sentinel(&serde_json::to_string(&change).unwrap())?;
            }
        }
        // Rules that read nothing personal decide as before.
        if let Wish::AcceptTerms { .. } | Wish::DeactivateUser | Wish::ReactivateUser | Wish::CreateUser(_) = last.wish {
            prop_assert_eq!(shadow.decide(last.clone()), user.decide(last.clone()));
        }
        for event in shadow.decide(last).unwrap_or_default() {
            shadow.clone().evolve(&event);
        }
    }

    #[test]
    fn half_a_history_erased_still_folds(commands in some_commands(), which in any::<u64>()) {
        let events = history(&commands);
        let mixed = events.iter().enumerate().map(|(place, event)| match (which >> (place % 64)) & 1 {
            0 => event.clone(),
            _ => erased(event),
        });
        let mixed: Vec<UserEvent> = mixed.collect();
        prop_assert_eq!(fold(&mixed).status(), fold(&events).status());
    }

    #[test]
    fn no_personal_value_is_clear_or_printed(commands in some_commands()) {
        for event in history(&commands) {
            assert_no_sentinel(&event.payload())?;
            assert_no_sentinel(&serde_json::to_string(&event).unwrap())?;
            assert_no_sentinel(&format!("{event:?} {event:#?}"))?;
            assert_no_sentinel(&format!("{:?}", event.changes()))?;
        }
    }
}
