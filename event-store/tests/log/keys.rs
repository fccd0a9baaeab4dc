//! Data keys: alive, erased or missing, and never one taken for another.

use futures_util::future::join_all;
use rollcall_event_store::{
    Log, Recorded, StreamId,
    append::Expected,
    gather,
    keys::{self, Opened, SubjectKey},
    load::{self, Request},
};

use crate::support::{Test, event, stream, wish};

/// A subject with one event that says something personal.
async fn subject(test: &Test, id: &str) {
    let (key, wrapped) = test.log.keys().new_data_key(&stream(id));
    let mut wish = wish(stream(id), Expected::Fresh, 0);
    let mut event = event("{}");
    event.personal = Some(key.seal_event(event.event_id, &stream(id), 1, id.as_bytes()));
    wish.0.events = vec![event];
    wish.0.data_key = Some(rollcall_event_store::append::NewDataKey { key, wrapped });
    wish.append(&test.log).await.unwrap();
}

async fn load(log: &Log, id: StreamId) -> Result<(Recorded, SubjectKey), gather::Error<load::Error>> {
    let mut loaded = log.loader().get(Request::whole(id)).await?;
    Ok((loaded.events.remove(0), loaded.key.unwrap()))
}

fn missing(outcome: Result<(Recorded, SubjectKey), gather::Error<load::Error>>) -> Option<StreamId> {
    match outcome {
        Err(gather::Error::Fetch(error)) => match &*error {
            load::Error::Keys(keys::Error::Missing(stream)) => Some(stream.clone()),
            _ => None,
        },
        _ => None,
    }
}

#[tokio::test]
async fn a_key_comes_back_from_the_vault_and_opens_what_it_sealed() {
    let test = Test::new().await;
    subject(&test, "ada").await;
    let (event, key) = load(&test.restarted().await, stream("ada")).await.unwrap();
    assert_eq!(key.open_event(&event).unwrap(), Opened::Value(b"ada".to_vec()));
    let mut moved = event.clone();
    moved.sequence = 2;
    assert!(matches!(key.open_event(&moved), Err(keys::Error::Unreadable { .. })));
}

#[tokio::test]
async fn a_key_that_is_missing_is_an_error_and_not_an_erasure() {
    let test = Test::new().await;
    subject(&test, "ada").await;
    test.execute("DELETE FROM vault.data_keys").await;
    assert_eq!(missing(load(&test.restarted().await, stream("ada")).await), Some(stream("ada")));
}

#[tokio::test]
async fn a_missing_key_fails_no_load_but_its_own() {
    let test = Test::new().await;
    for id in ["ada", "eve", "joe"] {
        subject(&test, id).await;
    }
    test.execute("DELETE FROM vault.data_keys WHERE aggregate_id = 'eve'").await;
    let log = test.restarted().await;
    // Asked for at once, so that they share statements.
    let ids = ["ada", "eve", "joe", "ada", "eve", "joe"];
    let loaded = join_all(ids.map(|id| load(&log, stream(id)))).await;
    for (id, loaded) in ids.iter().zip(loaded) {
        match *id {
            "eve" => assert_eq!(missing(loaded), Some(stream("eve"))),
            id => assert!(loaded.is_ok(), "{id} has a key, but: {:?}", loaded.err()),
        }
    }
}

#[tokio::test]
async fn a_tombstone_makes_a_subject_erased_whether_or_not_its_key_is_still_there() {
    let test = Test::new().await;
    subject(&test, "ada").await;
    subject(&test, "eve").await;
    test.execute(
        "INSERT INTO vault.tombstones SELECT aggregate_id, tenant_id, aggregate_type, now() FROM vault.data_keys;
         DELETE FROM vault.data_keys WHERE aggregate_id = 'ada'",
    )
    .await;
    let log = test.restarted().await;
    for id in ["ada", "eve"] {
        let (event, key) = load(&log, stream(id)).await.unwrap();
        assert!(matches!(key, SubjectKey::Erased));
        assert_eq!(key.open_event(&event).unwrap(), Opened::Erased);
    }
}

#[tokio::test]
async fn a_key_that_was_put_in_another_ones_place_opens_nothing() {
    let test = Test::new().await;
    subject(&test, "ada").await;
    subject(&test, "eve").await;
    test.execute(
        "UPDATE vault.data_keys SET wrapped = (SELECT wrapped FROM vault.data_keys WHERE aggregate_id = 'eve')
         WHERE aggregate_id = 'ada'",
    )
    .await;
    let Err(gather::Error::Fetch(error)) = load(&test.restarted().await, stream("ada")).await else {
        panic!()
    };
    assert!(matches!(&*error, load::Error::Keys(keys::Error::Unreadable { .. })), "{error:?}");
}
