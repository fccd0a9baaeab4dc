//! The log's handle: what a process opens once and hands to everything that appends or reads.

use std::sync::Arc;

use sqlx::{PgConnection, PgPool, Row};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    Borrowed, Partition, Recorded, append, bounded, claims, commands, connection,
    hints::Hints,
    history::{self, Compare, Halt},
    keyed_session,
    keys::Keys,
    load,
    lookout::Lookout,
    migrate::Provisioned,
    session, snapshots, spawn_vital,
    tail::{self, Heads, Span, recent::Recent},
    turns::Turns,
};

/// Bounds of a process's use of the log.
#[derive(Clone, Debug)]
pub struct Options {
    pub append: append::Options,
    /// Connections that gather the loads of concurrent commands.
    pub load_connections: usize,
    pub snapshots: snapshots::Options,
    /// Connections of each of the two pools: what the service itself asks, and listings.
    pub pool_connections_max: u32,
    /// Whether this process clears idempotency records away once their time is over: one that takes commands does.
    pub expires_records: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            append: append::Options::default(),
            load_connections: 2,
            snapshots: snapshots::Options::default(),
            pool_connections_max: 8,
            expires_records: true,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the log could not be opened")]
    Database(#[from] sqlx::Error),
    #[error("the log at this address is another one now ({found}, not {expected})")]
    Foreign { expected: Uuid, found: Uuid },
}

/// A handle of the log. Cheap to clone.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    log_id: Uuid,
    partitions: Partition,
    keys: Keys,
    heads: Heads,
    hints: Hints,
    recent: Arc<Recent>,
    lookout: Lookout,
    pool: PgPool,
    readers: PgPool,
    appender: append::Handle,
    loader: load::Handle,
    snapshots: snapshots::Handle,
    turns: Turns,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    failed: CancellationToken,
}

impl Log {
    /// Opens the log: starts its writers and loaders, which connect when the first command comes, the poll of its heads and
    /// the clean-up of old idempotency records. They end with [`close`](Self::close).
    ///
    /// # Errors
    /// Where the database cannot be reached as the service's role, or holds another log than was migrated.
    pub async fn open(provisioned: &Provisioned, options: Options) -> Result<Self, Error> {
        let service = provisioned.service.clone();
        // What the service itself asks is looked up by key, and must be, whatever the planner makes of the tables' sizes.
        let pool =
            connection::pool(keyed_session(&service, "rollcall"), options.pool_connections_max).await?;
        let readers =
            connection::pool(session(&service, "rollcall-list"), options.pool_connections_max).await?;
        let mut connection = Borrowed::from(&pool).await?;
        check_meta(&mut connection, provisioned.log_id).await?;
        connection.done();

        let shutdown = CancellationToken::new();
        let failed = CancellationToken::new();
        let tasks = TaskTracker::new();
        history::register();
        let heads = Heads::new(provisioned.log_id, provisioned.first_log_id, provisioned.partitions);
        let hints = Hints::start(&service, &pool, &tasks, &shutdown);
        let recent = Arc::new(Recent::new(provisioned.partitions));
        tail::refresh(&pool, &heads, Compare::All).await?;
        let lookout = Lookout::start(&service, &tasks, &shutdown).await?;
        let poll = tail::poll(
            lookout.pool().clone(),
            heads.clone(),
            hints.clone(),
            Arc::clone(&recent),
            failed.clone(),
            shutdown.clone(),
        );
        spawn_vital(&tasks, &failed, "poll", lookout.run(poll));
        if options.expires_records {
            tasks.spawn(commands::expire(pool.clone(), shutdown.clone()));
        }
        let stored = append::Stored {
            keys: provisioned.keys.clone(),
            heads: heads.clone(),
            hints: hints.clone(),
            recent: Arc::clone(&recent),
        };
        let appender = append::start(
            &service,
            &stored,
            provisioned.partitions,
            &options.append,
            &tasks,
            &failed,
            &shutdown,
        );
        let loader = load::start(
            &service,
            provisioned.keys.clone(),
            provisioned.partitions,
            options.load_connections,
            &options.snapshots,
            &tasks,
            &shutdown,
        );
        let snapshots =
            snapshots::start(&service, provisioned.partitions, &options.snapshots, &tasks, &shutdown);
        Ok(Self(Arc::new(Inner {
            log_id: provisioned.log_id,
            partitions: provisioned.partitions,
            keys: provisioned.keys.clone(),
            heads,
            hints,
            recent,
            lookout,
            pool,
            readers,
            appender,
            loader,
            snapshots,
            turns: Turns::default(),
            tasks,
            shutdown,
            failed,
        })))
    }

    /// Stores what is queued, then ends the log's tasks.
    pub async fn close(&self) {
        self.0.shutdown.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.0.pool.close().await;
        self.0.readers.close().await;
    }

    /// Cancelled when a task without which nothing works has panicked, or the log is another one: the process must end,
    /// loudly, and be started again.
    pub fn failed(&self) -> &CancellationToken {
        &self.0.failed
    }

    /// Waits until the process must end; why.
    pub async fn ends(&self) -> String {
        self.0.failed.cancelled().await;
        match self.halt().as_deref() {
            Some(halt @ Halt::Foreign { .. }) => format!("{halt}: start this process again"),
            _ => "a vital task failed; see the log above".to_owned(),
        }
    }

    pub fn log_id(&self) -> Uuid {
        self.0.log_id
    }

    pub fn partitions(&self) -> Partition {
        self.0.partitions
    }

    pub fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// How far each partition has come, as this process knows it.
    pub fn heads(&self) -> &Heads {
        &self.0.heads
    }

    /// Hints to other processes, and theirs.
    pub fn hints(&self) -> &Hints {
        &self.0.hints
    }

    /// Asks the database for the heads, for who must know and not merely have heard; and whether the log still has all
    /// that this process knows of it, for who lost a connection.
    ///
    /// # Errors
    /// Where the database cannot be read, or the log was restored under this process.
    pub async fn refresh_heads(&self) -> Result<(), sqlx::Error> {
        tail::refresh(&self.0.pool, &self.0.heads, Compare::All).await?;
        match self.halt().filter(|halt| halt.voids_memory()) {
            Some(halt) => Err(sqlx::Error::Protocol(halt.to_string())),
            None => Ok(()),
        }
    }

    /// The events of spans below the heads, by partition and position: those that this process appended a moment ago
    /// from memory, the rest from the database.
    ///
    /// # Errors
    /// See [`tail::read_spans`].
    pub async fn read_spans(
        &self,
        connection: &mut PgConnection,
        spans: &[Span],
    ) -> Result<Vec<Arc<Recorded>>, tail::Error> {
        let in_memory: Vec<_> = spans.iter().map(|span| self.recent(span)).collect();
        let missing = spans.iter().zip(&in_memory).filter(|(_, events)| events.is_none());
        let missing: Vec<Span> = missing.map(|(span, _)| *span).collect();
        let mut read = match missing.is_empty() {
            true => Vec::new(),
            false => tail::read_spans(connection, &missing).await?,
        }
        .into_iter()
        .map(Arc::new);
        let mut events = Vec::new();
        for (span, in_memory) in spans.iter().zip(in_memory) {
            match in_memory {
                Some(in_memory) => events.extend(in_memory),
                // Of one partition there may be several spans, some of them in memory.
                None => {
                    events.extend(read.by_ref().take(usize::try_from(span.events()).unwrap_or(usize::MAX)));
                }
            }
        }
        // Checked again, because what was read comes from two places.
        let expected: u64 = spans.iter().map(Span::events).sum();
        match spans.first() {
            Some(span) if events.len() as u64 != expected => {
                Err(tail::Error::hole(span.partition, span.after, None))
            }
            _ => Ok(events),
        }
    }

    /// A span's events, where all of them were appended by this process a moment ago.
    pub(crate) fn recent(&self, span: &Span) -> Option<Vec<Arc<Recorded>>> {
        if self.0.heads.void() { None } else { self.0.recent.get(span) }
    }

    /// Where the tail is followed.
    pub(crate) fn lookout(&self) -> &Lookout {
        &self.0.lookout
    }

    /// Connections for what the service itself asks: records, claims, whether the database is there.
    pub fn pool(&self) -> &PgPool {
        &self.0.pool
    }

    /// Connections for listings, which may be slow: they cannot hold up what the service itself asks.
    pub fn readers(&self) -> &PgPool {
        &self.0.readers
    }

    /// Appends.
    pub fn appender(&self) -> &append::Handle {
        &self.0.appender
    }

    /// Loads streams; concurrent loads share a statement.
    pub fn loader(&self) -> &load::Handle {
        &self.0.loader
    }

    /// Keeps snapshots of long streams.
    pub(crate) fn snapshots(&self) -> &snapshots::Handle {
        &self.0.snapshots
    }

    /// Takes turns on streams within this process.
    pub(crate) fn turns(&self) -> &Turns {
        &self.0.turns
    }

    /// The stream that holds a claim.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn claim_holder(
        &self,
        tenant: &str,
        scope: &str,
        value: &str,
    ) -> Result<Option<crate::StreamId>, sqlx::Error> {
        bounded(claims::holder(&self.0.pool, self.0.keys.digest(tenant, scope, value.as_bytes()), tenant))
            .await
    }
}

async fn check_meta(connection: &mut PgConnection, expected: Uuid) -> Result<(), Error> {
    let found: Uuid = sqlx::query("SELECT log_id FROM log.meta").fetch_one(connection).await?.try_get(0)?;
    if found == expected { Ok(()) } else { Err(Error::Foreign { expected, found }) }
}
