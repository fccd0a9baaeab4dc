//! One server as a child: launched, waited for, watched, started again when it ends by itself, and stopped.
//!
//! Shape: launch -> wait until ready -> keep (launch again with backoff) -> halt.

use std::{ffi::OsString, path::PathBuf, process::ExitStatus, time::Duration};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tokio::{
    process::Child,
    select,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    Error,
    account::Account,
    predecessor::PidFile,
    server_log::{self, ServerLog},
    spawner,
};

const POLL: Duration = Duration::from_millis(40);
const REPORT_EVERY: Duration = Duration::from_secs(10);
const LOG_BOUND_EVERY: Duration = Duration::from_secs(60);
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// A server that ran this long had started well; the next failure is a new one.
const RAN_WELL: Duration = Duration::from_secs(60);
const LOG_LINES_IN_WARNING: usize = 5;
/// What follows the forceful signal is the kernel's kill.
const PATIENCE_AFTER_FORCE: Duration = Duration::from_secs(1);

/// How to start and stop one server; the port is among the arguments, so that it stays the same for its clients.
#[derive(Debug)]
pub struct Server {
    pub name: &'static str,
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub account: Account,
    pub log: ServerLog,
    pub pid_file: PidFile,
    /// Asks it to stop; also what it is sent when we are killed.
    pub polite: Signal,
    pub patience: Duration,
    pub force: Signal,
}

#[derive(Debug)]
pub struct Running {
    child: Child,
    log_position: u64,
    since: Instant,
}

/// What an attempt to use a server that is starting showed.
pub enum Probe {
    Ready,
    NotYet,
    Refused(Error),
}

impl Server {
    /// Starts the process, once a server of an earlier run has gone.
    pub async fn launch(&self) -> Result<Running, Error> {
        self.pid_file.wait_until_free(self.name, self.polite, self.force).await?;
        let (output, log_position) = self.log.open().map_err(Error::io("write", self.log.path()))?;
        let errors = output.try_clone().map_err(Error::io("write", self.log.path()))?;
        let mut command = spawner::command(&self.program, &self.account, self.polite);
        command.args(&self.arguments).stdin(std::process::Stdio::null()).stdout(output).stderr(errors);
        let child = spawner::spawn(command).await.map_err(Error::io("run", &self.program))?;
        Ok(Running { child, log_position, since: Instant::now() })
    }

    /// Probes until the server answers. One that does not is halted before the error returns.
    pub async fn wait_until_ready(
        &self,
        mut running: Running,
        patience: Duration,
        probe: impl AsyncFn() -> Probe,
    ) -> Result<Running, Error> {
        let mut report_at = Instant::now() + REPORT_EVERY;
        loop {
            let ended = running.child.try_wait().map_err(Error::io("wait for", &self.program))?;
            if ended.is_some() {
                return Err(self.ended_early(&running));
            }
            match timeout(patience, probe()).await {
                Ok(Probe::Ready) => return Ok(running),
                Ok(Probe::Refused(error)) => {
                    self.halt(running).await;
                    return Err(error);
                }
                Ok(Probe::NotYet) | Err(_) => {}
            }
            if running.since.elapsed() > patience {
                self.halt(running).await;
                let log = self.log.path().to_path_buf();
                return Err(Error::TooSlow { server: self.name, seconds: patience.as_secs(), log });
            }
            if Instant::now() > report_at {
                report_at += REPORT_EVERY;
                info!(
                    server = self.name,
                    seconds = running.since.elapsed().as_secs(),
                    "the server is still starting"
                );
            }
            sleep(POLL).await;
        }
    }

    fn ended_early(&self, running: &Running) -> Error {
        let reason = server_log::reason(&self.log.since(running.log_position)).to_owned();
        Error::EndedEarly { server: self.name, reason, log: self.log.path().to_path_buf() }
    }

    /// Whether the output of the latest launch contains `text`, in any case.
    pub fn said(&self, log_position: u64, text: &str) -> bool {
        self.log.since(log_position).to_ascii_lowercase().contains(text)
    }

    /// Keeps the server running until `stop`, then halts it. Without a `running` one it begins by launching it.
    pub async fn keep(self, running: Option<Running>, stop: CancellationToken) {
        let mut running = running;
        let mut backoff = BACKOFF_MIN;
        loop {
            if let Some(mut watched) = running.take() {
                let Some(status) = self.watch(&mut watched, &stop).await else {
                    return self.halt(watched).await;
                };
                if watched.since.elapsed() > RAN_WELL {
                    backoff = BACKOFF_MIN;
                }
                let log = server_log::last_lines(&self.log.since(watched.log_position), LOG_LINES_IN_WARNING);
                warn!(server = self.name, %status, log, "the server ended by itself; starting it again");
            }
            select! {
                () = sleep(backoff) => {}
                () = stop.cancelled() => return,
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
            let launched = select! {
                launched = self.launch() => launched,
                () = stop.cancelled() => return,
            };
            match launched {
                Ok(launched) => {
                    info!(server = self.name, pid = launched.child.id(), "the server was started");
                    running = Some(launched);
                }
                Err(error) => warn!(server = self.name, error = %chain(&error), "the server does not start"),
            }
        }
    }

    /// The status that the server ended with by itself, or nothing when it is time to stop it.
    async fn watch(&self, running: &mut Running, stop: &CancellationToken) -> Option<String> {
        loop {
            select! {
                ended = running.child.wait() => return Some(describe(ended)),
                () = stop.cancelled() => return None,
                () = sleep(LOG_BOUND_EVERY) => {
                    if let Err(error) = self.log.bound() {
                        debug!(server = self.name, %error, "the server's log was not put aside");
                    }
                }
            }
        }
    }

    /// Stops the server: asked, then forced, then killed.
    pub async fn halt(&self, mut running: Running) {
        for (signal, patience) in [(self.polite, self.patience), (self.force, PATIENCE_AFTER_FORCE)] {
            // Without an id it has ended and was waited for: the number may be somebody else's by now.
            let Some(pid) = running.child.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
            let _ = signal::kill(Pid::from_raw(pid), signal);
            match timeout(patience, running.child.wait()).await {
                Ok(ended) => {
                    return debug!(server = self.name, status = describe(ended), "the server was stopped");
                }
                Err(_) => warn!(server = self.name, pid, %signal, "the server does not stop"),
            }
        }
        let _ = running.child.kill().await;
    }
}

impl Running {
    pub fn log_position(&self) -> u64 {
        self.log_position
    }
}

fn describe(ended: std::io::Result<ExitStatus>) -> String {
    ended.map_or_else(|error| error.to_string(), |status| status.to_string())
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
