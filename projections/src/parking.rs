//! Parking: a stream whose next event cannot be applied waits for somebody, and nothing else waits with it.
//!
//! Shape: a batch fails -> halved until one event fails alone -> `projections.parked` (a row a stream, at that event) and the
//! checkpoint moves on, in one transaction. Later events of the stream queue behind it: they are in the log, between the
//! row's sequence and the checkpoint, and batches leave them out. A retry applies the queue in order and deletes the row.
//!
//! *Invariant:* an event at or before the checkpoint has been applied, or was discarded by an operator, who is recorded with
//! the reason, or stands at or behind its stream's parked row. No number of tries skips one.

pub mod operator;
pub(crate) mod table;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use rollcall_event_store::{Partition, Position, Recorded, StreamId, tail::Span};

use crate::leases::Epoch;

/// More parked streams than this in one partition mean that something else is wrong than these streams.
pub(crate) const STREAMS_MAX: usize = 1_000;
/// Parked streams that are tried again in one turn at most, and how many of a stream's events: others go on.
pub(crate) const RETRY_STREAMS_MAX: usize = 16;
pub(crate) const RETRY_EVENTS_MAX: usize = 1_000;
/// How often it is looked whether a retry is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where streams are parked: each with the position of the event that could not be applied.
pub(crate) type Streams = HashMap<StreamId, Position>;

/// An event's place in its partition and in its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub stream: StreamId,
    pub partition: Partition,
    pub position: Position,
    pub sequence: u64,
}

impl Place {
    /// The event alone.
    pub(crate) fn span(&self) -> Span {
        Span { partition: self.partition, after: self.position - 1, until: self.position }
    }
}

/// What is to be done with a stretch of events, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Apply(Vec<Span>),
    Skip(Place),
}

/// What a projector knows of the partitions that it holds.
pub(crate) struct Parking {
    streams: Vec<Streams>,
    discarded: Vec<BTreeMap<Position, Place>>,
    /// The lease under which the parked streams were last tried because it was new.
    tried_under: Vec<Option<Epoch>>,
    look_at: Instant,
}

impl Parking {
    pub fn new(partitions: Partition) -> Self {
        let partitions = usize::from(partitions);
        Self {
            streams: vec![Streams::new(); partitions],
            discarded: vec![BTreeMap::new(); partitions],
            tried_under: vec![None; partitions],
            look_at: Instant::now(),
        }
    }

    /// Nothing is known of a partition that is not held.
    pub fn forget(&mut self, partition: Partition) {
        self.streams[usize::from(partition)].clear();
        self.discarded[usize::from(partition)].clear();
    }

    /// Whether the lease is a new one; a process that just came may know better than the one before.
    pub fn takes_over(&mut self, partition: Partition, epoch: Epoch) -> bool {
        self.tried_under[usize::from(partition)].replace(epoch) != Some(epoch)
    }

    pub fn know(&mut self, partition: Partition, streams: Streams, discarded: BTreeMap<Position, Place>) {
        self.streams[usize::from(partition)] = streams;
        self.discarded[usize::from(partition)] = discarded;
        self.look_at = Instant::now();
    }

    pub fn park(&mut self, place: &Place) {
        self.streams[usize::from(place.partition)].insert(place.stream.clone(), place.position);
    }

    pub fn release(&mut self, place: &Place) {
        self.streams[usize::from(place.partition)].remove(&place.stream);
    }

    pub fn full(&self, partition: Partition) -> bool {
        self.streams[usize::from(partition)].len() >= STREAMS_MAX
    }

    pub fn parked(&self) -> usize {
        self.streams.iter().map(Streams::len).sum()
    }

    /// Partitions that have parked streams.
    pub fn partitions(&self) -> Vec<Partition> {
        (0..).zip(&self.streams).filter(|(_, streams)| !streams.is_empty()).map(|(of, _)| of).collect()
    }

    /// Whether an event is the one at which its stream is parked, or comes after it.
    pub fn queues(&self, event: &Recorded) -> bool {
        let at = self.streams[usize::from(event.partition)].get(&event.stream);
        at.is_some_and(|at| *at <= event.position)
    }

    /// Whether it is time to look for retries.
    pub fn look(&mut self) -> bool {
        let looks = self.parked() > 0 && Instant::now() >= self.look_at;
        if looks {
            self.look_at = Instant::now() + LOOK_EVERY;
        }
        looks
    }

    /// There is more to be tried than one turn takes.
    pub fn look_again(&mut self) {
        self.look_at = Instant::now();
    }

    /// How long until it is time to look for retries; none where nothing is parked.
    pub fn looks_in(&self) -> Option<Duration> {
        (self.parked() > 0).then(|| self.look_at.saturating_duration_since(Instant::now()))
    }

    /// Spans of which events may have to be left out.
    pub fn touched(&self, spans: &[Span]) -> Vec<Span> {
        spans.iter().filter(|span| !self.streams[usize::from(span.partition)].is_empty()).copied().collect()
    }

    /// What is left of the spans once some events queue, and with others skipped.
    pub fn steps(&self, spans: &[Span], queue: &BTreeSet<(Partition, Position)>) -> Vec<Step> {
        let mut steps = Vec::new();
        for span in spans {
            let Span { partition, after, until } = *span;
            let skipped = self.discarded[usize::from(partition)].range(after + 1..=until);
            let skipped = skipped.map(|(&position, place)| (position, Some(place)));
            let queued = queue.range((partition, after + 1)..=(partition, until));
            // What queues is skipped when its turn comes.
            let mut out: BTreeMap<Position, Option<&Place>> = skipped.collect();
            out.extend(queued.map(|(_, position)| (*position, None)));
            let mut done = after;
            for (position, place) in out {
                apply(&mut steps, Span { partition, after: done, until: position - 1 });
                if let Some(place) = place {
                    steps.push(Step::Skip(place.clone()));
                }
                done = position;
            }
            apply(&mut steps, Span { partition, after: done, until });
        }
        steps
    }
}

/// The steps over a stream's queue: each event alone, since others stand between them.
pub(crate) fn steps_of_queue(queue: &[table::Queued]) -> Vec<Step> {
    let mut steps = Vec::new();
    for queued in queue {
        match queued.discarded {
            true => steps.push(Step::Skip(queued.place.clone())),
            false => apply(&mut steps, queued.place.span()),
        }
    }
    steps
}

/// Spans are applied together where nothing comes between them.
fn apply(steps: &mut Vec<Step>, span: Span) {
    if span.events() == 0 {
        return;
    }
    match steps.last_mut() {
        Some(Step::Apply(spans)) => spans.push(span),
        _ => steps.push(Step::Apply(vec![span])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(partition: Partition, after: Position, until: Position) -> Span {
        Span { partition, after, until }
    }

    fn place(partition: Partition, position: Position) -> Place {
        Place { stream: StreamId::new("t", "user", "u"), partition, position, sequence: 1 }
    }

    #[test]
    fn what_queues_is_left_out_and_what_was_discarded_is_skipped_in_its_place() {
        let mut parking = Parking::new(3);
        let spans = [span(0, 0, 5), span(1, 10, 12), span(2, 0, 3)];
        assert_eq!(parking.steps(&spans, &BTreeSet::new()), [Step::Apply(spans.to_vec())]);
        let queue = BTreeSet::from([(0, 1), (0, 4), (1, 11), (1, 12), (1, 13)]);
        assert_eq!(
            parking.steps(&spans, &queue),
            [Step::Apply(vec![span(0, 1, 3), span(0, 4, 5), span(2, 0, 3)])]
        );
        let discarded = [1, 4].map(|position| (position, place(0, position)));
        parking.know(0, Streams::new(), BTreeMap::from(discarded));
        parking.know(2, Streams::new(), BTreeMap::from([(4, place(2, 4))]));
        assert_eq!(
            parking.steps(&spans, &BTreeSet::from([(0, 4)])),
            [
                Step::Skip(place(0, 1)),
                Step::Apply(vec![span(0, 1, 3), span(0, 4, 5), span(1, 10, 12), span(2, 0, 3)])
            ]
        );
        assert_eq!(
            parking.steps(&spans, &BTreeSet::new()),
            [
                Step::Skip(place(0, 1)),
                Step::Apply(vec![span(0, 1, 3)]),
                Step::Skip(place(0, 4)),
                Step::Apply(vec![span(0, 4, 5), span(1, 10, 12), span(2, 0, 3)])
            ]
        );
    }

    #[test]
    fn a_lease_is_new_once() {
        let mut parking = Parking::new(1);
        assert!(parking.takes_over(0, 1) && !parking.takes_over(0, 1) && parking.takes_over(0, 2));
    }
}
