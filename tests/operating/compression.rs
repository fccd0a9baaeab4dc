//! gzip and zstd, both ways, with a bound on what a body may expand to.

use std::io::{Read, Write};

use serde_json::{Value, json};

use crate::rollcall::{Client, Rollcall};

fn compress(coding: &str, plain: &[u8]) -> Vec<u8> {
    if coding == "zstd" {
        return zstd::encode_all(plain, 3).unwrap();
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn expand(coding: &str, bytes: &[u8]) -> Vec<u8> {
    if coding == "zstd" {
        return zstd::decode_all(bytes).unwrap();
    }
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

#[tokio::test]
async fn bodies_and_answers_may_be_compressed() {
    let client = Rollcall::shared().new_tenant();
    for coding in ["gzip", "zstd"] {
        let creates: Vec<Value> = (0..40)
            .map(|n| json!({"type": "CreateUser", "data": {"email": format!("{coding}-{n}@example.com"), "given_name": "Ada"}}))
            .collect();
        let request = client
            .request("POST", "/api/v1/commands")
            .header("Content-Type", "application/json")
            .header("Content-Encoding", coding)
            .body(compress(coding, &serde_json::to_vec(&creates).unwrap()));
        let answer = Client::send(request).await.unwrap().expect(200);
        assert!(answer.json()["outcomes"].as_array().unwrap().iter().all(|outcome| outcome["status"] == 201));

        let request = client
            .request("GET", "/api/v1/users?page_size=40")
            .header("Accept-Encoding", coding)
            .header("Consistency-Token", answer.token());
        let listed = request.send().await.unwrap();
        assert_eq!(listed.headers()["content-encoding"], coding);
        assert!(listed.headers()["vary"].to_str().unwrap().eq_ignore_ascii_case("accept-encoding"));
        let listed: Value = serde_json::from_slice(&expand(coding, &listed.bytes().await.unwrap())).unwrap();
        assert_eq!(listed["items"].as_array().unwrap().len(), 40);
    }
    let small = client.request("GET", "/livez").header("Accept-Encoding", "gzip").send().await.unwrap();
    assert_eq!(
        small.headers().get("content-encoding"),
        None,
        "compressing a few bytes costs more than it saves"
    );
}

#[tokio::test]
async fn a_body_that_would_expand_past_the_bound_is_refused() {
    let client = Rollcall::shared().new_tenant();
    let bomb = format!("[{}]", " ".repeat(200 << 20));
    for coding in ["gzip", "zstd"] {
        let request = client
            .request("POST", "/api/v1/commands")
            .header("Content-Type", "application/json")
            .header("Content-Encoding", coding)
            .body(compress(coding, bomb.as_bytes()));
        assert_eq!(Client::send(request).await.unwrap().expect(413).code(), "body-too-large");
    }
    let request = client
        .request("POST", "/api/v1/users")
        .header("Content-Type", "application/json")
        .header("Content-Encoding", "br")
        .body("{}");
    assert_eq!(Client::send(request).await.unwrap().expect(415).code(), "unsupported-media-type");
}

#[tokio::test]
async fn a_compressed_command_is_the_same_wish_as_a_plain_one() {
    let client = Rollcall::shared().new_tenant();
    let body = json!({"email": "ada@example.com", "given_name": "Ada"}).to_string();
    let create = |coding: Option<&str>| {
        let request = client
            .request("POST", "/api/v1/users")
            .header("Content-Type", "application/json")
            .header("Idempotency-Key", "once");
        match coding {
            Some(coding) => {
                request.header("Content-Encoding", coding).body(compress(coding, body.as_bytes()))
            }
            None => request.body(body.clone()),
        }
    };
    let first = Client::send(create(None)).await.unwrap().expect(201).id();
    for coding in ["gzip", "zstd"] {
        assert_eq!(Client::send(create(Some(coding))).await.unwrap().expect(201).id(), first);
    }
}
