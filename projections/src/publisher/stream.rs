//! The JetStream stream: how it is made, and where it stands.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::jetstream::{
    self,
    stream::{Config, DiscardPolicy, Info, LastRawMessageErrorKind, StorageType, Stream},
};
use rollcall_event_store::{Log, Position};

use super::message::{POSITION_HEADER, SOURCE_HEADER};

pub const STREAM: &str = "ROLLCALL";

/// What the stream is made with. It keeps the newest and discards the old: the log can refill it.
#[derive(Clone, Debug)]
pub struct Settings {
    pub max_age: Duration,
    pub max_bytes: i64,
    pub duplicate_window: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(30 * 24 * 60 * 60),
            max_bytes: 1 << 30,
            duplicate_window: Duration::from_secs(30),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("NATS cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the NATS server has no JetStream: start nats-server with -js")]
    NoJetStream,
    #[error("the stream {STREAM} cannot be made or read")]
    Stream(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the stream {STREAM} was made with other settings: {0} (an administrator can change them)")]
    Settings(String),
    #[error(
        "the stream {STREAM} holds events of another log ({found}): give this one a NATS account of its own, or delete \
         the stream so that it is filled again"
    )]
    Foreign { found: String },
    #[error("the stream {STREAM} stands at {found} and not at {expected}")]
    Moved { expected: u64, found: u64 },
    #[error(
        "the stream {STREAM} is ahead of the log (partition {partition}: {published} > {head}): the log was restored to \
         an earlier point"
    )]
    Ahead { partition: u16, published: Position, head: Position },
}

/// Whether the server can hold the stream. Asked of the API itself, because what it answers differs between versions
/// more than a typed client bears.
///
/// # Errors
/// [`Error::NoJetStream`] or [`Error::Unreachable`].
pub async fn check(client: &async_nats::Client) -> Result<(), Error> {
    let answer = client.request("$JS.API.INFO", "".into()).await.map_err(|error| match error.kind() {
        RequestErrorKind::NoResponders => Error::NoJetStream,
        _ => Error::Unreachable(Box::new(error)),
    })?;
    let answer: serde_json::Value =
        serde_json::from_slice(&answer.payload).map_err(|error| Error::Unreachable(Box::new(error)))?;
    if answer.get("error").is_some() { Err(Error::NoJetStream) } else { Ok(()) }
}

/// The stream, made where it is not there. Settings are read back: an older server ignores what it does not know.
pub(super) async fn open(context: &jetstream::Context, settings: &Settings) -> Result<Stream, Error> {
    check(&context.client()).await?;
    let wanted = Config {
        name: STREAM.to_owned(),
        subjects: vec!["rollcall.events.>".to_owned(), "rollcall.facts.>".to_owned()],
        discard: DiscardPolicy::Old,
        storage: StorageType::File,
        max_age: settings.max_age,
        max_bytes: settings.max_bytes,
        duplicate_window: settings.duplicate_window,
        ..Config::default()
    };
    let stream =
        context.get_or_create_stream(wanted.clone()).await.map_err(|error| Error::Stream(Box::new(error)))?;
    let found = &stream.cached_info().config;
    if found.subjects != wanted.subjects {
        return Err(Error::Settings(format!("subjects are {:?}", found.subjects)));
    }
    if found.discard != wanted.discard {
        return Err(Error::Settings("it does not discard old messages".to_owned()));
    }
    Ok(stream)
}

/// Where to go on: the published positions and the stream's last sequence.
///
/// Where the stream stands where the checkpoint left it, the checkpoint is right. Where it does not (acknowledgements
/// were lost, or messages were), the last message of each partition says what is there.
pub(super) async fn resume(
    stream: &Stream,
    log: &Log,
    checkpoint: &[Position],
    checkpoint_sequence: u64,
) -> Result<(Vec<Position>, u64), Error> {
    let info: Info = stream.get_info().await.map_err(|error| Error::Stream(Box::new(error)))?;
    let last = info.state.last_sequence;
    let source = format!("/rollcall/{}", log.log_id());
    if last == checkpoint_sequence {
        // As long as ours is not yet ours.
        last_position(stream, ">", &source).await?;
        return Ok((checkpoint.to_vec(), last));
    }
    // Another process may have published what this one has not heard of yet.
    log.refresh_heads().await.map_err(|error| Error::Stream(Box::new(error)))?;
    let mut published = Vec::with_capacity(checkpoint.len());
    for (partition, &known) in (0_u16..).zip(checkpoint) {
        let position =
            match last_position(stream, &format!("rollcall.events.*.*.*.{partition}"), &source).await? {
                Some(position) => position,
                // Nothing there: expired, where the stream went on; lost, where it is behind the checkpoint.
                None if last < checkpoint_sequence => 0,
                None => known,
            };
        let head = log.heads().position(partition);
        if position > head {
            return Err(Error::Ahead { partition, published: position, head });
        }
        published.push(position);
    }
    tracing::info!(last, checkpoint_sequence, "resuming at the tail of the stream");
    Ok((published, last))
}

/// Whether the stream still stands where this publisher left it.
pub(super) async fn still_at(stream: &Stream, sequence: u64) -> Result<(), Error> {
    let info = stream.get_info().await.map_err(|error| Error::Stream(Box::new(error)))?;
    if info.state.last_sequence == sequence {
        return Ok(());
    }
    Err(Error::Moved { expected: sequence, found: info.state.last_sequence })
}

/// The position of the last message with a subject, which must be this log's.
async fn last_position(stream: &Stream, subject: &str, source: &str) -> Result<Option<Position>, Error> {
    let message = match stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => message,
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
        Err(error) => return Err(Error::Stream(Box::new(error))),
    };
    let header = |name: &str| message.headers.get(name).map(ToString::to_string).unwrap_or_default();
    let found = header(SOURCE_HEADER);
    if found != source {
        return Err(Error::Foreign { found });
    }
    header(POSITION_HEADER)
        .parse()
        .map(Some)
        .map_err(|_| Error::Stream("its last message has no position".into()))
}
