//! A writer: one task with one connection that stores batch after batch.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime},
};

use opentelemetry::KeyValue;
use sqlx::{PgConnection, postgres::PgConnectOptions};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Append, Appended, Error, Options, Pending, Stored,
    batch::Batch,
    outcome,
    statement::{self, Look},
};
use crate::{
    Recorded, bounded, connect,
    hints::Topic,
    history::{self, Compare},
    keyed_session,
    tail::{Newest, signed},
    trace::Work,
};

/// How long a batch is tried again after its connection was lost.
const LOST_FOR_MAX: Duration = Duration::from_secs(10);
/// How often a batch is run again after a race with another process.
const RACES_MAX: u32 = 16;

pub(super) struct Writer {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
    stored: Stored,
    limits: Options,
    /// Batches from now on that are looked through first.
    looking_for: u32,
    /// Since when there has been no answer: batches that come later do not wait anew.
    lost_since: Option<Instant>,
}

impl Writer {
    pub fn new(service: &PgConnectOptions, stored: Stored, limits: Options) -> Self {
        let options = keyed_session(service, "rollcall-append");
        Self { options, connection: None, stored, limits, looking_for: 0, lost_since: None }
    }

    pub async fn run(mut self, mut pending: mpsc::Receiver<Pending>, shutdown: CancellationToken) {
        let mut queue = VecDeque::new();
        let mut received = Vec::with_capacity(self.limits.batch_appends_max);
        loop {
            if queue.is_empty() {
                tokio::select! {
                    biased;
                    count = pending.recv_many(&mut received, self.limits.batch_appends_max) => {
                        if count == 0 {
                            return;
                        }
                    }
                    // What is queued is stored before the writer ends.
                    () = shutdown.cancelled() => return,
                }
            } else {
                while queue.len() + received.len() < self.limits.batch_appends_max
                    && let Ok(next) = pending.try_recv()
                {
                    received.push(next);
                }
            }
            queue.extend(received.drain(..));
            let mut batch = Batch::collect(&mut queue);
            metrics::histogram!("rollcall_append_batch_appends").record(batch.leaders.len() as f64);
            let started = Instant::now();
            let work = Work::begin(|| "event_store.log.append".into());
            let look = if self.looking_for > 0 { Look::Taken } else { Look::Versions };
            let outcomes = self.store(&batch.leaders, Attempt::new(look)).await;
            let met =
                outcomes.iter().any(|outcome| matches!(outcome, Err(Error::ClaimTaken(_) | Error::KeyUsed)));
            self.looking_for =
                if met { self.limits.batches_looked_through } else { self.looking_for.saturating_sub(1) };
            metrics::histogram!("rollcall_append_batch_seconds").record(started.elapsed().as_secs_f64());
            if outcomes.iter().any(|outcome| !matches!(outcome, Err(Error::Unknown | Error::Unreachable))) {
                self.lost_since = None;
            }
            if let Some(work) = work {
                trace(&work, &batch.leaders, &outcomes);
            }
            self.stored.tell(&mut batch.leaders, &outcomes);
            batch.answer(outcomes, &mut queue);
        }
    }

    /// Stores a batch, whatever it takes within its bounds; an outcome for each append.
    async fn store(&mut self, batch: &[Pending], mut attempt: Attempt) -> Vec<Result<Appended, Error>> {
        let mut outcomes: Vec<Option<Result<Appended, Error>>> = batch.iter().map(|_| None).collect();
        loop {
            let open: Vec<usize> = (0..batch.len()).filter(|&index| outcomes[index].is_none()).collect();
            if open.is_empty() {
                break;
            }
            let appends: Vec<&Pending> = open.iter().map(|&index| &batch[index]).collect();
            match self.attempt(&appends, &mut attempt).await {
                Ok(judged) => {
                    for (index, outcome) in open.into_iter().zip(judged) {
                        outcomes[index] = outcome;
                    }
                }
                Err(failure) => match failure {
                    Failure::Again => {}
                    Failure::All(error) => {
                        for index in open {
                            outcomes[index] = Some(Err(error.clone()));
                        }
                    }
                    Failure::Races if appends.len() == 1 => outcomes[open[0]] = Some(Err(Error::Conflict)),
                    Failure::Poison(error) if appends.len() == 1 => {
                        tracing::error!(%error, "an append was refused by the database");
                        outcomes[open[0]] = Some(Err(Error::Database(Arc::new(error))));
                    }
                    // One of them is at fault: each alone, so that it fails alone.
                    Failure::Races | Failure::Poison(_) => {
                        for index in open {
                            let alone = std::slice::from_ref(&batch[index]);
                            outcomes[index] = Box::pin(self.store(alone, attempt.alone())).await.pop();
                        }
                    }
                },
            }
        }
        outcomes.into_iter().map(|outcome| outcome.expect("the loop ends when all are judged")).collect()
    }

    /// Runs the statement once. Outcomes that stay open are to be tried again.
    async fn attempt(
        &mut self,
        appends: &[&Pending],
        attempt: &mut Attempt,
    ) -> Result<Vec<Option<Result<Appended, Error>>>, Failure> {
        if self.connection.is_none() {
            match bounded(self.connect()).await {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => return Err(self.lost(attempt, &error, false).await),
            }
        }
        if self.stored.heads.halt().is_some() {
            // Looked at again before the next batch.
            self.connection = None;
            return Err(Failure::All(if attempt.sent { Error::Unknown } else { Error::Restored }));
        }
        let connection = self.connection.as_mut().expect("connected above");
        if attempt.sent {
            // The statement was sent before and its answer never came: what bears our event ids has been stored.
            match bounded(statement::find_stored(connection, appends)).await {
                Ok(found) if found.iter().any(Option::is_some) => return Ok(found),
                Ok(_) => {}
                Err(error) => {
                    self.connection = None;
                    return Err(self.lost(attempt, &error, true).await);
                }
            }
        }
        let generation = self.stored.keys.digest_generation();
        let log_id = self.stored.heads.log_id();
        match bounded(statement::run(connection, appends, attempt.look, generation, log_id)).await {
            Ok(judged) => {
                let mut judged: Vec<_> = judged.into_iter().map(Some).collect();
                if attempt.sent && judged.iter().any(|outcome| matches!(outcome, Some(Err(_)))) {
                    // What refused them may be their own first sending, which was stored after all.
                    let found = match bounded(statement::find_stored(connection, appends)).await {
                        Ok(found) => found,
                        Err(error) => {
                            self.connection = None;
                            return Err(self.lost(attempt, &error, true).await);
                        }
                    };
                    for (outcome, found) in judged.iter_mut().zip(found) {
                        if found.is_some() {
                            *outcome = found;
                        }
                    }
                }
                Ok(judged)
            }
            Err(error) => match error.as_database_error().and_then(|error| error.code()).as_deref() {
                // unique_violation, serialization_failure, deadlock_detected: it is there already, or another process was
                // there in between.
                Some("23505" | "40001" | "40P01") => Err(attempt.met()),
                // Rolled back for want of something that may come back: resources (53…, a full disk among them), a lock,
                // time, or a primary (25006: this server has become a standby).
                Some(code) if code.starts_with("53") || ["55P03", "57014", "25006"].contains(&code) => {
                    Err(self.lost(attempt, &error, false).await)
                }
                Some(code) if !(code.starts_with("57P") || code.starts_with("08")) => {
                    Err(Failure::Poison(error))
                }
                // The server went away (admin_shutdown, crash_shutdown …) or the connection broke.
                _ => {
                    self.connection = None;
                    Err(self.lost(attempt, &error, true).await)
                }
            },
        }
    }
}

impl Writer {
    /// A connection to the log that this process knows. A restore breaks every connection, so whoever has one that was
    /// looked at works on the history that it knows.
    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = connect(&self.options).await?;
        self.stored.recent.clear();
        history::look(&mut connection, &self.stored.heads, Compare::All).await?;
        Ok(connection)
    }

    /// Takes note of a lost connection or answer; whether to try again.
    async fn lost(&mut self, attempt: &mut Attempt, error: &sqlx::Error, sent: bool) -> Failure {
        if self.lost_since.is_none() {
            tracing::warn!(%error, "the connection to PostgreSQL was lost; trying again");
        }
        attempt.sent |= sent && cfg!(not(rollcall_break = "lost-answers"));
        attempt.look = Look::All;
        let lost_since = *self.lost_since.get_or_insert_with(Instant::now);
        if lost_since.elapsed() > LOST_FOR_MAX {
            return Failure::All(if attempt.sent { Error::Unknown } else { Error::Unreachable });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        Failure::Again
    }
}

impl Stored {
    /// Remembers the keys that are on disk now, keeps the events for readers, and wakes them.
    fn tell(&self, appends: &mut [Pending], outcomes: &[Result<Appended, Error>]) {
        let stored = || {
            appends
                .iter()
                .zip(outcomes)
                .filter_map(|(pending, outcome)| outcome.as_ref().ok().map(|appended| (pending, appended)))
        };
        for (pending, _) in stored() {
            if let Some(new) = &pending.append.data_key {
                self.keys.remember(&pending.append.stream, &new.key);
            }
        }
        let heads: Vec<_> = stored()
            .map(|(pending, appended)| {
                let event_id = pending.append.events.last().map(|event| event.event_id);
                (appended.partition, Newest { position: appended.position, event_id })
            })
            .collect();
        // Where nobody reads the log, as in a process that only takes commands, nobody misses them.
        if self.heads.anybody_reads() {
            self.keep_all(appends, outcomes);
        }
        if !heads.is_empty() {
            self.heads.advance(heads);
            self.hints.tell(Topic::Heads);
        }
    }

    fn keep_all(&self, appends: &mut [Pending], outcomes: &[Result<Appended, Error>]) {
        // By position: an answer that was lost and found stands out of order.
        let mut order: Vec<(usize, &Appended)> = outcomes
            .iter()
            .enumerate()
            .filter_map(|(i, outcome)| Some((i, outcome.as_ref().ok()?)))
            .collect();
        order.sort_unstable_by_key(|(_, appended)| (appended.partition, appended.position));
        for (index, appended) in order {
            self.keep(&mut appends[index].append, appended);
        }
    }

    fn keep(&self, append: &mut Append, appended: &Appended) {
        let Some(last_at) = appended.recorded_at else { return };
        let events = std::mem::take(&mut append.events);
        let before_last = events.len() as u64;
        for (place, event) in (1..).zip(events) {
            let from_last = before_last - place;
            self.recent.push(Recorded {
                stream: append.stream.clone(),
                sequence: append.expected.version() + place,
                partition: appended.partition,
                position: appended.position - from_last,
                event_id: event.event_id,
                event_type: event.event_type.into(),
                event_version: event.event_version.into(),
                payload: event.payload,
                personal: event.personal,
                metadata: event.metadata,
                recorded_at: last_at - Duration::from_micros(from_last),
            });
        }
    }
}

/// A span for each command that wanted events stored: where its last event is, and in whose company it went.
fn trace(work: &Work, appends: &[Pending], outcomes: &[Result<Appended, Error>]) {
    let spans = appends.iter().zip(outcomes).filter_map(|(pending, outcome)| {
        let metadata: &str = &pending.append.events.last()?.metadata;
        Some((metadata, move || {
            let mut attributes = vec![
                KeyValue::new("batch.appends", i64::try_from(appends.len()).unwrap_or(i64::MAX)),
                KeyValue::new("append.outcome", outcome::name(outcome)),
                KeyValue::new("event.partition", i64::from(pending.partition)),
            ];
            if let Ok(appended) = outcome {
                attributes.push(KeyValue::new("event.position", signed(appended.position)));
            }
            attributes
        }))
    });
    work.end(SystemTime::now(), spans);
}

/// What a batch has been through.
struct Attempt {
    /// The statement may have been stored without an answer.
    sent: bool,
    look: Look,
    /// Violations although everything had been looked for.
    races: u32,
}

enum Failure {
    Again,
    All(Error),
    /// What looked like a race does not end.
    Races,
    Poison(sqlx::Error),
}

impl Attempt {
    fn new(look: Look) -> Self {
        Self { sent: false, look, races: 0 }
    }

    /// Something was there already: from now on everything is looked for.
    fn met(&mut self) -> Failure {
        self.races += u32::from(self.look == Look::All);
        self.look = Look::All;
        if self.races > RACES_MAX { Failure::Races } else { Failure::Again }
    }

    /// What an append of the batch knows that is tried alone from now on.
    fn alone(&self) -> Self {
        Self { sent: self.sent, look: Look::All, races: 0 }
    }
}
