//! The private nats-server. The service runs without one and publishes later, so a missing binary is no error: it is
//! looked for until it appears.
//!
//! Shape: find the binary -> write its configuration -> launch on a free port -> ready -> supervise.

pub(super) mod binary;
mod configuration;

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::ConnectOptions;
use nix::sys::signal::Signal;
use tokio::{select, task::JoinHandle, time::sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use self::configuration::Configuration;
use crate::{
    DataDir, Error, port,
    predecessor::PidFile,
    private_file,
    server::{Probe, Running, Server},
    server_log::ServerLog,
};

const NAME: &str = "nats-server";
const USER: &str = "rollcall";
const PORT_ATTEMPTS: usize = 5;
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// It reads its whole store before it listens.
const READY_PATIENCE: Duration = Duration::from_secs(120);
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// A server that runs or will; dropped without [`Nats::stop`] it is stopped in the background.
#[derive(Debug)]
pub struct Nats {
    url: String,
    missing: Arc<AtomicBool>,
    stop: DropGuard,
    supervisor: JoinHandle<()>,
    _directory: DataDir,
}

impl Nats {
    /// Returns when the server answers, or at once where there is no binary to run.
    pub async fn start(directory: &DataDir) -> Result<Self, Error> {
        let password = private_file::password(&directory.path().join("nats.password"))?;
        let home = directory.subdirectory(super::data_dir::NATS)?;
        let stop = CancellationToken::new();
        let missing = Arc::new(AtomicBool::new(false));
        let (port, supervisor) = match binary::find(directory.account()).await {
            Ok(program) => {
                let (server, running, port) = launch(directory, home, program, &password).await?;
                info!(port, "the private nats-server is ready");
                (port, tokio::spawn(server.keep(Some(running), stop.clone())))
            }
            Err(absence) => {
                warn!(%absence, "nothing is published until nats-server is installed: \"apt-get install nats-server\"");
                missing.store(true, Ordering::Relaxed);
                let port = free_port()?;
                let late = Late {
                    configuration: Configuration { home, port, user: USER, password: password.clone() },
                    directory: directory.clone(),
                    missing: missing.clone(),
                };
                (port, tokio::spawn(late.run(stop.clone())))
            }
        };
        Ok(Self {
            url: format!("nats://{USER}:{password}@{}:{port}", Ipv4Addr::LOCALHOST),
            missing,
            stop: stop.drop_guard(),
            supervisor,
            _directory: directory.clone(),
        })
    }

    /// With user and password, which async-nats leaves unused: whoever connects takes them out. The port stays the same for as long as we run, also where the server comes later.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether no usable binary has been found yet.
    pub fn missing(&self) -> bool {
        self.missing.load(Ordering::Relaxed)
    }

    /// Returns when the server has ended, within 4 s.
    pub async fn stop(self) {
        self.stop.disarm().cancel();
        if let Err(error) = self.supervisor.await {
            warn!(%error, "the supervisor of the private nats-server failed");
        }
    }
}

/// A server whose binary was missing at the start.
struct Late {
    configuration: Configuration,
    directory: DataDir,
    missing: Arc<AtomicBool>,
}

impl Late {
    async fn run(self, stop: CancellationToken) {
        let server = loop {
            select! {
                () = sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => return,
            }
            let Ok(program) = binary::find(self.directory.account()).await else { continue };
            match self.configuration.write(&self.directory) {
                Ok(()) => break server(&self.directory, &self.configuration, program),
                Err(error) => warn!(%error, "nats-server cannot be started"),
            }
        };
        info!(program = %server.program.display(), "nats-server has appeared");
        self.missing.store(false, Ordering::Relaxed);
        server.keep(None, stop).await;
    }
}

async fn launch(
    directory: &DataDir,
    home: PathBuf,
    program: PathBuf,
    password: &str,
) -> Result<(Server, Running, u16), Error> {
    let mut ports_left = PORT_ATTEMPTS;
    loop {
        let port = free_port()?;
        let configuration =
            Configuration { home: home.clone(), port, user: USER, password: password.to_owned() };
        configuration.write(directory)?;
        let server = server(directory, &configuration, program.clone());
        let running = server.launch().await?;
        let log_position = running.log_position();
        match server.wait_until_ready(running, READY_PATIENCE, async || probe(port, password).await).await {
            Ok(running) => return Ok((server, running, port)),
            Err(Error::EndedEarly { .. })
                if server.said(log_position, "address already in use") && ports_left > 1 =>
            {
                ports_left -= 1;
            }
            Err(error) => return Err(error),
        }
    }
}

fn free_port() -> Result<u16, Error> {
    port::free().map_err(Error::io("find a free port on", "127.0.0.1"))
}

fn server(directory: &DataDir, configuration: &Configuration, program: PathBuf) -> Server {
    let path = configuration.path();
    Server {
        name: NAME,
        program,
        arguments: vec!["-c".into(), path.clone().into()],
        account: directory.account().clone(),
        log: ServerLog::new(directory.path().join("nats.log")),
        pid_file: PidFile { path: configuration.pid_file(), program: "nats-server", argument: path.into() },
        polite: Signal::SIGTERM,
        patience: STOP_PATIENCE,
        force: Signal::SIGKILL,
    }
}

async fn probe(port: u16, password: &str) -> Probe {
    let options = ConnectOptions::with_user_and_password(USER.to_owned(), password.to_owned())
        .connection_timeout(CONNECT_PATIENCE);
    // A refusal, too, may pass: somebody else's server has the port, and ours is about to find that out.
    let answer = options.connect(format!("nats://{}:{port}", Ipv4Addr::LOCALHOST)).await;
    answer.map_or(Probe::NotYet, |_| Probe::Ready)
}
