//! Serves connections: a cap on their number, bounds on what each may hold and for how long, and a drain that lets open
//! requests end. HTTP/1.1 alone: one request at a time on a connection, so that what bounds connections bounds all; TLS
//! and HTTP/2 end at the load balancer (docs/adr/0006-http-1.1.md).

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use rollcall_edge::problem::{Problem, code};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::config::Limits;

/// Bytes of a request's head, and of an answer that the client has not taken yet; a longer head is answered 431.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// How much longer than a request a connection may say nothing: the answer to a request that took too long comes first.
const MARGIN: Duration = Duration::from_secs(5);
/// Connections beyond the cap that are told so; those beyond these are just closed.
const TURNED_AWAY_MAX: usize = 64;
const TURN_AWAY_WITHIN: Duration = Duration::from_secs(1);
/// How long nobody must have connected for the listener to be closed, and how long that is waited for.
const LAST_CALL: Duration = Duration::from_millis(50);
const LAST_CALLS_MAX: Duration = Duration::from_secs(1);
/// How long to wait where no connection can be accepted: mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Serves until `stop`, then lets open requests end, for at most `drain`. True if all of them did.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: &Limits,
    stop: CancellationToken,
    drain: Duration,
) -> bool {
    let connections = Connections::new(router, limits);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => connections.serve(stream),
                Err(error) => {
                    tracing::warn!(%error, "connections cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = stop.cancelled() => break,
        }
    }
    // Who has connected already is served, not reset.
    let last = Instant::now() + LAST_CALLS_MAX;
    while let Ok(Ok((stream, _))) = timeout_at(last.min(Instant::now() + LAST_CALL), listener.accept()).await
    {
        connections.serve(stream);
    }
    drop(listener);
    timeout(drain, connections.graceful.shutdown()).await.is_ok()
}

struct Connections {
    router: Router,
    builder: http1::Builder,
    read_timeout: Duration,
    write_timeout: Duration,
    room: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
    graceful: GracefulShutdown,
}

impl Connections {
    fn new(router: Router, limits: &Limits) -> Self {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(limits.idle_timeout)
            .max_buf_size(BUFFER_BYTES_MAX);
        Self {
            router,
            builder,
            // A request at work reads nothing; it must not be taken for an idle client.
            read_timeout: limits.idle_timeout.max(limits.request_timeout) + MARGIN,
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
        let mut stream = TimeoutStream::new(stream);
        stream.set_read_timeout(Some(self.read_timeout));
        stream.set_write_timeout(Some(self.write_timeout));
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let answer = router.clone().call(request.map(Body::new));
            async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
        });
        let connection = self.builder.serve_connection(TokioIo::new(Box::pin(stream)), service);
        let connection = self.graceful.watch(connection);
        metrics::gauge!("rollcall_http_connections").increment(1);
        tokio::spawn(async move {
            // A client that breaks off is no news.
            let _ = connection.await;
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

fn too_many_connections() -> String {
    let problem = Problem::new(code::OVERLOADED, "there are too many connections");
    let body = String::from_utf8(problem.to_bytes()).expect("JSON is UTF-8");
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\n\
         Retry-After: 1\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
