//! The newest events that this process appended, so that its readers need not ask the database for what was in hand a
//! moment ago.
//!
//! *Invariant:* a partition's events here are committed and follow each other without a hole; where another process
//! appended in between, what came before is dropped. They are of the history that the log has: all are dropped when a
//! connection to it was lost, and none is given once it went back. What is not here is read from the log.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use super::Span;
use crate::{Partition, Recorded};

/// Events kept of all partitions together: a tenth of a second of a busy service. More would be read by nobody, and memory that
/// comes round after megabytes is cold.
const EVENTS_MAX: usize = 2_048;
/// Bytes kept of one partition, its newest event apart.
const BYTES_MAX: usize = 1 << 20;

pub(crate) struct Recent {
    partitions: Box<[Mutex<Kept>]>,
    /// Of each partition.
    events_max: usize,
}

#[derive(Default)]
struct Kept {
    events: VecDeque<Arc<Recorded>>,
    bytes: usize,
}

impl Kept {
    fn drop_first(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.bytes -= size(&event);
        }
    }
}

/// What an event takes, near enough.
fn size(event: &Recorded) -> usize {
    size_of::<Recorded>()
        + event.payload.len()
        + event.personal.as_ref().map_or(0, Vec::len)
        + event.metadata.len()
}

impl Recent {
    pub fn new(partitions: Partition) -> Self {
        let events_max = EVENTS_MAX.div_ceil(usize::from(partitions).max(1));
        Self { partitions: (0..partitions).map(|_| Mutex::default()).collect(), events_max }
    }

    /// Keeps a committed event.
    pub fn push(&self, event: Recorded) {
        let mut kept =
            self.partitions[usize::from(event.partition)].lock().unwrap_or_else(PoisonError::into_inner);
        match kept.events.back() {
            Some(last) if last.position + 1 == event.position => {}
            // An answer that was lost and found may come late; what is newer is worth more.
            Some(last) if last.position >= event.position => return,
            _ => *kept = Kept::default(),
        }
        kept.bytes += size(&event);
        kept.events.push_back(Arc::new(event));
        while kept.events.len() > self.events_max || (kept.bytes > BYTES_MAX && kept.events.len() > 1) {
            kept.drop_first();
        }
    }

    /// Drops all: the log may be another one by now.
    pub fn clear(&self) {
        for kept in &self.partitions {
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = Kept::default();
        }
    }

    /// A span's events, where all of them are here.
    pub fn get(&self, span: &Span) -> Option<Vec<Arc<Recorded>>> {
        let kept =
            self.partitions[usize::from(span.partition)].lock().unwrap_or_else(PoisonError::into_inner);
        let (first, last) = (kept.events.front()?.position, kept.events.back()?.position);
        if first > span.after + 1 || last < span.until {
            return None;
        }
        let place = |position: u64| usize::try_from(position + 1 - first).expect("few are kept");
        Some(kept.events.range(place(span.after)..place(span.until)).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use uuid::Uuid;

    use super::*;
    use crate::StreamId;

    fn event(position: u64) -> Recorded {
        Recorded {
            stream: StreamId::new("t", "user", "u"),
            sequence: position,
            partition: 0,
            position,
            event_id: Uuid::nil(),
            event_type: "".into(),
            event_version: "".into(),
            payload: String::new(),
            personal: None,
            metadata: "".into(),
            recorded_at: Utc::now(),
        }
    }

    fn read(recent: &Recent, after: u64, until: u64) -> Option<Vec<u64>> {
        let events = recent.get(&Span { partition: 0, after, until })?;
        Some(events.iter().map(|event| event.position).collect())
    }

    #[test]
    fn a_span_is_given_whole_or_not_at_all() {
        let recent = Recent::new(1);
        assert_eq!(read(&recent, 0, 1), None);
        (5..=9).for_each(|position| recent.push(event(position)));
        assert_eq!(read(&recent, 4, 9), Some(vec![5, 6, 7, 8, 9]));
        assert_eq!(read(&recent, 6, 7), Some(vec![7]));
        assert_eq!(read(&recent, 3, 9), None);
        assert_eq!(read(&recent, 8, 10), None);
    }

    #[test]
    fn what_comes_after_a_hole_stands_alone() {
        let recent = Recent::new(1);
        (1..=3).for_each(|position| recent.push(event(position)));
        recent.push(event(6));
        assert_eq!(read(&recent, 2, 3), None);
        assert_eq!(read(&recent, 5, 6), Some(vec![6]));
        recent.push(event(4));
        assert_eq!(read(&recent, 5, 6), Some(vec![6]));
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let recent = Recent::new(1);
        (1..=EVENTS_MAX as u64 + 1).for_each(|position| recent.push(event(position)));
        assert_eq!(read(&recent, 0, 1), None);
        assert_eq!(read(&recent, 1, 2), Some(vec![2]));

        let recent = Recent::new(1);
        for position in 1..=3 {
            recent.push(Recorded { personal: Some(vec![0; BYTES_MAX / 2]), ..event(position) });
        }
        assert_eq!(read(&recent, 1, 3), None);
        assert_eq!(read(&recent, 2, 3), Some(vec![3]));
    }
}
