//! Connections to PostgreSQL that neither hold on nor hang: what every session sets, a bound on every answer, loans from
//! a pool that end well or not at all, and tasks that may not die in silence.

use std::time::{Duration, Instant};

use sqlx::{
    Connection, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What every session of a service sets: a process that froze must not hold anything for long, and statements do not stand
/// in this process's log.
pub fn session(service: &PgConnectOptions, name: &str) -> PgConnectOptions {
    use sqlx::ConnectOptions;
    service
        .clone()
        .application_name(name)
        .statement_cache_capacity(64)
        .options([
            ("idle_in_transaction_session_timeout", "5s"),
            ("statement_timeout", "10s"),
            ("lock_timeout", "5s"),
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
            ("jit", "off"),
            // Whatever the database or the role is set to: an append that waited for a lock must see what its holder committed.
            ("default_transaction_isolation", r"read\ committed"),
        ])
        .disable_statement_logging()
}

/// A session for statements over arrays of keys: a generic plan of look-ups and nested loops, as good for a log of five as
/// of five million. What `log.append` asks is planned so as well.
pub fn keyed_session(service: &PgConnectOptions, name: &str) -> PgConnectOptions {
    session(service, name).options([
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("enable_seqscan", "off"),
        // A plan that was made while a table was empty, when all indexes cost the same, goes on when it is full. So look-ups by
        // position say which order they want, and only the index that has it gives that without a sort.
        ("enable_sort", "off"),
        ("plan_cache_mode", "force_generic_plan"),
    ])
}

/// How long the server may take to answer: longer than a session's `statement_timeout`.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Work on a connection that must end in time. A connection that died without a word (a frozen host, a firewall that
/// forgot it) gives no other sign; after a timeout it is in an unknown state and must be dropped.
///
/// # Errors
/// Those of the work, and an IO error of kind `TimedOut`.
pub async fn bounded<T, E: From<sqlx::Error>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    timeout(ANSWER_WITHIN, work)
        .await
        .unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()).into()))
}

/// How long a look at some rows by their keys may take, that somebody waits for.
const LOOKS_WITHIN: Duration = Duration::from_secs(5);

/// As [`bounded`], for a look that is repeated all the time: it must not be held up for long by a connection that died without
/// a word.
///
/// # Errors
/// As [`bounded`].
pub async fn glance<T, E: From<sqlx::Error>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    timeout(LOOKS_WITHIN, work)
        .await
        .unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()).into()))
}

/// How long a connection may take to be made. Some round trips: who answers none of them is away, and the next try may find
/// another way.
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);

/// A connection of its own, in time.
///
/// # Errors
/// As [`bounded`].
pub async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    timeout(CONNECTS_WITHIN, PgConnection::connect_with(options))
        .await
        .unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
}

/// How long a connection may wait for its next loan before it is tested. Where there is much to read none waits so long, and
/// nobody pays for a test.
const WAITS_UNTESTED_FOR: Duration = Duration::from_millis(250);
/// How long a connection may take to answer a test.
const TESTED_WITHIN: Duration = Duration::from_secs(1);
/// How long a loan may be waited for.
const LENT_WITHIN: Duration = Duration::from_secs(5);

/// Whether a connection on which nothing was said since then is still there: one that died without a word is found out within a
/// second, and not by the work that is sent over it next. Costs a round trip, and none where something was said a moment ago.
///
/// # Errors
/// Where it is not.
pub async fn still_there(connection: &mut PgConnection, since: Instant) -> Result<(), sqlx::Error> {
    if since.elapsed() < WAITS_UNTESTED_FOR {
        return Ok(());
    }
    timeout(TESTED_WITHIN, connection.ping())
        .await
        .unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
}

/// A pool that lends what is alive: a connection that has waited for a while is tested first, and where it does not answer
/// soon, another one is made, so that who borrows waits a second for it and meets no error.
pub(crate) async fn pool(options: PgConnectOptions, connections_max: u32) -> Result<PgPool, sqlx::Error> {
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(LENT_WITHIN)
        .test_before_acquire(false)
        .before_acquire(|connection, known| {
            Box::pin(async move {
                Ok(known.idle_for < WAITS_UNTESTED_FOR
                    || timeout(TESTED_WITHIN, connection.ping()).await.is_ok_and(|answer| answer.is_ok()))
            })
        })
        .connect_with(options)
        .await
}

/// A connection of a pool, on loan. Unless the loan ends with [`done`](Self::done), the connection is closed and not given
/// back: work that was cut off by a timeout leaves it in an unknown state, and a pool that gets such a one back waits for
/// it without end.
pub struct Borrowed {
    connection: PoolConnection<Postgres>,
    done: bool,
}

impl Borrowed {
    /// # Errors
    /// Where there is no connection to be had in time.
    pub async fn from(pool: &PgPool) -> Result<Self, sqlx::Error> {
        Ok(Self { connection: pool.acquire().await?, done: false })
    }

    pub fn done(mut self) {
        self.done = true;
        // The pool tests what it gets back, without end where nothing answers; its place would be taken for as long.
        let back = self.connection.return_to_pool();
        tokio::spawn(async move { timeout(TESTED_WITHIN, back).await });
    }
}

impl std::ops::Deref for Borrowed {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl std::ops::DerefMut for Borrowed {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if !self.done {
            self.connection.close_on_drop();
        }
    }
}

/// Spawns a task without which nothing works. Should it panic, `failed` is cancelled: a process that is half dead must
/// not say that it is ready.
pub fn spawn_vital(
    tasks: &TaskTracker,
    failed: &CancellationToken,
    name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let failed = failed.clone();
    let work = tokio::spawn(work);
    tasks.spawn(async move {
        if let Err(error) = work.await {
            tracing::error!(%error, task = name, "a vital task failed");
            failed.cancel();
        }
    });
}
