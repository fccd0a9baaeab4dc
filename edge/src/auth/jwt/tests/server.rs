//! An issuer's web server on loopback, which counts.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, response::IntoResponse, routing::get};
use http::StatusCode;
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{OwnedRwLockWriteGuard, RwLock},
};

use crate::auth::jwt::{Source, Url};

#[derive(Clone)]
pub struct Server {
    url: Url,
    answer: Arc<Mutex<(StatusCode, String)>>,
    asked: Arc<AtomicUsize>,
    gate: Arc<RwLock<()>>,
}

impl Server {
    pub async fn start(jwks: &Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_on(listener, jwks).await
    }

    pub async fn start_on(listener: TcpListener, jwks: &Value) -> Self {
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let server = Self {
            url: Url::parse(&url).unwrap(),
            answer: Arc::new(Mutex::new((StatusCode::OK, jwks.to_string()))),
            asked: Arc::default(),
            gate: Arc::default(),
        };
        let Self { answer, asked, gate, .. } = server.clone();
        let elsewhere = Arc::clone(&answer);
        let jwks = get(async move || {
            asked.fetch_add(1, Ordering::SeqCst);
            let _open = gate.read().await;
            let (status, body) = answer.lock().unwrap().clone();
            (status, [("location", "/elsewhere.json")], body).into_response()
        });
        // Whoever follows a redirect finds the same, as if all were well.
        let elsewhere = get(async move || elsewhere.lock().unwrap().1.clone());
        let router = Router::new().route("/jwks.json", jwks).route("/elsewhere.json", elsewhere);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        server
    }

    pub fn source(&self) -> Source {
        Source::Url(self.url.clone())
    }

    pub fn answer(&self, status: u16, body: impl ToString) {
        *self.answer.lock().unwrap() = (StatusCode::from_u16(status).unwrap(), body.to_string());
    }

    /// Requests are not answered until what is returned is dropped.
    pub async fn hold(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.gate).write_owned().await
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}
