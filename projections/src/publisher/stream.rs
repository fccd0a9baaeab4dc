//! The JetStream stream: how it is made, and where it stands.
//!
//! What is in the stream was in the log before. So where the last message of a partition is not what the log has there,
//! the log was restored to an earlier point: it is halted until an operator adopts it. After that, what the stream holds
//! of the earlier history counts up to the heads that were adopted.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::jetstream::{
    self, ErrorCode,
    context::GetStreamErrorKind,
    stream::{Config, DiscardPolicy, Info, LastRawMessageErrorKind, StorageType, Stream},
};
use rollcall_event_store::{Log, Partition, Position};
use uuid::Uuid;

use super::message::{ID_HEADER, PARTITION_HEADER, POSITION_HEADER, SOURCE_HEADER};

pub const STREAM: &str = "ROLLCALL";

/// How long a server may take to say that it is there.
const SAYS_SO_WITHIN: Duration = Duration::from_secs(3);

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
    Ahead { partition: Partition, published: Position, head: Position },
    #[error(
        "the stream {STREAM} has another event than the log (partition {partition}, position {position}): the log was \
         restored to an earlier point and written to since"
    )]
    Diverged { partition: Partition, position: Position },
    #[error("the log could not be asked about the stream {STREAM}")]
    Log(#[source] sqlx::Error),
}

impl Error {
    /// Whether a process that has another way to NATS, or is set otherwise, may do better.
    pub(super) fn is_of_nats(&self) -> bool {
        match self {
            Self::Ahead { .. } | Self::Diverged { .. } | Self::Log(_) => false,
            Self::Unreachable(_)
            | Self::NoJetStream
            | Self::Stream(_)
            | Self::Settings(_)
            | Self::Foreign { .. }
            | Self::Moved { .. } => true,
        }
    }
}

/// Whether the server can hold the stream. Asked of the API itself, because what it answers differs between versions
/// more than a typed client bears.
///
/// # Errors
/// [`Error::NoJetStream`] or [`Error::Unreachable`].
pub async fn check(client: &async_nats::Client) -> Result<(), Error> {
    let request = async_nats::Request::new().timeout(Some(SAYS_SO_WITHIN));
    let answer = client.send_request("$JS.API.INFO", request).await.map_err(|error| match error.kind() {
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
    if last == checkpoint_sequence {
        // As long as ours is not yet ours.
        let newest = newest(stream, ">").await?;
        in_log(log, newest.into_iter().collect()).await?;
        return Ok((checkpoint.to_vec(), last));
    }
    let found = in_log(log, newest_of_each(stream, log.partitions()).await?).await?;
    let mut published = Vec::with_capacity(checkpoint.len());
    for (partition, &known) in (0..).zip(checkpoint) {
        published.push(match found.iter().find(|(of, _)| *of == partition) {
            Some((_, position)) => *position,
            // Nothing there: the stream is a new one; or what there was expired, and where the stream is behind the checkpoint, its
            // last messages were lost. However many of them were this partition's, they were not more than all.
            None if last == 0 => 0,
            None => known.saturating_sub(checkpoint_sequence.saturating_sub(last)),
        });
    }
    tracing::info!(last, checkpoint_sequence, "resuming at the tail of the stream");
    Ok((published, last))
}

/// Whether the stream holds what the log does not have, before anything is written. A stream that is not there says
/// nothing.
///
/// # Errors
/// [`Error::Ahead`] and [`Error::Diverged`], and the log is halted then.
pub async fn compare(client: &async_nats::Client, log: &Log) -> Result<(), Error> {
    in_log(log, held(client, log.partitions()).await?).await.map(drop)
}

/// The newest message of each partition, of those that have one; none where there is no stream.
///
/// # Errors
/// Where the stream cannot be read.
pub async fn held(client: &async_nats::Client, partitions: Partition) -> Result<Vec<Newest>, Error> {
    check(client).await?;
    let context = jetstream::new(client.clone());
    match context.get_stream(STREAM).await {
        Ok(stream) => newest_of_each(&stream, partitions).await,
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Ok(Vec::new())
            }
            _ => Err(Error::Stream(Box::new(error))),
        },
    }
}

/// How far the log and the stream agree, by partition: up to each partition's newest message, or, where that is of an
/// earlier history, at most up to the heads that were adopted.
async fn in_log(log: &Log, newest: Vec<Newest>) -> Result<Vec<(Partition, Position)>, Error> {
    // Only now: what was published before was in the log before.
    log.refresh_heads().await.map_err(Error::Log)?;
    let histories = match newest.iter().all(|message| message.log_id == log.log_id()) {
        true => Vec::new(),
        false => log.histories().await.map_err(Error::Log)?,
    };
    let mut found = Vec::with_capacity(newest.len());
    // Those whose event the log must have.
    let mut same = Vec::with_capacity(newest.len());
    for Newest { log_id, partition, position, event_id } in newest {
        if partition >= log.partitions() {
            return Err(Error::Stream(format!("its newest message is of partition {partition}").into()));
        }
        let ours_up_to = match histories.iter().find(|history| history.log_id == log_id) {
            _ if log_id == log.log_id() => Position::MAX,
            Some(history) => history.heads.get(usize::from(partition)).copied().unwrap_or_default(),
            None => return Err(Error::Foreign { found: source_of(log_id) }),
        };
        if position <= ours_up_to {
            let head = log.heads().position(partition);
            if position > head {
                return Err(halted(log, Error::Ahead { partition, published: position, head }).await);
            }
            same.push(((partition, position), event_id));
        }
        found.push((partition, position.min(ours_up_to)));
    }
    let places: Vec<_> = same.iter().map(|(place, _)| *place).collect();
    let ids = log.event_ids(&places).await.map_err(Error::Log)?;
    match same.iter().zip(ids).find(|((_, published), stored)| Some(*published) != *stored) {
        Some((&((partition, position), _), _)) => {
            Err(halted(log, Error::Diverged { partition, position }).await)
        }
        None => Ok(found),
    }
}

/// Halts the log for everybody. Where that cannot be written down it is found again.
async fn halted(log: &Log, why: Error) -> Error {
    match log.halt_all("the publisher", &why.to_string()).await {
        Ok(()) => why,
        Err(error) => Error::Log(error),
    }
}

/// Whether the stream still stands where this publisher left it.
pub(super) async fn still_at(stream: &Stream, sequence: u64) -> Result<(), Error> {
    let info = stream.get_info().await.map_err(|error| Error::Stream(Box::new(error)))?;
    if info.state.last_sequence == sequence {
        return Ok(());
    }
    Err(Error::Moved { expected: sequence, found: info.state.last_sequence })
}

/// A partition's newest message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    pub log_id: Uuid,
    pub partition: Partition,
    pub position: Position,
    pub event_id: Uuid,
}

async fn newest_of_each(stream: &Stream, partitions: Partition) -> Result<Vec<Newest>, Error> {
    let mut each = Vec::with_capacity(usize::from(partitions));
    for partition in 0..partitions {
        each.extend(newest(stream, &format!("rollcall.events.*.*.*.{partition}")).await?);
    }
    Ok(each)
}

/// The last message with a subject.
async fn newest(stream: &Stream, subject: &str) -> Result<Option<Newest>, Error> {
    let message = match stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => message,
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
        Err(error) => return Err(Error::Stream(Box::new(error))),
    };
    let header = |name: &str| message.headers.get(name).map(ToString::to_string).unwrap_or_default();
    let source = header(SOURCE_HEADER);
    let Some(log_id) = source.strip_prefix(SOURCE_PREFIX).and_then(|id| id.parse().ok()) else {
        return Err(Error::Foreign { found: source });
    };
    let missing = |name| Error::Stream(format!("its last message has no {name}").into());
    Ok(Some(Newest {
        log_id,
        partition: header(PARTITION_HEADER).parse().map_err(|_| missing(PARTITION_HEADER))?,
        position: header(POSITION_HEADER).parse().map_err(|_| missing(POSITION_HEADER))?,
        event_id: header(ID_HEADER).parse().map_err(|_| missing(ID_HEADER))?,
    }))
}

const SOURCE_PREFIX: &str = "/rollcall/";

/// The `ce-source` of a log's events.
pub(super) fn source_of(log_id: Uuid) -> String {
    format!("{SOURCE_PREFIX}{log_id}")
}
