//! The names in dashboard and rules are names that the process has.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::{Value, json};

use crate::{rollcall::eventually, start};

/// The metrics of an exposition with their types, and those that are described.
fn exposed(text: &str) -> (BTreeMap<&str, &str>, BTreeSet<&str>) {
    let of = |kind: &str| -> Vec<(&str, &str)> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(kind)?.trim_start().split_once(' '));
        lines.collect()
    };
    (of("# TYPE").into_iter().collect(), of("# HELP").into_iter().map(|(name, _)| name).collect())
}

/// The names of our metrics, and of the process's, that a text speaks of.
fn spoken_of(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("rollcall_") || word.starts_with("process_")).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The PromQL of a dashboard, wherever it stands.
fn expressions(value: &Value, found: &mut String) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value.as_str() {
                    Some(text) if ["expr", "query"].contains(&name.as_str()) => {
                        found.push_str(text);
                        found.push('\n');
                    }
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn dashboard_and_rules_speak_of_metrics_that_exist() {
    let rollcall = start(&[]);
    let client = rollcall.client("acme");
    let created = client.create("ada@example.com").await.expect(201);
    let path = format!("/api/v1/users/{}/deactivate", created.id());
    client.post(&path, json!({})).await.expect(200);
    client.get_after(&format!("/api/v1/users/{}", created.id()), created.token()).await.expect(200);

    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/rollcall.json")).unwrap();
    let mut panels = String::new();
    expressions(&dashboard, &mut panels);
    let rules = read("deploy/prometheus/alerts.yml");
    assert!(spoken_of(&panels).len() > 20 && spoken_of(&rules).len() > 5);

    // Publishing and measuring happen in their own time.
    let mut missing = BTreeSet::new();
    let text = eventually("all of the metrics", async || {
        let text = client.get("/metrics").await.expect(200).text;
        let (types, _) = exposed(&text);
        let known = |name: &&&str| {
            let of_histogram = ["_bucket", "_sum", "_count"].iter().filter_map(|end| name.strip_suffix(end));
            types.contains_key(**name)
                || of_histogram.into_iter().any(|name| types.get(name) == Some(&"histogram"))
        };
        let names: BTreeSet<&str> = spoken_of(&panels).union(&spoken_of(&rules)).copied().collect();
        let now_missing: BTreeSet<String> =
            names.iter().filter(|name| !known(name)).map(|name| (*name).to_owned()).collect();
        if now_missing != missing {
            eprintln!("not there yet: {now_missing:?}");
            missing = now_missing;
        }
        missing.is_empty().then_some(text)
    });
    let text = text.await;
    let (types, described) = exposed(&text);
    for (name, kind) in types {
        assert!(described.contains(name), "{name} has no description");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
    }
}

#[tokio::test]
async fn gauges_follow_what_they_measure() {
    let rollcall = start(&[]);
    let client = rollcall.client("acme");
    client.create("ada@example.com").await.expect(201);
    let lines = [
        r#"rollcall_build_info{version="0.1.0",role="up"} 1"#,
        r#"rollcall_appends_total{outcome="stored"} 1"#,
        r#"rollcall_appends_total{outcome="conflict"} 0"#,
        r#"rollcall_projection_lag_seconds{projection="profiles"} 0"#,
        r#"rollcall_projection_lag_seconds{projection="publisher"} 0"#,
        r#"rollcall_projection_partitions_stopped{projection="audit",version="1"} 0"#,
        r#"rollcall_projection_parked_streams{projection="profiles",version="1"} 0"#,
        r#"rollcall_pool_connections_max{pool="service"} 8"#,
        "rollcall_publisher_publishing 1",
        "rollcall_append_queue 0",
        "rollcall_append_queue_capacity 8192",
        "rollcall_postgres_up 1",
        // The one that asks.
        "rollcall_http_requests_in_flight 1",
    ];
    eventually("what the gauges say", async || {
        let text = client.get("/metrics").await.expect(200).text;
        lines.iter().all(|line| text.lines().any(|told| told == *line)).then_some(())
    })
    .await;
}
