//! Log lines.

use std::collections::BTreeSet;

use rollcall_edge::token::ConsistencyToken;
use serde_json::{Value, json};

use crate::{
    rollcall::{Rollcall, Setup, data_directory, eventually},
    start,
};

fn json_lines(rollcall: &Rollcall) -> Vec<Value> {
    let logged = rollcall.logged();
    // The last line may be under way.
    let whole = &logged[..logged.rfind('\n').map_or(0, |end| end + 1)];
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

#[tokio::test]
async fn json_lines_bear_the_ids_of_their_request_and_no_personal_data() {
    let rollcall = start(&[("ROLLCALL_LOG_FORMAT", "json"), ("ROLLCALL_LOG", "debug,hyper=info,h2=info")]);
    let client = rollcall.client("acme");
    let body = json!({"email": "ada@example.com", "given_name": "Augusta"});
    let sent = [("X-Request-Id", "gate-7"), ("Correlation-Id", "order.9")];
    let created = client.call("POST", "/api/v1/users", &sent, Some(&body)).await.expect(201);
    assert_eq!(created.header("request-id"), Some("gate-7"));
    let found = client.get_after("/api/v1/users?email=ada@example.com", created.token()).await.expect(200);
    let own_id = found.header("request-id").unwrap().to_owned();

    let line = eventually("the line of the request", async || {
        json_lines(&rollcall)
            .into_iter()
            .find(|line| line["request.id"] == "gate-7" && line["message"] == "answered")
    });
    let mut line = line.await;
    chrono::DateTime::parse_from_rfc3339(line["timestamp"].as_str().unwrap()).unwrap();
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    assert!(line["duration_ms"].as_f64().unwrap() > 0.0);
    for varies in ["timestamp", "duration_ms"] {
        line.as_object_mut().unwrap().remove(varies);
    }
    let expected = json!({
        "level": "DEBUG", "target": "rollcall::http::requests", "message": "answered",
        "http.route": "/api/v1/users", "http.method": "POST", "http.status": 201,
        "request.id": "gate-7", "correlation.id": "order.9",
    });
    assert_eq!(line, expected);

    let lines = eventually("the line of the query", async || {
        let lines = json_lines(&rollcall);
        lines.iter().any(|line| line["request.id"] == own_id.as_str()).then_some(lines)
    });
    let lines = lines.await;
    let with_ids = lines.iter().filter(|line| line.get("request.id").is_some());
    assert!(with_ids.clone().all(|line| line["correlation.id"].is_string()));
    let text = rollcall.logged();
    for told in ["ada@example.com", "Augusta", &created.id()] {
        assert!(!text.contains(told), "{told} is in\n{text}");
    }
}

#[tokio::test]
async fn every_answer_names_its_request_and_a_refusal_what_it_belongs_to() {
    let rollcall = start(&[("ROLLCALL_LOG_FORMAT", "pretty"), ("ROLLCALL_LOG", "debug,hyper=info,h2=info")]);
    let client = rollcall.client("acme");
    let mut ids = BTreeSet::new();
    for (path, sent, status, correlation) in [
        ("/livez", vec![], 200, None),
        ("/nowhere", vec![], 404, Some(None)),
        ("/nowhere", vec![("Correlation-Id", "c-1")], 404, Some(Some("c-1"))),
        ("/nowhere", vec![("Correlation-Id", "c 1"), ("Request-Id", "r 1")], 404, Some(None)),
        ("/api/v1/users?what=1", vec![], 400, Some(None)),
        (
            "/api/v1/users",
            vec![("Consistency-Token", "nonsense"), ("Correlation-Id", "c-2")],
            400,
            Some(Some("c-2")),
        ),
    ] {
        let answer = client.call("GET", path, &sent, None).await.expect(status);
        let id = answer.header("request-id").unwrap().to_owned();
        assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7, "{path}");
        let expected = correlation.map(|named| named.unwrap_or(&id));
        assert_eq!(answer.header("correlation-id"), expected, "{path}");
        ids.insert(id);
    }
    assert_eq!(ids.len(), 6);
    let last = ids.last().unwrap();
    eventually("a pretty line", async || {
        let logged = rollcall.logged();
        let line = logged.lines().find(|line| line.contains(last.as_str()))?;
        assert!(line.ends_with(&format!("request.id={last} correlation.id=c-2")), "{line}");
        Some(())
    })
    .await;
}

#[tokio::test]
async fn a_failed_request_is_one_warning() {
    let rollcall = start(&[("ROLLCALL_LOG_FORMAT", "json"), ("ROLLCALL_LOG", "info")]);
    let client = rollcall.client("acme");
    let detailed = client.get("/health/detailed").await.expect(200).json();
    let log_id = detailed["log"]["log_id"].as_str().unwrap().parse().unwrap();
    // A position that no projection reaches: 503 after two seconds.
    let ahead = ConsistencyToken::single(log_id, 3, 1_000).to_string();
    let path = "/api/v1/users?email=ada@example.com";
    let refused = client.get_after(path, &ahead).await.expect(503);
    let id = refused.header("request-id").unwrap().to_owned();
    client.get(path).await.expect(200);
    let warned = eventually("the line of the failure", async || {
        let lines: Vec<Value> =
            json_lines(&rollcall).into_iter().filter(|line| line.get("request.id").is_some()).collect();
        (!lines.is_empty()).then_some(lines)
    });
    let warned = warned.await;
    assert_eq!(warned.len(), 1, "what succeeds is told at debug alone: {warned:?}");
    let line = &warned[0];
    assert_eq!(line["request.id"], id.as_str());
    assert_eq!(line["level"], "WARN");
    assert_eq!((&line["http.route"], &line["http.status"]), (&json!("/api/v1/users"), &json!(503)));
    assert!(line["duration_ms"].as_f64().unwrap() >= 2_000.0);
}

#[test]
fn a_bad_filter_or_format_is_refused_by_its_name() {
    for (variable, bad, key) in [
        ("ROLLCALL_LOG", "info,=", "log "),
        ("ROLLCALL_LOG_FORMAT", "xml", "log_format "),
        ("ROLLCALL_TELEMETRY_OTLP_ENDPOINT", "collector:4318", "telemetry.otlp_endpoint "),
    ] {
        let directory = data_directory();
        let variables = vec![(variable.to_owned(), bad.to_owned())];
        let (status, said) = Rollcall::refused(&Setup { variables, ..Setup::default() }, directory.path());
        assert!(!status.success() && said.starts_with(&format!("rollcall: {key}")), "{said}");
    }
}
