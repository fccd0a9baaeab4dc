//! Whether the process lives, whether it can serve, and how it is in detail.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use rollcall_edge::auth::Authenticator;
use rollcall_event_store::{Borrowed, Log};
use rollcall_projections::{Progress, publisher::Status};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::guard::Guard;

/// How long PostgreSQL may take to answer before it counts as away.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// What health is read from. Cheap to clone.
#[derive(Clone)]
pub struct Health(Arc<Inner>);

struct Inner {
    log: Log,
    /// Those that this process runs or follows.
    readers: Vec<(&'static str, Progress)>,
    publisher: Option<watch::Receiver<Status>>,
    authenticator: Authenticator,
    guard: Guard,
    started: Instant,
}

impl Health {
    pub fn new(
        log: Log,
        readers: Vec<(&'static str, Progress)>,
        publisher: Option<watch::Receiver<Status>>,
        authenticator: Authenticator,
        guard: Guard,
    ) -> Self {
        Self(Arc::new(Inner { log, readers, publisher, authenticator, guard, started: Instant::now() }))
    }

    /// Keeps the gauges of the projections.
    pub async fn measure(self, shutdown: CancellationToken) {
        loop {
            super::metrics::measure(&self.0.log, &self.0.readers).await;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(MEASURE_EVERY) => {}
            }
        }
    }

    fn lag(&self, progress: &Progress) -> u64 {
        let heads = self.0.log.heads();
        (0..self.0.log.partitions())
            .map(|partition| heads.position(partition).saturating_sub(progress.position(partition)))
            .sum()
    }

    async fn postgres(&self) -> Value {
        let asked = async {
            let mut connection = Borrowed::from(self.0.log.pool()).await?;
            sqlx::query("SELECT 1").execute(&mut *connection).await?;
            connection.done();
            Ok::<_, sqlx::Error>(())
        };
        match tokio::time::timeout(ANSWER_WITHIN, asked).await {
            Ok(Ok(())) => json!({"status": "up"}),
            // What the driver says may name hosts and users, but no person.
            Ok(Err(error)) => json!({"status": "down", "detail": error.to_string()}),
            Err(_) => json!({"status": "down", "detail": "it did not answer within a second"}),
        }
    }

    /// None where this process has nothing to do with NATS.
    fn nats(&self) -> Option<Value> {
        Some(match &*self.0.publisher.as_ref()?.borrow() {
            Status::Publishing => json!({"status": "up"}),
            Status::Starting => {
                json!({"status": "down", "detail": "not reached yet; events will be published later"})
            }
            Status::Failing(why) => {
                json!({"status": "down", "detail": format!("{why}; events will be published later")})
            }
        })
    }

    /// None where there are keys, or where none are needed.
    fn keys(&self) -> Option<Value> {
        let missing = !self.0.authenticator.keys_ready();
        missing.then(|| json!({"status": "down", "detail": "the keys of an issuer could not be fetched yet"}))
    }

    /// Ready is who can take commands and answer queries; NATS may be away, because nothing waits for it.
    async fn checks(&self) -> (StatusCode, Value) {
        let checks =
            [("postgres", Some(self.postgres().await)), ("nats", self.nats()), ("keys", self.keys())];
        let checks: Map<String, Value> =
            checks.into_iter().filter_map(|(name, check)| Some((name.to_owned(), check?))).collect();
        let is_down = |name| checks.get(name).is_some_and(|check| check["status"] == "down");
        let (code, status) = if self.0.guard.stopping() {
            (StatusCode::SERVICE_UNAVAILABLE, "stopping")
        } else if is_down("postgres") || is_down("keys") {
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
        } else if is_down("nats") {
            (StatusCode::OK, "degraded")
        } else {
            (StatusCode::OK, "ready")
        };
        (code, json!({"status": status, "checks": checks}))
    }

    async fn detailed(&self) -> (StatusCode, Value) {
        let (code, mut body) = self.checks().await;
        let heads = self.0.log.heads();
        let partitions = 0..self.0.log.partitions();
        let projections: Map<String, Value> = self
            .0
            .readers
            .iter()
            .map(|(name, progress)| {
                let positions: Vec<u64> = partitions.clone().map(|p| progress.position(p)).collect();
                ((*name).to_owned(), json!({"lag_events": self.lag(progress), "positions": positions}))
            })
            .collect();
        let head_positions: Vec<u64> = partitions.map(|partition| heads.position(partition)).collect();
        body["version"] = env!("CARGO_PKG_VERSION").into();
        body["uptime_seconds"] = self.0.started.elapsed().as_secs().into();
        body["log"] = json!({
            "log_id": self.0.log.log_id(),
            "heads": head_positions,
            "append_queue": self.0.log.appender().depth(),
        });
        body["requests_at_work"] = self.0.guard.at_work().into();
        body["projections"] = projections.into();
        (code, body)
    }
}

/// `/livez`, `/readyz`, `/health`, `/health/detailed`.
pub fn routes(health: Health) -> Router {
    Router::new()
        .route("/livez", get(async || Json(json!({"status": "alive"}))))
        .route("/readyz", get(readyz))
        .route("/health", get(readyz))
        .route("/health/detailed", get(detailed))
        .with_state(health)
}

async fn readyz(State(health): State<Health>) -> impl IntoResponse {
    let (code, body) = health.checks().await;
    (code, Json(body))
}

async fn detailed(State(health): State<Health>) -> impl IntoResponse {
    let (code, body) = health.detailed().await;
    (code, Json(body))
}
