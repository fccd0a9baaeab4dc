//! The publisher: a projector whose read model is a JetStream stream.
//!
//! Shape: spans of the log -> messages, pipelined, each naming the stream sequence that it expects before it -> acks ->
//! checkpoint.
//!
//! At least once, in order within a partition. What each message expects before it keeps a publisher that was frozen from
//! publishing old positions again, and nothing overtakes; on a mismatch it reads the stream's tail and resumes there. JetStream is a
//! cache: what it lost is published again from the log.
//!
//! A process that fails at it again and again declines the work for a while: where it alone is cut off from NATS, another
//! one publishes. Where nobody else can, it is tried again at the same pace as ever.

mod message;
mod stream;

use std::time::{Duration, Instant, SystemTime};

use async_nats::jetstream;
use rollcall_event_store::{
    Log, Position, bounded, connect, keyed_session, still_there, tail,
    tail::Span,
    trace::{SPANS_MAX, Traced, Work},
};
use sqlx::{PgConnection, postgres::PgConnectOptions};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use stream::{Error as StreamError, Newest, Settings, check, compare, held};

use self::message::Message;
use crate::{
    checkpoint::{self, Moves},
    leases::{Epoch, Share, Trouble},
    progress::Progress,
    projector::chain,
    schema::Version,
};

pub const NAME: &str = "publisher";
/// Of what it keeps beside its checkpoints.
pub const SHAPE: i32 = 1;

/// What moves the publisher's checkpoints, with how far its stream has come.
pub(crate) const FUNCTIONS: &str = "
    CREATE OR REPLACE FUNCTION projections.advance_published(
        of_projection text, of_version integer, partitions integer[], afters bigint[], untils bigint[], epochs bigint[],
        sequence_before bigint, sequence_after bigint)
    RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM projections.advance(of_projection, of_version, partitions, afters, untils, epochs);
        UPDATE projections.published SET stream_sequence = sequence_after WHERE stream_sequence = sequence_before;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'another process has published' USING ERRCODE = 'RC001';
        END IF;
    END $$;";

/// Events that are on their way at once at most.
const BATCH_EVENTS_MAX: u64 = 1_000;
const ACK_WITHIN: Duration = Duration::from_secs(5);
/// How long NATS may take to say what it holds of 16 partitions: it is asked about each.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// How long events may gather at most before the next batch.
const GATHER_MAX: Duration = Duration::from_millis(2);
/// How often an idle publisher looks whether its stream is still there.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Its only unit: all partitions.
const UNIT: u16 = 0;
/// Characters of an error that are told beside the lease.
const TOLD_MAX: usize = 1_000;
/// Failures in a row, about ten seconds of them where NATS is silent, before others may try.
const FAILURES_MAX: u32 = 3;
/// For how long others may: longer each time, until it goes well.
const DECLINES_FOR_MIN: Duration = Duration::from_secs(10);
const DECLINES_FOR_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Tail(#[from] tail::Error),
    #[error("NATS did not take the events")]
    Publish(#[from] jetstream::context::PublishError),
    #[error("events could not be sent to NATS")]
    Send(#[source] async_nats::PublishError),
    #[error(transparent)]
    Stream(#[from] stream::Error),
    #[error("another process publishes")]
    Overtaken,
    #[error("NATS put an event at {found} of its stream instead of {expected}")]
    Misplaced { expected: u64, found: u64 },
}

/// Where NATS cannot be reached, its client's queue may be full, and take nothing more: what is asked then has a bound of its
/// own.
async fn answered<T>(
    partitions: u16,
    asked: impl Future<Output = Result<T, stream::Error>>,
) -> Result<T, stream::Error> {
    let unreachable = |late| stream::Error::Unreachable(Box::new(late));
    tokio::time::timeout(ANSWERS_WITHIN * (1 + u32::from(partitions) / 16), asked)
        .await
        .unwrap_or_else(|late| Err(unreachable(late)))
}

impl Error {
    /// Whether a process that has another way to NATS may do better.
    fn is_of_nats(&self) -> bool {
        match self {
            Self::Database(_) | Self::Tail(_) | Self::Overtaken => false,
            Self::Stream(error) => error.is_of_nats(),
            Self::Publish(_) | Self::Send(_) | Self::Misplaced { .. } => true,
        }
    }
}

/// What is known of the publisher, for readiness and health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not reached NATS yet.
    Starting,
    /// Another process publishes; this one will when that one is gone.
    StandingBy,
    Publishing,
    /// What is wrong; it goes on trying.
    Failing(String),
}

/// Publishes all partitions. One is active at a time, by a lease; one that lost it without knowing is kept out by the expected
/// sequences and by the epoch of its checkpoint.
pub struct Publisher {
    version: Version,
    log: Log,
    options: PgConnectOptions,
    client: async_nats::Client,
    settings: Settings,
    progress: Progress,
    status: watch::Sender<Status>,
    trouble: Trouble,
    luck: Luck,
}

/// How it has gone of late.
struct Luck {
    /// In a row, since it last went well or the work was declined.
    failures: u32,
    declines_for: Duration,
}

impl Luck {
    const NEW: Self = Self { failures: 0, declines_for: DECLINES_FOR_MIN };

    /// For how long the work is declined after a further failure, where it is.
    fn failed(&mut self) -> Option<Duration> {
        self.failures += 1;
        if self.failures < FAILURES_MAX {
            return None;
        }
        let time = self.declines_for;
        *self = Self { failures: 0, declines_for: (time * 2).min(DECLINES_FOR_MAX) };
        Some(time)
    }
}

/// Where publishing stands.
struct Checkpoint {
    published: Vec<Position>,
    stream_sequence: u64,
}

impl Publisher {
    /// `status` is where it says how it is.
    pub fn new(
        version: Version,
        log: Log,
        service: &PgConnectOptions,
        (client, settings): (async_nats::Client, Settings),
        share: &Share,
        progress: Progress,
        status: watch::Sender<Status>,
    ) -> Self {
        let options = keyed_session(service, share.session_name()).options([("synchronous_commit", "off")]);
        // Known before they first happen, so that a rate has somewhere to rise from.
        for name in ["rollcall_published_events_total", "rollcall_publisher_failures_total"] {
            metrics::counter!(name).increment(0);
        }
        metrics::gauge!("rollcall_publisher_publishing").set(0.0);
        let (trouble, luck) = (share.trouble(), Luck::NEW);
        Self { version, log, options, client, settings, progress, status, trouble, luck }
    }

    /// Works until the shutdown.
    pub async fn run(mut self, mut share: Share, shutdown: CancellationToken) {
        loop {
            if !share.holds() {
                metrics::gauge!("rollcall_publisher_publishing").set(0.0);
                self.trouble.over(UNIT);
                // As long as it declines it says why: somebody should see to that.
                if !(share.declines() && matches!(*self.status.borrow(), Status::Failing(_))) {
                    self.status.send_replace(Status::StandingBy);
                }
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    more = share.changed() => if !more {
                        return;
                    },
                    // The member said again that it lives.
                    () = tokio::time::sleep(RETRY_PAUSE) => {}
                }
                continue;
            }
            let outcome = tokio::select! {
                () = shutdown.cancelled() => return,
                outcome = self.follow(&share) => outcome,
            };
            let error = match outcome {
                Ok(()) => continue,
                Err(error) => error,
            };
            let text = chain(&error);
            self.trouble.is(UNIT, text.chars().take(TOLD_MAX).collect());
            let failing = Status::Failing(text.clone());
            if self.status.send_replace(failing.clone()) != failing {
                tracing::warn!(error = %text, "publishing failed; trying again");
            }
            if error.is_of_nats()
                && let Some(time) = self.luck.failed()
            {
                share.decline_for(time);
                tracing::info!(
                    seconds = time.as_secs(),
                    "another process may publish meanwhile, if there is one"
                );
            }
            metrics::counter!("rollcall_publisher_failures_total").increment(1);
            metrics::gauge!("rollcall_publisher_publishing").set(0.0);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }

    /// Publishes for as long as the lease is held.
    async fn follow(&mut self, share: &Share) -> Result<(), Error> {
        let context = jetstream::ContextBuilder::new()
            .timeout(ACK_WITHIN)
            .max_ack_inflight(usize::try_from(BATCH_EVENTS_MAX).expect("a small number") * 2)
            .build(self.client.clone());
        let partitions = self.log.partitions();
        let stream = answered(partitions, stream::open(&context, &self.settings)).await?;
        let mut connection = connect(&self.options).await?;
        let mut news = self.log.heads().news();
        let Some(turn) = share.turn().await else { return Ok(()) };
        let Some(epoch) = turn.epoch(0) else { return Ok(()) };
        let stored = bounded(self.read_checkpoint(&mut connection)).await?;
        let resumed = stream::resume(&stream, &self.log, &stored.published, stored.stream_sequence);
        let mut at = answered(partitions, resumed)
            .await
            .map(|(published, stream_sequence)| Checkpoint { published, stream_sequence })?;
        bounded(self.store_checkpoint(&mut connection, epoch, &stored, &at)).await?;
        drop(turn);
        self.status.send_replace(Status::Publishing);
        metrics::gauge!("rollcall_publisher_publishing").set(1.0);
        loop {
            news.borrow_and_update();
            let spans = self.spans(&at);
            if spans.is_empty() {
                self.trouble.over(UNIT);
                let since = Instant::now();
                tokio::select! {
                    changed = news.changed() => {
                        if changed.is_err() {
                            return Ok(());
                        }
                    }
                    // A stream that was deleted, or a server that lost it, says nothing by itself.
                    () = tokio::time::sleep(LOOK_EVERY) => {
                        let Some(_turn) = share.turn().await else { return Ok(()) };
                        stream::still_at(&stream, at.stream_sequence).await?;
                        self.went_well(share);
                    }
                }
                still_there(&mut connection, since).await?;
                continue;
            }
            // Another's epoch means that somebody else published in between.
            let Some(turn) = share.turn().await else { return Ok(()) };
            if turn.epoch(0) != Some(epoch) {
                return Ok(());
            }
            let begun = Instant::now();
            let before = Checkpoint { published: at.published.clone(), stream_sequence: at.stream_sequence };
            at.stream_sequence = self.publish(&mut connection, &context, &spans, at.stream_sequence).await?;
            for span in &spans {
                at.published[usize::from(span.partition)] = span.until;
            }
            bounded(self.store_checkpoint(&mut connection, epoch, &before, &at)).await?;
            drop(turn);
            self.went_well(share);
            // As projections do: a busy machine makes larger batches, an idle one waits for next to nothing.
            if spans.iter().map(Span::events).sum::<u64>() < BATCH_EVENTS_MAX / 2 {
                tokio::time::sleep(begun.elapsed().min(GATHER_MAX)).await;
            }
        }
    }

    fn went_well(&mut self, share: &Share) {
        self.luck = Luck::NEW;
        self.trouble.over(UNIT);
        share.accept();
    }

    fn spans(&self, at: &Checkpoint) -> Vec<Span> {
        let behind = |partition: u16| {
            let (after, until) = (at.published[usize::from(partition)], self.log.heads().position(partition));
            (until > after).then_some(Span { partition, after, until })
        };
        let mut spans: Vec<Span> = (0..self.log.partitions()).filter_map(behind).collect();
        let each = BATCH_EVENTS_MAX / spans.len().max(1) as u64;
        for span in &mut spans {
            span.until = span.until.min(span.after + each.max(1));
        }
        spans
    }

    /// Publishes the spans and waits until all of it is stored; the stream's last sequence then.
    ///
    /// Each message names the sequence that it expects before it and, inside the batch, the message. So an event of a
    /// partition is stored only right behind the one before it, whoever stored that, and the acknowledgement of a span's
    /// last event speaks for the whole span: those are asked for, and read. It does not speak for other partitions: with
    /// a second publisher at work a span may be refused and the next one fit again.
    async fn publish(
        &self,
        connection: &mut PgConnection,
        context: &jetstream::Context,
        spans: &[Span],
        last: u64,
    ) -> Result<u64, Error> {
        let begun = Instant::now();
        let work = Work::begin(|| "projections.publisher.publish".into());
        let events = bounded(self.log.read_spans(connection, spans)).await?;
        let source = stream::source_of(self.log.log_id());
        let mut acks = Vec::with_capacity(spans.len());
        let mut sequence = last;
        let mut previous = None;
        for (place, event) in events.iter().enumerate() {
            let Message { subject, headers, body } = Message::of_event(event, &source, sequence, previous);
            sequence += 1;
            previous = Some(event.event_id);
            let ends_span = events.get(place + 1).is_none_or(|next| next.partition != event.partition);
            if ends_span {
                acks.push((sequence, context.publish_with_headers(subject, headers, body).await?));
            } else {
                self.client.publish_with_headers(subject, headers, body).await.map_err(Error::Send)?;
            }
        }
        for (expected, ack) in acks {
            let found = ack.await?.sequence;
            if found != expected {
                return Err(Error::Misplaced { expected, found });
            }
        }
        metrics::counter!("rollcall_published_events_total").increment(events.len() as u64);
        metrics::histogram!("rollcall_publisher_batch_seconds").record(begun.elapsed().as_secs_f64());
        if let Some(work) = work {
            let ended = SystemTime::now();
            let traced: Vec<Traced> =
                events.iter().filter_map(|event| Traced::of(event)).take(SPANS_MAX).collect();
            work.end_events(ended, &traced);
        }
        Ok(sequence)
    }

    async fn read_checkpoint(&self, connection: &mut PgConnection) -> Result<Checkpoint, Error> {
        let published = checkpoint::read(connection, self.version).await?;
        if published.len() != usize::from(self.log.partitions()) {
            return Err(sqlx::Error::RowNotFound.into());
        }
        let sequence: i64 = sqlx::query_scalar(
            "SELECT stream_sequence FROM projections.published ORDER BY stream_sequence DESC LIMIT 1",
        )
        .fetch_one(connection)
        .await?;
        Ok(Checkpoint { published, stream_sequence: u64::try_from(sequence).unwrap_or_default() })
    }

    /// Moves the checkpoint under the lease's epoch; another process that moved it or took the lease meanwhile wins.
    async fn store_checkpoint(
        &self,
        connection: &mut PgConnection,
        epoch: Epoch,
        before: &Checkpoint,
        after: &Checkpoint,
    ) -> Result<(), Error> {
        let positions = before.published.iter().zip(&after.published).zip(0_u16..);
        let mut spans: Vec<(Span, Epoch)> = positions
            .filter(|((before, after), _)| before != after)
            .map(|((&after, &until), partition)| (Span { partition, after, until }, epoch))
            .collect();
        if spans.is_empty() {
            // One goes to where it is: its epoch keeps an old publisher out.
            let at = after.published[0];
            spans.push((Span { partition: 0, after: at, until: at }, epoch));
        }
        let statement = Moves::over(self.version, &spans)
            .bind("SELECT projections.advance_published($1, $2, $3, $4, $5, $6, $7, $8)")
            .bind(before.stream_sequence.cast_signed())
            .bind(after.stream_sequence.cast_signed());
        statement.execute(connection).await.map_err(|error| match checkpoint::overtaken(&error) {
            true => Error::Overtaken,
            false => error.into(),
        })?;
        for (partition, &position) in (0..).zip(&after.published) {
            self.progress.advance(partition, position);
        }
        Ok(())
    }
}
