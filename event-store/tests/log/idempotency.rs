//! Idempotency keys: one command for each, and the same answer for whoever asks again.

use rollcall_event_store::{
    Options,
    append::{Error, Expected},
    commands::{self, Replay},
};

use crate::support::{TENANT, Test, Wish, digest, looking_after, stream, take, wish};

#[tokio::test]
async fn a_key_gives_back_what_was_answered() {
    let test = Test::new().await;
    wish(stream("ada"), Expected::Fresh, 2).key("created").append(&test.log).await.unwrap();
    wish(stream("ada"), Expected::Version(2), 1).append(&test.log).await.unwrap();
    wish(stream("ada"), Expected::Version(2), 0).key("nothing").append(&test.log).await.unwrap();
    wish(stream("eve"), Expected::Version(0), 0).key("no stream").append(&test.log).await.unwrap();

    let find = async |key| commands::find(test.log.pool(), TENANT, "user", digest(key), 16).await.unwrap();
    let place: Vec<i64> =
        sqlx::query_scalar("SELECT position FROM log.events WHERE aggregate_id = 'ada' ORDER BY sequence")
            .fetch_all(test.log.pool())
            .await
            .unwrap();
    let replay = |id: &str, version, position: i64| Replay {
        fingerprint: digest("fingerprint"),
        status: 201,
        aggregate_id: id.to_owned(),
        version,
        partition: stream(id).partition(16),
        position: position.try_into().unwrap(),
    };
    assert_eq!(find("created").await, Some(replay("ada", 2, place[1])));
    assert_eq!(
        find("nothing").await,
        Some(replay("ada", 2, place[1])),
        "a command without events is kept too"
    );
    assert_eq!(find("no stream").await, Some(replay("eve", 0, 0)));
    assert_eq!(find("never used").await, None);
}

#[tokio::test]
async fn a_used_key_beats_a_conflict_and_a_taken_claim() {
    let test = Test::new().await;
    wish(stream("ada"), Expected::Fresh, 1)
        .claims([take("email")])
        .key("key")
        .append(&test.log)
        .await
        .unwrap();
    let again: [fn() -> Wish; 4] = [
        || wish(stream("ada"), Expected::Fresh, 1).claims([take("email")]),
        || wish(stream("ada"), Expected::Version(0), 1),
        || wish(stream("eve"), Expected::Fresh, 1).claims([take("email")]),
        || wish(stream("ada"), Expected::Version(1), 0),
    ];
    for again in again {
        // A process looks for keys first only once it has met one.
        let log = test.another_log().await;
        for met_before in [false, true] {
            let outcome = again().key("key").append(&log).await;
            assert!(matches!(outcome, Err(Error::KeyUsed)), "{outcome:?}, met before: {met_before}");
        }
    }
    assert_eq!(test.number("SELECT count(*) FROM log.events").await, 1);
}

#[tokio::test]
async fn of_two_processes_that_use_a_key_at_once_one_stores() {
    for batches_looked_through in [0, 64] {
        two_processes_use_a_key_at_once(looking_after(batches_looked_through)).await;
    }
}

async fn two_processes_use_a_key_at_once(options: Options) {
    let test = Test::with(options.clone()).await;
    let other = test.another_log_with(options).await;
    for round in 0..40 {
        let key = format!("key {round}");
        // With events and without: the record alone must do.
        let events = round % 3;
        let (first, second) = tokio::join!(
            wish(stream(&format!("a{round}")), Expected::Fresh, events).key(&key).append(&test.log),
            wish(stream(&format!("b{round}")), Expected::Fresh, events).key(&key).append(&other),
        );
        let (loser, winner) = match (&first, &second) {
            (Ok(_), Err(Error::KeyUsed)) => ("b", "a"),
            (Err(Error::KeyUsed), Ok(_)) => ("a", "b"),
            neither => panic!("{neither:?}"),
        };
        let stored = async |id: &str| {
            test.number(&format!("SELECT count(*) FROM log.events WHERE aggregate_id = '{id}{round}'")).await
        };
        assert_eq!((stored(winner).await, stored(loser).await), (events.try_into().unwrap(), 0));
        let replay = commands::find(other.pool(), TENANT, "user", digest(&key), 16).await.unwrap().unwrap();
        assert_eq!(replay.aggregate_id, format!("{winner}{round}"));
    }
}
