//! Reads of concurrent requests gathered into one statement: while a statement runs, requests queue; the next statement
//! takes all of them. No artificial delay: a request that comes alone is read alone, at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{PgConnection, postgres::PgConnectOptions};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{bounded, connect, keyed_session};

/// Requests that wait for their turn at most; more are refused at once.
const QUEUE_MAX: usize = 16_384;
/// Requests that one statement serves at most.
const BATCH_MAX: usize = 256;
const ATTEMPTS_MAX: u32 = 3;
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// One statement that reads for many.
pub trait Fetch: Clone + Send + Sync + 'static {
    type Key: Send + Sync + 'static;
    type Value: Send + 'static;
    type Error: std::error::Error + From<sqlx::Error> + Send + Sync + 'static;

    /// Answers with one value for each key, in the keys' order.
    fn fetch(
        &self,
        connection: &mut PgConnection,
        keys: &[Self::Key],
    ) -> impl Future<Output = Result<Vec<Self::Value>, Self::Error>> + Send;

    /// Whether another attempt on a new connection may help.
    fn transient(error: &Self::Error) -> bool;
}

#[derive(Debug, thiserror::Error)]
pub enum Error<E: std::error::Error + 'static> {
    #[error("too many reads are waiting")]
    Overloaded,
    #[error("the service is stopping")]
    Stopping,
    #[error("PostgreSQL cannot be reached")]
    Unreachable(#[source] Arc<sqlx::Error>),
    #[error("a read failed")]
    Fetch(#[source] Arc<E>),
}

impl<E: std::error::Error + 'static> Clone for Error<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Overloaded => Self::Overloaded,
            Self::Stopping => Self::Stopping,
            Self::Unreachable(source) => Self::Unreachable(Arc::clone(source)),
            Self::Fetch(source) => Self::Fetch(Arc::clone(source)),
        }
    }
}

type Request<F> =
    (<F as Fetch>::Key, oneshot::Sender<Result<<F as Fetch>::Value, Error<<F as Fetch>::Error>>>);

/// Hands keys to the gathering tasks. Cheap to clone.
pub struct Handle<F: Fetch> {
    queue: mpsc::Sender<Request<F>>,
}

impl<F: Fetch> Clone for Handle<F> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<F: Fetch> Handle<F> {
    /// Reads one key's value. Safe to cancel.
    ///
    /// # Errors
    /// [`Error::Overloaded`] at once where the queue is full.
    pub async fn get(&self, key: F::Key) -> Result<F::Value, Error<F::Error>> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send((key, reply)).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Error::Stopping,
        })?;
        answer.await.unwrap_or(Err(Error::Stopping))
    }
}

/// Starts tasks, each with a connection of its own, that read for all callers.
pub fn start<F: Fetch>(
    fetch: F,
    service: &PgConnectOptions,
    name: &'static str,
    connections: usize,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Handle<F> {
    let (queue, requests) = mpsc::channel(QUEUE_MAX);
    let requests = Arc::new(Mutex::new(requests));
    for _ in 0..connections.max(1) {
        let worker = Worker {
            fetch: fetch.clone(),
            options: keyed_session(service, name),
            connection: None,
            batch_keys: metrics::histogram!("rollcall_gather_batch_keys", "reader" => name),
            batch_seconds: metrics::histogram!("rollcall_gather_batch_seconds", "reader" => name),
        };
        tasks.spawn(worker.run(Arc::clone(&requests), shutdown.clone()));
    }
    Handle { queue }
}

struct Worker<F: Fetch> {
    fetch: F,
    options: PgConnectOptions,
    connection: Option<PgConnection>,
    batch_keys: metrics::Histogram,
    batch_seconds: metrics::Histogram,
}

impl<F: Fetch> Worker<F> {
    async fn run(mut self, requests: Arc<Mutex<mpsc::Receiver<Request<F>>>>, shutdown: CancellationToken) {
        let mut batch: Vec<Request<F>> = Vec::with_capacity(BATCH_MAX);
        loop {
            let received = async { requests.lock().await.recv_many(&mut batch, BATCH_MAX).await };
            let received = tokio::select! {
                received = received => received,
                () = shutdown.cancelled() => return,
            };
            if received == 0 {
                return;
            }
            let (keys, replies): (Vec<_>, Vec<_>) =
                batch.drain(..).filter(|(_, reply)| !reply.is_closed()).unzip();
            if keys.is_empty() {
                continue;
            }
            let begun = Instant::now();
            let read = self.read(&keys).await;
            self.batch_keys.record(keys.len() as f64);
            self.batch_seconds.record(begun.elapsed().as_secs_f64());
            match read {
                Ok(values) => {
                    debug_assert_eq!(values.len(), replies.len());
                    for (reply, value) in replies.into_iter().zip(values) {
                        // A caller that went away needs no answer.
                        let _ = reply.send(Ok(value));
                    }
                }
                // One of them is at fault: each alone, so that it fails alone.
                Err(Error::Fetch(error)) if keys.len() > 1 && !F::transient(&error) => {
                    for (key, reply) in keys.iter().zip(replies) {
                        let alone = self.read(std::slice::from_ref(key)).await;
                        let _ = reply.send(alone.and_then(|mut values| values.pop().ok_or(Error::Stopping)));
                    }
                }
                Err(error) => {
                    for reply in replies {
                        let _ = reply.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    async fn read(&mut self, keys: &[F::Key]) -> Result<Vec<F::Value>, Error<F::Error>> {
        let mut attempt = 1;
        loop {
            let connection = match &mut self.connection {
                Some(connection) => connection,
                None => match connect(&self.options).await {
                    Ok(connection) => self.connection.insert(connection),
                    Err(_) if attempt < ATTEMPTS_MAX => {
                        attempt += 1;
                        tokio::time::sleep(RETRY_PAUSE).await;
                        continue;
                    }
                    Err(error) => return Err(Error::Unreachable(Arc::new(error))),
                },
            };
            match bounded(self.fetch.fetch(connection, keys)).await {
                Ok(values) => return Ok(values),
                Err(error) if F::transient(&error) && attempt < ATTEMPTS_MAX => {
                    self.connection = None;
                    attempt += 1;
                }
                Err(error) => {
                    if F::transient(&error) {
                        self.connection = None;
                    }
                    return Err(Error::Fetch(Arc::new(error)));
                }
            }
        }
    }
}
