//! Keeps one issuer's keys: read at the start, refreshed in time, and again when a token names a key that is not there.
//!
//! Shape: [`Keeper::start`] -> a task that alone reads -> a watched state that everybody else reads.
//!
//! *Invariant:* keys that were read once stay until others were read in their place.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    key_set::KeySet,
    source::{self, Source},
};

/// A file is looked at this often. Reading a few kilobytes is cheaper than being wrong about when they changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a failure a URL is tried again this soon, then in twice the time, up to the refresh.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Tokens that name unknown keys cause no more than one fetch in this time, whoever sends them.
pub const REFETCH_EVERY: Duration = Duration::from_secs(30);
const LOOK_AGAIN_EVERY: Duration = Duration::from_millis(100);
/// A fetch has a bound of its own; past this one the token is judged by the keys that there are.
pub const REFETCH_WITHIN: Duration = Duration::from_secs(6);
/// Anybody can name an unknown key, so whoever waits is nobody yet: all of them must not be all requests at work.
pub const WAITING_MAX: usize = 64;

/// One issuer's keys and the task that keeps them.
pub struct Keeper {
    issuer: String,
    source: Source,
    refresh: Duration,
    state: watch::Sender<State>,
    /// The one of the keys in `state`, to be read without a lock.
    generation: AtomicU64,
    wanted: Notify,
    waiting: Semaphore,
}

/// Keys with a number that tells them from those before.
#[derive(Clone)]
pub struct Keys {
    pub set: Arc<KeySet>,
    pub generation: u64,
}

#[derive(Default)]
struct State {
    keys: Option<Keys>,
    refetched_at: Option<Instant>,
}

impl Keeper {
    /// Reads the keys once and spawns the task that keeps them until `stop`.
    ///
    /// # Errors
    /// Where a file cannot be used. A URL that cannot be fetched leaves the keeper without keys for the time being.
    pub async fn start(
        issuer: String,
        source: Source,
        refresh: Duration,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, source::Error> {
        let keeper = Arc::new(Self {
            issuer,
            source,
            refresh,
            state: watch::Sender::default(),
            generation: AtomicU64::new(0),
            wanted: Notify::new(),
            waiting: Semaphore::new(WAITING_MAX),
        });
        let mut failures = 0;
        if let Err(error) = keeper.read(&mut failures).await
            && matches!(keeper.source, Source::File(_))
        {
            return Err(error);
        }
        tokio::spawn(Arc::clone(&keeper).run(failures, stop));
        Ok(keeper)
    }

    /// `None` until they were read for the first time.
    pub fn keys(&self) -> Option<Keys> {
        self.state.borrow().keys.clone()
    }

    /// The generation of the keys that count now; 0 before the first.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The keys once they were read again, for a token that names a key that is not among them. Those who ask at the same
    /// time wait for the same reading, up to [`WAITING_MAX`] of them; the others, and those who ask too soon after, get what
    /// there is at once.
    pub async fn refetched(&self) -> Option<Keys> {
        let mut state = self.state.subscribe();
        if !self.too_soon(&state.borrow_and_update())
            && let Ok(_place) = self.waiting.try_acquire()
        {
            self.wanted.notify_one();
            // Either way the keys that there are by then decide.
            let _ = timeout(REFETCH_WITHIN, state.changed()).await;
        }
        self.keys()
    }

    fn too_soon(&self, state: &State) -> bool {
        let every = match self.source {
            Source::File(_) => LOOK_AGAIN_EVERY,
            Source::Url(..) => REFETCH_EVERY,
        };
        state.refetched_at.is_some_and(|at| at.elapsed() < every)
    }

    async fn run(self: Arc<Self>, mut failures: u32, stop: CancellationToken) {
        loop {
            let next = Instant::now() + self.pause(failures);
            let asked = loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep_until(next) => break false,
                    // Somebody may have asked while the reading that they waited for was under way.
                    () = self.wanted.notified() => if !self.too_soon(&self.state.borrow()) { break true },
                }
            };
            // It is logged and counted there.
            let _ = self.read(&mut failures).await;
            self.state.send_modify(|state| {
                if asked {
                    state.refetched_at = Some(Instant::now());
                }
            });
        }
    }

    fn pause(&self, failures: u32) -> Duration {
        match (&self.source, failures) {
            (Source::File(_), _) => LOOK_EVERY,
            (Source::Url(..), 0) => self.refresh,
            (Source::Url(..), failures) => {
                RETRY_AFTER.saturating_mul(1 << (failures - 1).min(16)).min(self.refresh)
            }
        }
    }

    /// Reads once and takes the keys where they are others; an outage is logged when it begins and when it ends.
    async fn read(&self, failures: &mut u32) -> Result<(), source::Error> {
        let read = self.source.read().await;
        let outcome = match read {
            Ok(set) => {
                if *failures > 0 {
                    tracing::info!(issuer = self.issuer, "the keys of an issuer can be read again");
                }
                *failures = 0;
                Ok(self.take(set))
            }
            Err(error) => {
                if *failures == 0 {
                    let cause: &dyn std::error::Error = &error;
                    tracing::warn!(
                        cause,
                        issuer = self.issuer,
                        "the keys of an issuer cannot be read; those read before go on to count"
                    );
                }
                *failures = failures.saturating_add(1);
                Err(error)
            }
        };
        let outcome_name = match (&outcome, &self.source) {
            (Ok(true), _) => "changed",
            (Ok(false), Source::Url(..)) => "unchanged",
            // A look at a file that is as it was is no refresh.
            (Ok(false), Source::File(_)) => return Ok(()),
            (Err(_), _) => "failed",
        };
        metrics::counter!("rollcall_jwks_refreshes_total", "outcome" => outcome_name).increment(1);
        outcome.map(|_| ())
    }

    /// Whether the keys are others than before.
    fn take(&self, set: KeySet) -> bool {
        let changed = self.state.send_if_modified(|state| {
            if state.keys.as_ref().is_some_and(|keys| *keys.set == set) {
                return false;
            }
            let generation = state.keys.as_ref().map_or(1, |keys| keys.generation + 1);
            state.keys = Some(Keys { set: Arc::new(set), generation });
            true
        });
        if changed {
            self.generation.store(self.keys().map_or(0, |keys| keys.generation), Ordering::Release);
            tracing::info!(issuer = self.issuer, "the keys of an issuer were read");
        }
        changed
    }

    /// As if so much time had passed since the last refetch.
    #[cfg(test)]
    pub fn let_pass(&self, time: Duration) {
        self.state.send_modify(|state| {
            state.refetched_at = state.refetched_at.and_then(|at| at.checked_sub(time));
        });
    }
}
