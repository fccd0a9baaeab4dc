//! Typed streams of one tenant: cqrs-es's [`EventStore`] over the log.
//!
//! Shape: `load` -> [`Context`] (aggregate, version, key) -> the aggregate's `handle` -> events -> `append`.
//!
//! A [`Codec`] says how an aggregate's events become bytes and what they claim; this module seals, digests and orders.

use std::{collections::HashMap, marker::PhantomData, sync::Arc};

use cqrs_es::{Aggregate, AggregateContext, AggregateError, EventEnvelope, EventStore};
use tokio::sync::MutexGuard;
use uuid::Uuid;

use crate::{
    Log, Partition, Position, Recorded, StreamId,
    append::{self, Append, Appended, Expected, NewDataKey, NewEvent},
    claims::ClaimChange,
    commands::{Idempotency, Record},
    gather,
    keys::{self, DataKey, Opened, Point, SubjectKey},
    load::{self, Loaded, Request},
    snapshots::{self, Outcome},
};

/// How the events of an aggregate become bytes and back.
pub trait Codec: Send + Sync + 'static {
    type Aggregate: Aggregate;

    fn encode(event: &Event<Self>) -> Encoded;

    /// # Errors
    /// Where the bytes are no form that was ever written.
    fn decode(event: &Recorded, personal: Opened) -> Result<Event<Self>, DecodeError>;

    /// What the event takes and releases, as (change, scope, normalised value).
    fn claims(event: &Event<Self>) -> Vec<Claim>;

    /// The shape of snapshots. It rises with every change of their form, and of what the same events fold to: a snapshot of
    /// another shape is ignored.
    const SNAPSHOT_SHAPE: i32;

    /// The aggregate's bytes, before sealing.
    fn snapshot(aggregate: &Self::Aggregate) -> Vec<u8>;

    /// The aggregate of a snapshot; `None` where the bytes are none of this shape.
    fn of_snapshot(snapshot: &[u8]) -> Option<Self::Aggregate>;
}

/// The events of a codec's aggregate.
pub type Event<C> = <<C as Codec>::Aggregate as Aggregate>::Event;

/// An event's stored form, before sealing.
pub struct Encoded {
    pub event_type: &'static str,
    pub event_version: &'static str,
    /// JSON without any personal value.
    pub payload: String,
    /// To be sealed; none where the event has no personal value.
    pub personal: Option<Vec<u8>>,
}

/// A value that a stream takes or releases, unique within its tenant and scope.
pub enum Claim {
    Take { scope: String, value: String },
    Release { scope: String, value: String },
}

#[derive(Debug, thiserror::Error)]
#[error("a stored event cannot be read ({event_type}, partition {partition}, position {position})")]
pub struct DecodeError {
    pub event_type: String,
    pub partition: Partition,
    pub position: Position,
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Gather(#[from] gather::Error<load::Error>),
    #[error(transparent)]
    Keys(#[from] keys::Error),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// An aggregate, and what its next append needs to know.
pub struct Context<A> {
    pub aggregate: A,
    /// Kept beside the events when they are stored, with the status that was answered.
    pub record: Option<(Idempotency, u16)>,
    stream: StreamId,
    expected: Expected,
    key: Key,
    /// What the load had seen of the stream's partition.
    seen: Position,
}

enum Key {
    New(NewDataKey),
    Known(DataKey),
    Erased,
}

impl<A> Context<A> {
    /// The version that the aggregate was loaded at; 0 where it does not exist.
    pub fn version(&self) -> u64 {
        match self.expected {
            Expected::Fresh => 0,
            Expected::Version(version) => version,
        }
    }

    pub fn stream(&self) -> &StreamId {
        &self.stream
    }

    /// The subject was erased: nothing can be sealed for it any more.
    pub fn erased(&self) -> bool {
        matches!(self.key, Key::Erased)
    }
}

impl<A: Aggregate> AggregateContext<A> for Context<A> {
    fn aggregate(&mut self) -> &mut A {
        &mut self.aggregate
    }
}

/// The streams of one tenant and aggregate type. Cheap to make.
pub struct Streams<C> {
    log: Log,
    tenant: Arc<str>,
    aggregate_type: Arc<str>,
    codec: PhantomData<C>,
}

impl<C: Codec> Streams<C> {
    pub fn new(log: Log, tenant: Arc<str>) -> Self {
        let aggregate_type = C::Aggregate::TYPE.into();
        Self { log, tenant, aggregate_type, codec: PhantomData }
    }

    pub fn stream(&self, aggregate_id: &str) -> StreamId {
        StreamId::new(Arc::clone(&self.tenant), Arc::clone(&self.aggregate_type), aggregate_id)
    }

    /// Waits until no other command of this process works on the stream.
    pub async fn turn(&self, aggregate_id: &str) -> MutexGuard<'_, ()> {
        self.log.turns().take(&self.stream(aggregate_id)).await
    }

    /// A new aggregate under a random id that was made a moment ago: nothing is read, nothing probed.
    pub fn fresh(&self, aggregate_id: &str) -> Context<C::Aggregate> {
        self.unknown(self.stream(aggregate_id), Expected::Fresh, 0)
    }

    fn unknown(&self, stream: StreamId, expected: Expected, seen: Position) -> Context<C::Aggregate> {
        let (key, wrapped) = self.log.keys().new_data_key(&stream);
        Context {
            aggregate: C::Aggregate::default(),
            record: None,
            stream,
            expected,
            key: Key::New(NewDataKey { key, wrapped }),
            seen,
        }
    }

    /// The aggregate as the log has it now.
    ///
    /// # Errors
    /// Where the log cannot be read, or holds what this binary cannot read.
    pub async fn load(&self, aggregate_id: &str) -> Result<Context<C::Aggregate>, LoadError> {
        let stream = self.stream(aggregate_id);
        let request = Request::from_snapshot(stream.clone(), C::SNAPSHOT_SHAPE);
        let mut loaded = self.log.loader().get(request).await?;
        let restored = restore::<C>(&stream, &loaded);
        // Whatever is wrong with a snapshot, the events are the truth.
        let replaces = loaded.snapshot.is_some() && restored.is_none();
        if replaces {
            loaded = self.log.loader().get(Request::whole(stream.clone())).await?;
        }
        let (Some((version, seen)), Some(key)) = (loaded.end(), &loaded.key) else {
            return Ok(self.unknown(stream, Expected::Version(0), 0));
        };
        let mut aggregate = restored.unwrap_or_default();
        for event in &loaded.events {
            aggregate.apply(C::decode(event, key.open_event(event)?)?);
        }
        let key = match key {
            SubjectKey::Alive(key) => {
                self.offer_snapshot(&stream, &loaded, &aggregate, key, replaces);
                Key::Known(key.clone())
            }
            SubjectKey::Erased => Key::Erased,
        };
        Ok(Context { aggregate, record: None, stream, expected: Expected::Version(version), key, seen })
    }

    /// Leaves a snapshot behind where many events had to be read; the caller does not wait for it.
    fn offer_snapshot(
        &self,
        stream: &StreamId,
        loaded: &Loaded,
        aggregate: &C::Aggregate,
        key: &DataKey,
        replaces: bool,
    ) {
        let snapshots = self.log.snapshots();
        let wanted = replaces || snapshots.wanted(loaded.events.len());
        if let Some(last) = loaded.events.last().filter(|_| wanted) {
            snapshots.offer(stream, || snapshots::New {
                stream: stream.clone(),
                point: Point { sequence: last.sequence, event_id: last.event_id, shape: C::SNAPSHOT_SHAPE },
                key: key.clone(),
                plain: C::snapshot(aggregate),
                replaces,
            });
        }
    }

    /// Stores what the aggregate decided. Without events and record there is nothing to store.
    ///
    /// # Errors
    /// See [`append::Error`].
    pub async fn append(
        &self,
        events: &[Event<C>],
        context: Context<C::Aggregate>,
        metadata: Arc<str>,
    ) -> Result<Appended, append::Error> {
        let version = context.version() + events.len() as u64;
        let nothing = Appended {
            partition: context.stream.partition(self.log.partitions()),
            position: context.seen,
            recorded_at: None,
        };
        if events.is_empty() && context.record.is_none() {
            return Ok(nothing);
        }
        let (data_key, new_key) = match context.key {
            Key::New(new) => (new.key.clone(), (!events.is_empty()).then_some(new)),
            Key::Known(key) => (key, None),
            Key::Erased => return Err(append::Error::Conflict),
        };
        let mut claims = Vec::new();
        let mut sequence = context.expected.version();
        let new_events = events.iter().map(|event| {
            sequence += 1;
            for claim in C::claims(event) {
                claims.push(match claim {
                    Claim::Take { scope, value } => ClaimChange::Take(self.digest(&scope, &value)),
                    Claim::Release { scope, value } => ClaimChange::Release(self.digest(&scope, &value)),
                });
            }
            let encoded = C::encode(event);
            let event_id = Uuid::now_v7();
            let seal = |plain: Vec<u8>| data_key.seal_event(event_id, &context.stream, sequence, &plain);
            NewEvent {
                event_id,
                event_type: encoded.event_type,
                event_version: encoded.event_version,
                payload: encoded.payload,
                personal: encoded.personal.map(seal),
                metadata: Arc::clone(&metadata),
            }
        });
        let new_events: Vec<NewEvent> = new_events.collect();
        let without_events = new_events.is_empty();
        let appended = self
            .log
            .appender()
            .append(Append {
                stream: context.stream,
                expected: context.expected,
                events: new_events,
                claims,
                record: context.record.map(|(idempotency, status)| Record { idempotency, status, version }),
                data_key: new_key,
            })
            .await?;
        Ok(if without_events { nothing } else { appended })
    }

    fn digest(&self, scope: &str, value: &str) -> keys::Digest {
        self.log.keys().digest(&self.tenant, scope, value.as_bytes())
    }
}

/// The aggregate as its snapshot has it; `None` where there is no snapshot, or none that is of use.
fn restore<C: Codec>(stream: &StreamId, loaded: &Loaded) -> Option<C::Aggregate> {
    let snapshot = loaded.snapshot.as_ref()?;
    // Of an erased subject nothing opens, which is as it should be.
    let Some(SubjectKey::Alive(key)) = &loaded.key else { return None };
    let opened = snapshot.open(stream, key);
    let restored = opened.as_deref().ok().and_then(C::of_snapshot);
    if restored.is_none() {
        Outcome::Unusable.count();
        let position = snapshot.position;
        match opened {
            Err(error) => tracing::warn!(event.position = position, %error, "a snapshot is passed over"),
            Ok(_) => tracing::warn!(
                event.position = position,
                "a snapshot that is none of its shape is passed over"
            ),
        }
    }
    restored
}

/// The framework's contract, for whoever wants to run its machinery on the log. Metadata is stored as it is given;
/// claims that are taken come as an unexpected error whose source is an [`append::Error`].
impl<C: Codec> EventStore<C::Aggregate> for Streams<C> {
    type AC = Context<C::Aggregate>;

    async fn load_events(
        &self,
        aggregate_id: &str,
    ) -> Result<Vec<EventEnvelope<C::Aggregate>>, FrameworkError<C>> {
        let request = Request::whole(self.stream(aggregate_id));
        let loaded = self.log.loader().get(request).await.map_err(unexpected)?;
        let Some(key) = &loaded.key else { return Ok(Vec::new()) };
        loaded
            .events
            .iter()
            .map(|event| {
                let payload =
                    C::decode(event, key.open_event(event).map_err(unexpected)?).map_err(unexpected)?;
                Ok(EventEnvelope {
                    aggregate_id: aggregate_id.to_owned(),
                    sequence: usize::try_from(event.sequence).map_err(unexpected)?,
                    payload,
                    metadata: HashMap::new(),
                })
            })
            .collect()
    }

    async fn load_aggregate(&self, aggregate_id: &str) -> Result<Self::AC, FrameworkError<C>> {
        self.load(aggregate_id).await.map_err(unexpected)
    }

    async fn commit(
        &self,
        events: Vec<Event<C>>,
        context: Self::AC,
        metadata: HashMap<String, String>,
    ) -> Result<Vec<EventEnvelope<C::Aggregate>>, FrameworkError<C>> {
        let aggregate_id = context.stream.aggregate_id.to_string();
        let mut sequence = usize::try_from(context.version()).map_err(unexpected)?;
        let text = serde_json::to_string(&metadata).expect("a map of strings is JSON");
        self.append(&events, context, text.into()).await.map_err(|error| match error {
            append::Error::Conflict => AggregateError::AggregateConflict,
            other => unexpected(other),
        })?;
        let envelope = |payload| {
            sequence += 1;
            EventEnvelope {
                aggregate_id: aggregate_id.clone(),
                sequence,
                payload,
                metadata: metadata.clone(),
            }
        };
        Ok(events.into_iter().map(envelope).collect())
    }
}

type FrameworkError<C> = AggregateError<<<C as Codec>::Aggregate as Aggregate>::Error>;

fn unexpected<E: std::error::Error>(
    error: impl std::error::Error + Send + Sync + 'static,
) -> AggregateError<E> {
    AggregateError::UnexpectedError(Box::new(error))
}
