//! What differs from the log is found, by id and field, and mended; what is merely at work is not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rollcall_event_store::{Log, StreamId};
use rollcall_projections::{
    audit::Audit,
    checkpoint,
    drift::{self, Drift},
    profiles::Profiles,
    projector::Projection,
    schema::Version,
};
use sqlx::ConnectOptions;
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    laws::{PROFILES, assert_folded, rows},
    runtime::{audit, profiles},
    support::{PARTITIONS, PATIENCE, Process, Test},
    users::{Users, seats},
};

const AUDIT: Version = Version { projection: "audit", number: 1 };

/// Compares all streams and looks at all rows.
async fn audited<P: Projection>(test: &Test, log: &Log, version: Version) -> Vec<Drift> {
    let mut service = test.provisioned.service.connect().await.unwrap();
    let projection = P::of(log, version);
    let mut drifts = Vec::new();
    for (partition, until) in (0..).zip(checkpoint::read(&mut service, version).await.unwrap()) {
        let mut after = 0;
        while after < until {
            let walked = drift::walk(&mut service, partition, after, until).await.unwrap();
            let compared =
                drift::compare(log, &projection, &mut service, version, &walked.streams, None).await.unwrap();
            assert!(compared.unfolded.is_empty(), "{:?}", compared.unfolded);
            drifts.extend(compared.drifts);
            after = walked.until;
        }
    }
    let mut row = None;
    loop {
        // A few at a time: pages follow each other.
        let swept = drift::sweep(&projection, &mut service, row.as_ref(), 3).await.unwrap();
        drifts.extend(swept.surplus);
        row = swept.last;
        if row.is_none() {
            return drifts;
        }
    }
}

fn by_id(drifts: &[Drift]) -> BTreeMap<String, BTreeSet<&str>> {
    let mut by_id: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for drift in drifts {
        let fields = by_id.entry(drift.stream.aggregate_id.to_string()).or_default();
        fields.extend(drift.fields.iter().map(String::as_str));
    }
    by_id
}

fn expected<'a>(fields: &[(&str, &[&'a str])]) -> BTreeMap<String, BTreeSet<&'a str>> {
    fields.iter().map(|(id, fields)| ((*id).to_owned(), fields.iter().copied().collect())).collect()
}

async fn repair<P: Projection>(test: &Test, version: Version, drifts: &[Drift]) {
    let mut service = test.provisioned.service.connect().await.unwrap();
    let projection = P::of(&test.log, version);
    for drift in drifts {
        assert!(drift::repair(&projection, &mut service, version, drift).await.unwrap(), "{drift:?}");
    }
}

/// Users whose profiles and audit have been projected.
async fn projected(users_max: u8) -> (Test, Users) {
    let test = Test::new().await;
    let mut users = Users::default();
    for round in 0..3 {
        for user in 0..users_max {
            users.wish(&test.log, user, seats(round)).await;
        }
    }
    project(&test).await;
    (test, users)
}

/// Projects what there is, by a process that has nothing in its memory.
async fn project(test: &Test) {
    let log = test.restarted().await;
    let processes = [profiles(test, &log).await, audit(test, &log).await];
    for process in processes {
        test.wait(&process.progress).await;
        process.stop().await;
    }
    log.close().await;
}

#[tokio::test]
async fn each_damage_to_a_profile_is_found_by_id_and_field_and_repaired() {
    let (test, users) = projected(10).await;
    let before = rows(&test, &users).await;
    assert_eq!(audited::<Profiles>(&test, &test.log, PROFILES).await, []);
    for damage in [
        "UPDATE profiles_1.users SET status = 'deactivated' WHERE user_id = 'user-0'",
        "UPDATE profiles_1.users SET sealed = set_byte(sealed, 30, get_byte(sealed, 30) # 255) WHERE user_id = 'user-1'",
        "DELETE FROM profiles_1.users WHERE user_id = 'user-2'",
        r#"UPDATE profiles_1.users SET traits = '{"seats": 99}' WHERE user_id = 'user-3'"#,
        "UPDATE profiles_1.users SET version = version - 1 WHERE user_id = 'user-4'",
        "UPDATE profiles_1.users SET position = position + 1 WHERE user_id = 'user-5'",
        "UPDATE profiles_1.users SET name_digests = '{1}', partition = partition + 1 WHERE user_id = 'user-6'",
        // Another's value is as good as none.
        "UPDATE profiles_1.users SET sealed = (SELECT sealed FROM profiles_1.users WHERE user_id = 'user-8')
         WHERE user_id = 'user-7'",
        "INSERT INTO profiles_1.users SELECT position, version, partition, tenant_id, 'nobody', status, sealed, traits,
             name_digests FROM profiles_1.users WHERE user_id = 'user-8'",
    ] {
        test.execute(damage).await;
    }
    let found = audited::<Profiles>(&test, &test.log, PROFILES).await;
    let expected = expected(&[
        ("nobody", &["surplus"]),
        ("user-0", &["status"]),
        ("user-1", &["sealed"]),
        ("user-2", &["missing"]),
        ("user-3", &["traits"]),
        ("user-4", &["version"]),
        ("user-5", &["position"]),
        ("user-6", &["name_digests", "partition"]),
        ("user-7", &["sealed"]),
    ]);
    assert_eq!(by_id(&found), expected);
    repair::<Profiles>(&test, PROFILES, &found).await;
    assert_eq!(audited::<Profiles>(&test, &test.log, PROFILES).await, []);
    assert_eq!(rows(&test, &users).await, before);
    assert_folded(&before, &users);
    assert_eq!(test.number("SELECT count(*) FROM profiles_1.users").await, 10);
    // What is right is left alone.
    let mut service = test.provisioned.service.connect().await.unwrap();
    let projection = Profiles::of(&test.log, PROFILES);
    for drift in &found {
        assert!(!drift::repair(&projection, &mut service, PROFILES, drift).await.unwrap());
    }
}

#[tokio::test]
async fn a_field_inside_a_sealed_value_is_told_by_its_name() {
    let (test, mut users) = projected(2).await;
    // The value as it was a moment ago, at the place where the row is now.
    test.execute("CREATE TABLE kept AS SELECT * FROM profiles_1.users").await;
    users.wish(&test.log, 0, seats(77)).await;
    project(&test).await;
    test.execute("UPDATE profiles_1.users u SET sealed = k.sealed FROM kept k WHERE k.user_id = u.user_id")
        .await;
    let found = audited::<Profiles>(&test, &test.log, PROFILES).await;
    assert_eq!(by_id(&found), expected(&[("user-0", &["traits", "updated_at"])]));
}

#[tokio::test]
async fn each_damage_to_the_audit_is_found_by_id_and_field_and_repaired() {
    let (test, users) = projected(8).await;
    let all = "SELECT hashtextextended(string_agg(a::text, ',' ORDER BY partition, position), 0) FROM audit_1.entries a";
    let before = test.number(all).await;
    assert_eq!(audited::<Audit>(&test, &test.log, AUDIT).await, []);
    let last_of = |user: u8| {
        let known = &users.0[&user];
        let partition = known.stream.partition(PARTITIONS);
        format!("partition = {partition} AND position = {}", known.position)
    };
    for (user, damage) in [
        (0, "DELETE FROM audit_1.entries"),
        (1, "UPDATE audit_1.entries SET actor = 'somebody'"),
        (2, "UPDATE audit_1.entries SET actor = NULL, event_type = 'UserCreated', import_id = 'x'"),
        (3, "UPDATE audit_1.entries SET tenant_id = 'other'"),
        (4, "UPDATE audit_1.entries SET recorded_at = recorded_at + interval '1 day'"),
        (5, "UPDATE audit_1.entries SET aggregate_type = 'organization'"),
    ] {
        test.execute(&format!("{damage} WHERE {}", last_of(user))).await;
    }
    test.execute(
        "INSERT INTO audit_1.entries VALUES (999, now(), 3, 'acme', 'user', 'UserCreated', 'tester', NULL)",
    )
    .await;
    let found = audited::<Audit>(&test, &test.log, AUDIT).await;
    let expected = expected(&[
        ("3/999", &["surplus"]),
        ("user-0", &["missing"]),
        ("user-1", &["actor"]),
        ("user-2", &["actor", "event_type", "import_id"]),
        ("user-3", &["missing", "surplus"]),
        ("user-4", &["missing", "surplus"]),
        ("user-5", &["aggregate_type"]),
    ]);
    assert_eq!(by_id(&found), expected);
    repair::<Audit>(&test, AUDIT, &found).await;
    assert_eq!(audited::<Audit>(&test, &test.log, AUDIT).await, []);
    assert_eq!(test.number(all).await, before);
}

#[tokio::test]
async fn rows_of_a_long_stream_are_compared_to_its_end() {
    let (test, mut users) = projected(1).await;
    for round in 10..80 {
        users.wish(&test.log, 0, seats(round)).await;
    }
    project(&test).await;
    assert_eq!(audited::<Profiles>(&test, &test.log, PROFILES).await, []);
    assert_eq!(audited::<Audit>(&test, &test.log, AUDIT).await, []);
    let last = format!("position = {}", users.0[&0].position);
    test.execute(&format!("DELETE FROM audit_1.entries WHERE {last}")).await;
    assert_eq!(
        by_id(&audited::<Audit>(&test, &test.log, AUDIT).await),
        expected(&[("user-0", &["missing"])])
    );
}

#[tokio::test]
async fn streams_of_many_events_are_compared_one_after_the_other_and_in_the_background_not_at_all() {
    let (test, users) = projected(3).await;
    // Twelve thousand events more of each user, which the audit has.
    test.execute(
        "INSERT INTO log.events
         SELECT (jsonb_populate_record(e, jsonb_build_object('position', e.position + 1000 + row_number() OVER (
                     PARTITION BY e.partition ORDER BY e.position, n), 'sequence', e.sequence + n,
                     'event_id', gen_random_uuid()))).*
         FROM log.events e CROSS JOIN generate_series(1, 12000) AS n WHERE e.sequence = 4;
         INSERT INTO audit_1.entries
         SELECT position, recorded_at, partition, tenant_id, aggregate_type, event_type, metadata->>'actor',
                metadata->>'import_id'
         FROM log.events WHERE sequence > 4;
         UPDATE projections.checkpoints SET position = 100000 WHERE projection = 'audit'",
    )
    .await;
    let mut service = test.provisioned.service.connect().await.unwrap();
    let streams: Vec<StreamId> = users.0.values().map(|user| user.stream.clone()).collect();
    let projection = Audit::of(&test.log, AUDIT);
    test.execute(
        "DELETE FROM audit_1.entries a USING log.events e
         WHERE e.partition = a.partition AND e.position = a.position AND e.aggregate_id <> 'user-1' AND e.sequence = 12000",
    )
    .await;
    let compared = drift::compare(&test.log, &projection, &mut service, AUDIT, &streams, None).await.unwrap();
    assert!(compared.unfolded.is_empty(), "{:?}", compared.unfolded);
    assert_eq!(by_id(&compared.drifts), expected(&[("user-0", &["missing"][..]), ("user-2", &["missing"])]));
    let background =
        drift::compare(&test.log, &projection, &mut service, AUDIT, &streams, Some(10_000)).await.unwrap();
    assert_eq!((background.drifts.len(), background.unfolded.len()), (0, 3));
    let told = background.unfolded[0].error.told();
    assert!(told.contains("more than 10000 events"), "{told}");
}

/// Commands that keep coming until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    writer: JoinHandle<Users>,
}

impl Load {
    async fn start(test: &Test, mut users: Users, users_max: impl Fn(u32) -> u8 + Send + 'static) -> Self {
        let (log, stop) = (test.another_log().await, Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let writer = tokio::spawn(async move {
            let mut round = 0;
            while !stopped.load(Ordering::Relaxed) {
                for user in 0..users_max(round) {
                    users.wish(&log, user, seats(100 + round)).await;
                }
                round += 1;
            }
            users
        });
        Self { stop, writer }
    }

    /// The users, once all is applied.
    async fn stop(self, test: &Test, processes: Vec<Process>) -> Users {
        self.stop.store(true, Ordering::Relaxed);
        let users = self.writer.await.unwrap();
        test.log.refresh_heads().await.unwrap();
        for process in processes {
            test.wait(&process.progress).await;
            process.stop().await;
        }
        users
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_read_model_at_work_does_not_differ_from_itself() {
    let (test, users) = projected(12).await;
    let log = test.another_log().await;
    let processes = vec![profiles(&test, &log).await, audit(&test, &log).await];
    // New users among them.
    let load = Load::start(&test, users, |round| u8::try_from(round + 12).unwrap_or(u8::MAX).min(200)).await;
    let begun = Instant::now();
    let mut audits = 0;
    while begun.elapsed() < Duration::from_secs(4) || audits < 10 {
        assert_eq!(audited::<Profiles>(&test, &test.log, PROFILES).await, []);
        assert_eq!(audited::<Audit>(&test, &test.log, AUDIT).await, []);
        audits += 1;
    }
    let users = load.stop(&test, processes).await;
    assert!(users.0.len() > 12);
    assert_folded(&rows(&test, &users).await, &users);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_row_is_repaired_while_events_of_its_user_are_applied() {
    let (test, users) = projected(6).await;
    let log = test.another_log().await;
    let processes = vec![profiles(&test, &log).await];
    let load = Load::start(&test, users, |_| 6).await;
    for round in 0..60 {
        // What applying an event does not put right by itself.
        let damaged = format!("user-{}", round % 6);
        test.execute(&format!(
            "UPDATE profiles_1.users SET partition = partition + 1 WHERE user_id = '{damaged}'"
        ))
        .await;
        let found = audited::<Profiles>(&test, &test.log, PROFILES).await;
        assert_eq!(by_id(&found), expected(&[(&damaged, &["partition"])]));
        repair::<Profiles>(&test, PROFILES, &found).await;
    }
    let users = load.stop(&test, processes).await;
    assert_eq!(audited::<Profiles>(&test, &test.log, PROFILES).await, []);
    assert_folded(&rows(&test, &users).await, &users);
}

#[tokio::test]
async fn an_erased_user_differs_only_once_all_of_its_events_are_applied() {
    let (test, mut users) = projected(2).await;
    test.execute(
        "CREATE TABLE kept AS SELECT * FROM profiles_1.users WHERE user_id = 'user-0';
         INSERT INTO vault.tombstones VALUES ('user-0', 'acme', 'user', now())",
    )
    .await;
    // What tells the projector comes with the erasure.
    users.wish(&test.log, 0, seats(50)).await;
    // Whoever still has the key in memory knows better, too.
    for log in [&test.log, &test.restarted().await] {
        assert_eq!(audited::<Profiles>(&test, log, PROFILES).await, []);
    }
    project(&test).await;
    assert_eq!(audited::<Profiles>(&test, &test.log, PROFILES).await, []);
    assert_eq!(test.number("SELECT count(*) FROM profiles_1.users").await, 1);
    let mut service = test.provisioned.service.connect().await.unwrap();
    let counted = drift::count(&Profiles::of(&test.log, PROFILES), &mut service, PROFILES).await.unwrap();
    assert!(counted.iter().all(|of| of.rows == of.expected), "no row is missed: {counted:?}");
    test.execute("INSERT INTO profiles_1.users SELECT * FROM kept").await;
    let found = audited::<Profiles>(&test, &test.log, PROFILES).await;
    assert_eq!(by_id(&found), expected(&[("user-0", &["surplus"])]));
    repair::<Profiles>(&test, PROFILES, &found).await;
    assert_eq!(test.number("SELECT count(*) FROM profiles_1.users").await, 1);
}

/// Users whose events of both read models are parked: of user-0 the second, of user-1 the first, of user-2 the last one.
async fn parked_at_odd_events() -> (Test, Users) {
    let test = Test::new().await;
    let mut users = Users::default();
    for round in 0..3 {
        for user in 0..5 {
            users.wish(&test.log, user, seats(round)).await;
        }
    }
    // One read model cannot read such an event, the other cannot store it: a NUL is no text.
    test.forge(
        r#"UPDATE log.events SET event_type = 'Odd', metadata = '{"actor":"\u0000"}'
           WHERE (aggregate_id, sequence) IN (('user-0', 2), ('user-1', 1), ('user-2', 4))"#,
    )
    .await;
    project(&test).await;
    (test, users)
}

async fn entries(test: &Test) -> i64 {
    test.number(
        "SELECT coalesce(hashtextextended(string_agg(a::text, ',' ORDER BY partition, position), 0), 0)
         FROM audit_1.entries a",
    )
    .await
}

/// Has every read model do without the events at which streams are parked, and go on.
async fn discard_all(test: &Test) {
    test.execute(
        "INSERT INTO projections.discarded
         SELECT position, sequence, event_id, now(), partition, projection, tenant_id, aggregate_type, aggregate_id,
                event_type, error, 'ops', 'it is a test' FROM projections.parked",
    )
    .await;
    let log = test.restarted().await;
    let processes = [profiles(test, &log).await, audit(test, &log).await];
    tokio::time::timeout(PATIENCE, async {
        // The user without a first event is parked at its second.
        while test.number("SELECT count(*) FROM projections.parked").await != 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    for process in processes {
        process.stop().await;
    }
    log.close().await;
}

const DAMAGES: &str = "
    DELETE FROM profiles_1.users WHERE user_id IN ('user-0', 'user-3');
    UPDATE profiles_1.users SET status = 'deactivated' WHERE user_id = 'user-2';
    INSERT INTO profiles_1.users SELECT position, version, partition, tenant_id, 'user-1', status, sealed, traits,
        name_digests FROM profiles_1.users WHERE user_id = 'user-4';
    INSERT INTO audit_1.entries
        SELECT position, recorded_at, partition, tenant_id, aggregate_type, 'ProfileChanged', NULL, NULL FROM log.events
        WHERE event_type = 'Odd' AND aggregate_id = 'user-0';
    DELETE FROM audit_1.entries a USING log.events e
    WHERE e.partition = a.partition AND e.position = a.position AND e.sequence = 1 AND e.aggregate_id = 'user-2'";

async fn damaged_and_repaired(test: &Test, users: &Users) {
    let before = (rows(test, users).await, entries(test).await);
    assert_eq!(audited::<Profiles>(test, &test.log, PROFILES).await, []);
    assert_eq!(audited::<Audit>(test, &test.log, AUDIT).await, []);
    test.execute(DAMAGES).await;
    let found = audited::<Profiles>(test, &test.log, PROFILES).await;
    let of_profiles = [
        ("user-0", &["missing"][..]),
        ("user-1", &["surplus"]),
        ("user-2", &["status"]),
        ("user-3", &["missing"]),
    ];
    assert_eq!(by_id(&found), expected(&of_profiles));
    repair::<Profiles>(test, PROFILES, &found).await;
    let found = audited::<Audit>(test, &test.log, AUDIT).await;
    assert_eq!(by_id(&found), expected(&[("user-0", &["surplus"]), ("user-2", &["missing"])]));
    repair::<Audit>(test, AUDIT, &found).await;
    assert_eq!(audited::<Profiles>(test, &test.log, PROFILES).await, []);
    assert_eq!(audited::<Audit>(test, &test.log, AUDIT).await, []);
    assert_eq!((rows(test, users).await, entries(test).await), before);
}

#[tokio::test]
async fn rows_of_a_parked_stream_are_what_the_events_before_that_one_say() {
    let (test, users) = parked_at_odd_events().await;
    assert_eq!(test.number("SELECT count(*) FROM projections.parked").await, 6);
    damaged_and_repaired(&test, &users).await;
    // What was made anew is tried again.
    let due = "SELECT count(*) FROM projections.parked WHERE retry_at <= clock_timestamp()";
    assert_eq!(test.number(due).await, 5, "all but the one of the audit that was right");
    let mut service = test.provisioned.service.connect().await.unwrap();
    let streams: Vec<StreamId> = users.0.values().map(|user| user.stream.clone()).collect();
    let projection = Profiles::of(&test.log, PROFILES);
    let compared =
        drift::compare(&test.log, &projection, &mut service, PROFILES, &streams, None).await.unwrap();
    assert_eq!(compared.parked, 3);
    // What queues may be what removes the row.
    test.execute("INSERT INTO vault.tombstones VALUES ('user-0', 'acme', 'user', now())").await;
    assert_eq!(audited::<Profiles>(&test, &test.log, PROFILES).await, []);
}

#[tokio::test]
async fn rows_of_a_stream_of_which_an_event_was_discarded_are_what_the_others_say() {
    let (test, users) = parked_at_odd_events().await;
    discard_all(&test).await;
    let rows_now = rows(&test, &users).await;
    assert_eq!(rows_now["user-2"].1, 4, "its version moved over the event");
    damaged_and_repaired(&test, &users).await;
    // Events that come later are applied to what was made anew.
    let mut users = users;
    users.wish(&test.log, 0, seats(9)).await;
    project(&test).await;
    assert_eq!(audited::<Profiles>(&test, &test.log, PROFILES).await, []);
    assert_eq!(rows(&test, &users).await["user-0"].1, 5);
}

#[tokio::test]
async fn an_event_that_a_version_had_applied_before_it_was_discarded_is_in_its_rows() {
    let (test, users) = projected(3).await;
    let before = (rows(&test, &users).await, entries(&test).await);
    // As another version has it that cannot apply them.
    test.execute(
        "INSERT INTO projections.discarded
         SELECT position, sequence, event_id, now(), partition, p, tenant_id, aggregate_type, aggregate_id, event_type,
                'e', 'ops', 'it is a test'
         FROM log.events, unnest(ARRAY['profiles', 'audit']) AS p
         WHERE (aggregate_id, sequence) IN (('user-0', 1), ('user-1', 2))",
    )
    .await;
    assert_eq!(audited::<Profiles>(&test, &test.log, PROFILES).await, []);
    assert_eq!(audited::<Audit>(&test, &test.log, AUDIT).await, []);
    test.execute("TRUNCATE profiles_1.users; TRUNCATE audit_1.entries").await;
    let found = audited::<Profiles>(&test, &test.log, PROFILES).await;
    assert_eq!(found.len(), 3);
    repair::<Profiles>(&test, PROFILES, &found).await;
    repair::<Audit>(&test, AUDIT, &audited::<Audit>(&test, &test.log, AUDIT).await).await;
    assert_eq!((rows(&test, &users).await, entries(&test).await), before);
}

#[tokio::test]
async fn a_user_with_a_damaged_row_and_an_event_goes_on_once_the_row_is_repaired() {
    let (test, mut users) = projected(4).await;
    test.execute(
        "UPDATE profiles_1.users SET sealed = set_byte(sealed, 30, get_byte(sealed, 30) # 255) WHERE user_id = 'user-0';
         DELETE FROM profiles_1.users WHERE user_id = 'user-1';
         UPDATE profiles_1.users SET version = version - 1 WHERE user_id = 'user-2'",
    )
    .await;
    for user in 0..4 {
        users.wish(&test.log, user, seats(40)).await;
        users.wish(&test.log, user, seats(41)).await;
    }
    project(&test).await;
    assert_eq!(test.number("SELECT count(*) FROM projections.parked").await, 3);
    let found = audited::<Profiles>(&test, &test.log, PROFILES).await;
    let damaged = [("user-0", &["sealed"][..]), ("user-1", &["missing"]), ("user-2", &["version"])];
    assert_eq!(by_id(&found), expected(&damaged));
    assert!(found.iter().all(|drift| drift.parked), "{found:?}");
    let log = test.restarted().await;
    let process = profiles(&test, &log).await;
    test.wait(&process.progress).await;
    repair::<Profiles>(&test, PROFILES, &found).await;
    tokio::time::timeout(PATIENCE, async {
        while test.number("SELECT count(*) FROM projections.parked").await > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    assert_folded(&rows(&test, &users).await, &users);
    process.stop().await;
}

#[tokio::test]
async fn a_stream_that_cannot_be_folded_is_told_and_the_others_are_compared() {
    let (test, users) = projected(9).await;
    test.execute(
        "DELETE FROM vault.data_keys WHERE aggregate_id IN ('user-3', 'user-8');
         UPDATE profiles_1.users SET status = 'x' WHERE user_id IN ('user-2', 'user-3', 'user-4')",
    )
    .await;
    test.forge("UPDATE log.events SET event_type = 'Odd' WHERE aggregate_id = 'user-5' AND sequence = 2")
        .await;
    let log = test.restarted().await;
    let mut service = test.provisioned.service.connect().await.unwrap();
    let streams: Vec<StreamId> = users.0.values().map(|user| user.stream.clone()).collect();
    let projection = Profiles::of(&log, PROFILES);
    let compared = drift::compare(&log, &projection, &mut service, PROFILES, &streams, None).await.unwrap();
    assert_eq!(by_id(&compared.drifts), expected(&[("user-2", &["status"]), ("user-4", &["status"])]));
    let told: Vec<String> = compared.unfolded.iter().map(|unfolded| unfolded.error.told()).collect();
    let unfolded: Vec<&str> =
        compared.unfolded.iter().map(|unfolded| &*unfolded.stream.aggregate_id).collect();
    assert_eq!(unfolded, ["user-3", "user-5", "user-8"]);
    assert!(told[0].contains("(stream acme/user/user-3): restore the vault"), "{told:?}");
    assert!(told[1].contains("event type Odd is unknown"), "{told:?}");
    // A version that is gone is no fault of streams.
    let gone = Version { number: 7, ..PROFILES };
    let projection = Profiles::of(&log, gone);
    assert!(drift::compare(&log, &projection, &mut service, gone, &streams, None).await.is_err());
}
