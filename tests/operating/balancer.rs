//! A load balancer as plain as they come: it asks `/readyz`, takes turns among who is ready, and repeats nothing.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::Response,
};
use tokio::net::TcpListener;

/// How often it asks who is ready.
pub const ASKS_EVERY: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub struct Balancer(Arc<Inner>);

struct Inner {
    client: reqwest::Client,
    members: Mutex<Vec<Member>>,
    turn: AtomicUsize,
}

#[derive(Clone)]
struct Member {
    url: String,
    ready: bool,
}

impl Balancer {
    /// It and its URL.
    pub async fn start() -> (Self, String) {
        let inner =
            Inner { client: reqwest::Client::new(), members: Mutex::default(), turn: AtomicUsize::new(0) };
        let balancer = Self(Arc::new(inner));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(forward).with_state(balancer.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let asks = balancer.clone();
        tokio::spawn(async move {
            loop {
                asks.ask().await;
                tokio::time::sleep(ASKS_EVERY).await;
            }
        });
        (balancer, url)
    }

    /// Takes it into the rounds once it is ready.
    pub async fn join(&self, url: &str) {
        self.0.members.lock().unwrap().push(Member { url: url.to_owned(), ready: false });
        while !self.0.members.lock().unwrap().iter().any(|member| member.url == url && member.ready) {
            tokio::time::sleep(ASKS_EVERY / 4).await;
        }
    }

    async fn ask(&self) {
        let members = self.0.members.lock().unwrap().clone();
        for member in members {
            let asked =
                self.0.client.get(format!("{}/readyz", member.url)).timeout(ASKS_EVERY * 10).send().await;
            let ready = asked.is_ok_and(|answer| answer.status() == 200);
            if let Some(known) =
                self.0.members.lock().unwrap().iter_mut().find(|known| known.url == member.url)
            {
                known.ready = ready;
            }
        }
    }

    fn next(&self) -> Option<String> {
        let members = self.0.members.lock().unwrap();
        let ready: Vec<_> = members.iter().filter(|member| member.ready).collect();
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
        ready.get(turn % ready.len().max(1)).map(|member| member.url.clone())
    }
}

async fn forward(State(balancer): State<Balancer>, request: Request) -> Response {
    let failed = |why: String| Response::builder().status(502).body(Body::from(why)).unwrap();
    let Some(url) = balancer.next() else { return failed("nobody is ready".to_owned()) };
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().unwrap().as_str();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let mut forwarded = balancer.0.client.request(parts.method, format!("{url}{path}")).body(body);
    for name in ["tenant", "content-type", "consistency-token", "idempotency-key"] {
        if let Some(value) = parts.headers.get(name) {
            forwarded = forwarded.header(name, value);
        }
    }
    match forwarded.send().await {
        Err(error) => failed(format!("{url}: {error:?}")),
        Ok(answer) => {
            let mut response = Response::builder().status(answer.status());
            for (name, value) in answer.headers().iter().filter(|(name, _)| *name != "connection") {
                response = response.header(name, value);
            }
            response.body(Body::from(answer.bytes().await.unwrap_or_default())).unwrap()
        }
    }
}
