//! Reads the JetStream stream whole.

use std::collections::BTreeMap;

use async_nats::{
    ConnectOptions, ServerAddr,
    jetstream::{self, consumer::pull::OrderedConfig},
};
use futures_util::StreamExt;

use crate::{log::Event, rollcall::eventually};

/// What a message says of itself.
#[derive(Clone, Debug)]
pub struct Message {
    pub event_id: String,
    pub partition: i32,
    pub position: i64,
}

/// A client with the user and password of the URL.
async fn connect(url: &str) -> Option<async_nats::Client> {
    let address: ServerAddr = url.parse().unwrap();
    let options = match (address.username(), address.password()) {
        (Some(user), Some(password)) => {
            ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        }
        _ => ConnectOptions::new(),
    };
    options.connect(address).await.ok()
}

/// All that the stream holds, in its order; none where it cannot be read at the moment.
async fn read(url: &str) -> Option<Vec<Message>> {
    let context = jetstream::new(connect(url).await?);
    let stream = context.get_stream("ROLLCALL").await.ok()?;
    let state = stream.get_info().await.ok()?.state;
    if state.messages == 0 {
        return Some(Vec::new());
    }
    let configuration = OrderedConfig { headers_only: true, ..OrderedConfig::default() };
    let mut messages = stream.create_consumer(configuration).await.ok()?.messages().await.ok()?;
    let mut read = Vec::new();
    loop {
        let message = messages.next().await?.ok()?;
        let headers = message.headers.as_ref().unwrap();
        read.push(Message {
            event_id: headers.get("ce-id").unwrap().to_string(),
            partition: headers.get("ce-partition").unwrap().as_str().parse().unwrap(),
            position: headers.get("ce-position").unwrap().as_str().parse().unwrap(),
        });
        if message.info().unwrap().stream_sequence >= state.last_sequence {
            return Some(read);
        }
    }
}

/// Waits until every event was published, and checks that each partition's come in their order, each once: the log's
/// events and nothing else.
pub async fn assert_all(url: &str, events: &[Event]) {
    let messages = eventually("the publishing of every event", async || {
        read(url).await.filter(|messages| messages.len() >= events.len())
    })
    .await;
    let mut by_partition: BTreeMap<i32, Vec<&Message>> = BTreeMap::new();
    for message in &messages {
        by_partition.entry(message.partition).or_default().push(message);
    }
    let mut expected: BTreeMap<i32, Vec<&Event>> = BTreeMap::new();
    for event in events {
        expected.entry(event.partition).or_default().push(event);
    }
    for (partition, events) in &expected {
        let published: Vec<i64> = by_partition[partition].iter().map(|message| message.position).collect();
        let recorded: Vec<i64> = events.iter().map(|event| event.position).collect();
        assert_eq!(published, recorded, "partition {partition} was published otherwise than it was recorded");
        for (message, event) in by_partition[partition].iter().zip(events) {
            assert_eq!(message.event_id, event.event_id.to_string());
        }
    }
    assert_eq!(messages.len(), events.len(), "something was published that is not in the log");
}
