//! Answers that were lost: a batch whose connection broke is sent again and never stored twice.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use rollcall_event_store::{
    Log, Options,
    append::{Error, Expected},
    load::Request,
    migrate::Provisioned,
};

use crate::{
    proxy::Proxy,
    support::{Test, stream, take, wish},
};

const CALLERS: usize = 16;
const APPENDS_EACH: u64 = 150;

#[derive(Default)]
struct Tally {
    stored: u64,
    unknown: u64,
}

/// Appends one after the other to a stream of its own; who writes alone meets no conflict.
async fn caller(log: &Log, caller: usize) -> Tally {
    let id = format!("caller-{caller}");
    let mut tally = Tally::default();
    let mut version = 0;
    for round in 0..APPENDS_EACH {
        let count = round % 3 + 1;
        let mut wish = wish(stream(&id), Expected::Version(version), usize::try_from(count).unwrap());
        if version == 0 {
            wish = wish.data_key(log.keys());
        }
        let name = format!("{caller}.{round}");
        match wish.claims([take(&name)]).key(&name).append(log).await {
            Ok(_) => {
                version += count;
                tally.stored += count;
            }
            Err(Error::Unknown | Error::Unreachable) => {
                tally.unknown += 1;
                let loaded = log.loader().get(Request::whole(stream(&id))).await.unwrap();
                let now = loaded.events.last().map_or(0, |event| event.sequence);
                assert!(now == version || now == version + count, "all of it or nothing");
                version = now;
            }
            Err(other) => panic!("{id}, round {round}: {other:?}"),
        }
    }
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn an_append_whose_answer_was_lost_is_stored_once_or_not_at_all() {
    let test = Test::new().await;
    let proxy = Proxy::start(&test.provisioned.service).await;
    let provisioned = Provisioned {
        service: test.provisioned.service.clone().port(proxy.port),
        keys: test.provisioned.keys.clone(),
        ..test.provisioned
    };
    let log = Log::open(&provisioned, Options::default()).await.unwrap();
    let tallies = join_all((0..CALLERS).map(|n| caller(&log, n))).await;
    assert!(proxy.cuts() > 10, "{} answers were taken away", proxy.cuts());
    assert_stored(&test, &tallies).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn an_append_whose_writer_was_killed_is_stored_once_or_not_at_all() {
    let test = Test::new().await;
    let done = AtomicBool::new(false);
    let killer = async {
        let mut connection = test.superuser().await;
        let mut killed = 0;
        let mut pause = 1_u64;
        while !done.load(Ordering::Acquire) {
            // Between 5 and 60 ms: in every phase of a batch, sooner or later.
            pause = pause * 48_271 % 0x7fff_ffff;
            tokio::time::sleep(Duration::from_micros(5_000 + pause % 55_000)).await;
            killed += sqlx::query_scalar::<_, i64>(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = 'rollcall-append'",
            )
            .fetch_one(&mut connection)
            .await
            .unwrap();
        }
        killed
    };
    let callers = async {
        let tallies = join_all((0..CALLERS).map(|n| caller(&test.log, n))).await;
        done.store(true, Ordering::Release);
        tallies
    };
    let (tallies, killed) = tokio::join!(callers, killer);
    assert!(killed > 10, "{killed} writers were killed");
    assert_stored(&test, &tallies).await;
}

async fn assert_stored(test: &Test, tallies: &[Tally]) {
    let acknowledged: u64 = tallies.iter().map(|tally| tally.stored).sum();
    let unknown: u64 = tallies.iter().map(|tally| tally.unknown).sum();
    let stored = u64::try_from(test.number("SELECT count(*) FROM log.events").await).unwrap();
    assert!(
        (acknowledged..=acknowledged + 3 * unknown).contains(&stored),
        "{acknowledged} {unknown} {stored}"
    );
    test.assert_ordered_without_gaps().await;
    let appends = "SELECT count(*) FROM log.commands";
    assert_eq!(test.number("SELECT count(*) FROM log.claims").await, test.number(appends).await);
    assert_eq!(test.number("SELECT count(*) FROM vault.data_keys").await, CALLERS as i64);
    if unknown == 0 {
        assert_eq!(test.number(appends).await, (CALLERS as u64 * APPENDS_EACH).cast_signed());
    }
}
