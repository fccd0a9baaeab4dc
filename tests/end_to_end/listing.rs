//! Lists of users: paging, filters, many by id.

use serde_json::{Value, json};

use crate::{
    USERS, ids,
    rollcall::{Answer, Client, Rollcall},
    user,
};

const QUERY: &str = "/api/v1/users/query";

/// Creates users in batches; their ids and the token that saw all.
async fn create_all(client: &Client, users: Vec<Value>) -> (Vec<String>, String) {
    let commands: Vec<_> =
        users.into_iter().map(|data| json!({"type": "CreateUser", "data": data})).collect();
    let answer = client.post("/api/v1/commands", commands.into()).await.expect(200);
    let id = |outcome: &Value| outcome["id"].as_str().unwrap_or_else(|| panic!("{outcome}")).to_owned();
    let ids = answer.json()["outcomes"].as_array().unwrap().iter().map(id).collect();
    (ids, answer.token().to_owned())
}

async fn query(client: &Client, body: Value, token: &str) -> Answer {
    client.call("POST", QUERY, &[("Consistency-Token", token)], Some(&body)).await
}

/// All pages of a listing by GET, given its parameters, and by POST, given its members; they must be the same.
async fn walk(
    client: &Client,
    token: &str,
    parameters: &str,
    members: Value,
    page_size: usize,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let mut path = format!("{USERS}?page_size={page_size}{parameters}");
        let mut body = members.clone();
        body["page_size"] = page_size.into();
        if let Some(next) = &next {
            path.push_str(&format!("&page_token={next}"));
            body["page_token"] = next.as_str().into();
        }
        let got = client.get_after(&path, token).await.expect(200);
        let posted = query(client, body, token).await.expect(200);
        assert_eq!(got.json(), posted.json(), "{parameters}");
        let page = ids(&got);
        assert!(page.len() <= page_size);
        found.extend(page);
        next = got.json()["next_page_token"].as_str().map(str::to_owned);
        if next.is_none() {
            return found;
        }
    }
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn a_walk_over_250_users_sees_each_once_in_order_of_ids() {
    let client = Rollcall::shared().new_tenant();
    let people = (0..250).map(|i| {
        // Half of the ids are chosen, and lie anywhere.
        let id = (i % 2 == 0).then(uuid::Uuid::new_v4);
        json!({"id": id, "email": format!("u{i}@example.com"), "given_name": format!("N{i}")})
    });
    let (created, token) = create_all(&client, people.collect()).await;
    let created = sorted(created);
    for page_size in [17, 250, 1000] {
        assert_eq!(walk(&client, &token, "", json!({}), page_size).await, created, "{page_size}");
    }
    let first = client.get_after(USERS, &token).await.expect(200);
    assert_eq!(ids(&first), created[..50], "50 unless asked for");
}

#[tokio::test]
async fn users_are_filtered_by_status_email_and_external_id() {
    let client = Rollcall::shared().new_tenant();
    let with = |i: usize| json!({"email": format!("U{i}+x@example.com"), "given_name": "Ada", "external_ids": {"hr": format!("a:{i} b")}});
    let (created, mut token) = create_all(&client, (0..30).map(with).collect()).await;
    for id in &created[..3] {
        let done = client.post(&user(id, "/deactivate"), json!({})).await.expect(200);
        token = format!("{token},{}", done.token());
    }
    let of = async |parameters: &str, members: Value| walk(&client, &token, parameters, members, 2).await;
    assert_eq!(
        of("&status=deactivated", json!({"status": "deactivated"})).await,
        sorted(created[..3].to_vec())
    );
    assert_eq!(of("&status=active", json!({"status": "active"})).await, sorted(created[3..].to_vec()));
    assert_eq!(
        of("&email=u7%2BX@example.com", json!({"email": "u7+X@example.com"})).await,
        [created[7].clone()]
    );
    assert_eq!(of("&email=nobody@example.com", json!({"email": "nobody@example.com"})).await, [""; 0]);
    let hr = json!({"external_id": "hr:a:9 b"});
    assert_eq!(of("&external_id=hr:a:9+b", hr).await, [created[9].clone()]);
    assert_eq!(of("&external_id=crm:a:9+b", json!({"external_id": "crm:a:9 b"})).await, [""; 0]);
    let both = json!({"email": "u1+x@example.com", "status": "active"});
    assert_eq!(of("&email=u1%2Bx@example.com&status=active", both).await, [""; 0], "all must hold");
}

#[tokio::test]
async fn users_are_filtered_by_traits_of_every_type() {
    let client = Rollcall::shared().new_tenant();
    let with = |i: usize, traits: Value| json!({"email": format!("u{i}@example.com"), "given_name": "Ada", "traits": traits});
    let (created, token) = create_all(
        &client,
        vec![
            with(0, json!({"department": "R&D", "seats": 3, "active": true})),
            with(1, json!({"department": "r&d", "seats": 3.5, "active": false})),
            with(2, json!({"department": "R&D", "seats": "3", "active": "true"})),
            with(3, json!({"joined": "2026-05-03"})),
        ],
    )
    .await;
    let posted =
        async |traits: Value| ids(&query(&client, json!({"traits": traits}), &token).await.expect(200));
    let got = async |parameters: &str| {
        ids(&client.get_after(&format!("{USERS}?{parameters}"), &token).await.expect(200))
    };
    let of = |indices: &[usize]| sorted(indices.iter().map(|index| created[*index].clone()).collect());
    assert_eq!(posted(json!({"department": "R&D"})).await, of(&[0, 2]));
    assert_eq!(posted(json!({"seats": 3})).await, of(&[0]));
    assert_eq!(posted(json!({"seats": 3.50})).await, of(&[1]));
    assert_eq!(posted(json!({"seats": "3"})).await, of(&[2]));
    assert_eq!(posted(json!({"active": true})).await, of(&[0]));
    assert_eq!(posted(json!({"active": false})).await, of(&[1]));
    assert_eq!(posted(json!({"active": "true", "department": "R&D"})).await, of(&[2]));
    assert_eq!(posted(json!({"joined": "2026-05-03"})).await, of(&[3]));
    assert_eq!(posted(json!({"nowhere": 1})).await, of(&[]));
    // In a URL everything is text: what it spells is sought as well.
    assert_eq!(got("traits.department=R%26D").await, of(&[0, 2]));
    assert_eq!(got("traits.seats=3").await, of(&[0, 2]));
    assert_eq!(got("traits.seats=3.50").await, of(&[1]));
    assert_eq!(got("traits.active=true&traits.seats=3").await, of(&[0, 2]));
    assert_eq!(got("traits.active=false").await, of(&[1]));
    assert_eq!(got("traits.joined=2026-05-03").await, of(&[3]));
}

#[tokio::test]
async fn a_thousand_users_are_got_by_id() {
    let client = Rollcall::shared().new_tenant();
    let people =
        (0..250).map(|i| json!({"email": format!("u{i}@example.com"), "given_name": format!("N{i}")}));
    let (created, token) = create_all(&client, people.collect()).await;
    let stranger = Rollcall::shared().new_tenant().create("a@example.com").await.expect(201).id();
    let mut asked = Vec::new();
    let mut missing = Vec::new();
    for (index, id) in created.iter().rev().enumerate() {
        let absent = if index == 0 { stranger.clone() } else { uuid::Uuid::now_v7().to_string() };
        let others = [absent, uuid::Uuid::new_v4().to_string(), uuid::Uuid::new_v4().to_string()];
        asked.push(id.clone());
        asked.extend_from_slice(&others);
        missing.extend_from_slice(&others);
    }
    assert_eq!(asked.len(), 1000);
    let path = "/api/v1/users/batch-get";
    let headers = [("Consistency-Token", token.as_str())];
    let found = client.call("POST", path, &headers, Some(&json!({"ids": asked}))).await.expect(200);
    assert_eq!(ids(&found), created.iter().rev().cloned().collect::<Vec<_>>());
    assert_eq!(found.json()["missing"], json!(missing));
    let single = client.get(&user(&created[0], "")).await.expect(200).json();
    assert_eq!(found.json()["items"][249], single);

    asked.push(created[0].clone());
    assert_eq!(client.post(path, json!({"ids": asked})).await.expect(422).code(), "invalid-members");
    let none = client.post(path, json!({"ids": []})).await.expect(200).json();
    assert_eq!((&none["items"], &none["missing"]), (&json!([]), &json!([])));
    let twice = client.post(path, json!({"ids": [created[0], created[0].to_uppercase()]})).await.expect(200);
    assert!((1..=2).contains(&ids(&twice).len()) && twice.json()["missing"] == json!([]), "{twice:?}");
}
