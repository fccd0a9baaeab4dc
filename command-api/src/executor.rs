//! Runs a command: load, decide, append; again where another process was faster.
//!
//! What is left if the process dies: before the append, nothing; after it, everything, and a client that asks again with
//! its key gets the same answer.

mod refusal;

use std::sync::Arc;

use cqrs_es::Aggregate;
use rollcall_domain::{User, UserCommand, UserId, Wish};
use rollcall_edge::{Problem, preconditions::IfMatch, problem::code};
use rollcall_event_store::{
    Log, Partition, Position,
    append::{self, Appended},
    bounded,
    commands::{self, Idempotency, Replay},
    streams::{Context, Streams},
};
use tracing::Instrument;

use crate::{Call, UserCodec};

/// How often a command is decided again after another process changed its user.
const DECISIONS_MAX: u32 = 16;

const RETRIES: &str = "rollcall_command_retries_total";

/// Whom a command is for.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// A user under an id that was made for it.
    Fresh(UserId),
    /// A user that the caller named.
    Named(UserId),
}

impl Target {
    pub fn id(self) -> UserId {
        match self {
            Self::Fresh(id) | Self::Named(id) => id,
        }
    }
}

/// A command that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    pub status: u16,
    pub id: String,
    /// The user's version after the command.
    pub version: u64,
    pub partition: Partition,
    pub position: Position,
}

/// Executes commands on users. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    log: Log,
}

/// Why one attempt failed.
enum Failure {
    Refused(Box<Problem>),
    Append(append::Error),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Refused(Box::new(problem))
    }
}

impl Executor {
    pub fn new(log: Log) -> Self {
        // Known before it first happens, so that a rate has somewhere to rise from.
        metrics::counter!(RETRIES).increment(0);
        Self { log }
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Runs one command. `idempotency` makes it happen once, however often it is asked for.
    ///
    /// # Errors
    /// A problem for the client. Where the outcome is unknown the problem says so.
    pub async fn execute(
        &self,
        call: &Call,
        if_match: &IfMatch,
        idempotency: Option<Idempotency>,
        target: Target,
        wish: Wish,
        reason: Option<rollcall_domain::Reason>,
    ) -> Result<Done, Problem> {
        let command = UserCommand { wish, reason, may_rectify: call.may_rectify() };
        let claimed = refusal::Claimed::of(&command.wish);
        let failure = match self.decide_and_append(call, if_match, idempotency, target, command).await {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        // A replay beats every refusal: what was done once is answered as it was then.
        if let Some(idempotency) = idempotency {
            match self.find_replay(call, idempotency).await {
                Ok(Some(replay)) => return replayed(replay, idempotency),
                Ok(None) => {}
                // An unknown outcome stays unknown, whatever failed after it.
                Err(_) if matches!(failure, Failure::Append(append::Error::Unknown)) => {}
                Err(problem) => return Err(problem),
            }
        }
        Err(match failure {
            Failure::Refused(problem) => *problem,
            Failure::Append(error) => refusal::of_append(error, &self.log, call, claimed),
        })
    }

    async fn decide_and_append(
        &self,
        call: &Call,
        if_match: &IfMatch,
        idempotency: Option<Idempotency>,
        target: Target,
        command: UserCommand,
    ) -> Result<Done, Failure> {
        if self.log.halt().is_some() {
            return Err(refusal::restored().into());
        }
        let streams = Streams::<UserCodec>::new(self.log.clone(), call.principal.tenant.shared());
        let id = target.id().to_string();
        let status = if matches!(command.wish, Wish::CreateUser(_)) { 201 } else { 200 };
        if let Target::Fresh(_) = target {
            let context = streams.fresh(&id);
            return self.attempt(&streams, context, call, idempotency, status, command).await;
        }
        let _turn = streams.turn(&id).await;
        let mut decisions = 0;
        loop {
            decisions += 1;
            let load = tracing::info_span!("command_api.user.load");
            let context = streams.load(&id).instrument(load).await.map_err(refusal::of_load)?;
            let exists = context.version() > 0;
            if exists && !if_match.allows(context.version()) {
                return Err(refusal::precondition_failed(context.version()).into());
            }
            let outcome = self.attempt(&streams, context, call, idempotency, status, command.clone()).await;
            match outcome {
                Err(Failure::Append(append::Error::Conflict)) => match if_match {
                    IfMatch::Absent if decisions < DECISIONS_MAX => {
                        metrics::counter!(RETRIES).increment(1);
                    }
                    // The version that the client named is not the user's any more.
                    IfMatch::Versions(_) => {
                        let detail = "the user was changed by another command meanwhile";
                        return Err(Problem::new(code::PRECONDITION_FAILED, detail).into());
                    }
                    IfMatch::Absent | IfMatch::Any => return outcome,
                },
                outcome => return outcome,
            }
        }
    }

    async fn attempt(
        &self,
        streams: &Streams<UserCodec>,
        mut context: Context<User>,
        call: &Call,
        idempotency: Option<Idempotency>,
        status: u16,
        command: UserCommand,
    ) -> Result<Done, Failure> {
        if context.erased() {
            return Err(Problem::new(code::GONE, "the user was erased").into());
        }
        let decide = tracing::info_span!("command_api.user.decide");
        let events = decide.in_scope(|| context.aggregate.decide(command)).map_err(refusal::of_rule)?;
        let id = context.stream().aggregate_id.to_string();
        let version = context.version() + events.len() as u64;
        context.record = idempotency.map(|idempotency| (idempotency, status));
        let Appended { partition, position, recorded_at: _ } =
            streams.append(&events, context, Arc::clone(&call.metadata)).await.map_err(Failure::Append)?;
        Ok(Done { status, id, version, partition, position })
    }

    async fn find_replay(&self, call: &Call, idempotency: Idempotency) -> Result<Option<Replay>, Problem> {
        let tenant = call.principal.tenant.as_str();
        bounded(commands::find(self.log.pool(), tenant, User::TYPE, idempotency.key, self.log.partitions()))
            .await
            .map_err(|error| refusal::unavailable(&error))
    }
}

fn replayed(replay: Replay, idempotency: Idempotency) -> Result<Done, Problem> {
    if replay.fingerprint != idempotency.fingerprint {
        return Err(Problem::new(
            code::IDEMPOTENCY_KEY_REUSED,
            "this Idempotency-Key was used for another request (another method, path, If-Match or body): use a new key",
        ));
    }
    Ok(Done {
        status: replay.status,
        id: replay.aggregate_id,
        version: replay.version,
        partition: replay.partition,
        position: replay.position,
    })
}
