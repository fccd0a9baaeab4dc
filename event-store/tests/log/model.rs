//! The log against a model of it: two processes that are killed now and then, few streams, few claims, few keys, everything
//! in each other's way, and a reader that follows.
//!
//! What is at once has no order of its own, so a round of appends is right where some order of them explains all its
//! outcomes and what is stored. An append whose process was killed has happened whole or not at all.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::future::join_all;
use proptest::{
    collection::{btree_set, vec},
    option,
    prelude::*,
    sample::select,
    test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner},
};
use rollcall_event_store::{
    Log, Options, StreamId,
    append::{self, Appended, Error, Expected},
    tail::{Span, read_spans},
};
use sqlx::{Connection, PgConnection};
use tokio::{runtime::Runtime, time::sleep};
use uuid::Uuid;

use crate::support::{PATIENCE, Test, event, release, stream_in, take, wish};

const STREAMS: u8 = 4;
const CLAIMS: u8 = 4;
const KEYS: u8 = 6;
/// Of each process; the partitions are split between them.
const WRITERS: u16 = 2;
/// On a machine that has something else to do.
const CASES_A_MINUTE: f64 = 120.0;

#[derive(Clone, Debug)]
struct Op {
    second_log: bool,
    stream: u8,
    /// None for a stream that is believed to be new; otherwise how far from the version at the round's beginning.
    expected: Option<i64>,
    events: usize,
    takes: BTreeSet<u8>,
    releases: BTreeSet<u8>,
    key: Option<u8>,
}

fn op() -> impl Strategy<Value = Op> {
    let expected = prop_oneof![1 => Just(None), 8 => select(vec![0, 0, 0, 0, 0, 1, 2, -1]).prop_map(Some)];
    let claims = || btree_set(0..CLAIMS, 0..3);
    (any::<bool>(), 0..STREAMS, expected, 0_usize..4, claims(), claims(), option::weighted(0.3, 0..KEYS))
        .prop_map(|(second_log, stream, expected, events, takes, mut releases, key)| {
            releases.retain(|claim| !takes.contains(claim));
            // Without an event there is nothing but a record to keep.
            let (takes, releases) = if events == 0 { Default::default() } else { (takes, releases) };
            let key = if events == 0 { Some(key.unwrap_or_default()) } else { key };
            Op { second_log, stream, expected, events, takes, releases, key }
        })
}

/// Appends that are there together, and perhaps the end of a process in the middle of them.
#[derive(Clone, Debug)]
struct Round {
    ops: Vec<Op>,
    /// Which log's, and when.
    crash: Option<(usize, Duration)>,
}

fn round() -> impl Strategy<Value = Round> {
    let crash = (0..2_usize, (0..4_000_u64).prop_map(Duration::from_micros));
    (vec(op(), 1..7), option::weighted(0.25, crash)).prop_map(|(ops, crash)| Round { ops, crash })
}

/// A log in a runtime of its own, as a process has it: killed, it gets no further than the statement that it is at.
struct Process {
    /// None once it was killed.
    runtime: Option<Runtime>,
    log: Log,
}

impl Process {
    async fn start(test: &Test) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let provisioned = test.provisioned.clone();
        let options = Options {
            // So that there are batches that are looked through and batches that are not.
            append: append::Options {
                writers: WRITERS,
                batches_looked_through: 2,
                ..append::Options::default()
            },
            ..Options::default()
        };
        let log = runtime.spawn(async move { Log::open(&provisioned, options).await.unwrap() });
        let log = log.await.unwrap();
        // From now on it has its writers' connections.
        for partition in 0..WRITERS {
            let warm = wish(stream_in(partition, &Uuid::now_v7().to_string()), Expected::Fresh, 1);
            warm.append(&log).await.unwrap();
        }
        Self { runtime: Some(runtime), log }
    }

    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Returns when the server is done with what it had been sent.
    async fn crash_and_restart(&mut self, test: &Test, after: Duration) {
        sleep(after).await;
        self.kill();
        let writers = "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'rollcall-append'";
        let ended = async {
            while test.number(writers).await > i64::from(WRITERS) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.unwrap();
        *self = Self::start(test).await;
    }
}

/// What the log should be.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    /// The payloads of each stream.
    streams: BTreeMap<u8, Vec<String>>,
    claims: BTreeMap<u8, u8>,
    /// The stream and version that each record names.
    keys: BTreeMap<u8, (u8, u64)>,
}

/// An op as it was sent.
struct Sent<'a> {
    op: &'a Op,
    expected: Expected,
    payloads: Vec<String>,
    outcome: Result<Appended, Error>,
}

impl Model {
    fn version(&self, stream: u8) -> u64 {
        self.streams.get(&stream).map_or(0, |events| events.len() as u64)
    }

    /// The states after an append that explain its outcome: none where this state does not give that one, two where nobody
    /// was told.
    fn after(&self, sent: &Sent<'_>) -> Vec<Self> {
        let op = sent.op;
        let conflict = op.events > 0 && sent.decided_on() != self.version(op.stream);
        let used = op.key.is_some_and(|key| self.keys.contains_key(&key));
        let taken = |name: u8| self.claims.contains_key(&name);
        let refused = conflict || used || op.takes.iter().any(|&claim| taken(claim));
        let explained = match &sent.outcome {
            Ok(_) => return if refused { Vec::new() } else { vec![self.with(sent)] },
            Err(Error::Unknown) if refused => true,
            Err(Error::Unknown) => return vec![self.with(sent), self.clone()],
            // Its process had ended already.
            Err(Error::Stopping) => true,
            Err(Error::Conflict) => conflict,
            Err(Error::KeyUsed) => used,
            Err(Error::ClaimTaken(digest)) => {
                op.takes.iter().any(|&claim| taken(claim) && digest.0[1] == b'0' + claim)
            }
            Err(_) => false,
        };
        explained.then(|| self.clone()).into_iter().collect()
    }

    /// With all of an append.
    fn with(&self, sent: &Sent<'_>) -> Self {
        let (mut model, op) = (self.clone(), sent.op);
        if op.events > 0 {
            model.streams.entry(op.stream).or_default().extend(sent.payloads.iter().cloned());
        }
        model.claims.retain(|claim, holder| !(*holder == op.stream && op.releases.contains(claim)));
        model.claims.extend(op.takes.iter().map(|&claim| (claim, op.stream)));
        let version = sent.decided_on() + op.events as u64;
        model.keys.extend(op.key.map(|key| (key, (op.stream, version))));
        model
    }

    /// Whether some order of the round explains every outcome and leads to what is stored.
    fn leads_to(&self, stored: &Self, round: &[Sent<'_>]) -> bool {
        fn search(model: &Model, stored: &Model, round: &[Sent<'_>], done: u32) -> bool {
            if done.count_ones() as usize == round.len() {
                return model == stored;
            }
            (0..round.len()).filter(|index| done & (1 << index) == 0).any(|index| {
                let next = model.after(&round[index]);
                next.iter().any(|next| search(next, stored, round, done | 1 << index))
            })
        }
        search(self, stored, round, 0)
    }
}

impl Sent<'_> {
    /// The version that it named.
    fn decided_on(&self) -> u64 {
        match self.expected {
            Expected::Fresh => 0,
            Expected::Version(version) => version,
        }
    }
}

struct Case<'a> {
    test: &'a Test,
    tenant: String,
}

impl Case<'_> {
    /// The number comes first: of a digest, byte 1.
    fn name(&self, kind: char, n: u8) -> String {
        format!("{kind}{n}{}", self.tenant)
    }

    fn stream(&self, n: u8) -> StreamId {
        StreamId::new(self.tenant.as_str(), "user", format!("{n}"))
    }

    async fn send<'a>(&self, op: &'a Op, log: &Log, id: usize, model: &Model) -> Sent<'a> {
        let expected = op.expected.map_or(Expected::Fresh, |offset| {
            Expected::Version(model.version(op.stream).saturating_add_signed(offset))
        });
        let payloads: Vec<String> = (0..op.events).map(|n| format!(r#"{{"op":{id},"n":{n}}}"#)).collect();
        let mut wish = wish(self.stream(op.stream), expected, 0);
        wish.0.events = payloads.iter().map(event).collect();
        if op.events > 0 && matches!(expected, Expected::Fresh | Expected::Version(0)) {
            wish = wish.data_key(log.keys());
        }
        if let Some(key) = op.key {
            wish = wish.key(&self.name('k', key));
        }
        let releases = op.releases.iter().map(|&claim| release(&self.name('c', claim)));
        let takes = op.takes.iter().map(|&claim| take(&self.name('c', claim)));
        let outcome = wish.claims(releases.chain(takes)).append(log).await;
        Sent { op, expected, payloads, outcome }
    }

    /// What the tables hold.
    async fn stored(&self) -> Model {
        let mut model = Model::default();
        let pool = self.test.log.pool();
        let events: Vec<(String, String)> = sqlx::query_as(
            "SELECT aggregate_id, payload::text FROM log.events WHERE tenant_id = $1 ORDER BY aggregate_id, sequence",
        )
        .bind(&self.tenant)
        .fetch_all(pool)
        .await
        .unwrap();
        for (id, payload) in events {
            model.streams.entry(id.parse().unwrap()).or_default().push(payload);
        }
        for n in 0..CLAIMS {
            let holder: Option<String> = sqlx::query_scalar(
                "SELECT aggregate_id FROM log.claims WHERE digest = $1 AND tenant_id = $2",
            )
            .bind(&crate::support::digest(&self.name('c', n)).0[..])
            .bind(&self.tenant)
            .fetch_optional(pool)
            .await
            .unwrap();
            model.claims.extend(holder.map(|id| (n, id.parse().unwrap())));
        }
        for n in 0..KEYS {
            let record: Option<(String, i64)> =
                sqlx::query_as("SELECT aggregate_id, version FROM log.commands WHERE key = $1")
                    .bind(&crate::support::digest(&self.name('k', n)).0[..])
                    .fetch_optional(pool)
                    .await
                    .unwrap();
            model
                .keys
                .extend(record.map(|(id, version)| (n, (id.parse().unwrap(), version.cast_unsigned()))));
        }
        model
    }
}

async fn check(
    case: &Case<'_>,
    processes: &mut [Process; 2],
    rounds: &[Round],
    outcomes: &mut BTreeMap<&'static str, usize>,
) -> TestCaseResult {
    let mut model = Model::default();
    for (number, round) in rounds.iter().enumerate() {
        let logs = [processes[0].log.clone(), processes[1].log.clone()];
        let send =
            |(place, op)| case.send(op, &logs[usize::from(op.second_log)], number * 100 + place, &model);
        let appends = join_all(round.ops.iter().enumerate().map(send));
        let sent = match round.crash {
            None => appends.await,
            Some((crashed, after)) => {
                tokio::join!(appends, processes[crashed].crash_and_restart(case.test, after)).0
            }
        };
        for each in &sent {
            *outcomes.entry(kind(&each.outcome)).or_default() += 1;
        }
        let stored = case.stored().await;
        let told: Vec<_> = sent.iter().map(|sent| (sent.op, sent.expected, &sent.outcome)).collect();
        prop_assert!(
            model.leads_to(&stored, &sent),
            "no order of {told:#?} leads from {model:#?} to {stored:#?}"
        );
        model = stored;
    }
    let keys: i64 = sqlx::query_scalar("SELECT count(*) FROM vault.data_keys WHERE tenant_id = $1")
        .bind(&case.tenant)
        .fetch_one(&mut case.test.superuser().await)
        .await
        .unwrap();
    prop_assert_eq!(usize::try_from(keys).unwrap(), model.streams.len(), "a data key for each stream");
    Ok(())
}

/// What a reader saw that followed the log to its end: each read goes on right behind the one before.
struct Followed(Vec<(i32, i64, Uuid)>);

impl Followed {
    /// Reads up to the heads as they are now.
    async fn read_on(&mut self, log: &Log, connection: &mut PgConnection, read: &mut [u64]) {
        log.refresh_heads().await.unwrap();
        let spans: Vec<Span> = (0..log.partitions())
            .zip(read.iter())
            .map(|(partition, &after)| Span { partition, after, until: log.heads().position(partition) })
            .filter(|span| span.events() > 0)
            .collect();
        // Refuses holes, and spans that end before their head.
        for event in read_spans(connection, &spans).await.unwrap() {
            self.0.push((event.partition.into(), event.position.cast_signed(), event.event_id));
        }
        for span in spans {
            read[usize::from(span.partition)] = span.until;
        }
    }
}

/// Follows until it is told that nobody writes any more.
async fn follow(log: Log, owner: String, mut ended: tokio::sync::oneshot::Receiver<()>) -> Followed {
    let mut connection = PgConnection::connect(&owner).await.unwrap();
    let mut read = vec![0; usize::from(log.partitions())];
    let mut followed = Followed(Vec::new());
    while ended.try_recv().is_err() {
        followed.read_on(&log, &mut connection, &mut read).await;
        sleep(Duration::from_millis(1)).await;
    }
    followed.read_on(&log, &mut connection, &mut read).await;
    followed
}

fn kind(outcome: &Result<Appended, Error>) -> &'static str {
    match outcome {
        Ok(_) => "stored",
        Err(Error::Conflict) => "conflict",
        Err(Error::ClaimTaken(_)) => "claim taken",
        Err(Error::KeyUsed) => "key used",
        Err(Error::Unknown) => "unknown",
        Err(_) => "error",
    }
}

/// The cases of a usual run are always the same; `SOAK_MINUTES` brings as many as fit, and others each time.
fn chance() -> (TestRng, u32) {
    let Some(minutes) = std::env::var("SOAK_MINUTES").ok().map(|text| text.parse::<f64>().unwrap()) else {
        return (TestRng::deterministic_rng(RngAlgorithm::ChaCha), 60);
    };
    let named = std::env::var("ROLLCALL_TEST_SEED").ok().map(|text| text.parse().unwrap());
    let seed: u64 = named.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0);
    println!("ROLLCALL_TEST_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    (TestRng::from_seed(RngAlgorithm::ChaCha, &bytes), (CASES_A_MINUTE * minutes).ceil() as u32)
}

#[test]
fn any_interleaving_of_appends_and_crashes_leaves_what_some_order_of_them_would() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (test, processes) = runtime.block_on(async {
        let test = Test::new().await;
        let processes = [Process::start(&test).await, Process::start(&test).await];
        (test, processes)
    });
    let (end, ended) = tokio::sync::oneshot::channel();
    let reader = runtime.spawn(follow(test.log.clone(), test.owner.clone(), ended));
    let (rng, cases) = chance();
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let tenants = Cell::new(0);
    let outcomes = RefCell::new(BTreeMap::new());
    let processes = RefCell::new(processes);
    runner
        .run(&vec(round(), 1..15), |rounds| {
            let case = Case { test: &test, tenant: format!("t{}", tenants.replace(tenants.get() + 1)) };
            let (mut processes, mut outcomes) = (processes.borrow_mut(), outcomes.borrow_mut());
            runtime.block_on(check(&case, &mut processes, &rounds, &mut outcomes))
        })
        .unwrap();
    end.send(()).unwrap();
    runtime.block_on(async {
        test.assert_ordered_without_gaps().await;
        let mut followed = reader.await.unwrap().0;
        // Between partitions there is no order; within one it was checked as it was read.
        followed.sort_by_key(|(partition, position, _)| (*partition, *position));
        let stored: Vec<(i32, i64, Uuid)> = sqlx::query_as(
            "SELECT partition, position, event_id FROM log.events ORDER BY partition, position",
        )
        .fetch_all(test.log.pool())
        .await
        .unwrap();
        assert!(followed == stored, "the reader saw {} of {} events", followed.len(), stored.len());
    });
    let outcomes = outcomes.into_inner();
    println!("{cases} cases: {outcomes:?}");
    for (kind, least) in
        [("stored", 50), ("conflict", 50), ("claim taken", 50), ("key used", 50), ("unknown", 20)]
    {
        assert!(outcomes.get(kind).is_some_and(|&count| count > least), "{outcomes:?}");
    }
    processes.into_inner().iter_mut().for_each(Process::kill);
}
