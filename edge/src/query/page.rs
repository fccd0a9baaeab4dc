//! Keyset paging: how many, and from where.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub const PAGE_SIZE_DEFAULT: u32 = 50;
pub const PAGE_SIZE_MAX: u32 = 1000;

/// The first byte of every token. A listing that changes what its tokens hold raises it, and old tokens are refused
/// instead of misread.
const VERSION: u8 = 1;
/// Far above any key; a longer token is not ours.
const TEXT_BYTES_MAX: usize = 2048;

/// Where a listing goes on: bytes of the listing's own, opaque to clients. It is not signed, so the listing must trust
/// its key no more than any other parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken(Vec<u8>);

#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("is not a token that a listing gave")]
pub struct Malformed;

impl PageToken {
    #[must_use]
    pub fn encode(key: &[u8]) -> String {
        debug_assert!(key.len() < TEXT_BYTES_MAX / 4 * 3, "a key that could not be decoded again");
        let mut bytes = Vec::with_capacity(key.len() + 1);
        bytes.push(VERSION);
        bytes.extend_from_slice(key);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// # Errors
    /// Where the text is no token of this version.
    pub fn decode(text: &str) -> Result<Self, Malformed> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Malformed);
        }
        let mut bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Malformed)?;
        if bytes.first() != Some(&VERSION) {
            return Err(Malformed);
        }
        bytes.remove(0);
        Ok(Self(bytes))
    }

    /// What was given to [`PageToken::encode`].
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.0
    }
}

pub(super) fn size(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    number
        .filter(|size| (1..=PAGE_SIZE_MAX).contains(size))
        .ok_or_else(|| format!("must be a number from 1 to {PAGE_SIZE_MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_of_another_version_is_refused() {
        let other = URL_SAFE_NO_PAD.encode([VERSION + 1, 7]);
        for bad in ["", "=", "A", &other, &"A".repeat(3000)] {
            assert_eq!(PageToken::decode(bad), Err(Malformed), "{bad:.10}");
        }
    }

    proptest! {
        #[test]
        fn every_key_comes_back(key in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(PageToken::decode(&PageToken::encode(&key)), Ok(PageToken(key)));
        }

        #[test]
        fn any_text_is_refused_or_written_back_the_same(text in "AQ[A-Za-z0-9_-]{0,12}|.*") {
            if let Ok(token) = PageToken::decode(&text) {
                prop_assert_eq!(PageToken::encode(token.key()), text);
            }
        }
    }
}
