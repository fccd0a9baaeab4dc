//! Leases: which process works on what.
//!
//! Shape: [`Member`] (one a process: says that it lives, looks at the versions and leases, takes its share, lets go) ->
//! [`Share`] (one for each version of a projection) -> a projector's [`Turn`], for as long as a batch takes.
//!
//! Liveness and safety are kept apart. *Who works* is a matter of clocks: a member that has not been heard of for
//! [`LIVES_FOR`], or whose session has ended, is gone, and what it held is taken by others. *What is written* is not: taking a
//! lease raises its epoch and writes that into the checkpoints in the same transaction, a checkpoint moves only for the
//! epoch that it bears, and a batch is one transaction with its checkpoint. So a process that lost its lease and wakes up
//! cannot write a row, however long it slept. (Kleppmann, "How to do distributed locking", 2016: fencing.)
//!
//! Who cannot do its work declines it for a while: it is taken by others, if any of them is willing. And the owner of the
//! read models pauses work on a version for as long as it makes its indexes: everybody lets go of it.
//!
//! A holder that froze or died inside a transaction may still hold locks: its sessions, which bear its id in their names, are
//! ended by whoever takes over.
//!
//! *Invariant:* what is held is renewed before anything is taken, and what keeps one version from being taken keeps no other:
//! a round gives up at the first failure, and the next one begins with the others.

mod plan;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use rollcall_event_store::{Partition, session};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::{Mutex, MutexGuard, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{
    plan::{Leases, Plan},
    table::Table,
};
use crate::{projector::chain, schema::Version, versions};

/// How long after its last word a member counts as alive.
pub(crate) const LIVES_FOR: Duration = Duration::from_secs(3);
/// How long after its last word a member whose session has ended counts as alive: it may be connecting again.
pub(crate) const RECONNECTS_WITHIN: Duration = Duration::from_millis(1_250);
const SAYS_SO_EVERY: Duration = Duration::from_millis(500);
const LOOKS_EVERY: Duration = Duration::from_millis(250);
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Who has not said for so long that it lives was away, or its database was.
const AWAY_AFTER: Duration = Duration::from_secs(2);
/// How long letting go waits for the batch that is under way.
const LETS_GO_WITHIN: Duration = Duration::from_millis(500);

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
    projects: Vec<Project>,
}

/// What a process can project.
struct Project {
    projection: &'static str,
    shape: i32,
    /// None for every version of the shape.
    only: Option<i32>,
    units: Units,
    begin: Box<dyn FnMut(Version, Share) + Send + Sync>,
}

impl Project {
    /// As members name it: by shape, or, where it is for one version alone, by that.
    fn name(&self) -> String {
        match self.only {
            None => format!("{} {}", self.projection, self.shape),
            Some(version) => format!("{}_{version}", self.projection),
        }
    }
}

/// A version of a projection that the process works on.
struct Work {
    version: Version,
    units: Units,
    held: watch::Sender<Held>,
    trouble: watch::Receiver<BTreeMap<u16, String>>,
    /// What the table says of it.
    told: BTreeMap<u16, String>,
    declined_until: watch::Receiver<Instant>,
    at_work: Arc<Mutex<()>>,
    /// When it could not be taken, though it was free.
    failed_at: Option<Instant>,
}

/// Since when a member has said without a gap that it lives.
#[derive(Default)]
struct Heard(Option<(Instant, Instant)>);

impl Heard {
    fn at(&mut self, now: Instant) {
        let since = match self.0 {
            Some((since, last)) if now - last < AWAY_AFTER => since,
            _ => now,
        };
        self.0 = Some((since, now));
    }

    /// Who was away itself, or whose database was, must not judge who else was before they could say a word.
    fn judges(&self, now: Instant) -> bool {
        self.0.is_some_and(|(since, _)| now - since >= LIVES_FOR)
    }
}

/// What is held of a projection.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    epochs: BTreeMap<u16, Epoch>,
    /// By this process's clock; nothing is held after it unless the member has said again that it lives.
    until: Instant,
}

/// A process's part in the work on one version of a projection.
pub struct Share {
    held: watch::Receiver<Held>,
    trouble: Trouble,
    declined_until: watch::Sender<Instant>,
    at_work: Arc<Mutex<()>>,
    units: Units,
    name: String,
}

/// What keeps units from going on, in the words that an operator is shown: they repeat no value. The member writes it beside
/// the lease, so that it can be read of any process.
#[derive(Clone, Debug)]
pub(crate) struct Trouble(watch::Sender<BTreeMap<u16, String>>);

impl Trouble {
    pub fn is(&self, unit: u16, text: String) {
        self.0.send_if_modified(|trouble| trouble.insert(unit, text.clone()).as_ref() != Some(&text));
    }

    pub fn over(&self, unit: u16) {
        self.0.send_if_modified(|trouble| trouble.remove(&unit).is_some());
    }

    pub fn all_over(&self) {
        self.0.send_if_modified(|trouble| !std::mem::take(trouble).is_empty());
    }
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

    /// Where to say what keeps units from going on.
    pub(crate) fn trouble(&self) -> Trouble {
        self.trouble.clone()
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

    /// For a while this process would rather leave the work to others, because it could not do it. Where there is nobody
    /// else who works on the version and does not decline it, it stays with who has it.
    pub fn decline_for(&self, time: Duration) {
        self.declined_until.send_replace(Instant::now() + time);
    }

    /// It can be done again.
    pub fn accept(&self) {
        if self.declines() {
            self.declined_until.send_replace(Instant::now());
        }
    }

    pub fn declines(&self) -> bool {
        Instant::now() < *self.declined_until.borrow()
    }

    /// Whether there is no more to come: the version is gone, or the member has ended.
    pub fn gone(&self) -> bool {
        self.held.has_changed().is_err()
    }

    /// Returns when what is held has changed. False where there is no more to come.
    pub async fn changed(&mut self) -> bool {
        self.held.changed().await.is_ok()
    }
}

impl Member {
    pub fn new(service: &PgConnectOptions) -> Self {
        let id = Uuid::now_v7();
        let options = session(service, &format!("rollcall-member {id}"))
            // What a crash of the server takes back of this is said again in a moment; leases are taken durably.
            .options([("synchronous_commit", "off"), ("lock_timeout", "1s"), ("statement_timeout", "3s")]);
        Self { id, options, projects: Vec::new() }
    }

    /// A name for sessions of other work that this process alone does: whoever takes over from it, should it freeze, ends them.
    pub fn session_name(&self, of: &str) -> String {
        format!("{of} {}", self.id)
    }

    /// Whether there is anything to share.
    pub fn projects(&self) -> bool {
        !self.projects.is_empty()
    }

    /// From now on this process can project something. `begin` is called for each of its versions of that shape, now or when
    /// one is made, and starts what works on it.
    pub fn project(
        &mut self,
        projection: &'static str,
        shape: i32,
        units: Units,
        begin: impl FnMut(Version, Share) + Send + Sync + 'static,
    ) {
        self.add(projection, shape, None, units, Box::new(begin));
    }

    /// The same for one version alone.
    pub fn project_only(
        &mut self,
        version: Version,
        shape: i32,
        units: Units,
        begin: impl FnMut(Version, Share) + Send + Sync + 'static,
    ) {
        self.add(version.projection, shape, Some(version.number), units, Box::new(begin));
    }

    fn add(
        &mut self,
        projection: &'static str,
        shape: i32,
        only: Option<i32>,
        units: Units,
        begin: Box<dyn FnMut(Version, Share) + Send + Sync>,
    ) {
        metrics::gauge!("rollcall_leases_held", "projection" => projection).set(0.0);
        metrics::counter!("rollcall_lease_failures_total").increment(0);
        self.projects.push(Project { projection, shape, only, units, begin });
    }

    /// Works until the shutdown, and then lets go of everything, so that others need not wait.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let (mut works, mut heard, mut failing) = (Vec::new(), Heard::default(), false);
        while !shutdown.is_cancelled() {
            let outcome = self.take_part(&mut works, &mut heard, &shutdown, &mut failing).await;
            let Err(error) = outcome else { return };
            metrics::counter!("rollcall_lease_failures_total").increment(1);
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

    async fn take_part(
        &mut self,
        works: &mut Vec<Work>,
        heard: &mut Heard,
        shutdown: &CancellationToken,
        failing: &mut bool,
    ) -> Result<(), sqlx::Error> {
        let mut table = Table(in_time(PgConnection::connect_with(&self.options)).await?);
        let mut said_last: Option<(Instant, Vec<String>)> = None;
        loop {
            let declines: Vec<String> =
                works.iter().filter(|work| work.declines()).map(|work| work.version.qualifier()).collect();
            let said = match &said_last {
                Some((at, said)) if at.elapsed() < SAYS_SO_EVERY && *said == declines => *at,
                _ => {
                    // From before the statement: others count from when it ran.
                    let now = Instant::now();
                    in_time(table.say_alive(self, &declines)).await?;
                    heard.at(Instant::now());
                    said_last = Some((now, declines));
                    now
                }
            };
            let judges = heard.judges(Instant::now());
            in_time(self.tend(&mut table, works, said + LIVES_FOR, judges)).await?;
            *failing = false;
            tokio::select! {
                () = shutdown.cancelled() => return self.leave(&mut table, works).await,
                () = tokio::time::sleep(LOOKS_EVERY) => {}
            }
        }
    }

    /// Looks at the leases, and takes or lets go of what is too little or too much.
    async fn tend(
        &mut self,
        table: &mut Table,
        works: &mut Vec<Work>,
        until: Instant,
        judges: bool,
    ) -> Result<(), sqlx::Error> {
        let leases = table.look(self).await?;
        works.retain(|work| {
            let there = leases.contains_key(&work.version);
            if !there {
                tracing::info!(version = work.version.qualifier(), "the version was dropped");
            }
            there
        });
        let of_filling = leases.values().filter(|(_, leases)| leases.filling);
        let filling: BTreeSet<usize> = of_filling.map(|(project, _)| *project).collect();
        for (&version, (project, _)) in &leases {
            if !works.iter().any(|work| work.version == version) {
                works.push(self.begin(*project, version));
            }
        }
        for work in works.iter() {
            let Some((_, leases)) = leases.get(&work.version) else { continue };
            // What another has taken is not held any more, whatever this process believes.
            let of_this = leases.units.iter().filter(|lease| lease.holder == Some(self.id));
            work.hold(of_this.map(|lease| (lease.unit, lease.epoch)).collect(), until);
        }
        let mut too_much: Vec<(&Work, Vec<u16>, &str)> = Vec::new();
        let mut took_over = Vec::new();
        // What has never failed comes first, and then what failed longest ago.
        works.sort_by_key(|work| work.failed_at);
        let mut failed = false;
        for work in works.iter_mut() {
            let Some((_, leases)) = leases.get(&work.version) else { continue };
            let Plan { mut take, let_go } = plan::plan(self.id, leases);
            if !judges {
                take.retain(|unit| leases.frozen(&[*unit]).is_empty());
            }
            if take.is_empty() {
                work.failed_at = None;
            } else if !failed {
                match self.take(table, work, leases, &take, judges).await {
                    Ok(taken) => {
                        work.failed_at = None;
                        if !taken.is_empty() {
                            tracing::info!(version = work.version.qualifier(), units = ?taken.keys(), "took over");
                            took_over.push(work.version);
                            let mut held = work.held.borrow().epochs.clone();
                            held.extend(taken);
                            work.hold(held, until);
                        }
                    }
                    // It says that it could not; of what says nothing the connection is to be doubted.
                    Err(error @ sqlx::Error::Database(_)) => {
                        failed = true;
                        metrics::counter!("rollcall_lease_failures_total").increment(1);
                        if work.failed_at.replace(Instant::now()).is_none() {
                            tracing::warn!(
                                version = work.version.qualifier(), units = ?take, error = %chain(&error),
                                "leases cannot be taken; trying again"
                            );
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            if !let_go.is_empty() {
                let mut held = work.held.borrow().epochs.clone();
                held.retain(|unit, _| !let_go.contains(unit));
                work.hold(held, until);
                let why = if leases.paused { "its indexes are being made" } else { "others can work on it" };
                too_much.push((&*work, let_go, why));
            }
        }
        if !too_much.is_empty() {
            // The batches that are under way may still need them; what takes long is let go of another time. One wait for all:
            // meanwhile the member must go on saying that it lives.
            let deadline = Instant::now() + LETS_GO_WITHIN;
            for (work, units, why) in too_much {
                if let Ok(_at_rest) = timeout_at(deadline, work.at_work.lock()).await {
                    table.let_go(self, work, &units).await?;
                    tracing::info!(version = work.version.qualifier(), ?units, why, "let go");
                }
            }
        }
        for work in works.iter_mut() {
            let trouble = work.trouble.borrow().clone();
            // What was written of a lease went when it was taken.
            if trouble != work.told || (took_over.contains(&work.version) && !trouble.is_empty()) {
                table.say_trouble(self, work, &trouble).await?;
                work.told = trouble;
            }
        }
        for (place, Project { projection, shape, .. }) in self.projects.iter().enumerate() {
            let of_this = works.iter().filter(|work| work.version.projection == *projection);
            let held: usize = of_this.map(|work| work.held.borrow().epochs.len()).sum();
            metrics::gauge!("rollcall_leases_held", "projection" => *projection).set(held as f64);
            if filling.contains(&place) {
                versions::promote(&mut table.0, projection, *shape).await?;
            }
        }
        Ok(())
    }

    /// Takes units of a version, and ends the sessions of those that held them and were not heard of for too long, where that can
    /// be judged: what these hold locked could not be taken.
    async fn take(
        &self,
        table: &mut Table,
        work: &Work,
        leases: &Leases,
        units: &[u16],
        judges: bool,
    ) -> Result<BTreeMap<u16, Epoch>, sqlx::Error> {
        let silent = if judges { leases.silent(units) } else { Vec::new() };
        if !silent.is_empty() {
            table.end_sessions(&silent).await?;
        }
        table.take(self, work, &leases.of(units)).await
    }

    /// Starts what works on a version.
    fn begin(&mut self, project: usize, version: Version) -> Work {
        let nothing = Held { epochs: BTreeMap::new(), until: Instant::now() };
        let (held, at_work) = (watch::Sender::new(nothing), Arc::new(Mutex::new(())));
        let (says, trouble) = watch::channel(BTreeMap::new());
        let (declining, declined_until) = watch::channel(Instant::now());
        let project = &mut self.projects[project];
        let share = Share {
            held: held.subscribe(),
            trouble: Trouble(says),
            declined_until: declining,
            at_work: Arc::clone(&at_work),
            units: project.units,
            name: format!("{} {}", version.qualifier(), self.id),
        };
        (project.begin)(version, share);
        let told = BTreeMap::new();
        let units = project.units;
        Work { version, units, held, trouble, told, declined_until, at_work, failed_at: None }
    }

    async fn leave(&self, table: &mut Table, works: &[Work]) -> Result<(), sqlx::Error> {
        for work in works {
            work.hold(BTreeMap::new(), Instant::now());
        }
        let at_rest = async {
            for work in works {
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
    fn declines(&self) -> bool {
        Instant::now() < *self.declined_until.borrow()
    }

    fn hold(&self, epochs: BTreeMap<u16, Epoch>, until: Instant) {
        self.held.send_if_modified(|held| {
            let news = held.epochs != epochs;
            *held = Held { epochs, until };
            news
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_away_judges_nobody_for_a_while_and_who_only_failed_now_and_then_does() {
        let (mut heard, mut now) = (Heard::default(), Instant::now());
        assert!(!heard.judges(now));
        for judges in [false, false, true] {
            heard.at(now);
            assert_eq!(heard.judges(now), judges);
            now += AWAY_AFTER - Duration::from_millis(1);
        }
        now += Duration::from_millis(1);
        heard.at(now);
        assert!(!heard.judges(now));
        assert!(heard.judges(now + LIVES_FOR));
    }
}
