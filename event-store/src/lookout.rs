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
    ends: CancellationToken,
}

impl Lookout {
    /// Ends, with all that runs there, at the shutdown, and where the caller's runtime ends without one.
    ///
    /// # Errors
    /// Where the database cannot be reached.
    pub async fn start(
        service: &PgConnectOptions,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Result<Self, sqlx::Error> {
        let ends = shutdown.child_token();
        let (ready, started) = oneshot::channel();
        let (ended, end) = oneshot::channel::<()>();
        let (options, until) = (keyed_session(service, "rollcall-lookout"), ends.clone());
        thread::Builder::new().name("rollcall-lookout".to_owned()).spawn(move || {
            run(options, &until, ready);
            drop(ended);
        })?;
        let guard = ends.clone().drop_guard();
        let (runtime, pool) = started.await.map_err(|_| sqlx::Error::WorkerCrashed)??;
        tasks.spawn(async move {
            let _ = end.await;
            drop(guard);
        });
        Ok(Self { runtime, pool, ends })
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Runs there; ends when the work does, or with the thread.
    pub fn run<W: Future<Output = ()> + Send + 'static>(&self, work: W) -> impl Future<Output = ()> + use<W> {
        let (running, ends) = (self.runtime.spawn(work), self.ends.clone());
        async move {
            match running.await {
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                Err(error) if !ends.is_cancelled() => panic!("the lookout ended: {error}"),
                _ => {}
            }
        }
    }
}

type Started = Result<(Handle, PgPool), sqlx::Error>;

fn run(options: PgConnectOptions, until: &CancellationToken, ready: oneshot::Sender<Started>) {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(error.into()))),
    };
    runtime.block_on(async {
        // A connection wakes the thread that it was made on.
        let pool = match connection::pool(options, CONNECTIONS_MAX).await {
            Ok(pool) => pool,
            Err(error) => return drop(ready.send(Err(error))),
        };
        if ready.send(Ok((Handle::current(), pool.clone()))).is_ok() {
            until.cancelled().await;
        }
        let _ = timeout(CLOSES_WITHIN, pool.close()).await;
    });
}
