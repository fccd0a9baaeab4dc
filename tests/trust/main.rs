//! Who may do what: the real binary in jwt mode, asked with good tokens and bad ones.
//!
//! Most tests share one instance that believes three issuers, each with keys of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod keys;
mod limits;
mod operations;
mod refusals;
#[path = "../support/rollcall.rs"]
#[expect(dead_code, reason = "other test programs use the rest of it")]
mod rollcall;
mod rotation;
mod service;
#[path = "../../edge/src/auth/jwt/tests/signer.rs"]
mod signer;
mod start;
mod tenants;
