//! Room for the bodies of requests and answers: large ones may be in memory only up to a common bound.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::{Problem, code};

/// What every request may have without asking; the number of requests bounds it.
pub const FREE_BYTES: usize = 16 * 1024;
/// Room is counted in parts of this size: a semaphore counts in 32 bits.
const PART_BYTES: usize = 4 * 1024;

/// The room of a process.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Semaphore>);

impl Budget {
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes / PART_BYTES).min(Semaphore::MAX_PERMITS))))
    }

    /// What one request takes of it, from now until the last clone is dropped: put one into the request's extensions and
    /// keep one until it is answered.
    #[must_use]
    pub fn of_request(&self) -> BodyBudget {
        let taken = Mutex::new(Taken { bytes: 0, permits: None });
        BodyBudget(Arc::new(Held { room: Arc::clone(&self.0), taken }))
    }
}

/// What a request's body takes of the room.
#[derive(Clone, Debug)]
pub struct BodyBudget(Arc<Held>);

#[derive(Debug)]
struct Held {
    room: Arc<Semaphore>,
    taken: Mutex<Taken>,
}

#[derive(Debug)]
struct Taken {
    bytes: usize,
    permits: Option<OwnedSemaphorePermit>,
}

impl BodyBudget {
    /// # Errors
    /// 503 `overloaded` where there is no room for that many bytes more.
    pub fn take(&self, bytes: usize) -> Result<(), Problem> {
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.bytes += bytes;
        let wanted = taken.bytes.saturating_sub(FREE_BYTES).div_ceil(PART_BYTES);
        let held = taken.permits.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Some(missing) = wanted.checked_sub(held).filter(|missing| *missing > 0) else { return Ok(()) };
        let more = u32::try_from(missing)
            .ok()
            .and_then(|missing| Arc::clone(&self.0.room).try_acquire_many_owned(missing).ok());
        let Some(more) = more else {
            return Err(Problem::new(code::OVERLOADED, "there is no room for a body of this size now")
                .with_retry_after_s(1));
        };
        match &mut taken.permits {
            Some(permits) => permits.merge(more),
            None => taken.permits = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_as_a_body_grows_and_given_back_with_the_request() {
        let budget = Budget::new(64 * 1024);
        let (one, other) = (budget.of_request(), budget.of_request());
        one.take(FREE_BYTES).unwrap();
        assert_eq!(budget.0.available_permits(), 16, "small bodies take none");
        one.take(48 * 1024).unwrap();
        assert_eq!(budget.0.available_permits(), 4);
        other.take(32 * 1024).unwrap();
        assert_eq!(other.take(1).unwrap_err().code, "overloaded");
        drop(one);
        other.take(1).unwrap();
        drop(other);
        assert_eq!(budget.0.available_permits(), 16);
    }
}
