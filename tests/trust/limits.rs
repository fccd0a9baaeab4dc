//! One tenant's haste is not another's wait.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::service::{HASTY, Service};

#[tokio::test]
async fn a_tenant_beyond_its_rate_is_told_when_to_come_back_while_others_go_on() {
    let service = Service::shared();
    let (hasty, calm) = (service.token(HASTY), service.token("calm"));
    let begun = Instant::now();
    let mut served = 0;
    let refused = loop {
        service.ask_with(&calm, "GET", "/api/v1/users", None).await.expect(200);
        let answer = service.ask_with(&hasty, "GET", "/api/v1/users", None).await;
        if answer.status != 200 {
            break answer;
        }
        served += 1;
        assert!(served < 1_000);
    };
    assert!((5..=5 + begun.elapsed().as_secs() + 1).contains(&served), "{served} were served");
    assert_eq!((refused.status, refused.code().as_str()), (429, "too-many-requests"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("ratelimit-policy"), Some(r#""tenant";q=5;w=5"#));
    assert_eq!(refused.header("ratelimit"), Some(r#""tenant";r=0;t=1"#));

    // A batch is charged for its commands before any of them runs, and never for more than a bucket holds.
    let create = |i: usize| json!({"type": "CreateUser", "data": {"email": format!("{i}@example.com"), "given_name": "Ada"}});
    let batch = json!((0..20).map(create).collect::<Vec<_>>());
    let answer = service.ask_with(&hasty, "POST", "/api/v1/commands", Some(&batch)).await.expect(429);
    let wait = answer.header("retry-after").unwrap().parse().unwrap();
    // It costs a full bucket, which takes five seconds; the refusal may have known of its first request only.
    tokio::time::sleep(Duration::from_secs(wait).max(Duration::from_secs(5))).await;
    let answer = service.ask_with(&hasty, "POST", "/api/v1/commands", Some(&batch)).await.expect(200);
    assert!(answer.json()["outcomes"].as_array().unwrap().iter().all(|outcome| outcome["status"] == 201));
    service.ask_with(&hasty, "POST", "/api/v1/commands", Some(&batch)).await.expect(429);
}
