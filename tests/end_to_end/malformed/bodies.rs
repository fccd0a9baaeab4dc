//! Bodies that are no JSON, or too much of it, on every route that takes one.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{memory, refused, refused_or_each, send, still_serves};
use crate::{
    description::{Operation, operations},
    rollcall::{Client, Rollcall},
};

const NOT_JSON: &[&str] = &["malformed-json"];
const NOT_AS_IT_MUST_BE: &[&str] = &["invalid-members"];
const DEPTH: usize = 100_000;

/// Bodies with the codes that they may be refused with.
fn table() -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    let mut table: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("nothing", b"".to_vec(), NOT_JSON),
        ("white space", b" \n\t ".to_vec(), NOT_JSON),
        ("half an object", br#"{"reason":"#.to_vec(), NOT_JSON),
        ("invalid UTF-8", b"{\"reason\": \"\xff\"}".to_vec(), NOT_JSON),
        ("an overlong form", b"{\"reason\": \"\xc0\x80\"}".to_vec(), NOT_JSON),
        ("a surrogate in UTF-8", b"{\"reason\": \"\xed\xa0\x80\"}".to_vec(), NOT_JSON),
        ("a lone surrogate", br#"{"reason": "\ud800"}"#.to_vec(), NOT_JSON),
        ("a lone surrogate in a name", br#"{"\udc00": 1}"#.to_vec(), NOT_JSON),
        ("a lone surrogate deep inside", br#"[{"data": {"reason": ["\ud800x"]}}]"#.to_vec(), NOT_JSON),
        ("surrogates in the wrong order", br#"{"reason": "\udc00\ud800"}"#.to_vec(), NOT_JSON),
        ("a NUL", b"{\"reason\": \"\0\"}".to_vec(), NOT_JSON),
        ("a NUL outside", b"\0".to_vec(), NOT_JSON),
        ("UTF-16", b"\xff\xfe{\0}\0".to_vec(), NOT_JSON),
        ("a byte order mark", b"\xef\xbb\xbf{}".to_vec(), NOT_JSON),
        ("two texts", b"{} {}".to_vec(), NOT_JSON),
        ("a comma too many", br#"{"reason": "x",}"#.to_vec(), NOT_JSON),
        ("no number", br#"{"reason": NaN}"#.to_vec(), NOT_JSON),
        ("open brackets", "[".repeat(DEPTH).into(), NOT_JSON),
        ("open objects", "{\"a\":".repeat(50_000).into(), NOT_JSON),
        ("brackets", ("[".repeat(DEPTH) + &"]".repeat(DEPTH)).into(), NOT_AS_IT_MUST_BE),
        (
            "brackets within",
            (r#"{"reason":"#.to_owned() + &"[".repeat(DEPTH) + &"]".repeat(DEPTH) + "}").into(),
            NOT_AS_IT_MUST_BE,
        ),
        ("objects", (r#"{"":"#.repeat(40_000) + "0" + &"}".repeat(40_000)).into(), NOT_AS_IT_MUST_BE),
        ("null", b"null".to_vec(), NOT_AS_IT_MUST_BE),
        ("a string", br#""x""#.to_vec(), NOT_AS_IT_MUST_BE),
        ("a number beyond all", br#"{"reason": 1e999999999}"#.to_vec(), NOT_AS_IT_MUST_BE),
        (
            "a duplicate",
            br#"{"reason": "a", "reason": "b"}"#.to_vec(),
            &["duplicate-member", "invalid-members"],
        ),
        (
            "an escaped duplicate",
            br#"{"reason": "a", "re\u0061son": "b"}"#.to_vec(),
            &["duplicate-member", "invalid-members"],
        ),
        (
            "a batch with a duplicate",
            br#"[{"id": 1, "id": 2}]"#.to_vec(),
            &["duplicate-member", "invalid-members"],
        ),
        ("an escaped NUL", br#"{"reason": "\u0000"}"#.to_vec(), NOT_AS_IT_MUST_BE),
    ];
    let members: Vec<_> = (0..20_000).map(|index| format!("\"m{index}\":0")).collect();
    table.push(("many members", format!("{{{}}}", members.join(",")).into(), NOT_AS_IT_MUST_BE));
    let mut random = StdRng::seed_from_u64(8);
    for _ in 0..20 {
        let mut bytes = vec![0; random.random_range(1..300)];
        random.fill(&mut bytes[..]);
        table.push(("random bytes", bytes, NOT_JSON));
    }
    table
}

async fn with_bodies(client: &Client) -> Vec<Operation> {
    let operations = operations(client).await;
    let with_bodies: Vec<_> = operations.into_iter().filter(Operation::takes_body).collect();
    assert!(with_bodies.len() > 10);
    with_bodies
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_refuses_every_malformed_body() {
    let client = Rollcall::shared().new_tenant();
    let id = client.create("ada@example.com").await.expect(201).id();
    let before = memory();
    for operation in with_bodies(&client).await {
        let Operation { method, path, .. } = &operation;
        for (what, body, codes) in table() {
            let what = format!("{method} {path}: {what}");
            let answer = send(&client, method, &operation.path_of(&id), body).await;
            let code = refused_or_each(&answer, &what);
            assert!(codes.contains(&code.as_str()), "{what}: {answer:?}");
        }
    }
    let unchanged = client.patch(&format!("/api/v1/users/{id}"), serde_json::json!({})).await.expect(200);
    assert_eq!(unchanged.json()["version"], 1, "nothing was done");
    still_serves(&client, before).await;
}

#[tokio::test]
async fn a_duplicate_is_refused_at_every_depth() {
    let client = Rollcall::shared().new_tenant();
    for (body, pointer) in [
        (r#"{"email": "a@example.com", "given_name": "A", "email": "b@example.com"}"#, "/email"),
        (r#"{"email": "a@example.com", "given_name": "A", "traits": {"x": 1, "x": 2}}"#, "/traits/x"),
        (
            r#"{"email": "a@example.com", "given_name": "A", "address": {"region": "a", "region": "b"}}"#,
            "/address/region",
        ),
        (
            r#"{"email": "a@example.com", "given_name": "A", "preferences": {"email": {"x": true, "x": true}}}"#,
            "/preferences/email/x",
        ),
        (
            r#"{"email": "a@example.com", "given_name": "A", "associations": [{"kind": "a", "key": "b", "key": "b"}]}"#,
            "/associations/0/key",
        ),
    ] {
        let answer = send(&client, "POST", "/api/v1/users", body).await.expect(400);
        assert_eq!(refused(&answer, body), "duplicate-member");
        assert!(crate::errors(&answer.json()).contains_key(pointer), "{pointer}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_20_megabytes_is_refused_on_every_route() {
    let client = Rollcall::shared().new_tenant();
    let id = client.create("ada@example.com").await.expect(201).id();
    let before = memory();
    let huge: &'static [u8] = Box::leak(vec![b' '; 20 << 20].into_boxed_slice());
    for operation in with_bodies(&client).await {
        let what = format!("{} {}", operation.method, operation.path);
        let answer = send(&client, &operation.method, &operation.path_of(&id), huge).await;
        assert_eq!((answer.status, refused(&answer, &what).as_str()), (413, "body-too-large"), "{what}");
    }
    still_serves(&client, before).await;
}
