//! A process at work: the parts of Rollcall that it runs, over one log.
//!
//! Order of a start: log, projectors, publisher, routes, HTTP. A stop goes the other way: readiness first, then the open
//! requests, then what works in the background.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use metrics_exporter_prometheus::PrometheusHandle;
use rollcall_edge::{
    auth::{self, Authenticator},
    rate,
};
use rollcall_event_store::{Log, append, migrate::Provisioned, spawn_vital};
use rollcall_projections::{
    audit::{self, Audit},
    auditor::{self, Auditor},
    checker::Checker,
    leases::{Member, Units},
    profiles::{self, Profiles},
    progress::{Follower, Registry},
    projector::{Projection, Projector},
    publisher::{self, Publisher, Status},
};
use sqlx::postgres::PgConnectOptions;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa_axum::router::OpenApiRouter;

use crate::{
    config::{Auth, Limits, Settings},
    http::{
        self,
        guard::Guard,
        health::{self, Health},
    },
    nats,
};

/// Connections that may wait to be accepted: who finds no room there waits a second or more before it asks again. The
/// system bounds it, too (net.core.somaxconn).
const BACKLOG: u32 = 4_096;
/// How long the log and the projectors may take to end.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// What keeps a read model, or the stream in NATS, up to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Projects {
    Profiles,
    Audit,
    Publisher,
}

impl Projects {
    pub const ALL: [Self; 3] = [Self::Profiles, Self::Audit, Self::Publisher];
}

/// What a process runs.
pub struct Parts {
    pub commands: bool,
    pub queries: bool,
    pub projects: Vec<Projects>,
}

impl Parts {
    /// Whether callers are asked who they are.
    pub fn serves_api(&self) -> bool {
        self.commands || self.queries
    }

    /// Projections, with their shapes, that the process projects or reads.
    fn followed(&self) -> Vec<(&'static str, i32)> {
        let known = [
            (Projects::Profiles, (profiles::SCHEMA.name, profiles::SCHEMA.shape), self.queries),
            (Projects::Audit, (audit::SCHEMA.name, audit::SCHEMA.shape), self.queries),
            (Projects::Publisher, (publisher::NAME, publisher::SHAPE), false),
        ];
        let followed = known.iter().filter(|(project, _, read)| *read || self.projects.contains(project));
        followed.map(|(_, projection, _)| *projection).collect()
    }

    /// Nobody is asked who they are in open mode, so only this machine may ask; health and metrics tell nothing of users.
    fn check_address(&self, address: SocketAddr, auth: &Auth) -> anyhow::Result<()> {
        let open_api = matches!(auth, Auth::Open) && self.serves_api();
        if open_api && !address.ip().is_loopback() {
            bail!(
                "http: refusing to listen on {address}: without authentication (auth.mode = \"open\") only a loopback \
                 address will do, such as 127.0.0.1:{}; to be reached from elsewhere set auth.mode = \"jwt\"",
                address.port()
            );
        }
        Ok(())
    }

    /// Listens, before anything slow is done: a port that is taken is told at once.
    pub fn listen(&self, address: SocketAddr, auth: &Auth) -> anyhow::Result<TcpListener> {
        self.check_address(address, auth)?;
        listener(address).with_context(|| {
            format!("cannot listen on {address} (is another program there? choose with --http ADDRESS:PORT)")
        })
    }
}

fn listener(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // The port of a process that ended a moment ago can be had at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What a service is started on.
pub struct Ground<'a> {
    pub settings: &'a Settings,
    pub provisioned: &'a Provisioned,
    /// The URL, and whether somebody named it.
    pub nats: Option<(&'a str, bool)>,
    pub authenticator: Authenticator,
    pub metrics: PrometheusHandle,
    pub listener: TcpListener,
}

/// What is to be stopped.
pub struct Service {
    guard: Guard,
    serving: CancellationToken,
    server: JoinHandle<bool>,
    drain: Duration,
    projecting: CancellationToken,
    tasks: TaskTracker,
    log: Log,
}

impl Service {
    pub async fn start(parts: &Parts, ground: Ground<'_>) -> anyhow::Result<Self> {
        let Ground { settings, provisioned, nats, authenticator, metrics, listener } = ground;
        let log = Log::open(provisioned, log_options(parts, settings)).await?;
        let (tasks, projecting) = (TaskTracker::new(), CancellationToken::new());
        let registry = Registry::new(log.partitions(), parts.followed());
        let mut background = Background {
            log: log.clone(),
            service: provisioned.service.clone(),
            registry: registry.clone(),
            tasks: tasks.clone(),
            shutdown: projecting.clone(),
            member: Member::new(&provisioned.service),
        };
        let mut publishing = None;
        let mut compared = if parts.commands || parts.projects.contains(&Projects::Publisher) {
            // Before commands are taken: NATS may know that the log was restored to an earlier point.
            nats::compare(nats, &log).await?
        } else {
            None
        };
        for project in &parts.projects {
            match project {
                Projects::Profiles => background.project::<Profiles>(),
                Projects::Audit => background.project::<Audit>(),
                Projects::Publisher => {
                    let client = compared.take().context("nats.url must be set: the publisher needs it")?;
                    publishing = Some(background.publish(client));
                }
            }
        }
        background.begin().await.context("the read models cannot be looked at")?;
        let mut api = OpenApiRouter::new();
        if parts.commands {
            api = api.merge(rollcall_command_api::router(log.clone(), authenticator.clone()));
        }
        if parts.queries {
            let serving = |projection| registry.serving(projection).expect("what queries read is followed");
            api = api.merge(rollcall_query_api::router(rollcall_query_api::QueryApi {
                log_id: log.log_id(),
                profiles: profiles::Queries::start(
                    log.clone(),
                    &provisioned.service,
                    &profiles::Options {
                        connections: settings.database.read_connections,
                        cache_bytes: settings.limits.cache_bytes,
                    },
                    &tasks,
                    &projecting,
                ),
                profiles_serving: serving(profiles::SCHEMA.name),
                audit: audit::Queries::new(log.clone()),
                audit_serving: serving(audit::SCHEMA.name),
                authenticator: authenticator.clone(),
            }));
        }
        let guard = Guard::new(&settings.limits);
        let asked = parts.serves_api().then_some(authenticator);
        let registry = health::Registry { versions: registry, queried: parts.queries };
        let health = Health::new(log.clone(), registry, publishing, asked, guard.clone());
        tasks.spawn(health.clone().watch(projecting.clone()));
        let router = http::router(api, health, guard.clone(), metrics);
        let (serving, limits) = (CancellationToken::new(), settings.limits.clone());
        let (stop, drain) = (serving.clone(), settings.shutdown.drain);
        let server =
            tokio::spawn(async move { http::server::serve(listener, router, &limits, stop, drain).await });
        Ok(Self { guard, serving, server, drain, projecting, tasks, log })
    }

    /// Waits until something without which nothing works has failed; why.
    pub fn ends(&self) -> impl Future<Output = String> + use<> {
        let log = self.log.clone();
        async move { log.ends().await }
    }

    /// Says for `notice` that it will be gone, ends open requests, and then everything else.
    pub async fn stop(self, notice: Duration) {
        self.guard.stop();
        tokio::time::sleep(notice).await;
        self.serving.cancel();
        // It bounds itself; a moment more than that means that it cannot end.
        match timeout(self.drain + CLOSE_WITHIN, self.server).await {
            Ok(Ok(true)) => {}
            _ => tracing::warn!("some requests were still open"),
        }
        self.projecting.cancel();
        self.tasks.close();
        let closed = async {
            self.tasks.wait().await;
            self.log.close().await;
        };
        if timeout(CLOSE_WITHIN, closed).await.is_err() {
            tracing::warn!("some work was still under way; it is taken up again at the next start");
        }
        tracing::info!("stopped");
    }
}

/// What works in the background while it is put together.
struct Background {
    log: Log,
    service: PgConnectOptions,
    registry: Registry,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    member: Member,
}

impl Background {
    /// Projects every version of a read model that this process gets a share in, checks the one that is to serve and audits
    /// the one that does.
    fn project<P: Projection>(&mut self) {
        let serving = self.registry.serving(P::SCHEMA.name).expect("what is projected is followed");
        let checker = Checker::new(self.log.clone(), &self.service, &self.member, serving.clone());
        let checks = checker.run::<P>(self.shutdown.clone());
        spawn_vital(&self.tasks, self.log.failed(), "check", checks);
        let auditor = Auditor::new(self.log.clone(), serving, auditor::Options::default());
        let audits = auditor.run::<P>(self.shutdown.clone());
        spawn_vital(&self.tasks, self.log.failed(), "audit", audits);
        let (log, service, registry) = (self.log.clone(), self.service.clone(), self.registry.clone());
        let (tasks, shutdown) = (self.tasks.clone(), self.shutdown.clone());
        let schema = P::SCHEMA;
        self.member.project(schema.name, schema.shape, Units::Partitions, move |version, share| {
            let progress = registry.progress(version);
            let projector = Projector::<P>::new(version, log.clone(), &service, &share, progress);
            spawn_vital(&tasks, log.failed(), schema.name, projector.run(share, shutdown.clone()));
        });
    }

    /// Publishes while nobody else does; how it is with that.
    fn publish(&mut self, client: async_nats::Client) -> watch::Receiver<Status> {
        let (log, service, registry) = (self.log.clone(), self.service.clone(), self.registry.clone());
        let (tasks, shutdown) = (self.tasks.clone(), self.shutdown.clone());
        let (status, seen) = watch::channel(Status::Starting);
        self.member.project(publisher::NAME, publisher::SHAPE, Units::One, move |version, share| {
            let progress = registry.progress(version);
            let stream = (client.clone(), publisher::Settings::default());
            let status = status.clone();
            let publisher = Publisher::new(version, log.clone(), &service, stream, &share, progress, status);
            spawn_vital(&tasks, log.failed(), publisher::NAME, publisher.run(share, shutdown.clone()));
        });
        seen
    }

    /// Everything is there: from now on versions are followed and leases taken.
    async fn begin(self) -> Result<(), sqlx::Error> {
        let Self { log, registry, tasks, shutdown, member, .. } = self;
        let follower = Follower::start(log.clone(), registry).await?;
        spawn_vital(&tasks, log.failed(), "follow", follower.run(shutdown.clone()));
        if member.projects() {
            spawn_vital(&tasks, log.failed(), "leases", member.run(shutdown));
        }
        Ok(())
    }
}

fn log_options(parts: &Parts, settings: &Settings) -> rollcall_event_store::Options {
    rollcall_event_store::Options {
        append: append::Options {
            queue_appends_max: settings.limits.append_queue,
            ..append::Options::default()
        },
        pool_connections_max: settings.database.pool_connections,
        expires_records: parts.commands,
        ..rollcall_event_store::Options::default()
    }
}

impl Parts {
    /// How callers are known; a process that asks nobody needs no keys.
    pub async fn authenticator(&self, settings: &Settings) -> anyhow::Result<Authenticator> {
        match self.serves_api() {
            true => authenticator(&settings.auth, &settings.limits).await,
            false => Ok(Authenticator::open()),
        }
    }
}

/// How callers are known, as it is configured.
pub async fn authenticator(auth: &Auth, limits: &Limits) -> anyhow::Result<Authenticator> {
    let authenticator = match auth {
        Auth::Open => Authenticator::open(),
        Auth::Jwt(settings) => Authenticator::jwt(settings.clone()).await.map_err(|error| match error {
            auth::jwt::Error::Jwks(_) => anyhow::Error::from(error).context("auth.jwks"),
            other => anyhow::Error::from(other).context("auth.issuers"),
        })?,
    };
    Ok(if limits.rate.limit_nobody() {
        authenticator
    } else {
        authenticator.with_rate(rate::RateLimiter::new(limits.rate.clone()))
    })
}
