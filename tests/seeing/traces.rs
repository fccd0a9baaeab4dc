//! One command's trace, from its request to JetStream.

use std::collections::BTreeMap;

use serde_json::json;

use crate::{
    collector::{Collector, attribute},
    rollcall::eventually,
    start,
};

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

#[tokio::test]
async fn a_trace_follows_a_command_through_append_projections_and_publisher() {
    let (collector, endpoint) = Collector::start().await;
    let rollcall = start(&[("ROLLCALL_TELEMETRY_OTLP_ENDPOINT", &endpoint)]);
    let client = rollcall.client("acme");
    let id = client.create("ada@example.com").await.expect(201).id();
    let traceparent = format!("00-{TRACE_ID}-{CALLER}-01");
    let sent = [("traceparent", traceparent.as_str()), ("Request-Id", "r-1")];
    let wish = json!({"email": "lovelace@example.com"});
    let path = format!("/api/v1/users/{id}/change-email");
    let changed = client.call("POST", &path, &sent, Some(&wish)).await.expect(200);
    assert_eq!(changed.header("correlation-id"), Some(TRACE_ID));

    let names = [
        "command_api.user.decide",
        "command_api.user.load",
        "event_store.log.append",
        "http.request",
        "projections.audit.apply",
        "projections.profiles.apply",
        "projections.publisher.publish",
    ];
    let spans = eventually("the whole trace", async || {
        let spans = collector.of_trace(TRACE_ID);
        let spans: BTreeMap<_, _> = spans.into_iter().map(|span| (span.name.clone(), span)).collect();
        spans.keys().eq(names).then_some(spans)
    });
    let spans = spans.await;
    let request = &spans["http.request"];
    assert_eq!(hex::encode(&request.parent_span_id), CALLER);
    assert_eq!(attribute(request, "http.route").as_deref(), Some("/api/v1/users/{id}/change-email"));
    assert_eq!(attribute(request, "http.status").as_deref(), Some("200"));
    assert_eq!(attribute(request, "request.id").as_deref(), Some("r-1"));
    for (name, span) in &spans {
        assert!(name == "http.request" || span.parent_span_id == request.span_id, "{name}");
        assert!(span.start_time_unix_nano >= request.start_time_unix_nano, "{name}");
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano, "{name}");
        let text = format!("{span:?}");
        for told in ["ada@", "lovelace", "acme", &id] {
            assert!(!text.contains(told), "{told} is in {text}");
        }
    }
    let position = |name: &str| attribute(&spans[name], "event.position").unwrap();
    let stored = position("event_store.log.append");
    assert!(names[4..].iter().all(|name| position(name) == stored));
    assert_eq!(attribute(&spans["event_store.log.append"], "append.outcome").as_deref(), Some("stored"));

    // A command without a caller's trace has one of its own, which its event bears.
    let events = client.get(&format!("/api/v1/users/{id}/events")).await.expect(200).json();
    let metadata = events["items"].to_string();
    assert!(metadata.contains(&hex::encode(&request.span_id)), "{metadata}");
    let own = eventually("the trace of the first command", async || {
        let spans = collector.spans();
        let own = spans.iter().find(|span| {
            span.name == "projections.profiles.apply" && hex::encode(&span.trace_id) != TRACE_ID
        })?;
        spans.iter().find(|span| span.trace_id == own.trace_id && span.name == "http.request").cloned()
    });
    assert!(own.await.parent_span_id.is_empty());
}

/// The collector takes what is left while the test waits for the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_sampled_is_not_told() {
    let (collector, endpoint) = Collector::start().await;
    let mut rollcall =
        start(&[("ROLLCALL_TELEMETRY_OTLP_ENDPOINT", &endpoint), ("ROLLCALL_TELEMETRY_SAMPLE_RATIO", "0")]);
    let client = rollcall.client("acme");
    client.create("ada@example.com").await.expect(201);
    let unsampled = format!("00-{TRACE_ID}-{CALLER}-00");
    client.call("GET", "/api/v1/users", &[("traceparent", &unsampled)], None).await.expect(200);
    let sampled = format!("00-{}-{CALLER}-01", "1".repeat(32));
    client.call("GET", "/api/v1/users", &[("traceparent", &sampled)], None).await.expect(200);
    // Stopping sends what is left.
    assert!(rollcall.stop().0.success());
    let traces: Vec<String> = collector.spans().iter().map(|span| hex::encode(&span.trace_id)).collect();
    assert_eq!(traces, ["1".repeat(32)]);
}

#[tokio::test]
async fn a_dead_collector_holds_nothing_up() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Connections are accepted by the kernel, and nobody ever answers.
    let endpoint = format!("http://{}", nobody.local_addr().unwrap());
    let mut rollcall = start(&[("ROLLCALL_TELEMETRY_OTLP_ENDPOINT", &endpoint)]);
    let client = rollcall.client("acme");
    eventually("a line about the collector", async || {
        client.create(&format!("{}@example.com", uuid::Uuid::now_v7())).await.expect(201);
        rollcall.logged().contains("the collector does not take traces").then_some(())
    })
    .await;
    let lost = client.get("/metrics").await.expect(200).text;
    let lost = lost.lines().find_map(|line| line.strip_prefix("rollcall_trace_spans_lost_total "));
    assert!(lost.unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(rollcall.logged().matches("the collector does not take traces").count(), 1);
    let (status, took) = rollcall.stop();
    assert!(status.success() && took.as_secs() < 8, "{status} after {took:?}");
}
