//! How a projector finds the event that cannot be applied, parks its stream, and tries again.

use std::collections::BTreeSet;

use rollcall_event_store::{Partition, Position, tail, tail::Span};
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use super::{Error, Projection, Projector, Verdict, bounded, fault::HOLE};
use crate::{
    checkpoint::{self, Moves},
    leases::Epoch,
    parking::{
        Place, RETRY_EVENTS_MAX, RETRY_STREAMS_MAX, Step, steps_of_queue,
        table::{self, Queued},
    },
};

impl<P: Projection> Projector<P> {
    /// Takes the spans as one batch; where that fails because of an event, as halves, until the event is alone. False where
    /// something was in the way.
    ///
    /// # Errors
    /// Those that pass.
    pub(super) async fn work_off(
        &mut self,
        connection: &mut PgConnection,
        leased: Vec<(Span, Epoch)>,
        shutdown: &CancellationToken,
    ) -> Result<bool, Error> {
        let mut parts = vec![leased];
        let mut clean = true;
        while let Some(mut part) = parts.pop() {
            // What stopped goes no further.
            part.retain(|(span, _)| self.applied[usize::from(span.partition)] == span.after);
            if part.is_empty() {
                continue;
            }
            if shutdown.is_cancelled() {
                return Ok(false);
            }
            let error = match bounded(self.batch(connection, &part)).await {
                Ok(true) => continue,
                Ok(false) => return Ok(false),
                Err(error) => error,
            };
            clean = false;
            let verdict = error.verdict();
            if verdict != Verdict::Transient {
                // What was begun is rolled back now, and not when the connection is used next: until then it would hold its
                // locks, and be ended for its idleness.
                bounded(connection.ping()).await?;
            }
            match verdict {
                Verdict::Transient => return Err(error),
                _ if part.len() > 1 => {
                    let second = part.split_off(part.len() / 2);
                    parts.extend([second, part]);
                }
                Verdict::Halted => {
                    let (span, epoch) = part[0];
                    if !bounded(self.still_holds(connection, span.partition, epoch)).await? {
                        self.lost(connection).await?;
                        return Ok(false);
                    }
                    self.stop(span.partition, &bounded(named(connection, span, error)).await?);
                }
                Verdict::Poisoned => match halves(part[0]) {
                    Some((first, second)) => parts.extend([vec![second], vec![first]]),
                    None => match bounded(self.park(connection, part[0], &error)).await {
                        Ok(true) => {}
                        Ok(false) => return Ok(false),
                        Err(error) if error.verdict() == Verdict::Transient => return Err(error),
                        Err(error) => {
                            bounded(connection.ping()).await?;
                            self.stop(part[0].0.partition, &error);
                        }
                    },
                },
            }
        }
        Ok(clean)
    }

    /// Parks the stream of a single event, which cannot be applied with the checkpoint held either, and moves the checkpoint over
    /// it. False where another process took over.
    async fn park(
        &mut self,
        connection: &mut PgConnection,
        (event, epoch): (Span, Epoch),
        error: &Error,
    ) -> Result<bool, Error> {
        let told = error.told();
        let of = self.version;
        let mut transaction = connection.begin().await?;
        match checkpoint::advance(&mut transaction, Moves::over(of, &[(event, epoch)])).await {
            Err(error) if checkpoint::overtaken(&error) => {
                transaction.rollback().await?;
                self.lost(connection).await?;
                return Ok(false);
            }
            moved => moved?,
        }
        if error.precedes_hold() {
            // Found in what was read before the checkpoint was held: another session may have mended it since.
            let mut again = transaction.begin().await?;
            let steps = self.steps(&mut again, &[event]).await?;
            match self.take_steps(&mut again, &steps).await {
                Ok(()) => {
                    again.commit().await?;
                    transaction.commit().await?;
                    self.note(event.partition, event.until);
                    return Ok(true);
                }
                Err(error) if error.verdict() != Verdict::Poisoned => return Err(error),
                Err(_) => again.rollback().await?,
            }
        }
        if self.parking.full(event.partition) {
            return Err(Error::TooManyParked { partition: event.partition });
        }
        let Some(place) = table::park(&mut transaction, of, &event, &told).await? else {
            let (partition, expected_after) = (event.partition, event.after);
            return Err(tail::Error::Hole { partition, expected_after, found: None }.into());
        };
        transaction.commit().await?;
        self.parking.park(&place);
        // Before anybody is told of the position.
        self.progress.park(place.partition, &place.stream, place.position);
        self.note(event.partition, event.until);
        self.tell_parked();
        tracing::error!(
            projection = of.projection,
            partition = event.partition,
            position = event.until,
            error = told,
            "an event cannot be applied: its stream is parked, everything else goes on; see rollcall parked list"
        );
        metrics::counter!("rollcall_projection_parked_total", "projection" => of.projection).increment(1);
        Ok(true)
    }

    /// What to do with the spans: events of parked streams queue, those that were discarded are skipped.
    pub(super) async fn steps(
        &self,
        connection: &mut PgConnection,
        spans: &[Span],
    ) -> Result<Vec<Step>, Error> {
        let touched = self.parking.touched(spans);
        let mut queue = BTreeSet::new();
        if !touched.is_empty() {
            let events = self.log.read_spans(connection, &touched).await?;
            let queued = events.iter().filter(|event| self.parking.queues(event));
            queue.extend(queued.map(|event| (event.partition, event.position)));
        }
        Ok(self.parking.steps(spans, &queue))
    }

    pub(super) async fn take_steps(
        &self,
        transaction: &mut PgConnection,
        steps: &[Step],
    ) -> Result<(), Error> {
        for step in steps {
            match step {
                Step::Apply(spans) => {
                    self.projection.apply(transaction, Moves::none(self.version), spans).await?
                }
                Step::Skip(place) => {
                    self.projection.skip(transaction, place).await?;
                    table::skip(transaction, self.version, place).await?;
                }
            }
        }
        Ok(())
    }

    /// Tries streams again whose time has come, a few of them, one after the other: whatever ends the trying of one, the others
    /// are due still. False where another process took over.
    pub(super) async fn retry_due(&mut self, connection: &mut PgConnection) -> Result<bool, Error> {
        if !self.parking.look() {
            return Ok(true);
        }
        let due = bounded(table::due(connection, self.version, &self.parking.partitions())).await?;
        if due.len() == RETRY_STREAMS_MAX {
            self.parking.look_again();
        }
        for place in due {
            let Some(epoch) = self.held[usize::from(place.partition)] else { continue };
            if !bounded(self.put_off(connection, epoch, &place)).await? {
                self.lost(connection).await?;
                return Ok(false);
            }
            if !self.retry(connection, epoch, place).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Puts off a stream that is to be tried now. False where another process took over.
    async fn put_off(
        &self,
        connection: &mut PgConnection,
        epoch: Epoch,
        stream: &Place,
    ) -> Result<bool, Error> {
        let mut transaction = connection.begin().await?;
        let ours = self.holds(&mut transaction, stream.partition, epoch).await?
            && table::put_off(&mut transaction, self.version, stream).await?;
        transaction.commit().await?;
        Ok(ours)
    }

    /// Applies what queues in a stream, as far as it goes: all at once, or, where that fails, in halves up to the event that
    /// cannot be applied.
    async fn retry(
        &mut self,
        connection: &mut PgConnection,
        epoch: Epoch,
        stream: Place,
    ) -> Result<bool, Error> {
        let checkpoint = self.applied[usize::from(stream.partition)];
        let of = self.version;
        let mut queue =
            bounded(table::queue(connection, of, &stream, checkpoint, RETRY_EVENTS_MAX + 1)).await?;
        let rest = (queue.len() > RETRY_EVENTS_MAX).then(|| queue.pop()).flatten();
        let mut pieces = vec![(0, queue.len())];
        while let Some((begin, end)) = pieces.pop() {
            if begin == end {
                continue;
            }
            let next = queue.get(end).or(rest.as_ref()).map(|queued| &queued.place);
            let error = match bounded(self.go_on(connection, epoch, &queue[begin..end], next)).await {
                Ok(true) => continue,
                Ok(false) => {
                    self.lost(connection).await?;
                    return Ok(false);
                }
                Err(error) => error,
            };
            if error.verdict() == Verdict::Transient {
                return Err(error);
            }
            if end - begin > 1 {
                let middle = begin + (end - begin) / 2;
                pieces.extend([(middle, end), (begin, middle)]);
                continue;
            }
            let at = &queue[begin].place;
            if !bounded(self.stay(connection, epoch, at, &error)).await? {
                self.lost(connection).await?;
                return Ok(false);
            }
            return Ok(true);
        }
        if rest.is_some() {
            self.parking.look_again();
        }
        Ok(true)
    }

    /// Applies some of a stream's queue, at whose first event it is parked, in one transaction with where it is parked then.
    async fn go_on(
        &mut self,
        connection: &mut PgConnection,
        epoch: Epoch,
        queue: &[Queued],
        next: Option<&Place>,
    ) -> Result<bool, Error> {
        let (of, first) = (self.version, &queue[0].place);
        let mut transaction = connection.begin().await?;
        if !self.holds(&mut transaction, first.partition, epoch).await? {
            transaction.rollback().await?;
            return Ok(false);
        }
        self.take_steps(&mut transaction, &steps_of_queue(queue)).await?;
        match next {
            Some(next) => table::stay(&mut transaction, of, next, None).await?,
            None => table::release(&mut transaction, of, first).await?,
        }
        transaction.commit().await?;
        match next {
            Some(next) => {
                self.parking.park(next);
                self.progress.park(next.partition, &next.stream, next.position);
            }
            None => {
                self.parking.release(first);
                self.progress.release(first.partition, &first.stream);
                tracing::info!(
                    projection = of.projection,
                    partition = first.partition,
                    position = first.position,
                    "a parked stream goes on"
                );
            }
        }
        self.tell_parked();
        Ok(true)
    }

    /// Takes note that a stream is parked at this event still, or now at this one.
    async fn stay(
        &mut self,
        connection: &mut PgConnection,
        epoch: Epoch,
        at: &Place,
        error: &Error,
    ) -> Result<bool, Error> {
        let told = error.told();
        let of = self.version;
        let mut transaction = connection.begin().await?;
        if !self.holds(&mut transaction, at.partition, epoch).await? {
            transaction.rollback().await?;
            return Ok(false);
        }
        table::stay(&mut transaction, of, at, Some(&told)).await?;
        transaction.commit().await?;
        self.parking.park(at);
        self.progress.park(at.partition, &at.stream, at.position);
        tracing::warn!(
            projection = of.projection,
            partition = at.partition,
            position = at.position,
            error = told,
            "a parked stream was tried again and stays parked"
        );
        Ok(true)
    }

    /// Whether the lease is still this process's.
    async fn still_holds(
        &self,
        connection: &mut PgConnection,
        partition: Partition,
        epoch: Epoch,
    ) -> Result<bool, sqlx::Error> {
        let mut transaction = connection.begin().await?;
        let holds = self.holds(&mut transaction, partition, epoch).await?;
        transaction.rollback().await?;
        Ok(holds)
    }

    /// Whether the lease is still this process's, to the transaction's end.
    async fn holds(
        &self,
        transaction: &mut PgConnection,
        partition: Partition,
        epoch: Epoch,
    ) -> Result<bool, sqlx::Error> {
        let of = self.version;
        let at: Option<Position> = checkpoint::hold(transaction, of, partition, epoch).await?;
        Ok(at == Some(self.applied[usize::from(partition)]))
    }

    pub(super) fn tell_parked(&self) {
        self.gauge("rollcall_projection_parked_streams").set(self.parking.parked() as f64);
    }
}

/// What stops a partition, with its cause: of events that are missing, which.
async fn named(connection: &mut PgConnection, span: Span, error: Error) -> Result<Error, sqlx::Error> {
    if !matches!(&error, Error::Database(of_database) if checkpoint::is(of_database, HOLE)) {
        return Ok(error);
    }
    match tail::read_spans(connection, &[span]).await {
        Err(tail::Error::Database(error)) => Err(error),
        Err(cause) => Ok(cause.into()),
        Ok(_) => Ok(error),
    }
}

/// None where there is one event.
fn halves((span, epoch): (Span, Epoch)) -> Option<((Span, Epoch), (Span, Epoch))> {
    let middle = span.after + span.events() / 2;
    (middle > span.after)
        .then_some(((Span { until: middle, ..span }, epoch), (Span { after: middle, ..span }, epoch)))
}
