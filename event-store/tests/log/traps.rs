//! The traps that a batch statement falls into: unprobed versions, the order of locks, and plans.

use std::sync::Arc;

use futures_util::future::join_all;
use rollcall_event_store::{
    Log,
    append::{Error, Expected},
    load::Request,
};
use sqlx::{Connection, PgConnection, Row};
use tokio::sync::Barrier;
use uuid::Uuid;

use crate::support::{
    PATIENCE, Test, Wish, digest, looking_after, of_one_writer, release, stream, stream_in, take, wish,
};

#[tokio::test]
async fn a_stale_version_is_refused_alone_and_among_others() {
    let test = Test::new().await;
    let hot = || stream("hot");
    wish(hot(), Expected::Fresh, 5).append(&test.log).await.unwrap();
    for expected in [Expected::Fresh, Expected::Version(0), Expected::Version(4), Expected::Version(6)] {
        let alone = wish(hot(), expected, 1).append(&test.log).await;
        assert!(matches!(alone, Err(Error::Conflict)), "{expected:?}: {alone:?}");
        let others = (0..50).map(|n| wish(stream(&format!("{expected:?} {n}")), Expected::Fresh, 2));
        let wishes = others.chain([wish(hot(), expected, 3)]).map(|wish| wish.append(&test.log));
        let mut outcomes = join_all(wishes).await;
        let refused = outcomes.pop().unwrap();
        assert!(matches!(refused, Err(Error::Conflict)), "{expected:?}: {refused:?}");
        assert!(outcomes.iter().all(Result::is_ok));
    }
    wish(hot(), Expected::Version(5), 1).append(&test.log).await.unwrap();
    test.assert_ordered_without_gaps().await;
}

#[tokio::test]
async fn an_unprobed_append_leaves_no_gap_in_a_stream() {
    let test = Test::new().await;
    let other = test.another_log().await;
    for round in 0..30 {
        // Two processes believe that the stream is theirs to begin; one of them with more events than the other.
        let stream = || stream(&format!("user-{round}"));
        let (first, second) = tokio::join!(
            wish(stream(), Expected::Fresh, 1).data_key(test.log.keys()).append(&test.log),
            wish(stream(), Expected::Fresh, 3).data_key(other.keys()).append(&other),
        );
        let outcomes = [first, second];
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
        assert!(outcomes.iter().any(|outcome| matches!(outcome, Err(Error::Conflict))), "{outcomes:?}");
    }
    test.assert_ordered_without_gaps().await;
}

/// Waits until a writer's statement waits for a lock.
async fn until_a_writer_waits(connection: &mut PgConnection) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'rollcall-append' AND wait_event_type = 'Lock'";
    let wait = async {
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut *connection).await.unwrap() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}

/// Has a log of one writer meet a taken claim, so that its next batches are looked through before they are stored.
async fn made_to_look(log: &Log) {
    for late in [false, true] {
        let wish = wish(stream(&Uuid::now_v7().to_string()), Expected::Fresh, 1);
        let outcome = wish.claims([take("wanted by many")]).append(log).await;
        assert!(matches!(outcome, Ok(_) | Err(Error::ClaimTaken(_))), "{outcome:?}");
        assert!(outcome.is_err() || !late);
    }
}

/// How many claims a refused append left behind: what is stored and taken back leaves a row that nobody sees.
async fn left_behind(test: &Test, refused: Wish) -> i64 {
    let mut places = Vec::new();
    for refused in [None, Some(refused)] {
        if let Some(refused) = refused {
            let outcome = refused.append(&test.log).await;
            assert!(matches!(outcome, Err(Error::ClaimTaken(_) | Error::KeyUsed)), "{outcome:?}");
        }
        // As long as a digest.
        let next = format!("{:016x}", Uuid::now_v7().as_u64_pair().1);
        wish(stream(&next), Expected::Fresh, 1).claims([take(&next)]).append(&test.log).await.unwrap();
        let place = "SELECT (ctid::text::point)[1]::int8 FROM log.claims WHERE aggregate_id =";
        places.push(test.number(&format!("{place} '{next}'")).await);
    }
    places[1] - places[0] - 1
}

#[tokio::test]
async fn batches_are_looked_through_after_one_that_met_what_was_there() {
    let test = Test::of_one_writer().await;
    wish(stream("first"), Expected::Fresh, 1)
        .claims([take("email")])
        .key("key")
        .append(&test.log)
        .await
        .unwrap();
    let late = || wish(stream("late"), Expected::Fresh, 1).claims([take("phone")]);
    let wants_the_claim = || late().claims([take("email")]);
    let repeats_the_key = || late().key("key");
    assert_eq!(left_behind(&test, wants_the_claim()).await, 1, "what is rare is not looked for");
    assert_eq!(left_behind(&test, wants_the_claim()).await, 0);
    assert_eq!(left_behind(&test, repeats_the_key()).await, 0);
    let quiet = async |batches| {
        for _ in 0..batches {
            let stream = stream(&Uuid::now_v7().to_string());
            wish(stream, Expected::Fresh, 1).append(&test.log).await.unwrap();
        }
    };
    // Beside these there is one before each refusal, and one after it.
    quiet(61).await;
    assert_eq!(left_behind(&test, repeats_the_key()).await, 0, "for 64 batches they are");
    quiet(62).await;
    assert_eq!(left_behind(&test, repeats_the_key()).await, 1, "and then no more");
    assert_eq!(left_behind(&test, repeats_the_key()).await, 0);
}

#[tokio::test]
async fn a_claim_that_the_stream_took_meanwhile_is_a_conflict() {
    let test = Test::of_one_writer().await;
    the_stream_takes_a_claim_meanwhile(&test, "ada").await;
    made_to_look(&test.log).await;
    the_stream_takes_a_claim_meanwhile(&test, "eve").await;
}

async fn the_stream_takes_a_claim_meanwhile(test: &Test, name: &str) {
    let (stream, value) = (|| stream_in(5, name), format!("{name}'s"));
    wish(stream(), Expected::Fresh, 1).append(&test.log).await.unwrap();
    let mut rival = test.superuser().await;
    let mut transaction = rival.begin().await.unwrap();
    sqlx::query("LOCK TABLE log.claims IN ACCESS EXCLUSIVE MODE").execute(&mut *transaction).await.unwrap();
    let late = wish(stream(), Expected::Version(1), 1).claims([take(&value)]).append(&test.log);
    let meanwhile = async {
        until_a_writer_waits(&mut test.superuser().await).await;
        let taken = format!(
            "INSERT INTO log.claims SELECT '\\x{0}', 1, tenant_id, aggregate_type, aggregate_id FROM log.events
                 WHERE aggregate_id = '{1}';
             INSERT INTO log.events SELECT
                 (SELECT max(l.position) + 1 FROM log.events l WHERE l.partition = 5), sequence + 1, recorded_at + interval '1 us', gen_random_uuid(),
                 partition, tenant_id, aggregate_type, aggregate_id, event_type, event_version, payload, personal, metadata
             FROM log.events WHERE aggregate_id = '{1}'",
            hex::encode(digest(&value)),
            stream().aggregate_id,
        );
        sqlx::raw_sql(&taken).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
    };
    let (late, ()) = tokio::join!(late, meanwhile);
    assert!(matches!(late, Err(Error::Conflict)), "{late:?}");
}

#[tokio::test]
async fn events_that_are_ranked_with_a_hole_are_refused() {
    let test = Test::new().await;
    let mut service = PgConnection::connect_with(&test.provisioned.service).await.unwrap();
    for (partitions, ranks) in [
        ("{3}", "{1,3}"),
        ("{3}", "{2,3}"),
        ("{3}", "{1,1}"),
        ("{3}", "{1}"),
        ("{3}", "{NULL,1}"),
        ("{3}", "{1,NULL}"),
        ("{3,4}", "{1,2}"),
    ] {
        let appends = if partitions == "{3}" { "{1,1}" } else { "{1,2}" };
        let refused = sqlx::query(
            "SELECT log.append((SELECT log_id FROM log.meta), 1, true, $1::text::int4[], '{acme,acme}', '{user,user}', '{a,b}',
                 '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', $1::text::int4[],
                 $2::text::int4[], $3::text::int8[], '{1,2}', ARRAY[gen_random_uuid(), gen_random_uuid()],
                 '{Happened,Happened}', '{1,1}', ARRAY['{}', '{}'], ARRAY[NULL, NULL]::bytea[], ARRAY['{}', '{}'])",
        )
        .bind(partitions)
        .bind(appends)
        .bind(ranks)
        .execute(&mut service)
        .await
        .expect_err(ranks);
        assert!(refused.to_string().contains("rank"), "{ranks}: {refused}");
    }
    assert_eq!(test.number("SELECT count(*) FROM log.events").await, 0);
}

#[tokio::test]
async fn heads_are_locked_in_ascending_order() {
    let test = Test::of_one_writer().await;
    for blocked in [0, 1, 7, 15] {
        let mut blocker = test.superuser().await;
        let mut transaction = blocker.begin().await.unwrap();
        sqlx::query("SELECT FROM log.partitions WHERE partition = $1 FOR UPDATE")
            .bind(blocked)
            .execute(&mut *transaction)
            .await
            .unwrap();
        // In descending order, so that an order that the client gave is not taken for one that the plan gives.
        let wishes =
            (0..16).rev().map(|p| wish(stream_in(p, &format!("block {blocked}")), Expected::Fresh, 2));
        let batch = join_all(wishes.map(|wish| wish.append(&test.log)));
        let look = async {
            let mut looking = test.superuser().await;
            until_a_writer_waits(&mut looking).await;
            let mut free: Vec<i32> =
                sqlx::query_scalar("SELECT partition FROM log.partitions FOR UPDATE SKIP LOCKED")
                    .fetch_all(&mut looking)
                    .await
                    .unwrap();
            free.sort_unstable();
            transaction.rollback().await.unwrap();
            free
        };
        let (outcomes, free) = tokio::join!(batch, look);
        assert!(outcomes.iter().all(Result::is_ok));
        assert_eq!(free, (blocked + 1..16).collect::<Vec<i32>>(), "while it waits for the head of {blocked}");
    }
}

#[tokio::test]
async fn a_head_is_the_last_lock_that_an_append_takes() {
    let test = Test::new().await;
    wish(stream_in(4, "holder"), Expected::Fresh, 1).claims([take("old")]).append(&test.log).await.unwrap();
    let mut blocker = test.superuser().await;
    let mut transaction = blocker.begin().await.unwrap();
    sqlx::query("SELECT FROM log.partitions FOR UPDATE").execute(&mut *transaction).await.unwrap();
    let append = wish(stream_in(4, "holder"), Expected::Version(1), 1)
        .claims([release("old"), take("new")])
        .key("key")
        .data_key(test.log.keys())
        .append(&test.log);
    let look = async {
        let mut looking = test.superuser().await;
        until_a_writer_waits(&mut looking).await;
        let held = [
            format!("SELECT FROM log.claims WHERE digest = '\\x{}' FOR UPDATE NOWAIT", hex::encode(digest("old"))),
            format!("INSERT INTO log.claims VALUES ('\\x{}', 1, 'x', 'x', 'x')", hex::encode(digest("new"))),
            format!("INSERT INTO log.commands VALUES ('\\x{}', '', 1, 'x', 1)", hex::encode(digest("key"))),
            "INSERT INTO vault.data_keys SELECT aggregate_id, tenant_id, aggregate_type, 1, '' FROM log.events"
                .to_owned(),
        ];
        sqlx::query("SET lock_timeout = '100ms'").execute(&mut looking).await.unwrap();
        for held in held {
            let refused = sqlx::query(&held).execute(&mut looking).await.unwrap_err();
            let code =
                refused.as_database_error().and_then(|error| error.code()).map(|code| code.to_string());
            assert_eq!(code.as_deref(), Some("55P03"), "the append holds it before any head: {held}");
        }
        transaction.rollback().await.unwrap();
    };
    let (outcome, ()) = tokio::join!(append, look);
    outcome.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn four_processes_on_all_partitions_never_deadlock() {
    for batches_looked_through in [0, 64] {
        four_processes_on_all_partitions(batches_looked_through).await;
    }
}

async fn four_processes_on_all_partitions(batches_looked_through: u32) {
    let test = Test::new().await;
    let barrier = Arc::new(Barrier::new(4));
    let mut processes = Vec::new();
    for process in 0..4 {
        let log = test.another_log_with(looking_after(batches_looked_through)).await;
        let barrier = Arc::clone(&barrier);
        processes.push(tokio::spawn(async move {
            let mut refused = 0;
            for round in 0..15 {
                let wishes = (0..200).map(|n| in_each_others_way(process, round, n).append(&log));
                barrier.wait().await;
                for outcome in join_all(wishes).await {
                    match outcome {
                        Ok(_) => {}
                        Err(Error::Conflict | Error::ClaimTaken(_) | Error::KeyUsed) => refused += 1,
                        Err(other) => panic!("{other:?}"),
                    }
                }
            }
            log.close().await;
            refused
        }));
    }
    let mut refused = 0;
    for process in processes {
        refused += process.await.unwrap();
    }
    assert!(refused > 500, "they were in each other's way ({refused})");
    test.assert_ordered_without_gaps().await;
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(test.number(deadlocks).await, 0);
}

/// Claims, keys and streams that other processes want at the same time, in another order.
fn in_each_others_way(process: usize, round: usize, n: usize) -> Wish {
    let own = stream(&format!("{process} {round} {n}"));
    let shared = (n * (process * 2 + 1)) % 200;
    let names = |kinds: &'static str| kinds.chars().map(move |kind| format!("{kind}{round}.{shared}"));
    match n % 4 {
        0 | 1 => wish(own, Expected::Fresh, 1).claims(names("zkasywb").map(|name| take(&name))),
        2 => wish(own, Expected::Fresh, 2).key(&names("k").collect::<String>()),
        _ => wish(stream(&format!("shared {n}")), Expected::Version(round as u64), 1)
            .claims([take(&format!("s{round}.{n}")), release(&format!("s{}.{n}", round.max(1) - 1))]),
    }
}

/// How often a table was scanned as a whole, and how many blocks of it and its indexes were read.
async fn reads(connection: &mut PgConnection, table: &str) -> [i64; 2] {
    let row = sqlx::query(
        "SELECT t.seq_scan, b.heap_blks_hit + b.heap_blks_read + b.idx_blks_hit + b.idx_blks_read
         FROM pg_stat_user_tables t JOIN pg_statio_user_tables b USING (relid) WHERE relid = $1::regclass",
    )
    .bind(table)
    .fetch_one(connection)
    .await
    .unwrap();
    [row.get(0), row.get(1)]
}

#[tokio::test]
async fn a_large_log_is_only_looked_up_in_never_scanned() {
    let test = Test::new().await;
    // Its polls would walk over what is being inserted, and be counted.
    test.log.close().await;
    test.execute(
        "INSERT INTO log.events SELECT n / 16 + 1, 1, now() + n * interval '1 us', gen_random_uuid(), n % 16, 'acme',
             'user', 'old-' || n, 'Happened', '1', '{}', NULL, '{}' FROM generate_series(0, 199999) AS n;
         INSERT INTO log.claims SELECT decode(md5(n::text), 'hex'), 1, 'acme', 'user', 'old-' || n
             FROM generate_series(0, 99999) AS n;
         INSERT INTO log.commands SELECT decode(md5(n::text), 'hex'), '', 201, 'old-' || n, 1
             FROM generate_series(0, 99999) AS n;
         ANALYZE log.events, log.claims, log.commands",
    )
    .await;
    let tables = ["log.events", "log.claims", "log.commands"];
    let mut connection = test.superuser().await;
    let mut before = Vec::new();
    for table in tables {
        before.push(reads(&mut connection, table).await);
    }
    let begun = std::time::Instant::now();
    let log = test.another_log_with(of_one_writer()).await;
    batches_of_every_kind(&log).await;
    // A backend reports its counts at the latest when it ends.
    log.close().await;
    let backends = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name IN ('rollcall-append', 'rollcall-load')";
    while test.number(backends).await > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    for (table, before) in tables.into_iter().zip(before) {
        let after = reads(&mut connection, table).await;
        let [scans, blocks] = std::array::from_fn(|n| after[n] - before[n]);
        assert_eq!(scans, 0, "{table} was scanned");
        // A look-up or an insert reads a handful of blocks; each table and each of its indexes has thousands.
        // Beside them the heads are looked at 40 times a second: 16 times a path down the index and a row.
        let polls = 16 * 40 * (begun.elapsed().as_secs().cast_signed() + 1) * 5;
        assert!(
            (1_000..50_000 + polls).contains(&blocks),
            "{table}: {blocks} blocks were read for 1,350 appends"
        );
    }
}

/// 1,350 appends in batches of one, of some and of many, looked through before they are stored.
async fn batches_of_every_kind(log: &Log) {
    let mut next = 0;
    for size in [1; 250].into_iter().chain([5, 15, 80, 500, 500]) {
        if size > 1 || next % 60 == 0 {
            made_to_look(log).await;
        }
        let wishes: Vec<_> = (next..next + size)
            .map(|n| {
                let name = format!("new-{n}");
                let wish = match n % 3 {
                    0 => wish(stream(&name), Expected::Version(0), 1),
                    1 => wish(stream(&name), Expected::Version(1), 1),
                    _ => wish(stream(&name), Expected::Fresh, 2),
                };
                wish.claims([take(&name), release(&format!("r{n}"))]).key(&name).append(log)
            })
            .collect();
        next += size;
        join_all(wishes).await;
        assert!(log.loader().get(Request::whole(stream("nobody"))).await.unwrap().events.is_empty());
    }
}

#[tokio::test]
async fn heads_are_read_off_the_end_of_the_log_by_a_process_that_knew_it_empty() {
    let test = Test::new().await;
    // Whatever is planned once for good is planned now.
    wish(stream("first"), Expected::Fresh, 1).append(&test.log).await.unwrap();
    for batch in 0..12 {
        let wishes = (0..400)
            .map(|n| wish(stream(&format!("{batch} {n}")), Expected::Fresh, 1).append(&test.log))
            .collect::<Vec<_>>();
        assert!(join_all(wishes).await.iter().all(Result::is_ok));
    }
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let [looks, entries] = looked_up(test, "events").await;
    assert!(looks > 200 && entries < 4 * looks, "{entries} entries were read for {looks} looks at a head");
}

/// How often somebody looked into the indexes of a table of the log, and how many entries that read; the log is closed.
async fn looked_up(test: Test, table: &str) -> [i64; 2] {
    test.log.close().await;
    let mut connection = test.superuser().await;
    let backends = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name LIKE 'rollcall%'";
    let ended = async {
        while sqlx::query_scalar::<_, i64>(backends).fetch_one(&mut connection).await.unwrap() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("no session outlives its log");
    let counted: (i64, i64) = sqlx::query_as(
        "SELECT sum(idx_scan)::int8, sum(idx_tup_read)::int8 FROM pg_stat_user_indexes
         WHERE schemaname = 'log' AND relname = $1",
    )
    .bind(table)
    .fetch_one(&mut connection)
    .await
    .unwrap();
    counted.into()
}

#[tokio::test]
async fn claims_and_records_are_looked_up_also_where_they_were_vacuumed_before_there_were_any() {
    for table in ["claims", "commands"] {
        let test = Test::of_one_writer().await;
        // From now on the planner takes it for one page.
        test.execute(&format!("VACUUM ANALYZE log.{table}")).await;
        for batch in 0..6 {
            made_to_look(&test.log).await;
            let wish = |n| {
                let name = format!("{batch} {n}");
                wish(stream(&name), Expected::Fresh, 1).claims([take(&name)]).key(&name).append(&test.log)
            };
            let wishes: Vec<_> = (0..400).map(wish).collect();
            assert!(join_all(wishes).await.iter().all(Result::is_ok));
        }
        let [looks, entries] = looked_up(test, table).await;
        assert!(looks >= 2_400 && entries < looks, "{entries} entries of {table} were read by {looks} looks");
    }
}
