//! Malformed headers on every route.

use reqwest::{Method, header::HeaderValue};

use super::{memory, refused, still_serves};
use crate::{
    description::{Operation, operations},
    rollcall::{Answer, Client, Rollcall},
};

/// What no route takes.
fn of_every_route() -> Vec<(&'static str, Vec<Vec<u8>>, u16, &'static str)> {
    let long = |length: usize| vec![b'x'; length];
    let one = |name, value: &[u8]| (name, vec![value.to_vec()], 400, "malformed-header");
    let mut table = vec![
        one("Actor", b""),
        one("Actor", b"ada@example.com"),
        one("Actor", b"a b"),
        one("Actor", b"\xff"),
        one("Actor", &long(129)),
        ("Actor", vec![b"a".to_vec(), b"a".to_vec()], 400, "malformed-header"),
        ("Host", vec![b"rollcall.example.com".to_vec()], 421, "misdirected-host"),
        ("Host", vec![b"localhost.example.com".to_vec()], 421, "misdirected-host"),
        ("Origin", vec![b"https://example.com".to_vec()], 403, "forbidden"),
    ];
    for tenant in [&b""[..], b"Acme", b"a_b", b"a b", b"\xc3\xa4", b"../acme", &long(64)] {
        table.push(one("Tenant", tenant));
    }
    table
}

fn of_commands() -> Vec<(&'static str, Vec<Vec<u8>>, u16, &'static str)> {
    let one = |name, value: &[u8]| (name, vec![value.to_vec()], 400, "malformed-header");
    let mut table = Vec::new();
    for key in [&b""[..], b"a b", b"\xff", b"\"open", b"\"a\"b\"", &[b'x'; 256]] {
        table.push(one("Idempotency-Key", key));
    }
    table.push(("Idempotency-Key", vec![b"a".to_vec(), b"a".to_vec()], 400, "malformed-header"));
    for tag in [&b""[..], b"1", b"\"1", b"*, \"1\"", b"\"1\" \"2\"", b"w/\"1\"", b"\"a b\""] {
        table.push(one("If-Match", tag));
    }
    table.push(("If-Match", vec![b"*".to_vec(), b"*".to_vec()], 400, "malformed-header"));
    for id in [&b""[..], b"a b", b"\xff", &[b'x'; 129]] {
        table.push(one("Correlation-Id", id));
        table.push(one("Causation-Id", id));
    }
    for media_type in [&b"text/plain"[..], b"application/xml", b"json", b"", b"\xff", b"multipart/form-data"]
    {
        table.push(("Content-Type", vec![media_type.to_vec()], 415, "unsupported-media-type"));
    }
    table.push(("Content-Encoding", vec![b"br".to_vec()], 415, "unsupported-media-type"));
    table
}

fn of_queries() -> Vec<(&'static str, Vec<Vec<u8>>, u16, &'static str)> {
    let values = [&b"x"[..], b"ct1.", b"ct1.!!!!", b"ct9.AAAA", b"\xff", b"ct1.AAAAAAAAAAAAAAAAAAAAAA, x"];
    values.map(|value| ("Consistency-Token", vec![value.to_vec()], 400, "malformed-token")).into()
}

/// Sends the header instead of the client's own of that name.
async fn send(client: &Client, operation: &Operation, id: &str, name: &str, values: &[Vec<u8>]) -> Answer {
    let url = format!("{}{}", Rollcall::shared().ready.http, operation.path_of(id));
    let method: Method = operation.method.parse().unwrap();
    let mut request = reqwest::Client::new().request(method, url);
    if name != "Tenant" {
        request = request.header("Tenant", &client.tenant);
    }
    if operation.takes_body() {
        request = request.body("{}");
        if name != "Content-Type" {
            request = request.header("Content-Type", "application/json");
        }
    }
    for value in values {
        request = request.header(name, HeaderValue::from_bytes(value).unwrap());
    }
    Client::send(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_refuses_malformed_headers() {
    let client = Rollcall::shared().new_tenant();
    let id = client.create("ada@example.com").await.expect(201).id();
    let before = memory();
    for operation in operations(&client).await {
        let mut table = of_every_route();
        table.extend(if operation.is_command() { of_commands() } else { of_queries() });
        for (name, values, status, code) in table {
            let answer = send(&client, &operation, &id, name, &values).await;
            let what = format!("{} {} {name}: {values:?}", operation.method, operation.path);
            assert_eq!(
                (answer.status, refused(&answer, &what).as_str()),
                (status, code),
                "{what}: {answer:?}"
            );
        }
    }
    still_serves(&client, before).await;
}

#[tokio::test]
async fn a_body_without_a_media_type_is_refused() {
    let client = Rollcall::shared().new_tenant();
    let request = client.request("POST", "/api/v1/users").body("{}");
    let answer = Client::send(request).await.unwrap();
    assert_eq!((answer.status, refused(&answer, "no type").as_str()), (415, "unsupported-media-type"));
    let request = client.request("POST", "/api/v1/users").body("{}");
    let request =
        request.header("Content-Type", "application/json").header("Content-Type", "application/json");
    let answer = Client::send(request).await.unwrap();
    assert_eq!((answer.status, refused(&answer, "two types").as_str()), (400, "malformed-header"));
}
