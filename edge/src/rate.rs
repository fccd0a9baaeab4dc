//! How much of the service a tenant may use: a token bucket for each.
//!
//! Buckets are kept in this process alone: with n instances behind a balancer a tenant gets up to n times its rate, which
//! bounds what one can do to the others without a round trip for every request.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use governor::{
    NotUntil, Quota,
    clock::{self, Clock as _},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use http::{HeaderName, HeaderValue};
use metrics::Counter;
use moka::sync::Cache;

use crate::{
    principal::Tenant,
    problem::{Problem, code},
};

static RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
static RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Buckets that are kept at once. In open mode callers invent tenants; past this many the least used start afresh.
const BUCKETS_MAX: u64 = 100_000;
/// A bucket that was left alone for as long as it takes to fill is as good as new, and dropped; not sooner than this.
const KEPT_AT_LEAST: Duration = Duration::from_secs(1);

/// The rate of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub requests_per_second: NonZeroU32,
    /// What a bucket holds: so many requests may come at once after a pause.
    pub burst: NonZeroU32,
}

/// The rates of all tenants; `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of every tenant that is not named.
    pub each: Option<Limit>,
    /// Of some by name, with limits of their own or none.
    pub tenants: Vec<(Tenant, Option<Limit>)>,
}

/// Charges requests to their tenants' buckets.
pub struct RateLimiter {
    each: Option<Limit>,
    buckets: Cache<Tenant, Arc<Bucket>>,
    named: HashMap<Tenant, Option<Bucket>>,
    clock: Clock,
    limited: Counter,
}

type State = governor::RateLimiter<NotKeyed, InMemoryState, Clock, NoOpMiddleware<Duration>>;

struct Bucket {
    limit: Limit,
    state: State,
}

#[derive(Clone)]
enum Clock {
    Since(Instant),
    #[cfg(test)]
    Manual(clock::FakeRelativeClock),
}

impl clock::Clock for Clock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        match self {
            Self::Since(start) => start.elapsed(),
            #[cfg(test)]
            Self::Manual(clock) => clock.now().into(),
        }
    }
}

impl Limits {
    /// Whether there is anything to limit; where not, no limiter is needed.
    #[must_use]
    pub fn limit_nobody(&self) -> bool {
        self.each.is_none() && self.tenants.iter().all(|(_, limit)| limit.is_none())
    }
}

impl RateLimiter {
    /// Counts with the recorder that is installed at this time.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self::with_clock(limits, Clock::Since(Instant::now()))
    }

    fn with_clock(limits: Limits, clock: Clock) -> Self {
        metrics::describe_counter!(
            "rollcall_rate_limited_total",
            "Requests refused because their tenant's bucket was empty"
        );
        let bucket = |limit| Bucket::new(limit, &clock);
        let named = limits.tenants.into_iter().map(|(tenant, limit)| (tenant, limit.map(bucket))).collect();
        let kept = limits.each.map_or(KEPT_AT_LEAST, |limit| limit.fills_within().max(KEPT_AT_LEAST));
        Self {
            each: limits.each,
            buckets: Cache::builder().max_capacity(BUCKETS_MAX).time_to_idle(kept).build(),
            named,
            clock,
            limited: metrics::counter!("rollcall_rate_limited_total"),
        }
    }

    /// Charges one request.
    ///
    /// # Errors
    /// 429 `too-many-requests` where the tenant's bucket is empty.
    pub fn charge(&self, tenant: &Tenant) -> Result<(), Problem> {
        self.on_bucket(tenant, |bucket| self.judge(bucket, bucket.state.check(), Duration::ZERO))
    }

    /// Charges what `items` cost beyond the one that was charged already; both together are never more than a whole bucket.
    ///
    /// # Errors
    /// 429 `too-many-requests` where the tenant's bucket does not hold that; then nothing more is taken.
    pub fn charge_batch(&self, tenant: &Tenant, items: usize) -> Result<(), Problem> {
        self.on_bucket(tenant, |bucket| {
            let items = u32::try_from(items).unwrap_or(u32::MAX).min(bucket.limit.burst.get());
            let Some(more) = NonZeroU32::new(items.saturating_sub(1)) else { return Ok(()) };
            let taken = bucket.state.check_n(more).expect("less than a bucket holds");
            // The request that comes again is charged its one before it comes to this.
            self.judge(bucket, taken, bucket.limit.interval())
        })
    }

    /// Nothing where the tenant has no limit.
    fn on_bucket(
        &self,
        tenant: &Tenant,
        charge: impl FnOnce(&Bucket) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        match (self.named.get(tenant), self.each) {
            (Some(None), _) | (None, None) => Ok(()),
            (Some(Some(bucket)), _) => charge(bucket),
            (None, Some(limit)) => {
                let new = || Arc::new(Bucket::new(limit, &self.clock));
                charge(&self.buckets.get_with_by_ref(tenant, new))
            }
        }
    }

    fn judge(
        &self,
        bucket: &Bucket,
        taken: Result<(), NotUntil<Duration>>,
        more_wait: Duration,
    ) -> Result<(), Problem> {
        taken.map_err(|until| {
            self.limited.increment(1);
            bucket.limit.exceeded(until.wait_time_from(self.clock.now()) + more_wait)
        })
    }
}

impl Bucket {
    fn new(limit: Limit, clock: &Clock) -> Self {
        Self { limit, state: State::direct_with_clock(limit.quota(), clock.clone()) }
    }
}

impl Limit {
    fn quota(self) -> Quota {
        Quota::per_second(self.requests_per_second).allow_burst(self.burst)
    }

    fn interval(self) -> Duration {
        self.quota().replenish_interval()
    }

    fn fills_within(self) -> Duration {
        self.quota().burst_size_replenished_in()
    }

    /// The answer, with the fields of draft-ietf-httpapi-ratelimit-headers-10.
    fn exceeded(self, wait: Duration) -> Problem {
        let wait_s = whole_seconds(wait);
        let policy = format!("\"tenant\";q={};w={}", self.burst, whole_seconds(self.fills_within()));
        let field = |text| HeaderValue::try_from(text).expect("names and numbers are a header's text");
        let rate = self.requests_per_second;
        let detail = format!("the tenant may send {rate} requests per second; try again in {wait_s} s");
        Problem::new(code::TOO_MANY_REQUESTS, detail)
            .with_retry_after_s(wait_s)
            .with_header(RATELIMIT_POLICY.clone(), field(policy))
            .with_header(RATELIMIT.clone(), field(format!("\"tenant\";r=0;t={wait_s}")))
    }
}

/// Rounded up, and at least one: whoever comes too early is only told to come again.
fn whole_seconds(duration: Duration) -> u32 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
}
