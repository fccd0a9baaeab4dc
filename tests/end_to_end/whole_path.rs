//! A command becomes an event, a profile and an audit entry.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    USERS, ada,
    rollcall::{Client, Rollcall},
    user,
};

/// Takes a member out of an object.
fn take(value: &mut Value, name: &str) -> Value {
    value.as_object_mut().unwrap().remove(name).unwrap_or_else(|| panic!("{name} is not there"))
}

/// An instant as answers have it: RFC 3339, UTC, microseconds, and now.
fn is_now(instant: &Value) {
    let text = instant.as_str().unwrap();
    assert!(text.len() == 27 && text.ends_with('Z'), "{text}");
    let age = Utc::now() - text.parse::<DateTime<Utc>>().unwrap();
    assert!((-5..120).contains(&age.num_seconds()), "{text}");
}

/// Creates the example user and changes its email.
async fn ada_with_another_email(client: &Client) -> (String, String) {
    let headers = [("Actor", "svc:crm"), ("Correlation-Id", "c-1"), ("Causation-Id", "m-1")];
    let id = client.call("POST", USERS, &headers, Some(&ada())).await.expect(201).id();
    let headers = [("Actor", "auth0|desk"), ("Correlation-Id", "c-2")];
    let body = json!({"email": "Ada@Example.org", "reason": "a typo"});
    let changed = client.call("POST", &user(&id, "/change-email"), &headers, Some(&body)).await.expect(200);
    assert_eq!(changed.json(), json!({"id": id, "version": 2}));
    (id, changed.token().to_owned())
}

#[tokio::test]
async fn a_created_user_is_read_back_whole() {
    let client = Rollcall::shared().new_tenant();
    let created = client.post(USERS, ada()).await.expect(201);
    let id = created.id();
    assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7);
    assert_eq!(created.json(), json!({"id": id, "version": 1}));
    assert_eq!(created.header("location"), Some(user(&id, "").as_str()));
    assert_eq!(created.header("etag"), Some("\"1\""));
    assert_eq!(created.header("content-type"), Some("application/json"));

    let read = client.get_after(created.header("location").unwrap(), created.token()).await.expect(200);
    assert_eq!(read.header("etag"), Some("\"1\""));
    let mut profile = read.json();
    let created_at = take(&mut profile, "created_at");
    is_now(&created_at);
    assert_eq!(take(&mut profile, "updated_at"), created_at);
    assert_eq!(
        profile,
        json!({
            "id": id, "tenant": client.tenant, "kind": "customer", "status": "active",
            "email": "ada@example.com", "email_verified": false,
            "given_name": "Ada", "family_name": "Lovelace", "display_name": "Ada Lovelace",
            "phone": "+4930123456", "locale": "en-GB", "time_zone": "Europe/London",
            "preferences": {"email": {"newsletter": true}},
            "traits": {"department": "R&D", "seats": 3},
            "associations": [{"kind": "membership", "key": "gold"}],
            "external_ids": {"hr": "E0001"}, "accepted_terms": [], "version": 1
        })
    );
}

#[tokio::test]
async fn a_history_says_who_changed_what_and_why_newest_first() {
    let client = Rollcall::shared().new_tenant();
    let (id, token) = ada_with_another_email(&client).await;
    let mut history = client.get_after(&user(&id, "/history"), &token).await.expect(200).json();
    assert_eq!(history["next_page_token"], Value::Null);
    let items = history["items"].as_array_mut().unwrap();
    assert_eq!(items.len(), 2);
    for item in items.iter_mut() {
        is_now(&take(item, "recorded_at"));
        let event_id = take(item, "event_id");
        assert_eq!(uuid::Uuid::parse_str(event_id.as_str().unwrap()).unwrap().get_version_num(), 7);
    }
    assert_eq!(
        items[0],
        json!({
            "user_id": id, "version": 2, "event": "EmailChanged", "actor": "auth0|desk", "reason": "a typo",
            "correlation_id": "c-2", "causation_id": null,
            "changes": [{"path": "/email", "from": "ada@example.com", "to": "ada@example.org"}]
        })
    );
    let changes = take(&mut items[1], "changes");
    assert_eq!(
        items[1],
        json!({
            "user_id": id, "version": 1, "event": "UserCreated", "actor": "svc:crm", "reason": null,
            "correlation_id": "c-1", "causation_id": "m-1"
        })
    );
    let to = |path: &str, to: Value| json!({"path": path, "from": null, "to": to});
    assert_eq!(
        changes,
        json!([
            to("/kind", json!("customer")),
            to("/status", json!("active")),
            to("/email", json!("ada@example.com")),
            to("/given_name", json!("Ada")),
            to("/family_name", json!("Lovelace")),
            to("/phone", json!("+4930123456")),
            to("/locale", json!("en-GB")),
            to("/time_zone", json!("Europe/London")),
            to("/preferences/email/newsletter", json!(true)),
            to("/traits/department", json!("R&D")),
            to("/traits/seats", json!(3)),
            to("/associations/membership/gold", json!({"kind": "membership", "key": "gold"})),
            to("/external_ids/hr", json!("E0001")),
        ])
    );
}

#[tokio::test]
async fn histories_and_events_are_read_page_by_page() {
    let client = Rollcall::shared().new_tenant();
    let (id, token) = ada_with_another_email(&client).await;
    for (what, member, versions) in [("history", "version", [2, 1]), ("events", "sequence", [1, 2])] {
        let path = user(&id, &format!("/{what}?page_size=1"));
        let first = client.get_after(&path, &token).await.expect(200).json();
        let next = first["next_page_token"].as_str().unwrap();
        let second = client.get_after(&format!("{path}&page_token={next}"), &token).await.expect(200).json();
        for (page, version) in [(&first, versions[0]), (&second, versions[1])] {
            assert_eq!(page["items"].as_array().unwrap().len(), 1, "{what}");
            assert_eq!(page["items"][0][member], version, "{what}");
        }
        assert_eq!(second["next_page_token"], Value::Null, "{what}");
    }
}

#[tokio::test]
async fn events_are_shown_as_they_are_stored() {
    let client = Rollcall::shared().new_tenant();
    let (id, token) = ada_with_another_email(&client).await;
    let events = client.get_after(&user(&id, "/events"), &token).await.expect(200).json();
    let items = events["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    let (created, changed) = (&items[0], &items[1]);
    assert_eq!((&created["sequence"], &changed["sequence"]), (&json!(1), &json!(2)));
    assert_eq!(
        (&created["event_type"], &changed["event_type"]),
        (&json!("UserCreated"), &json!("EmailChanged"))
    );
    assert_eq!((&created["event_version"], &changed["event_version"]), (&json!("1"), &json!("1")));
    assert_eq!(created["partition"], changed["partition"]);
    assert!(created["position"].as_u64() < changed["position"].as_u64());
    assert!(created["recorded_at"].as_str() < changed["recorded_at"].as_str());
    let fields = [
        "email",
        "given_name",
        "family_name",
        "phone",
        "locale",
        "time_zone",
        "preferences",
        "traits",
        "associations",
        "external_ids",
    ];
    assert_eq!(created["payload"], json!({"UserCreated": {"kind": "customer", "changed": fields}}));
    assert_eq!(created["personal"]["email"], "ada@example.com");
    assert_eq!(changed["payload"], json!({"EmailChanged": {}}));
    assert_eq!(changed["personal"]["to"], "ada@example.org");
    assert_eq!(
        created["metadata"],
        json!({"actor": "svc:crm", "causation_id": "m-1", "correlation_id": "c-1"})
    );
}

#[tokio::test]
async fn accepted_terms_and_email_preferences_are_read_by_themselves() {
    let client = Rollcall::shared().new_tenant();
    let id = client.post(USERS, ada()).await.expect(201).id();
    let mut token = String::new();
    for (policy, version) in [("privacy", "2026-01"), ("terms", "7"), ("privacy", "2026-02")] {
        let body = json!({"policy": policy, "version": version});
        token = client.post(&user(&id, "/accept-terms"), body).await.expect(200).token().to_owned();
    }
    let terms = client.get_after(&user(&id, "/terms"), &token).await.expect(200).json();
    assert_eq!(terms["next_page_token"], Value::Null);
    let items = terms["items"].as_array().unwrap();
    let named: Vec<_> =
        items.iter().map(|item| (item["policy"].as_str(), item["version"].as_str())).collect();
    let sought = [("privacy", "2026-01"), ("terms", "7"), ("privacy", "2026-02")];
    assert_eq!(named, sought.map(|(policy, version)| (Some(policy), Some(version))));
    items.iter().for_each(|item| is_now(&item["accepted_at"]));
    let profile = client.get_after(&user(&id, ""), &token).await.expect(200).json();
    assert_eq!(profile["accepted_terms"], terms["items"]);

    let preferences = client.get_after(&user(&id, "/email-preferences"), &token).await.expect(200);
    assert_eq!(preferences.json(), json!({"email": {"newsletter": true}}));
    assert_eq!(preferences.header("etag"), Some("\"4\""));
}
