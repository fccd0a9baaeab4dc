//! Which claims events take and release.

use super::examples::*;
use super::scenario::*;
use crate::{Claim, ClaimChange};

fn take(scope: &str, value: &str) -> ClaimChange {
    ClaimChange::Take(Claim { scope: scope.into(), value: value.into() })
}

fn release(scope: &str, value: &str) -> ClaimChange {
    ClaimChange::Release(Claim { scope: scope.into(), value: value.into() })
}

fn claims_of(example: &str) -> Vec<ClaimChange> {
    examples().into_iter().find(|(name, _)| *name == example).unwrap().1.claims()
}

#[test]
fn creation_takes_email_and_external_ids() {
    assert_eq!(
        claims_of("UserCreated.1.full"),
        [take("email", "ada@example.com"), take("external_id/hr", "E0001")]
    );
}

#[test]
fn another_email_is_taken_and_the_old_one_released() {
    assert_eq!(
        claims_of("EmailChanged.1"),
        [release("email", "ada@example.com"), take("email", "a@example.com")]
    );
}

#[test]
fn changed_external_ids_are_released_before_others_are_taken() {
    assert_eq!(
        claims_of("ProfileChanged.1"),
        [
            release("external_id/crm", "1"),
            take("external_id/crm", "2"),
            take("external_id/hr", "E0001"),
            release("external_id/old", "x"),
        ]
    );
}

#[test]
fn a_deactivated_user_keeps_its_claims() {
    assert_eq!(deactivated().claims(), []);
    let user = fold(&[created(ada()), deactivated()]);
    assert_eq!(user.email(), Some(&email("ada@example.com")));
}
