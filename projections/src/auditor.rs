//! The auditor: looks in the background whether a read model is what the log says.
//!
//! Shape: every [`AUDITS_EVERY`] some streams at random, folded anew, and a page of rows, one after the other through the
//! whole table -> what differs is compared once more -> an error line with id and fields, a gauge. A stream that
//! cannot be folded is told the same way: nobody knows whether its rows are right. One that is too long for this
//! ([`BACKGROUND_EVENTS_MAX`](drift::BACKGROUND_EVENTS_MAX)) is told once, and is no alarm.
//!
//! It reads what serves, over connections for listings, by look-ups in short transactions. It repairs nothing: what damaged a
//! row must be known first.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rollcall_event_store::{Borrowed, Log, StreamId, bounded};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    drift::{self, Compared, Drift, RowKey, Unfolded},
    progress::Serving,
    projector::{Error, Projection, chain},
    schema::Version,
};

/// Streams that are folded anew, and rows that are looked at, each time.
#[derive(Clone, Debug)]
pub struct Options {
    pub every: Duration,
    pub streams: usize,
    pub rows: u32,
    /// How long a difference must last to be told.
    pub lasts: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { every: AUDITS_EVERY, streams: 20, rows: 100, lasts: Duration::from_secs(1) }
    }
}

const AUDITS_EVERY: Duration = Duration::from_secs(5);
/// Streams that are kept in mind because they differ; of more than that nobody needs to be told one by one.
const DRIFTING_MAX: usize = 1_000;
/// Of those, how many are looked at again each time.
const AGAIN_MAX: usize = 50;

const AUDITED: &str = "rollcall_projection_audited_streams_total";
const DRIFTING: &str = "rollcall_projection_drift_streams";

/// Audits one read model.
pub struct Auditor {
    log: Log,
    options: Options,
    serving: watch::Receiver<Option<Serving>>,
    seen: Seen,
}

/// What is known of one version.
#[derive(Default)]
struct Seen {
    version: Option<Version>,
    drifting: BTreeMap<StreamId, Told>,
    too_long: BTreeSet<StreamId>,
    /// The one that was looked at again last.
    again: Option<StreamId>,
    /// Where the next page of rows begins, and how often the last row was reached.
    row: Option<RowKey>,
    rounds: u64,
}

/// What was told of a stream that differs.
enum Told {
    /// Comparing it again shows whether it still does.
    Stream,
    /// A row that only the sweep finds, last in this round.
    Row { round: u64 },
}

impl Auditor {
    /// `serving` says what queries read.
    pub fn new(log: Log, serving: watch::Receiver<Option<Serving>>, options: Options) -> Self {
        Self { log, options, serving, seen: Seen::default() }
    }

    /// Works until the shutdown.
    pub async fn run<P: Projection>(mut self, shutdown: CancellationToken) {
        let label = P::SCHEMA.name;
        metrics::counter!(AUDITED, "projection" => label).increment(0);
        metrics::gauge!(DRIFTING, "projection" => label).set(0.0);
        let mut failing = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.options.every) => {}
            }
            let Some(version) = self.serving.borrow().as_ref().map(|serving| serving.version) else {
                continue;
            };
            if self.seen.version != Some(version) {
                self.seen = Seen { version: Some(version), ..Seen::default() };
            }
            let outcome = tokio::select! {
                () = shutdown.cancelled() => return,
                outcome = self.audit::<P>(version) => outcome,
            };
            match outcome {
                Ok(()) => failing = false,
                Err(error) => {
                    if !failing {
                        tracing::warn!(
                            version = version.qualifier(), error = %chain(&error),
                            "the read model cannot be audited; trying again"
                        );
                    }
                    failing = true;
                }
            }
            metrics::gauge!(DRIFTING, "projection" => label).set(self.seen.drifting.len() as f64);
        }
    }

    async fn audit<P: Projection>(&mut self, version: Version) -> Result<(), Error> {
        let projection = P::of(&self.log, version);
        let mut connection = bounded(Borrowed::from(self.log.readers())).await?;
        let sample = bounded(drift::sample(&mut connection, version, self.options.streams)).await?;
        let again = self.again();
        let both: Vec<StreamId> = sample.iter().chain(&again).cloned().collect();
        let events_max = Some(drift::BACKGROUND_EVENTS_MAX);
        let compare = drift::compare(&self.log, &projection, &mut connection, version, &both, events_max);
        let Compared { drifts: mut found, unfolded, .. } = bounded(compare).await?;
        // Where it fails, the same page is next.
        let row = self.seen.row.clone();
        let swept =
            bounded(drift::sweep(&projection, &mut connection, row.as_ref(), self.options.rows)).await?;
        connection.done();
        metrics::counter!(AUDITED, "projection" => P::SCHEMA.name).increment(both.len() as u64);
        for stream in again {
            let told = self.seen.drifting.get(&stream);
            let so = found.iter().any(|drift| drift.stream == stream)
                || unfolded.iter().any(|unfolded| unfolded.stream == stream);
            if matches!(told, Some(Told::Stream)) && !so {
                self.untell(version, &stream);
            }
        }
        found.retain(|drift| !self.seen.drifting.contains_key(&drift.stream));
        if !found.is_empty() {
            found = self.confirmed(&projection, version, found).await?;
        }
        // A row without an event is judged in one statement, and events do not go: there is nothing to wait for.
        for drift in found.into_iter().chain(swept.surplus) {
            self.tell(version, drift);
        }
        for unfolded in unfolded {
            self.tell_unfolded(version, &unfolded);
        }
        self.seen.row = swept.last;
        if self.seen.row.is_none() {
            self.end_round(version);
        }
        Ok(())
    }

    /// All rows have been looked at once: those that were not found again are gone.
    fn end_round(&mut self, version: Version) {
        let rounds = self.seen.rounds;
        let gone = self
            .seen
            .drifting
            .iter()
            .filter(|(_, told)| matches!(told, Told::Row { round } if *round < rounds));
        let gone: Vec<StreamId> = gone.map(|(stream, _)| stream.clone()).collect();
        for stream in gone {
            self.untell(version, &stream);
        }
        self.seen.rounds += 1;
    }

    /// Those that still differ in the same fields a moment later.
    async fn confirmed<P: Projection>(
        &self,
        projection: &P,
        version: Version,
        mut found: Vec<Drift>,
    ) -> Result<Vec<Drift>, Error> {
        tokio::time::sleep(self.options.lasts).await;
        let streams: Vec<StreamId> = found.iter().map(|drift| drift.stream.clone()).collect();
        let mut connection = bounded(Borrowed::from(self.log.readers())).await?;
        let events_max = Some(drift::BACKGROUND_EVENTS_MAX);
        let compare = drift::compare(&self.log, projection, &mut connection, version, &streams, events_max);
        let Compared { drifts: still, .. } = bounded(compare).await?;
        connection.done();
        found.retain_mut(|drift| {
            let Some(still) = still.iter().find(|still| still.stream == drift.stream) else { return false };
            drift.fields.retain(|field| still.fields.contains(field));
            !drift.fields.is_empty()
        });
        Ok(found)
    }

    /// Whether that is news.
    fn mind(&mut self, stream: &StreamId, told: Told) -> bool {
        if let Some(known) = self.seen.drifting.get_mut(stream) {
            *known = told;
            return false;
        }
        let room = self.seen.drifting.len() < DRIFTING_MAX;
        if room {
            self.seen.drifting.insert(stream.clone(), told);
        }
        room
    }

    fn tell(&mut self, version: Version, Drift { stream, partition, fields, row, parked }: Drift) {
        let told = if row.is_some() { Told::Row { round: self.seen.rounds } } else { Told::Stream };
        if !self.mind(&stream, told) {
            return;
        }
        tracing::error!(
            version = version.qualifier(),
            tenant = &*stream.tenant,
            stream.id = &*stream.aggregate_id,
            partition,
            fields = fields.join(", "),
            parked,
            "a read model is not what the log says; see \"rollcall audit-projections\""
        );
    }

    fn tell_unfolded(&mut self, version: Version, Unfolded { stream, partition, error }: &Unfolded) {
        if matches!(error, Error::TooLong { .. }) {
            let room = self.seen.too_long.len() < DRIFTING_MAX;
            if room && self.seen.too_long.insert(stream.clone()) {
                tracing::warn!(
                    version = version.qualifier(),
                    tenant = &*stream.tenant,
                    stream.id = &*stream.aggregate_id,
                    partition,
                    "a stream is too long to be compared in the background; \"rollcall audit-projections --all\" compares it"
                );
            }
        } else if self.mind(stream, Told::Stream) {
            tracing::error!(
                version = version.qualifier(),
                tenant = &*stream.tenant,
                stream.id = &*stream.aggregate_id,
                partition,
                error = error.told(),
                "a stream cannot be folded anew, and nobody knows whether its rows of a read model are right"
            );
        }
    }

    fn untell(&mut self, version: Version, stream: &StreamId) {
        self.seen.drifting.remove(stream);
        tracing::info!(
            version = version.qualifier(),
            tenant = &*stream.tenant,
            stream.id = &*stream.aggregate_id,
            "what differed from the log is as it says again"
        );
    }

    /// Some of those that differed, one after the other.
    fn again(&mut self) -> Vec<StreamId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = self.seen.again.take().map_or(Unbounded, Excluded);
        let next = self.seen.drifting.range((after, Unbounded)).take(AGAIN_MAX);
        let again: Vec<StreamId> = next.map(|(stream, _)| stream.clone()).collect();
        self.seen.again = (again.len() == AGAIN_MAX).then(|| again[AGAIN_MAX - 1].clone());
        again
    }
}
