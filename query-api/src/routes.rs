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
        if let Some(sqlx_error) = source.downcast_ref::<sqlx::Error>()
            && !matches!(sqlx_error, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. })
        {
            tracing::warn!(error, "a query could not be answered");
            return Problem::unavailable("the database cannot be read", 1);
        }
        cause = source.source();
    }
    Problem::internal(error)
}
