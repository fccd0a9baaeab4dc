//! What differs from the log is found, by id and field, and mended; what is merely at work is not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rollcall_event_store::Log;
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
    support::{PARTITIONS, Process, Test},
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
            drifts.extend(
                drift::compare(log, &projection, &mut service, version, &walked.streams).await.unwrap(),
            );
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

#[tokio::test]
async fn a_parked_stream_is_left_alone() {
    let (test, _) = projected(3).await;
    test.execute(
        "INSERT INTO projections.parked (position, sequence, event_id, parked_at, tried_at, retry_at, version, partition,
             tries, projection, tenant_id, aggregate_type, aggregate_id, event_type, error)
         SELECT 1, 1, gen_random_uuid(), now(), now(), now(), 1, 0, 1, p.projection, 'acme', 'user', p.id, 'TraitsChanged', 'e'
         FROM (VALUES ('profiles', 'user-1'), ('audit', 'user-2')) AS p(projection, id);
         UPDATE profiles_1.users SET status = 'x'",
    )
    .await;
    let found = audited::<Profiles>(&test, &test.log, PROFILES).await;
    assert_eq!(by_id(&found), expected(&[("user-0", &["status"]), ("user-2", &["status"])]));
    let mut parked = found[0].clone();
    parked.stream = rollcall_event_store::StreamId::new("acme", "user", "user-1");
    parked.partition = parked.stream.partition(PARTITIONS);
    let mut service = test.provisioned.service.connect().await.unwrap();
    let projection = Profiles::of(&test.log, PROFILES);
    assert!(!drift::repair(&projection, &mut service, PROFILES, &parked).await.unwrap());
}
