//! What both APIs share: problem details, principal and scopes, paging, consistency token, OpenAPI parts.
//!
//! Shape: request -> [`principal::Caller`] (who) -> [`json`], [`query`], headers (what, parsed strictly) ->
//! handler -> [`respond`] or [`Problem`].
//!
//! Nothing here knows a table or an aggregate. Every refusal is a [`Problem`] of a type that [`problem::code`] lists,
//! and no parser panics, whatever bytes come.

pub mod auth;
pub mod budget;
pub mod drain;
pub mod fallback;
pub mod idempotency;
pub mod json;
pub mod metadata;
pub mod openapi;
pub mod preconditions;
pub mod principal;
pub mod problem;
pub mod query;
pub mod rate;
pub mod respond;
pub mod token;

mod header;
pub mod hint;
#[cfg(test)]
mod testing;

pub use problem::{FieldError, Problem, Problems};
