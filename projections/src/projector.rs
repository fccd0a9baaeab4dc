//! The projector: keeps a read model up to the log.
//!
//! The unit of work is (projection, partition), with a checkpoint each, and leased: see [`leases`](crate::leases). A batch
//! takes the news of all partitions that this process holds at once and is one transaction: move the checkpoints under the
//! leases' epochs, apply, commit. When a batch fails for a reason that lies in an event, the partitions are tried one by one, so that the
//! others go on; the one that fails stops there, loudly, and is tried again.
//!
//! If the process dies before the commit, nothing has happened; after it, everything has, on disk: what a token has shown
//! once it shows after a crash of the server as well.

use std::time::{Duration, Instant, SystemTime};

use rollcall_event_store::{
    Log, Partition, Position, bounded, keyed_session, keys, tail, tail::Span, trace::Work,
};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio_util::sync::CancellationToken;

use crate::{
    checkpoint,
    drift::{Drift, Folded, RowKey, Swept},
    leases::{Epoch, Share, Turn},
    progress::Progress,
    schema::{Schema, Version},
};

/// Events that one transaction applies at most.
const BATCH_EVENTS_MAX: u64 = 4_000;
/// How long events may gather at most before the next batch.
const GATHER_MAX: Duration = Duration::from_millis(8);
/// How long to wait for a lease before looking again.
const LEASE_PAUSE: Duration = Duration::from_millis(500);
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// A read model in PostgreSQL.
pub trait Projection: Send + Sync + 'static {
    const SCHEMA: &'static Schema;

    /// The projection into one of its versions.
    fn of(log: &Log, version: Version) -> Self;

    /// Applies the events of the spans, by set operations, in the transaction that moves the checkpoints.
    fn apply(
        &self,
        transaction: &mut PgConnection,
        spans: &[Span],
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// SQL that counts, for each partition of a projection ($1) and version ($2), the rows that are there and those that
    /// should be.
    fn count(&self) -> &'static str;

    /// The fields of each stream's rows that are not what its events say, by name; for a row that is not there
    /// [`MISSING`](crate::drift::MISSING), for one too many [`SURPLUS`](crate::drift::SURPLUS).
    fn differences(
        &self,
        connection: &mut PgConnection,
        folded: &[Folded],
    ) -> impl Future<Output = Result<Vec<Vec<String>>, Error>> + Send;

    /// A page of the rows by their key, after one of them or from the first, and those of them that no applied event
    /// accounts for.
    fn swept(
        &self,
        connection: &mut PgConnection,
        after: Option<&RowKey>,
        rows_max: u32,
    ) -> impl Future<Output = Result<Swept, Error>> + Send;

    /// Makes the rows of a stream anew from its events, while no batch of its partition can run.
    fn repair(
        &self,
        transaction: &mut PgConnection,
        drift: &Drift,
        folded: &Folded,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Tail(#[from] tail::Error),
    #[error(transparent)]
    Keys(#[from] keys::Error),
    #[error("an event cannot be read (partition {partition}, position {position})")]
    Event { partition: Partition, position: Position, source: rollcall_domain::stored::Error },
    #[error("a row cannot be read (partition {partition}, position {position})")]
    Row { partition: Partition, position: Position },
    #[error(
        "a row is at version {found}, but the next event makes version {next} (partition {partition}, position \
         {position}): rebuild the projection"
    )]
    Gap { found: u64, next: u64, partition: Partition, position: Position },
}

impl Error {
    /// Whether trying again may help without anybody's doing.
    fn transient(&self) -> bool {
        match self {
            Self::Database(error)
            | Self::Tail(tail::Error::Database(error))
            | Self::Keys(keys::Error::Database(error)) => transient(error),
            _ => false,
        }
    }
}

/// Not where a row is at fault: SQLSTATE classes 22 (data), 23 (integrity), 42 (syntax or access), 54 (limits).
fn transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error
            .code()
            .is_none_or(|code| !["22", "23", "42", "54"].iter().any(|class| code.starts_with(class))),
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound => false,
        _ => true,
    }
}

/// Runs one projection over the partitions that this process holds.
pub struct Projector<P> {
    projection: P,
    version: Version,
    log: Log,
    options: PgConnectOptions,
    progress: Progress,
    /// What is held, and since which epoch the checkpoint is known.
    held: Vec<Option<Epoch>>,
    applied: Vec<Position>,
    /// Halved when a batch fails, doubled when one succeeds: a batch that is too large for the time it has gets through.
    batch_events: u64,
    /// When partitions that stopped at an event are tried again.
    stopped: Vec<Option<Instant>>,
}

impl<P: Projection> Projector<P> {
    /// `progress` is what readers of this process wait on.
    pub fn new(
        version: Version,
        log: Log,
        service: &PgConnectOptions,
        share: &Share,
        progress: Progress,
    ) -> Self {
        let options = keyed_session(service, share.session_name());
        let partitions = log.partitions();
        let label = P::SCHEMA.name;
        // Known before they first happen, so that a rate has somewhere to rise from.
        for name in ["rollcall_projection_events_total", "rollcall_projection_failures_total"] {
            metrics::counter!(name, "projection" => label).increment(0);
        }
        metrics::gauge!("rollcall_projection_partitions_stopped", "projection" => label).set(0.0);
        Self {
            projection: P::of(&log, version),
            version,
            log,
            options,
            progress,
            held: vec![None; usize::from(partitions)],
            applied: vec![0; usize::from(partitions)],
            batch_events: BATCH_EVENTS_MAX,
            stopped: vec![None; usize::from(partitions)],
        }
    }

    /// Works until the shutdown; a batch that was begun is finished or rolled back.
    pub async fn run(mut self, mut share: Share, shutdown: CancellationToken) {
        let mut pause = RETRY_PAUSE_MIN;
        while !shutdown.is_cancelled() {
            match self.follow(&mut share, &shutdown, &mut pause).await {
                Ok(()) => return,
                // The version was dropped under our hands.
                Err(_) if share.gone() => return,
                Err(error) => {
                    self.batch_events = (self.batch_events / 2).max(1);
                    tracing::warn!(version = self.version.qualifier(), error = %chain(&error), "projecting failed; trying again");
                    metrics::counter!("rollcall_projection_failures_total", "projection" => P::SCHEMA.name)
                        .increment(1);
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                }
            }
        }
    }

    async fn follow(
        &mut self,
        share: &mut Share,
        shutdown: &CancellationToken,
        pause: &mut Duration,
    ) -> Result<(), Error> {
        let mut connection = bounded(PgConnection::connect_with(&self.options)).await?;
        let mut news = self.log.heads().news();
        self.forget();
        loop {
            news.borrow_and_update();
            if shutdown.is_cancelled() {
                return Ok(());
            }
            let Some(turn) = share.turn().await else {
                self.forget();
                tokio::select! {
                    () = shutdown.cancelled() => return Ok(()),
                    more = share.changed() => if !more {
                        return Ok(());
                    },
                    // The member said again that it lives.
                    () = tokio::time::sleep(LEASE_PAUSE) => {}
                }
                continue;
            };
            self.settle(&mut connection, &turn).await?;
            let spans = self.spans();
            if spans.is_empty() {
                drop(turn);
                tokio::select! {
                    () = shutdown.cancelled() => return Ok(()),
                    changed = news.changed() => {
                        if changed.is_err() {
                            return Ok(());
                        }
                    }
                    more = share.changed() => if !more {
                        return Ok(());
                    },
                    // A partition that stopped is tried again, news or no news.
                    () = tokio::time::sleep(RETRY_PAUSE_MAX) => {}
                }
                continue;
            }
            let begun = Instant::now();
            match bounded(self.batch(&mut connection, &spans)).await {
                Ok(()) => {
                    *pause = RETRY_PAUSE_MIN;
                    self.batch_events = (self.batch_events * 2).min(BATCH_EVENTS_MAX);
                    drop(turn);
                    self.gather(begun.elapsed(), &spans).await;
                }
                Err(error) if error.transient() => return Err(error),
                Err(error) if spans.len() == 1 => self.stop(spans[0].0.partition, &error),
                Err(_) => {
                    for span in spans {
                        if let Err(error) = bounded(self.batch(&mut connection, &[span])).await {
                            if error.transient() {
                                return Err(error);
                            }
                            self.stop(span.0.partition, &error);
                        }
                    }
                }
            }
        }
    }

    /// Takes note of what is held, and reads the checkpoints where any of it is new.
    async fn settle(&mut self, connection: &mut PgConnection, turn: &Turn<'_>) -> Result<(), Error> {
        let epochs: Vec<Option<Epoch>> = (0..self.log.partitions()).map(|of| turn.epoch(of)).collect();
        if epochs == self.held {
            return Ok(());
        }
        bounded(self.read_checkpoints(connection)).await?;
        for (partition, epoch) in (0..).zip(&epochs) {
            if *epoch != self.held[usize::from(partition)] {
                self.stopped[usize::from(partition)] = None;
            }
            self.progress.own(partition, epoch.is_some());
        }
        self.held = epochs;
        self.tell_stopped();
        Ok(())
    }

    /// Nothing is known to be held.
    fn forget(&mut self) {
        for (partition, held) in (0..).zip(&mut self.held) {
            *held = None;
            self.progress.own(partition, false);
        }
    }

    /// Lets events gather for as long as the last batch took. A batch costs round trips whatever its size, so a busy
    /// machine makes larger ones, and an idle one waits for next to nothing. Who is far behind does not wait.
    async fn gather(&self, took: Duration, spans: &[(Span, Epoch)]) {
        if spans.iter().map(|(span, _)| span.events()).sum::<u64>() < BATCH_EVENTS_MAX / 4 {
            tokio::time::sleep(took.min(GATHER_MAX)).await;
        }
    }

    fn stop(&mut self, partition: Partition, error: &Error) {
        tracing::error!(
            version = self.version.qualifier(), partition, error = %chain(error),
            "a partition cannot be projected any further; someone must look at it"
        );
        metrics::counter!("rollcall_projection_stops_total", "projection" => P::SCHEMA.name).increment(1);
        self.stopped[usize::from(partition)] = Some(Instant::now() + RETRY_PAUSE_MAX);
        self.tell_stopped();
    }

    fn tell_stopped(&self) {
        let stopped = self.stopped.iter().flatten().count();
        metrics::gauge!("rollcall_projection_partitions_stopped", "projection" => P::SCHEMA.name)
            .set(stopped as f64);
    }

    /// What is new, within the bound of a batch.
    fn spans(&self) -> Vec<(Span, Epoch)> {
        let behind = |partition: Partition| {
            let epoch = self.held[usize::from(partition)]?;
            let after = self.applied[usize::from(partition)];
            let head = self.log.heads().position(partition);
            let waits = self.stopped[usize::from(partition)].is_some_and(|until| Instant::now() < until);
            (head > after && !waits).then_some((Span { partition, after, until: head }, epoch))
        };
        let mut spans: Vec<(Span, Epoch)> = (0..self.log.partitions()).filter_map(behind).collect();
        let each = self.batch_events / spans.len().max(1) as u64;
        for (span, _) in &mut spans {
            span.until = span.until.min(span.after + each.max(1));
        }
        spans
    }

    async fn batch(&mut self, connection: &mut PgConnection, leased: &[(Span, Epoch)]) -> Result<(), Error> {
        let begun = Instant::now();
        let work = Work::begin(|| format!("projections.{}.apply", P::SCHEMA.name).into());
        let spans: &[Span] = &leased.iter().map(|(span, _)| *span).collect::<Vec<_>>();
        let mut transaction = connection.begin().await?;
        let ours = checkpoint::advance(&mut transaction, self.version, leased).await?;
        if !ours {
            transaction.rollback().await?;
            tracing::info!(version = self.version.qualifier(), "another process took over");
            // Known anew before the next batch.
            self.forget();
            tokio::time::sleep(RETRY_PAUSE_MIN).await;
            return Ok(());
        }
        self.projection.apply(&mut transaction, spans).await?;
        transaction.commit().await?;
        for span in spans {
            self.note(span.partition, span.until);
        }
        let events: u64 = spans.iter().map(Span::events).sum();
        metrics::counter!("rollcall_projection_events_total", "projection" => P::SCHEMA.name)
            .increment(events);
        metrics::histogram!("rollcall_projection_batch_seconds", "projection" => P::SCHEMA.name)
            .record(begun.elapsed().as_secs_f64());
        metrics::histogram!("rollcall_projection_batch_events", "projection" => P::SCHEMA.name)
            .record(events as f64);
        if let Some(work) = work {
            let ended = SystemTime::now();
            // The events are applied: a trace that cannot be told is no reason to fail. A broken connection shows in the
            // next batch.
            let traced = self.log.traced(connection, spans).await.unwrap_or_default();
            work.end_events(ended, &traced);
        }
        Ok(())
    }

    async fn read_checkpoints(&mut self, connection: &mut PgConnection) -> Result<(), Error> {
        let positions = checkpoint::read(connection, self.version).await?;
        if positions.len() != self.applied.len() {
            return Err(Error::Database(sqlx::Error::RowNotFound));
        }
        for (partition, &position) in (0..).zip(&positions) {
            self.progress.advance(partition, position);
        }
        self.applied = positions;
        Ok(())
    }

    fn note(&mut self, partition: Partition, position: Position) {
        self.applied[usize::from(partition)] = position;
        if self.stopped[usize::from(partition)].take().is_some() {
            self.tell_stopped();
        }
        self.progress.advance(partition, position);
    }
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
