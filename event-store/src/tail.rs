//! The tail: how readers learn of new events, and how they read them.
//!
//! Hints (an append of this process, a word of another one: [`hints`](crate::hints)) make it fast; one adaptive poll of the
//! heads for each process is the guarantee.
//! Nothing here looks at a clock or a transaction id to decide what is visible: positions of a partition are counted under
//! a lock that is held until its events are committed, so a reader that sees position n sees all up to n.

pub mod changes;
pub(crate) mod recent;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use sqlx::{PgConnection, PgPool, Row, postgres::PgRow};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Borrowed, Partition, Position, Recorded, StreamId, glance,
    hints::{Hints, Topic},
    history::{self, Compare, Halt},
};

use recent::Recent;

const POLL_BUSY: Duration = Duration::from_millis(50);
/// The shortest time between two looks, however many hints come.
const POLL_HINTED: Duration = Duration::from_millis(10);
const POLL_IDLE: Duration = Duration::from_millis(250);
/// Polls without news until the poll slows down.
const POLLS_UNTIL_IDLE: u32 = 80;
/// How often a process that must end tries to tell the others why.
const TELLINGS_MAX: u32 = 40;

/// The highest position of each partition that this process has heard of. Cheap to clone.
#[derive(Clone)]
pub struct Heads(Arc<Inner>);

struct Inner {
    log_id: Uuid,
    first_log_id: Uuid,
    positions: Box<[AtomicU64]>,
    newest: Mutex<Box<[Newest]>>,
    /// Why no commands are taken.
    halt: watch::Sender<Option<Arc<Halt>>>,
    /// The log is another one than this process knew: nothing that it remembers may be read or written any more.
    void: AtomicBool,
    /// Wakes readers; says nothing else.
    news: watch::Sender<()>,
    /// Since when instants are counted.
    since: Instant,
    /// When the last look that succeeded began.
    looked_at_us: AtomicU64,
    looked: watch::Sender<()>,
    /// Somebody has a use for what is new, soon.
    kept_close: AtomicBool,
}

/// A partition's newest event that this process has heard of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Newest {
    /// 0 where there is none.
    pub position: Position,
    pub event_id: Option<Uuid>,
}

impl Heads {
    pub(crate) fn new(log_id: Uuid, first_log_id: Uuid, partitions: Partition) -> Self {
        let positions = (0..partitions).map(|_| AtomicU64::new(0)).collect();
        let newest = Mutex::new(vec![Newest::default(); usize::from(partitions)].into());
        let (halt, void) = (watch::Sender::new(None), AtomicBool::new(false));
        Self(Arc::new(Inner {
            log_id,
            first_log_id,
            positions,
            newest,
            halt,
            void,
            news: watch::Sender::new(()),
            since: Instant::now(),
            looked_at_us: AtomicU64::new(0),
            looked: watch::Sender::new(()),
            kept_close: AtomicBool::new(false),
        }))
    }

    /// The partition's head as last heard of; the log may be ahead of it, never behind. 0 once the log was restored
    /// under this process: nobody finds anything to read any more.
    pub fn position(&self, partition: Partition) -> Position {
        if self.void() {
            return 0;
        }
        self.0.positions[usize::from(partition)].load(Ordering::Acquire)
    }

    pub(crate) fn log_id(&self) -> Uuid {
        self.0.log_id
    }

    /// What the log was made with, whatever history it has by now.
    pub(crate) fn first_log_id(&self) -> Uuid {
        self.0.first_log_id
    }

    /// What the log is known to have reached, by partition.
    pub(crate) fn known(&self) -> Vec<Newest> {
        self.newest().to_vec()
    }

    fn newest(&self) -> MutexGuard<'_, Box<[Newest]>> {
        self.0.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the log is another one than this process knew.
    pub(crate) fn void(&self) -> bool {
        self.0.void.load(Ordering::Acquire)
    }

    pub(crate) fn halt(&self) -> Option<Arc<Halt>> {
        self.0.halt.borrow().clone()
    }

    /// Takes note of how the log stands. What voids this process's memory stays; what others wrote down goes when they
    /// take it away.
    pub(crate) fn note(&self, found: Option<Halt>) {
        self.0.halt.send_if_modified(|halt| {
            let ends = |halt: &Halt| matches!(halt, Halt::Foreign { .. });
            if halt
                .as_deref()
                .is_some_and(|halt| ends(halt) || (halt.voids_memory() && !found.as_ref().is_some_and(ends)))
                || halt.as_deref() == found.as_ref()
            {
                return false;
            }
            match &found {
                Some(found) => {
                    if found.voids_memory() {
                        self.0.void.store(true, Ordering::Release);
                    }
                    found.say();
                }
                None => tracing::info!("the log takes commands again"),
            }
            metrics::gauge!("rollcall_log_halted").set(if found.is_some() { 1.0 } else { 0.0 });
            *halt = found.map(Arc::new);
            true
        });
    }

    /// Changes when any head moves. Subscribe before looking at the positions, and nothing is missed.
    pub fn news(&self) -> watch::Receiver<()> {
        self.0.news.subscribe()
    }

    /// Whether somebody waits for news: in a process that only takes commands nobody does.
    pub(crate) fn anybody_reads(&self) -> bool {
        self.0.news.receiver_count() > 0
    }

    /// Has the heads looked at often for as long as somebody says so.
    pub(crate) fn keep_close(&self) {
        // Mostly it was said already, and a load is cheaper than a store that all cores must hear of.
        if !self.0.kept_close.load(Ordering::Relaxed) {
            self.0.kept_close.store(true, Ordering::Relaxed);
        }
    }

    /// The clock of [`looked_at_us`](Self::looked_at_us).
    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.0.since.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// When the last look began that reached the log: all that was committed before is in the positions.
    pub(crate) fn looked_at_us(&self) -> u64 {
        self.0.looked_at_us.load(Ordering::Acquire)
    }

    /// Changes with every look that reached the log, news or no news.
    pub(crate) fn looked(&self) -> watch::Receiver<()> {
        self.0.looked.subscribe()
    }

    fn note_look(&self, began_at_us: u64) {
        self.0.looked_at_us.fetch_max(began_at_us, Ordering::AcqRel);
        self.0.looked.send_replace(());
    }

    /// Tells readers of what this process committed.
    pub(crate) fn advance(&self, committed: impl IntoIterator<Item = (Partition, Newest)>) {
        self.raise(committed, |_, _| true);
    }

    /// Tells readers of what a look found that began with `known`. True if any was news. What this process committed
    /// meanwhile stays the newest that it knows: that was not compared with the log, and the next look does it.
    pub(crate) fn heard(&self, known: &[Newest], found: &[Newest]) -> bool {
        self.raise((0..).zip(found.iter().copied()), |partition, newest| newest == known[partition])
    }

    fn raise(
        &self,
        found: impl IntoIterator<Item = (Partition, Newest)>,
        follows: impl Fn(usize, Newest) -> bool,
    ) -> bool {
        if self.void() {
            return false;
        }
        let mut news = false;
        let mut newest = self.newest();
        for (partition, found) in found {
            let partition = usize::from(partition);
            news |= self.0.positions[partition].fetch_max(found.position, Ordering::AcqRel) < found.position;
            if found.position > newest[partition].position && follows(partition, newest[partition]) {
                newest[partition] = found;
            }
        }
        drop(newest);
        if news {
            self.0.news.send_replace(());
        }
        news
    }
}

/// Reads the heads once, and whether this is still the log that it was. True if there was news.
pub(crate) async fn refresh(pool: &PgPool, heads: &Heads, compare: Compare) -> Result<bool, sqlx::Error> {
    let began_at_us = heads.now_us();
    glance(async {
        let mut connection = Borrowed::from(pool).await?;
        let news = history::look(&mut connection, heads, compare).await?;
        connection.done();
        heads.note_look(began_at_us);
        Ok(news)
    })
    .await
}

/// The guarantee behind the hints. Ends the process, by `failed`, where the log is another one.
pub(crate) async fn poll(
    pool: PgPool,
    heads: Heads,
    hints: Hints,
    recent: Arc<Recent>,
    failed: CancellationToken,
    shutdown: CancellationToken,
) {
    let mut heard = hints.heard(Topic::Heads);
    let mut quiet = 0_u32;
    let mut failing = None;
    let mut told = false;
    let mut tellings = 0_u32;
    loop {
        // What is compared in all partitions is compared seldom: when it is quiet, and after a failure.
        let (pause, compare) = match quiet < POLLS_UNTIL_IDLE {
            true => (POLL_BUSY, Compare::Moved),
            false if heads.0.kept_close.swap(false, Ordering::Relaxed) => (POLL_BUSY, Compare::All),
            false => (POLL_IDLE, Compare::All),
        };
        let hinted = async {
            tokio::time::sleep(POLL_HINTED).await;
            match heads.anybody_reads() {
                // It ends with the log.
                true => drop(heard.changed().await),
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = hinted => {}
        }
        match refresh(&pool, &heads, compare).await {
            Ok(news) => {
                quiet = if news { 0 } else { quiet.saturating_add(1) };
                failing = None;
            }
            Err(_) if shutdown.is_cancelled() => return,
            Err(error) => {
                // Said again where it is another one: what is at the address may change while nothing can be read.
                let error = Some(error.to_string());
                if error != failing {
                    tracing::warn!(error, "the log's heads cannot be read; trying again");
                }
                failing = error;
                quiet = POLLS_UNTIL_IDLE;
                recent.clear();
            }
        }
        match heads.halt().as_deref() {
            Some(halt @ Halt::Foreign { found, .. }) if halt.behind_adoption() && tellings < TELLINGS_MAX => {
                tellings += 1;
                match history::tell(&pool, &heads, *found, "a process that ran on", &halt.to_string()).await {
                    Ok(()) => return failed.cancel(),
                    Err(error) => tracing::warn!(%error, "log.halt could not be written; trying again"),
                }
            }
            Some(Halt::Foreign { .. }) => return failed.cancel(),
            // A process that is started later knows nothing of what was there.
            Some(halt) if halt.lost_events() && !told => {
                recent.clear();
                match history::tell(&pool, &heads, heads.log_id(), "a process that ran on", &halt.to_string())
                    .await
                {
                    Ok(()) => told = true,
                    Err(error) => tracing::warn!(%error, "log.halt could not be written; trying again"),
                }
            }
            _ => {}
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "partition {partition} of the log has a hole: after position {expected_after} comes {found:?}. Reading stops \
         here; compare the table log.events with its backups"
    )]
    Hole { partition: Partition, expected_after: Position, found: Option<Position> },
    #[error(
        "partition {partition} of the log has position {position} twice. Reading stops here; an index of log.events is \
         damaged, see amcheck"
    )]
    Repeated { partition: Partition, position: Position },
    #[error("the log could not be read")]
    Database(#[from] sqlx::Error),
}

impl Error {
    pub(crate) fn hole(partition: Partition, expected_after: Position, found: Option<Position>) -> Self {
        history::broken("hole");
        Self::Hole { partition, expected_after, found }
    }

    fn repeated(partition: Partition, position: Position) -> Self {
        history::broken("repeated");
        Self::Repeated { partition, position }
    }
}

/// The events of a partition after a position, up to and including another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub partition: Partition,
    pub after: Position,
    pub until: Position,
}

impl Span {
    /// How many events it holds: positions have no holes.
    pub fn events(&self) -> u64 {
        self.until - self.after
    }
}

/// Reads spans that lie below the heads, by partition and position. One statement for all of them.
///
/// # Errors
/// [`Error::Hole`] and [`Error::Repeated`] where positions do not follow each other or the span does not reach its end:
/// nothing may be read past it.
pub async fn read_spans(connection: &mut PgConnection, spans: &[Span]) -> Result<Vec<Recorded>, Error> {
    let partitions: Vec<i32> = spans.iter().map(|span| i32::from(span.partition)).collect();
    let after: Vec<i64> = spans.iter().map(|span| signed(span.after)).collect();
    let until: Vec<i64> = spans.iter().map(|span| signed(span.until)).collect();
    let mut rows = sqlx::query(
        "SELECT e.position, e.sequence, e.recorded_at, e.event_id, e.tenant_id, e.aggregate_type, e.aggregate_id,
                e.event_type, e.event_version, e.payload::text, e.personal, e.metadata::text, s.ordinal
         FROM unnest($1::int4[], $2::int8[], $3::int8[]) WITH ORDINALITY AS s(partition, after, until, ordinal)
         CROSS JOIN LATERAL (
             SELECT * FROM log.events l
             WHERE l.partition = s.partition AND l.position > s.after AND l.position <= s.until
             ORDER BY l.position) e
         ORDER BY s.ordinal, e.position",
    )
    .bind(partitions)
    .bind(after)
    .bind(until)
    .fetch(connection);
    let mut read: Vec<Position> = spans.iter().map(|span| span.after).collect();
    let mut events: Vec<Recorded> = Vec::new();
    // Row by row: a batch of rows and a batch of events beside each other would be twice the memory.
    while let Some(row) = rows.try_next().await? {
        let ordinal: i64 = row.try_get(12)?;
        let place = usize::try_from(ordinal - 1).map_err(|_| decode("ordinal"))?;
        let event = recorded(&row, spans[place].partition, events.last())?;
        if event.position != read[place] + 1 {
            let (partition, position) = (event.partition, event.position);
            return Err(match position > read[place] {
                true => Error::hole(partition, read[place], Some(position)),
                false => Error::repeated(partition, position),
            });
        }
        read[place] = event.position;
        events.push(event);
    }
    for (span, &last) in spans.iter().zip(&read) {
        if last != span.until {
            return Err(Error::hole(span.partition, last, None));
        }
    }
    Ok(events)
}

/// A row of the columns that [`read_spans`] selects, in that order. Names that are those of the event before are shared.
pub(crate) fn recorded(
    row: &PgRow,
    partition: Partition,
    before: Option<&Recorded>,
) -> Result<Recorded, sqlx::Error> {
    let before = before.map(|event| &event.stream);
    let shared = |name: &str, before: Option<&Arc<str>>| match before {
        Some(before) if **before == *name => Arc::clone(before),
        _ => Arc::from(name),
    };
    Ok(Recorded {
        position: unsigned(row.try_get(0)?, "position")?,
        sequence: unsigned(row.try_get(1)?, "sequence")?,
        recorded_at: row.try_get::<DateTime<Utc>, _>(2)?,
        event_id: row.try_get::<Uuid, _>(3)?,
        stream: StreamId {
            tenant: shared(row.try_get(4)?, before.map(|stream| &stream.tenant)),
            aggregate_type: shared(row.try_get(5)?, before.map(|stream| &stream.aggregate_type)),
            aggregate_id: shared(row.try_get(6)?, before.map(|stream| &stream.aggregate_id)),
        },
        event_type: row.try_get::<String, _>(7)?.into(),
        event_version: row.try_get::<String, _>(8)?.into(),
        payload: row.try_get(9)?,
        personal: row.try_get(10)?,
        metadata: row.try_get::<&str, _>(11)?.into(),
        partition,
    })
}

pub(crate) fn unsigned(value: i64, what: &'static str) -> Result<u64, sqlx::Error> {
    u64::try_from(value).map_err(|_| decode(what))
}

pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).expect("positions and versions count from 1 and do not reach 2^63")
}

fn decode(what: &'static str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{what} is out of range").into())
}
