//! What bodies and answers look like, for the OpenAPI document alone; [`read`](crate::read) is what reads them. The
//! fuzzer holds one against the other.
#![expect(dead_code, reason = "only their descriptions are used")]

mod batch;
mod values;

use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

pub(crate) use batch::{Commands, Outcomes};
pub(crate) use values::TraitPatch;

/// A user to be created. One of the three names is required.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"email": "ada@example.com", "given_name": "Ada", "family_name": "Lovelace",
    "phone": "+4930123456", "locale": "en-GB", "time_zone": "Europe/London", "kind": "customer",
    "traits": {"department": "R&D", "seats": 3}, "associations": [{"kind": "membership", "key": "gold"}],
    "external_ids": {"hr": "E0001"}, "preferences": {"email": {"newsletter": true}}}))]
pub(crate) struct CreateUser {
    /// An id of the caller's choice; one is made where it is absent.
    #[schema(required = false)]
    id: Option<Uuid>,
    #[schema(schema_with = values::email)]
    email: String,
    #[schema(required = false, schema_with = values::name)]
    given_name: Option<String>,
    #[schema(required = false, schema_with = values::name)]
    family_name: Option<String>,
    #[schema(required = false, schema_with = values::name)]
    display_name: Option<String>,
    #[schema(required = false, schema_with = values::phone)]
    phone: Option<String>,
    #[schema(required = false)]
    address: Option<Address>,
    #[schema(required = false, schema_with = values::locale)]
    locale: Option<String>,
    #[schema(required = false, schema_with = values::time_zone)]
    time_zone: Option<String>,
    #[schema(required = false, schema_with = values::kind)]
    kind: Option<String>,
    #[schema(required = false, schema_with = values::traits)]
    traits: Option<()>,
    /// At most 500 different ones.
    #[schema(required = false, max_items = 500)]
    associations: Option<Vec<Association>>,
    #[schema(required = false, schema_with = values::external_ids)]
    external_ids: Option<()>,
    #[schema(required = false)]
    preferences: Option<EmailPreferences>,
    #[schema(required = false, schema_with = values::reason)]
    reason: Option<String>,
}

/// A merge patch (RFC 7396): absent members stay, null clears, maps merge.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"family_name": "King", "phone": null, "traits": {"seats": 4, "department": null},
    "reason": "married"}))]
pub(crate) struct UpdateUser {
    #[schema(required = false, schema_with = values::name)]
    given_name: Option<String>,
    #[schema(required = false, schema_with = values::name)]
    family_name: Option<String>,
    #[schema(required = false, schema_with = values::name)]
    display_name: Option<String>,
    #[schema(required = false, schema_with = values::phone)]
    phone: Option<String>,
    /// Merged; null clears the whole address.
    #[schema(required = false)]
    address: Option<Address>,
    #[schema(required = false, schema_with = values::locale)]
    locale: Option<String>,
    #[schema(required = false, schema_with = values::time_zone)]
    time_zone: Option<String>,
    #[schema(required = false, schema_with = values::trait_changes)]
    traits: Option<()>,
    #[schema(required = false, schema_with = values::external_id_changes)]
    external_ids: Option<()>,
    #[schema(required = false)]
    preferences: Option<EmailPreferenceChanges>,
    #[schema(required = false, schema_with = values::reason)]
    reason: Option<String>,
}

/// What a user belongs to.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"kind": "membership", "key": "gold"}))]
pub(crate) struct Association {
    #[schema(schema_with = values::association_kind)]
    kind: String,
    #[schema(schema_with = values::association_key)]
    key: String,
}

/// Which association.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct AssociationPath {
    /// What kind of thing the user belongs to.
    #[param(pattern = "^[a-z][a-z0-9_-]{0,62}$", example = "membership")]
    kind: String,
    /// Which of its kind.
    #[param(
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$",
        max_length = 200,
        example = "gold"
    )]
    key: String,
}

/// A postal address (OpenID Connect Core 1.0, section 5.1.1).
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"street_address": "12 St James's Square", "locality": "London", "postal_code": "SW1Y 4JH",
    "country": "United Kingdom"}))]
struct Address {
    #[schema(required = false, schema_with = values::formatted_address)]
    formatted: Option<String>,
    #[schema(required = false, schema_with = values::street_address)]
    street_address: Option<String>,
    #[schema(required = false, schema_with = values::address_part)]
    locality: Option<String>,
    #[schema(required = false, schema_with = values::address_part)]
    region: Option<String>,
    #[schema(required = false, schema_with = values::address_part)]
    postal_code: Option<String>,
    #[schema(required = false, schema_with = values::address_part)]
    country: Option<String>,
}

/// What the user wants to hear of.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"email": {"newsletter": true}}))]
struct EmailPreferences {
    #[schema(required = false, schema_with = values::categories)]
    email: Option<()>,
}

/// Changes of what the user wants to hear of: null removes a category, or all of them.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"email": {"newsletter": false, "offers": null}}))]
struct EmailPreferenceChanges {
    #[schema(required = false, schema_with = values::category_changes)]
    email: Option<()>,
}

/// All that the user wants to hear of.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"email": {"newsletter": false}, "reason": "asked for it"}))]
pub(crate) struct Preferences {
    #[schema(required = true, schema_with = values::required_categories)]
    email: Option<()>,
    #[schema(required = false, schema_with = values::reason)]
    reason: Option<String>,
}

/// Why; it is kept with the event.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"reason": "left the company"}))]
pub(crate) struct Reason {
    #[schema(required = false, schema_with = values::reason)]
    reason: Option<String>,
}

/// An address.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"email": "ada@example.org"}))]
pub(crate) struct Email {
    #[schema(schema_with = values::email)]
    email: String,
    #[schema(required = false, schema_with = values::reason)]
    reason: Option<String>,
}

/// A version of a terms document.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"policy": "privacy", "version": "2026-01"}))]
pub(crate) struct AcceptTerms {
    #[schema(schema_with = values::policy)]
    policy: String,
    #[schema(schema_with = values::policy_version)]
    version: String,
    #[schema(required = false, schema_with = values::reason)]
    reason: Option<String>,
}

/// What a command answers.
#[derive(ToSchema)]
#[schema(example = json!({"id": "01934a1c-7c5e-7b6a-9d2f-3c4b5a697887", "version": 17}))]
pub(crate) struct Done {
    id: Uuid,
    /// The user's version after the command.
    #[schema(minimum = 1)]
    version: u64,
}
