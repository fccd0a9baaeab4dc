//! A process from its start to its end: the runtime, and the signals that ask it to stop.

use anyhow::bail;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

/// Lets the process have as many open files as it may: each connection is one, and shells grant few at first.
pub fn raise_open_files() {
    // A system that does not let us leaves things as they are; the doctor tells.
    let _ = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
}

/// Sockets that are taken over from the kernel at once, and tasks that a thread runs before it looks again. A thread's own queue
/// holds 256; the rest goes to a common one, which is looked at seldom unless it is said how often. Of 5,000 callers that would
/// make some wait forty times as long as others; so all that are there are served before the next are fetched.
const READY_SOCKETS_MAX: usize = 4_096;
const TASKS_BETWEEN_LOOKS: u32 = 512;
const COMMON_EVERY: u32 = 2;

/// The threads that everything runs on.
pub fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_io_events_per_tick(READY_SOCKETS_MAX)
        .event_interval(TASKS_BETWEEN_LOOKS)
        .global_queue_interval(COMMON_EVERY)
        .build()
}

/// SIGTERM, SIGINT and SIGHUP, which comes when a terminal closes.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Starts, works until a signal or until what was started says why it must end, and stops. A signal during the start
/// ends it; a second one during the stop ends that.
pub async fn run<S, Ends: Future<Output = String>, Stop: Future<Output = ()>>(
    start: impl Future<Output = anyhow::Result<S>>,
    ends: impl FnOnce(&S) -> Ends,
    stop: impl FnOnce(S) -> Stop,
) -> anyhow::Result<()> {
    let mut signals = Signals::install()?;
    let started = tokio::select! {
        started = start => started?,
        () = signals.received() => return Ok(()),
    };
    let ends = ends(&started);
    let why = tokio::select! {
        () = signals.received() => None,
        why = ends => Some(why),
    };
    tracing::info!("stopping");
    tokio::select! {
        () = stop(started) => {}
        () = signals.received() => bail!("stopped at once, because it was asked twice"),
    }
    why.map_or(Ok(()), |why| bail!(why))
}
