//! Leases: which process works on what.
//!
//! Shape: [`Member`] (one a process: says that it lives, looks at the leases, takes its share, lets go) -> [`Share`] (one for
//! each projection of the process) -> a projector's [`Turn`], for as long as a batch takes.
//!
//! Liveness and safety are kept apart. *Who works* is a matter of clocks: a member that has not been heard of for
//! [`LIVES_FOR`], or whose session has ended, is gone, and what it held is taken by others. *What is written* is not: taking a
//! lease raises its epoch and writes that into the checkpoints in the same transaction, a checkpoint moves only for the
//! epoch that it bears, and a batch is one transaction with its checkpoint. So a process that lost its lease and wakes up
//! cannot write a row, however long it slept. (Kleppmann, "How to do distributed locking", 2016: fencing.)
//!
//! A holder that froze inside a transaction still holds locks: its sessions, which bear its id in their names, are
//! ended by whoever takes over.

mod plan;
mod table;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rollcall_event_store::{Partition, session};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::{Mutex, MutexGuard, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{plan::Plan, table::Table};
use crate::projector::chain;

/// How long after its last word a member counts as alive.
const LIVES_FOR: Duration = Duration::from_secs(3);
/// How long after its last word a member whose session has ended counts as alive: it may be connecting again.
const RECONNECTS_WITHIN: Duration = Duration::from_millis(1_250);
const SAYS_SO_EVERY: Duration = Duration::from_millis(500);
const LOOKS_EVERY: Duration = Duration::from_millis(250);
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// How long letting go waits for the batch that is under way.
const LETS_GO_WITHIN: Duration = Duration::from_secs(1);

/// An epoch of a lease: rises whenever somebody takes it.
pub type Epoch = i64;

/// How the work of a projection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// A unit for each partition.
    Partitions,
    /// One unit for all partitions.
    One,
}

/// A process among those that share the work.
pub struct Member {
    id: Uuid,
    options: PgConnectOptions,
    works: Vec<Work>,
}

/// A projection that the process may work on.
struct Work {
    projection: &'static str,
    version: i32,
    units: Units,
    held: watch::Sender<Held>,
    at_work: Arc<Mutex<()>>,
}

/// What is held of a projection.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    epochs: BTreeMap<u16, Epoch>,
    /// By this process's clock; nothing is held after it unless the member has said again that it lives.
    until: Instant,
}

impl Held {
    fn nothing() -> Self {
        Self { epochs: BTreeMap::new(), until: Instant::now() }
    }
}

/// A process's part in the work on one projection.
pub struct Share {
    held: watch::Receiver<Held>,
    at_work: Arc<Mutex<()>>,
    units: Units,
    name: String,
}

/// Some work that nobody takes away before it ends: what the process lets go of waits for it.
pub struct Turn<'a> {
    held: Held,
    units: Units,
    _at_work: MutexGuard<'a, ()>,
}

impl Turn<'_> {
    /// The epoch under which a partition may be worked on; none where it is another's.
    pub fn epoch(&self, partition: Partition) -> Option<Epoch> {
        let unit = match self.units {
            Units::Partitions => partition,
            Units::One => 0,
        };
        self.held.epochs.get(&unit).copied()
    }
}

impl Share {
    /// The name for sessions of this work: it bears the member's id, by which a frozen holder's sessions are found.
    pub fn session_name(&self) -> &str {
        &self.name
    }

    /// A turn, where anything is held.
    pub async fn turn(&self) -> Option<Turn<'_>> {
        let at_work = self.at_work.lock().await;
        // Read under the lock: what was let go of before is not in it.
        let held = self.held.borrow().clone();
        let holds = !held.epochs.is_empty() && Instant::now() < held.until;
        holds.then_some(Turn { held, units: self.units, _at_work: at_work })
    }

    /// Whether a lease is held now.
    pub fn holds(&self) -> bool {
        let held = self.held.borrow();
        !held.epochs.is_empty() && Instant::now() < held.until
    }

    /// Returns when what is held has changed; never where the member has ended.
    pub async fn changed(&mut self) {
        if self.held.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Member {
    pub fn new(service: &PgConnectOptions) -> Self {
        let id = Uuid::now_v7();
        let options = session(service, &format!("rollcall-member {id}"))
            // What a crash of the server takes back of this is said again in a moment; leases are taken durably.
            .options([("synchronous_commit", "off"), ("lock_timeout", "1s"), ("statement_timeout", "3s")]);
        Self { id, options, works: Vec::new() }
    }

    /// Whether there is anything to share.
    pub fn works(&self) -> bool {
        !self.works.is_empty()
    }

    /// This process's share in the work on a projection.
    pub fn share(&mut self, projection: &'static str, version: i32, units: Units) -> Share {
        let (held, at_work) = (watch::Sender::new(Held::nothing()), Arc::new(Mutex::new(())));
        let share = Share {
            held: held.subscribe(),
            at_work: Arc::clone(&at_work),
            units,
            name: format!("{projection} {}", self.id),
        };
        metrics::gauge!("rollcall_leases_held", "projection" => projection).set(0.0);
        self.works.push(Work { projection, version, units, held, at_work });
        share
    }

    /// Works until the shutdown, and then lets go of everything, so that others need not wait.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut failing = false;
        while !shutdown.is_cancelled() {
            let Err(error) = self.take_part(&shutdown, &mut failing).await else { return };
            if !failing {
                tracing::warn!(error = %chain(&error), "leases cannot be kept; trying again");
            }
            failing = true;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }

    async fn take_part(&self, shutdown: &CancellationToken, failing: &mut bool) -> Result<(), sqlx::Error> {
        let mut table = Table(in_time(PgConnection::connect_with(&self.options)).await?);
        let mut said_at = None;
        loop {
            if said_at.is_none_or(|at: Instant| at.elapsed() >= SAYS_SO_EVERY) {
                // From before the statement: others count from when it ran.
                let now = Instant::now();
                in_time(table.say_alive(self)).await?;
                said_at = Some(now);
                for work in &self.works {
                    work.held.send_modify(|held| held.until = now + LIVES_FOR);
                }
            }
            in_time(self.tend(&mut table)).await?;
            *failing = false;
            tokio::select! {
                () = shutdown.cancelled() => return self.leave(&mut table).await,
                () = tokio::time::sleep(LOOKS_EVERY) => {}
            }
        }
    }

    /// Looks at the leases, and takes or lets go of what is too little or too much.
    async fn tend(&self, table: &mut Table) -> Result<(), sqlx::Error> {
        let mut leases = table.look(self).await?;
        for (work, leases) in self.works.iter().zip(&mut leases) {
            // What another has taken is not held any more, whatever this process believes.
            let ours: BTreeMap<u16, Epoch> = leases
                .units
                .iter()
                .filter(|lease| lease.holder == Some(self.id))
                .map(|l| (l.unit, l.epoch))
                .collect();
            work.hold(ours);
            let Plan { take, let_go } = plan::plan(self.id, leases);
            if !take.is_empty() {
                let frozen = leases.frozen(&take);
                if !frozen.is_empty() {
                    table.end_sessions(&frozen).await?;
                }
                let taken = table.take(self, work, &leases.of(&take)).await?;
                if !taken.is_empty() {
                    tracing::info!(projection = work.projection, units = ?taken.keys(), "took over");
                    let mut held = work.held.borrow().epochs.clone();
                    held.extend(taken);
                    work.hold(held);
                }
            }
            if !let_go.is_empty() {
                let mut held = work.held.borrow().epochs.clone();
                held.retain(|unit, _| !let_go.contains(unit));
                work.hold(held);
                // The batch that is under way may still need them; where it takes long, they are let go of another time.
                if let Ok(_at_rest) = timeout(LETS_GO_WITHIN, work.at_work.lock()).await {
                    table.let_go(self, work, &let_go).await?;
                    tracing::info!(projection = work.projection, units = ?let_go, "let go: others do less");
                }
            }
        }
        Ok(())
    }

    async fn leave(&self, table: &mut Table) -> Result<(), sqlx::Error> {
        for work in &self.works {
            work.hold(BTreeMap::new());
        }
        let at_rest = async {
            for work in &self.works {
                drop(work.at_work.lock().await);
            }
        };
        // Where a batch does not end, the epochs keep it from writing once another has begun.
        let _ = timeout(LETS_GO_WITHIN, at_rest).await;
        in_time(table.leave(self)).await
    }
}

/// A member that gets no answer for as long as it lives for others must not go on waiting for it.
async fn in_time<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    timeout(LIVES_FOR, work)
        .await
        .unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
}

impl Work {
    fn hold(&self, epochs: BTreeMap<u16, Epoch>) {
        metrics::gauge!("rollcall_leases_held", "projection" => self.projection).set(epochs.len() as f64);
        self.held.send_if_modified(|held| {
            let news = held.epochs != epochs;
            held.epochs = epochs;
            news
        });
    }
}
