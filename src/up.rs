//! `rollcall up`: everything in one process, with servers of its own where none are named.
//!
//! Order of a start: address, data directory, servers, tables, then the service. A stop goes the other way.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use rollcall_private_servers::{DataDir, Nats, Postgres};

use crate::{
    config::{Flags, Settings},
    http,
    master_key::KeyFile,
    migrate, process, ready,
    service::{Ground, Parts, Projects, Service},
};

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    pub flags: Flags,
    /// A file to write once everything serves: a JSON object of the URLs of http, postgres (the owner's) and nats.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// Starts everything, serves until SIGTERM or Ctrl-C, and stops everything.
pub async fn run(settings: Settings, ready_file: Option<PathBuf>) -> anyhow::Result<()> {
    let shutdown = settings.shutdown;
    // Nobody balances between one process and none: without a wish there is nobody to tell.
    let notice = if shutdown.notice_is_default { Duration::ZERO } else { shutdown.notice };
    process::run(
        start(&settings, ready_file),
        |up| up.service.ends(),
        |Up { ready, service, nats, postgres }| async move {
            drop(ready);
            service.stop(notice).await;
            let postgres = async {
                if let Some(postgres) = postgres {
                    postgres.stop().await;
                }
            };
            let nats = async {
                if let Some(nats) = nats {
                    nats.stop().await;
                }
            };
            tokio::join!(postgres, nats);
        },
    )
    .await
}

/// What is to be stopped, in the order of the stop.
struct Up {
    /// For whoever asked, and for this program's other commands.
    ready: [Option<ready::File>; 2],
    service: Service,
    nats: Option<Nats>,
    postgres: Option<Postgres>,
}

async fn start(settings: &Settings, ready_file: Option<PathBuf>) -> anyhow::Result<Up> {
    let parts = Parts { commands: true, queries: true, projects: Projects::ALL.to_vec() };
    let address = settings.http.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)));
    let listener = parts.listen(address, &settings.auth)?;
    let address = listener.local_addr()?;
    let metrics = http::metrics::install("up")?;
    let authenticator = parts.authenticator(settings).await?;
    let directory = DataDir::open(settings.data_dir.clone()).map_err(anyhow::Error::from)?;
    ready::Urls::forget_in(directory.path());

    let (postgres, nats) = tokio::try_join!(
        start_postgres(&directory, settings.database.url.is_none()),
        start_nats(&directory, settings.nats_url.is_none()),
    )?;
    let named = settings.database.url.as_ref().map(|url| url.expose());
    let owner_url =
        named.or(postgres.as_ref().map(Postgres::owner_url)).context("no PostgreSQL was started")?;
    let named = settings.nats_url.as_ref().map(|url| (url.expose(), true));
    let nats_url =
        named.or(nats.as_ref().map(|nats| (nats.url(), false))).context("no nats-server was started")?;

    let key = KeyFile::named_or_in(settings, directory.path());
    let provisioned = migrate::provision(owner_url, settings, &key).await?;
    let ground = Ground {
        settings,
        provisioned: &provisioned,
        nats: Some(nats_url),
        authenticator,
        metrics,
        listener,
    };
    let service = Service::start(&parts, ground).await?;

    let urls = ready::Urls {
        http: format!("http://{address}"),
        postgres: Some(owner_url.to_owned()),
        nats: Some(nats_url.0.to_owned()),
    };
    // What somebody else runs is named to each command by its own URL, and its password is written down nowhere.
    let own = ready::Urls { nats: urls.nats.clone().filter(|_| nats.is_some()), ..urls.clone() };
    let here = postgres.as_ref().map(|_| own.leave_in(directory.path())).transpose()?;
    let asked = ready_file.map(|path| ready::File::write(path, &urls)).transpose()?;
    let ready = [asked, here];
    println!("{}", urls.greeting(directory.path()));
    Ok(Up { ready, service, nats, postgres })
}

async fn start_postgres(directory: &DataDir, wanted: bool) -> anyhow::Result<Option<Postgres>> {
    Ok(if wanted { Some(Postgres::start(directory).await?) } else { None })
}

async fn start_nats(directory: &DataDir, wanted: bool) -> anyhow::Result<Option<Nats>> {
    Ok(if wanted { Some(Nats::start(directory).await?) } else { None })
}
