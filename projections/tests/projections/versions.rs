//! Which versions of a read model there are.

use std::time::Duration;

use rollcall_projections::{
    profiles::SCHEMA,
    schema::Version,
    tables::{Owner, turn_of},
};
use sqlx::postgres::PgConnectOptions;
use tokio::time::{Instant, sleep};

use crate::{
    leases::until,
    runtime::profiles,
    support::{PARTITIONS, Test},
};

pub async fn owner(test: &Test) -> Owner {
    let (options, role): (PgConnectOptions, _) =
        (test.owner.parse().unwrap(), test.provisioned.service.get_username());
    Owner::connect(&options, role, PARTITIONS, turn_of(SCHEMA.name), || {}).await.unwrap()
}

#[tokio::test]
async fn the_number_of_a_version_that_is_gone_is_not_given_to_another_one() {
    let test = Test::new().await;
    let mut owner = owner(&test).await;
    for number in 2..4 {
        assert_eq!(owner.make(&SCHEMA).await.unwrap(), number);
        owner.drop_version(Version { projection: SCHEMA.name, number }).await.unwrap();
    }
    owner.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whether_a_version_has_caught_up_is_asked_only_while_one_has_not() {
    let test = Test::new().await;
    let process = profiles(&test, &test.log).await;
    // A member rests for a quarter of a second between its rounds, and its session shows what it asked last.
    let asks = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name LIKE 'rollcall-member %'
           AND query LIKE '%SET caught_up_at%'";
    until(&test, "SELECT count(holder) FROM projections.leases WHERE projection = 'profiles'", 4).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        assert_eq!(test.number(asks).await, 0);
        sleep(Duration::from_millis(20)).await;
    }
    owner(&test).await.make(&SCHEMA).await.unwrap();
    let caught_up = "SELECT count(caught_up_at) FROM projections.versions WHERE projection = 'profiles'";
    until(&test, caught_up, 2).await;
    process.stop().await;
}
