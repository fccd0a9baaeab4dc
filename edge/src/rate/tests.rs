use std::{num::NonZeroU32, time::Duration};

use axum::body::Body;
use axum::response::Response;
use axum::{Router, extract::State, routing::get, routing::post};
use governor::clock::FakeRelativeClock;
use http::Request;

use super::{Clock, Limit, Limits, RateLimiter};
use crate::{
    Problem,
    auth::Authenticator,
    principal::{Caller, ReadUsers, Tenant, WriteUsers},
    testing::{body_json, send},
};

fn limit(requests_per_second: u32, burst: u32) -> Limit {
    Limit {
        requests_per_second: NonZeroU32::new(requests_per_second).unwrap(),
        burst: NonZeroU32::new(burst).unwrap(),
    }
}

struct Service {
    router: Router,
    clock: FakeRelativeClock,
}

impl Service {
    fn start(limits: Limits) -> Self {
        let clock = FakeRelativeClock::default();
        let rate = RateLimiter::with_clock(limits, Clock::Manual(clock.clone()));
        let batch = async |State(authenticator): State<Authenticator>,
                           caller: Caller<WriteUsers>,
                           body: String|
               -> Result<(), Problem> {
            authenticator.charge_batch(&caller.tenant, body.parse().unwrap())
        };
        let router = Router::new()
            .route("/", get(async |_caller: Caller<ReadUsers>| ""))
            .route("/batch", post(batch))
            .with_state(Authenticator::open().with_rate(rate));
        Self { router, clock }
    }

    async fn get(&self, tenant: &str) -> Response {
        let request = Request::get("/").header("host", "localhost").header("tenant", tenant);
        send(self.router.clone(), request.body(Body::empty()).unwrap()).await
    }

    async fn batch(&self, tenant: &str, items: usize) -> Response {
        let request = Request::post("/batch").header("host", "localhost").header("tenant", tenant);
        send(self.router.clone(), request.body(items.to_string().into()).unwrap()).await
    }

    /// How many of so many requests are served.
    async fn served(&self, tenant: &str, requests: usize) -> usize {
        let mut served = 0;
        for _ in 0..requests {
            served += usize::from(self.get(tenant).await.status() == 200);
        }
        served
    }
}

fn each(requests_per_second: u32, burst: u32) -> Limits {
    Limits { each: Some(limit(requests_per_second, burst)), tenants: Vec::new() }
}

#[tokio::test]
async fn a_bucket_holds_the_burst_and_fills_at_the_rate() {
    let service = Service::start(each(10, 5));
    assert_eq!(service.served("acme", 20).await, 5);
    service.clock.advance(Duration::from_millis(100));
    assert_eq!(service.served("acme", 20).await, 1);
    service.clock.advance(Duration::from_secs(60));
    assert_eq!(service.served("acme", 20).await, 5);
}

#[tokio::test]
async fn one_tenants_requests_are_not_anothers() {
    let service = Service::start(each(1, 3));
    assert_eq!(service.served("acme", 10).await, 3);
    assert_eq!(service.served("globex", 10).await, 3);
}

#[tokio::test]
async fn a_refusal_says_when_to_come_back() {
    let service = Service::start(each(2, 6));
    assert_eq!(service.batch("acme", 6).await.status(), 200);
    let refused = service.get("acme").await;
    assert_eq!(refused.status(), 429);
    for (name, value) in [
        ("retry-after", "1"),
        ("ratelimit-policy", r#""tenant";q=6;w=3"#),
        ("ratelimit", r#""tenant";r=0;t=1"#),
    ] {
        assert_eq!(refused.headers()[name], value, "{name}");
    }
    let problem = body_json(refused).await;
    assert_eq!(problem["code"], "too-many-requests");
    assert!(!problem.to_string().contains("acme"));
}

#[tokio::test]
async fn whoever_waits_as_told_is_served() {
    let service = Service::start(each(1, 100));
    for (spent, items) in [(100, 1), (99, 2), (60, 50), (1, 100), (1, 1_000)] {
        service.clock.advance(Duration::from_secs(200));
        assert_eq!(service.batch("acme", spent).await.status(), 200);
        let refused = service.batch("acme", items).await;
        let wait = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        service.clock.advance(Duration::from_secs(wait));
        assert_eq!(service.batch("acme", items).await.status(), 200, "{items}");
    }
}

#[tokio::test]
async fn a_batch_costs_its_items_but_never_more_than_a_bucket() {
    let service = Service::start(each(1, 10));
    assert_eq!(service.batch("acme", 4).await.status(), 200);
    assert_eq!(service.served("acme", 20).await, 6);
    service.clock.advance(Duration::from_secs(60));
    assert_eq!(service.batch("acme", 1_000).await.status(), 200);
    assert_eq!(service.served("acme", 20).await, 0);
    for items in [0, 1] {
        service.clock.advance(Duration::from_secs(60));
        assert_eq!(service.batch("acme", items).await.status(), 200);
        assert_eq!(service.served("acme", 20).await, 9, "{items}");
    }
}

#[tokio::test]
async fn a_named_tenant_has_a_rate_of_its_own_or_none() {
    let name = |text| Tenant::parse(text).unwrap();
    let tenants = vec![(name("big"), Some(limit(1, 50))), (name("own"), None)];
    let service = Service::start(Limits { each: Some(limit(1, 2)), tenants: tenants.clone() });
    assert_eq!(service.served("big", 60).await, 50);
    assert_eq!(service.served("own", 60).await, 60);
    assert_eq!(service.batch("own", 1_000).await.status(), 200);
    assert_eq!(service.served("other", 60).await, 2);
    let service = Service::start(Limits { each: None, tenants });
    assert_eq!(service.served("big", 60).await, 50);
    assert_eq!(service.served("other", 60).await, 60);
}

#[tokio::test]
async fn without_limits_nothing_is_charged() {
    assert!(Limits::default().limit_nobody());
    assert!(!each(1, 1).limit_nobody());
    let service = Service::start(Limits::default());
    assert_eq!(service.served("acme", 100).await, 100);
}

#[test]
fn invented_tenants_take_bounded_room() {
    let rate = RateLimiter::new(each(1, 1_000));
    for i in 0..super::BUCKETS_MAX + 20_000 {
        rate.charge(&Tenant::parse(&format!("t{i}")).unwrap()).unwrap();
    }
    rate.buckets.run_pending_tasks();
    assert!(rate.buckets.entry_count() <= super::BUCKETS_MAX);
}
