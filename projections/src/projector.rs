//! The projector: keeps a read model up to the log.
//!
//! The unit of work is (projection, partition), with a checkpoint each, and leased: see [`leases`](crate::leases). A batch
//! takes the news of all partitions that this process holds at once: it reads, folds, and writes by one statement, which moves the
//! checkpoints under the leases' epochs as well. When a batch fails for a reason that lies in an event, it is halved until that event is
//! alone, which then parks its stream ([`parking`](crate::parking)); everything else goes on. What is at fault with a whole
//! partition (a hole in the log, a table that is missing) stops that, loudly, and is tried again. What passes is waited for.
//!
//! If the process dies before that statement, nothing has happened; after it, everything has, on disk: what a token has shown
//! once it shows after a crash of the server as well.

mod fault;
mod park;

use std::time::{Duration, Instant, SystemTime};

use rollcall_event_store::{
    Log, Partition, Position, bounded, connect, hints::Topic, keyed_session, still_there, tail::Span,
    trace::Work,
};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio_util::sync::CancellationToken;

pub use fault::Error;

use self::fault::Verdict;
use crate::{
    checkpoint::{self, Moves},
    drift::{Drift, Folded, RowKey, Swept},
    leases::{Epoch, Share, Trouble, Turn},
    parking::{self, Parking, Place, Step},
    progress::Progress,
    schema::{Schema, Version},
};

/// Events that one transaction applies at most.
const BATCH_EVENTS_MAX: u64 = 4_000;
/// How long events may gather at most before the next batch.
const GATHER_MAX: Duration = Duration::from_millis(2);
/// How long to wait for a lease before looking again.
const LEASE_PAUSE: Duration = Duration::from_millis(500);
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// A read model in PostgreSQL.
pub trait Projection: Send + Sync + 'static {
    const SCHEMA: &'static Schema;

    /// The projection into one of its versions.
    fn of(log: &Log, version: Version) -> Self;

    /// Applies the events of the spans, by set operations, and moves the checkpoints in the same statement, where the
    /// transaction has not moved them already.
    fn apply(
        &self,
        connection: &mut PgConnection,
        moves: Moves,
        spans: &[Span],
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// SQL that counts, for each partition of a projection ($1) and version ($2), the rows that are there and those that
    /// should be, parked streams and discarded events considered.
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

    /// Makes the rows of a stream anew from its events, while no batch of its partition can write.
    fn repair(
        &self,
        transaction: &mut PgConnection,
        drift: &Drift,
        folded: &Folded,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Goes past an event without applying it, because an operator discarded it: the stream's next event must find what it
    /// goes on from, as far as there is anything.
    fn skip(
        &self,
        transaction: &mut PgConnection,
        event: &Place,
    ) -> impl Future<Output = Result<(), Error>> + Send;
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
    trouble: Trouble,
    parking: Parking,
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
        for name in [
            "rollcall_projection_events_total",
            "rollcall_projection_failures_total",
            "rollcall_projection_parked_total",
        ] {
            metrics::counter!(name, "projection" => label).increment(0);
        }
        let projector = Self {
            projection: P::of(&log, version),
            version,
            log,
            options,
            progress,
            held: vec![None; usize::from(partitions)],
            applied: vec![0; usize::from(partitions)],
            batch_events: BATCH_EVENTS_MAX,
            stopped: vec![None; usize::from(partitions)],
            trouble: share.trouble(),
            parking: Parking::new(partitions),
        };
        projector.tell_stopped();
        projector.tell_parked();
        projector
    }

    /// Works until the shutdown; a batch that was begun is finished or rolled back.
    pub async fn run(mut self, mut share: Share, shutdown: CancellationToken) {
        let mut pause = RETRY_PAUSE_MIN;
        while !shutdown.is_cancelled() {
            match self.follow(&mut share, &shutdown, &mut pause).await {
                Ok(()) => return self.forget(),
                // The version was dropped under our hands; the share hears of that a moment later.
                Err(Error::Dropped) => return self.forget(),
                Err(_) if share.gone() => return self.forget(),
                Err(error) => {
                    // Whoever waits must look elsewhere meanwhile: another process may take over.
                    self.forget();
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
        let mut connection = connect(&self.options).await?;
        let mut news = self.log.heads().news();
        // A restore breaks every connection: what this process remembers of the log must still be true.
        self.log.refresh_heads().await?;
        loop {
            news.borrow_and_update();
            if shutdown.is_cancelled() {
                return Ok(());
            }
            let Some(turn) = share.turn().await else {
                self.forget();
                let since = Instant::now();
                tokio::select! {
                    () = shutdown.cancelled() => return Ok(()),
                    more = share.changed() => if !more {
                        return Ok(());
                    },
                    // The member said again that it lives.
                    () = tokio::time::sleep(LEASE_PAUSE) => {}
                }
                still_there(&mut connection, since).await?;
                continue;
            };
            self.settle(&mut connection, &turn).await?;
            if !self.retry_due(&mut connection).await? {
                continue;
            }
            let spans = self.spans();
            if spans.is_empty() {
                drop(turn);
                let since = Instant::now();
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
                    // A partition that stopped is tried again, and a parked stream, news or no news.
                    () = tokio::time::sleep(self.parking.looks_in().unwrap_or(RETRY_PAUSE_MAX)) => {}
                }
                still_there(&mut connection, since).await?;
                continue;
            }
            let begun = Instant::now();
            if self.work_off(&mut connection, spans.clone(), shutdown).await? {
                *pause = RETRY_PAUSE_MIN;
                self.batch_events = (self.batch_events * 2).min(BATCH_EVENTS_MAX);
                drop(turn);
                self.gather(begun.elapsed(), &spans).await;
            }
        }
    }

    /// Takes note of what is held, and reads the checkpoints where any of it is new.
    async fn settle(&mut self, connection: &mut PgConnection, turn: &Turn<'_>) -> Result<(), Error> {
        let epochs: Vec<Option<Epoch>> = (0..self.log.partitions()).map(|of| turn.epoch(of)).collect();
        if epochs == self.held {
            return Ok(());
        }
        let new: Vec<(Partition, Epoch)> = (0..)
            .zip(&epochs)
            .zip(&self.held)
            .filter(|((_, epoch), held)| epoch != held)
            .filter_map(|((partition, epoch), _)| Some((partition, (*epoch)?)))
            .collect();
        bounded(self.read_state(connection, &new)).await?;
        for (partition, epoch) in (0..).zip(&epochs) {
            if *epoch != self.held[usize::from(partition)] {
                self.stopped[usize::from(partition)] = None;
                self.trouble.over(partition);
            }
            if epoch.is_none() {
                self.parking.forget(partition);
            }
            self.progress.own(partition, epoch.is_some());
        }
        self.held = epochs;
        self.tell_stopped();
        self.tell_parked();
        Ok(())
    }

    /// Nothing is known to be held.
    fn forget(&mut self) {
        for (partition, held) in (0..).zip(&mut self.held) {
            *held = None;
            self.parking.forget(partition);
            self.progress.own(partition, false);
        }
        self.stopped.fill(None);
        self.trouble.all_over();
        self.tell_stopped();
        self.tell_parked();
    }

    /// Another process holds a lease that was ours: everything is known anew before the next batch.
    ///
    /// # Errors
    /// Where the version was dropped, or the database cannot be read.
    async fn lost(&mut self, connection: &mut PgConnection) -> Result<(), Error> {
        if checkpoint::read(connection, self.version).await?.is_empty() {
            return Err(Error::Dropped);
        }
        tracing::info!(version = self.version.qualifier(), "another process took over");
        self.forget();
        tokio::time::sleep(RETRY_PAUSE_MIN).await;
        Ok(())
    }

    /// Lets events gather for as long as the last batch took. A batch costs round trips whatever its size, so a busy
    /// machine makes larger ones, and an idle one waits for next to nothing. Who is far behind does not wait.
    async fn gather(&self, took: Duration, spans: &[(Span, Epoch)]) {
        if spans.iter().map(|(span, _)| span.events()).sum::<u64>() < BATCH_EVENTS_MAX / 4 {
            tokio::time::sleep(took.min(GATHER_MAX)).await;
        }
    }

    fn stop(&mut self, partition: Partition, error: &Error) {
        let told = error.told();
        tracing::error!(
            version = self.version.qualifier(),
            partition,
            error = told,
            "a partition cannot be projected any further; someone must look at it"
        );
        metrics::counter!("rollcall_projection_stops_total", "projection" => P::SCHEMA.name).increment(1);
        self.stopped[usize::from(partition)] = Some(Instant::now() + RETRY_PAUSE_MAX);
        self.trouble.is(partition, told);
        self.tell_stopped();
    }

    fn tell_stopped(&self) {
        let stopped = self.stopped.iter().flatten().count();
        self.gauge("rollcall_projection_partitions_stopped").set(stopped as f64);
    }

    /// Of this version: another one may be at work in the same process.
    fn gauge(&self, name: &'static str) -> metrics::Gauge {
        metrics::gauge!(name, "projection" => P::SCHEMA.name, "version" => self.version.number.to_string())
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

    /// False where another process took over.
    async fn batch(
        &mut self,
        connection: &mut PgConnection,
        leased: &[(Span, Epoch)],
    ) -> Result<bool, Error> {
        let begun = Instant::now();
        let work = Work::begin(|| format!("projections.{}.apply", P::SCHEMA.name).into());
        let spans: &[Span] = &leased.iter().map(|(span, _)| *span).collect::<Vec<_>>();
        match self.write(connection, leased, spans).await {
            Err(Error::Database(error)) if checkpoint::overtaken(&error) => {
                self.lost(connection).await?;
                return Ok(false);
            }
            written => written?,
        }
        for span in spans {
            self.note(span.partition, span.until);
        }
        self.log.hints().tell(Topic::Checkpoints);
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
        Ok(true)
    }

    /// One statement where nothing is parked or was discarded: a round trip costs more than what it does.
    async fn write(
        &self,
        connection: &mut PgConnection,
        leased: &[(Span, Epoch)],
        spans: &[Span],
    ) -> Result<(), Error> {
        let steps = self.steps(connection, spans).await?;
        if let [Step::Apply(all)] = &steps[..]
            && all == spans
        {
            let moves = Moves::over(self.version, leased);
            #[cfg(rollcall_break = "checkpoint")]
            let moves = {
                checkpoint::advance(connection, moves).await?;
                Moves::none(self.version)
            };
            return self.projection.apply(connection, moves, all).await;
        }
        let mut transaction = connection.begin().await?;
        checkpoint::advance(&mut transaction, Moves::over(self.version, leased)).await?;
        self.take_steps(&mut transaction, &steps).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Reads the checkpoints, and what is parked and was discarded in partitions of which the lease is new.
    async fn read_state(
        &mut self,
        connection: &mut PgConnection,
        new: &[(Partition, Epoch)],
    ) -> Result<(), Error> {
        let of = self.version;
        let positions = checkpoint::read(connection, of).await?;
        if positions.is_empty() {
            return Err(Error::Dropped);
        }
        if positions.len() != self.applied.len() {
            return Err(Error::Database(sqlx::Error::RowNotFound));
        }
        self.applied = positions;
        let checkpoints: Vec<(Partition, Position)> =
            new.iter().map(|&(partition, _)| (partition, self.applied[usize::from(partition)])).collect();
        let partitions: Vec<Partition> = new.iter().map(|&(partition, _)| partition).collect();
        let due: Vec<Partition> = new
            .iter()
            .filter(|&&(partition, epoch)| self.parking.takes_over(partition, epoch))
            .map(|&(partition, _)| partition)
            .collect();
        parking::table::make_due(connection, of, &due).await?;
        let mut parked = parking::table::parked(connection, of, &partitions).await?;
        let mut discarded = parking::table::discarded(connection, of.projection, &checkpoints).await?;
        for (partition, position) in checkpoints {
            let streams = parked.remove(&partition).unwrap_or_default();
            self.progress.follow(partition, position, streams.clone());
            self.parking.know(partition, streams, discarded.remove(&partition).unwrap_or_default());
        }
        Ok(())
    }

    fn note(&mut self, partition: Partition, position: Position) {
        self.applied[usize::from(partition)] = position;
        if self.stopped[usize::from(partition)].take().is_some() {
            self.trouble.over(partition);
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
