//! History, the audit across users, and stored events.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rollcall_projections::audit::event_types;
use utoipa::{
    IntoParams, ToSchema,
    openapi::{
        Schema,
        schema::{ObjectBuilder, Type},
    },
};
use uuid::Uuid;

/// The filters of the audit; everything must hold.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditParams {
    /// Who acted.
    #[param(required = false, pattern = "^[A-Za-z0-9._:|-]{1,128}$", example = "svc:crm")]
    actor: String,
    /// A type of event.
    #[param(rename = "type", required = false, schema_with = event_type, example = "EmailChanged")]
    event_type: String,
    /// The import that it came with.
    #[param(required = false, pattern = "^[A-Za-z0-9._-]{1,128}$", example = "import-7")]
    import: String,
    /// Recorded at or after this instant (RFC 3339).
    #[param(required = false, example = "2026-05-01T00:00:00Z")]
    from: DateTime<Utc>,
    /// Recorded before this instant (RFC 3339).
    #[param(required = false, example = "2026-06-01T00:00:00Z")]
    to: DateTime<Utc>,
}

fn event_type() -> Schema {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(event_types())).into()
}

/// Changes, newest first.
#[derive(ToSchema)]
#[schema(example = json!({"items": [{"user_id": "01934a1c-7c5e-7b6a-9d2f-3c4b5a697887", "version": 2,
    "event": "EmailChanged", "event_id": "01934a1d-02f1-7c31-8f0e-5d2f3c4b5a69",
    "recorded_at": "2026-05-03T10:00:00.000000Z", "actor": "svc:crm", "reason": "new employer",
    "correlation_id": "order-4711", "causation_id": null,
    "changes": [{"path": "/email", "from": "ada@example.com", "to": "ada@example.org"}]}],
    "next_page_token": null}))]
pub(crate) struct History {
    items: Vec<HistoryEntry>,
    /// For the next page; null where this is the last.
    next_page_token: Option<String>,
}

/// One event as an auditor sees it.
#[derive(ToSchema)]
struct HistoryEntry {
    user_id: Uuid,
    /// The user's version after it.
    #[schema(minimum = 1)]
    version: u64,
    #[schema(schema_with = event_type)]
    event: String,
    event_id: Uuid,
    recorded_at: DateTime<Utc>,
    /// Who acted.
    actor: Option<String>,
    /// Why, where it was said.
    reason: Option<String>,
    correlation_id: Option<String>,
    causation_id: Option<String>,
    /// True where the person was erased: what changed is known, from what to what is not.
    #[schema(required = false, nullable = false)]
    erased: Option<bool>,
    changes: Vec<FieldChange>,
}

/// A member that changed.
#[derive(ToSchema)]
struct FieldChange {
    /// A JSON pointer (RFC 6901) into the user.
    path: String,
    /// Null where there was nothing.
    from: serde_json::Value,
    /// Null where there is nothing any more.
    to: serde_json::Value,
}

/// Events as they are stored, oldest first.
#[derive(ToSchema)]
#[schema(example = json!({"items": [{"event_id": "01934a1d-02f1-7c31-8f0e-5d2f3c4b5a69", "event_type": "EmailVerified",
    "event_version": "1", "sequence": 3, "partition": 7, "position": 4711,
    "recorded_at": "2026-05-03T10:00:00.000000Z", "payload": {"EmailVerified": {}},
    "personal": {"email": "ada@example.org"}, "metadata": {"actor": "svc:crm", "correlation_id": "order-4711"}}],
    "next_page_token": null}))]
pub(crate) struct Events {
    items: Vec<StoredEvent>,
    /// For the next page; null where this is the last.
    next_page_token: Option<String>,
}

/// An event of the log.
#[derive(ToSchema)]
struct StoredEvent {
    event_id: Uuid,
    #[schema(schema_with = event_type)]
    event_type: String,
    /// The version of the stored form.
    #[schema(pattern = "^[1-9][0-9]*$")]
    event_version: String,
    /// The user's version after it.
    #[schema(minimum = 1)]
    sequence: u64,
    partition: u16,
    /// Where it stands in its partition.
    #[schema(minimum = 1)]
    position: u64,
    recorded_at: DateTime<Utc>,
    /// The clear members.
    payload: BTreeMap<String, serde_json::Value>,
    /// The personal members, opened; absent where there are none or the person was erased.
    #[schema(required = false, nullable = false)]
    personal: Option<BTreeMap<String, serde_json::Value>>,
    /// True where the person was erased: what stood in `personal` is unreadable for ever.
    #[schema(required = false, nullable = false)]
    erased: Option<bool>,
    /// Who, and what tied it to others.
    metadata: BTreeMap<String, String>,
}
