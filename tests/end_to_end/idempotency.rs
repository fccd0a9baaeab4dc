//! The same Idempotency-Key: the same wish, done once.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    USERS, ids,
    rollcall::{Answer, Client, Rollcall},
    user,
};

async fn keyed(client: &Client, key: &str, method: &str, path: &str, body: Value) -> Answer {
    client.call(method, path, &[("Idempotency-Key", key)], Some(&body)).await
}

fn create(email: &str) -> Value {
    json!({"email": email, "given_name": "Ada"})
}

/// What a replay repeats.
fn told(answer: &Answer) -> (u16, Value, Option<&str>, Option<&str>, &str) {
    (answer.status, answer.json(), answer.header("etag"), answer.header("location"), answer.token())
}

async fn reused(answer: Answer) {
    assert_eq!(answer.expect(422).code(), "idempotency-key-reused");
}

#[tokio::test]
async fn a_create_is_answered_again_and_not_done_again() {
    let client = Rollcall::shared().new_tenant();
    let first = keyed(&client, "k", "POST", USERS, create("a@example.com")).await.expect(201);
    // Its email is taken, by itself.
    let again = keyed(&client, "k", "POST", USERS, create("a@example.com")).await.expect(201);
    assert_eq!(told(&again), told(&first));
    let quoted = keyed(&client, "\"k\"", "POST", USERS, create("a@example.com")).await.expect(201);
    assert_eq!(told(&quoted), told(&first));
    let all = client.get_after(USERS, first.token()).await.expect(200);
    assert_eq!(ids(&all), [first.id()]);
}

#[tokio::test]
async fn a_create_of_a_chosen_id_is_answered_again_too() {
    let client = Rollcall::shared().new_tenant();
    let body = json!({"id": uuid::Uuid::now_v7(), "email": "a@example.com", "given_name": "Ada"});
    let first = keyed(&client, "k", "POST", USERS, body.clone()).await.expect(201);
    let again = keyed(&client, "k", "POST", USERS, body.clone()).await.expect(201);
    assert_eq!(told(&again), told(&first));
    let other = keyed(&client, "other", "POST", USERS, body).await.expect(409);
    assert_eq!(other.code(), "already-exists");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_at_once_with_one_key_are_one_user() {
    let client = Rollcall::shared().new_tenant();
    let creates = (0..50).map(|_| keyed(&client, "k", "POST", USERS, create("a@example.com")));
    let answers = join_all(creates).await;
    for answer in &answers {
        assert_eq!(told(answer), told(&answers[0]));
    }
    assert_eq!(answers[0].status, 201);
    let all = client.get_after(USERS, answers[0].token()).await.expect(200);
    assert_eq!(ids(&all), [answers[0].id()]);

    let path = user(&answers[0].id(), "/traits");
    let patches = (0..50).map(|_| keyed(&client, "p", "PATCH", &path, json!({"seats": 1})));
    for answer in join_all(patches).await {
        assert_eq!(answer.expect(200).json()["version"], 2);
    }
}

#[tokio::test]
async fn one_key_on_two_users_is_refused_for_the_second() {
    let client = Rollcall::shared().new_tenant();
    let a = client.create("a@example.com").await.expect(201).id();
    let created = client.create("b@example.com").await.expect(201);
    let b = created.id();
    keyed(&client, "k", "POST", &user(&a, "/deactivate"), json!({})).await.expect(200);
    let second = keyed(&client, "k", "POST", &user(&b, "/deactivate"), json!({})).await;
    reused(second).await;
    let read = client.get_after(&user(&b, ""), created.token()).await.expect(200).json();
    assert_eq!((&read["status"], &read["version"]), (&json!("active"), &json!(1)));
    let unchanged = client.patch(&user(&b, ""), json!({})).await.expect(200);
    assert_eq!(unchanged.json()["version"], 1);
}

#[tokio::test]
async fn one_key_with_another_body_method_or_precondition_is_refused() {
    let client = Rollcall::shared().new_tenant();
    let created = keyed(&client, "c", "POST", USERS, create("a@example.com")).await.expect(201);
    reused(keyed(&client, "c", "POST", USERS, create("b@example.com")).await).await;
    client.create("b@example.com").await.expect(201);

    let path = user(&created.id(), "/associations/membership/gold");
    keyed(&client, "m", "PUT", &path, json!({})).await.expect(200);
    reused(keyed(&client, "m", "DELETE", &path, json!({})).await).await;

    let path = user(&created.id(), "/traits");
    let body = json!({"seats": 1});
    let with = async |if_match: &str| {
        client.call("PATCH", &path, &[("Idempotency-Key", "i"), ("If-Match", if_match)], Some(&body)).await
    };
    with("\"2\"").await.expect(200);
    reused(with("\"3\"").await).await;
    assert_eq!(with("\"2\"").await.expect(200).json()["version"], 3, "a replay beats 412");
}

#[tokio::test]
async fn a_replay_answers_the_version_of_then() {
    let client = Rollcall::shared().new_tenant();
    let id = client.create("a@example.com").await.expect(201).id();
    let path = user(&id, "/traits");
    let first = keyed(&client, "k", "PATCH", &path, json!({"seats": 1})).await.expect(200);
    client.patch(&path, json!({"seats": 2})).await.expect(200);
    client.post(&user(&id, "/deactivate"), json!({})).await.expect(200);
    let again = keyed(&client, "k", "PATCH", &path, json!({"seats": 1})).await.expect(200);
    assert_eq!(told(&again), told(&first));
    assert_eq!(again.json()["version"], 2);
    let last = client.post(&user(&id, "/reactivate"), json!({})).await.expect(200);
    let read = client.get_after(&user(&id, ""), last.token()).await.expect(200).json();
    assert_eq!((&read["traits"], &read["version"]), (&json!({"seats": 2}), &json!(5)));
}

#[tokio::test]
async fn a_command_that_changed_nothing_is_recorded_too() {
    let client = Rollcall::shared().new_tenant();
    let id = client.create("a@example.com").await.expect(201).id();
    let path = user(&id, "");
    let first = keyed(&client, "k", "PATCH", &path, json!({"given_name": "Ada"})).await.expect(200);
    assert_eq!(first.json()["version"], 1);
    client.patch(&path, json!({"given_name": "Augusta"})).await.expect(200);
    let again = keyed(&client, "k", "PATCH", &path, json!({"given_name": "Ada"})).await.expect(200);
    assert_eq!(again.json()["version"], 1);
    let last = client.patch(&path, json!({"family_name": "King"})).await.expect(200);
    let read = client.get_after(&path, last.token()).await.expect(200).json();
    assert_eq!((&read["given_name"], &read["version"]), (&json!("Augusta"), &json!(3)));
    reused(keyed(&client, "k", "PATCH", &path, json!({"given_name": "Grace"})).await).await;
}

#[tokio::test]
async fn a_refusal_is_judged_again() {
    let client = Rollcall::shared().new_tenant();
    let owner = client.create("a@example.com").await.expect(201).id();
    keyed(&client, "k", "POST", USERS, create("a@example.com")).await.expect(409);
    client.post(&user(&owner, "/change-email"), json!({"email": "b@example.com"})).await.expect(200);
    keyed(&client, "k", "POST", USERS, create("a@example.com")).await.expect(201);
}

#[tokio::test]
async fn a_key_is_its_subjects_and_its_tenants_own() {
    let client = Rollcall::shared().new_tenant();
    let other = Rollcall::shared().new_tenant();
    let by = async |client: &Client, actor: &str, email: &str| {
        let headers = [("Idempotency-Key", "k"), ("Actor", actor)];
        client.call("POST", USERS, &headers, Some(&create(email))).await.expect(201).id()
    };
    let mut created = vec![
        by(&client, "crm", "a@example.com").await,
        by(&client, "desk", "b@example.com").await,
        by(&other, "crm", "a@example.com").await,
    ];
    created.sort_unstable();
    created.dedup();
    assert_eq!(created.len(), 3);
}

#[tokio::test]
async fn a_batch_sent_again_has_the_outcomes_of_then() {
    let client = Rollcall::shared().new_tenant();
    let id = client.create("a@example.com").await.expect(201).id();
    let path = "/api/v1/commands";
    let batch = json!([
        {"type": "CreateUser", "data": create("b@example.com")},
        {"type": "SetTraits", "id": id, "data": {"seats": 1}},
        {"type": "SetTraits", "id": id, "data": {"seats": 1}},
        {"type": "SetTraits", "id": id, "data": {"seats": 2}, "if_match": 2},
        {"type": "CreateUser", "data": create("a@example.com")},
    ]);
    let first = keyed(&client, "k", "POST", path, batch.clone()).await.expect(200);
    let statuses = |answer: &Answer| -> Vec<Value> {
        answer.json()["outcomes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|outcome| outcome["status"].clone())
            .collect()
    };
    assert_eq!(statuses(&first), [201, 200, 200, 200, 409]);
    let moved = client.patch(&user(&id, "/traits"), json!({"seats": 9})).await.expect(200);
    let again = keyed(&client, "k", "POST", path, batch.clone()).await.expect(200);
    assert_eq!((again.json(), again.token()), (first.json(), first.token()));
    let read = client.get_after(&user(&id, ""), moved.token()).await.expect(200).json();
    assert_eq!((&read["version"], &read["traits"]["seats"]), (&json!(4), &json!(9)));

    let mut changed = batch;
    changed[1]["data"]["seats"] = 5.into();
    let partly = keyed(&client, "k", "POST", path, changed).await.expect(200);
    assert_eq!(statuses(&partly), [201, 422, 200, 200, 409]);
    assert_eq!(partly.json()["outcomes"][1]["problem"]["code"], "idempotency-key-reused");
}
