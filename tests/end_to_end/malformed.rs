//! Whatever comes, the answer is a problem document, never a server's failure.

mod bodies;
mod connections;
mod headers;
mod members;
mod paths;

use std::fs;

use crate::rollcall::{Answer, Client, Rollcall};

/// Panics where the answer is no refusal of the client's request, told as a problem document; its code.
#[track_caller]
fn refused(answer: &Answer, what: &str) -> String {
    assert!((400..500).contains(&answer.status), "{what}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}: {answer:?}");
    let code = answer.code();
    let problem = answer.json();
    assert_eq!(problem["type"], format!("/problems/{code}"), "{what}");
    for member in ["title", "detail"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{what}: {problem}");
    }
    assert!(
        problem.get("errors").is_none_or(|errors| errors.as_array().is_some_and(|list| list.len() <= 100))
    );
    code
}

/// As [`refused`], also where a batch was taken and each of its commands refused.
#[track_caller]
fn refused_or_each(answer: &Answer, what: &str) -> String {
    if answer.status != 200 {
        return refused(answer, what);
    }
    let outcomes =
        answer.json()["outcomes"].as_array().unwrap_or_else(|| panic!("{what}: {answer:?}")).clone();
    for outcome in &outcomes {
        let status = outcome["status"].as_u64().unwrap();
        assert!((400..500).contains(&status) && outcome["problem"]["status"] == status, "{what}: {outcome}");
    }
    outcomes[0]["problem"]["code"].as_str().unwrap().to_owned()
}

/// Sends bytes as a body of JSON.
async fn send(client: &Client, method: &str, path: &str, body: impl Into<reqwest::Body>) -> Answer {
    let request = client.request(method, path).header("Content-Type", "application/json").body(body);
    Client::send(request).await.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"))
}

/// Bytes of memory that the service holds.
fn memory() -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", Rollcall::shared().pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// The service is as well as before.
async fn still_serves(client: &Client, memory_before: u64) {
    let ready = client.get("/readyz").await.expect(200).json();
    assert_eq!(ready["checks"]["postgres"]["status"], "up", "{ready}");
    let grown = memory().saturating_sub(memory_before);
    assert!(grown < 200 << 20, "memory grew by {} MiB", grown >> 20);
    assert!(!Rollcall::shared().logged().contains("panicked"));
}
