//! Whether the process lives, whether it can serve, and how it is in detail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use rollcall_event_store::{Borrowed, Log};
use rollcall_projections::{
    Progress,
    audit::Audit,
    profiles::Profiles,
    projector::Projector,
    publisher::{Publisher, Status},
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long PostgreSQL may take to answer before it counts as away.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// What health is read from. Cheap to clone.
#[derive(Clone)]
pub struct Health(Arc<Inner>);

struct Inner {
    log: Log,
    progress: [(&'static str, Progress); 3],
    publisher: watch::Receiver<Status>,
    stopping: AtomicBool,
    started: Instant,
}

impl Health {
    pub fn new(
        log: Log,
        profiles: &Projector<Profiles>,
        audit: &Projector<Audit>,
        publisher: &Publisher,
    ) -> Self {
        let progress = [
            ("profiles", profiles.progress()),
            ("audit", audit.progress()),
            ("publisher", publisher.progress()),
        ];
        Self(Arc::new(Inner {
            log,
            progress,
            publisher: publisher.status(),
            stopping: AtomicBool::new(false),
            started: Instant::now(),
        }))
    }

    /// From now on the process is not ready.
    pub fn stopping(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    /// Keeps the gauges of the projections.
    pub async fn measure(self, shutdown: CancellationToken) {
        loop {
            super::metrics::measure(&self.0.log, &self.0.progress).await;
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

    fn nats(&self) -> Value {
        match &*self.0.publisher.borrow() {
            Status::Publishing => json!({"status": "up"}),
            Status::Starting => {
                json!({"status": "down", "detail": "not reached yet; events will be published later"})
            }
            Status::Failing(why) => {
                json!({"status": "down", "detail": format!("{why}; events will be published later")})
            }
        }
    }

    /// Ready is who can take commands and answer queries; NATS may be away, because nothing waits for it.
    async fn checks(&self) -> (StatusCode, Value) {
        let (postgres, nats) = (self.postgres().await, self.nats());
        let stopping = self.0.stopping.load(Ordering::Acquire);
        let (code, status) = match (stopping, postgres["status"] == "up", nats["status"] == "up") {
            (true, ..) => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
            (false, false, _) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            (false, true, false) => (StatusCode::OK, "degraded"),
            (false, true, true) => (StatusCode::OK, "ready"),
        };
        (code, json!({"status": status, "checks": {"postgres": postgres, "nats": nats}}))
    }

    async fn detailed(&self) -> (StatusCode, Value) {
        let (code, mut body) = self.checks().await;
        let heads = self.0.log.heads();
        let partitions = 0..self.0.log.partitions();
        let projections: serde_json::Map<String, Value> = self
            .0
            .progress
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
