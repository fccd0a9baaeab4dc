//! Loading: whole streams in order, however long and however many at once.

use futures_util::future::join_all;
use rollcall_event_store::{
    append::Expected,
    load::{self, Request},
};

use crate::support::{Test, stream, wish};

/// A stream of that many events, in several appends.
async fn fill(test: &Test, id: &str, events: u64) {
    let mut version = 0;
    while version < events {
        let count = (events - version).min(700);
        let expected = if version == 0 { Expected::Fresh } else { Expected::Version(version) };
        let mut wish = wish(stream(id), expected, usize::try_from(count).unwrap());
        if version == 0 {
            wish = wish.data_key(test.log.keys());
        }
        wish.append(&test.log).await.unwrap();
        version += count;
    }
}

#[tokio::test]
async fn a_long_stream_loads_whole_and_in_order() {
    let test = Test::new().await;
    // At, below and above what the first statement reads, and each further one.
    let lengths = [1, 100, 101, 102, 1_000, 1_100, 1_101, 1_102, 2_101, 2_500];
    for length in lengths {
        fill(&test, &format!("user-{length}"), length).await;
    }
    let loads =
        lengths.map(|length| test.log.loader().get(Request::whole(stream(&format!("user-{length}")))));
    for (length, loaded) in lengths.into_iter().zip(join_all(loads).await) {
        let loaded = loaded.unwrap();
        let sequences: Vec<u64> = loaded.events.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, (1..=length).collect::<Vec<_>>());
        assert!(loaded.events.iter().all(|event| *event.stream.aggregate_id == *format!("user-{length}")));
        assert!(loaded.key.is_some());
    }
}

#[tokio::test]
async fn many_streams_at_once_are_each_answered_with_their_own() {
    let test = Test::new().await;
    let appends = (0..700).map(|n| {
        let wish = wish(stream(&format!("user-{n}")), Expected::Fresh, n % 4 + 1).data_key(test.log.keys());
        wish.append(&test.log)
    });
    for appended in join_all(appends).await {
        appended.unwrap();
    }
    // Some asked for twice, some that do not exist.
    let asked: Vec<usize> = (0..700).chain(0..50).chain(1_000..1_050).collect();
    let loads = asked.iter().map(|n| test.log.loader().get(Request::whole(stream(&format!("user-{n}")))));
    for (n, loaded) in asked.iter().zip(join_all(loads).await) {
        let loaded = loaded.unwrap();
        let expected = if *n < 700 { n % 4 + 1 } else { 0 };
        assert_eq!(loaded.events.len(), expected);
        assert_eq!(loaded.key.is_some(), *n < 700);
        assert!(loaded.events.iter().all(|event| event.stream == stream(&format!("user-{n}"))));
    }
}

#[tokio::test]
async fn a_page_begins_after_a_version_and_ends_at_its_limit() {
    let test = Test::new().await;
    fill(&test, "ada", 10).await;
    let mut connection = test.superuser().await;
    for (after, limit, expected) in [(0, 3, 1..=3), (3, 4, 4..=7), (7, 100, 8..=10)] {
        let ada = stream("ada");
        let page = load::page(&mut connection, &ada, ada.partition(16), after, limit).await.unwrap();
        assert_eq!(page.iter().map(|event| event.sequence).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        assert!(page.iter().all(|event| &*event.metadata == "{}"));
    }
}
