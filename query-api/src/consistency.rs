//! Read your writes: a query waits for what its token saw, and answers with what it saw itself.

use std::time::Duration;

use rollcall_edge::{
    Problem,
    problem::{FieldError, code},
    token::{ConsistencyToken, HEADER, Tokens},
};
use rollcall_projections::{Progress, progress::Serving, schema::Version};
use tokio::sync::watch;
use uuid::Uuid;

/// How long a query waits for its projection.
const WAIT_MAX: Duration = Duration::from_secs(2);
const RETRY_AFTER_S: u32 = 1;
/// Parked streams are tried again every minute at most.
const PARKED_RETRY_AFTER_S: u32 = 60;

/// What a query has seen of the log: the token that it was sent, and the rows that it read.
pub(crate) struct Seen(ConsistencyToken);

impl Seen {
    /// Waits until the version that serves has passed the token, on one partition or on all that it names. What is waited
    /// for is what must be read: another version may begin to serve meanwhile.
    ///
    /// # Errors
    /// 503 `projection-behind` after two seconds, or at once where no version serves yet; 400 for a token of another log.
    pub async fn wait(
        tokens: Tokens,
        log_id: Uuid,
        serving: &watch::Receiver<Option<Serving>>,
        partition: Option<u16>,
    ) -> Result<(Self, Version), Problem> {
        let Serving { version, progress } = now(serving)?;
        Ok((Self::wait_on(tokens, log_id, &progress, partition).await?, version))
    }

    async fn wait_on(
        tokens: Tokens,
        log_id: Uuid,
        progress: &Progress,
        partition: Option<u16>,
    ) -> Result<Self, Problem> {
        let seen = Self::of_log(tokens, log_id)?;
        if seen.0.positions().iter().any(|(partition, _)| *partition >= progress.partitions()) {
            return Err(malformed("names a partition that this log does not have: drop it"));
        }
        let wanted = seen.0.positions().iter().copied();
        let wanted = wanted.filter(|(named, _)| partition.is_none_or(|partition| partition == *named));
        if progress.wait(wanted, WAIT_MAX).await {
            return Ok(seen);
        }
        Err(behind("the read model has not reached the token's position yet"))
    }

    /// As [`wait`](Self::wait), for queries of single users: `parked` says where the streams of some of them are parked. Asked
    /// before the wait, which would be in vain, and after it, because whoever has passed a position knows what was parked up
    /// to it.
    ///
    /// # Errors
    /// At once 503 `projection-parked` where the token has seen an event that the row of one of them does not show.
    pub async fn wait_unparked(
        tokens: Tokens,
        log_id: Uuid,
        serving: &watch::Receiver<Option<Serving>>,
        partition: Option<u16>,
        parked: impl Fn(&Progress) -> Vec<(u16, u64)>,
    ) -> Result<(Self, Serving), Problem> {
        let serving = now(serving)?;
        let progress = &serving.progress;
        let named = tokens.0.clone();
        let refuse = || {
            let Some(token) = &named else { return Ok(()) };
            let shows_less = |(partition, position): (u16, u64)| {
                token.position(partition).is_some_and(|seen| seen >= position)
            };
            match parked(progress).into_iter().any(shows_less) {
                false => Ok(()),
                true => Err(Problem::new(
                    code::PROJECTION_PARKED,
                    "an event that the token has seen could not be applied to this user; ask without the token to read \
                     what was before it",
                )
                .with_retry_after_s(PARKED_RETRY_AFTER_S)),
            }
        };
        if named.as_ref().is_some_and(|token| token.log_id() == log_id) {
            refuse()?;
        }
        let seen = Self::wait_on(tokens, log_id, progress, partition).await?;
        refuse()?;
        Ok((seen, serving))
    }

    /// For queries that read the log itself, which is never behind a token.
    ///
    /// # Errors
    /// 400 for a token of another log.
    pub fn of_log(tokens: Tokens, log_id: Uuid) -> Result<Self, Problem> {
        let Some(token) = tokens.0 else { return Ok(Self(ConsistencyToken::empty(log_id))) };
        if token.log_id() == log_id {
            return Ok(Self(token));
        }
        Err(malformed("is of another log than this service's: drop it"))
    }

    /// How far the client has seen a partition.
    pub fn position(&self, partition: u16) -> u64 {
        self.0.position(partition).unwrap_or_default()
    }

    /// Takes note of a row.
    pub fn row(&mut self, partition: u16, position: u64) {
        // Partitions of a log are fewer than a token has room for.
        let _ = self.0.advance(partition, position);
    }

    pub fn token(&self) -> &ConsistencyToken {
        &self.0
    }
}

/// The version that serves now.
pub(crate) fn now(serving: &watch::Receiver<Option<Serving>>) -> Result<Serving, Problem> {
    serving.borrow().clone().ok_or_else(|| behind("the read model is being built"))
}

fn behind(detail: &str) -> Problem {
    Problem::new(code::PROJECTION_BEHIND, detail).with_retry_after_s(RETRY_AFTER_S)
}

fn malformed(detail: &str) -> Problem {
    Problem::new(code::MALFORMED_TOKEN, format!("Consistency-Token {detail}"))
        .with_error(FieldError::parameter(HEADER.as_str(), detail))
}
