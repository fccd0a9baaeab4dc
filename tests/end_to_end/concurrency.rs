//! Many at once.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{ids, rollcall::Rollcall, user};

#[tokio::test(flavor = "multi_thread")]
async fn of_200_concurrent_creates_with_one_email_one_wins() {
    let client = Rollcall::shared().new_tenant();
    let answers = join_all((0..200).map(|_| client.create("ada@example.com"))).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 201);
    assert_eq!((won.len(), lost.len()), (1, 199));
    for answer in lost {
        assert_eq!(answer.expect(409).code(), "email-taken");
    }
    let all = client.get_after("/api/v1/users", won[0].token()).await.expect(200);
    assert_eq!(ids(&all), [won[0].id()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_200_concurrent_patches_none_is_lost() {
    let client = Rollcall::shared().new_tenant();
    let id = client.create("ada@example.com").await.expect(201).id();
    let path = user(&id, "");
    let patches = (0..200).map(|index| client.patch(&path, json!({"traits": {format!("t{index}"): index}})));
    let answers: Vec<_> = join_all(patches).await.into_iter().map(|answer| answer.expect(200)).collect();
    let versions: BTreeSet<_> =
        answers.iter().map(|answer| answer.json()["version"].as_u64().unwrap()).collect();
    assert_eq!(versions, (2..=201).collect());

    let newest = answers.iter().max_by_key(|answer| answer.json()["version"].as_u64()).unwrap();
    let read = client.get_after(&path, newest.token()).await.expect(200).json();
    assert_eq!(read["version"], 201);
    let traits: serde_json::Map<String, Value> = (0..200).map(|i| (format!("t{i}"), json!(i))).collect();
    assert_eq!(read["traits"], Value::Object(traits));

    let path = user(&id, "/history?page_size=1000");
    let history = client.get_after(&path, newest.token()).await.expect(200).json();
    let items = history["items"].as_array().unwrap();
    let versions: Vec<_> = items.iter().map(|item| item["version"].as_u64().unwrap()).collect();
    assert_eq!(versions, (1..=201).rev().collect::<Vec<_>>());
    let changed: BTreeSet<_> = items[..200]
        .iter()
        .map(|item| {
            let changes = item["changes"].as_array().unwrap();
            assert_eq!((changes.len(), &changes[0]["from"]), (1, &Value::Null), "{item}");
            changes[0]["path"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(changed, (0..200).map(|i| format!("/traits/t{i}")).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_50_concurrent_patches_with_one_version_one_wins() {
    let client = Rollcall::shared().new_tenant();
    let id = client.create("ada@example.com").await.expect(201).id();
    let path = user(&id, "/traits");
    let bodies: Vec<_> = (0..50).map(|index| json!({"winner": index})).collect();
    let patches = bodies.iter().map(|body| client.call("PATCH", &path, &[("If-Match", "\"1\"")], Some(body)));
    let answers = join_all(patches).await;
    let won: Vec<_> = (0..50).filter(|index| answers[*index].status == 200).collect();
    assert_eq!(won.len(), 1);
    for (_, answer) in answers.iter().enumerate().filter(|(index, _)| *index != won[0]) {
        assert_eq!((answer.status, answer.code().as_str()), (412, "precondition-failed"));
    }
    let read = client.get_after(&user(&id, ""), answers[won[0]].token()).await.expect(200).json();
    assert_eq!(read["traits"], json!({"winner": won[0]}));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_email_that_changes_hands_is_never_two_users() {
    let client = Rollcall::shared().new_tenant();
    let mut people = Vec::new();
    for index in 0..20 {
        people.push(client.create(&format!("u{index}@example.com")).await.expect(201).id());
    }
    let moves = people
        .iter()
        .map(async |id| client.post(&user(id, "/change-email"), json!({"email": "prize@example.com"})).await);
    let answers = join_all(moves).await;
    let won: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.status == 409).count(), 19);
    let found = client.get_after("/api/v1/users?email=prize@example.com", won[0].token()).await.expect(200);
    assert_eq!(ids(&found), [won[0].id()]);
}
