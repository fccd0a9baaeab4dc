//! The log against a model of it: two processes, few streams, few claims, few keys, everything in each other's way.
//!
//! What is at once has no order of its own, so a round of appends is right where some order of them explains all its
//! outcomes.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use proptest::{
    collection::{btree_set, vec},
    option,
    prelude::*,
    sample::select,
    test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner},
};
use rollcall_event_store::{
    Log, StreamId,
    append::{Appended, Error, Expected},
};

use crate::support::{Test, event, release, take, wish};

const STREAMS: u8 = 4;
const CLAIMS: u8 = 4;
const KEYS: u8 = 6;

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

/// What the log should be.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    /// The payloads of each stream.
    streams: BTreeMap<u8, Vec<String>>,
    claims: BTreeMap<u8, u8>,
    keys: BTreeSet<u8>,
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

    /// Whether the outcome is one that this state gives; the state moves on with it.
    fn explains(&mut self, sent: &Sent<'_>) -> bool {
        let op = sent.op;
        let expected = match sent.expected {
            Expected::Fresh => 0,
            Expected::Version(version) => version,
        };
        let conflict = op.events > 0 && expected != self.version(op.stream);
        let used = op.key.is_some_and(|key| self.keys.contains(&key));
        let taken = |name: u8| self.claims.contains_key(&name);
        match &sent.outcome {
            Err(Error::Conflict) => conflict,
            Err(Error::KeyUsed) => used,
            Err(Error::ClaimTaken(digest)) => {
                op.takes.iter().any(|&claim| taken(claim) && digest.0[1] == b'0' + claim)
            }
            Err(_) => false,
            Ok(_) if conflict || used || op.takes.iter().any(|&claim| taken(claim)) => false,
            Ok(_) => {
                if op.events > 0 {
                    self.streams.entry(op.stream).or_default().extend(sent.payloads.iter().cloned());
                }
                self.claims.retain(|claim, holder| !(*holder == op.stream && op.releases.contains(claim)));
                self.claims.extend(op.takes.iter().map(|&claim| (claim, op.stream)));
                self.keys.extend(op.key);
                true
            }
        }
    }

    /// The state after some order of the round that explains every outcome.
    fn after(&self, round: &[Sent<'_>]) -> Option<Self> {
        fn search(model: &Model, round: &[Sent<'_>], done: u32) -> Option<Model> {
            if done.count_ones() as usize == round.len() {
                return Some(model.clone());
            }
            (0..round.len()).filter(|index| done & (1 << index) == 0).find_map(|index| {
                let mut next = model.clone();
                next.explains(&round[index]).then(|| search(&next, round, done | 1 << index))?
            })
        }
        search(self, round, 0)
    }
}

struct Case<'a> {
    test: &'a Test,
    logs: [&'a Log; 2],
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

    async fn send<'a>(&self, op: &'a Op, id: usize, model: &Model) -> Sent<'a> {
        let expected = op.expected.map_or(Expected::Fresh, |offset| {
            Expected::Version(model.version(op.stream).saturating_add_signed(offset))
        });
        let payloads: Vec<String> = (0..op.events).map(|n| format!(r#"{{"op":{id},"n":{n}}}"#)).collect();
        let mut wish = wish(self.stream(op.stream), expected, 0);
        wish.0.events = payloads.iter().map(event).collect();
        let log = self.logs[usize::from(op.second_log)];
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
            let used: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM log.commands WHERE key = $1)")
                .bind(&crate::support::digest(&self.name('k', n)).0[..])
                .fetch_one(pool)
                .await
                .unwrap();
            model.keys.extend(used.then_some(n));
        }
        model
    }
}

async fn check(
    case: &Case<'_>,
    rounds: &[Vec<Op>],
    outcomes: &mut BTreeMap<&'static str, usize>,
) -> TestCaseResult {
    let mut model = Model::default();
    for (number, round) in rounds.iter().enumerate() {
        let sent = round.iter().enumerate().map(|(place, op)| case.send(op, number * 100 + place, &model));
        let sent = join_all(sent).await;
        for each in &sent {
            *outcomes.entry(kind(&each.outcome)).or_default() += 1;
        }
        let told: Vec<_> = sent.iter().map(|sent| (sent.op, sent.expected, &sent.outcome)).collect();
        let Some(next) = model.after(&sent) else {
            return Err(TestCaseError::fail(format!("no order explains {told:#?} after {model:#?}")));
        };
        model = next;
        prop_assert_eq!(&case.stored().await, &model, "after {:#?}", told);
    }
    let keys: i64 = sqlx::query_scalar("SELECT count(*) FROM vault.data_keys WHERE tenant_id = $1")
        .bind(&case.tenant)
        .fetch_one(&mut case.test.superuser().await)
        .await
        .unwrap();
    prop_assert_eq!(usize::try_from(keys).unwrap(), model.streams.len(), "a data key for each stream");
    Ok(())
}

fn kind(outcome: &Result<Appended, Error>) -> &'static str {
    match outcome {
        Ok(_) => "stored",
        Err(Error::Conflict) => "conflict",
        Err(Error::ClaimTaken(_)) => "claim taken",
        Err(Error::KeyUsed) => "key used",
        Err(_) => "error",
    }
}

#[test]
fn any_interleaving_of_appends_leaves_what_some_order_of_them_would() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (test, other) = runtime.block_on(async {
        let test = Test::new().await;
        let other = test.another_log().await;
        (test, other)
    });
    let config = Config { cases: 60, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let tenants = std::cell::Cell::new(0);
    let outcomes = std::cell::RefCell::new(BTreeMap::new());
    runner
        .run(&vec(vec(op(), 1..7), 1..15), |rounds| {
            let tenant = format!("t{}", tenants.replace(tenants.get() + 1));
            let case = Case { test: &test, logs: [&test.log, &other], tenant };
            runtime.block_on(check(&case, &rounds, &mut outcomes.borrow_mut()))
        })
        .unwrap();
    runtime.block_on(test.assert_ordered_without_gaps());
    let outcomes = outcomes.into_inner();
    for kind in ["stored", "conflict", "claim taken", "key used"] {
        assert!(outcomes.get(kind).is_some_and(|&count| count > 50), "{outcomes:?}");
    }
}
