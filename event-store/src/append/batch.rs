//! Collects appends into what one statement can judge.
//!
//! Of two appends for one stream, claim or idempotency key in a statement the second would meet what the first stores,
//! however often it is run: so at most one of them stands in it. A twin (a second append for a claim or key) is settled
//! here, by what becomes of the first: a hot value costs one place in the statement, and does not take over the queue. What
//! cannot be settled waits for the next batch.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{Append, Appended, Error, Pending, outcome::Tally};
use crate::{StreamId, claims::ClaimChange, keys::Digest};

/// Appends that can be stored together, sorted by partition, and the twins that wait for what becomes of them.
#[derive(Default)]
pub(super) struct Batch {
    pub leaders: Vec<Pending>,
    twins: Vec<Twin>,
}

struct Twin {
    pending: Pending,
    /// Place of the first among the leaders.
    leader: usize,
    on: Shared,
}

/// What a twin has in common with its leader.
#[derive(Clone, Copy)]
enum Shared {
    Claim(Digest),
    Key,
}

#[derive(Default)]
struct Seen {
    streams: HashSet<StreamId>,
    takes: HashMap<Digest, usize>,
    releases: HashSet<Digest>,
    keys: HashMap<Digest, usize>,
}

enum Place {
    Leader,
    Twin(usize, Shared),
    NextBatch,
}

impl Seen {
    fn place(&self, append: &Append) -> Place {
        if self.streams.contains(&append.stream) {
            return Place::NextBatch;
        }
        if let Some(record) = &append.record
            && let Some(&leader) = self.keys.get(&record.idempotency.key)
        {
            return Place::Twin(leader, Shared::Key);
        }
        for claim in &append.claims {
            match claim {
                ClaimChange::Take(digest) if self.releases.contains(digest) => return Place::NextBatch,
                ClaimChange::Release(digest) if self.takes.contains_key(digest) => return Place::NextBatch,
                ClaimChange::Take(digest) => {
                    if let Some(&leader) = self.takes.get(digest) {
                        return Place::Twin(leader, Shared::Claim(*digest));
                    }
                }
                ClaimChange::Release(_) => {}
            }
        }
        Place::Leader
    }

    fn note(&mut self, append: &Append, leader: usize) {
        self.streams.insert(append.stream.clone());
        if let Some(record) = &append.record {
            self.keys.insert(record.idempotency.key, leader);
        }
        for claim in &append.claims {
            match claim {
                ClaimChange::Take(digest) => {
                    self.takes.insert(*digest, leader);
                }
                ClaimChange::Release(digest) => {
                    self.releases.insert(*digest);
                }
            }
        }
    }
}

impl Batch {
    /// Takes the queue's appends; what must wait stays in it, in order.
    pub fn collect(queue: &mut VecDeque<Pending>) -> Self {
        // Sorted by partition, as the statement wants it; stable, so first come stays first served.
        queue.make_contiguous().sort_by_key(|pending| pending.partition);
        let mut batch = Self::default();
        let mut seen = Seen::default();
        for pending in std::mem::take(queue) {
            match seen.place(&pending.append) {
                Place::Leader => {
                    seen.note(&pending.append, batch.leaders.len());
                    batch.leaders.push(pending);
                }
                Place::Twin(leader, on) => batch.twins.push(Twin { pending, leader, on }),
                Place::NextBatch => queue.push_back(pending),
            }
        }
        batch
    }

    /// Answers every append of the batch; twins that the outcomes do not settle go back to the queue.
    pub fn answer(self, outcomes: Vec<Result<Appended, Error>>, queue: &mut VecDeque<Pending>) {
        debug_assert_eq!(outcomes.len(), self.leaders.len());
        let mut tally = Tally::default();
        let mut answer = |pending: Pending, outcome| {
            tally.note(&outcome);
            // A caller that went away needs no answer.
            let _ = pending.reply.send(outcome);
        };
        for twin in self.twins {
            match (twin.on, &outcomes[twin.leader]) {
                (Shared::Key, Ok(_) | Err(Error::KeyUsed)) => answer(twin.pending, Err(Error::KeyUsed)),
                (Shared::Claim(digest), Ok(_)) => answer(twin.pending, Err(Error::ClaimTaken(digest))),
                (Shared::Claim(digest), Err(Error::ClaimTaken(taken))) if digest == *taken => {
                    answer(twin.pending, Err(Error::ClaimTaken(digest)));
                }
                _ => queue.push_back(twin.pending),
            }
        }
        for (pending, outcome) in self.leaders.into_iter().zip(outcomes) {
            answer(pending, outcome);
        }
        tally.tell();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        append::Expected,
        commands::{Idempotency, Record},
    };

    fn digest(n: u8) -> Digest {
        Digest([n; 16])
    }

    type Answer = oneshot::Receiver<Result<Appended, Error>>;

    struct Wish {
        pending: Pending,
        answer: Answer,
    }

    fn wish(stream: &str, claims: Vec<ClaimChange>, key: Option<u8>) -> Wish {
        let (reply, answer) = oneshot::channel();
        let record = key.map(|key| Record {
            idempotency: Idempotency { key: digest(key), fingerprint: digest(0) },
            status: 201,
            version: 1,
        });
        let append = Append {
            stream: StreamId::new("t", "user", stream),
            expected: Expected::Fresh,
            events: Vec::new(),
            claims,
            record,
            data_key: None,
        };
        Wish { pending: Pending { append, partition: 0, reply }, answer }
    }

    const STORED: Appended = Appended { partition: 0, position: 1, recorded_at: None };

    fn collect(wishes: Vec<Wish>) -> (Batch, VecDeque<Pending>, Vec<Answer>) {
        let (pending, answers): (VecDeque<_>, Vec<_>) =
            wishes.into_iter().map(|w| (w.pending, w.answer)).unzip();
        let mut queue = pending;
        (Batch::collect(&mut queue), queue, answers)
    }

    #[test]
    fn the_first_of_two_with_one_claim_wins_and_the_other_is_refused_in_the_same_batch() {
        let take = vec![ClaimChange::Take(digest(1))];
        let (batch, mut queue, mut answers) =
            collect(vec![wish("a", take.clone(), None), wish("b", take, None)]);
        assert_eq!((batch.leaders.len(), queue.len()), (1, 0));
        batch.answer(vec![Ok(STORED)], &mut queue);
        assert!(matches!(answers[0].try_recv(), Ok(Ok(STORED))));
        assert!(matches!(answers[1].try_recv(), Ok(Err(Error::ClaimTaken(d))) if d == digest(1)));
    }

    #[test]
    fn a_twin_is_judged_again_when_the_first_was_lost_for_another_reason() {
        let take = vec![ClaimChange::Take(digest(1))];
        let (batch, mut queue, mut answers) =
            collect(vec![wish("a", take.clone(), None), wish("b", take, None)]);
        batch.answer(vec![Err(Error::Conflict)], &mut queue);
        assert_eq!(queue.len(), 1);
        assert!(answers[1].try_recv().is_err());
    }

    #[test]
    fn a_used_key_answers_its_twins() {
        let (batch, mut queue, mut answers) =
            collect(vec![wish("a", Vec::new(), Some(9)), wish("b", Vec::new(), Some(9))]);
        assert_eq!(batch.leaders.len(), 1);
        batch.answer(vec![Ok(STORED)], &mut queue);
        assert!(matches!(answers[1].try_recv(), Ok(Err(Error::KeyUsed))));
    }

    #[test]
    fn releasing_and_taking_a_value_go_into_different_batches() {
        let (batch, queue, _answers) = collect(vec![
            wish("a", vec![ClaimChange::Release(digest(1))], None),
            wish("b", vec![ClaimChange::Take(digest(1))], None),
        ]);
        assert_eq!((batch.leaders.len(), queue.len()), (1, 1));
    }

    #[test]
    fn two_appends_of_one_stream_go_into_different_batches() {
        let (batch, queue, _answers) =
            collect(vec![wish("a", Vec::new(), None), wish("a", Vec::new(), None)]);
        assert_eq!((batch.leaders.len(), queue.len()), (1, 1));
    }
}
