//! The projector at work: exactly once, and as far as it can.

use rollcall_event_store::Log;
use rollcall_projections::{
    audit::Audit,
    leases::Units,
    profiles::Profiles,
    projector::{Projection, Projector},
};
use sqlx::Connection;

use crate::{
    laws::{assert_folded, rows},
    leases::until,
    support::{PATIENCE, Process, Test},
    users::{Users, seats},
};

/// A process with a projector.
async fn process<P: Projection>(test: &Test, log: &Log) -> Process {
    let (of_log, service) = (log.clone(), test.provisioned.service.clone());
    let work = (P::SCHEMA.name, P::SCHEMA.shape, Units::Partitions);
    Process::start(test, log, work, move |version, share, progress, shutdown| {
        Projector::<P>::new(version, of_log.clone(), &service, &share, progress).run(share, shutdown)
    })
    .await
}

pub async fn profiles(test: &Test, log: &Log) -> Process {
    process::<Profiles>(test, log).await
}

pub async fn audit(test: &Test, log: &Log) -> Process {
    process::<Audit>(test, log).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn two_projectors_of_one_projection_apply_everything_once() {
    let test = Test::new().await;
    let other = test.another_log().await;
    let processes = [
        profiles(&test, &test.log).await,
        profiles(&test, &other).await,
        audit(&test, &test.log).await,
        audit(&test, &other).await,
    ];
    let mut users = Users::default();
    for round in 0..60 {
        for user in 0..12 {
            users.wish(&test.log, user, seats(round)).await;
        }
    }
    for process in &processes {
        test.wait(&process.progress).await;
    }
    assert_folded(&rows(&test, &users).await, &users);
    let audited = "SELECT count(*) FROM audit_1.entries a JOIN log.events e
         ON e.partition = a.partition AND e.position = a.position
            AND e.tenant_id = a.tenant_id AND e.recorded_at = a.recorded_at AND e.event_type = a.event_type
            AND a.actor = 'tester'";
    let stored = test.number("SELECT count(*) FROM log.events").await;
    assert_eq!(stored, 12 * 61);
    assert_eq!(
        (test.number(audited).await, test.number("SELECT count(*) FROM audit_1.entries").await),
        (stored, stored)
    );
    let behind = "SELECT count(*) FROM projections.checkpoints c JOIN log.heads p USING (partition)
         WHERE c.projection IN ('profiles', 'audit') AND c.position <> p.position";
    assert_eq!(test.number(behind).await, 0);
    for process in processes {
        process.stop().await;
    }
}

#[tokio::test]
async fn a_projection_begins_again_from_nothing_and_goes_on_from_its_checkpoint() {
    let test = Test::new().await;
    let mut users = Users::default();
    for round in 0..3 {
        for user in 0..8 {
            users.wish(&test.log, user, seats(round)).await;
        }
        if round == 1 {
            // All of it again, as after a reset.
            test.execute(
                "TRUNCATE profiles_1.users; UPDATE projections.checkpoints SET position = 0 WHERE projection = 'profiles'",
            )
            .await;
        }
        let process = profiles(&test, &test.log).await;
        test.wait(&process.progress).await;
        process.stop().await;
        assert_folded(&rows(&test, &users).await, &users);
    }
}

#[tokio::test]
async fn a_hole_in_the_log_stops_every_projection_there() {
    let test = Test::new().await;
    let mut users = Users::default();
    for n in 0..5 {
        users.wish(&test.log, 1, seats(n)).await;
    }
    let partition = users.0[&1].stream.partition(crate::support::PARTITIONS);
    test.forge(&format!("DELETE FROM log.events WHERE partition = {partition} AND position = 3")).await;
    let other_log = test.another_log().await;
    let processes = [profiles(&test, &other_log).await, audit(&test, &other_log).await];
    // Another partition's event shows that both have been at work.
    let other = (2..100).find(|n| {
        let id = format!("user-{n}");
        rollcall_event_store::StreamId::new("acme", "user", id).partition(crate::support::PARTITIONS)
            != partition
    });
    let other = other.unwrap();
    users.wish(&test.log, other, seats(1)).await;
    for Process { progress, .. } in &processes {
        let known = &users.0[&other];
        let place = [(known.stream.partition(crate::support::PARTITIONS), known.position)];
        assert!(progress.wait(place.into_iter(), PATIENCE).await);
        assert_eq!(progress.position(partition), 0);
    }
    assert_eq!(test.number("SELECT count(*) FROM projections.parked").await, 0);
    assert_eq!(test.checkpoint("profiles", partition).await, 0);
    assert_eq!(test.checkpoint("audit", partition).await, 0);
    // Both say what is wrong, whoever noticed it.
    let told = "SELECT count(DISTINCT projection) FROM projections.leases WHERE trouble LIKE '%has a hole%'";
    until(&test, told, 2).await;
    for process in processes {
        process.stop().await;
    }
}

#[tokio::test]
async fn a_row_that_is_being_repaired_parks_nobody() {
    let test = Test::new().await;
    let mut users = Users::default();
    users.wish(&test.log, 1, seats(1)).await;
    let process = profiles(&test, &test.log).await;
    test.wait(&process.progress).await;
    test.execute("UPDATE profiles_1.users SET version = version + 97").await;

    let mut repairing = test.superuser().await;
    let mut repair = repairing.begin().await.unwrap();
    for statement in [
        "SELECT FROM projections.checkpoints WHERE projection = 'profiles' FOR UPDATE",
        "UPDATE profiles_1.users SET version = version - 97",
    ] {
        sqlx::query(statement).execute(&mut *repair).await.unwrap();
    }
    users.wish(&test.log, 1, seats(2)).await;
    // The batch has met the row as it was, and waits for the checkpoint.
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE wait_event_type = 'Lock' AND datname = current_database() AND application_name LIKE 'profiles_1 %'";
    until(&test, waiting, 1).await;
    repair.commit().await.unwrap();
    test.wait(&process.progress).await;
    assert_eq!(test.number("SELECT count(*) FROM projections.parked").await, 0);
    process.stop().await;
    assert_folded(&rows(&test, &users).await, &users);
}
