//! What holds for every token.

use std::sync::LazyLock;

use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::{NOW, Signer, Verifier, claims, verifier};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// A verifier with a good token of each algorithm.
static GOOD: LazyLock<(Verifier, Vec<String>)> = LazyLock::new(|| {
    let signers = [Signer::ed25519("ed"), Signer::es256("ec"), Signer::rs256("rsa")];
    let tokens = signers.iter().map(|signer| signer.token(&claims())).collect();
    (RUNTIME.block_on(verifier(&signers.each_ref())), tokens)
});

fn verifies(token: &str) -> bool {
    RUNTIME.block_on(GOOD.0.verify(token, NOW)).is_ok()
}

#[derive(Clone, Debug)]
enum Change {
    Put(u8),
    Insert(u8),
    Remove,
    Swap,
    Cut,
}

fn changes() -> impl Strategy<Value = Change> {
    let byte = || prop_oneof![any::<u8>().prop_map(|b| b & 0x7f), prop::sample::select(b"AQgw-_.=".to_vec())];
    prop_oneof![
        4 => byte().prop_map(Change::Put),
        1 => byte().prop_map(Change::Insert),
        1 => Just(Change::Remove),
        1 => Just(Change::Swap),
        1 => Just(Change::Cut),
    ]
}

fn changed(token: &str, change: &Change, place: usize) -> String {
    let mut bytes = token.as_bytes().to_vec();
    match change {
        Change::Put(byte) => bytes[place] = *byte,
        Change::Insert(byte) => bytes.insert(place, *byte),
        Change::Remove => drop(bytes.remove(place)),
        Change::Swap => bytes.swap(place, (place + 1) % token.len()),
        Change::Cut => bytes.truncate(place),
    }
    String::from_utf8(bytes).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_token_verifies_in_one_spelling_only(
        which in 0_usize..3,
        change in changes(),
        place in any::<prop::sample::Index>(),
    ) {
        let token = &GOOD.1[which];
        let other = changed(token, &change, place.index(token.len()));
        prop_assert_eq!(verifies(&other), other == *token, "{}", other);
    }

    #[test]
    fn any_text_is_answered(text in "[A-Za-z0-9_.-]{0,60}|.*") {
        prop_assert!(!verifies(&text));
    }
}

#[test]
fn no_bit_of_a_token_is_idle() {
    for token in &GOOD.1 {
        assert!(verifies(token));
        for place in 0..token.len() {
            for bit in 0..7 {
                let flipped = token.as_bytes()[place] ^ (1 << bit);
                assert!(
                    !verifies(&changed(token, &Change::Put(flipped), place)),
                    "bit {bit} of byte {place}"
                );
            }
        }
    }
}
