//! Snapshots: a load with one gives what a load without gives, whatever happened to it; and no load waits for one.

use cqrs_es::{Aggregate, DomainEvent, event_sink::EventSink};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use rollcall_event_store::{
    Log, Options, Recorded,
    append::{self, Appended},
    keys::Opened,
    snapshots,
    streams::{Claim, Codec, Context, DecodeError, Encoded, Streams},
};
use serde::{Deserialize, Serialize};
use sqlx::Executor;

use crate::support::{PATIENCE, TENANT, Test, migrate};

/// A list of numbers, each from an event.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Numbers {
    all: Vec<u32>,
    /// How many of them came from a snapshot.
    #[serde(skip)]
    restored: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Added(u32);

impl DomainEvent for Added {
    fn event_type(&self) -> String {
        "Added".to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl Aggregate for Numbers {
    const TYPE: &'static str = "numbers";
    type Command = ();
    type Event = Added;
    type Error = Never;
    type Services = ();

    async fn handle(&mut self, _command: (), _services: &(), _sink: &EventSink<Self>) -> Result<(), Never> {
        Ok(())
    }

    fn apply(&mut self, Added(number): Added) {
        self.all.push(number);
    }
}

/// The codec of a binary whose snapshots have that shape.
struct Shaped<const SHAPE: i32>;

impl<const SHAPE: i32> Codec for Shaped<SHAPE> {
    type Aggregate = Numbers;

    fn encode(Added(number): &Added) -> Encoded {
        let payload = format!(r#"{{"number":{number}}}"#);
        Encoded { event_type: "Added", event_version: "1", payload, personal: None }
    }

    fn decode(event: &Recorded, _personal: Opened) -> Result<Added, DecodeError> {
        let digits: String = event.payload.chars().filter(char::is_ascii_digit).collect();
        Ok(Added(digits.parse().unwrap()))
    }

    fn claims(_event: &Added) -> Vec<Claim> {
        Vec::new()
    }

    const SNAPSHOT_SHAPE: i32 = SHAPE;

    fn snapshot(numbers: &Numbers) -> Vec<u8> {
        // What another shape would make of it is not to be seen.
        let shifted: Vec<u32> = numbers.all.iter().map(|number| number + SHAPE.unsigned_abs()).collect();
        format!("{shifted:?}").into_bytes()
    }

    fn of_snapshot(snapshot: &[u8]) -> Option<Numbers> {
        let shifted: Vec<u32> = serde_json::from_slice(snapshot).ok()?;
        let restored = shifted.len();
        Some(Numbers { all: shifted.into_iter().map(|n| n - SHAPE.unsigned_abs()).collect(), restored })
    }
}

type Ours = Streams<Shaped<2>>;

fn streams<const SHAPE: i32>(log: &Log) -> Streams<Shaped<SHAPE>> {
    Streams::new(log.clone(), TENANT.into())
}

fn options(after_events: usize) -> Options {
    Options { snapshots: snapshots::Options { after_events }, ..Options::default() }
}

/// A log that leaves snapshots behind after more than three events.
async fn short() -> Test {
    Test::with(options(3)).await
}

async fn add<const SHAPE: i32>(
    streams: &Streams<Shaped<SHAPE>>,
    context: Context<Numbers>,
    numbers: std::ops::Range<u32>,
) -> Result<Appended, append::Error> {
    let events: Vec<Added> = numbers.map(Added).collect();
    streams.append(&events, context, "{}".into()).await
}

async fn load<const SHAPE: i32>(streams: &Streams<Shaped<SHAPE>>, id: &str) -> Context<Numbers> {
    streams.load(id).await.unwrap()
}

/// Loads all numbers below `count`, of which so many came from a snapshot.
#[track_caller]
fn assert_loaded(context: &Context<Numbers>, count: u32, restored: usize) {
    assert_eq!(context.version(), u64::from(count));
    assert_eq!(context.aggregate, Numbers { all: (0..count).collect(), restored });
}

/// Waits until the one snapshot stands at a version, in a shape.
async fn snapshot_at(test: &Test, version: i64, shape: i64) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let sql = format!("SELECT count(*) FROM log.snapshots WHERE sequence = {version} AND shape = {shape}");
    while test.number(&sql).await != 1 {
        assert!(tokio::time::Instant::now() < deadline, "no snapshot at {version} in shape {shape}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Loads until so many of the numbers come from a snapshot; each load may leave one behind.
async fn until_restored<const SHAPE: i32>(streams: &Streams<Shaped<SHAPE>>, id: &str, restored: usize) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while load(streams, id).await.aggregate.restored != restored {
        assert!(tokio::time::Instant::now() < deadline, "no snapshot of {restored} numbers");
        tokio::task::yield_now().await;
    }
}

/// A stream of ten numbers with a snapshot of all of them.
async fn with_snapshot(test: &Test) -> Ours {
    let ours = streams(&test.log);
    add(&ours, ours.fresh("one"), 0..10).await.unwrap();
    assert_loaded(&load(&ours, "one").await, 10, 0);
    snapshot_at(test, 10, 2).await;
    ours
}

/// Waits until every snapshot that was offered has been stored: they are in the order in which they were offered.
async fn settled<const SHAPE: i32>(streams: &Streams<Shaped<SHAPE>>) {
    let last = uuid::Uuid::now_v7().to_string();
    add(streams, streams.fresh(&last), 0..10).await.unwrap();
    until_restored(streams, &last, 10).await;
}

#[tokio::test]
async fn a_long_stream_loads_from_a_snapshot_and_the_events_after_it() {
    let test = short().await;
    let ours = with_snapshot(&test).await;
    let context = load(&ours, "one").await;
    assert_loaded(&context, 10, 10);
    let last = add(&ours, context, 10..13).await.unwrap();
    let context = load(&ours, "one").await;
    assert_loaded(&context, 13, 10);
    // What a command without events has seen is where the stream ends, also where the snapshot is all that was read.
    assert_eq!(add(&ours, context, 0..0).await.unwrap().position, last.position);
    add(&ours, load(&ours, "one").await, 13..14).await.unwrap();
    assert_loaded(&load(&ours, "one").await, 14, 10);
    snapshot_at(&test, 14, 2).await;
    let context = load(&ours, "one").await;
    assert_loaded(&context, 14, 14);
    assert_eq!(add(&ours, context, 0..0).await.unwrap().position, last.position + 1);
    assert_eq!(test.number("SELECT count(*) FROM log.snapshots").await, 1, "one a stream");
    // Another process, with no key in its memory.
    let restarted = Log::open(&migrate(&test.owner).await.unwrap(), options(3)).await.unwrap();
    assert_loaded(&load(&streams::<2>(&restarted), "one").await, 14, 14);
}

#[tokio::test]
async fn a_short_stream_leaves_no_snapshot() {
    let test = short().await;
    let ours: Ours = streams(&test.log);
    add(&ours, ours.fresh("short"), 0..3).await.unwrap();
    assert_loaded(&load(&ours, "short").await, 3, 0);
    with_snapshot(&test).await;
    assert_eq!(test.number("SELECT count(*) FROM log.snapshots").await, 1);
}

#[tokio::test]
async fn a_stream_longer_than_one_statement_reads_goes_on_after_its_snapshot() {
    let test = Test::with(options(100)).await;
    let ours: Ours = streams(&test.log);
    add(&ours, ours.fresh("one"), 0..500).await.unwrap();
    load(&ours, "one").await;
    snapshot_at(&test, 500, 2).await;
    add(&ours, load(&ours, "one").await, 500..2_600).await.unwrap();
    assert_loaded(&load(&ours, "one").await, 2_600, 500);
}

#[tokio::test]
async fn a_snapshot_of_an_older_shape_is_ignored_and_replaced() {
    let test = short().await;
    with_snapshot(&test).await;
    let newer = streams::<3>(&test.log);
    assert_loaded(&load(&newer, "one").await, 10, 0);
    snapshot_at(&test, 10, 3).await;
    assert_loaded(&load(&newer, "one").await, 10, 10);
}

#[tokio::test]
async fn a_snapshot_of_a_newer_shape_is_ignored_and_gives_way_where_it_has_grown_old() {
    let test = short().await;
    let ours = with_snapshot(&test).await;
    let older = streams::<1>(&test.log);
    add(&ours, load(&older, "one").await, 10..12).await.unwrap();
    assert_loaded(&load(&older, "one").await, 12, 0);
    // Nothing tells of what did not happen; whatever of theirs was on its way is done before one of ours.
    add(&ours, ours.fresh("other"), 0..5).await.unwrap();
    load(&ours, "other").await;
    snapshot_at(&test, 5, 2).await;
    assert_loaded(&load(&ours, "one").await, 12, 10);
    add(&older, load(&older, "one").await, 12..13).await.unwrap();
    until_restored(&older, "one", 13).await;
    assert_loaded(&load(&ours, "one").await, 13, 0);
}

#[tokio::test]
async fn a_snapshot_that_does_not_open_is_ignored_and_replaced() {
    let test = short().await;
    let ours = with_snapshot(&test).await;
    add(&ours, ours.fresh("other"), 0..10).await.unwrap();
    until_restored(&ours, "other", 10).await;
    let of_other = "(SELECT sealed FROM log.snapshots WHERE aggregate_id = 'other')";
    for damage in [
        "sealed = overlay(sealed PLACING '\\x00'::bytea FROM length(sealed) - 3)",
        "sealed = ''",
        "sealed = '\\x01'",
        "sequence = 9",
        &format!("sealed = {of_other}"),
    ] {
        settled(&ours).await;
        test.execute(&format!("UPDATE log.snapshots SET {damage} WHERE aggregate_id = 'one'")).await;
        assert_loaded(&load(&ours, "one").await, 10, 0);
        until_restored(&ours, "one", 10).await;
    }
}

#[tokio::test]
async fn a_snapshot_of_events_that_are_not_there_is_ignored_and_replaced() {
    let test = short().await;
    let ours = with_snapshot(&test).await;
    // As after a restore of the events to an earlier point. That it is found, and halts the log, is another test's.
    let back = |to: u32| {
        format!(
            "ALTER TABLE log.events DISABLE TRIGGER events_are_immutable;
             DELETE FROM log.events WHERE position > {to};
             ALTER TABLE log.events ENABLE TRIGGER events_are_immutable"
        )
    };
    test.execute(&back(6)).await;
    let ahead = load(&ours, "one").await;
    assert_loaded(&ahead, 6, 0);
    snapshot_at(&test, 6, 2).await;
    assert_loaded(&load(&ours, "one").await, 6, 6);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while test.number("SELECT count(*) FROM log.halt").await == 0 {
        assert!(tokio::time::Instant::now() < deadline, "it is found");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    test.execute("DELETE FROM log.halt").await;

    // The place of its last event was taken by another, by way of a process that keeps no snapshots of so few.
    test.execute(&back(5)).await;
    let other: Ours = streams(&Log::open(&migrate(&test.owner).await.unwrap(), options(100)).await.unwrap());
    let context = load(&other, "one").await;
    assert_loaded(&context, 5, 0);
    add(&other, context, 70..71).await.unwrap();
    let context = load(&ours, "one").await;
    assert_eq!(context.aggregate, Numbers { all: vec![0, 1, 2, 3, 4, 70], restored: 0 });
    until_restored(&ours, "one", 6).await;
    assert_eq!(load(&ours, "one").await.aggregate.all, [0, 1, 2, 3, 4, 70]);
}

#[tokio::test]
async fn of_an_erased_subject_no_snapshot_is_read_or_made() {
    let test = short().await;
    with_snapshot(&test).await;
    test.execute(
        "INSERT INTO vault.tombstones SELECT aggregate_id, tenant_id, aggregate_type, now() FROM vault.data_keys;
         DELETE FROM vault.data_keys",
    )
    .await;
    let log = Log::open(&migrate(&test.owner).await.unwrap(), options(3)).await.unwrap();
    let ours: Ours = streams(&log);
    let context = load(&ours, "one").await;
    assert!(context.erased());
    assert_loaded(&context, 10, 0);
    test.execute("DELETE FROM log.snapshots").await;
    load(&ours, "one").await;
    add(&ours, ours.fresh("other"), 0..5).await.unwrap();
    load(&ours, "other").await;
    snapshot_at(&test, 5, 2).await;
    assert_eq!(test.number("SELECT count(*) FROM log.snapshots").await, 1);
}

#[tokio::test]
async fn commands_go_on_while_no_snapshot_can_be_stored() {
    let test = short().await;
    let ours = with_snapshot(&test).await;
    let mut lock = test.superuser().await;
    // Reading goes on under this lock, writing does not.
    lock.execute("BEGIN; LOCK TABLE log.snapshots IN SHARE MODE").await.unwrap();
    let ids: Vec<String> = (0..100).map(|n| format!("other-{n}")).collect();
    for id in &ids {
        add(&ours, ours.fresh(id), 0..5).await.unwrap();
        assert_loaded(&load(&ours, id).await, 5, 0);
    }
    add(&ours, load(&ours, "one").await, 10..20).await.unwrap();
    for _ in 0..3 {
        assert_loaded(&load(&ours, "one").await, 20, 10);
    }
    lock.execute("COMMIT").await.unwrap();
    // What found no room was dropped; the next load offers it again.
    until_restored(&ours, "one", 20).await;
    assert!(test.number("SELECT count(*) FROM log.snapshots").await <= 40, "the queue is short");
}

#[tokio::test]
async fn a_snapshot_in_the_making_and_appends_do_not_meet() {
    let test = Test::with(options(0)).await;
    let other = Log::open(&test.provisioned, options(1)).await.unwrap();
    let ours: Ours = streams(&test.log);
    add(&ours, ours.fresh("one"), 0..1).await.unwrap();
    let adders = [&test.log, &other, &test.log].map(|log| {
        let ours: Ours = streams(log);
        tokio::spawn(async move {
            let mut stored = 0;
            while stored < 60 {
                let context = load(&ours, "one").await;
                let version = u32::try_from(context.version()).unwrap();
                // Whatever was stored meanwhile: what is read is the stream at its version.
                assert_eq!(context.aggregate.all, (0..version).collect::<Vec<_>>());
                match add(&ours, context, version..version + 1).await {
                    Ok(_) => stored += 1,
                    Err(append::Error::Conflict) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        })
    });
    for adder in adders {
        adder.await.unwrap();
    }
    let context = load(&ours, "one").await;
    assert_eq!(context.aggregate.all, (0..181).collect::<Vec<_>>());
    assert!(context.aggregate.restored > 0);
}

/// What happens to streams in a law's life.
#[derive(Clone, Debug)]
enum Deed {
    Append {
        stream: u8,
        events: u8,
    },
    Load {
        stream: u8,
    },
    /// By a binary of another shape.
    LoadOther {
        stream: u8,
    },
    Damage,
    Delete,
    /// Another process takes over, which knows nothing of the streams.
    Restart,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        4 => (0..3_u8, 1..6_u8).prop_map(|(stream, events)| Deed::Append { stream, events }),
        4 => (0..3_u8).prop_map(|stream| Deed::Load { stream }),
        2 => (0..3_u8).prop_map(|stream| Deed::LoadOther { stream }),
        1 => Just(Deed::Damage),
        1 => Just(Deed::Delete),
        2 => Just(Deed::Restart),
    ];
    vec(deed, 1..50)
}

#[test]
fn a_load_with_snapshots_gives_what_a_load_without_gives() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config { cases: 12, failure_persistence: None, max_shrink_iters: 30, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let restored = std::cell::Cell::new(0);
    runner
        .run(&(deeds(), 0..5_usize), |(deeds, after_events)| {
            runtime.block_on(async {
                let test = Test::with(options(after_events)).await;
                let mut log = test.log.clone();
                let mut numbers: [u32; 3] = [0; 3];
                for deed in deeds {
                    let (ours, other) = (streams::<2>(&log), streams::<1>(&log));
                    match deed {
                        Deed::Append { stream, events } => {
                            let context = load(&ours, &stream.to_string()).await;
                            let from = numbers[usize::from(stream)];
                            let to = from + u32::from(events);
                            add(&ours, context, from..to).await.unwrap();
                            numbers[usize::from(stream)] = to;
                        }
                        Deed::Load { stream } | Deed::LoadOther { stream } => {
                            let id = stream.to_string();
                            let context = match deed {
                                Deed::Load { .. } => load(&ours, &id).await,
                                _ => load(&other, &id).await,
                            };
                            let from_snapshot = context.aggregate.restored;
                            assert_loaded(&context, numbers[usize::from(stream)], from_snapshot);
                            restored.set(restored.get() + from_snapshot);
                            // Now and then the snapshot gets there before the next deed.
                            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
                        }
                        Deed::Damage => {
                            test.execute("UPDATE log.snapshots SET sealed = '\\x010203'").await;
                        }
                        Deed::Delete => test.execute("DELETE FROM log.snapshots").await,
                        Deed::Restart => {
                            log.close().await;
                            log = Log::open(&test.provisioned, options(after_events)).await.unwrap();
                        }
                    }
                }
                log.close().await;
            });
            Ok(())
        })
        .unwrap();
    assert!(restored.get() > 0, "no snapshot was ever read");
}
