//! The private PostgreSQL.
//!
//! Shape: choose binaries -> make a cluster (once) -> launch on a free port -> ready -> the database exists -> supervise.

pub(super) mod binaries;
mod cluster;
mod configuration;

use std::{net::Ipv4Addr, path::Path, time::Duration};

use nix::sys::signal::Signal;
use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use self::binaries::Binaries;
use crate::{
    DataDir, Error, port,
    predecessor::PidFile,
    private_file,
    server::{Probe, Running, Server},
    server_log::ServerLog,
};

const NAME: &str = "PostgreSQL";
const OWNER: &str = "rollcall_owner";
const DATABASE: &str = "rollcall";
/// There in every cluster, whatever else is.
const FIRST_DATABASE: &str = "postgres";

const PORT_ATTEMPTS: usize = 5;
/// Recovery after a power failure replays up to `max_wal_size`.
const READY_PATIENCE: Duration = Duration::from_secs(300);
/// Backends of a postmaster that was killed hold its shared memory until they notice.
const REMAINS_PATIENCE: Duration = Duration::from_secs(10);
/// Fast shutdown writes one checkpoint. What is left of 10 s is for the force that follows and for our own end.
const STOP_PATIENCE: Duration = Duration::from_secs(7);

const SQLSTATE_INVALID_PASSWORD: &str = "28P01";

/// A running server; dropped without [`Postgres::stop`] it is stopped in the background.
#[derive(Debug)]
pub struct Postgres {
    owner_url: String,
    stop: DropGuard,
    supervisor: JoinHandle<()>,
    _directory: DataDir,
}

impl Postgres {
    /// Returns when the server answers and has the database. Meant to be dropped midway only when the process ends.
    pub async fn start(directory: &DataDir) -> Result<Self, Error> {
        let data = directory.path().join(super::data_dir::POSTGRES);
        let password_path = directory.path().join("postgres.password");
        let made_by = cluster::version(&data)?;
        let account = directory.account().clone();
        let binaries = tokio::task::spawn_blocking(move || binaries::find(&account))
            .await
            .expect("looking for binaries does not panic and is not cancelled");
        let binaries = binaries::choose(binaries, made_by, &data)?;
        if made_by.is_some() && !password_path.exists() {
            return Err(Error::PasswordMissing { path: password_path });
        }
        let password = private_file::password(&password_path)?;
        if made_by.is_none() {
            cluster::make(directory, &data, &binaries, OWNER, &password).await?;
        }
        let data = directory.subdirectory(super::data_dir::POSTGRES)?;

        let (server, running, port) = launch(directory, &data, &binaries, &password, &password_path).await?;
        if let Err(error) = create_database(&options(port, &password)).await {
            server.halt(running).await;
            return Err(Error::Database(error));
        }
        info!(port, version = binaries.major, "the private PostgreSQL is ready");
        let stop = CancellationToken::new();
        let supervisor = tokio::spawn(server.keep(Some(running), stop.clone()));
        Ok(Self {
            owner_url: format!("postgres://{OWNER}:{password}@{}:{port}/{DATABASE}", Ipv4Addr::LOCALHOST),
            stop: stop.drop_guard(),
            supervisor,
            _directory: directory.clone(),
        })
    }

    /// Of a superuser, with the password. The port stays the same for as long as we run.
    pub fn owner_url(&self) -> &str {
        &self.owner_url
    }

    /// Returns when the server has ended, within 9 s.
    pub async fn stop(self) {
        self.stop.disarm().cancel();
        if let Err(error) = self.supervisor.await {
            warn!(%error, "the supervisor of the private PostgreSQL failed");
        }
    }
}

async fn launch(
    directory: &DataDir,
    data: &Path,
    binaries: &Binaries,
    password: &str,
    password_path: &Path,
) -> Result<(Server, Running, u16), Error> {
    let deadline = Instant::now() + REMAINS_PATIENCE;
    let mut ports_left = PORT_ATTEMPTS;
    loop {
        let port = port::free().map_err(Error::io("find a free port on", "127.0.0.1"))?;
        let server = server(directory, data, binaries, port);
        let running = server.launch().await?;
        let log_position = running.log_position();
        let probe = async || probe(&options(port, password), password_path).await;
        match server.wait_until_ready(running, READY_PATIENCE, probe).await {
            Ok(running) => return Ok((server, running, port)),
            Err(Error::EndedEarly { .. })
                if server.said(log_position, "address already in use") && ports_left > 1 =>
            {
                ports_left -= 1;
            }
            Err(Error::EndedEarly { .. })
                if server.said(log_position, "pre-existing shared memory block")
                    && Instant::now() < deadline =>
            {
                sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn server(directory: &DataDir, data: &Path, binaries: &Binaries, port: u16) -> Server {
    Server {
        name: NAME,
        program: binaries.program("postgres"),
        arguments: configuration::arguments(data, port),
        account: directory.account().clone(),
        log: ServerLog::new(directory.path().join("postgres.log")),
        pid_file: PidFile {
            path: data.join("postmaster.pid"),
            program: "postgres",
            argument: data.as_os_str().to_owned(),
        },
        polite: Signal::SIGINT,
        patience: STOP_PATIENCE,
        force: Signal::SIGQUIT,
    }
}

fn options(port: u16, password: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username(OWNER)
        .password(password)
        .database(FIRST_DATABASE)
        .ssl_mode(PgSslMode::Disable)
}

async fn probe(options: &PgConnectOptions, password_path: &Path) -> Probe {
    let answer = async {
        let mut connection = PgConnection::connect_with(options).await?;
        sqlx::query("SELECT 1").execute(&mut connection).await?;
        connection.close().await
    };
    match answer.await {
        Ok(()) => Probe::Ready,
        Err(sqlx::Error::Database(refusal))
            if refusal.code().as_deref() == Some(SQLSTATE_INVALID_PASSWORD) =>
        {
            Probe::Refused(Error::PasswordRefused { path: password_path.to_path_buf() })
        }
        Err(_) => Probe::NotYet,
    }
}

async fn create_database(options: &PgConnectOptions) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(DATABASE)
        .fetch_one(&mut connection)
        .await?;
    if !exists {
        sqlx::query("CREATE DATABASE rollcall").execute(&mut connection).await?;
    }
    connection.close().await
}
