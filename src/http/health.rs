//! Whether the process lives, whether it can serve, and how it is in detail.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use rollcall_edge::auth::Authenticator;
use rollcall_event_store::{Borrowed, Log};
use rollcall_projections::{
    Progress, progress,
    projector::chain,
    publisher::Status,
    status::{self, Trouble},
};
use serde_json::{Map, Value, json};
use sqlx::{Connection, PgConnection};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::guard::Guard;

/// How long PostgreSQL may take to answer before it counts as away.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_secs(1);
/// How old what is known of PostgreSQL may be.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

/// What stands still is told one by one up to this many.
const TROUBLES_MAX: usize = 8;

/// What health is read from. Cheap to clone.
#[derive(Clone)]
pub struct Health(Arc<Inner>);

struct Inner {
    log: Log,
    registry: Registry,
    publisher: Option<watch::Receiver<Status>>,
    /// None where nobody is asked who they are.
    authenticator: Option<Authenticator>,
    guard: Guard,
    postgres: Postgres,
    stands: Stands,
    started: Instant,
}

/// The versions of projections that this process runs or reads.
pub struct Registry {
    pub versions: progress::Registry,
    /// Whether queries read them, and cannot be answered before they serve.
    pub queried: bool,
}

impl Health {
    pub fn new(
        log: Log,
        registry: Registry,
        publisher: Option<watch::Receiver<Status>>,
        authenticator: Option<Authenticator>,
        guard: Guard,
    ) -> Self {
        let (postgres, stands, started) = (Postgres::default(), Stands::default(), Instant::now());
        Self(Arc::new(Inner { log, registry, publisher, authenticator, guard, postgres, stands, started }))
    }

    /// Keeps the gauges, and asks PostgreSQL whether it is there: readiness is told from memory, because whoever asks for it
    /// must cost nothing, however often.
    pub async fn watch(self, shutdown: CancellationToken) {
        let work = async { tokio::join!(self.measure(), self.ask_postgres()) };
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = work => {}
        }
    }

    async fn measure(&self) {
        loop {
            super::metrics::measure(&self.0.log, &self.0.registry.versions).await;
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn ask_postgres(&self) {
        let options = self.0.log.pool().connect_options();
        let mut connection = None;
        loop {
            let asked = async {
                let connection = match &mut connection {
                    Some(connection) => connection,
                    None => connection.insert(PgConnection::connect_with(&options).await?),
                };
                connection.ping().await
            };
            let error = match tokio::time::timeout(ANSWER_WITHIN, asked).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("it does not answer in time".to_owned()),
            };
            if error.is_some() {
                connection = None;
            }
            self.0.postgres.note(error);
            tokio::time::sleep(EVERY).await;
        }
    }

    fn lag(&self, progress: &Progress) -> u64 {
        let heads = self.0.log.heads();
        (0..self.0.log.partitions())
            .map(|partition| heads.position(partition).saturating_sub(progress.position(partition)))
            .sum()
    }

    /// None where this process has nothing to do with NATS.
    fn nats(&self) -> Option<Value> {
        Some(match &*self.0.publisher.as_ref()?.borrow() {
            Status::Publishing => json!({"status": "up"}),
            Status::StandingBy => json!({"status": "up", "detail": "another process publishes"}),
            Status::Starting => {
                json!({"status": "down", "detail": "not reached yet; events will be published later"})
            }
            // Of a log that was restored it is for an operator to say what will be.
            Status::Failing(why) if self.0.log.halt().is_some() => json!({"status": "down", "detail": why}),
            Status::Failing(why) => {
                json!({"status": "down", "detail": format!("{why}; events will be published later")})
            }
        })
    }

    /// None where commands are taken.
    fn log(&self) -> Option<Value> {
        let halt = self.0.log.halt()?;
        Some(json!({"status": "halted", "detail": format!("no commands are taken: {halt}; {}", halt.mend())}))
    }

    /// None where no keys are missing, or where none are needed.
    fn keys(&self) -> Option<Value> {
        let authenticator = self.0.authenticator.as_ref()?;
        let missing = authenticator.issuers_without_keys();
        let status = if authenticator.keys_ready() { "degraded" } else { "down" };
        let detail = format!("keys could not be fetched yet: {}", missing.join(", "));
        (!missing.is_empty()).then(|| json!({"status": status, "detail": detail}))
    }

    /// None where nothing is read that is not there.
    fn projections(&self) -> Option<Value> {
        let building = self.0.registry.versions.building();
        let detail = format!("being built: {}", building.join(", "));
        (self.0.registry.queried && !building.is_empty()).then(|| json!({"status": "down", "detail": detail}))
    }

    /// Ready is who can take commands and answer queries; NATS may be away, because nothing waits for it. Where the log was
    /// restored, queries are answered all the same, and commands are told why they are not taken.
    fn checks(&self) -> (StatusCode, Value) {
        let checks = [
            ("postgres", Some(self.0.postgres.check())),
            ("log", self.log()),
            ("nats", self.nats()),
            ("keys", self.keys()),
            ("projections", self.projections()),
        ];
        let checks: Map<String, Value> =
            checks.into_iter().filter_map(|(name, check)| Some((name.to_owned(), check?))).collect();
        let is = |name, status| checks.get(name).is_some_and(|check| check["status"] == status);
        let (code, status) = if self.0.guard.stopping() {
            (StatusCode::SERVICE_UNAVAILABLE, "stopping")
        } else if is("postgres", "down") || is("keys", "down") || is("projections", "down") {
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
        } else if is("log", "halted") || is("nats", "down") || is("keys", "degraded") {
            (StatusCode::OK, "degraded")
        } else {
            (StatusCode::OK, "ready")
        };
        (code, json!({"status": status, "checks": checks}))
    }

    /// What this process knows, and how everything stands in the database, where that can be read.
    async fn detailed(&self) -> (StatusCode, Value) {
        let (code, mut body) = self.checks();
        let stands = self.0.stands.read(&self.0.log).await;
        // What any process has met, and this one need not have; and what none can tell, because it does nothing.
        let troubles = stands.iter().flat_map(|stands| stands.troubles());
        let mut told: Vec<String> = troubles.map(|Trouble { of, why }| format!("{of}: {why}")).collect();
        let unattended = stands.iter().flat_map(|stands| stands.unattended());
        told.splice(0..0, unattended.map(|of| of.to_string()));
        if !told.is_empty() {
            if told.len() > TROUBLES_MAX {
                let more = told.split_off(TROUBLES_MAX).len();
                told.push(format!("and {more} more"));
            }
            body["checks"]["work"] = json!({"status": "stopped", "detail": told.join("; ")});
            if body["status"] == "ready" {
                body["status"] = "degraded".into();
            }
        }
        let heads = self.0.log.heads();
        let partitions = 0..self.0.log.partitions();
        let mut projections: Map<String, Value> = Map::new();
        for (version, progress, serving) in self.0.registry.versions.versions() {
            let positions: Vec<u64> = partitions.clone().map(|p| progress.position(p)).collect();
            let lag_events = self.lag(&progress);
            let mut state =
                json!({"version": version.number, "lag_events": lag_events, "positions": positions});
            let stands = stands.as_ref().and_then(|all| all.projections.iter().find(|of| of.is(version)));
            if let Some(of) = stands {
                state["shape"] = of.shape.into();
                state["state"] = of.state.as_str().into();
                state["lag_seconds"] = of.lag_seconds.into();
                state["parked_streams"] = of.parked_streams.into();
                state["stopped_partitions"] = json!(of.stopped_partitions);
            }
            // One that is being built, or was, stands under its full name.
            let name = if serving { version.projection.to_owned() } else { version.qualifier() };
            projections.insert(name, state);
        }
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
        if let Some(stands) = stands {
            body["halt"] = json!(stands.halt);
            body["partitions"] = json!(stands.partitions);
            body["leases"] = json!(stands.leases);
            body["members"] = json!(stands.members);
            body["publisher"] = json!(stands.publisher);
        }
        (code, body)
    }
}

/// How everything stands in the database: read when somebody asks, but not more than once a second, however many do.
#[derive(Default)]
struct Stands(tokio::sync::Mutex<Option<(Instant, Option<Arc<status::Status>>)>>);

impl Stands {
    /// None where the database does not answer in time.
    async fn read(&self, log: &Log) -> Option<Arc<status::Status>> {
        let mut known = self.0.lock().await;
        if let Some((at, stands)) = &*known
            && at.elapsed() < EVERY
        {
            return stands.clone();
        }
        let work = async {
            let mut connection = Borrowed::from(log.pool()).await?;
            let stands = status::read(&mut connection).await?;
            connection.done();
            Ok::<_, status::Error>(stands)
        };
        let stands = match tokio::time::timeout(ANSWER_WITHIN, work).await {
            Ok(Ok(stands)) => Some(Arc::new(stands)),
            Ok(Err(error)) => {
                tracing::debug!(error = %chain(&error), "how the projections stand cannot be read");
                None
            }
            Err(_) => None,
        };
        *known = Some((Instant::now(), stands.clone()));
        stands
    }
}

/// What is known of PostgreSQL.
struct Postgres(Mutex<Verdict>);

struct Verdict {
    at: Instant,
    up: bool,
}

impl Default for Postgres {
    /// A process that came this far has spoken to it.
    fn default() -> Self {
        Self(Mutex::new(Verdict { at: Instant::now(), up: true }))
    }
}

impl Postgres {
    /// Takes note of an answer, or of why there is none; a change is logged, with what the driver says, which may name
    /// hosts and users and is nobody else's business.
    fn note(&self, error: Option<String>) {
        let mut verdict = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            Some(ref error) if verdict.up => tracing::warn!(error, "PostgreSQL is away"),
            None if !verdict.up => tracing::info!("PostgreSQL is there again"),
            _ => {}
        }
        *verdict = Verdict { at: Instant::now(), up: error.is_none() };
    }

    fn check(&self) -> Value {
        let verdict = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if verdict.up && verdict.at.elapsed() < KNOWN_WITHIN {
            json!({"status": "up"})
        } else {
            json!({"status": "down", "detail": "it does not answer"})
        }
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
    let (code, body) = health.checks();
    (code, Json(body))
}

async fn detailed(State(health): State<Health>) -> impl IntoResponse {
    let (code, body) = health.detailed().await;
    (code, Json(body))
}
