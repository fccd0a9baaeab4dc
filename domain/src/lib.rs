//! Aggregates, commands, events and rules; no IO, no clock, no random source.
//!
//! Shape: command -> decide -> \[event\] -> evolve -> state.
//!
//! *Invariant:* a value in [`value`] was parsed once, at the border, and is trusted from there on.
//!
//! *Invariant:* what identifies or describes a person is [`Personal`] in an event: serde never sees it, `{:?}` never
//! prints it, and every fold goes on when it has been erased. It leaves the process only through
//! [`Stored::personal`], which the caller encrypts, and the audit values of [`UserEvent::changes`].

pub mod claim;
mod personal;
pub mod stored;
pub mod user;
pub mod value;

pub use claim::{Claim, ClaimChange};
pub use personal::Personal;
pub use stored::{PersonalJson, Stored};
pub use user::{
    AddressPatch, Change, Field, FieldChange, Kind, MapPatch, NewUser, Patch, Refusal, Status, User,
    UserCommand, UserEvent, UserPatch, Wish,
};
pub use value::{
    Address, AddressPart, Association, AssociationKey, AssociationKind, Category, Email, ExternalId,
    FormattedAddress, Invalid, Locale, Name, Phone, PolicySlug, PolicyVersion, Preferences, Reason, Source,
    StreetAddress, TimeZone, TraitName, TraitValue, UserId,
};
