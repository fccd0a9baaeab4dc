//! Batches: up to 1,000 typed commands with an outcome for each.

use std::collections::HashMap;

use axum::extract::State;
use futures_util::{StreamExt, stream};
use http::StatusCode;
use rollcall_domain::UserId;
use rollcall_edge::{
    Problem,
    auth::Authenticator,
    json::{self, JsonBody},
    openapi::{BatchProblems, CallerHeaders, IdempotencyHeader, MetadataHeaders, tags},
    respond::Json,
    token::ConsistencyToken,
};
use rollcall_event_store::commands::Idempotency;
use serde::Serialize;
use uuid::Uuid;

use super::schemas;
use crate::{
    Call, Done, Executor, Target,
    read::{self, Item},
};

const COMMANDS_MAX: usize = 1_000;
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Streams of a batch that are worked on at once.
const CONCURRENT_STREAMS: usize = 512;

/// A command and its place in the batch.
struct Job {
    index: usize,
    item: Item,
    idempotency: Option<Idempotency>,
}

/// What became of one command.
#[derive(Serialize)]
#[serde(untagged)]
enum Outcome {
    Done { status: u16, id: String, version: u64 },
    Refused { status: u16, problem: Box<Problem> },
}

/// Run a batch of commands
///
/// Each command has its own outcome, in the batch's order. Commands on one user run in that order; others side by side.
/// With an Idempotency-Key each command is recorded on its own, so that a batch that broke off can be sent again whole.
#[utoipa::path(
    post, path = "/api/v1/commands", tag = tags::COMMANDS, security(("bearer" = ["users:write"])),
    params(CallerHeaders, MetadataHeaders, IdempotencyHeader),
    request_body(content = schemas::Commands),
    responses((status = 200, description = "An outcome for each command", body = schemas::Outcomes,
        headers(("Consistency-Token"), ("Correlation-Id"), ("Cache-Control"))), BatchProblems),
)]
pub(crate) async fn run_commands(
    State(executor): State<Executor>,
    State(authenticator): State<Authenticator>,
    call: Call,
    JsonBody(body): JsonBody<BODY_BYTES_MAX>,
) -> Result<Json, Problem> {
    call.unconditional()?;
    let commands = json::elements(&body, COMMANDS_MAX)?;
    authenticator.charge_batch(&call.principal.tenant, commands.len())?;
    let mut outcomes: Vec<Option<Outcome>> = commands.iter().map(|_| None).collect();
    let mut streams: Vec<Vec<Job>> = Vec::new();
    let mut stream_of: HashMap<UserId, usize> = HashMap::new();
    for (index, raw) in commands.into_iter().enumerate() {
        match read::item(raw, format!("/{index}"), UserId::from(Uuid::now_v7())) {
            Ok(item) => {
                let place = match item.target {
                    Target::Fresh(_) => streams.len(),
                    Target::Named(id) => *stream_of.entry(id).or_insert(streams.len()),
                };
                if place == streams.len() {
                    streams.push(Vec::new());
                }
                let keys = executor.log().keys();
                let idempotency = call.item_idempotency(keys, index, &item.if_match, raw.get().as_bytes());
                streams[place].push(Job { index, item, idempotency });
            }
            Err(problem) => outcomes[index] = Some(Outcome::refused(problem)),
        }
    }
    let mut token = ConsistencyToken::empty(executor.log().log_id());
    let mut finished = stream::iter(streams)
        .map(|jobs| run_stream(&executor, &call, jobs))
        .buffer_unordered(CONCURRENT_STREAMS);
    while let Some(results) = finished.next().await {
        for (index, result) in results {
            outcomes[index] = Some(match result {
                Ok(done) => {
                    // A log has fewer partitions than a token has room for.
                    let _ = token.advance(done.partition, done.position);
                    Outcome::Done { status: done.status, id: done.id, version: done.version }
                }
                Err(problem) => Outcome::refused(problem),
            });
        }
    }
    let outcomes: Vec<Outcome> = outcomes.into_iter().flatten().collect();
    let body = serde_json::json!({ "outcomes": outcomes });
    Ok(Json::value(StatusCode::OK, &body).token(&token).correlation_id(&call.correlation_id).irrevocable())
}

/// The commands on one user, one after the other.
async fn run_stream(executor: &Executor, call: &Call, jobs: Vec<Job>) -> Vec<(usize, Result<Done, Problem>)> {
    let mut results = Vec::with_capacity(jobs.len());
    for Job { index, item: Item { target, wish, reason, if_match }, idempotency } in jobs {
        let result = executor.execute(call, &if_match, idempotency, target, wish, reason).await;
        results.push((index, result.map_err(|problem| within(index, problem))));
    }
    results
}

/// A refusal points into the command; the client sent a batch.
fn within(index: usize, mut problem: Problem) -> Problem {
    for pointer in problem.errors.iter_mut().filter_map(|error| error.pointer.as_mut()) {
        *pointer = format!("/{index}/data{pointer}");
    }
    problem
}

impl Outcome {
    fn refused(problem: Problem) -> Self {
        Self::Refused { status: problem.status.as_u16(), problem: Box::new(problem) }
    }
}
