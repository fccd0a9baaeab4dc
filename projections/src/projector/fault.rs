//! Why events could not be applied, and what follows from that.

use rollcall_event_store::{Partition, Position, keys, tail};

use crate::{checkpoint, parking::STREAMS_MAX};

/// SQLSTATEs of the functions that apply batches: a row is not the one that was read; events are missing.
const CHANGED: &str = "RC002";
pub(super) const HOLE: &str = "RC003";
/// Characters that are kept of an error.
const TOLD_MAX: usize = 1_000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    #[error("the version was dropped")]
    Dropped,
    #[error(transparent)]
    Tail(#[from] tail::Error),
    #[error(transparent)]
    Keys(#[from] keys::Error),
    #[error("an event cannot be read (partition {partition}, position {position})")]
    Event { partition: Partition, position: Position, source: rollcall_domain::stored::Error },
    #[error("a row cannot be read (partition {partition}, position {position})")]
    Row { partition: Partition, position: Position },
    #[error(
        "a row is at version {found}, but the next event makes version {next} (partition {partition}, position \
         {position}): see `rollcall audit-projections --all --repair`"
    )]
    Gap { found: u64, next: u64, partition: Partition, position: Position },
    #[error(
        "there is no row to go on from, and the event makes version {next} (partition {partition}, position {position}): \
         the user's first event was discarded, or its row was taken away, which `rollcall audit-projections --all --repair` mends"
    )]
    NoRow { next: u64, partition: Partition, position: Position },
    #[error(
        "{STREAMS_MAX} streams of partition {partition} are parked already: more than these streams is wrong. See the \
         errors that `rollcall parked list` shows"
    )]
    TooManyParked { partition: Partition },
    #[error(
        "the stream has more than {events_max} events, and is too long to be folded in the background: see `rollcall \
         audit-projections --all`"
    )]
    TooLong { events_max: usize },
}

/// What an error says of the events that it came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: trying again may help without anybody's doing.
    Transient,
    /// One of them, or the row that it goes on from, cannot be worked with. Alone, it parks its stream.
    Poisoned,
    /// Nothing of the partition can be: the log has a hole, or a table or a right is missing.
    Halted,
}

impl Error {
    /// Whether it lies in the events, the key or the rows of one stream, and others can be worked with all the same.
    pub fn lies_in_a_stream(&self) -> bool {
        self.verdict() == Verdict::Poisoned
    }

    /// Whether it was found in what was read before the checkpoints were held, and another session may have brought it about.
    pub(super) fn precedes_hold(&self) -> bool {
        match self {
            // The log does not change.
            Self::Tail(_) | Self::Event { .. } | Self::TooManyParked { .. } | Self::TooLong { .. } => false,
            // What the database says of values it says of the statement that holds the checkpoints.
            Self::Database(error @ sqlx::Error::Database(_)) => checkpoint::is(error, CHANGED),
            Self::Database(_) | Self::Dropped | Self::Keys(_) => true,
            Self::Row { .. } | Self::Gap { .. } | Self::NoRow { .. } => true,
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        match self {
            Self::Database(error)
            | Self::Tail(tail::Error::Database(error))
            | Self::Keys(keys::Error::Database(error)) => judge(error),
            Self::Dropped => Verdict::Transient,
            Self::Tail(tail::Error::Hole { .. } | tail::Error::Repeated { .. })
            | Self::TooManyParked { .. } => Verdict::Halted,
            Self::Keys(_)
            | Self::Event { .. }
            | Self::Row { .. }
            | Self::Gap { .. }
            | Self::NoRow { .. }
            | Self::TooLong { .. } => Verdict::Poisoned,
        }
    }

    /// The error with its causes in one line that may be kept and shown: of the database's errors the SQLSTATE and the names
    /// alone, of JSON's the place alone, since both repeat the value that they stumbled over.
    pub fn told(&self) -> String {
        let mut told = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(source) = cause {
            told.push_str(": ");
            if let Some(error) = source.downcast_ref::<sqlx::Error>() {
                told.push_str(&of_database(error));
                break;
            }
            if let Some(error) = source.downcast_ref::<serde_json::Error>() {
                told.push_str(&format!("JSON, line {}, column {}", error.line(), error.column()));
                break;
            }
            told.push_str(&source.to_string());
            cause = source.source();
        }
        told.chars().take(TOLD_MAX).collect()
    }
}

/// By SQLSTATE, else by its class: 22 (data), 23 (integrity) and 54 (limits) lie in a row, 42 (syntax or access) and 3F (no
/// such schema) in the tables, 58 and XX (the system, damaged data) in a place that the other partitions may do without. All
/// others pass: connections, conflicts, disks that are full, servers that stop.
fn judge(error: &sqlx::Error) -> Verdict {
    match error {
        sqlx::Error::Database(error) => match error.code().as_deref().unwrap_or_default() {
            CHANGED => Verdict::Poisoned,
            HOLE => Verdict::Halted,
            state => match state.get(..2) {
                Some("22" | "23" | "54") => Verdict::Poisoned,
                Some("3F" | "42" | "58" | "XX") => Verdict::Halted,
                _ => Verdict::Transient,
            },
        },
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound => {
            Verdict::Poisoned
        }
        _ => Verdict::Transient,
    }
}

fn of_database(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => {
            let mut told = format!("SQLSTATE {}", error.code().as_deref().unwrap_or("unknown"));
            for (what, name) in [("table", error.table()), ("constraint", error.constraint())] {
                if let Some(name) = name {
                    told.push_str(&format!(", {what} {name}"));
                }
            }
            told
        }
        sqlx::Error::ColumnDecode { index, .. } => format!("column {index} cannot be decoded"),
        sqlx::Error::Decode(_) => "a column cannot be decoded".to_owned(),
        sqlx::Error::RowNotFound => "a row that should be there is not".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use rollcall_domain::stored;
    use sqlx::error::{DatabaseError, ErrorKind};

    use super::*;

    #[test]
    fn what_is_kept_of_an_error_repeats_no_value() {
        let source = serde_json::from_str::<u8>(r#""ada@example.com""#).unwrap_err();
        assert!(source.to_string().contains("ada@example.com"));
        let source = stored::Error::Payload { event_type: "UserCreated".to_owned(), source };
        let error = Error::Event { partition: 1, position: 2, source };
        assert_eq!(
            error.told(),
            "an event cannot be read (partition 1, position 2): payload of UserCreated cannot be read: JSON, line 1, \
             column 17"
        );
        let error = Error::from(sqlx::Error::Decode("ada@example.com".into()));
        assert_eq!(error.told(), "the database failed: a column cannot be decoded");
    }

    /// An error of the database that has a SQLSTATE alone.
    #[derive(Debug, thiserror::Error)]
    #[error("SQLSTATE {0}")]
    struct Of(&'static str);

    impl DatabaseError for Of {
        fn message(&self) -> &str {
            "of a test"
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }

        fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    #[test]
    fn what_the_database_says_is_judged_by_the_class_of_its_state() {
        for (verdict, states) in [
            // A NUL in a text, a row twice, a row too long.
            (Verdict::Poisoned, &["22P05", "23505", "54000", "RC002"][..]),
            // No such table, no right to it, a file that cannot be read, a damaged index.
            (Verdict::Halted, &["42P01", "42501", "58030", "XX002", "3F000", "RC003"]),
            // A connection lost, a conflict, a disk that is full, a shutdown, a lock, a read-only standby.
            (
                Verdict::Transient,
                &["08006", "40001", "40P01", "53100", "57P01", "57014", "55P03", "25006", "RC001", "", "2"],
            ),
        ] {
            for state in states {
                let error = || sqlx::Error::Database(Box::new(Of(state)));
                let errors = [
                    Error::from(error()),
                    tail::Error::Database(error()).into(),
                    keys::Error::Database(error()).into(),
                ];
                assert_eq!(errors.map(|error| error.verdict()), [verdict; 3], "{state}");
            }
        }
    }

    #[test]
    fn what_was_found_before_the_checkpoints_were_held_is_judged_anew() {
        let of = |state| Error::from(sqlx::Error::Database(Box::new(Of(state))));
        assert!(of("RC002").precedes_hold());
        // A value that no row can have; a key that is there.
        for state in ["22P05", "23505"] {
            assert!(!of(state).precedes_hold(), "{state}");
        }
        assert!(Error::Gap { found: 1, next: 3, partition: 0, position: 2 }.precedes_hold());
        assert!(
            !Error::from(tail::Error::Hole { partition: 0, expected_after: 1, found: None }).precedes_hold()
        );
    }

    #[test]
    fn only_what_lies_in_an_event_or_its_row_parks() {
        let hole = tail::Error::Hole { partition: 0, expected_after: 1, found: None };
        assert_eq!(Error::from(hole).verdict(), Verdict::Halted);
        assert_eq!(Error::TooManyParked { partition: 0 }.verdict(), Verdict::Halted);
        assert_eq!(Error::from(sqlx::Error::PoolTimedOut).verdict(), Verdict::Transient);
        assert_eq!(Error::from(sqlx::Error::RowNotFound).verdict(), Verdict::Poisoned);
        assert_eq!(Error::Row { partition: 0, position: 1 }.verdict(), Verdict::Poisoned);
    }
}
