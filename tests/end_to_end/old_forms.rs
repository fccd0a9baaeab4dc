//! An event that an older binary stored, in the form of its day, reads well wherever events are read.

use std::{path::PathBuf, sync::Arc};

use rollcall_event_store::{
    Log, Options, StreamId,
    append::{Append, Expected, NewEvent},
    keys::{MasterKey, SubjectKey},
    load::Request,
    migrate::{self, MasterKeySource},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    USERS,
    rollcall::{Answer, Client, Rollcall},
    subscriber, user,
};

/// Recorded when version 1 was written: the payload and the personal members, a line each.
const SAMPLE: &str = include_str!("../../domain/src/user/samples/PreferencesChanged.1.jsonl");

/// The master key of the shared instance.
struct Key(PathBuf);

impl MasterKeySource for Key {
    fn existing(&self) -> Result<Option<MasterKey>, String> {
        MasterKey::read(&self.0).map(Some).map_err(|error| error.to_string())
    }

    fn create(&self) -> Result<MasterKey, String> {
        Err("the instance has made it".to_owned())
    }

    fn place(&self) -> String {
        self.0.display().to_string()
    }
}

/// Stores the sample as the user's next event, as a binary of its day did: sealed under the user's key.
async fn store_sample(tenant: &str, id: &str) {
    let shared = Rollcall::shared();
    let key = Key(shared.directory().join("data/master.key"));
    let provisioned = migrate::attach(&shared.ready.postgres, &key).await.unwrap();
    let log = Log::open(&provisioned, Options::default()).await.unwrap();
    let stream = StreamId::new(tenant, "user", id);
    let loaded = log.loader().get(Request::whole(stream.clone())).await.unwrap();
    let (version, _) = loaded.end().unwrap();
    let Some(SubjectKey::Alive(data_key)) = loaded.key else { panic!("the user has a key") };
    let (payload, personal) = SAMPLE.split_once('\n').unwrap();
    let event_id = Uuid::now_v7();
    let sealed = data_key.seal_event(event_id, &stream, version + 1, personal.trim_end().as_bytes());
    let event = NewEvent {
        event_id,
        event_type: "PreferencesChanged",
        event_version: "1",
        payload: payload.to_owned(),
        personal: Some(sealed),
        metadata: Arc::from(r#"{"actor":"svc:old"}"#),
    };
    let append = Append {
        stream,
        expected: Expected::Version(version),
        events: vec![event],
        claims: Vec::new(),
        record: None,
        data_key: None,
    };
    log.appender().append(append).await.unwrap();
    log.close().await;
}

async fn prefer(client: &Client, id: &str, email: Value) -> Answer {
    let body = json!({ "email": email });
    client.call("PUT", &user(id, "/preferences"), &[], Some(&body)).await.expect(200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_in_an_old_form_reads_well_everywhere() {
    let client = Rollcall::shared().new_tenant();
    let person = json!({"email": "ada@example.com", "given_name": "Ada",
        "preferences": {"email": {"events": true, "offers": false}}});
    let id = client.post(USERS, person).await.expect(201).id();
    store_sample(&client.tenant, &id).await;
    let preferences = json!({"events": false, "newsletter": true});

    // A command is decided on it: what it says is true already, and the version counts it.
    let decided = prefer(&client, &id, preferences.clone()).await;
    assert_eq!(decided.json()["version"], 2);

    let get = async |rest: &str| client.get_after(&user(&id, rest), decided.token()).await.expect(200).json();
    let profile = get("").await;
    assert_eq!((&profile["preferences"]["email"], &profile["version"]), (&preferences, &json!(2)));
    assert_eq!(get("/email-preferences").await["email"], preferences);

    let changes = json!([
        {"path": "/preferences/email/events", "from": true, "to": false},
        {"path": "/preferences/email/newsletter", "from": null, "to": true},
        {"path": "/preferences/email/offers", "from": false, "to": null},
    ]);
    let history = get("/history").await["items"][0].take();
    let mut audit =
        client.get_after("/api/v1/audit?type=PreferencesChanged", decided.token()).await.expect(200).json();
    for entry in [&history, &audit["items"][0].take()] {
        assert_eq!(entry["changes"], changes, "{entry}");
        assert_eq!((&entry["reason"], &entry["actor"]), (&json!("asked by phone"), &json!("svc:old")));
    }

    // As it is stored, and saying in which form.
    let stored = get("/events").await["items"][1].take();
    let (_, personal) = SAMPLE.split_once('\n').unwrap();
    assert_eq!(stored["event_version"], "1");
    assert_eq!(stored["personal"], serde_json::from_str::<Value>(personal).unwrap());

    let published = subscriber::messages(format!("rollcall.events.{}.>", client.tenant), 2).await.remove(1);
    let body = subscriber::body(&published);
    assert_eq!(
        (&body["version"], &body["changed"], &body["data"]),
        (&json!(2), &json!(["preferences"]), &json!({}))
    );

    // And life goes on, in the form of today.
    let next = prefer(&client, &id, json!({"newsletter": false})).await;
    assert_eq!(next.json()["version"], 3);
    let events = client.get_after(&user(&id, "/events"), next.token()).await.expect(200).json();
    let last = &events["items"][2];
    assert_eq!(last["event_version"], "2");
    let from_it = json!({"email": {"events": {"from": false}, "newsletter": {"from": true, "to": false}}});
    assert_eq!(last["personal"], json!({ "preferences": from_it }));
}
