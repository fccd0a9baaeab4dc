//! A JetStream subscriber from the first message on: it remembers what it saw, in the order in which it saw it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_nats::jetstream::{
    self,
    consumer::{DeliverPolicy, pull::OrderedConfig},
};
use futures_util::StreamExt;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Silence after which it connects again: a server that froze says nothing.
const SILENCE_MAX: Duration = Duration::from_secs(3);
const RETRY_AFTER: Duration = Duration::from_millis(200);

#[derive(Clone, Debug)]
pub struct Message {
    pub partition: i32,
    pub position: i64,
    pub event_id: String,
}

pub struct Subscriber {
    seen: Arc<Mutex<Vec<Message>>>,
    task: JoinHandle<()>,
}

impl Subscriber {
    /// Of a private server, whose subscribers need no password.
    pub fn start(url: &str) -> Self {
        let url = format!("nats://{}", url.rsplit_once('@').unwrap().1);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn({
            let seen = Arc::clone(&seen);
            async move {
                let mut next = 1;
                loop {
                    // Whatever ends it, it goes on behind the last message that it saw.
                    let _ = follow(&url, &mut next, &seen).await;
                    sleep(RETRY_AFTER).await;
                }
            }
        });
        Self { seen, task }
    }

    pub fn seen(&self) -> Vec<Message> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(url: &str, next: &mut u64, seen: &Mutex<Vec<Message>>) -> Option<()> {
    let client = timeout(SILENCE_MAX, async_nats::connect(url)).await.ok()?.ok()?;
    let stream = jetstream::new(client).get_stream("ROLLCALL").await.ok()?;
    let configuration = OrderedConfig {
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: *next },
        headers_only: true,
        ..OrderedConfig::default()
    };
    let consumer = stream.create_consumer(configuration).await.ok()?;
    let mut messages = consumer.messages().await.ok()?;
    loop {
        let message = timeout(SILENCE_MAX, messages.next()).await.ok()??.ok()?;
        *next = message.info().ok()?.stream_sequence + 1;
        let headers = message.headers.as_ref().unwrap();
        let number = |name: &str| headers.get(name).unwrap().as_str().parse::<i64>().unwrap();
        seen.lock().unwrap().push(Message {
            partition: number("ce-partition").try_into().unwrap(),
            position: number("ce-position"),
            event_id: headers.get("ce-id").unwrap().to_string(),
        });
    }
}
