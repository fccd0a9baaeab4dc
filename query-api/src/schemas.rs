//! What answers look like, for the OpenAPI document alone. The fuzzer holds the answers against it.
#![expect(dead_code, reason = "only their descriptions are used")]

mod audit;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use utoipa::{
    IntoParams, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{AdditionalProperties, ObjectBuilder, SchemaType, Type},
    },
};
use uuid::Uuid;

pub(crate) use audit::{AuditParams, Events, History};

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

/// Traits by name.
fn traits() -> Schema {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(AdditionalProperties::RefOr(RefOr::T(trait_value(&[])))))
        .description(Some("Traits by name: text, numbers, booleans, and dates as text"))
        .into()
}

fn trait_value(besides: &[Type]) -> Schema {
    let types = [&[Type::String, Type::Number, Type::Boolean], besides].concat();
    ObjectBuilder::new().schema_type(SchemaType::Array(types)).into()
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

/// The filters of a listing; everything must hold.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct UserFilter {
    /// What the user's status is.
    #[param(required = false, inline, example = "active")]
    status: UserStatus,
    /// The whole address, in any case. POST …/query keeps it out of the URL.
    #[param(required = false, schema_with = email, example = "ada@example.com")]
    email: String,
    /// Beginnings of words of a user's names, in any order.
    #[param(required = false, schema_with = sought_name, example = "ada lov")]
    name: String,
    /// `source:id`, the whole of both.
    #[param(required = false, schema_with = external_id, example = "hr:E0001")]
    external_id: String,
}

/// What users are sought; everything must hold.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "ada lov", "traits": {"department": "R&D"}, "page_size": 100}))]
pub(crate) struct UserQuery {
    #[schema(required = false, schema_with = status_or_null)]
    status: Option<String>,
    #[schema(required = false, schema_with = email_or_null)]
    email: Option<String>,
    #[schema(required = false, schema_with = sought_name_or_null)]
    name: Option<String>,
    #[schema(required = false, schema_with = external_id_or_null)]
    external_id: Option<String>,
    #[schema(required = false, schema_with = sought_traits)]
    traits: Option<()>,
    #[schema(required = false, minimum = 1, maximum = 1000, default = 50)]
    page_size: Option<u32>,
    /// `next_page_token` of the page before.
    #[schema(required = false, pattern = "^[A-Za-z0-9_-]{2,2048}$")]
    page_token: Option<String>,
}

fn text(null: bool) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(match null {
        true => SchemaType::Array(vec![Type::String, Type::Null]),
        false => Type::String.into(),
    })
}

fn status_or_null() -> Schema {
    text(true).enum_values(Some([Some("active"), Some("deactivated"), None])).into()
}

fn email() -> Schema {
    of_email(text(false))
}

fn email_or_null() -> Schema {
    of_email(text(true)).into()
}

fn of_email(schema: ObjectBuilder) -> Schema {
    let format = utoipa::openapi::SchemaFormat::KnownFormat(utoipa::openapi::KnownFormat::Email);
    schema
        .format(Some(format))
        .max_length(Some(254))
        .description(Some("The whole address, in any case"))
        .into()
}

fn sought_name() -> Schema {
    of_name(text(false))
}

fn sought_name_or_null() -> Schema {
    of_name(text(true))
}

/// At least one letter or digit, which a pattern that every engine knows can only tell for ASCII.
fn of_name(schema: ObjectBuilder) -> Schema {
    schema
        .max_length(Some(200))
        .format(Some(utoipa::openapi::SchemaFormat::Custom("beginnings-of-names".to_owned())))
        .description(Some(
            "Beginnings of words of a user's names, in any order; at least one letter or digit",
        ))
        .into()
}

fn external_id() -> Schema {
    of_external_id(text(false))
}

fn external_id_or_null() -> Schema {
    of_external_id(text(true))
}

fn of_external_id(schema: ObjectBuilder) -> Schema {
    let id = r"^[a-z0-9][a-z0-9_-]{0,62}:[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$";
    schema.pattern(Some(id)).max_length(Some(264)).description(Some("`source:id`, the whole of both")).into()
}

fn sought_traits() -> Schema {
    let names = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(r"^(?!reason$)[A-Za-z][A-Za-z0-9_.-]{0,63}$"));
    let values = ObjectBuilder::new()
        .schema_type(SchemaType::Array(vec![Type::String, Type::Number, Type::Boolean]))
        .pattern(Some(r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*$"))
        .max_length(Some(2000))
        .minimum(Some(-7.9e28))
        .maximum(Some(7.9e28));
    ObjectBuilder::new()
        .schema_type(SchemaType::Array(vec![Type::Object, Type::Null]))
        .property_names(Some(names.build()))
        .additional_properties(Some(AdditionalProperties::RefOr(RefOr::T(values.into()))))
        .description(Some("Values by name of trait"))
        .into()
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
