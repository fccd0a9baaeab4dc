//! Values, parsed at the border and trusted inside.
//!
//! `parse` trims white space around a value, brings text to Unicode normalisation form C and refuses control
//! characters; what it returns parses again to itself. Deserialising trusts what was stored and checks nothing, so
//! that a rule that grows stricter never makes the log unreadable.

mod address;
mod association;
mod email;
mod external_id;
mod locale;
mod name;
mod number;
mod phone;
mod policy;
mod preferences;
mod reason;
mod text;
mod time_zone;
mod traits;
mod user_id;

use std::borrow::Cow;

pub use address::{Address, AddressPart, FormattedAddress, StreetAddress};
pub use association::{Association, AssociationKey, AssociationKind};
pub use email::Email;
pub use external_id::{ExternalId, Source};
pub use locale::Locale;
pub use name::Name;
pub use phone::Phone;
pub use policy::{PolicySlug, PolicyVersion};
pub use preferences::{Category, Preferences};
pub use reason::Reason;
pub use time_zone::TimeZone;
pub use traits::{TraitName, TraitValue};
pub use user_id::UserId;

/// Why a value was refused, in words for the person who sent it: what is wrong and how to mend it.
///
/// It never repeats the value, so that it may be logged and answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(Cow<'static, str>);

impl Invalid {
    pub(crate) fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self(message.into())
    }
}

#[cfg(test)]
mod tests;
