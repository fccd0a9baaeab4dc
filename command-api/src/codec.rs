//! How users' events are stored: the domain's stored forms, handed to the log.

use rollcall_domain::{ClaimChange, PersonalJson, Stored, User, UserEvent};
use rollcall_event_store::{
    Recorded,
    keys::Opened,
    streams::{Claim, Codec, DecodeError, Encoded},
};

/// The codec of the user aggregate.
pub struct UserCodec;

impl Codec for UserCodec {
    type Aggregate = User;

    fn encode(event: &UserEvent) -> Encoded {
        Encoded {
            event_type: Stored::event_type(event),
            event_version: Stored::event_version(event),
            payload: event.payload(),
            personal: event.personal(),
        }
    }

    fn decode(event: &Recorded, personal: Opened) -> Result<UserEvent, DecodeError> {
        let personal = match &personal {
            Opened::None => PersonalJson::None,
            Opened::Value(json) => PersonalJson::Json(json),
            Opened::Erased => PersonalJson::Erased,
        };
        UserEvent::restore(&event.event_type, &event.event_version, &event.payload, personal).map_err(
            |source| DecodeError {
                event_type: event.event_type.to_string(),
                partition: event.partition,
                position: event.position,
                source: source.into(),
            },
        )
    }

    fn claims(event: &UserEvent) -> Vec<Claim> {
        let claim = |change| match change {
            ClaimChange::Take(claim) => Claim::Take { scope: claim.scope, value: claim.value },
            ClaimChange::Release(claim) => Claim::Release { scope: claim.scope, value: claim.value },
        };
        event.claims().into_iter().map(claim).collect()
    }

    const SNAPSHOT_SHAPE: i32 = User::SNAPSHOT_SHAPE;

    fn snapshot(user: &User) -> Vec<u8> {
        user.snapshot()
    }

    fn of_snapshot(snapshot: &[u8]) -> Option<User> {
        User::of_snapshot(snapshot)
    }
}
