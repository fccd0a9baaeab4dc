//! What is wrong with one request's members, collected.

use super::{FieldError, Problem, code};

/// How many errors an answer lists; the rest are only counted.
pub const ERRORS_MAX: usize = 100;

/// Collects the errors of a body, so that the client reads all of them at once. A reader that meets something that
/// makes the whole body meaningless (a duplicate member deep inside, say) puts that in the place of all others.
#[derive(Debug, Default)]
pub struct Problems {
    errors: Vec<FieldError>,
    dropped: usize,
    fatal: Option<Box<Problem>>,
}

impl Problems {
    /// Notes what is wrong with the member at `pointer`.
    pub fn push(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        if self.full() {
            self.dropped += 1;
        } else {
            self.errors.push(FieldError::pointer(pointer, detail));
        }
    }

    /// Notes what another reader found: its errors join these, and a 400 takes the place of all. Of several 400s the
    /// first stays.
    pub fn absorb(&mut self, problem: Problem) {
        if problem.code == code::INVALID_MEMBERS.code {
            let room = ERRORS_MAX - self.errors.len();
            self.dropped += problem.errors.len().saturating_sub(room);
            self.errors.extend(problem.errors.into_iter().take(room));
        } else if self.fatal.is_none() {
            self.fatal = Some(Box::new(problem));
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty() && self.fatal.is_none()
    }

    /// Whether further errors would only be counted, so that looking for hints is wasted.
    pub(crate) fn full(&self) -> bool {
        self.errors.len() >= ERRORS_MAX
    }

    /// # Errors
    /// The 400 where there is one, else a 422 `invalid-members` with all errors, else nothing.
    pub fn into_result(self) -> Result<(), Problem> {
        if let Some(fatal) = self.fatal {
            return Err(*fatal);
        }
        if self.errors.is_empty() {
            return Ok(());
        }
        let detail = match (self.errors.len(), self.dropped) {
            (1, 0) => "one member is not as it must be; see `errors`".to_owned(),
            (count, 0) => format!("{count} members are not as they must be; see `errors`"),
            (count, dropped) => format!(
                "{} members are not as they must be; `errors` lists the first {count}",
                count + dropped
            ),
        };
        Err(Problem::new(code::INVALID_MEMBERS, detail).with_errors(self.errors))
    }

    /// Gives the value that was read along the way. Readers of required members return `None` only after noting why,
    /// so `None` without an error is a bug here, answered with a 500.
    ///
    /// # Errors
    /// As [`Problems::into_result`].
    pub fn into_value<T>(self, value: Option<T>) -> Result<T, Problem> {
        self.into_result()?;
        value.ok_or_else(|| Problem::internal(&Vanished))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a member was not read, but no error was noted")]
struct Vanished;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_a_hundred_errors_are_listed() {
        let mut problems = Problems::default();
        for i in 0..250 {
            problems.push(format!("/{i}"), "is wrong");
        }
        let problem = problems.into_result().unwrap_err();
        assert_eq!(problem.errors.len(), 100);
        assert!(problem.detail.starts_with("250 members"), "{}", problem.detail);
    }

    #[test]
    fn a_400_takes_the_place_of_all_others() {
        let mut problems = Problems::default();
        problems.push("/a", "is wrong");
        problems.absorb(Problem::new(code::DUPLICATE_MEMBER, "twice"));
        problems.absorb(Problem::new(code::MALFORMED_JSON, "later"));
        assert_eq!(problems.into_result().unwrap_err().code, "duplicate-member");
    }

    #[test]
    fn errors_of_another_reader_join() {
        let mut inner = Problems::default();
        inner.push("/items/0/a", "is wrong");
        let mut problems = Problems::default();
        problems.push("/b", "is wrong");
        problems.absorb(inner.into_result().unwrap_err());
        assert_eq!(problems.into_result().unwrap_err().errors.len(), 2);
    }

    #[test]
    fn a_value_comes_out_only_without_errors() {
        assert_eq!(Problems::default().into_value(Some(1)), Ok(1));
        assert_eq!(Problems::default().into_value(None::<u8>).unwrap_err().status, 500);
        let mut problems = Problems::default();
        problems.push("/a", "is required");
        assert_eq!(problems.into_value(Some(1)).unwrap_err().status, 422);
    }
}
