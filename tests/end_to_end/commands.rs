//! Every command by its route.

use serde_json::{Value, json};

use crate::{
    USERS, ada,
    rollcall::{Answer, Client, Rollcall},
    user,
};

/// The profile as it is after a command, whose answer is checked.
async fn after(client: &Client, id: &str, version: u64, done: Answer) -> Value {
    let done = done.expect(200);
    assert_eq!(done.json(), json!({"id": id, "version": version}));
    assert_eq!(done.header("etag"), Some(format!("\"{version}\"").as_str()));
    assert_eq!(done.header("location"), None);
    let read = client.get_after(&user(id, ""), done.token()).await.expect(200).json();
    assert_eq!(read["version"], version);
    read
}

/// The newest entry of a history that has all.
async fn newest(client: &Client, id: &str, token: &str) -> Value {
    client.get_after(&user(id, "/history?page_size=1"), token).await.expect(200).json()["items"][0].clone()
}

async fn new_ada(client: &Client) -> String {
    client.post(USERS, ada()).await.expect(201).id()
}

#[tokio::test]
async fn every_verb_does_what_it_says() {
    let client = Rollcall::shared().new_tenant();
    let id = new_ada(&client).await;
    let verb = async |verb: &str, body: Value| client.post(&user(&id, &format!("/{verb}")), body).await;

    let read = after(&client, &id, 2, verb("verify-email", json!({"email": "ADA@example.com"})).await).await;
    assert_eq!(read["email_verified"], true);
    let read = after(&client, &id, 3, verb("change-email", json!({"email": "a@example.com"})).await).await;
    assert_eq!((&read["email"], &read["email_verified"]), (&json!("a@example.com"), &json!(false)));
    let terms = json!({"policy": "privacy", "version": "2026-01"});
    let read = after(&client, &id, 4, verb("accept-terms", terms).await).await;
    assert_eq!(read["accepted_terms"][0]["policy"], "privacy");
    let read = after(&client, &id, 5, verb("deactivate", json!({"reason": "left"})).await).await;
    assert_eq!(read["status"], "deactivated");
    let read = after(&client, &id, 6, verb("reactivate", json!({})).await).await;
    assert_eq!(read["status"], "active");
}

#[tokio::test]
async fn deleting_a_user_deactivates_it() {
    let client = Rollcall::shared().new_tenant();
    let id = new_ada(&client).await;
    let reason = json!({"reason": "left the company"});
    let deleted = client.call("DELETE", &user(&id, ""), &[], Some(&reason)).await;
    let token = deleted.token().to_owned();
    assert_eq!(after(&client, &id, 2, deleted).await["status"], "deactivated");
    let entry = newest(&client, &id, &token).await;
    assert_eq!((&entry["event"], &entry["reason"]), (&json!("UserDeactivated"), &json!("left the company")));
    // Without a body too; it is so already.
    let again = client.call("DELETE", &user(&id, ""), &[], None).await;
    assert_eq!(after(&client, &id, 2, again).await["status"], "deactivated");
}

#[tokio::test]
async fn associations_are_put_and_deleted_whatever_their_key() {
    let client = Rollcall::shared().new_tenant();
    let id = new_ada(&client).await;
    let gold = json!({"kind": "membership", "key": "gold"});
    let odd = json!({"kind": "membership", "key": "gold/Ä #1?50% ~x"});
    let path = user(&id, "/associations/membership/gold%2F%C3%84%20%231%3F50%25%20~x");

    let added = client.call("PUT", &path, &[], Some(&json!({"reason": "paid"}))).await;
    let token = added.token().to_owned();
    assert_eq!(after(&client, &id, 2, added).await["associations"], json!([gold, odd]));
    let entry = newest(&client, &id, &token).await;
    assert_eq!(entry["reason"], "paid");
    let pointer = "/associations/membership/gold~1Ä #1?50% ~0x";
    assert_eq!(entry["changes"], json!([{"path": pointer, "from": null, "to": odd}]));
    after(&client, &id, 2, client.call("PUT", &path, &[], None).await).await;

    let removed = client.call("DELETE", &path, &[], None).await;
    let token = removed.token().to_owned();
    assert_eq!(after(&client, &id, 3, removed).await["associations"], json!([gold]));
    let entry = newest(&client, &id, &token).await;
    assert_eq!(entry["changes"], json!([{"path": pointer, "from": odd, "to": null}]));
    after(&client, &id, 3, client.call("DELETE", &path, &[], None).await).await;
}

#[tokio::test]
async fn putting_preferences_replaces_them() {
    let client = Rollcall::shared().new_tenant();
    let id = new_ada(&client).await;
    let put = async |body: Value| client.call("PUT", &user(&id, "/preferences"), &[], Some(&body)).await;
    let both = json!({"email": {"offers": false, "newsletter": false}});
    assert_eq!(after(&client, &id, 2, put(both.clone()).await).await["preferences"], both);
    let one = json!({"email": {"digest": true}});
    let replaced = put(json!({"email": {"digest": true}, "reason": "asked"})).await;
    let token = replaced.token().to_owned();
    assert_eq!(after(&client, &id, 3, replaced).await["preferences"], one);
    let entry = newest(&client, &id, &token).await;
    assert_eq!(
        entry["changes"],
        json!([
            {"path": "/preferences/email/digest", "from": null, "to": true},
            {"path": "/preferences/email/newsletter", "from": false, "to": null},
            {"path": "/preferences/email/offers", "from": false, "to": null},
        ])
    );
    for lost in [None, Some(json!({}))] {
        let refused = client.call("PUT", &user(&id, "/preferences"), &[], lost.as_ref()).await.expect(422);
        assert_eq!(refused.json()["errors"][0]["pointer"], "/email");
    }
    let none = put(json!({"email": {}})).await;
    let token = none.token().to_owned();
    after(&client, &id, 4, none).await;
    let read = client.get_after(&user(&id, "/email-preferences"), &token).await.expect(200);
    assert_eq!(read.json(), json!({"email": {}}));
}

#[tokio::test]
async fn patching_traits_merges_them() {
    let client = Rollcall::shared().new_tenant();
    let id = new_ada(&client).await;
    let patch = async |body: Value| client.patch(&user(&id, "/traits"), body).await;
    let read = after(
        &client,
        &id,
        2,
        patch(json!({"seats": null, "active": true, "joined": "2026-05-03", "reason": "moved"})).await,
    )
    .await;
    assert_eq!(read["traits"], json!({"department": "R&D", "active": true, "joined": "2026-05-03"}));
    after(&client, &id, 2, patch(json!({"active": true, "never_there": null})).await).await;
    // Digits are kept as they are, also those that a float would lose.
    let body = r#"{"exact": 12345678901234567890.12345678, "small": 1e-3, "note": "a\tb"}"#;
    let request = client.request("PATCH", &user(&id, "/traits"));
    let request = request.header("Content-Type", "application/merge-patch+json").body(body);
    let done = Client::send(request).await.unwrap().expect(200);
    let text = client.get_after(&user(&id, ""), done.token()).await.expect(200).text;
    for exact in [r#""exact":12345678901234567890.12345678"#, r#""small":0.001"#, r#""note":"a\tb""#] {
        assert!(text.contains(exact), "{text}");
    }
}
