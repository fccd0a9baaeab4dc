//! Who pays for a request that is refused.

use std::{num::NonZeroU32, time::Instant};

use axum::{Router, routing::get};
use serde_json::Value;

use super::{NOW, Signer, claims_with, file, issuer, settings, signer};
use crate::{
    auth::Authenticator,
    principal::{Caller, WriteUsers},
    rate::{Limit, Limits, RateLimiter},
    testing::{get_with, send},
};

const BURST: u32 = 20;

#[tokio::test]
async fn a_request_without_the_scope_is_charged_like_any_other() {
    let signer = Signer::ed25519("a");
    let (_held, source) = file(&signer::set(&[&signer]));
    let one = NonZeroU32::MIN;
    let limit = Limit { requests_per_second: one, burst: one.saturating_add(BURST - 1) };
    let rate = RateLimiter::new(Limits { each: Some(limit), tenants: Vec::new() });
    let authenticator = Authenticator::jwt(settings(vec![issuer(source)])).await.unwrap().with_rate(rate);
    let router =
        Router::new().route("/", get(async |_caller: Caller<WriteUsers>| "")).with_state(authenticator);
    // The extractor's clock is the real one.
    let mut claims = claims_with("scope", "users:read");
    claims["nbf"] = Value::Null;
    claims["exp"] = (NOW * 2).into();
    let authorization = format!("Bearer {}", signer.token(&claims));
    let ask =
        async || send(router.clone(), get_with(&[("authorization", &authorization)])).await.status().as_u16();
    let begun = Instant::now();
    let mut refused = 0;
    while ask().await == 403 {
        refused += 1;
        assert!(refused <= u64::from(BURST) + begun.elapsed().as_secs() + 1, "{refused} were not charged");
    }
    assert!(refused >= u64::from(BURST), "{refused}");
}
