//! Hints: a word between processes that there is something new, by NOTIFY.
//!
//! A hint is sent after the commit, on another connection and never inside the transaction: NOTIFY takes a lock at commit
//! that is held for the whole database. However much is committed, a process sends one at most every few milliseconds, and
//! none while nobody else listens. Hints may be lost: whoever listens polls as well, only less often.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{Borrowed, bounded, session};

const CHANNEL: &str = "rollcall";
/// Listening sessions bear this before the id of their process.
const LISTENS: &str = "rollcall-listen";
/// The shortest time between two hints of a process.
const PAUSE: Duration = Duration::from_millis(5);
/// How long it is known whether anybody else listens.
const AUDIENCE_KNOWN_FOR: Duration = Duration::from_secs(1);
/// After this time without a word the connection is tested: it may have died without one.
const SILENT_FOR_MAX: Duration = Duration::from_secs(60);
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// How long the end of the connection is waited for.
const CLOSES_WITHIN: Duration = Duration::from_secs(1);

/// What there is news of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Events were appended.
    Heads = 1,
    /// Checkpoints of projections moved.
    Checkpoints = 2,
}

/// Sends and hears hints. Cheap to clone.
#[derive(Clone)]
pub struct Hints(Arc<Inner>);

struct Inner {
    process: Uuid,
    /// What is to be told, a bit for each topic.
    news: AtomicU8,
    wanted: Notify,
    heads: watch::Sender<()>,
    checkpoints: watch::Sender<()>,
}

impl Hints {
    pub(crate) fn start(
        service: &PgConnectOptions,
        pool: &PgPool,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Self {
        let hints = Self(Arc::new(Inner {
            process: Uuid::now_v7(),
            news: AtomicU8::new(0),
            wanted: Notify::new(),
            heads: watch::Sender::new(()),
            checkpoints: watch::Sender::new(()),
        }));
        // The server ends a session whose process froze: unread hints would pile up for all.
        let options = session(service, &hints.session_name()).options([("tcp_user_timeout", "60s")]);
        let listening_pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
        let (listening, telling) = (hints.clone(), hints.clone());
        let (pool, until) = (pool.clone(), shutdown.clone());
        tasks.spawn(async move {
            until.run_until_cancelled(listening.listen(&listening_pool)).await;
            // Else its session would outlive the log.
            let _ = timeout(CLOSES_WITHIN, listening_pool.close()).await;
        });
        let until = shutdown.clone();
        tasks.spawn(async move { until.run_until_cancelled(telling.send(&pool)).await });
        hints
    }

    fn session_name(&self) -> String {
        format!("{LISTENS} {}", self.0.process)
    }

    /// Lets other processes know, soon.
    pub fn tell(&self, topic: Topic) {
        self.0.news.fetch_or(topic as u8, Ordering::AcqRel);
        self.0.wanted.notify_one();
    }

    /// Changes when another process had news. Nobody hears all of them.
    pub fn heard(&self, topic: Topic) -> watch::Receiver<()> {
        match topic {
            Topic::Heads => self.0.heads.subscribe(),
            Topic::Checkpoints => self.0.checkpoints.subscribe(),
        }
    }

    async fn send(&self, pool: &PgPool) {
        let mut audience: Option<(Instant, bool)> = None;
        loop {
            self.0.wanted.notified().await;
            let listened_to = match audience {
                Some((asked_at, listened_to)) if asked_at.elapsed() < AUDIENCE_KNOWN_FOR => listened_to,
                _ => {
                    let listened_to = self.anybody_listens(pool).await.unwrap_or(false);
                    audience = Some((Instant::now(), listened_to));
                    listened_to
                }
            };
            let news = self.0.news.swap(0, Ordering::AcqRel);
            if listened_to && news != 0 {
                let told = bounded(async {
                    let mut connection = Borrowed::from(pool).await?;
                    sqlx::query("SELECT pg_notify($1, $2)")
                        .bind(CHANNEL)
                        .bind(format!("{news} {}", self.0.process))
                        .execute(&mut *connection)
                        .await?;
                    connection.done();
                    Ok::<_, sqlx::Error>(())
                });
                // A hint that is lost costs others some milliseconds; what is wrong with the database others tell.
                if let Err(error) = told.await {
                    tracing::debug!(%error, "a hint was not sent");
                }
            }
            sleep(PAUSE).await;
        }
    }

    async fn anybody_listens(&self, pool: &PgPool) -> Result<bool, sqlx::Error> {
        bounded(async {
            let mut connection = Borrowed::from(pool).await?;
            let anybody = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
                                AND starts_with(application_name, $1) AND application_name <> $2)",
            )
            .bind(LISTENS)
            .bind(self.session_name())
            .fetch_one(&mut *connection)
            .await?;
            connection.done();
            Ok(anybody)
        })
        .await
    }

    async fn listen(&self, pool: &PgPool) {
        loop {
            if let Err(error) = self.hear(pool).await {
                tracing::debug!(%error, "hints of other processes are not heard; polls go on");
            }
            sleep(RECONNECT_PAUSE).await;
        }
    }

    /// Hears hints for as long as the connection speaks.
    async fn hear(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let mut listener = bounded(async {
            let mut listener = PgListener::connect_with(pool).await?;
            listener.listen(CHANNEL).await?;
            Ok::<_, sqlx::Error>(listener)
        })
        .await?;
        loop {
            let Ok(heard) = timeout(SILENT_FOR_MAX, listener.try_recv()).await else {
                bounded(sqlx::query("SELECT").execute(&mut listener)).await?;
                continue;
            };
            let Some(hint) = heard? else { return Ok(()) };
            let Some((news, process)) = hint.payload().split_once(' ') else { continue };
            let Ok(news) = news.parse::<u8>() else { continue };
            if process.parse() == Ok(self.0.process) {
                continue;
            }
            for (topic, hears) in [(Topic::Heads, &self.0.heads), (Topic::Checkpoints, &self.0.checkpoints)] {
                if news & topic as u8 != 0 {
                    hears.send_replace(());
                }
            }
        }
    }
}
