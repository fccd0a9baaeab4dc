//! What goes wrong, and when: drawn from a seeded source before the run begins, so that a seed names a run.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    str::FromStr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use nix::{sys::signal::Signal, unistd::Pid};
use rand::{
    RngExt, SeedableRng,
    rngs::StdRng,
    seq::{IndexedRandom, SliceRandom},
};
use sqlx::{ConnectOptions, Connection, PgConnection, Row, postgres::PgConnectOptions};
use tokio::time::{sleep, sleep_until, timeout};

use crate::{
    processes,
    proxy::{self, Plan},
    roles::{Role, Roles},
    rollcall::{PATIENCE, eventually},
    site::Site,
};

/// Faults that have an end end within this time.
const LASTS_MAX: Duration = Duration::from_secs(7);
/// Who starts PostgreSQL again takes its time where it ends again and again, and while it is away nothing else can happen.
const RESTARTS_APART_MIN: Duration = Duration::from_secs(30);
/// How far apart faults begin.
const APART_MAX: Duration = Duration::from_millis(2_000);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// kill -9 of a process.
    Kill,
    /// SIGSTOP, and SIGCONT later: longer than its sessions may be idle in a transaction, sometimes.
    Freeze,
    /// Connections to PostgreSQL break at any statement: before it, in the middle of it, between commit and answer.
    CutConnections,
    /// Answers come late.
    DelayAnswers,
    /// The connections that a process has are silent from now on, for both sides.
    HalfOpen,
    /// After one more commit, whose answer is lost, a process cannot reach PostgreSQL.
    DatabaseAway,
    /// A transaction with a snapshot and an id of its own is held open.
    HoldTransaction,
    /// PostgreSQL ends at once, without a checkpoint; what is started after it recovers.
    RestartPostgres,
    /// kill -9 of a backend, at which the server ends all sessions and recovers.
    CrashPostgres,
    KillNats,
    FreezeNats,
}

/// Each kind, and its share of the faults once each has been there.
const KINDS: [(Kind, usize); 11] = [
    (Kind::Kill, 5),
    (Kind::Freeze, 3),
    (Kind::CutConnections, 3),
    (Kind::DelayAnswers, 2),
    (Kind::HalfOpen, 2),
    (Kind::DatabaseAway, 1),
    (Kind::HoldTransaction, 1),
    (Kind::RestartPostgres, 1),
    (Kind::CrashPostgres, 1),
    (Kind::KillNats, 1),
    (Kind::FreezeNats, 1),
];

impl Kind {
    fn strikes_a_role(self) -> bool {
        use Kind::{CutConnections, DatabaseAway, DelayAnswers, Freeze, HalfOpen, Kill};
        matches!(self, Kill | Freeze | CutConnections | DelayAnswers | HalfOpen | DatabaseAway)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// From the run's beginning.
    pub at: Duration,
    pub kind: Kind,
    /// Whom it strikes, where it strikes one.
    pub role: usize,
    pub lasts: Duration,
    /// Of what is chance within it.
    pub seed: u64,
}

/// Faults for that long: each kind once, in any order, and then as they come.
pub fn draw(rng: &mut StdRng, length: Duration, roles: usize) -> Vec<Fault> {
    let mut firsts = KINDS.map(|(kind, _)| kind);
    firsts.shuffle(rng);
    let mut firsts = firsts.into_iter();
    // However short the run is, each kind finds room.
    let apart_max = APART_MAX.min(length / (KINDS.len() as u32 + 2));
    let mut faults = Vec::new();
    let mut at = apart_max;
    let mut restarted = None::<Duration>;
    while at < length || firsts.len() > 0 {
        let drawn = || KINDS.choose_weighted(rng, |(_, share)| *share).unwrap().0;
        let mut kind = firsts.next().unwrap_or_else(drawn);
        if kind == Kind::RestartPostgres {
            match restarted {
                Some(last) if at < last + RESTARTS_APART_MIN => kind = Kind::CrashPostgres,
                _ => restarted = Some(at),
            }
        }
        let lasts = LASTS_MAX.mul_f64(rng.random_range(0.05..1.0));
        faults.push(Fault { at, kind, role: rng.random_range(0..roles), lasts, seed: rng.random() });
        at += apart_max.mul_f64(rng.random_range(0.1..1.0));
    }
    faults
}

/// Lets all of it happen, overlapping as drawn; returns when the last fault is over, with how many there were of each kind.
pub async fn strike(site: &Site, roles: &Roles, faults: Vec<Fault>) -> BTreeMap<Kind, usize> {
    let begun = Instant::now();
    let place = Place { site, roles, data: site.path().join("data") };
    let strikes = faults.iter().map(async |fault| {
        sleep_until((begun + fault.at).into()).await;
        let (now, lasts) = (begun.elapsed().as_secs_f64(), fault.lasts.as_secs_f64());
        let whom =
            if fault.kind.strikes_a_role() { roles.get(fault.role).name.as_str() } else { "the servers" };
        println!("{now:>8.3} s  {:?} ({lasts:.1} s), {whom}", fault.kind);
        place.strike(fault).await;
    });
    join_all(strikes).await;
    // Several faults may have shared a proxy: whatever is left of them ends here.
    for role in roles.iter() {
        heal(role);
    }
    let mut survived = BTreeMap::new();
    for fault in faults {
        *survived.entry(fault.kind).or_default() += 1;
    }
    survived
}

fn heal(role: &Role) {
    role.proxy.plan(Plan::Through);
    role.proxy.come_back();
}

/// Where faults strike.
struct Place<'a> {
    site: &'a Site,
    roles: &'a Roles,
    data: PathBuf,
}

impl Place<'_> {
    async fn strike(&self, fault: &Fault) {
        let role = self.roles.get(fault.role);
        let chance = |probability, of: &[proxy::Fault]| {
            Plan::Chance(Box::new(StdRng::seed_from_u64(fault.seed)), probability, of.to_vec())
        };
        match fault.kind {
            Kind::Kill => role.kill(),
            Kind::Freeze => {
                role.send(Signal::SIGSTOP);
                sleep(fault.lasts).await;
                role.send(Signal::SIGCONT);
            }
            Kind::CutConnections => {
                use proxy::Fault::{After, Before, During, Half};
                role.proxy.plan(chance(0.2, &[Before, Half, During, After, After]));
                sleep(fault.lasts).await;
                heal(role);
            }
            Kind::DelayAnswers => {
                use proxy::Fault::{Late, SilentThenBroken};
                let late = [10, 100, 500].map(|ms| Late(Duration::from_millis(ms)));
                let faults = [&late[..], &[SilentThenBroken(Duration::from_millis(1_500))]].concat();
                role.proxy.plan(chance(0.2, &faults));
                sleep(fault.lasts).await;
                heal(role);
            }
            Kind::HalfOpen => role.proxy.silence_all(),
            Kind::DatabaseAway => {
                role.proxy.plan(chance(1.0, &[proxy::Fault::AfterThenAway]));
                sleep(fault.lasts).await;
                heal(role);
            }
            Kind::HoldTransaction => self.hold_transaction(fault.lasts).await,
            Kind::RestartPostgres => {
                // To a postmaster SIGQUIT is the immediate shutdown.
                self.send_to_server("postgres", Signal::SIGQUIT);
                self.until_postgres_is_there().await;
            }
            Kind::CrashPostgres => {
                self.kill_backend().await;
                self.until_postgres_is_there().await;
            }
            Kind::KillNats => {
                self.send_to_server("nats-server", Signal::SIGKILL);
                self.until_nats_is_there().await;
            }
            Kind::FreezeNats => {
                self.send_to_server("nats-server", Signal::SIGSTOP);
                sleep(fault.lasts).await;
                self.send_to_server("nats-server", Signal::SIGCONT);
                self.until_nats_is_there().await;
            }
        }
    }

    /// The server may be away already, and start again by itself.
    fn send_to_server(&self, program: &str, signal: Signal) {
        if let Some(server) = processes::running_servers(&self.data, program).first() {
            // It may have ended since.
            let _ = nix::sys::signal::kill(Pid::from_raw(server.pid), signal);
        }
    }

    /// Of whoever works or waits there.
    async fn kill_backend(&self) {
        let Some(mut connection) = self.connect().await else { return };
        let backend = "SELECT pid FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY state_change DESC LIMIT 1";
        if let Ok(Some(pid)) = sqlx::query_scalar(backend).fetch_optional(&mut connection).await {
            // It may have ended since.
            let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    async fn until_postgres_is_there(&self) {
        eventually("PostgreSQL's coming back", async || self.connect().await).await;
    }

    async fn until_nats_is_there(&self) {
        let url = format!("nats://{}", self.site.nats_url().rsplit_once('@').unwrap().1);
        eventually("NATS's coming back", async || {
            timeout(PATIENCE / 20, async_nats::connect(&url)).await.ok()?.ok()
        })
        .await;
    }

    async fn connect(&self) -> Option<PgConnection> {
        let options = PgConnectOptions::from_str(self.site.owner_url()).unwrap().disable_statement_logging();
        let mut connection = timeout(PATIENCE / 20, PgConnection::connect_with(&options)).await.ok()?.ok()?;
        connection.ping().await.ok()?;
        Some(connection)
    }

    /// What it sees at its end is what it saw at its beginning, and whole: up to each head every event is there.
    async fn hold_transaction(&self, lasts: Duration) {
        let Some(mut connection) = self.connect().await else { return };
        let heads = "SELECT sum(position)::int8, pg_current_xact_id()::text FROM log.heads";
        let events = "SELECT count(*) FROM log.events";
        let held = async {
            let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
            let first: i64 = sqlx::query(heads).fetch_one(&mut *transaction).await?.try_get(0)?;
            sleep(lasts).await;
            let stored: i64 = sqlx::query(events).fetch_one(&mut *transaction).await?.try_get(0)?;
            assert_eq!(first, stored, "a snapshot sees other heads than events");
            transaction.commit().await
        };
        // PostgreSQL may be restarted meanwhile.
        let _: Result<(), sqlx::Error> = held.await;
    }
}
