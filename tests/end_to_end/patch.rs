//! Updating a user: a JSON merge patch (RFC 7396).

use serde_json::{Value, json};

use crate::{
    USERS, ada, errors,
    rollcall::{Answer, Client, Rollcall},
    user,
};

async fn patched(client: &Client, id: &str, patch: Value) -> Value {
    let done = client.patch(&user(id, ""), patch).await.expect(200);
    client.get_after(&user(id, ""), done.token()).await.expect(200).json()
}

async fn refused(client: &Client, id: &str, patch: Value) -> Answer {
    let refused = client.patch(&user(id, ""), patch).await.expect(422);
    assert_eq!(refused.code(), "invalid-members");
    refused
}

#[tokio::test]
async fn absent_members_stay_null_clears_and_maps_merge() {
    let client = Rollcall::shared().new_tenant();
    let id = client.post(USERS, ada()).await.expect(201).id();
    let before = client.patch(&user(&id, ""), json!({})).await.expect(200);
    assert_eq!(before.json()["version"], 1, "an empty patch changes nothing");

    let read = patched(
        &client,
        &id,
        json!({
            "family_name": "King", "phone": null, "locale": "de", "address": {"locality": "Ockham", "country": "UK"},
            "traits": {"department": null, "level": 7}, "external_ids": {"crm": "C1"},
            "preferences": {"email": {"offers": true}}
        }),
    )
    .await;
    assert_eq!(
        (&read["given_name"], &read["family_name"], &read["display_name"]),
        (&json!("Ada"), &json!("King"), &json!("Ada King"))
    );
    assert_eq!((&read["phone"], &read["locale"]), (&Value::Null, &json!("de")));
    assert_eq!(read["time_zone"], "Europe/London");
    assert_eq!(read["traits"], json!({"seats": 3, "level": 7}));
    assert_eq!(read["external_ids"], json!({"crm": "C1", "hr": "E0001"}));
    assert_eq!(read["preferences"], json!({"email": {"newsletter": true, "offers": true}}));
    assert_eq!(read["address"], json!({"locality": "Ockham", "country": "UK"}));
    assert_eq!(read["version"], 4, "an event each for profile, preferences and traits");

    let patch = json!({"address": {"country": null, "region": "Surrey"}, "external_ids": {"hr": null}});
    let read = patched(&client, &id, patch).await;
    assert_eq!(read["address"], json!({"locality": "Ockham", "region": "Surrey"}));
    assert_eq!(read["external_ids"], json!({"crm": "C1"}));

    let patch = json!({"address": null, "traits": null, "external_ids": null, "preferences": null});
    let read = patched(&client, &id, patch).await;
    assert_eq!(read["address"], Value::Null);
    assert_eq!((&read["traits"], &read["external_ids"]), (&json!({}), &json!({})));
    assert_eq!(read["preferences"], json!({}), "no channel is left");
}

#[tokio::test]
async fn both_media_types_are_taken() {
    let client = Rollcall::shared().new_tenant();
    let id = client.create("a@example.com").await.expect(201).id();
    let types = ["application/merge-patch+json", "application/json", "application/json; charset=utf-8"];
    for (media_type, version) in types.into_iter().zip(2..) {
        let body = json!({"family_name": format!("Family {version}")}).to_string();
        let request = client.request("PATCH", &user(&id, "")).header("Content-Type", media_type).body(body);
        assert_eq!(Client::send(request).await.unwrap().expect(200).json()["version"], version);
    }
}

#[tokio::test]
async fn an_email_is_not_patched_but_changed() {
    let client = Rollcall::shared().new_tenant();
    let id = client.post(USERS, ada()).await.expect(201).id();
    for value in [json!("b@example.com"), Value::Null] {
        let refused = refused(&client, &id, json!({"email": value, "given_name": "Augusta"})).await;
        assert!(errors(&refused.json())["/email"].contains("change-email"), "{refused:?}");
    }
    let read = patched(&client, &id, json!({})).await;
    assert_eq!((&read["given_name"], &read["version"]), (&json!("Ada"), &json!(1)));
}

#[tokio::test]
async fn what_cannot_be_patched_is_named() {
    let client = Rollcall::shared().new_tenant();
    let id = client.post(USERS, ada()).await.expect(201).id();
    let patch = json!({
        "associations": [], "kind": "admin", "status": "deactivated", "accepted_terms": [], "id": id,
        "traits": ["no map"], "family_nane": "King", "phone": "none"
    });
    let refused = refused(&client, &id, patch).await;
    let errors = errors(&refused.json());
    let places: Vec<_> = errors.keys().map(String::as_str).collect();
    assert_eq!(
        places,
        ["/accepted_terms", "/associations", "/family_nane", "/id", "/kind", "/phone", "/status", "/traits"]
    );
    assert!(errors["/family_nane"].contains("`family_name`"), "{errors:?}");
}

#[tokio::test]
async fn a_user_keeps_a_name() {
    let client = Rollcall::shared().new_tenant();
    let id = client.create("a@example.com").await.expect(201).id();
    let refused = refused(&client, &id, json!({"given_name": null})).await;
    assert!(errors(&refused.json()).contains_key("/given_name"));
    let read = patched(&client, &id, json!({"given_name": null, "display_name": "The Countess"})).await;
    assert_eq!((&read["given_name"], &read["display_name"]), (&Value::Null, &json!("The Countess")));
}
