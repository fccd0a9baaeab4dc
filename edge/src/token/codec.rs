//! The token's text, strictly one for each token.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::parse::Error;
use super::{ConsistencyToken, PAIRS_MAX};

const PREFIX: &str = "ct1.";
const LOG_ID_BYTES: usize = 16;
/// A partition takes at most 3 bytes, a position 10.
const BYTES_MAX: usize = LOG_ID_BYTES + PAIRS_MAX * 13;

pub fn encode(token: &ConsistencyToken) -> String {
    let mut bytes = Vec::with_capacity(LOG_ID_BYTES + token.positions.len() * 6);
    bytes.extend_from_slice(token.log_id.as_bytes());
    for &(partition, position) in &token.positions {
        put(&mut bytes, u64::from(partition));
        put(&mut bytes, position);
    }
    let mut text = String::with_capacity(PREFIX.len() + bytes.len().div_ceil(3) * 4);
    text.push_str(PREFIX);
    URL_SAFE_NO_PAD.encode_string(&bytes, &mut text);
    text
}

pub fn decode(text: &str) -> Result<ConsistencyToken, Error> {
    let encoded = text.strip_prefix(PREFIX).ok_or(Error::Version)?;
    if encoded.len() > BYTES_MAX.div_ceil(3) * 4 {
        return Err(Error::Pairs);
    }
    let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| Error::Base64)?;
    let (log_id, mut rest) = bytes.split_first_chunk::<LOG_ID_BYTES>().ok_or(Error::Short)?;
    let mut token = ConsistencyToken::empty(Uuid::from_bytes(*log_id));
    while !rest.is_empty() {
        let partition = u16::try_from(take(&mut rest)?).map_err(|_| Error::Number)?;
        let position = take(&mut rest)?;
        if token.positions.last().is_some_and(|last| last.0 >= partition) {
            return Err(Error::Order);
        }
        if token.positions.len() == PAIRS_MAX {
            return Err(Error::Pairs);
        }
        token.positions.push((partition, position));
    }
    Ok(token)
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Takes one LEB128 number off the front; refuses 65 bits and more, and a form that is longer than it must be.
fn take(bytes: &mut &[u8]) -> Result<u64, Error> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(Error::Short)?;
        *bytes = rest;
        // The tenth byte has room for the 64th bit only.
        if shift == 63 && byte > 1 {
            return Err(Error::Number);
        }
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return if byte == 0 && shift > 0 { Err(Error::Number) } else { Ok(number) };
        }
    }
    Err(Error::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(pairs: &[u8]) -> String {
        format!("ct1.{}", URL_SAFE_NO_PAD.encode([&[7; 16], pairs].concat()))
    }

    #[test]
    fn the_text_stands_for_ever() {
        let token =
            ConsistencyToken { log_id: Uuid::from_bytes([7; 16]), positions: vec![(0, 1), (300, u64::MAX)] };
        let stored = text(&[0, 1, 0xac, 2, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
        assert_eq!(token.to_string(), stored);
        assert_eq!(stored, "ct1.BwcHBwcHBwcHBwcHBwcHBwABrAL___________8B");
        assert_eq!(decode(&stored), Ok(token));
    }

    #[test]
    fn what_is_not_strictly_a_token_is_refused() {
        for (bad, error) in [
            (String::new(), Error::Version),
            ("ct2.AAAA".to_owned(), Error::Version),
            ("ct1.".to_owned(), Error::Short),
            ("ct1.AAAA".to_owned(), Error::Short),
            (text(&[]) + "=", Error::Base64),
            (text(&[]) + "!", Error::Base64),
            (text(&[1]), Error::Short),
            (text(&[1, 0x80]), Error::Short),
            (text(&[1, 1, 9]), Error::Short),
            (text(&[1, 0x80, 0]), Error::Number),
            (text(&[0x81, 0, 1]), Error::Number),
            (text(&[0x80, 0x80, 4, 1]), Error::Number),
            (text(&[1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2]), Error::Number),
            (text(&[1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 129, 0]), Error::Number),
            (text(&[1, 1, 1, 1]), Error::Order),
            (text(&[2, 1, 1, 1]), Error::Order),
            (format!("ct1.{}", "A".repeat(100_000)), Error::Pairs),
        ] {
            assert_eq!(decode(&bad), Err(error), "{bad:.80}");
        }
    }

    #[test]
    fn bits_left_over_in_the_last_letter_are_refused() {
        // 20 bytes leave two bytes for the last three letters, so two bits of the last one stand for nothing.
        let good = text(&[1, 1, 2, 4]);
        let bad = good.strip_suffix('Q').map(|head| format!("{head}R")).unwrap();
        assert!(decode(&good).is_ok());
        assert_eq!(decode(&bad), Err(Error::Base64));
    }

    proptest! {
        #[test]
        fn every_token_comes_back(
            log_id in any::<[u8; 16]>(),
            positions in prop::collection::btree_map(any::<u16>(), any::<u64>(), 0..100),
        ) {
            let token = ConsistencyToken {
                log_id: Uuid::from_bytes(log_id),
                positions: positions.into_iter().collect(),
            };
            prop_assert_eq!(decode(&token.to_string()), Ok(token));
        }

        #[test]
        fn any_bytes_are_refused_or_written_back_the_same(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let text = format!("ct1.{}", URL_SAFE_NO_PAD.encode(bytes));
            if let Ok(token) = decode(&text) {
                prop_assert_eq!(token.to_string(), text);
            }
        }

        #[test]
        fn any_text_is_answered(text in "(ct1\\.)?.*") {
            let _ = decode(&text);
        }
    }
}
