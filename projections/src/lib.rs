//! The projector runtime and the read models: everything to the right of the log.
//!
//! Shape: heads -> [`projector::Projector`] (spans of what it [holds](leases), one transaction with the checkpoint) -> a read model's `apply`;
//! a read model's `queries` -> whoever asks.
//!
//! *Invariant:* a read model's rows and its checkpoint move in one transaction, so every event is applied exactly once.
//! The publisher keeps its checkpoint behind its acknowledgements, so every event is published at least once.

pub mod audit;
pub mod auditor;
pub mod checker;
pub mod checkpoint;
pub mod drift;
pub mod leases;
pub mod parking;
pub mod profile;
pub mod profiles;
pub mod progress;
pub mod projector;
pub mod publisher;
pub mod schema;
pub mod status;
mod stored;
pub mod tables;
pub mod versions;

pub use profile::Profile;
pub use progress::Progress;
/// Reads that are gathered fail in these ways.
pub use rollcall_event_store::gather;
