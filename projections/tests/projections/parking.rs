//! Parking: an event that cannot be applied holds up its own stream and nothing else, and nothing is ever skipped by itself.

use std::{collections::BTreeSet, time::Duration};

use proptest::{
    collection::{btree_set, vec},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use rollcall_projections::{
    Progress,
    audit::Audit,
    drift::{self, Counted},
    parking::operator::{self, Outcome, Parked, Sought},
    profiles::Profiles,
    projector::Projection,
    schema::Version,
};
use sqlx::ConnectOptions;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    laws::{assert_folded, rows},
    runtime::{audit, profiles},
    support::{PARTITIONS, PATIENCE, Test},
    users::{Users, seats, wishes},
};

/// Twelve users, each created and then changed in rounds.
async fn rounds(test: &Test, users: &mut Users, rounds: std::ops::Range<u32>) {
    for round in rounds {
        for user in 0..12 {
            users.wish(&test.log, user, seats(round)).await;
        }
    }
}

/// Makes an event of a user unreadable.
pub async fn poison(test: &Test, users: &Users, user: u8, sequence: u64) {
    let id = &users.0[&user].stream.aggregate_id;
    test.forge(&format!(
        "UPDATE log.events SET event_type = 'Poisoned' || event_type WHERE aggregate_id = '{id}' AND sequence = {sequence}"
    ))
    .await;
}

pub async fn cure(test: &Test) {
    test.forge("UPDATE log.events SET event_type = substr(event_type, 9) WHERE event_type LIKE 'Poisoned%'")
        .await;
}

pub async fn parked(test: &Test) -> Vec<Parked> {
    operator::list(&mut test.superuser().await, &Sought::default()).await.unwrap()
}

pub async fn retry(test: &Test) -> Vec<Outcome> {
    let parked = parked(test).await;
    operator::retry(&mut test.superuser().await, &parked, PATIENCE).await.unwrap()
}

async fn discard(test: &Test, user: &str) -> Outcome {
    let one = parked(test).await.into_iter().find(|one| one.aggregate_id == user).unwrap();
    let mut connection = test.superuser().await;
    operator::discard(&mut connection, &one, "ops", "it is a test", PATIENCE).await.unwrap().unwrap()
}

/// Rows are as the fold has them, but for the sick: theirs are as they were before the event that is parked.
async fn assert_healthy(test: &Test, users: &Users, sick: &[(u8, u64)]) {
    let mut rows = rows(test, users).await;
    let mut healthy = Users::default();
    for (number, user) in &users.0 {
        match sick.iter().find(|(sick, _)| sick == number) {
            Some((_, at)) => {
                let version = rows.remove(&*user.stream.aggregate_id).map_or(0, |(_, version, ..)| version);
                assert_eq!(version + 1, *at, "user {number}");
            }
            None => {
                healthy.0.insert(*number, user.clone());
            }
        }
    }
    assert_folded(&rows, &healthy);
}

fn where_parked(parked: &[Parked], users: &Users) -> BTreeSet<(u8, u64)> {
    let number = |one: &Parked| {
        let user = users.0.iter().find(|(_, user)| *user.stream.aggregate_id == *one.aggregate_id);
        (*user.unwrap().0, u64::try_from(one.sequence).unwrap())
    };
    parked.iter().map(number).collect()
}

fn is_parked(progress: &Progress, users: &Users, user: u8) -> Option<u64> {
    progress.parked(&users.0[&user].stream).map(|(_, position)| position)
}

#[tokio::test]
async fn an_event_that_cannot_be_applied_parks_its_stream_and_everything_else_goes_on() {
    let test = Test::new().await;
    let mut users = Users::default();
    rounds(&test, &mut users, 0..30).await;
    // In the middle, the very first, two of one stream, the last.
    let poisons = [(0, 17), (1, 1), (2, 5), (2, 9), (3, 31)];
    for (user, sequence) in poisons {
        poison(&test, &users, user, sequence).await;
    }
    let sick = [(0, 17), (1, 1), (2, 5), (3, 31)];
    // Another process, which has no memory of what was there before.
    let process = profiles(&test, &test.another_log().await).await;
    let mut readers = JoinSet::new();
    for (user, sequence) in sick {
        let (progress, stream) = (process.progress.clone(), users.0[&user].stream.clone());
        let id = &stream.aggregate_id;
        let at =
            format!("SELECT position FROM log.events WHERE aggregate_id = '{id}' AND sequence = {sequence}");
        let at = (stream.partition(PARTITIONS), u64::try_from(test.number(&at).await).unwrap());
        readers.spawn(async move {
            // Whoever is told of the position knows at the same time what is parked there.
            assert!(progress.wait([at].into_iter(), PATIENCE).await);
            assert_eq!(progress.parked(&stream), Some(at));
        });
    }
    readers.join_all().await;
    test.wait(&process.progress).await;
    assert_eq!(is_parked(&process.progress, &users, 4), None);
    assert_healthy(&test, &users, &sick).await;
    let list = parked(&test).await;
    assert_eq!(where_parked(&list, &users), BTreeSet::from(sick));
    assert_eq!(list.iter().map(|one| one.queued).sum::<i64>(), 14 + 30 + 26);
    assert!(list.iter().all(|one| one.projection == "profiles" && one.tries == 1), "{list:?}");
    let error = "event type PoisonedTraitsChanged is unknown to this program";
    assert!(list.iter().any(|one| one.error.ends_with(error)), "{list:?}");

    // Life goes on; what is parked queues.
    rounds(&test, &mut users, 30..35).await;
    test.wait(&process.progress).await;
    assert_healthy(&test, &users, &sick).await;
    assert_eq!(parked(&test).await.iter().map(|one| one.queued).sum::<i64>(), 14 + 30 + 26 + 4 * 5);

    // Trying again does not help, and changes nothing.
    let outcomes = retry(&test).await;
    assert!(
        outcomes.iter().all(|outcome| matches!(outcome, Outcome::Parked(now) if now.tries == 2)),
        "{outcomes:?}"
    );
    assert_healthy(&test, &users, &sick).await;

    // Where only the first of two is cured, the second is where it is parked then.
    let id = &users.0[&2].stream.aggregate_id;
    test.forge(&format!(
        "UPDATE log.events SET event_type = substr(event_type, 9) WHERE aggregate_id = '{id}' AND sequence = 5"
    ))
    .await;
    retry(&test).await;
    let sick = [(0, 17), (1, 1), (2, 9), (3, 31)];
    assert_eq!(where_parked(&parked(&test).await, &users), BTreeSet::from(sick));
    assert_healthy(&test, &users, &sick).await;

    cure(&test).await;
    let outcomes = retry(&test).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Released)), "{outcomes:?}");
    assert!(parked(&test).await.is_empty());
    assert_folded(&rows(&test, &users).await, &users);
    rounds(&test, &mut users, 35..36).await;
    test.wait(&process.progress).await;
    assert_folded(&rows(&test, &users).await, &users);
    assert!(!process.progress.any_parked());
    process.stop().await;
}

#[tokio::test]
async fn a_process_that_takes_over_tries_again_what_it_finds_parked() {
    let test = Test::new().await;
    let mut users = Users::default();
    rounds(&test, &mut users, 0..4).await;
    poison(&test, &users, 0, 3).await;
    let process = profiles(&test, &test.another_log().await).await;
    test.wait(&process.progress).await;
    process.stop().await;
    assert_eq!(parked(&test).await.len(), 1);
    cure(&test).await;
    let process = profiles(&test, &test.another_log().await).await;
    until_none_is_parked(&test).await;
    assert_folded(&rows(&test, &users).await, &users);
    process.stop().await;
}

async fn until_none_is_parked(test: &Test) {
    tokio::time::timeout(PATIENCE, async {
        while !parked(test).await.is_empty() {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_long_queue_is_worked_off_in_pieces() {
    let test = Test::new().await;
    let mut users = Users::default();
    for n in 0..2_100 {
        users.wish(&test.log, 0, seats(n)).await;
    }
    users.wish(&test.log, 1, seats(1)).await;
    poison(&test, &users, 0, 2).await;
    let process = profiles(&test, &test.another_log().await).await;
    test.wait(&process.progress).await;
    assert_healthy(&test, &users, &[(0, 2)]).await;
    cure(&test).await;
    let outcomes = retry(&test).await;
    assert!(matches!(outcomes[..], [Outcome::Released]), "{outcomes:?}");
    assert_folded(&rows(&test, &users).await, &users);
    process.stop().await;
}

#[tokio::test]
async fn a_discarded_event_is_done_without_for_good_and_on_the_record() {
    let test = Test::new().await;
    let mut users = Users::default();
    rounds(&test, &mut users, 0..6).await;
    poison(&test, &users, 0, 4).await;
    poison(&test, &users, 1, 1).await;
    poison(&test, &users, 2, 7).await;
    let process = profiles(&test, &test.another_log().await).await;
    test.wait(&process.progress).await;
    for user in ["user-0", "user-2"] {
        let outcome = discard(&test, user).await;
        assert!(matches!(outcome, Outcome::Released), "{outcome:?}");
    }
    // The later events tell of the same trait, so the row is as if nothing had happened; of the last one, nothing does.
    let all = rows(&test, &users).await;
    let known = &users.0[&0];
    let (profile, version, position, _) = &all["user-0"];
    assert_eq!((profile, *version, *position), (&known.profile, known.version, known.position));
    let (profile, version, position, _) = &all["user-2"];
    assert_eq!((*version, *position), (users.0[&2].version, users.0[&2].position));
    assert_ne!(profile, &users.0[&2].profile);

    // Without its first event there is no row to go on from.
    let Outcome::Parked(now) = discard(&test, "user-1").await else { panic!("it cannot go on") };
    assert_eq!(now.sequence, 2);
    assert!(now.error.contains("there is no row to go on from"), "{now:?}");

    let record = "SELECT count(*) FROM projections.discarded
         WHERE projection = 'profiles' AND discarded_by = 'ops' AND reason = 'it is a test' AND error LIKE '%unknown%'";
    assert_eq!(test.number(record).await, 3);
    process.stop().await;

    // Whoever reads the log again does without them as well, and does not park.
    test.execute(
        "TRUNCATE profiles_1.users;
         UPDATE projections.checkpoints SET position = 0 WHERE projection = 'profiles'",
    )
    .await;
    let process = profiles(&test, &test.another_log().await).await;
    test.wait(&process.progress).await;
    let again = rows(&test, &users).await;
    assert_eq!(again, all);
    assert_eq!(where_parked(&parked(&test).await, &users), BTreeSet::from([(1, 2)]));
    process.stop().await;
}

#[tokio::test]
async fn what_is_discarded_while_its_stream_is_being_tried_is_done_without_in_seconds() {
    let test = Test::new().await;
    let mut users = Users::default();
    rounds(&test, &mut users, 0..2).await;
    let process = profiles(&test, &test.another_log().await).await;
    test.wait(&process.progress).await;
    // Each try takes its time, and fails.
    test.execute(
        "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_sleep(1.5); RAISE EXCEPTION 'no' USING ERRCODE = '22000'; END $$;
         CREATE TRIGGER refuses BEFORE UPDATE ON profiles_1.users FOR EACH ROW
             WHEN (NEW.user_id = 'user-0' AND NEW.sealed <> OLD.sealed) EXECUTE FUNCTION public.refuse()",
    )
    .await;
    users.wish(&test.log, 0, seats(7)).await;
    test.wait(&process.progress).await;
    users.wish(&test.log, 0, seats(8)).await;
    test.wait(&process.progress).await;
    let one = parked(&test).await.remove(0);
    assert_eq!((one.tries, one.queued), (1, 1));
    let mut connection = test.superuser().await;
    let nobody_waits = Duration::ZERO;
    operator::retry(&mut connection, std::slice::from_ref(&one), nobody_waits).await.unwrap();
    let begun = "SELECT count(*) FROM projections.parked WHERE NOT asked AND retry_at > clock_timestamp()";
    tokio::time::timeout(PATIENCE, async {
        while test.number(begun).await == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(parked(&test).await[0].tries, 1, "it was tried too fast to tell");
    let asked = Instant::now();
    // The answer is of the try that knew of it: the stream has come as far as the next event.
    let outcome = discard(&test, "user-0").await;
    assert!(matches!(&outcome, Outcome::Parked(now) if now.sequence == one.sequence + 1), "{outcome:?}");
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    process.stop().await;
}

#[tokio::test]
async fn what_passes_while_one_stream_is_tried_puts_off_no_other_and_forgets_nobodys_request() {
    let test = Test::new().await;
    let mut users = Users::default();
    rounds(&test, &mut users, 0..4).await;
    for user in 0..8 {
        poison(&test, &users, user, 3).await;
    }
    let process = profiles(&test, &test.another_log().await).await;
    test.wait(&process.progress).await;
    assert_eq!(parked(&test).await.len(), 8);
    cure(&test).await;
    // The disk is full for the first that is tried, and nobody else.
    test.execute(
        "CREATE SEQUENCE public.tried;
         CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
             $$ BEGIN
                 IF nextval('public.tried') = 1 THEN RAISE EXCEPTION 'no' USING ERRCODE = '53100'; END IF;
                 RETURN NEW;
             END $$;
         CREATE TRIGGER full_disk BEFORE UPDATE ON profiles_1.users FOR EACH ROW EXECUTE FUNCTION public.refuse()",
    )
    .await;
    let asked = parked(&test).await;
    operator::retry(&mut test.superuser().await, &asked, Duration::ZERO).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), async {
        while parked(&test).await.len() > 1 {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    // That one has its turn in a minute, and not in the two that nobody's asking would make of it.
    let soon =
        "SELECT count(*) FROM projections.parked WHERE retry_at <= clock_timestamp() + interval '1 minute'";
    assert_eq!(test.number(soon).await, 1);
    test.execute("UPDATE projections.parked SET retry_at = clock_timestamp()").await;
    until_none_is_parked(&test).await;
    assert_folded(&rows(&test, &users).await, &users);
    process.stop().await;
}

async fn counted<P: Projection>(test: &Test) -> Vec<Counted> {
    let version = Version { projection: P::SCHEMA.name, number: 1 };
    let mut service = test.provisioned.service.connect().await.unwrap();
    drift::count(&P::of(&test.log, version), &mut service, version).await.unwrap()
}

/// By how many rows there are more than there should be.
async fn surplus<P: Projection>(test: &Test) -> i64 {
    let counted = counted::<P>(test).await;
    counted.iter().map(|counted| counted.rows.cast_signed() - counted.expected.cast_signed()).sum()
}

#[tokio::test]
async fn rows_are_counted_exactly_whatever_is_parked_or_was_discarded() {
    let test = Test::new().await;
    let mut users = Users::default();
    rounds(&test, &mut users, 0..6).await;
    let sick = [(0, 1), (1, 4), (2, 1), (3, 4), (4, 7)];
    for (user, sequence) in sick {
        poison(&test, &users, user, sequence).await;
        // A NUL is no text: what the one cannot read, the other cannot store.
        let id = &users.0[&user].stream.aggregate_id;
        let odd = r#"{"actor":"\u0000"}"#;
        test.forge(&format!(
            "UPDATE log.events SET metadata = '{odd}' WHERE aggregate_id = '{id}' AND sequence = {sequence}"
        ))
        .await;
    }
    let alike = async |parked_at: [Vec<(u8, u64)>; 2]| {
        let parked_at: [BTreeSet<_>; 2] = parked_at.map(BTreeSet::from_iter);
        let log = test.another_log().await;
        let processes = [profiles(&test, &log).await, audit(&test, &log).await];
        tokio::time::timeout(PATIENCE, async {
            for process in &processes {
                test.wait(&process.progress).await;
            }
            // Whoever takes over tries again what it finds parked.
            loop {
                let parked = parked(&test).await;
                let (of_profiles, of_audit): (Vec<_>, Vec<_>) =
                    parked.into_iter().partition(|one| one.projection == "profiles");
                if [of_profiles, of_audit].map(|parked| where_parked(&parked, &users)) == parked_at {
                    break;
                }
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .unwrap();
        for process in processes {
            process.stop().await;
        }
        for counted in [counted::<Profiles>(&test).await, counted::<Audit>(&test).await] {
            assert_eq!(counted.len(), usize::from(PARTITIONS));
            for Counted { partition, rows, expected } in counted {
                assert_eq!(rows, expected, "partition {partition}");
            }
        }
    };
    alike([sick.to_vec(), sick.to_vec()]).await;
    // Discarded, tried again or not. In the one, what comes next has nothing to go on from.
    test.execute(
        "INSERT INTO projections.discarded
         SELECT position, sequence, event_id, now(), partition, projection, tenant_id, aggregate_type, aggregate_id, event_type,
                error, 'ops', 'it is a test'
         FROM projections.parked WHERE aggregate_id IN ('user-2', 'user-3', 'user-4')",
    )
    .await;
    for counted in [counted::<Profiles>(&test).await, counted::<Audit>(&test).await] {
        assert!(counted.iter().all(|counted| counted.rows == counted.expected), "{counted:?}");
    }
    let left = vec![(0, 1), (1, 4)];
    alike([[&left[..], &[(2, 2)]].concat(), left.clone()]).await;
    // One that had been applied before it was discarded, as another version of the read model that cannot read it has it.
    test.execute(
        "INSERT INTO projections.discarded
         SELECT position, sequence, event_id, now(), partition, p, tenant_id, aggregate_type, aggregate_id, event_type,
                'e', 'ops', 'it is a test'
         FROM log.events, unnest(ARRAY['profiles', 'audit']) AS p WHERE aggregate_id = 'user-8' AND sequence = 1",
    )
    .await;
    alike([[&left[..], &[(2, 2)]].concat(), left.clone()]).await;

    // What is wrong beside them is seen.
    for (damage, profiles, entries) in [
        ("CREATE TABLE kept AS SELECT * FROM profiles_1.users WHERE user_id IN ('user-1', 'user-9')", 0, 0),
        ("DELETE FROM profiles_1.users WHERE user_id = 'user-9'", -1, 0),
        ("DELETE FROM profiles_1.users WHERE user_id = 'user-1'", -2, 0),
        ("INSERT INTO profiles_1.users SELECT * FROM kept", 0, 0),
        (
            "UPDATE kept SET user_id = 'user-0' WHERE user_id = 'user-1'; DELETE FROM kept WHERE user_id <> 'user-0'",
            0,
            0,
        ),
        (
            "INSERT INTO profiles_1.users SELECT * FROM kept; 
             DELETE FROM audit_1.entries a USING log.events l
             WHERE l.partition = a.partition AND l.position = a.position AND l.aggregate_id = 'user-9' AND l.sequence = 3",
            1,
            -1,
        ),
        ("DELETE FROM profiles_1.users WHERE user_id = 'user-0'", 0, -1),
    ] {
        test.execute(damage).await;
        assert_eq!(
            (surplus::<Profiles>(&test).await, surplus::<Audit>(&test).await),
            (profiles, entries),
            "{damage}"
        );
    }
    // Read anew, nothing has the one that had been applied either.
    test.execute(
        "TRUNCATE profiles_1.users; TRUNCATE audit_1.entries; TRUNCATE projections.parked;
         UPDATE projections.checkpoints SET position = 0 WHERE projection IN ('profiles', 'audit')",
    )
    .await;
    alike([[&left[..], &[(2, 2), (8, 2)]].concat(), left]).await;
}

#[tokio::test]
async fn what_passes_never_parks() {
    let test = Test::new().await;
    let mut users = Users::default();
    rounds(&test, &mut users, 0..4).await;
    // As a disk that is full.
    test.execute(
        "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$;
         CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON profiles_1.users EXECUTE FUNCTION public.refuse()",
    )
    .await;
    let process = profiles(&test, &test.another_log().await).await;
    sleep(Duration::from_secs(2)).await;
    assert!(parked(&test).await.is_empty());
    assert_eq!(test.number("SELECT count(*) FROM profiles_1.users").await, 0);
    test.execute("DROP TRIGGER full_disk ON profiles_1.users").await;
    test.wait(&process.progress).await;
    // Connections that are cut.
    for round in 4..20 {
        rounds(&test, &mut users, round..round + 1).await;
        test.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'profiles %'",
        )
        .await;
    }
    test.wait(&process.progress).await;
    assert!(parked(&test).await.is_empty());
    assert_folded(&rows(&test, &users).await, &users);
    process.stop().await;
}

#[tokio::test]
async fn a_table_that_is_missing_stops_and_does_not_park() {
    let test = Test::new().await;
    let mut users = Users::default();
    rounds(&test, &mut users, 0..2).await;
    test.execute("ALTER TABLE profiles_1.users RENAME TO gone").await;
    let process = profiles(&test, &test.another_log().await).await;
    sleep(Duration::from_secs(2)).await;
    assert!(parked(&test).await.is_empty());
    for partition in 0..PARTITIONS {
        assert_eq!(test.checkpoint("profiles", partition).await, 0);
    }
    test.execute("ALTER TABLE profiles_1.gone RENAME TO users").await;
    test.wait(&process.progress).await;
    assert_folded(&rows(&test, &users).await, &users);
    process.stop().await;
}

#[tokio::test]
async fn the_checkpoint_does_not_pass_an_event_unless_its_stream_is_parked() {
    let test = Test::new().await;
    let mut users = Users::default();
    rounds(&test, &mut users, 0..4).await;
    poison(&test, &users, 0, 3).await;
    // The server dies before the transaction ends, again and again.
    test.execute(
        "CREATE FUNCTION public.die() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;
         GRANT EXECUTE ON FUNCTION public.die TO PUBLIC;
         CREATE TRIGGER dies AFTER INSERT ON projections.parked FOR EACH ROW EXECUTE FUNCTION public.die()",
    )
    .await;
    let process = profiles(&test, &test.another_log().await).await;
    let known = &users.0[&0];
    let (partition, id) = (known.stream.partition(PARTITIONS), &known.stream.aggregate_id);
    let at = test
        .number(&format!("SELECT position FROM log.events WHERE aggregate_id = '{id}' AND sequence = 3"))
        .await;
    sleep(Duration::from_secs(2)).await;
    assert!(parked(&test).await.is_empty());
    assert_eq!(test.checkpoint("profiles", partition).await, at - 1);
    assert_eq!(is_parked(&process.progress, &users, 0), None);
    test.execute("DROP TRIGGER dies ON projections.parked").await;
    test.wait(&process.progress).await;
    assert_healthy(&test, &users, &[(0, 3)]).await;
    assert_eq!(where_parked(&parked(&test).await, &users), BTreeSet::from([(0, 3)]));
    process.stop().await;
}

#[tokio::test]
async fn what_the_database_cannot_take_parks_too_and_its_error_repeats_no_value() {
    let test = Test::new().await;
    let mut users = Users::default();
    rounds(&test, &mut users, 0..3).await;
    // A NUL is JSON and no text.
    let sick = "aggregate_id = 'user-5' AND sequence = 2";
    let odd = r#"{"actor":"ada\u0000lovelace"}"#;
    test.forge(&format!("UPDATE log.events SET metadata = '{odd}' WHERE {sick}")).await;
    let process = audit(&test, &test.another_log().await).await;
    test.wait(&process.progress).await;
    let list = parked(&test).await;
    assert_eq!(where_parked(&list, &users), BTreeSet::from([(5, 2)]));
    assert_eq!(list[0].error, "the database failed: SQLSTATE 22P05");
    let stored = test.number("SELECT count(*) FROM log.events").await;
    assert_eq!(test.number("SELECT count(*) FROM audit_1.entries").await, stored - 3);
    test.forge(&format!(r#"UPDATE log.events SET metadata = '{{"actor":"tester"}}' WHERE {sick}"#)).await;
    retry(&test).await;
    assert_eq!(test.number("SELECT count(*) FROM audit_1.entries").await, stored);
    process.stop().await;
}

#[tokio::test]
async fn when_too_much_is_parked_the_partition_stops() {
    let test = Test::new().await;
    let mut users = Users::default();
    rounds(&test, &mut users, 0..2).await;
    poison(&test, &users, 0, 2).await;
    let partition = users.0[&0].stream.partition(PARTITIONS);
    test.execute(&format!(
        "INSERT INTO projections.parked (position, sequence, event_id, parked_at, tried_at, retry_at, version, partition,
             tries, projection, tenant_id, aggregate_type, aggregate_id, event_type, error)
         SELECT 1, 1, gen_random_uuid(), now(), now(), 'infinity', 1, {partition}, 1, 'profiles', 'acme', 'user',
                'other-' || n, 'X', 'x'
         FROM generate_series(1, 1000) AS n"
    ))
    .await;
    let process = profiles(&test, &test.another_log().await).await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(test.number("SELECT count(*) FROM projections.parked WHERE aggregate_id = 'user-0'").await, 0);
    let at = test.checkpoint("profiles", partition).await;
    let poisoned = "SELECT position FROM log.events WHERE event_type LIKE 'Poisoned%'";
    assert_eq!(at, test.number(poisoned).await - 1);
    process.stop().await;
}

#[tokio::test]
async fn however_many_streams_are_parked_all_of_them_are_tried_again() {
    let test = Test::new().await;
    let mut users = Users::default();
    rounds(&test, &mut users, 0..1).await;
    test.execute(
        "INSERT INTO projections.parked (position, sequence, event_id, parked_at, tried_at, retry_at, version, partition,
             tries, projection, tenant_id, aggregate_type, aggregate_id, event_type, error)
         SELECT 1, 1, gen_random_uuid(), now(), now(), now() + interval '1 day', 1, n % 4, 1, 'profiles', 'acme', 'user',
                'other-' || n, 'X', 'x'
         FROM generate_series(1, 2500) AS n",
    )
    .await;
    let mut connection = test.superuser().await;
    let all = operator::all(&mut connection, &Sought::default()).await.unwrap();
    let ids: BTreeSet<&str> = all.iter().map(|one| &*one.aggregate_id).collect();
    assert_eq!((all.len(), ids.len()), (2_500, 2_500));
    // Nobody is there to try them.
    let outcomes = operator::retry(&mut connection, &all, Duration::ZERO).await.unwrap();
    assert_eq!(outcomes.len(), 2_500);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Untried)));
    assert_eq!(test.number("SELECT count(*) FROM projections.parked WHERE asked").await, 2_500);
    let sought = Sought { id: Some("other-7".to_owned()), ..Sought::default() };
    assert_eq!(operator::all(&mut connection, &sought).await.unwrap().len(), 1);
}

#[test]
fn whatever_is_poisoned_the_healthy_are_folded_and_after_the_cure_all_are() {
    let config = Config { cases: 6, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let life = (vec((0..8_u8, wishes()), 1..80), btree_set(0..200_usize, 1..12));
    runner
        .run(&life, |(wishes, poisons)| {
            runtime.block_on(async {
                let test = Test::new().await;
                let mut users = Users::default();
                for (user, wish) in wishes {
                    users.wish(&test.log, user, wish).await;
                }
                let events: Vec<(u8, u64)> = users
                    .0
                    .iter()
                    .flat_map(|(number, user)| (1..=user.version).map(|sequence| (*number, sequence)))
                    .collect();
                let mut sick = BTreeSet::new();
                for poisoned in poisons {
                    let (user, sequence) = events[poisoned % events.len()];
                    if sick.insert((user, sequence)) {
                        poison(&test, &users, user, sequence).await;
                    }
                }
                let mut first = std::collections::BTreeMap::new();
                for (user, sequence) in &sick {
                    first.entry(*user).or_insert(*sequence);
                }
                let first: Vec<(u8, u64)> = first.into_iter().collect();
                let process = profiles(&test, &test.another_log().await).await;
                test.wait(&process.progress).await;
                assert_healthy(&test, &users, &first).await;
                assert_eq!(where_parked(&parked(&test).await, &users), first.iter().copied().collect());
                cure(&test).await;
                retry(&test).await;
                assert_folded(&rows(&test, &users).await, &users);
                process.stop().await;
            });
            Ok(())
        })
        .unwrap();
}
