//! A user as readers see it: the fold of its stream, with the instants that only a reader wants.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use rollcall_domain::{TraitName, TraitValue, User, UserEvent};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

/// The fold of a user's events. Its serialised form is personal: it is stored sealed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    pub user: User,
    /// When each version of each policy was accepted, in that order.
    pub accepted_terms: Vec<AcceptedTerms>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedTerms {
    pub policy: String,
    pub version: String,
    #[serde(serialize_with = "instant")]
    pub accepted_at: DateTime<Utc>,
}

impl Profile {
    /// Takes an event into account.
    pub fn apply(&mut self, event: &UserEvent, recorded_at: DateTime<Utc>) {
        if !self.user.exists() {
            self.created_at = recorded_at;
        }
        self.updated_at = recorded_at;
        if let UserEvent::TermsAccepted { policy, version, personal: _ } = event {
            self.accepted_terms.push(AcceptedTerms {
                policy: policy.as_str().to_owned(),
                version: version.as_str().to_owned(),
                accepted_at: recorded_at,
            });
        }
        self.user.evolve(event);
    }

    /// The name to show: the one that was set, or given and family name together.
    pub fn display_name(&self) -> Option<String> {
        if let Some(name) = self.user.display_name() {
            return Some(name.as_str().to_owned());
        }
        let parts = [self.user.given_name(), self.user.family_name()];
        let parts: Vec<&str> = parts.into_iter().flatten().map(|name| name.as_str()).collect();
        (!parts.is_empty()).then(|| parts.join(" "))
    }

    /// The traits as plain JSON, numbers with their exact digits.
    pub fn traits_json(&self) -> String {
        serde_json::to_string(&PlainTraits(self.user.traits())).expect("traits are JSON")
    }

    /// The profile as a reader gets it.
    pub fn to_json(&self, tenant: &str, id: &str, version: u64) -> String {
        let user = &self.user;
        let view = View {
            id,
            tenant,
            kind: user.kind().as_str(),
            status: user.status().map(rollcall_domain::Status::as_str),
            email: user.email().map(rollcall_domain::Email::as_str),
            email_verified: user.email_verified(),
            given_name: user.given_name().map(rollcall_domain::Name::as_str),
            family_name: user.family_name().map(rollcall_domain::Name::as_str),
            display_name: self.display_name(),
            phone: user.phone().map(rollcall_domain::Phone::as_str),
            address: user.address(),
            locale: user.locale().map(rollcall_domain::Locale::as_str),
            time_zone: user.time_zone().map(rollcall_domain::TimeZone::as_str),
            preferences: user.preferences(),
            traits: PlainTraits(user.traits()),
            associations: user.associations(),
            external_ids: user.external_ids(),
            accepted_terms: &self.accepted_terms,
            version,
            created_at: self.created_at,
            updated_at: self.updated_at,
        };
        serde_json::to_string(&view).expect("a profile is JSON")
    }
}

/// A profile's members in the order of the answer; absent ones are left out.
#[derive(Serialize)]
struct View<'a> {
    id: &'a str,
    tenant: &'a str,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    email_verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    given_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    family_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<&'a rollcall_domain::Address>,
    #[serde(skip_serializing_if = "Option::is_none")]
    locale: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<&'a str>,
    preferences: &'a rollcall_domain::Preferences,
    traits: PlainTraits<'a>,
    associations: &'a std::collections::BTreeSet<rollcall_domain::Association>,
    external_ids: &'a BTreeMap<rollcall_domain::Source, rollcall_domain::ExternalId>,
    accepted_terms: &'a [AcceptedTerms],
    version: u64,
    #[serde(serialize_with = "instant")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "instant")]
    updated_at: DateTime<Utc>,
}

/// Traits in their API form.
struct PlainTraits<'a>(&'a BTreeMap<TraitName, TraitValue>);

impl Serialize for PlainTraits<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        let mut json = String::new();
        for (name, value) in self.0 {
            json.clear();
            value.to_json(&mut json);
            let raw: &RawValue = serde_json::from_str(&json).map_err(serde::ser::Error::custom)?;
            map.serialize_entry(name, raw)?;
        }
        map.end()
    }
}

/// RFC 3339 in UTC with microseconds, as the log keeps them.
pub fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn instant<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}
