//! A subscriber of JetStream hears of every event, with one filter.

use std::collections::BTreeMap;

use async_nats::jetstream::{self, Message, consumer::pull};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    USERS, ada,
    rollcall::{PATIENCE, Rollcall},
    user,
};

/// As anybody may: without a password.
async fn connect() -> async_nats::Client {
    let url = &Rollcall::shared().ready.nats;
    let place = url.rsplit_once('@').expect("a URL with a password").1;
    async_nats::connect(format!("nats://{place}")).await.unwrap()
}

/// The messages of one filter from the beginning of the stream.
pub async fn messages(filter: String, count: usize) -> Vec<Message> {
    let stream = jetstream::new(connect().await).get_stream("ROLLCALL").await.unwrap();
    let config = pull::OrderedConfig { filter_subject: filter, ..pull::OrderedConfig::default() };
    let consumer = stream.create_consumer(config).await.unwrap();
    let messages = consumer.messages().await.unwrap().take(count).map(Result::unwrap).collect();
    timeout(PATIENCE, messages).await.expect("messages in time")
}

fn headers(message: &Message) -> BTreeMap<String, String> {
    let headers = message.headers.as_ref().unwrap();
    headers.iter().map(|(name, values)| (name.to_string(), values[0].to_string())).collect()
}

pub fn body(message: &Message) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn an_event_is_published_as_a_cloud_event() {
    let client = Rollcall::shared().new_tenant();
    let sent = [("Correlation-Id", "c-1"), ("Causation-Id", "m-1"), ("traceparent", TRACE)];
    let created = client.call("POST", USERS, &sent, Some(&ada())).await.expect(201);
    let id = created.id();
    let events = client.get_after(&user(&id, "/events"), created.token()).await.expect(200).json();
    let event = &events["items"][0];
    let detailed = client.get("/health/detailed").await.expect(200).json();

    let message = messages(format!("rollcall.events.{}.>", client.tenant), 1).await.remove(0);
    let subject = format!("rollcall.events.{}.user.UserCreated.{}", client.tenant, event["partition"]);
    assert_eq!(message.subject.as_str(), subject);
    let mut headers = headers(&message);
    // What it must follow keeps a publisher that was frozen from publishing it again; inside a batch that is a message too.
    assert!(headers.remove("Nats-Expected-Last-Sequence").is_some(), "{headers:?}");
    headers.remove("Nats-Expected-Last-Msg-Id");
    let text = |name: &str| event[name].as_str().unwrap().to_owned();
    let number = |name: &str| event[name].as_u64().unwrap().to_string();
    let expected = [
        ("Nats-Msg-Id", text("event_id")),
        ("ce-specversion", "1.0".into()),
        ("ce-id", text("event_id")),
        ("ce-source", format!("/rollcall/{}", detailed["log"]["log_id"].as_str().unwrap())),
        ("ce-type", "UserCreated".into()),
        ("ce-subject", id.clone()),
        ("ce-time", text("recorded_at")),
        ("ce-sequence", "1".into()),
        ("ce-partition", number("partition")),
        ("ce-position", number("position")),
        ("ce-correlationid", "c-1".into()),
        ("ce-causationid", "m-1".into()),
        ("traceparent", TRACE.into()),
        ("content-type", "application/json".into()),
    ];
    assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value)).into());
    let body = body(&message);
    assert_eq!(
        (&body["id"], &body["tenant"], &body["version"]),
        (&json!(id), &json!(client.tenant), &json!(1))
    );
    let changed = [
        "kind",
        "status",
        "email",
        "given_name",
        "family_name",
        "phone",
        "locale",
        "time_zone",
        "preferences",
        "traits",
        "associations",
        "external_ids",
    ];
    assert_eq!(body["changed"], json!(changed));
}

#[tokio::test]
async fn no_message_holds_a_value_about_a_person() {
    let client = Rollcall::shared().new_tenant();
    let mut person = ada();
    person["reason"] = "she asked for it".into();
    person["address"] = json!({"locality": "Ockham"});
    let id = client.post(USERS, person).await.expect(201).id();
    let patch = json!({"display_name": "Countess", "reason": "married", "traits": {"rank": "nobility"}});
    client.patch(&user(&id, ""), patch).await.expect(200);
    client.post(&user(&id, "/change-email"), json!({"email": "countess@example.org"})).await.expect(200);
    client.post(&user(&id, "/verify-email"), json!({"email": "countess@example.org"})).await.expect(200);
    client.call("PUT", &user(&id, "/associations/team/analysts"), &[], None).await.expect(200);
    client.call("DELETE", &user(&id, "/associations/membership/gold"), &[], None).await.expect(200);
    let preferences = json!({"email": {"offers": false}});
    client.call("PUT", &user(&id, "/preferences"), &[], Some(&preferences)).await.expect(200);
    let terms = json!({"policy": "privacy", "version": "2026-01", "reason": "on paper"});
    client.post(&user(&id, "/accept-terms"), terms).await.expect(200);
    client.post(&user(&id, "/deactivate"), json!({"reason": "died"})).await.expect(200);
    let last = client.post(&user(&id, "/reactivate"), json!({"reason": "an error"})).await.expect(200);

    let count = last.json()["version"].as_u64().unwrap();
    let messages = messages(format!("rollcall.events.{}.>", client.tenant), count as usize).await;
    for (message, version) in messages.iter().zip(1_u64..) {
        assert_eq!(body_version(message), version, "in order");
        let text = format!("{:?} {}", headers(message), String::from_utf8_lossy(&message.payload));
        for personal in [
            "ada@",
            "countess",
            "Ada",
            "Lovelace",
            "Countess",
            "+4930",
            "R&D",
            "department",
            "gold",
            "E0001",
            "Ockham",
            "asked",
            "married",
            "nobility",
            "rank",
            "analysts",
            "newsletter",
            "offers",
            "paper",
            "died",
            "an error",
        ] {
            assert!(!text.contains(personal), "{personal} is in {text}");
        }
    }
    assert_eq!(body(&messages[1])["changed"], json!(["display_name"]));
    let accepted = messages.iter().find(|message| message.subject.contains("TermsAccepted")).unwrap();
    assert_eq!(body(accepted)["data"], json!({"policy": "privacy", "version": "2026-01"}));
}

fn body_version(message: &Message) -> u64 {
    body(message)["version"].as_u64().unwrap()
}

#[tokio::test]
async fn one_filter_chooses_an_event_or_a_partition() {
    let client = Rollcall::shared().new_tenant();
    let mut in_partition = BTreeMap::<u64, Vec<String>>::new();
    for index in 0..12 {
        let id = client.create(&format!("u{index}@example.com")).await.expect(201).id();
        let moved = json!({"email": format!("v{index}@example.com")});
        let token = client.post(&user(&id, "/change-email"), moved).await.expect(200).token().to_owned();
        let events = client.get_after(&user(&id, "/events"), &token).await.expect(200).json();
        in_partition.entry(events["items"][0]["partition"].as_u64().unwrap()).or_default().push(id);
    }
    assert!(in_partition.len() > 1);
    let changed = messages(format!("rollcall.events.{}.user.EmailChanged.*", client.tenant), 12).await;
    assert!(changed.iter().all(|message| headers(message)["ce-type"] == "EmailChanged"));
    for (partition, ids) in in_partition {
        let filter = format!("rollcall.events.{}.user.*.{partition}", client.tenant);
        let of_partition = messages(filter, ids.len() * 2).await;
        let mut subjects: Vec<_> =
            of_partition.iter().map(|message| headers(message)["ce-subject"].clone()).collect();
        subjects.dedup();
        assert_eq!(subjects, ids);
        let positions: Vec<u64> =
            of_partition.iter().map(|message| headers(message)["ce-position"].parse().unwrap()).collect();
        assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
    }
}

#[tokio::test]
async fn a_subscriber_without_a_password_cannot_publish() {
    let client = connect().await;
    let subject = "rollcall.events.acme.user.UserCreated.0";
    let context = jetstream::ContextBuilder::new().timeout(std::time::Duration::from_secs(1)).build(client);
    let ack = context.publish(subject, "forged".into()).await.unwrap();
    assert!(ack.await.is_err());
    let stream = context.get_stream("ROLLCALL").await.unwrap();
    assert!(stream.get_last_raw_message_by_subject(subject).await.is_err());
}
