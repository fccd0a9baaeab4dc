//! The roles that serve on a database which was migrated before: `command-api`, `query-api`, `projector`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use rollcall_event_store::migrate::attach;
use rollcall_projections::tables;

use crate::{
    config::{Flags, Settings},
    http,
    master_key::KeyFile,
    process, ready,
    service::{Ground, Parts, Projects, Service},
};

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    pub flags: Flags,
    /// A file to write once it serves: a JSON object with its `http` URL.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

pub enum Role {
    CommandApi,
    QueryApi,
    /// Those named, or all.
    Projector(Vec<Projects>),
}

impl Role {
    fn name(&self) -> &'static str {
        match self {
            Self::CommandApi => "command-api",
            Self::QueryApi => "query-api",
            Self::Projector(_) => "projector",
        }
    }

    fn port(&self) -> u16 {
        match self {
            Self::CommandApi => 8080,
            Self::QueryApi => 8081,
            Self::Projector(_) => 8082,
        }
    }

    fn parts(&self) -> Parts {
        let nothing = Parts { commands: false, queries: false, projects: Vec::new() };
        match self {
            Self::CommandApi => Parts { commands: true, ..nothing },
            Self::QueryApi => Parts { queries: true, ..nothing },
            Self::Projector(names) if names.is_empty() => {
                Parts { projects: Projects::ALL.to_vec(), ..nothing }
            }
            Self::Projector(names) => Parts { projects: names.clone(), ..nothing },
        }
    }
}

/// Serves until SIGTERM or Ctrl-C, and stops: readiness first, then open requests.
pub async fn run(role: Role, settings: Settings, ready_file: Option<PathBuf>) -> anyhow::Result<()> {
    let notice = settings.shutdown.notice;
    process::run(
        start(&role, &settings, ready_file),
        |(service, _)| service.ends(),
        |(service, ready)| async move {
            drop(ready);
            service.stop(notice).await;
        },
    )
    .await
}

async fn start(
    role: &Role,
    settings: &Settings,
    ready_file: Option<PathBuf>,
) -> anyhow::Result<(Service, Option<ready::File>)> {
    let parts = role.parts();
    let address = settings.http.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, role.port())));
    let listener = parts.listen(address, &settings.auth)?;
    let address = listener.local_addr()?;
    let metrics = http::metrics::install(role.name())?;
    let authenticator = parts.authenticator(settings).await?;
    let url = settings.database.named()?;
    let key = KeyFile::named(settings)?;
    let provisioned = attach(url.expose(), &key).await?;
    tables::check(&provisioned.service).await?;
    let nats = settings.nats_url.as_ref().map(|url| (url.expose(), true));
    let ground = Ground { settings, provisioned: &provisioned, nats, authenticator, metrics, listener };
    let service = Service::start(&parts, ground).await?;
    let urls = ready::Urls { http: format!("http://{address}"), postgres: None, nats: None };
    let ready = ready_file.map(|path| ready::File::write(path, &urls)).transpose()?;
    tracing::info!(role = role.name(), http = urls.http, "serving");
    Ok((service, ready))
}
