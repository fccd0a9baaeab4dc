//! A query that sends a token never sees the past of what the token saw.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rollcall_edge::token::ConsistencyToken;
use serde_json::json;
use uuid::Uuid;

use crate::{
    USERS, ids,
    rollcall::{Answer, Client, Rollcall},
    user,
};

async fn round(client: &Client, index: usize) {
    let email = format!("u{index}@example.com");
    let created = client.create(&email).await.expect(201);
    let id = created.id();
    let path = user(&id, "");
    let read = client.get_after(&path, created.token()).await.expect(200).json();
    assert_eq!((&read["version"], &read["email"]), (&json!(1), &json!(email)));

    let renamed = client.patch(&path, json!({"given_name": email})).await.expect(200);
    let read = client.get_after(&path, renamed.token()).await.expect(200).json();
    assert_eq!((&read["version"], &read["given_name"]), (&json!(2), &json!(email)));

    let moved = json!({"email": format!("v{index}@example.com")});
    let moved = client.post(&user(&id, "/change-email"), moved).await.expect(200);
    let list =
        client.get_after(&format!("{USERS}?email=v{index}@example.com"), moved.token()).await.expect(200);
    assert_eq!(ids(&list), [id.as_str()]);
    let list = client.get_after(&format!("{USERS}?email={email}"), moved.token()).await.expect(200);
    assert!(ids(&list).is_empty());

    let verified = json!({"email": format!("v{index}@example.com")});
    let verified = client.post(&user(&id, "/verify-email"), verified).await.expect(200);
    let history = client.get_after(&user(&id, "/history"), verified.token()).await.expect(200).json();
    assert_eq!(history["items"][0]["version"], 4);
    let deactivated = client.post(&user(&id, "/deactivate"), json!({})).await.expect(200);
    let audit =
        format!("/api/v1/audit?type=UserDeactivated&actor=anonymous&page_size=100&from={}", from(&history));
    let audit = client.get_after(&audit, deactivated.token()).await.expect(200).json();
    assert!(audit["items"].as_array().unwrap().iter().any(|item| item["user_id"] == id.as_str()));
    let headers = [("Consistency-Token", deactivated.token())];
    let many = client.call("POST", "/api/v1/users/batch-get", &headers, Some(&json!({"ids": [id]}))).await;
    assert_eq!(many.expect(200).json()["items"][0]["status"], "deactivated");
}

fn from(history: &serde_json::Value) -> String {
    history["items"][0]["recorded_at"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_with_the_token_of_a_command_sees_what_it_did() {
    let client = Rollcall::shared().new_tenant();
    let workers = (0..6).map(async |worker| {
        for index in 0..50 {
            round(&client, worker * 50 + index).await;
        }
    });
    join_all(workers).await;
}

fn parsed(answer: &Answer) -> ConsistencyToken {
    ConsistencyToken::parse(answer.token()).unwrap()
}

/// The queries that read projections, and those of one user that read the log itself.
fn queries(id: &str) -> ([String; 5], [String; 2]) {
    let projected = [
        user(id, ""),
        user(id, "/terms"),
        user(id, "/email-preferences"),
        USERS.to_owned(),
        "/api/v1/audit".to_owned(),
    ];
    (projected, [user(id, "/history"), user(id, "/events")])
}

fn all_queries(id: &str) -> Vec<String> {
    let (projected, of_log) = queries(id);
    projected.into_iter().chain(of_log).collect()
}

#[tokio::test]
async fn a_query_answers_with_what_it_has_seen() {
    let client = Rollcall::shared().new_tenant();
    let created = client.create("a@example.com").await.expect(201);
    let (partition, position) = parsed(&created).positions()[0];
    for path in all_queries(&created.id()) {
        let first = client.get_after(&path, created.token()).await.expect(200);
        assert!(parsed(&first).position(partition) >= Some(position), "{path}");
        // Without a token it tells of the rows.
        let first = client.get(&path).await.expect(200);
        assert_eq!(parsed(&first).position(partition), Some(position), "{path}");
    }
}

#[tokio::test]
async fn tokens_are_merged_by_their_maximum() {
    let client = Rollcall::shared().new_tenant();
    let mut tokens = Vec::new();
    for index in 0..20 {
        tokens.push(client.create(&format!("u{index}@example.com")).await.expect(201).token().to_owned());
    }
    for joined in [tokens.clone(), vec![tokens.join(", ")], vec![tokens.join(",,")]] {
        let mut request = client.request("GET", USERS);
        for value in &joined {
            request = request.header("Consistency-Token", value);
        }
        let list = Client::send(request).await.unwrap().expect(200);
        assert_eq!(ids(&list).len(), 20);
        for token in &tokens {
            let (partition, position) = ConsistencyToken::parse(token).unwrap().positions()[0];
            assert!(parsed(&list).position(partition) >= Some(position));
        }
    }
}

#[tokio::test]
async fn a_token_that_is_none_or_of_another_log_is_refused() {
    let client = Rollcall::shared().new_tenant();
    let created = client.create("a@example.com").await.expect(201);
    let foreign = ConsistencyToken::single(Uuid::now_v7(), 0, 1).to_string();
    let (first, rest) = created.token().split_at(created.token().len() - 1);
    let last = if rest == "A" { "B" } else { "A" };
    let mixed = format!("{},{foreign}", created.token());
    let bad =
        ["garbage", "ct1.", "ct1.AAAA", "ct2.AAAA", &foreign, first, &mixed, &format!("{first}{last}/")];
    for path in all_queries(&created.id()) {
        for token in bad {
            let refused = client.get_after(&path, token).await;
            assert_eq!(refused.expect(400).code(), "malformed-token", "{path} {token}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_waits_two_seconds_for_a_token_that_is_ahead() {
    let client = Rollcall::shared().new_tenant();
    let created = client.create("a@example.com").await.expect(201);
    let mut ahead = parsed(&created);
    let (partition, position) = ahead.positions()[0];
    ahead.advance(partition, position + 1_000_000).unwrap();
    let ahead = ahead.to_string();
    let (projected, _) = queries(&created.id());
    join_all(projected.iter().map(async |path| {
        let begun = Instant::now();
        let behind = client.get_after(path, &ahead).await.expect(503);
        let waited = begun.elapsed();
        assert_eq!(behind.code(), "projection-behind", "{path}");
        let seconds: u64 = behind.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=10).contains(&seconds));
        assert!(
            (Duration::from_millis(1_900)..Duration::from_secs(4)).contains(&waited),
            "{path}: {waited:?}"
        );
    }))
    .await;
}

#[tokio::test]
async fn a_query_of_the_log_itself_does_not_wait() {
    let client = Rollcall::shared().new_tenant();
    let created = client.create("a@example.com").await.expect(201);
    let (_, of_log) = queries(&created.id());
    let mut ahead = parsed(&created);
    let (partition, position) = ahead.positions()[0];
    ahead.advance(partition, position + 1_000_000).unwrap();
    for path in of_log {
        let begun = Instant::now();
        let read = client.get_after(&path, &ahead.to_string()).await.expect(200).json();
        assert_eq!(read["items"].as_array().unwrap().len(), 1);
        assert!(begun.elapsed() < Duration::from_millis(1_500), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_query_is_answered_as_soon_as_its_event_is_there() {
    let client = Rollcall::shared().new_tenant();
    let created = client.create("a@example.com").await.expect(201);
    let id = created.id();
    let path = user(&id, "");
    client.get_after(&path, created.token()).await.expect(200);
    // The next position of the partition may be another test's event, the second next then is ours.
    let mut next = parsed(&created);
    let (partition, position) = next.positions()[0];
    next.advance(partition, position + 1).unwrap();
    let next = next.to_string();
    let begun = Instant::now();
    let (read, ()) = tokio::join!(client.get_after(&path, &next), async {
        client.patch(&path, json!({"family_name": "King"})).await.expect(200);
    });
    read.expect(200);
    assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_token_of_a_partition_that_is_not_there_is_no_server_error() {
    let client = Rollcall::shared().new_tenant();
    let created = client.create("a@example.com").await.expect(201);
    for (partition, position) in [(9_999, 1), (0, u64::MAX)] {
        let token = ConsistencyToken::single(parsed(&created).log_id(), partition, position).to_string();
        let refused = client.get_after(USERS, &token).await;
        assert!([400, 503].contains(&refused.status), "{refused:?}");
        assert!(["malformed-token", "projection-behind"].contains(&refused.code().as_str()), "{refused:?}");
    }
}
