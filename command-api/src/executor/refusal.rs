//! The one place that maps refusals to problems.

use rollcall_domain::{Email, Refusal, Wish};
use rollcall_edge::{
    Problem,
    problem::{FieldError, code},
};
use rollcall_event_store::{Log, append, gather, keys, load, streams::LoadError};

use super::Failure;
use crate::Call;

/// What a wish would claim, for saying which claim was taken.
pub(super) struct Claimed {
    email: Option<Email>,
}

impl Claimed {
    pub fn of(wish: &Wish) -> Self {
        let email = match wish {
            Wish::CreateUser(user) => Some(user.email.clone()),
            Wish::ChangeEmail { email } => Some(email.clone()),
            _ => None,
        };
        Self { email }
    }
}

/// A second is enough for a database that restarts or a queue that is full.
const RETRY_AFTER_S: u32 = 1;

pub(super) fn of_rule(refusal: Refusal) -> Failure {
    let problem = match refusal {
        Refusal::AlreadyExists => Problem::new(code::ALREADY_EXISTS, "there is a user with this id already"),
        Refusal::NotFound => Problem::not_found(),
        Refusal::Deactivated => {
            Problem::new(code::USER_DEACTIVATED, "the user is deactivated: reactivate it first")
        }
        Refusal::NameMissing => {
            members("/given_name", "one of given_name, family_name and display_name is required".to_owned())
        }
        Refusal::EmailDiffers => Problem::new(
            code::EMAIL_DIFFERS,
            "the user's email is another one by now: what was verified is not what it has",
        ),
        Refusal::TooMany { what, max } => members("", format!("a user may have at most {max} {what}")),
    };
    problem.into()
}

fn members(pointer: &str, detail: String) -> Problem {
    Problem::new(code::INVALID_MEMBERS, "one member is not as it must be; see `errors`")
        .with_error(FieldError::pointer(pointer, detail))
}

pub(super) fn precondition_failed(version: u64) -> Problem {
    Problem::new(
        code::PRECONDITION_FAILED,
        format!("the user is at version {version}, which If-Match does not name"),
    )
}

pub(super) fn of_load(error: LoadError) -> Failure {
    let problem = match error {
        LoadError::Gather(gather::Error::Overloaded) => overloaded(),
        LoadError::Gather(gather::Error::Unreachable(_) | gather::Error::Stopping) => unavailable(&error),
        LoadError::Gather(gather::Error::Fetch(ref cause)) => match &**cause {
            load::Error::Database(_) | load::Error::Keys(keys::Error::Database(_)) => unavailable(&error),
            load::Error::Keys(_) => Problem::internal(&error),
        },
        LoadError::Keys(_) | LoadError::Decode(_) => Problem::internal(&error),
    };
    problem.into()
}

pub(super) fn of_append(error: append::Error, log: &Log, call: &Call, claimed: Claimed) -> Problem {
    match error {
        append::Error::Conflict => {
            Problem::new(code::CONFLICT, "the user was changed by other commands at the same time; try again")
                .with_retry_after_s(RETRY_AFTER_S)
        }
        append::Error::ClaimTaken(digest) => {
            let tenant = call.principal.tenant.as_str();
            let of_email = claimed
                .email
                .is_some_and(|email| log.keys().digest(tenant, "email", email.as_str().as_bytes()) == digest);
            if of_email {
                Problem::new(code::EMAIL_TAKEN, "another user of this tenant has this email")
                    .with_error(FieldError::pointer("/email", "is another user's"))
            } else {
                Problem::new(
                    code::EXTERNAL_ID_TAKEN,
                    "another user of this tenant has one of these external ids",
                )
                .with_error(FieldError::pointer("/external_ids", "one of them is another user's"))
            }
        }
        // The record was there a moment ago and has expired since.
        append::Error::KeyUsed => Problem::new(code::CONFLICT, "the Idempotency-Key was used; try again"),
        append::Error::Overloaded => overloaded(),
        append::Error::Unknown => Problem::unavailable(
            "the connection to the database was lost and the outcome is unknown: ask again with the same \
             Idempotency-Key, or look",
            RETRY_AFTER_S,
        ),
        append::Error::Stopping | append::Error::Unreachable => unavailable(&error),
        append::Error::Restored => restored(),
        append::Error::Database(_) => Problem::internal(&error),
    }
}

/// Until an operator has adopted the log, which takes minutes at best.
const RESTORED_RETRY_AFTER_S: u32 = 60;

pub(super) fn restored() -> Problem {
    Problem::new(
        code::LOG_RESTORED,
        "the log was restored to an earlier point: nothing was changed by this request, and no commands are taken until \
         an operator has adopted it, or has brought the whole log back and started this process again",
    )
    .with_retry_after_s(RESTORED_RETRY_AFTER_S)
}

fn overloaded() -> Problem {
    Problem::new(code::OVERLOADED, "too many requests are waiting").with_retry_after_s(RETRY_AFTER_S)
}

pub(super) fn unavailable(error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::warn!(error, "a command could not be executed");
    Problem::unavailable("the database cannot be reached; nothing was changed by this request", RETRY_AFTER_S)
}
