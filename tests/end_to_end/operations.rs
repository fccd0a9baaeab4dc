//! What operators ask: health and metrics.

use serde_json::json;

use crate::{
    USERS, ada,
    rollcall::{Rollcall, eventually},
    user,
};

#[tokio::test]
async fn the_process_says_that_it_lives_and_is_ready() {
    let client = Rollcall::shared().new_tenant();
    let live = client.get("/livez").await.expect(200);
    assert_eq!(live.header("content-type"), Some("application/json"));
    for path in ["/readyz", "/health"] {
        let ready = eventually("readiness", async || {
            let answer = client.get(path).await.expect(200).json();
            (answer["status"] == "ready").then_some(answer)
        });
        let ready = ready.await;
        assert_eq!(
            ready["checks"],
            json!({"postgres": {"status": "up"}, "nats": {"status": "up"}}),
            "{path}"
        );
    }
}

#[tokio::test]
async fn health_in_detail_names_the_log_and_how_far_each_projection_is() {
    let client = Rollcall::shared().new_tenant();
    client.create("a@example.com").await.expect(201);
    let detailed = client.get("/health/detailed").await.expect(200).json();
    uuid::Uuid::parse_str(detailed["log"]["log_id"].as_str().unwrap()).unwrap();
    let heads = detailed["log"]["heads"].as_array().unwrap();
    assert_eq!(heads.len(), 16);
    assert!(heads.iter().any(|head| head.as_u64() > Some(0)));
    for projection in ["profiles", "audit", "publisher"] {
        let of = &detailed["projections"][projection];
        assert!(of["lag_events"].is_u64(), "{projection}");
        assert_eq!(of["positions"].as_array().unwrap().len(), 16, "{projection}");
    }
    assert!(detailed["version"].is_string() && detailed["uptime_seconds"].is_u64());
}

#[tokio::test]
async fn metrics_count_requests_by_route_and_name_nobody() {
    let client = Rollcall::shared().new_tenant();
    let created = client.post(USERS, ada()).await.expect(201);
    let id = created.id();
    let found = client.get_after(&format!("{USERS}?email=ada@example.com&name=ada"), created.token()).await;
    found.expect(200);
    client.post(&user(&id, "/deactivate"), json!({"reason": "Kummer"})).await.expect(200);
    client.get("/nowhere/ada@example.com").await.expect(404);
    let lines = [
        r#"rollcall_http_requests_total{route="/api/v1/users",method="POST",status="201"}"#,
        r#"route="/api/v1/users/{id}/deactivate""#,
        "rollcall_http_request_seconds_bucket",
        "rollcall_append_batch_appends",
        r#"rollcall_projection_lag_events{projection="profiles"}"#,
        "rollcall_projection_events_total",
        "rollcall_published_events_total",
    ];
    // Projecting and publishing happen in their own time.
    let metrics = eventually("what the metrics count", async || {
        let metrics = client.get("/metrics").await.expect(200);
        lines.iter().all(|line| metrics.text.contains(line)).then_some(metrics)
    });
    let metrics = metrics.await;
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain"));
    for told in [client.tenant.as_str(), &id, "tenant-", "example.com", "Lovelace", "Kummer", "nowhere"] {
        assert!(!metrics.text.contains(told), "{told} is in\n{}", metrics.text);
    }
}
