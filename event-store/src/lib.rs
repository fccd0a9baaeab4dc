//! The log: append, load, tail, snapshots and keys. It knows bytes and order, not users.
//!
//! Shape: `Append` -> writer (group commit, one statement) -> `log.events` -> `tail` -> projectors.
//!
//! What a caller can rely on: an append is stored whole or not at all; positions in a partition are 1, 2, 3 … in
//! commit order; what was acknowledged is on disk; nothing is ever changed or taken away.

pub mod adopt;
pub mod append;
pub mod claims;
pub mod commands;
mod connection;
pub mod gather;
pub mod hints;
pub mod history;
pub mod keys;
pub mod load;
mod log;
mod lookout;
mod measure;
pub mod migrate;
pub mod snapshots;
mod stream;
pub mod streams;
pub mod tail;
pub mod trace;
mod turns;

pub use connection::{Borrowed, bounded, connect, glance, keyed_session, session, spawn_vital, still_there};
pub use log::{Error, Log, Options};
pub use stream::{Partition, Position, Recorded, StreamHash, StreamId};
