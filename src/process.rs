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

/// Sockets taken over from the kernel at once. A worker's queue holds 256 tasks; what overflows it goes to one that is looked at
/// seldom, and of thousands of callers some would wait ten times as long as others. In the kernel they wait in order.
const READY_SOCKETS_MAX: usize = 128;

/// The threads that everything runs on.
pub fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_io_events_per_tick(READY_SOCKETS_MAX)
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
