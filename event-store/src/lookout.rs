//! A thread with a runtime and connections of its own, for who must know in time how the log stands: on the threads that serve
//! requests their turn comes after whoever waits there, and thousands may.

use std::{panic::resume_unwind, thread, time::Duration};

use sqlx::{PgPool, postgres::PgConnectOptions};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{connection, keyed_session};

/// The poll of the heads, and what follows the changes.
const CONNECTIONS_MAX: u32 = 2;
const CLOSES_WITHIN: Duration = Duration::from_secs(1);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Lookout {
    runtime: Handle,
    pool: PgPool,
}

impl Lookout {
    /// Ends, with all that runs there, at the shutdown.
    ///
    /// # Errors
    /// Where the database cannot be reached.
    pub async fn start(
        service: &PgConnectOptions,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Result<Self, sqlx::Error> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (ready, pool) = oneshot::channel();
        let (ended, end) = oneshot::channel::<()>();
        let (alive, gone) = oneshot::channel::<()>();
        let (options, shutdown) = (keyed_session(service, "rollcall-lookout"), shutdown.clone());
        thread::Builder::new().name("rollcall-lookout".to_owned()).spawn(move || {
            runtime.block_on(async {
                // A connection wakes the thread that it was made on.
                let pool = connection::pool(options, CONNECTIONS_MAX).await;
                let made = pool.as_ref().ok().cloned();
                if ready.send(pool).is_err() {
                    return;
                }
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    _ = gone => {}
                }
                if let Some(pool) = made {
                    let _ = timeout(CLOSES_WITHIN, pool.close()).await;
                }
            });
            drop(ended);
        })?;
        // Where the runtime ends without a shutdown, so does this, and the thread with it.
        tasks.spawn(async move {
            let _ = end.await;
            drop(alive);
        });
        let pool = pool.await.map_err(|_| sqlx::Error::WorkerCrashed)??;
        Ok(Self { runtime: handle, pool })
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Runs there; ends when the work does, or at the shutdown.
    pub fn run<W: Future<Output = ()> + Send + 'static>(&self, work: W) -> impl Future<Output = ()> + use<W> {
        let running = self.runtime.spawn(work);
        async move {
            match running.await {
                Ok(()) => {}
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                Err(_) => {}
            }
        }
    }
}
