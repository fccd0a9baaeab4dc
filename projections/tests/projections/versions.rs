//! Which versions of a read model there are.

use std::time::Duration;

use rollcall_projections::{
    checker::{self, Checker},
    leases::{Member, Units},
    profiles::{Profiles, SCHEMA},
    progress::{Follower, Registry},
    projector::Projector,
    schema::Version,
    tables::{self, Missing, NotDropped, Owner, turn_of},
    versions::promote,
};
use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use tokio::time::{Instant, sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    leases::until,
    runtime::profiles,
    support::{PARTITIONS, Test},
    users::{Users, seats},
};

pub async fn owner(test: &Test) -> Owner {
    let (options, role): (PgConnectOptions, _) =
        (test.owner.parse().unwrap(), test.provisioned.service.get_username());
    Owner::connect(&options, role, PARTITIONS, turn_of(SCHEMA.name), async |_| Ok(())).await.unwrap()
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_whose_tables_are_read_is_not_dropped_and_meanwhile_nothing_waits_for_long() {
    let test = Test::new().await;
    let mut users = Users::default();
    let mut owner = owner(&test).await;
    assert_eq!(owner.make(&SCHEMA).await.unwrap(), 2);
    let process = profiles(&test, &test.log).await;
    let mut backup = test.provisioned.service.clone().application_name("backup").connect().await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE profiles_2.users IN ACCESS SHARE MODE")
        .execute(&mut backup)
        .await
        .unwrap();
    let second = Version { projection: SCHEMA.name, number: 2 };
    let dropped = tokio::spawn(async move { (owner.drop_version(second).await, owner) });
    let mut round = 0;
    while !dropped.is_finished() {
        round += 1;
        for user in 0..8 {
            users.wish(&test.log, user, seats(round)).await;
        }
        test.wait(&process.progress).await;
        sleep(Duration::from_millis(100)).await;
    }
    let (refused, mut owner) = dropped.await.unwrap();
    let Err(NotDropped::InUse { by, .. }) = refused else { panic!("{refused:?}") };
    assert!(by.contains("backup (process "), "{by}");
    // It is all there, and fed.
    let behind = "SELECT count(*) FROM projections.positions c JOIN log.heads p USING (partition)
         WHERE c.projection = 'profiles' AND c.position <> p.position";
    until(&test, behind, 0).await;
    assert_eq!(test.number("SELECT count(*) FROM profiles_2.users").await, 8);
    sqlx::raw_sql("COMMIT").execute(&mut backup).await.unwrap();
    owner.drop_version(second).await.unwrap();
    owner.close().await.unwrap();
    assert_eq!(test.number("SELECT count(*) FROM pg_namespace WHERE nspname = 'profiles_2'").await, 0);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_a_rebuild_left_without_its_indexes_is_not_checked_and_does_not_serve() {
    let test = Test::new().await;
    let mut users = Users::default();
    for user in 0..8 {
        users.wish(&test.log, user, seats(1)).await;
    }
    // The first version was wrong and is gone, and the rebuild that made the second is, too.
    let mut owner = owner(&test).await;
    owner.drop_version(Version { projection: SCHEMA.name, number: 1 }).await.unwrap();
    assert_eq!(owner.make(&SCHEMA).await.unwrap(), 2);
    owner.close().await.unwrap();

    let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
    let registry = Registry::new(PARTITIONS, [(SCHEMA.name, SCHEMA.shape)]);
    let follower = Follower::start(test.log.clone(), registry.clone()).await.unwrap();
    let mut member = Member::new(&test.provisioned.service);
    let (log, service, of_registry) = (test.log.clone(), test.provisioned.service.clone(), registry.clone());
    let (of_tasks, of_shutdown) = (tasks.clone(), shutdown.clone());
    member.project(SCHEMA.name, SCHEMA.shape, Units::Partitions, move |version, share| {
        let progress = of_registry.progress(version);
        let projector = Projector::<Profiles>::new(version, log.clone(), &service, &share, progress);
        of_tasks.spawn(projector.run(share, of_shutdown.clone()));
    });
    let serving = registry.serving(SCHEMA.name).unwrap();
    let checker = Checker::new(test.log.clone(), &test.provisioned.service, &member, serving.clone());
    tasks.spawn(follower.run(shutdown.clone()));
    tasks.spawn(member.run(shutdown.clone()));
    tasks.spawn(checker.run::<Profiles>(shutdown.clone()));

    let said = |what| format!("SELECT count({what}) FROM projections.versions WHERE projection = 'profiles'");
    until(&test, "SELECT count(*) FROM profiles_2.users", 8).await;
    until(&test, &said("caught_up_at"), 1).await;
    // Longer than a checker waits between two looks.
    sleep(Duration::from_millis(2_500)).await;
    assert_eq!(test.number(&said("checked_at")).await + test.number(&said("served_at")).await, 0);
    assert!(serving.borrow().is_none());

    let mut owner = self::owner(&test).await;
    owner.make_indexes(&SCHEMA, 2).await.unwrap();
    owner.close().await.unwrap();
    until(&test, &said("served_at"), 1).await;
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
}

#[tokio::test]
async fn on_an_empty_log_too_a_version_serves_with_its_indexes_alone_and_never_where_it_is_wrong() {
    let test = Test::new().await;
    let mut owner = owner(&test).await;
    owner.drop_version(Version { projection: SCHEMA.name, number: 1 }).await.unwrap();
    let mut superuser = test.superuser().await;
    let serves = "SELECT coalesce(sum(version), 0) FROM projections.serving WHERE projection = 'profiles'";
    for number in 2..4 {
        assert_eq!(owner.make(&SCHEMA).await.unwrap(), number);
    }
    promote(&mut superuser, SCHEMA.name, SCHEMA.shape).await.unwrap();
    assert_eq!(test.number(serves).await, 0);
    for number in 2..4 {
        owner.make_indexes(&SCHEMA, number).await.unwrap();
    }
    checker::note_wrong(&mut superuser, Version { projection: SCHEMA.name, number: 3 }).await.unwrap();
    promote(&mut superuser, SCHEMA.name, SCHEMA.shape).await.unwrap();
    assert_eq!(test.number(serves).await, 2);
    owner.close().await.unwrap();
}

#[tokio::test]
async fn a_database_without_the_functions_of_this_binary_is_not_worked_on_until_it_is_migrated() {
    let test = Test::new().await;
    let service = &test.provisioned.service;
    let of_owner: PgConnectOptions = test.owner.parse().unwrap();
    let mut owner = owner(&test).await;
    tables::check(service).await.unwrap();
    for function in
        ["projections.advance", "projections.advance_published", "profiles_1.apply", "audit_1.apply"]
    {
        test.execute(&format!("DROP FUNCTION {function}")).await;
        assert!(matches!(tables::check(service).await, Err(Missing::Tables)), "{function}");
        tables::migrate(&of_owner, service.get_username(), PARTITIONS).await.unwrap();
        tables::check(service).await.unwrap();
    }
    // One of another release is no hindrance, and no help.
    test.execute("CREATE FUNCTION projections.advance(text) RETURNS void LANGUAGE sql AS ''").await;
    tables::check(service).await.unwrap();
    test.execute("DROP FUNCTION projections.advance(text, int4, int4[], int8[], int8[], int8[])").await;
    assert!(tables::check(service).await.is_err());
    tables::migrate(&of_owner, service.get_username(), PARTITIONS).await.unwrap();
    test.execute("DROP FUNCTION projections.advance(text)").await;
    // Of a version that an older binary made; and nobody but services may call it.
    test.execute("DROP FUNCTION profiles_1.apply").await;
    owner.make_functions(&SCHEMA, 1).await.unwrap();
    tables::check(service).await.unwrap();
    let granted = |to| {
        format!("SELECT count(*) FROM information_schema.routine_privileges
        WHERE routine_schema IN ('projections', 'profiles_1', 'audit_1') AND privilege_type = 'EXECUTE' AND grantee = '{to}'")
    };
    assert_eq!(test.number(&granted("PUBLIC")).await, 0);
    assert_eq!(test.number(&granted(service.get_username())).await, 4);
    // A schema that somebody dropped keeps nobody from starting, and can be done away with.
    test.execute("DROP SCHEMA profiles_1 CASCADE").await;
    tables::migrate(&of_owner, service.get_username(), PARTITIONS).await.unwrap();
    tables::check(service).await.unwrap();
    assert_eq!(
        test.number("SELECT count(*) FROM projections.versions WHERE projection = 'profiles'").await,
        1
    );
    owner.drop_version(Version { projection: SCHEMA.name, number: 1 }).await.unwrap();
}
