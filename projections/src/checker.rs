//! The checker: a version that has filled itself, because this binary is the first of its shape, is compared with the log
//! before anybody reads it.
//!
//! Shape: none of the shape serves, and its first version has caught up -> one process checks it ([`check`], which a rebuild
//! does, too) -> it is noted as checked, and [`promote`](crate::versions::promote) lets it serve; or it is noted as wrong, an
//! error line and a gauge say so, and it never serves by itself.
//!
//! One process at a time checks, by a lock of the connection that notes the outcome: who lost it can note nothing. A process
//! that froze loses it to whoever takes over its leases and ends its sessions, and at the latest when the session has said
//! nothing for [`SILENT_FOR_MAX`]. A rebuild holds the same lock.

use std::{fmt, time::Duration};

use rollcall_event_store::{Borrowed, Log, bounded, connect, session};
use sqlx::{Connection, PgConnection, Row, postgres::PgConnectOptions};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    checkpoint,
    drift::{self, Compared, Counted, Drift},
    leases::Member,
    progress::Serving,
    projector::{Error, Projection, chain},
    schema::Version,
    tables::turn_of,
};

/// Streams that are folded anew and compared.
const SAMPLE: usize = 1_000;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether a version has come as far as the log was.
const CATCHES_UP_EVERY: Duration = Duration::from_millis(100);
/// How long that may take, before the turn is given to others.
const CATCHES_UP_WITHIN: Duration = Duration::from_secs(30);
/// Rows of years are counted in one statement.
const CHECKED_WITHIN: Duration = Duration::from_secs(4 * 3_600);
/// How long a session that checks says nothing at most: it folds streams between two statements.
const SILENT_FOR_MAX: &str = "60s";

const WRONG: &str = "rollcall_projection_versions_wrong";

/// What a check has found.
#[derive(Debug)]
pub enum Found {
    /// So many of the streams are parked, and alike up to there. Others were too long to be folded, and are not among them.
    Alike {
        rows: u64,
        streams: usize,
        parked: u64,
        too_long: usize,
    },
    Miscounted(Counted),
    Differing {
        differ: usize,
        streams: usize,
        first: Drift,
    },
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alike { rows, streams, parked, too_long } => {
                write!(f, "{rows} rows as counted in the log; {streams} streams folded anew are alike")?;
                if *parked > 0 {
                    write!(f, ", {parked} of them up to where they are parked")?;
                }
                if *too_long > 0 {
                    write!(f, "; {too_long} others are too long to be folded in the background")?;
                }
                Ok(())
            }
            Self::Miscounted(Counted { partition, rows, expected }) => {
                write!(f, "partition {partition} has {rows} rows and should have {expected}")
            }
            Self::Differing { differ, streams, first } => write!(
                f,
                "{differ} of {streams} streams that were folded anew differ, the first one {} in {}",
                first.stream,
                first.fields.join(", ")
            ),
        }
    }
}

/// Whether a version is what the log says, by the number of its rows and a sample of streams, those with more events than
/// `events_max` left out.
///
/// # Errors
/// Where the database, an event or a row cannot be read.
pub async fn check<P: Projection>(
    log: &Log,
    connection: &mut PgConnection,
    version: Version,
    events_max: Option<usize>,
) -> Result<Found, Error> {
    let projection = P::of(log, version);
    let counted = drift::count(&projection, connection, version).await?;
    if let Some(wrong) = counted.iter().find(|counted| counted.rows != counted.expected) {
        return Ok(Found::Miscounted(*wrong));
    }
    let sample = drift::sample(connection, version, SAMPLE).await?;
    let Compared { drifts, parked, unfolded } =
        drift::compare(log, &projection, connection, version, &sample, events_max).await?;
    let (too_long, unfolded): (Vec<_>, Vec<_>) =
        unfolded.into_iter().partition(|unfolded| matches!(unfolded.error, Error::TooLong { .. }));
    let (differ, streams, too_long) = (drifts.len(), sample.len() - too_long.len(), too_long.len());
    if let Some(first) = drifts.into_iter().next() {
        return Ok(Found::Differing { differ, streams, first });
    }
    // Of what cannot be folded, nothing can be said.
    if let Some(first) = unfolded.into_iter().next() {
        return Err(first.error);
    }
    Ok(Found::Alike { rows: counted.iter().map(|counted| counted.rows).sum(), streams, parked, too_long })
}

/// Checks one read model's versions.
pub struct Checker {
    log: Log,
    options: PgConnectOptions,
    serving: watch::Receiver<Option<Serving>>,
}

/// How it stands with the first version of a shape, while none of them serves.
enum First {
    Unchecked(Version),
    Wrong,
}

impl Checker {
    /// `serving` says what queries read.
    pub fn new(
        log: Log,
        service: &PgConnectOptions,
        member: &Member,
        serving: watch::Receiver<Option<Serving>>,
    ) -> Self {
        let options = session(service, &member.session_name("checker")).options([
            ("statement_timeout", "0"),
            // It folds streams between two statements.
            ("idle_in_transaction_session_timeout", SILENT_FOR_MAX),
            ("idle_session_timeout", SILENT_FOR_MAX),
            ("client_connection_check_interval", "10s"),
        ]);
        Self { log, options, serving }
    }

    /// Works until the shutdown.
    pub async fn run<P: Projection>(mut self, shutdown: CancellationToken) {
        let gauge = metrics::gauge!(WRONG, "projection" => P::SCHEMA.name);
        let mut failing = false;
        loop {
            gauge.set(0.0);
            tokio::select! {
                () = shutdown.cancelled() => return,
                waited = self.serving.wait_for(Option::is_none) => if waited.is_err() {
                    return;
                },
            }
            while self.serving.borrow().is_none() {
                let looked = tokio::select! {
                    () = shutdown.cancelled() => return,
                    looked = self.look::<P>() => looked,
                };
                match looked {
                    Ok(wrong) => {
                        gauge.set(f64::from(u8::from(wrong)));
                        failing = false;
                    }
                    Err(error) => {
                        if !failing {
                            tracing::warn!(
                                projection = P::SCHEMA.name, error = %chain(&error),
                                "a version that is to serve cannot be checked; trying again"
                            );
                        }
                        failing = true;
                    }
                }
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = sleep(LOOK_EVERY) => {}
                }
            }
        }
    }

    /// Checks what is to be checked, unless another process does. Whether what might serve is wrong.
    async fn look<P: Projection>(&self) -> Result<bool, Error> {
        let mut connection = bounded(Borrowed::from(self.log.pool())).await?;
        let first = bounded(first::<P>(&mut connection)).await?;
        connection.done();
        match first {
            None => Ok(false),
            Some(First::Wrong) => Ok(true),
            Some(First::Unchecked(_)) => timeout(CHECKED_WITHIN, self.take_turn::<P>())
                .await
                .unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()).into())),
        }
    }

    async fn take_turn<P: Projection>(&self) -> Result<bool, Error> {
        let mut connection = connect(&self.options).await?;
        let ours: bool = bounded(
            sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
                .bind(turn_of(P::SCHEMA.name))
                .fetch_one(&mut connection),
        )
        .await?;
        let mut wrong = false;
        // Another process may have been faster.
        if ours && let Some(First::Unchecked(version)) = bounded(first::<P>(&mut connection)).await? {
            wrong = self.check::<P>(&mut connection, version).await?;
        }
        connection.close().await?;
        Ok(wrong)
    }

    /// Whether the version is wrong.
    async fn check<P: Projection>(
        &self,
        connection: &mut PgConnection,
        version: Version,
    ) -> Result<bool, Error> {
        if !self.catches_up(connection, version).await? {
            let version = version.qualifier();
            tracing::warn!(
                version,
                "a version that is to serve does not keep up with the log; it is checked when it does"
            );
            return Ok(false);
        }
        let begun = Instant::now();
        let found = check::<P>(&self.log, connection, version, Some(drift::BACKGROUND_EVENTS_MAX)).await?;
        let alike = matches!(found, Found::Alike { .. });
        note(connection, version, if alike { NOTE_CHECKED } else { NOTE_WRONG }).await?;
        let (version, took_ms) = (version.qualifier(), begun.elapsed().as_millis());
        if alike {
            tracing::info!(version, found = %found, took_ms, "a read model that filled itself is what the log says");
        } else {
            tracing::error!(
                version,
                found = %found,
                "a read model that filled itself is not what the log says, and does not serve; see \"rollcall rebuild\""
            );
        }
        Ok(!alike)
    }

    /// Returns when the version has applied all that was in the log just now: what is checked must be all there. False where
    /// that takes too long.
    async fn catches_up(&self, connection: &mut PgConnection, version: Version) -> Result<bool, Error> {
        let begun = Instant::now();
        self.log.refresh_heads().await?;
        let heads: Vec<u64> =
            (0..self.log.partitions()).map(|partition| self.log.heads().position(partition)).collect();
        while begun.elapsed() < CATCHES_UP_WITHIN {
            let positions = bounded(checkpoint::read(connection, version)).await?;
            if positions.len() == heads.len() && positions.iter().zip(&heads).all(|(at, head)| at >= head) {
                return Ok(true);
            }
            sleep(CATCHES_UP_EVERY).await;
        }
        Ok(false)
    }
}

/// Notes that a version is not what the log says. It never serves, and a rebuild makes another one.
///
/// # Errors
/// Where the database refuses.
pub async fn note_wrong(connection: &mut PgConnection, version: Version) -> Result<(), sqlx::Error> {
    note(connection, version, NOTE_WRONG).await
}

async fn note(connection: &mut PgConnection, version: Version, noted: &str) -> Result<(), sqlx::Error> {
    let noted = sqlx::query(noted).bind(version.projection).bind(version.number);
    bounded(async { noted.execute(connection).await.map(drop) }).await
}

const NOTE_CHECKED: &str =
    "UPDATE projections.versions SET checked_at = clock_timestamp() WHERE projection = $1 AND version = $2";
const NOTE_WRONG: &str =
    "UPDATE projections.versions SET wrong_at = clock_timestamp() WHERE projection = $1 AND version = $2";

/// The first version of a shape, where none serves and it has caught up. One that was made after it is a rebuild's, which
/// makes its indexes and checks it by itself; so is one without indexes, the first or not, and the next rebuild goes on with it.
async fn first<P: Projection>(connection: &mut PgConnection) -> Result<Option<First>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT v.version, v.wrong_at IS NOT NULL FROM projections.versions v
         WHERE v.projection = $1 AND v.shape = $2 AND v.caught_up_at IS NOT NULL AND v.checked_at IS NULL
           AND v.indexed_at IS NOT NULL
           AND NOT EXISTS (SELECT FROM projections.versions o
                           WHERE o.projection = $1 AND o.shape = $2 AND o.version < v.version)
           AND NOT EXISTS (SELECT FROM projections.serving s WHERE s.projection = $1 AND s.shape = $2)",
    )
    .bind(P::SCHEMA.name)
    .bind(P::SCHEMA.shape)
    .fetch_optional(connection)
    .await?;
    row.map(|row| {
        let version = Version { projection: P::SCHEMA.name, number: row.try_get(0)? };
        Ok(if row.try_get(1)? { First::Wrong } else { First::Unchecked(version) })
    })
    .transpose()
}
