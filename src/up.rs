//! `rollcall up`: everything in one process.
//!
//! Order of a start: address, data directory, servers, tables, log, projectors, publisher, HTTP, ready file. A stop goes
//! the other way, within ten seconds.

mod nats;
mod ready;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use axum::serve::ListenerExt;
use rollcall_edge::auth::Authenticator;
use rollcall_event_store::{Log, migrate, spawn_vital};
use rollcall_private_servers::{DataDir, Nats, Postgres};
use rollcall_projections::{
    audit::{self, Audit},
    profiles::{self, Profiles},
    projector::Projector,
    publisher::{self, Publisher},
    schema,
};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    http::{self, health::Health},
    master_key::KeyFile,
};

/// How long open requests may take after a stop was asked for.
const DRAIN_WITHIN: Duration = Duration::from_millis(1_000);
/// How long the log and the projectors may take to end.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);
/// Connections that gather reads.
const READ_CONNECTIONS: usize = 2;

#[derive(clap::Args)]
pub struct Options {
    /// Where data is kept: the master key and, without servers of one's own, PostgreSQL and JetStream. The user's data
    /// directory if not given, /var/lib/rollcall for root.
    #[arg(long, env = "ROLLCALL_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen, a loopback address; port 0 picks a free one.
    #[arg(long, env = "ROLLCALL_HTTP", default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// A file to write once everything serves: a JSON object of the URLs of http, postgres (the owner's) and nats.
    #[arg(long)]
    ready_file: Option<PathBuf>,
    /// A PostgreSQL to use instead of a private one: the URL of a role that may create roles and schemas.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// A NATS server with JetStream to use instead of a private one.
    #[arg(long, env = "NATS_URL", hide_env_values = true)]
    nats_url: Option<String>,
    /// The file of the master key, if it is not to be kept in the data directory.
    #[arg(long, env = "ROLLCALL_MASTER_KEY_FILE")]
    master_key_file: Option<PathBuf>,
}

/// Starts everything, serves until SIGTERM or Ctrl-C, and stops everything.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut signals = Signals::install()?;
    // Whoever asks for a stop during the start gets one.
    tokio::select! {
        running = start(options) => {
            let running = running?;
            let failed = running.log.failed().clone();
            let asked = tokio::select! {
                () = signals.received() => true,
                () = failed.cancelled() => false,
            };
            tracing::info!("stopping");
            running.stop().await;
            if asked { Ok(()) } else { bail!("a vital task failed; see the log above") }
        }
        () = signals.received() => Ok(()),
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What is to be stopped, in the order of the stop.
struct Running {
    ready: Option<ready::File>,
    health: Health,
    serving: CancellationToken,
    server: tokio::task::JoinHandle<()>,
    projecting: CancellationToken,
    tasks: TaskTracker,
    log: Log,
    nats: Option<Nats>,
    postgres: Option<Postgres>,
}

async fn start(options: Options) -> anyhow::Result<Running> {
    let listener = listen(options.http).await?;
    let address = listener.local_addr()?;
    let metrics = http::metrics::install("up")?;
    let directory = DataDir::open(options.data_dir).map_err(anyhow::Error::from)?;

    let (postgres, nats) = tokio::try_join!(
        start_postgres(&directory, options.database_url.is_none()),
        start_nats(&directory, options.nats_url.is_none()),
    )?;
    let owner_url = match (&options.database_url, &postgres) {
        (Some(url), _) => url.clone(),
        (None, Some(postgres)) => postgres.owner_url().to_owned(),
        (None, None) => bail!("no PostgreSQL was started"),
    };
    let nats_url = match (&options.nats_url, &nats) {
        (Some(url), _) => url.clone(),
        (None, Some(nats)) => nats.url().to_owned(),
        (None, None) => bail!("no nats-server was started"),
    };

    let named = options.master_key_file.is_some();
    let path = options.master_key_file.unwrap_or_else(|| directory.path().join("master.key"));
    let provisioned =
        migrate::migrate(&owner_url, migrate::Options::default(), &KeyFile { path, named }).await?;
    let owner = migrate::parse_url(&owner_url)?;
    schema::migrate(&owner, provisioned.service.get_username(), provisioned.partitions)
        .await
        .context("the read models' tables could not be made")?;
    let log = Log::open(&provisioned, rollcall_event_store::Options::default()).await?;

    let projecting = CancellationToken::new();
    let tasks = TaskTracker::new();
    let service = &provisioned.service;
    let of_profiles = Projector::new(Profiles::new(log.clone()), log.clone(), service);
    let of_audit = Projector::new(Audit::default(), log.clone(), service);
    let client = nats::connect(&nats_url, options.nats_url.is_some()).await?;
    let publisher = Publisher::new(log.clone(), service, client, publisher::Settings::default());
    let health = Health::new(log.clone(), &of_profiles, &of_audit, &publisher);
    let queries = rollcall_query_api::QueryApi {
        log_id: log.log_id(),
        profiles: profiles::Queries::start(log.clone(), service, READ_CONNECTIONS, &tasks, &projecting),
        profiles_progress: of_profiles.progress(),
        audit: audit::Queries::new(log.clone()),
        audit_progress: of_audit.progress(),
        authenticator: Authenticator::open(),
    };
    let failed = log.failed();
    spawn_vital(&tasks, failed, "profiles", of_profiles.run(projecting.clone()));
    spawn_vital(&tasks, failed, "audit", of_audit.run(projecting.clone()));
    spawn_vital(&tasks, failed, "publisher", publisher.run(projecting.clone()));
    tasks.spawn(health.clone().measure(projecting.clone()));

    let api = rollcall_command_api::router(log.clone(), Authenticator::open())
        .merge(rollcall_query_api::router(queries));
    let router = http::router(api, health.clone(), metrics);
    let serving = CancellationToken::new();
    let stop = serving.clone();
    let listener = listener.tap_io(|stream| {
        // Small answers go out at once; a socket that cannot be told so still works.
        let _ = stream.set_nodelay(true);
    });
    let server = tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "serving HTTP failed");
        }
    });

    let urls = ready::Urls { http: format!("http://{address}"), postgres: owner_url, nats: nats_url };
    let ready = options.ready_file.map(|path| ready::File::write(path, &urls)).transpose()?;
    println!("{}", urls.greeting(directory.path()));
    Ok(Running { ready, health, serving, server, projecting, tasks, log, nats, postgres })
}

/// Nobody is asked who they are in open mode, so only this machine may ask.
async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    if !address.ip().is_loopback() {
        bail!(
            "refusing to listen on {address}: without authentication (auth.mode = open) only a loopback address will do, \
             such as 127.0.0.1:{}",
            address.port()
        );
    }
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} (is another program there? choose with --http ADDR:PORT)")
    })
}

async fn start_postgres(directory: &DataDir, wanted: bool) -> anyhow::Result<Option<Postgres>> {
    Ok(if wanted { Some(Postgres::start(directory).await?) } else { None })
}

async fn start_nats(directory: &DataDir, wanted: bool) -> anyhow::Result<Option<Nats>> {
    Ok(if wanted { Some(Nats::start(directory).await?) } else { None })
}

impl Running {
    async fn stop(self) {
        drop(self.ready);
        self.health.stopping();
        self.serving.cancel();
        if timeout(DRAIN_WITHIN, self.server).await.is_err() {
            tracing::warn!("some requests were still open");
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
        let postgres = async {
            if let Some(postgres) = self.postgres {
                postgres.stop().await;
            }
        };
        let nats = async {
            if let Some(nats) = self.nats {
                nats.stop().await;
            }
        };
        tokio::join!(postgres, nats);
    }
}
