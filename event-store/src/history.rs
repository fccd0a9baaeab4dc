//! One history: how a process notices that the log under it is another one, or went back, and what it does then.
//!
//! Shape: newest events that are known -> look (log id, heads, their events, `log.halt`, in one statement) -> [`Halt`] ->
//! nothing is appended.
//!
//! After a restore to an earlier point positions would be given again to other events, so no process may append one: not
//! one that ran all the while (heads only rise and events stay what they are, so a head below what it knew *before it
//! asked*, or another event where it knew one, is a restore; and every append names the log id), and not one that was
//! started since (what others found stands in `log.halt`). An operator ends this by adopting the log
//! ([`adopt`](crate::adopt)).
//!
//! Who knows an event knows by the newest of its partition whether it was lost: a partition is lost from its end. What a
//! standby says is no verdict, because it may have yet to replay what it has.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    Borrowed, Log, Partition, Position, bounded,
    tail::{Heads, Newest, signed, unsigned},
};

/// What an operator does about it.
const MEND: &str = "find out what was lost, then run \"rollcall adopt-restored\" as the owner";

const MEND_OR_RESTART: &str = "find out what was lost, then run \"rollcall adopt-restored\" as the owner; or, if the whole log \
                               is back, start this process again";

const STANDBY: &str = "the server at this address is a standby that replays what its primary did; database.url must lead to \
                       a primary";

/// Why no commands are taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// This process knew more of the log than there is. It stays so until it is started again.
    #[error(
        "partition {partition} of the log ends at position {found} and ended at {known} before: the log was restored to \
             an earlier point, or failed over to a copy that lacked its end"
    )]
    WentBack { partition: Partition, known: Position, found: Position },
    /// This process knew another event at a position that was given again since.
    #[error(
        "partition {partition} of the log has another event at position {position} than before: the log was restored to \
             an earlier point, or failed over to a copy that lacked its end, and written to since"
    )]
    Diverged { partition: Partition, position: Position },
    /// The log was adopted, or the address leads to another one: a process of the old one must end.
    #[error("the log {expected} is {found} now: {}", self.how())]
    Foreign { expected: Uuid, found: Uuid },
    /// What another process found, or this one elsewhere.
    #[error("{why} (found by {found_by}, {found_at})")]
    Told { found_by: String, found_at: DateTime<Utc>, why: String },
}

impl Halt {
    /// Whether what this process remembers of the log is void.
    pub fn voids_memory(&self) -> bool {
        self.lost_events() || matches!(self, Self::Foreign { .. })
    }

    /// What an operator does about it. What this process found itself it believes until it ends: the whole log may be back
    /// since.
    pub fn mend(&self) -> &'static str {
        if self.lost_events() { MEND_OR_RESTART } else { MEND }
    }

    /// Whether the log lacks what this process knew of it, which others have to be told.
    pub(crate) fn lost_events(&self) -> bool {
        matches!(self, Self::WentBack { .. } | Self::Diverged { .. })
    }

    /// Whether the log has an id that it had before the one that was known: ids rise with time. An adoption is forgotten
    /// then, and positions are given again that its history gave.
    pub(crate) fn behind_adoption(&self) -> bool {
        matches!(self, Self::Foreign { expected, found } if found < expected)
    }

    fn how(&self) -> &'static str {
        match self.behind_adoption() {
            true => "it was restored to a point before it was adopted, or the address leads to another log",
            false => "it was restored and adopted, or the address leads to another log",
        }
    }

    /// The metric's label, where it is a breach of what the log promises.
    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::WentBack { .. } | Self::Diverged { .. } => Some("went_back"),
            Self::Foreign { .. } => Some("foreign"),
            Self::Told { .. } => None,
        }
    }

    pub(crate) fn say(&self) {
        if let Some(reason) = self.reason() {
            broken(reason);
        }
        match self {
            Self::Foreign { .. } => {
                tracing::error!(halt = %self, "the log under this process is another one; it ends, to be started anew");
            }
            Self::WentBack { .. } | Self::Diverged { .. } | Self::Told { .. } => {
                tracing::error!(halt = %self, to_mend = self.mend(), "the log was restored: no commands are taken");
            }
        }
    }
}

/// Counts a breach of what the log promises its readers.
pub(crate) fn broken(reason: &'static str) {
    metrics::counter!("rollcall_log_broken_total", "reason" => reason).increment(1);
}

/// Makes the metrics known before they first move, so that a rate has somewhere to rise from.
pub(crate) fn register() {
    for reason in ["hole", "repeated", "went_back", "foreign"] {
        metrics::counter!("rollcall_log_broken_total", "reason" => reason).increment(0);
    }
    metrics::gauge!("rollcall_log_halted").set(0.0);
}

/// Whose newest events are compared with the log's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    /// Of partitions that moved: enough as long as the connections are those that were looked at before.
    Moved,
    /// Of all partitions.
    All,
}

/// Asks how the log stands, and takes note of it. True if there was news of events.
pub(crate) async fn look(
    connection: &mut PgConnection,
    heads: &Heads,
    compare: Compare,
) -> Result<bool, sqlx::Error> {
    let mut seen = Seen::of(connection, heads, compare).await?;
    if seen.halt.as_ref().is_some_and(Halt::lost_events) {
        // A standby that was promoted while it answered may have answered from before; by now it has replayed all it has.
        seen = Seen::of(connection, heads, compare).await?;
    }
    heads.note(seen.halt);
    Ok(heads.heard(&seen.known, &seen.found))
}

/// How the log stood.
struct Seen {
    halt: Option<Halt>,
    /// What was known *before the question*: what rises meanwhile must not look like a log that went back.
    known: Vec<Newest>,
    found: Vec<Newest>,
}

impl Seen {
    async fn of(connection: &mut PgConnection, heads: &Heads, compare: Compare) -> Result<Self, sqlx::Error> {
        let known = heads.known();
        let rows = sqlx::query(
            "SELECT p.partition, p.position, m.log_id, h.found_by, h.found_at, h.why, pg_is_in_recovery(),
                    CASE WHEN p.position > k.position THEN p.event_id END,
                    k.event_id IS NOT NULL AND ($3 OR p.position > k.position) AND k.event_id IS DISTINCT FROM
                        (SELECT CASE WHEN e.position = k.position THEN e.event_id END FROM log.events e
                         WHERE e.partition = p.partition AND e.position <= k.position
                         ORDER BY e.position DESC LIMIT 1)
             FROM unnest($1::int8[], $2::uuid[]) WITH ORDINALITY AS k(position, event_id, ordinal)
             JOIN log.heads p ON p.partition = k.ordinal - 1
             CROSS JOIN log.meta m LEFT JOIN log.halt h ON true
             ORDER BY p.partition",
        )
        .bind(known.iter().map(|newest| signed(newest.position)).collect::<Vec<_>>())
        .bind(known.iter().map(|newest| newest.event_id).collect::<Vec<_>>())
        .bind(compare == Compare::All)
        .fetch_all(connection)
        .await?;
        let Some(first) = rows.first().filter(|_| rows.len() == known.len()) else {
            return Err(sqlx::Error::Decode(
                "log.meta and log.partitions do not hold what they should".into(),
            ));
        };
        if first.try_get(6)? {
            return Err(sqlx::Error::Protocol(STANDBY.to_owned()));
        }
        let (expected, found_id): (Uuid, Uuid) = (heads.log_id(), first.try_get(2)?);
        let mut found = Vec::with_capacity(rows.len());
        let mut lost = None;
        for ((partition, row), known) in (0..).zip(&rows).zip(&known) {
            let newest =
                Newest { position: unsigned(row.try_get(1)?, "position")?, event_id: row.try_get(7)? };
            if lost.is_none() && newest.position < known.position {
                lost = Some(Halt::WentBack { partition, known: known.position, found: newest.position });
            } else if lost.is_none() && row.try_get(8)? {
                lost = Some(Halt::Diverged { partition, position: known.position });
            }
            found.push(newest);
        }
        let halt = match lost {
            _ if found_id != expected => Some(Halt::Foreign { expected, found: found_id }),
            Some(lost) => Some(lost),
            None => told(first)?,
        };
        Ok(Self { halt, known, found })
    }
}

fn told(row: &PgRow) -> Result<Option<Halt>, sqlx::Error> {
    let Some(found_by) = row.try_get(3)? else { return Ok(None) };
    Ok(Some(Halt::Told { found_by, found_at: row.try_get(4)?, why: row.try_get(5)? }))
}

/// Why the log takes no commands, for who only looks.
///
/// # Errors
/// Where the database cannot be read.
pub async fn halt(connection: &mut PgConnection) -> Result<Option<Halt>, sqlx::Error> {
    let row = sqlx::query("SELECT NULL, NULL, NULL, found_by, found_at, why FROM log.halt")
        .fetch_optional(connection)
        .await?;
    row.as_ref().map_or(Ok(None), told)
}

/// Writes down why no commands are taken, for all processes, those too that are started later. What was found first stays.
/// Of a log that was adopted meanwhile nothing was found: what is known of it is of its earlier history.
/// Nor is a log halted that only happens to be at the address.
pub(crate) async fn tell(
    pool: &PgPool,
    heads: &Heads,
    log_id: Uuid,
    found_by: &str,
    why: &str,
) -> Result<(), sqlx::Error> {
    bounded(async {
        let mut connection = Borrowed::from(pool).await?;
        sqlx::query(
            "INSERT INTO log.halt (found_by, why) SELECT $3, $4 FROM log.meta WHERE log_id = $1 AND first_log_id = $2
             ON CONFLICT DO NOTHING",
        )
        .bind(log_id)
        .bind(heads.first_log_id())
        .bind(found_by)
        .bind(why)
        .execute(&mut *connection)
        .await?;
        connection.done();
        Ok(())
    })
    .await
}

/// An earlier history of a log, which an adoption ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    pub log_id: Uuid,
    /// By partition, up to where its events are this log's, too.
    pub heads: Vec<Position>,
    pub adopted_at: DateTime<Utc>,
}

/// The histories that were ended, the first one first.
///
/// # Errors
/// Where the database cannot be read.
pub async fn histories(connection: &mut PgConnection) -> Result<Vec<History>, sqlx::Error> {
    sqlx::query("SELECT log_id, heads, adopted_at FROM log.histories ORDER BY adopted_at")
        .fetch_all(connection)
        .await?
        .iter()
        .map(|row| {
            let heads: Vec<i64> = row.try_get(1)?;
            let heads = heads.into_iter().map(|head| unsigned(head, "head")).collect::<Result<_, _>>()?;
            Ok(History { log_id: row.try_get(0)?, heads, adopted_at: row.try_get(2)? })
        })
        .collect()
}

impl Log {
    /// Why no commands are taken, as this process knows it.
    pub fn halt(&self) -> Option<Arc<Halt>> {
        self.heads().halt()
    }

    /// Halts the log for all processes: somebody found that the log is behind what was told of it.
    ///
    /// # Errors
    /// Where it cannot be written down: it must be found again.
    pub async fn halt_all(&self, found_by: &str, why: &str) -> Result<(), sqlx::Error> {
        tell(self.pool(), self.heads(), self.log_id(), found_by, why).await?;
        self.refresh_heads().await
    }

    /// The histories that were ended by adoptions.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn histories(&self) -> Result<Vec<History>, sqlx::Error> {
        bounded(async {
            let mut connection = Borrowed::from(self.pool()).await?;
            let histories = histories(&mut connection).await?;
            connection.done();
            Ok(histories)
        })
        .await
    }

    /// The ids of the events at positions, in their order; none where the log does not reach.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn event_ids(
        &self,
        places: &[(Partition, Position)],
    ) -> Result<Vec<Option<Uuid>>, sqlx::Error> {
        bounded(async {
            let mut connection = Borrowed::from(self.pool()).await?;
            let ids = sqlx::query_scalar(
                "SELECT e.event_id FROM unnest($1::int4[], $2::int8[]) WITH ORDINALITY AS q(partition, position, ordinal)
                 LEFT JOIN LATERAL (SELECT CASE WHEN l.position = q.position THEN l.event_id END AS event_id
                     FROM log.events l WHERE l.partition = q.partition AND l.position <= q.position
                     ORDER BY l.position DESC LIMIT 1) e ON true
                 ORDER BY q.ordinal",
            )
            .bind(places.iter().map(|(partition, _)| i32::from(*partition)).collect::<Vec<_>>())
            .bind(places.iter().map(|(_, position)| signed(*position)).collect::<Vec<_>>())
            .fetch_all(&mut *connection)
            .await?;
            connection.done();
            Ok(ids)
        })
        .await
    }
}
