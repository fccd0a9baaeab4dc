//! Chance that can be repeated: `ROLLCALL_TEST_SEED` names the seed that a failed run printed.

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// A seeded source, and its seed for the messages of failures.
pub fn seeded() -> (StdRng, u64) {
    let named = std::env::var("ROLLCALL_TEST_SEED").ok().map(|text| text.parse().unwrap());
    let seed = named.unwrap_or_else(|| rand::rng().random());
    println!("ROLLCALL_TEST_SEED={seed}");
    (StdRng::seed_from_u64(seed), seed)
}
