//! One tenant's haste is not another's wait.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    rollcall::Answer,
    service::{BULKY, HASTY, Service},
};

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
    let wait = refused.header("retry-after").unwrap().parse().unwrap();
    tokio::time::sleep(Duration::from_secs(wait)).await;
    service.ask_with(&hasty, "GET", "/api/v1/users", None).await.expect(200);
}

#[tokio::test]
async fn a_batch_is_charged_for_its_commands_before_any_of_them_runs() {
    let service = Service::shared();
    let token = service.token(BULKY[0]);
    created(&service.ask_with(&token, "POST", "/api/v1/commands", Some(&batch_of(0..15))).await.expect(200));
    let more = batch_of(15..30);
    let refused = service.ask_with(&token, "POST", "/api/v1/commands", Some(&more)).await.expect(429);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((5..=11).contains(&wait), "{wait}");
    // A request alone is served: it was the batch that was too much.
    service.ask_with(&token, "GET", "/api/v1/users", None).await.expect(200);
}

#[tokio::test]
async fn a_batch_is_never_charged_for_more_than_a_bucket_holds() {
    let service = Service::shared();
    let token = service.token(BULKY[1]);
    created(&service.ask_with(&token, "POST", "/api/v1/commands", Some(&batch_of(0..40))).await.expect(200));
    service.ask_with(&token, "POST", "/api/v1/commands", Some(&batch_of(40..80))).await.expect(429);
}

fn batch_of(numbers: Range<usize>) -> Value {
    let create = |i: usize| json!({"type": "CreateUser", "data": {"email": format!("{i}@example.com"), "given_name": "Ada"}});
    numbers.map(create).collect()
}

fn created(answer: &Answer) {
    assert!(answer.json()["outcomes"].as_array().unwrap().iter().all(|outcome| outcome["status"] == 201));
}
