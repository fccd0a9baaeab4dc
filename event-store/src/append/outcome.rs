//! Appends counted by what became of them.

use super::{Appended, Error};

/// The label's values: what was stored, then an [`Error`] each.
const NAMES: [&str; 10] = [
    "stored",
    "conflict",
    "claim_taken",
    "key_used",
    "overloaded",
    "stopping",
    "unreachable",
    "unknown",
    "refused",
    "restored",
];

/// The outcomes of a batch: counted here, told once.
#[derive(Default)]
pub(super) struct Tally([u64; NAMES.len()]);

impl Tally {
    pub fn note(&mut self, outcome: &Result<Appended, Error>) {
        self.0[place(outcome.as_ref().err())] += 1;
    }

    pub fn tell(&self) {
        for (name, &count) in NAMES.iter().zip(&self.0).filter(|(_, count)| **count > 0) {
            add(name, count);
        }
    }
}

/// Makes every outcome known before it first happens, so that a rate has somewhere to rise from.
pub(super) fn register() {
    NAMES.iter().for_each(|name| add(name, 0));
}

/// Counts an append that reached no batch.
pub(super) fn count(error: &Error) {
    add(NAMES[place(Some(error))], 1);
}

/// The label of an outcome.
pub(super) fn name(outcome: &Result<Appended, Error>) -> &'static str {
    NAMES[place(outcome.as_ref().err())]
}

fn add(name: &'static str, count: u64) {
    metrics::counter!("rollcall_appends_total", "outcome" => name).increment(count);
}

fn place(error: Option<&Error>) -> usize {
    match error {
        None => 0,
        Some(Error::Conflict) => 1,
        Some(Error::ClaimTaken(_)) => 2,
        Some(Error::KeyUsed) => 3,
        Some(Error::Overloaded) => 4,
        Some(Error::Stopping) => 5,
        Some(Error::Unreachable) => 6,
        Some(Error::Unknown) => 7,
        Some(Error::Database(_)) => 8,
        Some(Error::Restored) => 9,
    }
}
