//! One history: nobody appends to a log that went back, or that is another one, until an operator has adopted it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use rollcall_event_store::{
    Log, Options,
    adopt::{self, adopt},
    append::{Error, Expected},
    history::Halt,
    migrate,
    tail::Span,
};
use sqlx::{Connection, PgConnection};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::support::{PATIENCE, Source, Test, stream, stream_in, wish};

/// As a restore does it: what is beyond position 2 is gone, and so is every connection.
const REWIND: &str = "
    BEGIN;
    LOCK TABLE log.events IN EXCLUSIVE MODE;
    ALTER TABLE log.events DISABLE TRIGGER events_are_immutable;
    DELETE FROM log.events WHERE position > 2;
    ALTER TABLE log.events ENABLE TRIGGER events_are_immutable;
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid();
    COMMIT";

async fn halted(log: &Log) -> Arc<Halt> {
    let wait = async {
        loop {
            if let Some(halt) = log.halt() {
                return halt;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("it is noticed")
}

/// Appends to all partitions without a pause until it is told to end.
fn hammer(log: &Log, name: &'static str) -> (Arc<AtomicBool>, tokio::task::JoinHandle<()>) {
    let (end, log) = (Arc::new(AtomicBool::new(false)), log.clone());
    let ended = Arc::clone(&end);
    let task = tokio::spawn(async move {
        let one = async |life: u32| {
            for n in 0.. {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                let _ = wish(stream(&format!("{name} {life} {n}")), Expected::Fresh, 1).append(&log).await;
                tokio::task::yield_now().await;
            }
        };
        join_all((0..16).map(one)).await;
    });
    (end, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knew_more_of_a_log_than_there_is_appends_nothing_to_it() {
    let test = Test::with(Options { pool_connections_max: 1, ..Options::default() }).await;
    for partition in 0..16 {
        wish(stream_in(partition, "before"), Expected::Fresh, 4).append(&test.log).await.unwrap();
    }
    let (end, hammering) = hammer(&test.log, "while");
    sleep(Duration::from_millis(200)).await;
    // The poll waits for its connection: the writer must find it by itself.
    let held = test.log.pool().acquire().await.unwrap();
    test.execute(REWIND).await;
    let halt = halted(&test.log).await;
    assert!(matches!(&*halt, Halt::WentBack { found: 2, .. }), "{halt}");
    sleep(Duration::from_millis(300)).await;
    end.store(true, Ordering::Release);
    hammering.await.unwrap();
    drop(held);
    assert_eq!(test.number("SELECT max(position) FROM log.events").await, 2, "nothing was appended");
    assert_eq!(test.log.heads().position(0), 0, "and nobody finds anything to read");
    let refused = wish(stream("after"), Expected::Fresh, 1).append(&test.log).await;
    assert!(matches!(refused, Err(Error::Restored)), "{refused:?}");
    test.log.refresh_heads().await.unwrap_err();

    // Who is started later knows nothing of what was there, and is told.
    let told = async {
        while test.number("SELECT count(*) FROM log.halt").await == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, told).await.expect("it is written down");
    let later = test.another_log().await;
    let halt = later.halt().expect("known before anything is served");
    assert!(halt.to_string().contains("ended at"), "{halt}");
    let refused = wish(stream("later"), Expected::Fresh, 1).append(&later).await;
    assert!(matches!(refused, Err(Error::Restored)), "{refused:?}");
}

/// A log of one partition that matters, in which this process appended four events, and what it remembers of them.
async fn four_events_in_memory() -> (Test, Vec<Uuid>) {
    let test = Test::with(Options { pool_connections_max: 1, ..Options::default() }).await;
    wish(stream_in(3, "before"), Expected::Fresh, 4).append(&test.log).await.unwrap();
    let in_memory = read_first(&test, 4).await;
    (test, in_memory)
}

/// The ids of the first events of partition 3, as a projector of this process reads them.
async fn read_first(test: &Test, events: u64) -> Vec<Uuid> {
    let mut connection = PgConnection::connect_with(&test.provisioned.service).await.unwrap();
    let span = Span { partition: 3, after: 0, until: events };
    let events = test.log.read_spans(&mut connection, &[span]).await.unwrap();
    events.iter().map(|event| event.event_id).collect()
}

async fn stored_first(test: &Test, events: i64) -> Vec<Uuid> {
    sqlx::query_scalar(
        "SELECT event_id FROM log.events WHERE partition = 3 AND position <= $1 ORDER BY position",
    )
    .bind(events)
    .fetch_all(&mut test.superuser().await)
    .await
    .unwrap()
}

/// As after a restore that lost the events at these positions, and another process that was quicker to append: the head
/// is no lower than before, or higher.
fn overtaken(lost: &str, by: i32) -> String {
    format!(
        "BEGIN;
         LOCK TABLE log.events IN EXCLUSIVE MODE;
         ALTER TABLE log.events DISABLE TRIGGER events_are_immutable;
         UPDATE log.events SET event_id = gen_random_uuid(), aggregate_id = 'new', sequence = position
         WHERE position {lost};
         INSERT INTO log.events SELECT position + n, sequence + n, recorded_at, gen_random_uuid(), partition, tenant_id,
             aggregate_type, 'new', event_type, event_version, payload, personal, metadata
         FROM log.events, generate_series(1, {by}) n WHERE partition = 3 AND position = 4;
         ALTER TABLE log.events ENABLE TRIGGER events_are_immutable;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid();
         COMMIT"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_is_found_though_others_have_appended_as_much_as_was_lost() {
    for by in [0, 3] {
        let (test, lost) = four_events_in_memory().await;
        // Other partitions' heads say nothing.
        wish(stream_in(5, "other"), Expected::Fresh, 1).append(&test.log).await.unwrap();
        // The poll waits for its connection: the writer must find it by itself.
        let held = test.log.pool().acquire().await.unwrap();
        test.execute(&overtaken("> 2 AND partition = 3", by)).await;
        let stored = test.number("SELECT count(*) FROM log.events").await;
        let refused = wish(stream_in(5, "after"), Expected::Fresh, 1).append(&test.log).await;
        assert!(matches!(refused, Err(Error::Restored | Error::Unknown)), "{refused:?}");
        let halt = test.log.halt().expect("the writer looked before it appended");
        assert_eq!(*halt, Halt::Diverged { partition: 3, position: 4 });
        assert_eq!(test.number("SELECT count(*) FROM log.events").await, stored, "nothing was appended");
        let read = read_first(&test, 4).await;
        assert_ne!(read, lost);
        assert_eq!(read, stored_first(&test, 4).await, "what is read is what the log has");

        drop(held);
        let told = async {
            while test.number("SELECT count(*) FROM log.halt").await == 0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, told).await.expect("it is written down");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_reads_finds_such_a_restore_too() {
    for by in [0, 3] {
        let test = Test::new().await;
        let reader = test.another_log().await;
        wish(stream_in(3, "before"), Expected::Fresh, 4).append(&test.log).await.unwrap();
        reader.refresh_heads().await.unwrap();
        test.log.close().await;
        test.execute(&overtaken("> 2 AND partition = 3", by)).await;
        // As a projector does whose connection broke.
        let asked = async {
            while reader.halt().is_none() {
                let _ = reader.refresh_heads().await;
            }
        };
        timeout(PATIENCE, asked).await.expect("it is found");
        assert_eq!(*halted(&reader).await, Halt::Diverged { partition: 3, position: 4 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_in_memory_when_a_connection_was_lost_is_read_from_the_log() {
    let (test, lost) = four_events_in_memory().await;
    let held = test.log.pool().acquire().await.unwrap();
    // No restore: one ends with the newest event. What is read is the log's all the same.
    test.execute(&overtaken("= 2 AND partition = 3", 0)).await;
    wish(stream_in(3, "after"), Expected::Fresh, 1).append(&test.log).await.unwrap();
    let read = read_first(&test, 4).await;
    assert_ne!(read, lost);
    assert_eq!(read, stored_first(&test, 4).await);
    drop(held);
}

#[tokio::test]
async fn a_halt_holds_at_once_for_all_processes() {
    let test = Test::new().await;
    wish(stream("before"), Expected::Fresh, 1).append(&test.log).await.unwrap();
    for _ in 0..20 {
        // Whether or not the poll has heard of it: the statement itself sees it.
        test.execute("INSERT INTO log.halt (found_by, why) VALUES ('a test', 'it was restored')").await;
        let refused = wish(stream("halted"), Expected::Fresh, 1).key("key").append(&test.log).await;
        assert!(matches!(refused, Err(Error::Restored)), "{refused:?}");
        assert_eq!(test.number("SELECT count(*) FROM log.events").await, 1);
        assert_eq!(test.number("SELECT count(*) FROM log.commands").await, 0);
        test.execute("DELETE FROM log.halt").await;
        let goes_on = async {
            while test.log.halt().is_some() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, goes_on).await.expect("what was taken away holds no more");
    }
    wish(stream("after"), Expected::Fresh, 1).append(&test.log).await.unwrap();
}

#[tokio::test]
async fn a_service_may_halt_the_log_and_only_its_owner_ends_that() {
    let test = Test::new().await;
    let other = test.another_log().await;
    other.halt_all("the publisher", "NATS is ahead").await.unwrap();
    other.halt_all("somebody else", "the same").await.unwrap();
    let halt = halted(&test.log).await;
    assert!(halt.to_string().starts_with("NATS is ahead (found by the publisher"), "{halt}");
    let mut service = PgConnection::connect_with(&test.provisioned.service).await.unwrap();
    for sql in [
        "DELETE FROM log.halt",
        "UPDATE log.halt SET why = ''",
        "UPDATE log.meta SET log_id = log_id",
        "INSERT INTO log.histories (log_id, heads) VALUES (gen_random_uuid(), '{}')",
    ] {
        let refused = sqlx::raw_sql(sql).execute(&mut service).await.unwrap_err();
        let code = refused.as_database_error().unwrap().code().unwrap().into_owned();
        assert_eq!(code, "42501", "{sql}: {refused}");
    }
    let (_, place) = test.owner.rsplit_once('@').unwrap();
    let of_service = format!("postgres://{}@{place}", test.provisioned.service.get_username());
    let refused = adopt(&of_service, test.log.log_id()).await;
    assert!(matches!(refused, Err(adopt::Error::Connect(migrate::Error::NotOwner { .. }))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_appended_to_an_adopted_log_by_a_process_of_the_old_one() {
    let test = Test::new().await;
    let old = test.log.log_id();
    let (end, hammering) = hammer(&test.log, "old");
    sleep(Duration::from_millis(300)).await;
    let new = adopt(&test.owner, old).await.unwrap();
    let why = timeout(PATIENCE, test.log.ends()).await.expect("the process ends");
    assert!(why.contains(&new.to_string()) && why.contains("start this process again"), "{why}");
    end.store(true, Ordering::Release);
    hammering.await.unwrap();
    let beyond =
        "SELECT count(*) FROM log.events e, log.histories h WHERE e.position > h.heads[e.partition + 1]";
    assert_eq!(test.number(beyond).await, 0);
    test.assert_ordered_without_gaps().await;

    // The same key, the same role, the same data; another log id.
    let provisioned = migrate::attach(&test.owner, &Source(Some([7; 32]))).await.unwrap();
    assert_eq!(provisioned.log_id, new);
    assert_eq!(provisioned.service.get_username(), test.provisioned.service.get_username());
    let log = Log::open(&provisioned, Options::default()).await.unwrap();
    wish(stream("new"), Expected::Fresh, 1).append(&log).await.unwrap();
    assert_eq!(test.number(beyond).await, 1);
    let digest = |log: &Log| log.keys().digest("acme", "email", b"ada@example.com");
    assert_eq!(digest(&log), digest(&test.log), "claims are found again");
    let again = crate::support::migrate(&test.owner).await.unwrap();
    assert_eq!(again.log_id, new, "the role is still this log's");
    let [history] = &log.histories().await.unwrap()[..] else { panic!("one history was ended") };
    assert_eq!((history.log_id, history.heads.len()), (old, 16));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_found_a_restore_does_not_halt_the_log_once_it_is_adopted() {
    let test = Test::new().await;
    let old = test.log.log_id();
    // An adoption that takes its time between its last statement and the end of its commit.
    test.execute(
        "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END';
         CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON log.meta DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION public.slow()",
    )
    .await;
    let (end, log) = (AtomicBool::new(false), test.another_log().await);
    let telling = async {
        while !end.load(Ordering::Acquire) {
            let _ = log.halt_all("the publisher", "NATS is ahead").await;
            sleep(Duration::from_millis(1)).await;
        }
    };
    let adopting = async {
        sleep(Duration::from_millis(50)).await;
        adopt(&test.owner, old).await.unwrap();
        end.store(true, Ordering::Release);
    };
    tokio::join!(telling, adopting);
    let refused = log.halt_all("the publisher", "NATS is ahead").await.unwrap_err();
    assert!(refused.to_string().contains("adopted"), "{refused}");
    assert_eq!(test.number("SELECT count(*) FROM log.halt").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_restored_to_before_its_adoption_is_halted() {
    for other in [false, true] {
        let test = Test::new().await;
        let old = test.log.log_id();
        adopt(&test.owner, old).await.unwrap();
        let adopted = test.restarted().await;
        let first = if other { ", first_log_id = gen_random_uuid()" } else { "" };
        test.execute(&format!("DELETE FROM log.histories; UPDATE log.meta SET log_id = '{old}' {first}"))
            .await;
        let why = timeout(PATIENCE, adopted.ends()).await.expect("the process ends");
        assert!(why.contains("before it was adopted"), "{why}");
        // What only happens to be at the address is left alone.
        assert_eq!(test.number("SELECT count(*) FROM log.halt").await, i64::from(!other));
        if !other {
            let again = test.restarted().await;
            let refused = wish(stream("new"), Expected::Fresh, 1).append(&again).await;
            assert!(matches!(refused, Err(Error::Restored)), "{refused:?}");
        }
    }
}

#[tokio::test]
async fn of_two_adoptions_at_once_one_is_told_that_it_came_late() {
    let test = Test::new().await;
    test.log.halt_all("a test", "it was restored").await.unwrap();
    let old = test.log.log_id();
    let outcomes = join_all((0..4).map(|_| adopt(&test.owner, old))).await;
    let (adopted, late): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((adopted.len(), late.len()), (1, 3));
    let new = *adopted[0].as_ref().unwrap();
    for late in late {
        assert!(matches!(late, Err(adopt::Error::Meanwhile { found, .. }) if found == new), "{late:?}");
    }
    let found = adopt::find(&test.owner).await.unwrap();
    assert_eq!((found.log_id, found.halt, found.histories.len()), (new, None, 1));
}

#[tokio::test]
async fn an_adoption_that_is_killed_has_changed_nothing() {
    let test = Test::new().await;
    wish(stream("before"), Expected::Fresh, 1).append(&test.log).await.unwrap();
    test.log.halt_all("a test", "it was restored").await.unwrap();
    let old = test.log.log_id();
    // Its last step waits for us; all the others are behind it.
    let mut blocker = test.superuser().await;
    let mut blocking = blocker.begin().await.unwrap();
    sqlx::raw_sql("SELECT * FROM log.halt FOR UPDATE").execute(&mut *blocking).await.unwrap();
    let killed = async {
        let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'rollcall-adopt' AND wait_event_type = 'Lock'";
        while test.number(kill).await == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let (adopted, ()) = tokio::join!(adopt(&test.owner, old), killed);
    assert!(matches!(adopted, Err(adopt::Error::Database(_))), "{adopted:?}");
    blocking.rollback().await.unwrap();
    let found = adopt::find(&test.owner).await.unwrap();
    assert_eq!((found.log_id, found.histories.len()), (old, 0));
    assert!(found.halt.is_some());
    adopt(&test.owner, old).await.unwrap();
}

#[tokio::test]
async fn a_copy_that_lacks_events_is_not_adopted() {
    let test = Test::new().await;
    wish(stream_in(3, "user"), Expected::Fresh, 2).append(&test.log).await.unwrap();
    test.execute(
        "ALTER TABLE log.events DISABLE TRIGGER events_are_immutable; DELETE FROM log.events WHERE position = 1;
         ALTER TABLE log.events ENABLE TRIGGER events_are_immutable",
    )
    .await;
    let refused = adopt(&test.owner, test.log.log_id()).await;
    let Err(adopt::Error::Damaged { partition: 3, head: 2, missing: 1, .. }) = refused else {
        panic!("{refused:?}");
    };
}
