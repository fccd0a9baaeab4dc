//! What answers look like, for the OpenAPI document alone. The fuzzer holds the answers against it.
#![expect(dead_code, reason = "only their descriptions are used")]

mod audit;
mod filter;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use utoipa::{
    ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{AdditionalProperties, ObjectBuilder, SchemaType, Type},
    },
};
use uuid::Uuid;

pub(crate) use audit::{AuditParams, Events, History};
pub(crate) use filter::{UserFilter, UserQuery};

/// A user as it is now. What is absent is not set.
#[derive(ToSchema)]
#[schema(example = json!({"id": "01934a1c-7c5e-7b6a-9d2f-3c4b5a697887", "tenant": "acme", "kind": "customer",
    "status": "active", "email": "ada@example.com", "email_verified": false, "given_name": "Ada",
    "family_name": "Lovelace", "display_name": "Ada Lovelace", "phone": "+4930123456", "locale": "en-GB",
    "time_zone": "Europe/London", "preferences": {"email": {"newsletter": true}},
    "traits": {"department": "R&D", "seats": 3}, "associations": [{"kind": "membership", "key": "gold"}],
    "external_ids": {"hr": "E0001"},
    "accepted_terms": [{"policy": "privacy", "version": "2026-01", "accepted_at": "2026-05-03T10:00:00.000000Z"}],
    "version": 2, "created_at": "2026-05-03T09:59:00.000000Z", "updated_at": "2026-05-03T10:00:00.000000Z"}))]
pub(crate) struct User {
    id: Uuid,
    tenant: String,
    kind: UserKind,
    #[schema(required = false, nullable = false)]
    status: Option<UserStatus>,
    #[schema(required = false, nullable = false, format = Email)]
    email: Option<String>,
    email_verified: bool,
    #[schema(required = false, nullable = false)]
    given_name: Option<String>,
    #[schema(required = false, nullable = false)]
    family_name: Option<String>,
    /// The name to show: what was set, or given and family name together.
    #[schema(required = false, nullable = false)]
    display_name: Option<String>,
    /// E.164
    #[schema(required = false, nullable = false)]
    phone: Option<String>,
    #[schema(required = false, nullable = false)]
    address: Option<UserAddress>,
    /// BCP 47
    #[schema(required = false, nullable = false)]
    locale: Option<String>,
    /// A name of the IANA time zone database.
    #[schema(required = false, nullable = false)]
    time_zone: Option<String>,
    preferences: UserEmailPreferences,
    #[schema(schema_with = traits)]
    traits: (),
    associations: Vec<UserAssociation>,
    /// Ids by source.
    external_ids: BTreeMap<String, String>,
    accepted_terms: Vec<AcceptedTerms>,
    /// Also the answer's ETag, where the user stands alone.
    #[schema(minimum = 1)]
    version: u64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum UserKind {
    Customer,
    Admin,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum UserStatus {
    Active,
    Deactivated,
}

/// A postal address (OpenID Connect Core 1.0, section 5.1.1).
#[derive(ToSchema)]
struct UserAddress {
    #[schema(required = false, nullable = false)]
    formatted: Option<String>,
    #[schema(required = false, nullable = false)]
    street_address: Option<String>,
    #[schema(required = false, nullable = false)]
    locality: Option<String>,
    #[schema(required = false, nullable = false)]
    region: Option<String>,
    #[schema(required = false, nullable = false)]
    postal_code: Option<String>,
    #[schema(required = false, nullable = false)]
    country: Option<String>,
}

/// What a user belongs to.
#[derive(ToSchema)]
struct UserAssociation {
    kind: String,
    key: String,
}

/// A version of a terms document, and when the user accepted it.
#[derive(ToSchema)]
struct AcceptedTerms {
    policy: String,
    version: String,
    accepted_at: DateTime<Utc>,
}

/// Whether the user wants emails, by category.
#[derive(ToSchema)]
#[schema(example = json!({"email": {"newsletter": true}}))]
pub(crate) struct UserEmailPreferences {
    #[schema(required = false, nullable = false)]
    email: Option<BTreeMap<String, bool>>,
}

fn traits() -> Schema {
    let value = ObjectBuilder::new()
        .schema_type(SchemaType::Array(vec![Type::String, Type::Number, Type::Boolean]))
        .into();
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(AdditionalProperties::RefOr(RefOr::T(value))))
        .description(Some("Traits by name: text, numbers, booleans, and dates as text"))
        .into()
}

/// All that a user accepted.
#[derive(ToSchema)]
#[schema(example = json!({"items": [{"policy": "privacy", "version": "2026-01",
    "accepted_at": "2026-05-03T10:00:00.000000Z"}], "next_page_token": null}))]
pub(crate) struct Terms {
    items: Vec<AcceptedTerms>,
    /// Always null: there is one page.
    next_page_token: Option<String>,
}

/// A page of users.
#[derive(ToSchema)]
#[schema(example = json!({"items": [{"id": "01934a1c-7c5e-7b6a-9d2f-3c4b5a697887", "tenant": "acme",
    "kind": "customer", "status": "active", "email": "ada@example.com", "email_verified": true, "given_name": "Ada",
    "display_name": "Ada", "preferences": {}, "traits": {}, "associations": [], "external_ids": {},
    "accepted_terms": [], "version": 2, "created_at": "2026-05-03T09:59:00.000000Z",
    "updated_at": "2026-05-03T10:00:00.000000Z"}],
    "next_page_token": "ATAxOTM0YTFjLTdjNWUtN2I2YS05ZDJmLTNjNGI1YTY5Nzg4Nw"}))]
pub(crate) struct Users {
    items: Vec<User>,
    /// For the next page; null where this is the last.
    next_page_token: Option<String>,
}

/// Whom to get.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"ids": ["01934a1c-7c5e-7b6a-9d2f-3c4b5a697887"]}))]
pub(crate) struct BatchGet {
    #[schema(max_items = 1000)]
    ids: Vec<Uuid>,
}

/// Users in the order of the ids, and the ids of those that are not there.
#[derive(ToSchema)]
#[schema(example = json!({"items": [], "missing": ["01934a1c-7c5e-7b6a-9d2f-3c4b5a697887"]}))]
pub(crate) struct UsersById {
    items: Vec<User>,
    missing: Vec<Uuid>,
}
