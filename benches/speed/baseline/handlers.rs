//! HTTP handlers as plain as they come, each in a process of its own: this program, started with an argument.

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{StatusCode, header::CONTENT_TYPE},
    routing::get,
};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::net::TcpListener;

use crate::rollcall;

const CONSTANT: &str = "serve-constant";
const SELECT: &str = "serve-select";
const URL_VARIABLE: &str = "BENCH_DATABASE_URL";
const POOL_CONNECTIONS: u32 = 10;

/// A process that serves; it is killed when it is dropped.
pub struct Handler {
    child: Child,
    pub base: String,
}

impl Handler {
    /// Returns a constant of that many bytes.
    pub fn constant(bytes: usize) -> Self {
        Self::start(&[CONSTANT, &bytes.to_string()], "")
    }

    /// Does one SELECT by primary key in a version's table of users, through a pool.
    pub fn select(owner_url: &str, table: &str) -> Self {
        Self::start(&[SELECT, table], owner_url)
    }

    fn start(arguments: &[&str], url: &str) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(arguments).env(URL_VARIABLE, url).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = rollcall::spawn(command);
        let mut base = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut base).unwrap();
        Self { child, base: base.trim().to_owned() }
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves for ever where the arguments ask for that.
pub fn serve_asked() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [what, of] = arguments.as_slice() else { return };
    if what != CONSTANT && what != SELECT {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let router = if what == CONSTANT { constant(of) } else { select(of).await };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("http://{}", listener.local_addr().unwrap());
        axum::serve(listener, router).await.unwrap();
    });
}

fn constant(bytes: &str) -> Router {
    let body = Bytes::from(vec![b' '; bytes.parse().unwrap()]);
    let read = async move || ([(CONTENT_TYPE, "application/json")], body.clone());
    Router::new().route("/api/v1/users/{id}", get(read))
}

async fn select(table: &str) -> Router {
    let url = env::var(URL_VARIABLE).unwrap();
    let pool = PgPoolOptions::new().max_connections(POOL_CONNECTIONS).connect(&url).await.unwrap();
    let sql = format!("SELECT sealed FROM {table} WHERE tenant_id = 'default' AND user_id = $1");
    let sql: &'static str = sql.leak();
    Router::new().route("/api/v1/users/{id}", get(read)).with_state((pool, sql))
}

async fn read(
    State((pool, sql)): State<(PgPool, &'static str)>,
    Path(id): Path<String>,
) -> Result<Vec<u8>, StatusCode> {
    let row = sqlx::query_scalar(sql).bind(id).fetch_optional(&pool).await;
    row.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?.ok_or(StatusCode::NOT_FOUND)
}
