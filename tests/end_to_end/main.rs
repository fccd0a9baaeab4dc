//! End to end: the real binary with a real PostgreSQL and a real JetStream, asked by HTTP.
//!
//! All tests share one instance that lives as long as the program, each with a tenant of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "../support/rollcall.rs"]
#[expect(dead_code, reason = "what kills and restarts an instance is for another test program")]
mod rollcall;

mod audit;
mod batch;
mod border;
mod commands;
mod concurrency;
mod description;
mod idempotency;
mod listing;
mod long_streams;
mod malformed;
mod names;
mod old_forms;
mod operations;
mod patch;
mod postgres_es;
mod read_your_writes;
mod subscriber;
mod whole_path;

use std::collections::BTreeMap;

use rollcall::Answer;
use serde_json::{Value, json};

const USERS: &str = "/api/v1/users";

/// The path of a user, or of something of it: `user(&id, "/history")`.
fn user(id: &str, rest: &str) -> String {
    format!("{USERS}/{id}{rest}")
}

/// The example body of the API's description.
fn ada() -> Value {
    json!({
        "email": "ada@example.com", "given_name": "Ada", "family_name": "Lovelace", "phone": "+4930123456",
        "locale": "en-GB", "time_zone": "Europe/London", "kind": "customer",
        "traits": {"department": "R&D", "seats": 3},
        "associations": [{"kind": "membership", "key": "gold"}], "external_ids": {"hr": "E0001"},
        "preferences": {"email": {"newsletter": true}}
    })
}

/// What a problem document says is wrong, by JSON pointer or parameter.
fn errors(problem: &Value) -> BTreeMap<String, String> {
    let errors = problem["errors"].as_array().expect("a problem that lists errors");
    let place = |error: &Value| error["pointer"].as_str().or(error["parameter"].as_str()).map(str::to_owned);
    errors.iter().map(|error| (place(error).unwrap(), error["detail"].as_str().unwrap().to_owned())).collect()
}

/// The ids of a listing's items.
fn ids(answer: &Answer) -> Vec<String> {
    let id = |item: &Value| item["id"].as_str().unwrap().to_owned();
    answer.json()["items"].as_array().unwrap().iter().map(id).collect()
}
