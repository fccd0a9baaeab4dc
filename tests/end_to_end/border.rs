//! The rules at the border: who may have what, on which version, and what a refusal says.

use serde_json::{Value, json};

use crate::{
    USERS, ada, errors, ids,
    rollcall::{Answer, Client, Rollcall},
    user,
};

async fn change_email(client: &Client, id: &str, email: &str) -> Answer {
    client.post(&user(id, "/change-email"), json!({"email": email})).await
}

#[tokio::test]
async fn an_email_is_one_users_of_a_tenant_whatever_its_case() {
    let client = Rollcall::shared().new_tenant();
    let first = client.create("Ada@Example.com").await.expect(201).id();
    let taken = client.create("aDA@eXAMPLE.com").await.expect(409);
    assert_eq!(taken.code(), "email-taken");
    assert!(errors(&taken.json()).contains_key("/email"));
    assert!(!taken.text.contains("xample") && !taken.text.contains(&first), "{taken:?}");
    let second = client.create("grace@example.com").await.expect(201).id();
    assert_eq!(change_email(&client, &second, "ADA@example.com").await.expect(409).code(), "email-taken");

    change_email(&client, &first, "ada@example.org").await.expect(200);
    change_email(&client, &second, "ada@example.com").await.expect(200);
    client.create("grace@example.com").await.expect(201);
    assert_eq!(change_email(&client, &first, "ada@example.com").await.expect(409).code(), "email-taken");
}

#[tokio::test]
async fn two_tenants_may_have_users_of_the_same_email_and_external_id() {
    let clients = [Rollcall::shared().new_tenant(), Rollcall::shared().new_tenant()];
    for client in &clients {
        let created = client.post(USERS, ada()).await.expect(201);
        let found =
            client.get_after(&format!("{USERS}?email=ada@example.com"), created.token()).await.expect(200);
        assert_eq!(ids(&found), [created.id()]);
    }
}

#[tokio::test]
async fn an_external_id_is_one_users_of_a_tenant() {
    let client = Rollcall::shared().new_tenant();
    let with = |email: &str, source: &str, id: &str| json!({"email": email, "given_name": "Ada", "external_ids": {source: id}});
    let first = client.post(USERS, with("a@example.com", "hr", "E1")).await.expect(201).id();
    let taken = client.post(USERS, with("b@example.com", "hr", "E1")).await.expect(409);
    assert_eq!(taken.code(), "external-id-taken");
    assert!(errors(&taken.json()).contains_key("/external_ids"));
    client.post(USERS, with("b@example.com", "crm", "E1")).await.expect(201);
    let other = client.post(USERS, with("c@example.com", "hr", "e1")).await.expect(201).id();
    let move_to = |id: Value| json!({"external_ids": {"hr": id}});
    let refused = client.patch(&user(&other, ""), move_to("E1".into())).await.expect(409);
    assert_eq!(refused.code(), "external-id-taken");
    client.patch(&user(&first, ""), move_to(Value::Null)).await.expect(200);
    client.patch(&user(&other, ""), move_to("E1".into())).await.expect(200);
}

#[tokio::test]
async fn a_chosen_id_is_taken_once_in_a_tenant() {
    let client = Rollcall::shared().new_tenant();
    let id = uuid::Uuid::new_v4().to_string();
    let with = |email: &str| json!({"id": id, "email": email, "given_name": "Ada"});
    let created = client.post(USERS, with("a@example.com")).await.expect(201);
    assert_eq!(created.id(), id);
    assert_eq!(client.post(USERS, with("b@example.com")).await.expect(409).code(), "already-exists");
    assert_eq!(client.post(USERS, with("a@example.com")).await.expect(409).code(), "already-exists");
    client.create("b@example.com").await.expect(201);
    // Another tenant has ids of its own.
    let other = Rollcall::shared().new_tenant();
    let created = other.post(USERS, with("a@example.com")).await.expect(201);
    let read = other.get_after(&user(&id, ""), created.token()).await.expect(200).json();
    assert_eq!(read["tenant"], other.tenant.as_str());
}

#[tokio::test]
async fn a_deactivated_user_takes_corrections_and_keeps_its_email() {
    let client = Rollcall::shared().new_tenant();
    let id = client.post(USERS, ada()).await.expect(201).id();
    client.post(&user(&id, "/deactivate"), json!({})).await.expect(200);
    let gold = user(&id, "/associations/membership/gold");
    let refused: [(&str, String, Value); 5] = [
        ("POST", user(&id, "/accept-terms"), json!({"policy": "privacy", "version": "1"})),
        ("POST", user(&id, "/verify-email"), json!({"email": "ada@example.com"})),
        ("PUT", user(&id, "/preferences"), json!({"email": {"offers": true}})),
        ("PUT", user(&id, "/associations/membership/silver"), json!({})),
        ("DELETE", gold.clone(), json!({})),
    ];
    for (method, path, body) in &refused {
        let refused = client.call(method, path, &[], Some(body)).await.expect(409);
        assert_eq!(refused.code(), "user-deactivated", "{method} {path}");
    }
    // What changes nothing succeeds.
    assert_eq!(client.call("PUT", &gold, &[], None).await.expect(200).json()["version"], 2);
    assert_eq!(client.create("ada@example.com").await.expect(409).code(), "email-taken");
    // In open mode the caller has every scope, so it may rectify.
    client.patch(&user(&id, ""), json!({"family_name": "King"})).await.expect(200);
    change_email(&client, &id, "king@example.com").await.expect(200);
    client.post(&user(&id, "/reactivate"), json!({})).await.expect(200);
    for (method, path, body) in &refused[2..] {
        client.call(method, path, &[], Some(body)).await.expect(200);
    }
}

#[tokio::test]
async fn a_command_is_decided_on_the_version_that_if_match_names() {
    let client = Rollcall::shared().new_tenant();
    let id = client.create("a@example.com").await.expect(201).id();
    let path = user(&id, "/traits");
    let mut version = 1;
    for (header, accepted) in [
        ("\"2\"", false),
        ("\"1\"", true),
        ("\"1\"", false),
        ("*", true),
        ("W/\"3\"", false),
        ("\"03\"", false),
        ("\"nonsense\"", false),
        ("\"7\", \"3\"", true),
    ] {
        let body = json!({"step": version});
        let answer = client.call("PATCH", &path, &[("If-Match", header)], Some(&body)).await;
        if accepted {
            version += 1;
            assert_eq!(answer.expect(200).json()["version"], version, "{header}");
        } else {
            assert_eq!(answer.expect(412).code(), "precondition-failed", "{header}");
        }
    }
    let missing = user(&uuid::Uuid::now_v7().to_string(), "/traits");
    for header in ["*", "\"1\""] {
        let answer = client.call("PATCH", &missing, &[("If-Match", header)], Some(&json!({"a": 1}))).await;
        assert_eq!(answer.expect(404).code(), "not-found");
    }
}

#[tokio::test]
async fn only_the_current_email_is_verified() {
    let client = Rollcall::shared().new_tenant();
    let id = client.create("a@example.com").await.expect(201).id();
    let verify = async |email: &str| client.post(&user(&id, "/verify-email"), json!({"email": email})).await;
    assert_eq!(verify("b@example.com").await.expect(409).code(), "email-differs");
    assert_eq!(verify("A@example.com").await.expect(200).json()["version"], 2);
    assert_eq!(verify("a@example.com").await.expect(200).json()["version"], 2);
    let changed = change_email(&client, &id, "b@example.com").await.expect(200);
    assert_eq!(verify("a@example.com").await.expect(409).code(), "email-differs");
    let history = client.get_after(&user(&id, "/history"), changed.token()).await.expect(200).json();
    assert_eq!(
        history["items"][0]["changes"],
        json!([
            {"path": "/email", "from": "a@example.com", "to": "b@example.com"},
            {"path": "/email_verified", "from": true, "to": false},
        ])
    );
}

#[tokio::test]
async fn all_that_is_wrong_with_a_body_is_listed_at_once() {
    let client = Rollcall::shared().new_tenant();
    let body = json!({
        "email": "no address", "phone": "030", "locale": "klingon", "time_zone": "Mars/Base", "kind": "robot",
        "traits": {"9": 1, "list": []}, "associations": [{"kind": "membership"}, {"kind": "A", "key": ""}],
        "external_ids": {"HR": "x"}, "preferences": {"email": {"newsletter": "yes"}, "sms": {}},
        "address": {"contry": "UK"}, "emial": "x", "givenName": "Ada", "id": "7"
    });
    let refused = client.post(USERS, body).await.expect(422);
    assert_eq!(refused.code(), "invalid-members");
    let errors = errors(&refused.json());
    let places: Vec<_> = errors.keys().map(String::as_str).collect();
    let sought = [
        "/address/contry",
        "/associations/0/key",
        "/associations/1/key",
        "/associations/1/kind",
        "/email",
        "/emial",
        "/external_ids/HR",
        "/givenName",
        "/given_name",
        "/id",
        "/kind",
        "/locale",
        "/phone",
        "/preferences/email/newsletter",
        "/preferences/sms",
        "/time_zone",
        "/traits/9",
        "/traits/list",
    ];
    assert_eq!(places, sought);
    for (place, meant) in
        [("/emial", "`email`"), ("/givenName", "`given_name`"), ("/address/contry", "`country`")]
    {
        assert!(errors[place].contains(meant), "{place}: {}", errors[place]);
    }
    let nothing = client.post(USERS, json!({})).await.expect(422);
    assert_eq!(self::errors(&nothing.json()).keys().collect::<Vec<_>>(), ["/email", "/given_name"]);
}
