//! Malformed paths and query strings, ids of others, routes and methods that are not there.

use rollcall_edge::query::PageToken;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{memory, refused, refused_or_each, still_serves};
use crate::{
    USERS, ada,
    description::{Operation, operations},
    rollcall::{Answer, Client, Rollcall},
};

/// A body that the operation takes.
fn body(operation: &Operation) -> Option<Value> {
    operation.takes_body().then(|| match operation.path.rsplit('/').next().unwrap() {
        "users" => ada(),
        "commands" => json!([]),
        "change-email" | "verify-email" => json!({"email": "ada@example.com"}),
        "accept-terms" => json!({"policy": "privacy", "version": "1"}),
        "preferences" => json!({"email": {}}),
        "batch-get" => json!({"ids": []}),
        _ => json!({}),
    })
}

async fn ask(client: &Client, operation: &Operation, id: &str) -> Answer {
    client.call(&operation.method, &operation.path_of(id), &[], body(operation).as_ref()).await
}

#[tokio::test]
async fn an_id_of_another_tenant_is_as_if_it_were_not_there() {
    let client = Rollcall::shared().new_tenant();
    let stranger = Rollcall::shared().new_tenant();
    let created = stranger.post(USERS, ada()).await.expect(201);
    stranger.get_after(created.header("location").unwrap(), created.token()).await.expect(200);
    let mut asked = 0;
    for operation in operations(&client).await.iter().filter(|operation| operation.path.contains("{id}")) {
        let what = format!("{} {}", operation.method, operation.path);
        let theirs = ask(&client, operation, &created.id()).await;
        assert_eq!((theirs.status, refused(&theirs, &what).as_str()), (404, "not-found"), "{what}");
        let nobodys = ask(&client, operation, &Uuid::now_v7().to_string()).await;
        assert_eq!((theirs.status, theirs.text), (nobodys.status, nobodys.text), "{what}");
        asked += 1;
    }
    assert!(asked > 10);
    let batch = json!([{"type": "DeactivateUser", "id": created.id()}]);
    let outcomes = client.post("/api/v1/commands", batch).await;
    assert_eq!(refused_or_each(&outcomes, "batch"), "not-found");
    assert_eq!(outcomes.json()["outcomes"][0]["status"], 404);
    let many = client.post("/api/v1/users/batch-get", json!({"ids": [created.id()]})).await.expect(200);
    assert_eq!(many.json()["missing"], json!([created.id()]));
    let unchanged = stranger.patch(created.header("location").unwrap(), json!({})).await.expect(200);
    assert_eq!(unchanged.json()["version"], 1);
}

#[tokio::test]
async fn every_route_refuses_malformed_ids() {
    let client = Rollcall::shared().new_tenant();
    let uuid = Uuid::now_v7();
    let bad = [
        "x".to_owned(),
        "%00".to_owned(),
        "%ff".to_owned(),
        "%F0%9F%92%A3".to_owned(),
        "a%2Fb".to_owned(),
        uuid.simple().to_string(),
        format!("%7B{uuid}%7D"),
        format!("{uuid}0"),
        format!("{uuid}%00"),
        format!("%20{uuid}"),
        uuid.to_string().replace('-', "_"),
        "9".repeat(4_000),
    ];
    for operation in operations(&client).await.iter().filter(|operation| operation.path.contains("{id}")) {
        for id in &bad {
            let answer = ask(&client, operation, id).await;
            let what = format!("{} {} {id}", operation.method, operation.path);
            assert_eq!((answer.status, refused(&answer, &what).as_str()), (400, "malformed-path"), "{what}");
        }
    }
    let id = client.create("a@example.com").await.expect(201).id();
    for rest in
        ["Membership/gold", "a%00/gold", "membership/%00", "membership/%ff", "membership/%20", "%20/gold"]
    {
        for method in ["PUT", "DELETE"] {
            let answer = client.call(method, &format!("{USERS}/{id}/associations/{rest}"), &[], None).await;
            assert_eq!(
                (answer.status, refused(&answer, rest).as_str()),
                (400, "malformed-path"),
                "{method} {rest}"
            );
        }
    }
}

#[tokio::test]
async fn every_query_refuses_parameters_that_it_does_not_have() {
    let client = Rollcall::shared().new_tenant();
    let id = client.create("a@example.com").await.expect(201).id();
    let before = memory();
    for operation in operations(&client).await.iter().filter(|operation| operation.method == "GET") {
        let path = operation.path_of(&id);
        for query in [
            "nope=1",
            "nope",
            "%00=1",
            "page_size=0",
            "page_size=1001",
            "page_size=x",
            "page_size=1&page_size=1",
            "page_token=x",
            "page_token=%00",
            "page_token=AQ%ff",
            "a=%",
            "a=%zz",
            "a=%ff",
            "status=gone",
            "email=x",
            "email=%00@example.com",
            "name=%20",
            "name=a%00",
            "external_id=x",
            "external_id=hr:%00",
            "traits.=1",
            "traits.a=%00",
            "traits.9=1",
            "type=x",
            "from=now",
            "to=0",
            "actor=%00",
            "import=%00",
        ] {
            let answer = client.get(&format!("{path}?{query}")).await;
            let what = format!("{path}?{query}");
            assert_eq!(
                (answer.status, refused(&answer, &what).as_str()),
                (400, "malformed-query"),
                "{what}: {answer:?}"
            );
        }
        let many = client.get(&format!("{path}?{}", "a&".repeat(2_000))).await;
        assert_eq!(refused(&many, "many parameters"), "malformed-query");
    }
    still_serves(&client, before).await;
}

#[tokio::test]
async fn a_forged_page_token_is_refused_or_finds_something() {
    let client = Rollcall::shared().new_tenant();
    let id = client.create("a@example.com").await.expect(201).id();
    let keys: [&[u8]; 9] = [
        b"",
        b"\0",
        b"a\0b",
        b"\xff\xff",
        b"zzzz",
        &[0; 8],
        &[0xff; 8],
        &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    ];
    // The bounds of what the service's clock can name lie beyond those of the database's.
    let bounds = [chrono::DateTime::<chrono::Utc>::MIN_UTC, chrono::DateTime::<chrono::Utc>::MAX_UTC];
    let places = bounds.map(|at| [&at.timestamp_micros().to_be_bytes()[..], &[0; 10]].concat());
    for operation in operations(&client).await {
        let described = operation.description["parameters"].as_array().unwrap();
        if operation.method != "GET" || !described.iter().any(|parameter| parameter["name"] == "page_token") {
            continue;
        }
        for key in keys.into_iter().chain(places.iter().map(Vec::as_slice)) {
            let path = format!("{}?page_token={}", operation.path_of(&id), PageToken::encode(key));
            let answer = client.get(&path).await;
            if answer.status != 200 {
                assert_eq!(refused(&answer, &path), "malformed-query", "{key:?} {answer:?}");
            }
        }
    }
    for key in [&b"\0"[..], b"a\0b", b"\xff"] {
        let body = json!({"page_token": PageToken::encode(key)});
        let answer = client.post("/api/v1/users/query", body).await;
        assert!([400, 422].contains(&answer.status), "{answer:?}");
        refused(&answer, "query");
    }
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_done_there_are_problems() {
    let client = Rollcall::shared().new_tenant();
    let id = client.create("a@example.com").await.expect(201).id();
    for path in [
        "/",
        "/api",
        "/api/v1",
        "/api/v1/nope",
        "/api/v2/users",
        &format!("{USERS}/{id}/nope"),
        "/%ff",
        "/%00",
    ] {
        for method in ["GET", "POST", "BREW"] {
            let answer = client.call(method, path, &[], None).await;
            assert_eq!(
                (answer.status, refused(&answer, path).as_str()),
                (404, "not-found"),
                "{method} {path}"
            );
        }
    }
    let operations = operations(&client).await;
    for operation in &operations {
        let taken: Vec<_> = operations
            .iter()
            .filter(|other| other.path == operation.path)
            .map(|other| other.method.as_str())
            .collect();
        for method in ["PUT", "PATCH", "DELETE", "TRACE", "BREW"] {
            if taken.contains(&method) {
                continue;
            }
            let answer = client.call(method, &operation.path_of(&id), &[], None).await;
            let what = format!("{method} {}", operation.path);
            assert_eq!(
                (answer.status, refused(&answer, &what).as_str()),
                (405, "method-not-allowed"),
                "{what}"
            );
            let allow = answer.header("allow").unwrap();
            assert!(
                taken.iter().all(|method| allow.split(',').any(|one| one.trim() == *method)),
                "{what}: {allow}"
            );
        }
    }
}
