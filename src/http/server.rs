//! Serves connections: a cap on their number, bounds on what each may hold and for how long, and a drain that lets open
//! requests end.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use rollcall_edge::problem::{Problem, code};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::config::Limits;

/// Bytes of a request's head; more is answered 431.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const HTTP2_STREAMS_MAX: u32 = 256;
const HTTP2_PING_EVERY: Duration = Duration::from_secs(20);
/// Connections beyond the cap that are told so; those beyond these are just closed.
const TURNED_AWAY_MAX: usize = 64;
const TURN_AWAY_WITHIN: Duration = Duration::from_secs(1);
/// How long a connection that has said nothing yet is waited for when the process stops.
const LAST_CALL: Duration = Duration::from_millis(100);
/// How long to wait where no connection can be accepted: mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop`, then lets open requests end, for at most `drain`. True if all of them did.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: &Limits,
    stop: CancellationToken,
    drain: Duration,
) -> bool {
    let connections = Connections::new(router, limits, stop.clone());
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => connections.serve(stream),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = stop.cancelled() => break,
        }
    }
    // Who has connected already is served, not reset.
    while let Ok(Ok((stream, _))) = timeout(Duration::ZERO, listener.accept()).await {
        connections.serve(stream);
    }
    drop(listener);
    timeout(drain, connections.graceful.shutdown()).await.is_ok()
}

struct Connections {
    router: Router,
    builder: Builder<TokioExecutor>,
    stop: CancellationToken,
    idle_timeout: Duration,
    read_timeout: Duration,
    write_timeout: Duration,
    room: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
    graceful: GracefulShutdown,
}

impl Connections {
    fn new(router: Router, limits: &Limits, stop: CancellationToken) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.idle_timeout)
            .max_buf_size(HEAD_BYTES_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(HTTP2_STREAMS_MAX)
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .keep_alive_interval(HTTP2_PING_EVERY)
            .keep_alive_timeout(HTTP2_PING_EVERY);
        Self {
            router,
            builder,
            stop,
            idle_timeout: limits.idle_timeout,
            // A request at work reads nothing; it must not be taken for an idle client.
            read_timeout: limits.idle_timeout.max(limits.request_timeout),
            write_timeout: limits.request_timeout,
            room: Arc::new(Semaphore::new(limits.connections)),
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY_MAX)),
            graceful: GracefulShutdown::new(),
        }
    }

    fn serve(&self, stream: TcpStream) {
        let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else {
            return self.turn_away(stream);
        };
        // Small answers go out at once; a socket that cannot be told so still works.
        let _ = stream.set_nodelay(true);
        let (router, builder, watcher) = (self.router.clone(), self.builder.clone(), self.graceful.watcher());
        let (read_timeout, write_timeout) = (self.read_timeout, self.write_timeout);
        let (stop, idle_timeout) = (self.stop.clone(), self.idle_timeout);
        metrics::gauge!("rollcall_http_connections").increment(1);
        tokio::spawn(async move {
            if speaks(&stream, idle_timeout, &stop).await {
                let mut stream = TimeoutStream::new(stream);
                stream.set_read_timeout(Some(read_timeout));
                stream.set_write_timeout(Some(write_timeout));
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let answer = router.clone().call(request.map(Body::new));
                    async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
                });
                let connection =
                    builder.serve_connection(TokioIo::new(Box::pin(stream)), service).into_owned();
                // A client that breaks off is no news.
                let _ = watcher.watch(connection).await;
            }
            metrics::gauge!("rollcall_http_connections").decrement(1);
            drop(place);
        });
    }

    /// Answers 503 before anything was read, and closes.
    fn turn_away(&self, mut stream: TcpStream) {
        metrics::counter!("rollcall_http_connections_refused_total").increment(1);
        let Ok(place) = Arc::clone(&self.turned_away).try_acquire_owned() else { return };
        tokio::spawn(async move {
            let answer = async {
                stream.write_all(too_many_connections().as_bytes()).await?;
                stream.shutdown().await?;
                // Closing on what was not read would reset the connection, and the answer with it.
                let mut unread = [0; 4096];
                while stream.read(&mut unread).await? > 0 {}
                std::io::Result::Ok(())
            };
            let _ = timeout(TURN_AWAY_WITHIN, answer).await;
            drop(place);
        });
    }
}

/// Whether the client says something in time, be it the first byte; before that nothing else bounds its silence.
async fn speaks(stream: &TcpStream, within: Duration, stop: &CancellationToken) -> bool {
    let stopped = async {
        stop.cancelled().await;
        // What it has sent already may not have been noticed yet.
        tokio::time::sleep(LAST_CALL).await;
    };
    let mut first = [0; 1];
    tokio::select! {
        spoken = timeout(within, stream.peek(&mut first)) => matches!(spoken, Ok(Ok(1))),
        () = stopped => false,
    }
}

fn too_many_connections() -> String {
    let problem = Problem::new(code::OVERLOADED, "there are too many connections");
    let body = String::from_utf8(problem.to_bytes()).expect("JSON is UTF-8");
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\n\
         Retry-After: 1\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
