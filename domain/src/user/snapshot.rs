//! Snapshots of a user: what its events came to, written down so that they need not all be read again.
//!
//! *Invariant:* a snapshot is not kept beyond its shape. Whoever reads one of another shape ignores it and goes by the
//! events, so there are no upcasters here.

use super::User;

impl User {
    /// The shape of a snapshot. It rises whenever the serialised form of a user changes, and whenever `evolve` makes
    /// something else of the same events: what an older program folded would otherwise live on.
    pub const SNAPSHOT_SHAPE: i32 = 1;

    /// The snapshot's bytes. They hold personal values in the clear: who stores them encrypts them.
    pub fn snapshot(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("structs of text, booleans and maps by text are JSON")
    }

    /// The user of a snapshot of the current shape; `None` where the bytes are none.
    pub fn of_snapshot(snapshot: &[u8]) -> Option<Self> {
        serde_json::from_slice(snapshot).ok()
    }
}
