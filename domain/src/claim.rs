//! Claims: values that only one stream of a tenant may hold at a time.
//!
//! An event says which claims it takes and releases; the log keeps them, as keyed digests, in the transaction that
//! stores the event.

use std::fmt;

/// A value that is unique in a tenant and scope. `value` is in normalised form: equal text is an equal claim.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    pub scope: String,
    pub value: String,
}

impl fmt::Debug for Claim {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Claim").field("scope", &self.scope).field("value", &"<personal>").finish()
    }
}

/// What an event does to a claim. A release precedes the take that replaces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimChange {
    Take(Claim),
    Release(Claim),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_prints_its_scope_alone() {
        let claim = Claim { scope: "email".into(), value: "ada@example.com".into() };
        let printed = format!("{:?}", ClaimChange::Take(claim));
        assert!(printed.contains("email") && !printed.contains("ada"), "{printed}");
    }
}
