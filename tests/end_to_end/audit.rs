//! The audit across a tenant's users.

use serde_json::{Value, json};

use crate::{
    USERS, errors,
    rollcall::{Answer, Client, Rollcall},
    user,
};

/// Two users, five events by two actors; the token of the last.
async fn five_events(client: &Client) -> (String, String, String) {
    let by = async |actor: &'static str, method: &'static str, path: String, body: Value| {
        client.call(method, &path, &[("Actor", actor)], Some(&body)).await
    };
    let create = |email: &str| json!({"email": email, "given_name": "Ada"});
    let a = by("crm", "POST", USERS.into(), create("a@example.com")).await.expect(201).id();
    let b = by("desk", "POST", USERS.into(), create("b@example.com")).await.expect(201).id();
    by("desk", "PATCH", user(&a, "/traits"), json!({"seats": 1})).await.expect(200);
    by("crm", "PATCH", user(&b, "/traits"), json!({"seats": 2})).await.expect(200);
    let last = by("desk", "DELETE", user(&a, ""), json!({"reason": "left"})).await.expect(200);
    (a, b, last.token().to_owned())
}

/// (user, version) of each item.
fn entries(answer: &Answer) -> Vec<(String, u64)> {
    let entry =
        |item: &Value| (item["user_id"].as_str().unwrap().to_owned(), item["version"].as_u64().unwrap());
    answer.json()["items"].as_array().unwrap().iter().map(entry).collect()
}

async fn audit(client: &Client, query: &str, token: &str) -> Answer {
    client.get_after(&format!("/api/v1/audit{query}"), token).await.expect(200)
}

#[tokio::test]
async fn the_audit_lists_all_changes_of_a_tenant_newest_first() {
    let client = Rollcall::shared().new_tenant();
    let (a, b, token) = five_events(&client).await;
    let all = audit(&client, "", &token).await;
    assert_eq!(
        entries(&all),
        [(a.clone(), 3), (b.clone(), 2), (a.clone(), 2), (b.clone(), 1), (a.clone(), 1)]
    );
    let newest = &all.json()["items"][0];
    assert_eq!(
        (&newest["event"], &newest["actor"], &newest["reason"]),
        (&json!("UserDeactivated"), &json!("desk"), &json!("left"))
    );
    assert_eq!(newest["changes"], json!([{"path": "/status", "from": "active", "to": "deactivated"}]));
}

#[tokio::test]
async fn the_audit_is_filtered_by_actor_type_import_and_time() {
    let client = Rollcall::shared().new_tenant();
    let (a, b, token) = five_events(&client).await;
    let of = async |query: &str| entries(&audit(&client, query, &token).await);
    assert_eq!(of("?actor=crm").await, [(b.clone(), 2), (a.clone(), 1)]);
    assert_eq!(of("?actor=nobody").await, []);
    assert_eq!(of("?type=TraitsChanged").await, [(b.clone(), 2), (a.clone(), 2)]);
    assert_eq!(of("?type=UserDeactivated&actor=desk").await, [(a.clone(), 3)]);
    assert_eq!(of("?type=UserDeactivated&actor=crm").await, []);
    assert_eq!(of("?import=none").await, []);

    let all = audit(&client, "", &token).await.json();
    let at = |index: usize| all["items"][index]["recorded_at"].as_str().unwrap().to_owned();
    let (second, fourth) = (at(3), at(1));
    assert_eq!(of(&format!("?from={second}&to={fourth}")).await, [(a.clone(), 2), (b.clone(), 1)]);
    assert_eq!(of(&format!("?from={fourth}")).await, [(a.clone(), 3), (b.clone(), 2)]);
    assert_eq!(of(&format!("?to={second}")).await, [(a.clone(), 1)]);
    // The same instant in another zone.
    let shifted = second.parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    let zone = chrono::FixedOffset::east_opt(2 * 3600).unwrap();
    let shifted = shifted.with_timezone(&zone).to_rfc3339().replace('+', "%2B");
    assert_eq!(of(&format!("?to={shifted}")).await, [(a, 1)]);
}

#[tokio::test]
async fn the_audit_is_read_page_by_page() {
    let client = Rollcall::shared().new_tenant();
    let (.., token) = five_events(&client).await;
    for filter in ["", "&actor=desk"] {
        let whole = entries(&audit(&client, &format!("?page_size=1000{filter}"), &token).await);
        let mut pages = Vec::new();
        let mut path = format!("?page_size=2{filter}");
        loop {
            let page = audit(&client, &path, &token).await;
            assert!(entries(&page).len() <= 2);
            pages.extend(entries(&page));
            let Some(next) = page.json()["next_page_token"].as_str().map(str::to_owned) else { break };
            path = format!("?page_size=2{filter}&page_token={next}");
        }
        assert_eq!(pages, whole, "{filter}");
    }
}

#[tokio::test]
async fn a_filter_that_means_nothing_is_refused() {
    let client = Rollcall::shared().new_tenant();
    for (query, parameter) in [
        ("type=Nonsense", "type"),
        ("from=yesterday", "from"),
        ("to=2026-13-01T00:00:00Z", "to"),
        ("actor=", "actor"),
        ("actor=%00", "actor"),
        ("import=", "import"),
        ("import=%00", "import"),
        ("user=x", "user"),
    ] {
        let refused = client.get(&format!("/api/v1/audit?{query}")).await.expect(400);
        assert_eq!(refused.code(), "malformed-query", "{query}");
        assert!(errors(&refused.json()).contains_key(parameter), "{query}: {refused:?}");
    }
}
