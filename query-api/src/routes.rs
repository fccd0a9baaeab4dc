//! The query routes, a file for each group.

pub(crate) mod audit;
pub(crate) mod users;

use rollcall_edge::{
    Problem,
    problem::{FieldError, code},
};
use uuid::Uuid;

/// The user that a path names, in its one spelling.
fn user_id(segment: &str) -> Result<String, Problem> {
    let hyphenated = (segment.len() == 36).then(|| Uuid::try_parse(segment).ok()).flatten();
    hyphenated.map(|id| id.to_string()).ok_or_else(|| {
        Problem::new(code::MALFORMED_PATH, "a segment of the path is not as it must be; see `errors`")
            .with_error(FieldError::parameter("id", "must be a UUID of 36 characters"))
    })
}

/// A database that cannot be read is the client's to wait for; anything else is ours to mend.
fn unreadable(error: &(dyn std::error::Error + 'static)) -> Problem {
    let mut cause = Some(error);
    while let Some(source) = cause {
        if source.downcast_ref::<sqlx::Error>().is_some_and(away) {
            tracing::warn!(error, "a query could not be answered");
            return Problem::unavailable("the database cannot be read", 1);
        }
        cause = source.source();
    }
    Problem::internal(error)
}

/// Whether waiting may help: not where a row cannot be decoded, or the statement itself is at fault (SQLSTATE classes 22,
/// data exception, and 42, syntax or access).
fn away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => false,
        sqlx::Error::Database(error) => {
            error.code().is_none_or(|code| !(code.starts_with("22") || code.starts_with("42")))
        }
        _ => true,
    }
}
