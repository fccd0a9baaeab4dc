//! Events: what happened to a user, from what to what, so that a history needs nothing else.

use serde::{Deserialize, Serialize};

use super::details::{
    AssociationDetails, CreatedDetails, EmailChange, EmailVerification, PreferenceChanges, ProfileChanges,
    ReasonOnly, TraitChanges,
};
use super::{Change, Kind};
use crate::Personal;
use crate::claim::{Claim, ClaimChange};
use crate::value::{Email, ExternalId, PolicySlug, PolicyVersion, Reason, Source};

/// A fact about a user. The serde form is the clear payload; read alone, it gives an event whose personal members are
/// erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserEvent {
    UserCreated {
        kind: Kind,
        /// The personal members that were set.
        changed: Vec<Field>,
        #[serde(skip)]
        personal: Personal<Box<CreatedDetails>>,
    },
    ProfileChanged {
        changed: Vec<Field>,
        #[serde(skip)]
        personal: Personal<Box<ProfileChanges>>,
    },
    /// The new address is not verified.
    EmailChanged {
        /// Whether the address before was verified, so that `email_verified` changed too.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        verification_lost: bool,
        #[serde(skip)]
        personal: Personal<EmailChange>,
    },
    EmailVerified {
        #[serde(skip)]
        personal: Personal<EmailVerification>,
    },
    PreferencesChanged {
        #[serde(skip)]
        personal: Personal<PreferenceChanges>,
    },
    TraitsChanged {
        #[serde(skip)]
        personal: Personal<TraitChanges>,
    },
    AssociationAdded {
        #[serde(skip)]
        personal: Personal<AssociationDetails>,
    },
    AssociationRemoved {
        #[serde(skip)]
        personal: Personal<AssociationDetails>,
    },
    TermsAccepted {
        policy: PolicySlug,
        version: PolicyVersion,
        #[serde(skip)]
        personal: Personal<ReasonOnly>,
    },
    UserDeactivated {
        #[serde(skip)]
        personal: Personal<ReasonOnly>,
    },
    UserReactivated {
        #[serde(skip)]
        personal: Personal<ReasonOnly>,
    },
}

/// A top-level member of a user, by the name that the API gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    Kind,
    Status,
    Email,
    EmailVerified,
    GivenName,
    FamilyName,
    DisplayName,
    Phone,
    Address,
    Locale,
    TimeZone,
    Preferences,
    Traits,
    Associations,
    ExternalIds,
    AcceptedTerms,
}

impl Field {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Status => "status",
            Self::Email => "email",
            Self::EmailVerified => "email_verified",
            Self::GivenName => "given_name",
            Self::FamilyName => "family_name",
            Self::DisplayName => "display_name",
            Self::Phone => "phone",
            Self::Address => "address",
            Self::Locale => "locale",
            Self::TimeZone => "time_zone",
            Self::Preferences => "preferences",
            Self::Traits => "traits",
            Self::Associations => "associations",
            Self::ExternalIds => "external_ids",
            Self::AcceptedTerms => "accepted_terms",
        }
    }
}

impl UserEvent {
    pub fn event_type(&self) -> &'static str {
        match self {
            Self::UserCreated { .. } => "UserCreated",
            Self::ProfileChanged { .. } => "ProfileChanged",
            Self::EmailChanged { .. } => "EmailChanged",
            Self::EmailVerified { .. } => "EmailVerified",
            Self::PreferencesChanged { .. } => "PreferencesChanged",
            Self::TraitsChanged { .. } => "TraitsChanged",
            Self::AssociationAdded { .. } => "AssociationAdded",
            Self::AssociationRemoved { .. } => "AssociationRemoved",
            Self::TermsAccepted { .. } => "TermsAccepted",
            Self::UserDeactivated { .. } => "UserDeactivated",
            Self::UserReactivated { .. } => "UserReactivated",
        }
    }

    /// The user's top-level members that changed. An erased event still tells.
    pub fn changed(&self) -> Vec<&'static str> {
        match self {
            Self::UserCreated { changed, .. } => {
                [Field::Kind, Field::Status].iter().chain(changed).map(|field| field.as_str()).collect()
            }
            Self::ProfileChanged { changed, .. } => changed.iter().map(|field| field.as_str()).collect(),
            Self::EmailChanged { verification_lost: false, .. } => vec!["email"],
            Self::EmailChanged { verification_lost: true, .. } => vec!["email", "email_verified"],
            Self::EmailVerified { .. } => vec!["email_verified"],
            Self::PreferencesChanged { .. } => vec!["preferences"],
            Self::TraitsChanged { .. } => vec!["traits"],
            Self::AssociationAdded { .. } | Self::AssociationRemoved { .. } => vec!["associations"],
            Self::TermsAccepted { .. } => vec!["accepted_terms"],
            Self::UserDeactivated { .. } | Self::UserReactivated { .. } => vec!["status"],
        }
    }

    /// Why it happened, where the caller said so and it has not been erased.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::UserCreated { personal, .. } => personal.expose()?.reason.as_ref(),
            Self::ProfileChanged { personal, .. } => personal.expose()?.reason.as_ref(),
            Self::EmailChanged { personal, .. } => personal.expose()?.reason.as_ref(),
            Self::EmailVerified { personal } => personal.expose()?.reason.as_ref(),
            Self::PreferencesChanged { personal } => personal.expose()?.reason.as_ref(),
            Self::TraitsChanged { personal } => personal.expose()?.reason.as_ref(),
            Self::AssociationAdded { personal } | Self::AssociationRemoved { personal } => {
                personal.expose()?.reason.as_ref()
            }
            Self::TermsAccepted { personal, .. }
            | Self::UserDeactivated { personal }
            | Self::UserReactivated { personal } => personal.expose()?.reason.as_ref(),
        }
    }

    /// The claims that the event takes and releases: the email in scope `email`, an external id in scope
    /// `external_id/<source>`. An erased event says nothing: erasing releases claims by stream.
    pub fn claims(&self) -> Vec<ClaimChange> {
        match self {
            Self::UserCreated { personal, .. } => personal.expose().map_or_else(Vec::new, |details| {
                let external_ids =
                    details.external_ids.iter().map(|(source, id)| external_id_claim(source, id));
                std::iter::once(email_claim(&details.email))
                    .chain(external_ids)
                    .map(ClaimChange::Take)
                    .collect()
            }),
            Self::ProfileChanged { personal, .. } => personal.expose().map_or_else(Vec::new, |changes| {
                let moves = |(source, change)| replaced(change, |id| external_id_claim(source, id));
                changes.external_ids.iter().flat_map(moves).collect()
            }),
            Self::EmailChanged { personal, .. } => personal.expose().map_or_else(Vec::new, |change| {
                let change = Change { from: change.from.clone(), to: Some(change.to.clone()) };
                replaced(&change, email_claim)
            }),
            // A deactivated user keeps its claims.
            Self::EmailVerified { .. }
            | Self::PreferencesChanged { .. }
            | Self::TraitsChanged { .. }
            | Self::AssociationAdded { .. }
            | Self::AssociationRemoved { .. }
            | Self::TermsAccepted { .. }
            | Self::UserDeactivated { .. }
            | Self::UserReactivated { .. } => vec![],
        }
    }
}

fn replaced<T>(change: &Change<T>, claim: impl Fn(&T) -> Claim) -> Vec<ClaimChange> {
    let released = change.from.as_ref().map(|value| ClaimChange::Release(claim(value)));
    let taken = change.to.as_ref().map(|value| ClaimChange::Take(claim(value)));
    released.into_iter().chain(taken).collect()
}

fn email_claim(email: &Email) -> Claim {
    Claim { scope: "email".to_owned(), value: email.as_str().to_owned() }
}

fn external_id_claim(source: &Source, id: &ExternalId) -> Claim {
    Claim { scope: format!("external_id/{source}"), value: id.as_str().to_owned() }
}

impl cqrs_es::DomainEvent for UserEvent {
    fn event_type(&self) -> String {
        self.event_type().to_owned()
    }

    fn event_version(&self) -> String {
        self.event_version().to_owned()
    }
}
