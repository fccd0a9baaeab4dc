//! One batch, many outcomes: each append is judged alone and stored whole or not at all.

use futures_util::future::join_all;
use rollcall_event_store::append::{Appended, Error, Expected};
use sqlx::Row;

use crate::support::{Test, Wish, digest, event, release, stream, stream_in, take, wish};

/// Appends that are there together go into one statement: the test's only thread queues them all before the writer
/// runs.
async fn at_once(test: &Test, wishes: Vec<Wish>) -> Vec<Result<Appended, Error>> {
    join_all(wishes.into_iter().map(|wish| wish.append(&test.log))).await
}

async fn held(test: &Test) -> i64 {
    test.number("SELECT count(*) FROM log.claims").await
}

#[tokio::test]
async fn each_append_of_a_batch_is_judged_alone() {
    let test = Test::of_one_writer().await;
    let holder = || stream_in(3, "holder");
    wish(holder(), Expected::Fresh, 2)
        .claims([take("held"), take("also held")])
        .key("used")
        .append(&test.log)
        .await
        .unwrap();
    wish(stream_in(3, "other"), Expected::Fresh, 1).append(&test.log).await.unwrap();

    let outcomes = at_once(
        &test,
        vec![
            wish(holder(), Expected::Version(1), 1).claims([take("a")]).key("a").data_key(test.log.keys()),
            wish(stream_in(3, "taken"), Expected::Fresh, 2)
                .claims([take("b"), take("held"), take("c")])
                .key("b")
                .data_key(test.log.keys()),
            wish(stream_in(9, "replayed"), Expected::Fresh, 1)
                .claims([take("d")])
                .key("used")
                .data_key(test.log.keys()),
            wish(stream_in(3, "all wrong"), Expected::Version(7), 1).claims([take("also held"), take("e")]),
            wish(stream_in(9, "fresh"), Expected::Fresh, 3)
                .claims([take("f"), take("g")])
                .key("c")
                .data_key(test.log.keys()),
            wish(stream_in(3, "other"), Expected::Version(1), 2),
            wish(stream_in(3, "record alone"), Expected::Version(0), 0).key("d"),
            wish(stream_in(0, "another tenant's partition"), Expected::Version(0), 1),
            wish(stream_in(3, "last"), Expected::Fresh, 1),
        ],
    )
    .await;

    assert!(matches!(outcomes[0], Err(Error::Conflict)), "{:?}", outcomes[0]);
    assert!(matches!(outcomes[1], Err(Error::ClaimTaken(d)) if d == digest("held")), "{:?}", outcomes[1]);
    assert!(matches!(outcomes[2], Err(Error::KeyUsed)), "{:?}", outcomes[2]);
    assert!(matches!(outcomes[3], Err(Error::Conflict)), "{:?}", outcomes[3]);
    let place = |index: usize| outcomes[index].as_ref().map(|a| (a.partition, a.position)).unwrap();
    assert_eq!(place(4), (9, 3));
    assert_eq!(place(5), (3, 5));
    assert_eq!(place(6).0, 3);
    assert_eq!(outcomes[6].as_ref().unwrap().recorded_at, None);
    assert_eq!(place(7), (0, 1));
    assert_eq!(place(8), (3, 6));

    // Two appends before, then one transaction for the whole batch.
    assert_eq!(test.number("SELECT count(DISTINCT xmin::text) FROM log.events").await, 3);
    let claims = "SELECT count(*) FROM log.claims WHERE aggregate_id LIKE 'fresh-%'";
    assert_eq!((test.number(claims).await, held(&test).await), (2, 4), "nothing of a refused append is left");
    let keys = "SELECT count(*) FROM vault.data_keys WHERE aggregate_id NOT LIKE 'fresh-%'";
    assert_eq!(test.number(keys).await, 0);
    let kept: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT key FROM log.commands").fetch_all(test.log.pool()).await.unwrap();
    let mut expected = ["used", "c", "d"].map(|key| digest(key).0.to_vec()).to_vec();
    let mut kept = kept;
    kept.sort();
    expected.sort();
    assert_eq!(kept, expected);
    test.assert_ordered_without_gaps().await;
}

#[tokio::test]
async fn an_append_is_answered_with_where_its_last_event_stands() {
    let test = Test::of_one_writer().await;
    let wishes: Vec<Wish> = (0..200)
        .map(|n| wish(stream(&format!("user-{n}")), Expected::Fresh, n % 5 + 1).key(&format!("{n}")))
        .chain((0..40).map(|n| wish(stream(&format!("conflict-{n}")), Expected::Version(1), 2)))
        .collect();
    let streams: Vec<(String, i64)> = wishes
        .iter()
        .map(|wish| (wish.0.stream.aggregate_id.to_string(), wish.0.events.len().try_into().unwrap()))
        .collect();
    let outcomes = at_once(&test, wishes).await;
    assert_eq!(test.number("SELECT count(DISTINCT xmin::text) FROM log.events").await, 1, "one batch");
    for ((id, version), outcome) in streams.iter().zip(&outcomes) {
        if id.starts_with("conflict") {
            assert!(matches!(outcome, Err(Error::Conflict)), "{outcome:?}");
            continue;
        }
        let outcome = outcome.as_ref().unwrap();
        let row = sqlx::query(
            "SELECT partition, position, recorded_at FROM log.events WHERE aggregate_id = $1 AND sequence = $2",
        )
        .bind(id)
        .bind(version)
        .fetch_one(test.log.pool())
        .await
        .unwrap();
        assert_eq!(i32::from(outcome.partition), row.get::<i32, _>(0));
        assert_eq!(i64::try_from(outcome.position).unwrap(), row.get::<i64, _>(1));
        assert_eq!(outcome.recorded_at, Some(row.get(2)));
    }
    test.assert_ordered_without_gaps().await;
}

#[tokio::test]
async fn what_is_stored_is_what_was_given() {
    let test = Test::new().await;
    let mut given = wish(stream("ada"), Expected::Fresh, 0).data_key(test.log.keys());
    let mut events = vec![event(r#"{ "b":1, "a" : 2,"b":3}"#), event(r#"{"text":"tab\tü\u00fc"}"#)];
    events[1].personal = Some(vec![1, 2, 3]);
    events[1].event_type = "Changed";
    events[1].event_version = "7";
    events[1].metadata = r#"{"actor" : "x"}"#.into();
    given.0.events = events;
    let ids: Vec<_> = given.0.events.iter().map(|event| event.event_id).collect();
    given.append(&test.log).await.unwrap();
    let rows = sqlx::query(
        "SELECT event_id, event_type, event_version, payload::text, personal, metadata::text FROM log.events
         ORDER BY sequence",
    )
    .fetch_all(test.log.pool())
    .await
    .unwrap();
    assert_eq!(rows[0].get::<uuid::Uuid, _>(0), ids[0]);
    assert_eq!(rows[0].get::<&str, _>(3), r#"{ "b":1, "a" : 2,"b":3}"#, "byte for byte");
    assert_eq!(rows[0].get::<Option<Vec<u8>>, _>(4), None);
    assert_eq!(rows[1].get::<uuid::Uuid, _>(0), ids[1]);
    assert_eq!((rows[1].get::<&str, _>(1), rows[1].get::<&str, _>(2)), ("Changed", "7"));
    assert_eq!(rows[1].get::<&str, _>(3), r#"{"text":"tab\tü\u00fc"}"#);
    assert_eq!(rows[1].get::<Option<Vec<u8>>, _>(4), Some(vec![1, 2, 3]));
    assert_eq!(rows[1].get::<&str, _>(5), r#"{"actor" : "x"}"#);
}

#[tokio::test]
async fn a_claim_moves_from_its_holder_only_and_is_free_for_others_then() {
    let test = Test::of_one_writer().await;
    // A batch goes by partition: the release comes before the take.
    let (ada, eve) = (|| stream_in(2, "ada"), || stream_in(9, "eve"));
    wish(ada(), Expected::Fresh, 1).claims([take("old")]).append(&test.log).await.unwrap();
    wish(eve(), Expected::Fresh, 1).append(&test.log).await.unwrap();
    wish(eve(), Expected::Version(1), 1).claims([release("old")]).append(&test.log).await.unwrap();
    assert_eq!(held(&test).await, 1, "who does not hold a claim cannot release it");

    // Both at once: what one gives up the other gets, in the next statement.
    let outcomes = at_once(
        &test,
        vec![
            wish(ada(), Expected::Version(1), 1).claims([release("old"), take("new")]),
            wish(eve(), Expected::Version(2), 1).claims([take("old")]),
        ],
    )
    .await;
    outcomes[0].as_ref().unwrap();
    outcomes[1].as_ref().unwrap();
    let holders: Vec<(Vec<u8>, String)> =
        sqlx::query_as("SELECT digest, aggregate_id FROM log.claims ORDER BY aggregate_id")
            .fetch_all(test.log.pool())
            .await
            .unwrap();
    let holders: Vec<_> = holders.iter().map(|(digest, id)| (&digest[..], &id[..3])).collect();
    assert_eq!(holders, [(&digest("new").0[..], "ada"), (&digest("old").0[..], "eve")]);
}

#[tokio::test]
async fn of_two_hundred_that_want_one_claim_one_gets_it() {
    let test = Test::new().await;
    let wishes = (0..200).map(|n| {
        wish(stream(&format!("user-{n}")), Expected::Fresh, 1).claims([take("hot")]).key(&format!("{n}"))
    });
    let outcomes = at_once(&test, wishes.collect()).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let refused =
        |outcome: &&Result<_, _>| matches!(outcome, Err(Error::ClaimTaken(d)) if *d == digest("hot"));
    assert_eq!(outcomes.iter().filter(refused).count(), 199);
    assert_eq!(test.number("SELECT count(*) FROM log.events").await, 1);
    assert_eq!(test.number("SELECT count(*) FROM log.commands").await, 1);
}

#[tokio::test]
async fn an_append_that_the_database_refuses_fails_alone() {
    let test = Test::new().await;
    let mut poison = wish(stream("poison"), Expected::Fresh, 1).claims([take("p")]).key("p");
    poison.0.events[0].payload = "no JSON".to_owned();
    let outcomes = at_once(
        &test,
        vec![
            wish(stream("a"), Expected::Fresh, 1).claims([take("a")]),
            poison,
            wish(stream("b"), Expected::Fresh, 2),
        ],
    )
    .await;
    outcomes[0].as_ref().unwrap();
    assert!(matches!(outcomes[1], Err(Error::Database(_))), "{:?}", outcomes[1]);
    outcomes[2].as_ref().unwrap();
    assert_eq!(test.number("SELECT count(*) FROM log.events").await, 3);
    assert_eq!(held(&test).await, 1);
    assert_eq!(test.number("SELECT count(*) FROM log.commands").await, 0);
    test.assert_ordered_without_gaps().await;
}

#[tokio::test]
async fn an_append_that_can_never_be_stored_does_not_take_its_batch_with_it() {
    let test = Test::new().await;
    // The vault has a key of a subject without events, as an incomplete restore leaves it.
    test.execute("INSERT INTO vault.data_keys VALUES ('odd', 'acme', 'user', 1, '')").await;
    let outcomes = at_once(
        &test,
        vec![
            wish(stream("a"), Expected::Fresh, 1),
            wish(stream("odd"), Expected::Fresh, 1).data_key(test.log.keys()),
            wish(stream("b"), Expected::Version(0), 1),
        ],
    )
    .await;
    assert!(outcomes[1].is_err());
    outcomes[0].as_ref().unwrap();
    outcomes[2].as_ref().unwrap();
}
