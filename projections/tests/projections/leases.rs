//! Who works on what, and who may not write.

use std::{collections::BTreeMap, time::Duration};

use rollcall_event_store::tail::Span;
use rollcall_projections::{
    checkpoint::{self, Moves},
    profiles::SCHEMA,
};
use sqlx::{ConnectOptions, Connection, PgConnection, Row};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use uuid::Uuid;

use crate::{
    laws::{PROFILES, assert_folded, rows},
    runtime::profiles,
    support::{PARTITIONS, PATIENCE, Test},
    users::{Users, seats},
    versions::owner,
};

/// Holders of the leases on profiles, by unit, with their epochs.
async fn holders(test: &Test) -> BTreeMap<i32, (Option<Uuid>, i64)> {
    let sql = "SELECT unit, holder, epoch FROM projections.leases WHERE projection = 'profiles'";
    let rows = sqlx::query(sql).fetch_all(&mut test.superuser().await).await.unwrap();
    rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
}

/// How many units each holder has, once that is as wanted; and how long it took.
async fn until_held(test: &Test, mut wanted: Vec<usize>) -> Duration {
    let begun = Instant::now();
    wanted.sort_unstable();
    loop {
        let mut counts: BTreeMap<Uuid, usize> = BTreeMap::new();
        for (holder, _) in holders(test).await.into_values() {
            *counts.entry(holder.unwrap_or_default()).or_default() += 1;
        }
        let mut counts: Vec<usize> = counts.into_values().collect();
        counts.sort_unstable();
        if counts == wanted {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < PATIENCE, "{counts:?}, not {wanted:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn write(test: &Test, users: &mut Users, round: u32) {
    for user in 0..12 {
        users.wish(&test.log, user, seats(round)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_share_the_work_and_one_that_stops_hands_it_over() {
    let test = Test::new().await;
    let mut users = Users::default();
    let first = profiles(&test, &test.log).await;
    until_held(&test, vec![4]).await;
    write(&test, &mut users, 1).await;
    let (second, third) =
        (profiles(&test, &test.another_log().await).await, profiles(&test, &test.another_log().await).await);
    until_held(&test, vec![2, 1, 1]).await;
    write(&test, &mut users, 2).await;
    first.stop().await;
    let took = until_held(&test, vec![2, 2]).await;
    assert!(took < Duration::from_secs(1), "handing over took {took:?}");
    write(&test, &mut users, 3).await;
    test.wait(&second.progress).await;
    test.wait(&third.progress).await;
    assert_folded(&rows(&test, &users).await, &users);
    second.stop().await;
    third.stop().await;
    assert!(holders(&test).await.values().all(|(holder, _)| holder.is_none()));
    assert_eq!(test.number("SELECT count(*) FROM projections.members").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_that_is_gone_held_is_taken_and_its_epochs_move_nothing_any_more() {
    let test = Test::new().await;
    let mut users = Users::default();
    let gone = profiles(&test, &test.log).await;
    until_held(&test, vec![4]).await;
    let before = holders(&test).await;
    gone.forget_leases();
    let heir = profiles(&test, &test.another_log().await).await;
    let begun = Instant::now();
    while holders(&test).await.iter().any(|(unit, held)| held == &before[unit]) {
        assert!(begun.elapsed() < Duration::from_secs(5), "nobody took over");
        sleep(Duration::from_millis(20)).await;
    }
    write(&test, &mut users, 1).await;
    test.wait(&heir.progress).await;

    let mut service = test.provisioned.service.connect().await.unwrap();
    for partition in 0..PARTITIONS {
        let after = u64::try_from(test.checkpoint("profiles", partition).await).unwrap();
        let span = Span { partition, after, until: after + 1 };
        let (old, new) = (before[&i32::from(partition)].1, holders(&test).await[&i32::from(partition)].1);
        assert!(new > old);
        for (epoch, ours) in [(old, false), (new, true)] {
            let mut transaction = service.begin().await.unwrap();
            let moves = Moves::over(PROFILES, &[(span, epoch)]);
            let moved = checkpoint::advance(&mut transaction, moves).await;
            assert!(moved.as_ref().err().is_none_or(checkpoint::overtaken), "{moved:?}");
            assert_eq!(moved.is_ok(), ours, "partition {partition}, epoch {epoch}");
            transaction.rollback().await.unwrap();
        }
    }
    assert_folded(&rows(&test, &users).await, &users);
    heir.stop().await;
}

/// A session of a member, under the name that its part bears.
async fn session_of(test: &Test, name: String) -> PgConnection {
    test.provisioned.service.clone().application_name(&name).connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_froze_inside_a_transaction_loses_its_sessions_with_its_leases() {
    let test = Test::new().await;
    let frozen = Uuid::now_v7();
    test.execute(&format!(
        "INSERT INTO projections.members (member, process, works, heard_at)
         VALUES ('{frozen}', 'frozen', '{{profiles 1}}', clock_timestamp());
         UPDATE projections.leases SET holder = '{frozen}', epoch = 7 WHERE projection = 'profiles';
         UPDATE projections.checkpoints SET epoch = 7 WHERE projection = 'profiles'"
    ))
    .await;
    let _member = session_of(&test, format!("rollcall-member {frozen}")).await;
    let mut projector = session_of(&test, format!("profiles_1 {frozen}")).await;
    let mut transaction = projector.begin().await.unwrap();
    sqlx::query("SELECT FROM projections.checkpoints WHERE projection = 'profiles' FOR UPDATE")
        .execute(&mut *transaction)
        .await
        .unwrap();

    let heir = profiles(&test, &test.log).await;
    sleep(Duration::from_secs(1)).await;
    let held = |holders: BTreeMap<i32, (Option<Uuid>, i64)>| {
        holders.values().filter(|(holder, _)| *holder == Some(frozen)).count()
    };
    assert_eq!(held(holders(&test).await), 4, "a living member's leases were taken");
    let begun = Instant::now();
    while held(holders(&test).await) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(8), "nobody took over");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(sqlx::query("SELECT 1").execute(&mut *transaction).await.is_err(), "its session lives on");
    let mut users = Users::default();
    write(&test, &mut users, 1).await;
    test.wait(&heir.progress).await;
    assert_folded(&rows(&test, &users).await, &users);
    heir.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_that_died_left_locked_is_taken_once_its_silence_is_long_enough() {
    let test = Test::new().await;
    let dead = Uuid::now_v7();
    test.execute(&format!(
        "INSERT INTO projections.members (member, process, works, heard_at)
         VALUES ('{dead}', 'dead', '{{profiles 1}}', clock_timestamp());
         UPDATE projections.leases SET holder = '{dead}', epoch = 7 WHERE projection = 'profiles';
         UPDATE projections.checkpoints SET epoch = 7 WHERE projection = 'profiles'"
    ))
    .await;
    // Its projector's session is all that is left of it.
    let mut projector = session_of(&test, format!("profiles_1 {dead}")).await;
    let mut transaction = projector.begin().await.unwrap();
    sqlx::query("SELECT FROM projections.checkpoints WHERE projection = 'profiles' FOR UPDATE")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let heir = profiles(&test, &test.log).await;
    let begun = Instant::now();
    while holders(&test).await.values().any(|(holder, _)| *holder == Some(dead)) {
        assert!(begun.elapsed() < Duration::from_secs(10), "nobody took over");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(sqlx::query("SELECT 1").execute(&mut *transaction).await.is_err(), "its session lives on");
    heir.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_cannot_be_taken_keeps_nobody_from_the_others() {
    let test = Test::new().await;
    let mut users = Users::default();
    assert_eq!(owner(&test).await.make(&SCHEMA).await.unwrap(), 2);
    // Somebody who is no member holds the first version's checkpoints, and a member that froze has the second one.
    let mut stranger = test.superuser().await;
    sqlx::raw_sql(
        "BEGIN;
         SELECT FROM projections.checkpoints WHERE projection = 'profiles' AND version = 1 FOR UPDATE",
    )
    .execute(&mut stranger)
    .await
    .unwrap();
    let frozen = Uuid::now_v7();
    test.execute(&format!(
        "INSERT INTO projections.members (member, process, works, heard_at)
         VALUES ('{frozen}', 'frozen', '{{profiles 1}}', clock_timestamp());
         UPDATE projections.leases SET holder = '{frozen}' WHERE projection = 'profiles' AND version = 2"
    ))
    .await;
    let _member = session_of(&test, format!("rollcall-member {frozen}")).await;

    let process = profiles(&test, &test.log).await;
    let held = |version: i32| {
        format!(
            "SELECT count(holder) FROM projections.leases
             WHERE projection = 'profiles' AND version = {version} AND holder <> '{frozen}'"
        )
    };
    until(&test, &held(2), 4).await;
    let epochs =
        "SELECT sum(epoch)::int8 FROM projections.leases WHERE projection = 'profiles' AND version = 2";
    let before = test.number(epochs).await;
    // For longer than a lease lasts that nobody renews.
    for round in 1..6 {
        write(&test, &mut users, round).await;
        until(&test, BEHIND, 0).await;
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!((test.number(epochs).await, test.number(&held(1)).await), (before, 0));
    sqlx::raw_sql("COMMIT").execute(&mut stranger).await.unwrap();
    until(&test, &held(1), 4).await;
    test.wait(&process.progress).await;
    process.stop().await;
}

/// Waits until a number is what it should be.
pub async fn until(test: &Test, sql: &str, wanted: i64) {
    let begun = Instant::now();
    while test.number(sql).await != wanted {
        assert!(begun.elapsed() < PATIENCE, "{sql} is not {wanted}");
        sleep(Duration::from_millis(20)).await;
    }
}

const BEHIND: &str = "SELECT count(*) FROM projections.checkpoints c
     WHERE c.projection = 'profiles' AND c.version = 2
       AND c.position <> coalesce((SELECT max(e.position) FROM log.events e WHERE e.partition = c.partition), 0)";
/// Sessions that wait for a lock on the new version's rows.
const WAITING: &str =
    "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'profiles_2.users'::regclass";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_owner_of_the_read_models_began_ends_with_its_process() {
    let indexing = Indexing::begin().await;
    // Nobody waits for the answer any more, and the connection is closed.
    indexing.made.abort();
    until(&indexing.test, WAITING, 0).await;
    indexing.goes_on().await;
}

/// A version beside the first one, whose indexes are being made and are not done before `unlock` ends, while events come.
struct Indexing {
    test: Test,
    users: Users,
    made: JoinHandle<Result<(), sqlx::Error>>,
    unlock: PgConnection,
    process: crate::support::Process,
}

impl Indexing {
    async fn begin() -> Self {
        let test = Test::new().await;
        let mut users = Users::default();
        let mut owner = owner(&test).await;
        assert_eq!(owner.make(&SCHEMA).await.unwrap(), 2);
        // A version that is large.
        test.execute(
            "CREATE UNLOGGED TABLE profiles_2.large AS SELECT repeat('x', 1900) FROM generate_series(1, 36000)",
        )
        .await;
        let process = profiles(&test, &test.log).await;
        write(&test, &mut users, 1).await;
        until(&test, BEHIND, 0).await;
        let mut unlock = test.superuser().await;
        sqlx::raw_sql("BEGIN; LOCK TABLE profiles_2.users IN ROW EXCLUSIVE MODE")
            .execute(&mut unlock)
            .await
            .unwrap();
        let made = tokio::spawn(async move { owner.make_indexes(&SCHEMA, 2).await });
        until(&test, WAITING, 1).await;
        write(&test, &mut users, 2).await;
        test.wait(&process.progress).await;
        // As long as a projector would take to notice.
        sleep(Duration::from_millis(500)).await;
        assert_eq!(test.number(WAITING).await, 1, "a batch waits for the indexes");
        assert_eq!(test.number(BEHIND).await, i64::from(PARTITIONS));
        Self { test, users, made, unlock, process }
    }

    async fn goes_on(self) {
        until(&self.test, BEHIND, 0).await;
        assert_folded(&rows(&self.test, &self.users).await, &self.users);
        self.process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_works_on_a_version_while_its_indexes_are_made() {
    let mut indexing = Indexing::begin().await;
    sqlx::raw_sql("COMMIT").execute(&mut indexing.unlock).await.unwrap();
    (&mut indexing.made).await.unwrap().unwrap();
    let begun = Instant::now();
    indexing.goes_on().await;
    assert!(begun.elapsed() < Duration::from_secs(2), "work went on after {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_goes_on_where_who_made_indexes_died() {
    let mut indexing = Indexing::begin().await;
    let killed = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks
         WHERE NOT granted AND relation = 'profiles_2.users'::regclass";
    assert_eq!(indexing.test.number(killed).await, 1);
    assert!((&mut indexing.made).await.unwrap().is_err());
    indexing.goes_on().await;
}
