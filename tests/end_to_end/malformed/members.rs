//! Texts with a NUL, in every member that is text.

use serde_json::{Value, json};

use super::{refused, send};
use crate::{
    USERS, ada, errors,
    rollcall::{Client, Rollcall},
    user,
};

/// Puts a value where a pointer says, making what is missing on the way.
fn put(body: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    if body.pointer(parent).is_none() {
        put(body, parent, json!({}));
    }
    match body.pointer_mut(parent).unwrap() {
        Value::Object(members) => drop(members.insert(name.to_owned(), value)),
        Value::Array(elements) => elements[name.parse::<usize>().unwrap()] = value,
        other => panic!("{pointer}: {other}"),
    }
}

async fn refuses_a_nul_at(client: &Client, method: &str, path: &str, body: &Value, pointers: &[&str]) {
    for pointer in pointers {
        for text in ["\0", "a\0b", "ada\0@example.com"] {
            let mut body = body.clone();
            put(&mut body, pointer, text.into());
            let answer = send(client, method, path, body.to_string()).await;
            let what = format!("{method} {path} {pointer}");
            assert_eq!(
                (answer.status, refused(&answer, &what).as_str()),
                (422, "invalid-members"),
                "{answer:?}"
            );
            assert!(errors(&answer.json()).contains_key(*pointer), "{what}: {answer:?}");
        }
    }
}

const PROFILE: [&str; 16] = [
    "/given_name",
    "/family_name",
    "/display_name",
    "/phone",
    "/locale",
    "/time_zone",
    "/reason",
    "/address/formatted",
    "/address/street_address",
    "/address/locality",
    "/address/region",
    "/address/postal_code",
    "/address/country",
    "/traits/note",
    "/external_ids/hr",
    "/preferences/email/newsletter",
];

#[tokio::test]
async fn no_text_of_a_new_or_patched_user_may_hold_a_nul() {
    let client = Rollcall::shared().new_tenant();
    let own = ["/id", "/email", "/kind", "/associations/0/kind", "/associations/0/key"];
    refuses_a_nul_at(&client, "POST", USERS, &ada(), &own).await;
    refuses_a_nul_at(&client, "POST", USERS, &ada(), &PROFILE).await;
    let id = client.create("a@example.com").await.expect(201).id();
    refuses_a_nul_at(&client, "PATCH", &user(&id, ""), &json!({}), &PROFILE).await;
}

#[tokio::test]
async fn no_text_of_any_command_or_query_may_hold_a_nul() {
    let client = Rollcall::shared().new_tenant();
    let id = client.create("a@example.com").await.expect(201).id();
    for (method, path, body, pointers) in [
        ("POST", "/change-email", json!({}), &["/email"][..]),
        ("POST", "/verify-email", json!({}), &["/email"]),
        (
            "POST",
            "/accept-terms",
            json!({"policy": "privacy", "version": "1"}),
            &["/policy", "/version", "/reason"],
        ),
        ("POST", "/deactivate", json!({}), &["/reason"]),
        ("POST", "/reactivate", json!({}), &["/reason"]),
        ("DELETE", "", json!({}), &["/reason"]),
        ("PATCH", "/traits", json!({}), &["/note", "/reason"]),
        ("PUT", "/preferences", json!({"email": {}}), &["/email/newsletter", "/reason"]),
        ("PUT", "/associations/membership/gold", json!({}), &["/reason"]),
        ("DELETE", "/associations/membership/gold", json!({}), &["/reason"]),
    ] {
        refuses_a_nul_at(&client, method, &user(&id, path), &body, pointers).await;
    }
    let members = ["/status", "/email", "/name", "/external_id", "/traits/note", "/page_token"];
    refuses_a_nul_at(&client, "POST", "/api/v1/users/query", &json!({}), &members).await;
    let ids = json!({"ids": [id]});
    refuses_a_nul_at(&client, "POST", "/api/v1/users/batch-get", &ids, &["/ids/0"]).await;
}

#[tokio::test]
async fn no_name_may_hold_a_nul() {
    let client = Rollcall::shared().new_tenant();
    for body in [
        r#"{"email": "a@example.com", "given_name": "A", "traits": {"a\u0000": 1}}"#,
        r#"{"email": "a@example.com", "given_name": "A", "external_ids": {"\u0000": "1"}}"#,
        r#"{"email": "a@example.com", "given_name": "A", "preferences": {"email": {"\u0000": true}}}"#,
        r#"{"email": "a@example.com", "given_name": "A", "\u0000": true}"#,
    ] {
        let answer = send(&client, "POST", USERS, body).await.expect(422);
        assert_eq!(refused(&answer, body), "invalid-members");
    }
    let body = r#"{"traits": {"a\u0000": 1}}"#;
    send(&client, "POST", "/api/v1/users/query", body).await.expect(422);
}

#[tokio::test]
async fn no_text_of_a_batch_may_hold_a_nul() {
    let client = Rollcall::shared().new_tenant();
    for (body, pointer) in [
        (json!([{"type": "\0"}]), "/0/type"),
        (json!([{"type": "DeactivateUser", "id": "\0"}]), "/0/id"),
        (
            json!([{"type": "CreateUser", "data": {"email": "a@example.com", "given_name": "\0"}}]),
            "/0/data/given_name",
        ),
    ] {
        let outcome = client.post("/api/v1/commands", body).await.expect(200).json()["outcomes"][0].clone();
        assert_eq!(outcome["problem"]["code"], "invalid-members");
        assert!(errors(&outcome["problem"]).contains_key(pointer), "{outcome}");
    }
}
