//! How everything stands, as an operator sees it.

use std::time::Duration;

use rollcall_projections::status::{self, Status};
use sqlx::ConnectOptions;
use tokio::time::{Instant, sleep};

use crate::{
    runtime::profiles,
    support::{PARTITIONS, PATIENCE, Test},
    users::{Users, seats},
};

async fn read(test: &Test) -> Status {
    status::read(&mut test.provisioned.service.connect().await.unwrap()).await.unwrap()
}

async fn until(test: &Test, what: &str, so: impl Fn(&Status) -> bool) -> Status {
    let begun = Instant::now();
    loop {
        let status = read(test).await;
        if so(&status) {
            return status;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: {status:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn of_profiles(status: &Status) -> Vec<&status::Lease> {
    status.leases.iter().filter(|lease| lease.projection == "profiles").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_tells_heads_checkpoints_lag_leases_and_members() {
    let test = Test::new().await;
    let fresh = read(&test).await;
    assert_eq!(fresh.log_id, test.log.log_id());
    assert_eq!(fresh.partitions.len(), usize::from(PARTITIONS));
    assert!(fresh.partitions.iter().all(|head| head.head == 0 && head.recorded_at.is_none()));
    let names: Vec<String> = fresh.projections.iter().map(status::Projected::qualifier).collect();
    assert_eq!(names, ["audit_1", "profiles_1"]);
    assert!(fresh.projections.iter().all(|of| of.serves() && of.lag_events == 0 && of.lag_seconds == 0.0));
    assert!(fresh.members.is_empty() && fresh.leases.iter().all(|lease| lease.state == "free"));

    let mut users = Users::default();
    for user in 0..12 {
        users.wish(&test.log, user, seats(1)).await;
    }
    sleep(Duration::from_millis(300)).await;
    let behind = read(&test).await;
    assert_eq!(behind.partitions.iter().map(|head| head.head).sum::<u64>(), 24);
    assert!(behind.partitions.iter().any(|head| head.recorded_at.is_some()));
    for of in &behind.projections {
        assert_eq!((of.lag_events, of.positions.as_slice()), (24, &[0; 4][..]), "{}", of.qualifier());
        assert!((0.3..60.0).contains(&of.lag_seconds), "{}", of.lag_seconds);
    }
    let publisher = behind.publisher.as_ref().unwrap();
    assert_eq!((publisher.lag_events, publisher.stream_sequence, &publisher.process), (24, 0, &None));

    let process = profiles(&test, &test.log).await;
    test.wait(&process.progress).await;
    let held = until(&test, "leases are held", |status| {
        of_profiles(status).iter().all(|lease| lease.state == "held")
    })
    .await;
    let projected = &held.projections[1];
    assert_eq!((projected.lag_events, projected.lag_seconds), (0, 0.0));
    let heads: Vec<u64> = held.partitions.iter().map(|head| head.head).collect();
    assert_eq!(projected.positions, heads);
    assert_eq!((held.members.len(), held.members[0].state.as_str()), (1, "alive"));
    assert_eq!(held.members[0].works, ["profiles 1"]);
    let this = format!(":{}", std::process::id());
    for lease in of_profiles(&held) {
        assert!(lease.process.as_ref().unwrap().ends_with(&this) && lease.epoch > 0, "{lease:?}");
        assert_eq!(lease.member, Some(held.members[0].member));
    }

    // A version beside it.
    test.execute(
        "INSERT INTO projections.versions (projection, version, shape) VALUES ('profiles', 2, 99);
         INSERT INTO projections.checkpoints SELECT projection, 2, partition, 0, 0 FROM projections.checkpoints
             WHERE projection = 'profiles' AND version = 1",
    )
    .await;
    let two = read(&test).await;
    assert_eq!(
        (two.projections[2].qualifier().as_str(), two.projections[2].state.as_str()),
        ("profiles_2", "being filled")
    );
    assert_eq!(two.projections[2].lag_events, 24);
    process.stop().await;
    assert!(
        of_profiles(&read(&test).await).iter().all(|lease| lease.state == "free" && lease.process.is_none())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_says_nothing_any_more_is_frozen_while_its_session_lasts_and_then_gone() {
    let test = Test::new().await;
    let member = uuid::Uuid::now_v7();
    let session = test.provisioned.service.clone().application_name(&format!("rollcall-member {member}"));
    let session = session.connect().await.unwrap();
    test.execute(&format!(
        "INSERT INTO projections.members VALUES ('{member}', 'web1:7', '{{profiles 1}}', now() - interval '20 s');
         UPDATE projections.leases SET holder = '{member}', epoch = 3 WHERE projection = 'profiles' AND unit = 2"
    ))
    .await;
    let frozen = read(&test).await;
    assert_eq!((frozen.members[0].process.as_str(), frozen.members[0].state.as_str()), ("web1:7", "frozen"));
    let states: Vec<&str> = of_profiles(&frozen).iter().map(|lease| lease.state.as_str()).collect();
    assert_eq!(states, ["free", "free", "frozen", "free"]);
    drop(session);
    let gone = until(&test, "it is gone", |status| status.members[0].state == "gone").await;
    assert!(of_profiles(&gone).iter().all(|lease| lease.state == "free"));
}
