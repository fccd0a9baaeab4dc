//! Which streams have changed of late, as a table of marks: whoever keeps a copy of something that was read learns from it
//! whether the copy is still good, with two loads and a comparison.
//!
//! Shape: heads -> the events after the last look -> for each the mark of its stream's place -> [`Changes::mark`].
//!
//! A mark is the position of the newest event among the streams that share a place, so one may go up because of another
//! stream; it never stays where its own has changed. What is said is at most [`HEARD_WITHIN`] old, or nothing is said.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::Row;
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Span, decode, signed, unsigned};
use crate::{Borrowed, Log, Partition, Position, StreamHash, bounded};

/// How old may be what is known of the log for a copy to be good without asking.
pub const HEARD_WITHIN: Duration = Duration::from_millis(100);
/// Places of all partitions together: 2 MiB. So many, that streams share one seldom.
const PLACES: usize = 1 << 18;
/// Events that are looked through with one statement.
const PAGE_EVENTS: u64 = 4_096;
/// Who is further behind takes everything for changed and begins at the heads.
const BEHIND_EVENTS_MAX: u64 = 65_536;
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// How long no look at the heads is waited for before one looks whether the process ends.
const LOOK_WITHIN: Duration = Duration::from_secs(1);

/// What is known of a stream's place. Equal to a later one where no event came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(Position);

impl Mark {
    /// Whoever has applied so much of the partition has applied all that the mark knows of.
    pub fn position(self) -> Position {
        self.0
    }
}

/// The marks of a process. Cheap to clone.
#[derive(Clone)]
pub struct Changes(Arc<Inner>);

struct Inner {
    log: Log,
    places: usize,
    marks: Box<[AtomicU64]>,
    /// Up to where each partition was looked through.
    seen: Box<[AtomicU64]>,
    /// When the heads were read up to which all was looked through, in µs of the heads' clock.
    heard_at_us: AtomicU64,
}

impl Changes {
    /// Begins to follow the log's tail.
    pub fn follow(log: &Log, tasks: &TaskTracker, shutdown: &CancellationToken) -> Self {
        let partitions = usize::from(log.partitions());
        let places = (PLACES / partitions).max(1);
        let changes = Self(Arc::new(Inner {
            log: log.clone(),
            places,
            marks: (0..places * partitions).map(|_| AtomicU64::new(0)).collect(),
            seen: (0..log.partitions()).map(|of| AtomicU64::new(log.heads().position(of))).collect(),
            heard_at_us: AtomicU64::new(0),
        }));
        let (follower, until) = (changes.clone(), shutdown.clone());
        let follow = async move {
            until.run_until_cancelled(follower.run()).await;
        };
        tasks.spawn(log.lookout().run(follow));
        changes
    }

    /// Where the stream's place stands; none where too little is known of the log.
    pub fn mark(&self, stream: StreamHash) -> Option<Mark> {
        self.0.log.heads().keep_close();
        let heads = self.0.log.heads();
        let age_us = heads.now_us().saturating_sub(self.0.heard_at_us.load(Ordering::Acquire));
        (u128::from(age_us) <= HEARD_WITHIN.as_micros() && !heads.void())
            .then(|| Mark(self.place(stream).load(Ordering::Acquire)))
    }

    /// Up to where all changes of a partition are in the marks. To be read before them.
    pub fn seen(&self, partition: Partition) -> Position {
        self.0.seen[usize::from(partition)].load(Ordering::Acquire)
    }

    fn place(&self, stream: StreamHash) -> &AtomicU64 {
        let partition = usize::from(stream.partition(self.0.log.partitions()));
        &self.0.marks[partition * self.0.places + stream.place(self.0.places)]
    }

    async fn run(&self) {
        let heads = self.0.log.heads();
        let (mut looked, mut news) = (heads.looked(), heads.news());
        let mut failing = false;
        loop {
            looked.borrow_and_update();
            news.borrow_and_update();
            match self.catch_up().await {
                Ok(()) => failing = false,
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "changes in the log cannot be read; copies are not used meanwhile");
                    }
                    failing = true;
                    sleep(RETRY_PAUSE).await;
                    continue;
                }
            }
            let _ = timeout(LOOK_WITHIN, async {
                tokio::select! {
                    _ = looked.changed() => {}
                    _ = news.changed() => {}
                }
            })
            .await;
        }
    }

    /// Looks through everything up to the heads.
    async fn catch_up(&self) -> Result<(), sqlx::Error> {
        let heads = self.0.log.heads();
        // Before the positions: they may be newer than this, not older.
        let looked_at_us = heads.looked_at_us();
        let mut spans: Vec<Span> = (0..self.0.log.partitions())
            .map(|partition| Span {
                partition,
                after: self.seen(partition),
                until: heads.position(partition),
            })
            .filter(|span| span.until > span.after)
            .collect();
        if spans.iter().map(Span::events).sum::<u64>() > BEHIND_EVENTS_MAX {
            self.take_all_for_changed(&spans);
            spans.clear();
        }
        let mut connection = None;
        for span in spans {
            self.look_through(span, &mut connection).await?;
        }
        if let Some(connection) = connection {
            connection.done();
        }
        self.0.heard_at_us.store(looked_at_us, Ordering::Release);
        Ok(())
    }

    /// In memory where it is there, else over a connection, which is borrowed once.
    async fn look_through(&self, span: Span, connection: &mut Option<Borrowed>) -> Result<(), sqlx::Error> {
        if let Some(events) = self.0.log.recent(&span) {
            for event in events {
                self.raise(event.stream.hash(), event.position);
            }
        } else {
            let mut after = span.after;
            while after < span.until {
                let page = Span { after, until: span.until.min(after + PAGE_EVENTS), ..span };
                bounded(self.read(page, connection)).await?;
                after = page.until;
            }
        }
        self.0.seen[usize::from(span.partition)].store(span.until, Ordering::Release);
        Ok(())
    }

    async fn read(&self, span: Span, connection: &mut Option<Borrowed>) -> Result<(), sqlx::Error> {
        let connection = match connection {
            Some(connection) => connection,
            none => none.insert(Borrowed::from(self.0.log.lookout().pool()).await?),
        };
        let rows = sqlx::query(
            "SELECT position, tenant_id, aggregate_type, aggregate_id FROM log.events
             WHERE partition = $1 AND position > $2 AND position <= $3 ORDER BY position",
        )
        .bind(i32::from(span.partition))
        .bind(signed(span.after))
        .bind(signed(span.until))
        .fetch_all(&mut **connection)
        .await?;
        if rows.len() as u64 != span.events() {
            return Err(decode("position"));
        }
        for row in rows {
            let stream = StreamHash::of(row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
            self.raise(stream, unsigned(row.try_get(0)?, "position")?);
        }
        Ok(())
    }

    fn raise(&self, stream: StreamHash, position: Position) {
        self.place(stream).fetch_max(position, Ordering::AcqRel);
    }

    fn take_all_for_changed(&self, spans: &[Span]) {
        for span in spans {
            let first = usize::from(span.partition) * self.0.places;
            for mark in &self.0.marks[first..first + self.0.places] {
                mark.fetch_max(span.until, Ordering::AcqRel);
            }
            self.0.seen[usize::from(span.partition)].store(span.until, Ordering::Release);
        }
    }
}
