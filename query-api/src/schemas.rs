//! What answers look like, for the OpenAPI document alone.
#![expect(dead_code, reason = "only their descriptions are used")]

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use utoipa::ToSchema;
use uuid::Uuid;

/// A user as it is now. Absent and null mean the same.
#[derive(ToSchema)]
pub(crate) struct User {
    id: Uuid,
    tenant: String,
    /// customer or admin
    kind: String,
    /// active or deactivated
    status: String,
    #[schema(required = false)]
    email: Option<String>,
    email_verified: bool,
    #[schema(required = false)]
    given_name: Option<String>,
    #[schema(required = false)]
    family_name: Option<String>,
    /// The name to show: what was set, or given and family name together.
    #[schema(required = false)]
    display_name: Option<String>,
    #[schema(required = false)]
    phone: Option<String>,
    #[schema(required = false)]
    address: Option<BTreeMap<String, String>>,
    #[schema(required = false)]
    locale: Option<String>,
    #[schema(required = false)]
    time_zone: Option<String>,
    preferences: EmailPreferences,
    traits: BTreeMap<String, serde_json::Value>,
    associations: Vec<BTreeMap<String, String>>,
    external_ids: BTreeMap<String, String>,
    accepted_terms: Vec<AcceptedTerms>,
    version: u64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(ToSchema)]
struct AcceptedTerms {
    policy: String,
    version: String,
    accepted_at: DateTime<Utc>,
}

#[derive(ToSchema)]
#[schema(as = UserEmailPreferences)]
pub(crate) struct EmailPreferences {
    email: BTreeMap<String, bool>,
}

#[derive(ToSchema)]
pub(crate) struct Terms {
    items: Vec<AcceptedTerms>,
    #[schema(required = false)]
    next_page_token: Option<String>,
}

#[derive(ToSchema)]
pub(crate) struct Users {
    items: Vec<User>,
    #[schema(required = false)]
    next_page_token: Option<String>,
}

#[derive(ToSchema)]
#[schema(example = json!({"name": "ada lov", "traits": {"department": "R&D"}, "page_size": 100}))]
pub(crate) struct UserQuery {
    #[schema(required = false)]
    status: Option<String>,
    #[schema(required = false)]
    email: Option<String>,
    #[schema(required = false)]
    name: Option<String>,
    #[schema(required = false)]
    external_id: Option<String>,
    #[schema(required = false)]
    traits: Option<BTreeMap<String, serde_json::Value>>,
    #[schema(required = false, minimum = 1, maximum = 1000)]
    page_size: Option<u32>,
    #[schema(required = false)]
    page_token: Option<String>,
}

#[derive(ToSchema)]
#[schema(example = json!({"ids": ["01934a1c-7c5e-7b6a-9d2f-3c4b5a697887"]}))]
pub(crate) struct BatchGet {
    #[schema(max_items = 1000)]
    ids: Vec<Uuid>,
}

#[derive(ToSchema)]
pub(crate) struct UsersById {
    items: Vec<User>,
    missing: Vec<Uuid>,
}

#[derive(ToSchema)]
pub(crate) struct History {
    items: Vec<HistoryEntry>,
    #[schema(required = false)]
    next_page_token: Option<String>,
}

#[derive(ToSchema)]
struct HistoryEntry {
    user_id: Uuid,
    version: u64,
    /// For example EmailChanged.
    event: String,
    event_id: Uuid,
    recorded_at: DateTime<Utc>,
    #[schema(required = false)]
    actor: Option<String>,
    #[schema(required = false)]
    reason: Option<String>,
    #[schema(required = false)]
    correlation_id: Option<String>,
    #[schema(required = false)]
    causation_id: Option<String>,
    changes: Vec<FieldChange>,
}

#[derive(ToSchema)]
struct FieldChange {
    /// A JSON pointer (RFC 6901).
    path: String,
    #[schema(required = false)]
    from: Option<serde_json::Value>,
    #[schema(required = false)]
    to: Option<serde_json::Value>,
}

#[derive(ToSchema)]
pub(crate) struct Events {
    items: Vec<StoredEvent>,
    #[schema(required = false)]
    next_page_token: Option<String>,
}

#[derive(ToSchema)]
struct StoredEvent {
    event_id: Uuid,
    event_type: String,
    event_version: String,
    sequence: u64,
    partition: u16,
    position: u64,
    recorded_at: DateTime<Utc>,
    /// The clear members.
    payload: serde_json::Value,
    /// The personal members, opened.
    #[schema(required = false)]
    personal: Option<serde_json::Value>,
    metadata: BTreeMap<String, String>,
}
