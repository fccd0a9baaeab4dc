//! What bodies and answers look like, for the OpenAPI document alone; [`read`](crate::read) is what reads them. A test
//! holds the examples against the reader.
#![expect(dead_code, reason = "only their descriptions are used")]

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// A user to be created. One of the three names is required.
#[derive(ToSchema)]
#[schema(example = json!({"email": "ada@example.com", "given_name": "Ada", "family_name": "Lovelace",
    "phone": "+4930123456", "locale": "en-GB", "time_zone": "Europe/London", "kind": "customer",
    "traits": {"department": "R&D", "seats": 3}, "associations": [{"kind": "membership", "key": "gold"}],
    "external_ids": {"hr": "E0001"}, "preferences": {"email": {"newsletter": true}}}))]
pub(crate) struct CreateUser {
    /// An id of the caller's choice; one is made where it is absent.
    #[schema(required = false)]
    id: Option<Uuid>,
    /// RFC 5321; compared without regard to case, and unique within the tenant.
    #[schema(max_length = 254)]
    email: String,
    #[schema(required = false, min_length = 1, max_length = 200)]
    given_name: Option<String>,
    #[schema(required = false, min_length = 1, max_length = 200)]
    family_name: Option<String>,
    #[schema(required = false, min_length = 1, max_length = 200)]
    display_name: Option<String>,
    /// E.164
    #[schema(required = false, pattern = r"^\+[1-9][0-9]{1,14}$")]
    phone: Option<String>,
    #[schema(required = false)]
    address: Option<Address>,
    /// BCP 47
    #[schema(required = false)]
    locale: Option<String>,
    /// A name of the IANA time zone database.
    #[schema(required = false)]
    time_zone: Option<String>,
    #[schema(required = false)]
    kind: Option<Kind>,
    /// Strings, numbers and booleans by name; a string that is a date (`2026-05-03`) is one.
    #[schema(required = false)]
    traits: Option<BTreeMap<String, TraitValue>>,
    #[schema(required = false)]
    associations: Option<Vec<Association>>,
    /// Ids by source, each unique within the tenant.
    #[schema(required = false)]
    external_ids: Option<BTreeMap<String, String>>,
    #[schema(required = false)]
    preferences: Option<EmailPreferences>,
    /// Why; kept with the event.
    #[schema(required = false, max_length = 500)]
    reason: Option<String>,
}

/// A merge patch: absent members stay, null clears, maps merge.
#[derive(ToSchema)]
#[schema(example = json!({"family_name": "King", "phone": null, "traits": {"seats": 4, "department": null}}))]
pub(crate) struct UpdateUser {
    #[schema(required = false)]
    given_name: Option<String>,
    #[schema(required = false)]
    family_name: Option<String>,
    #[schema(required = false)]
    display_name: Option<String>,
    #[schema(required = false)]
    phone: Option<String>,
    #[schema(required = false)]
    address: Option<Address>,
    #[schema(required = false)]
    locale: Option<String>,
    #[schema(required = false)]
    time_zone: Option<String>,
    /// Traits by name; null removes one.
    #[schema(required = false)]
    traits: Option<BTreeMap<String, serde_json::Value>>,
    /// Ids by source; null removes one.
    #[schema(required = false)]
    external_ids: Option<BTreeMap<String, serde_json::Value>>,
    #[schema(required = false)]
    preferences: Option<EmailPreferences>,
    #[schema(required = false, max_length = 500)]
    reason: Option<String>,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum Kind {
    Customer,
    Admin,
}

/// A string, a number (exact, up to 28 digits) or a boolean.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum TraitValue {
    #[schema(title = "text or date")]
    Text(String),
    Number(f64),
    Boolean(bool),
}

#[derive(ToSchema)]
struct Association {
    #[schema(pattern = "^[a-z][a-z0-9_-]{0,62}$")]
    kind: String,
    #[schema(min_length = 1, max_length = 200)]
    key: String,
}

/// OpenID Connect Core 1.0, section 5.1.1.
#[derive(ToSchema)]
struct Address {
    #[schema(required = false)]
    formatted: Option<String>,
    #[schema(required = false)]
    street_address: Option<String>,
    #[schema(required = false)]
    locality: Option<String>,
    #[schema(required = false)]
    region: Option<String>,
    #[schema(required = false)]
    postal_code: Option<String>,
    #[schema(required = false)]
    country: Option<String>,
}

/// Whether the user wants emails, by category.
#[derive(ToSchema)]
struct EmailPreferences {
    #[schema(required = false)]
    email: Option<BTreeMap<String, bool>>,
}

#[derive(ToSchema)]
#[schema(example = json!({"email": {"newsletter": false}}))]
pub(crate) struct Preferences {
    #[schema(required = false)]
    email: Option<BTreeMap<String, bool>>,
    #[schema(required = false, max_length = 500)]
    reason: Option<String>,
}

/// Traits by name; null removes.
#[derive(ToSchema)]
#[schema(example = json!({"department": "Sales", "seats": null, "reason": "moved"}))]
pub(crate) struct TraitPatch(BTreeMap<String, serde_json::Value>);

#[derive(ToSchema)]
#[schema(example = json!({"reason": "left the company"}))]
pub(crate) struct Reason {
    #[schema(required = false, max_length = 500)]
    reason: Option<String>,
}

#[derive(ToSchema)]
#[schema(example = json!({"email": "ada@example.org"}))]
pub(crate) struct Email {
    email: String,
    #[schema(required = false, max_length = 500)]
    reason: Option<String>,
}

#[derive(ToSchema)]
#[schema(example = json!({"policy": "privacy", "version": "2026-01"}))]
pub(crate) struct AcceptTerms {
    #[schema(pattern = "^[a-z0-9][a-z0-9-]{0,62}$")]
    policy: String,
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$")]
    version: String,
    #[schema(required = false, max_length = 500)]
    reason: Option<String>,
}

/// What a command answers.
#[derive(ToSchema)]
#[schema(example = json!({"id": "01934a1c-7c5e-7b6a-9d2f-3c4b5a697887", "version": 1}))]
pub(crate) struct Done {
    id: Uuid,
    /// The user's version after the command.
    version: u64,
}

/// A command of a batch. `data` is what the command's own route takes as its body.
#[derive(ToSchema)]
#[schema(example = json!({"type": "DeactivateUser", "id": "01934a1c-7c5e-7b6a-9d2f-3c4b5a697887",
    "data": {"reason": "left"}}))]
pub(crate) struct Command {
    #[schema(rename = "type")]
    command: CommandType,
    /// Required but for CreateUser.
    #[schema(required = false)]
    id: Option<Uuid>,
    #[schema(required = false, value_type = Option<Object>)]
    data: Option<()>,
    /// The version that the command is meant for.
    #[schema(required = false)]
    if_match: Option<u64>,
}

#[derive(ToSchema)]
enum CommandType {
    CreateUser,
    UpdateUser,
    ChangeEmail,
    VerifyEmail,
    ChangePreferences,
    SetTraits,
    AddAssociation,
    RemoveAssociation,
    AcceptTerms,
    DeactivateUser,
    ReactivateUser,
}

/// An outcome for each command, in their order.
#[derive(ToSchema)]
pub(crate) struct Outcomes {
    outcomes: Vec<Outcome>,
}

/// `id` and `version` where it succeeded, `problem` where it did not.
#[derive(ToSchema)]
struct Outcome {
    status: u16,
    #[schema(required = false)]
    id: Option<Uuid>,
    #[schema(required = false)]
    version: Option<u64>,
    #[schema(required = false, value_type = Option<Object>)]
    problem: Option<()>,
}
