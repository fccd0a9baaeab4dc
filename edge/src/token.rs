//! The consistency token: how far a client has seen the log.
//!
//! Shape: a command answers with one, the client sends it back with a query, and the query waits until its read model
//! has passed it. Text: `ct1.` and, in base64url without padding, 16 bytes of log id and pairs (partition, position)
//! of LEB128 numbers in ascending order of partition. There is one text for each token; anything else is refused.

mod codec;
mod tokens;

use std::fmt;

use uuid::Uuid;

pub use tokens::{HEADER, Tokens};

/// Pairs that a token may hold.
pub const PAIRS_MAX: usize = 4096;

/// Positions in one log, at most one for each partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistencyToken {
    log_id: Uuid,
    /// Ascending by partition.
    positions: Vec<(u16, u64)>,
}

/// Why a text is no token.
pub mod parse {
    #[derive(Debug, thiserror::Error, PartialEq, Eq)]
    pub enum Error {
        #[error("must begin with ct1.")]
        Version,
        #[error("must be base64url without padding")]
        Base64,
        #[error("is cut short")]
        Short,
        #[error("holds a number that is too large or not in its shortest form")]
        Number,
        #[error("holds partitions twice or out of order")]
        Order,
        #[error("holds more than {} pairs", super::PAIRS_MAX)]
        Pairs,
    }
}

/// Why two tokens cannot be one.
pub mod merge {
    #[derive(Debug, thiserror::Error, PartialEq, Eq)]
    pub enum Error {
        #[error("tokens of different logs cannot be used together")]
        DifferentLog,
        #[error("together the tokens hold more than {} pairs", super::PAIRS_MAX)]
        Pairs,
    }
}

impl ConsistencyToken {
    /// A token that has seen nothing of the log yet.
    #[must_use]
    pub fn empty(log_id: Uuid) -> Self {
        Self { log_id, positions: Vec::new() }
    }

    #[must_use]
    pub fn single(log_id: Uuid, partition: u16, position: u64) -> Self {
        Self { log_id, positions: vec![(partition, position)] }
    }

    /// # Errors
    /// Where the text is not exactly what [`fmt::Display`] writes for some token.
    pub fn parse(text: &str) -> Result<Self, parse::Error> {
        codec::decode(text)
    }

    #[must_use]
    pub fn log_id(&self) -> Uuid {
        self.log_id
    }

    /// Ascending by partition.
    #[must_use]
    pub fn positions(&self) -> &[(u16, u64)] {
        &self.positions
    }

    /// `None` where the token says nothing of the partition.
    #[must_use]
    pub fn position(&self, partition: u16) -> Option<u64> {
        let found = self.positions.binary_search_by_key(&partition, |pair| pair.0).ok()?;
        Some(self.positions[found].1)
    }

    /// Raises one partition to at least `position`.
    ///
    /// # Errors
    /// Where it would be one pair too many.
    pub fn advance(&mut self, partition: u16, position: u64) -> Result<(), merge::Error> {
        match self.positions.binary_search_by_key(&partition, |pair| pair.0) {
            Ok(found) => self.positions[found].1 = self.positions[found].1.max(position),
            Err(_) if self.positions.len() == PAIRS_MAX => return Err(merge::Error::Pairs),
            Err(place) => self.positions.insert(place, (partition, position)),
        }
        Ok(())
    }

    /// Takes the maximum for each partition.
    ///
    /// # Errors
    /// Where the logs differ, or together they hold too many pairs; then the token is left unspecified.
    pub fn merge(&mut self, other: &Self) -> Result<(), merge::Error> {
        if self.log_id != other.log_id {
            return Err(merge::Error::DifferentLog);
        }
        other.positions.iter().try_for_each(|&(partition, position)| self.advance(partition, position))
    }
}

impl fmt::Display for ConsistencyToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&codec::encode(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: Uuid = Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0001);

    #[test]
    fn merging_takes_the_maximum_of_each_partition() {
        let mut token = ConsistencyToken::single(LOG, 3, 10);
        token.merge(&ConsistencyToken::single(LOG, 1, 5)).unwrap();
        token.merge(&ConsistencyToken::single(LOG, 3, 7)).unwrap();
        assert_eq!(token.positions(), [(1, 5), (3, 10)]);
        token.merge(&ConsistencyToken::single(LOG, 3, 11)).unwrap();
        assert_eq!((token.position(3), token.position(1), token.position(2)), (Some(11), Some(5), None));
    }

    #[test]
    fn tokens_of_different_logs_do_not_merge() {
        let mut token = ConsistencyToken::empty(LOG);
        assert_eq!(token.merge(&ConsistencyToken::empty(Uuid::nil())), Err(merge::Error::DifferentLog));
    }

    #[test]
    fn a_token_stays_within_its_bound() {
        let mut token = ConsistencyToken::empty(LOG);
        for partition in 0..4096 {
            token.advance(partition, 1).unwrap();
        }
        assert_eq!(token.advance(4096, 1), Err(merge::Error::Pairs));
        assert_eq!(token.advance(7, 2), Ok(()));
        assert_eq!(ConsistencyToken::parse(&token.to_string()), Ok(token));
    }
}
