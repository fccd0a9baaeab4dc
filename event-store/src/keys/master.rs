//! The master key: 32 random bytes in a file, which wrap everything in the vault.

use std::path::Path;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hmac,
};
use rand::Rng;

use super::Error;

pub const MASTER_KEY_BYTES: usize = 32;

const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// Wraps keys with AES-256-GCM (NIST SP 800-38D). Does not print.
pub struct MasterKey {
    wrapping: LessSafeKey,
    proving: hmac::Key,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the master key file {path} cannot be read")]
    Unreadable { path: String, source: std::io::Error },
    #[error(
        "the master key file {path} does not hold a master key: it must be 64 hexadecimal digits \
         (make one with \"openssl rand -hex 32\")"
    )]
    Malformed { path: String },
}

impl MasterKey {
    /// Derives the two keys that are used (one wraps, one proves) from the master's bytes.
    pub fn new(bytes: &[u8; MASTER_KEY_BYTES]) -> Self {
        let master = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let wrapping = hmac::sign(&master, b"rollcall wrapping key 1");
        let proving = hmac::sign(&master, b"rollcall proving key 1");
        let wrapping =
            UnboundKey::new(&AES_256_GCM, wrapping.as_ref()).expect("a tag of HMAC-SHA-256 has 32 bytes");
        Self {
            wrapping: LessSafeKey::new(wrapping),
            proving: hmac::Key::new(hmac::HMAC_SHA256, proving.as_ref()),
        }
    }

    /// Reads 64 hexadecimal digits, white space around them allowed.
    ///
    /// # Errors
    /// Where the file cannot be read or holds something else.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ReadError::Unreadable { path: path.display().to_string(), source })?;
        let mut bytes = [0; MASTER_KEY_BYTES];
        hex::decode_to_slice(text.trim(), &mut bytes)
            .map_err(|_| ReadError::Malformed { path: path.display().to_string() })?;
        Ok(Self::new(&bytes))
    }

    /// Proves possession of the key for a purpose, without telling anything about it: the check at every start, and
    /// the password of the service's role.
    pub fn prove(&self, purpose: &[u8]) -> [u8; 32] {
        hmac::sign(&self.proving, purpose).as_ref().try_into().expect("a tag of HMAC-SHA-256 has 32 bytes")
    }

    /// Encrypts a key for storage. `context` must be given again to unwrap it.
    pub fn wrap(&self, context: &[u8], key: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        rand::rng().fill_bytes(&mut nonce);
        let mut wrapped = Vec::with_capacity(NONCE_BYTES + key.len() + TAG_BYTES);
        wrapped.extend_from_slice(&nonce);
        wrapped.extend_from_slice(key);
        let tag = self
            .wrapping
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context),
                &mut wrapped[NONCE_BYTES..],
            )
            .expect("a key is far shorter than the cipher's limit");
        wrapped.extend_from_slice(tag.as_ref());
        wrapped
    }

    /// # Errors
    /// [`Error::Unreadable`] where it was wrapped by another master key or for another context.
    pub fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<Vec<u8>, Error> {
        let unreadable = || Error::Unreadable { what: "a wrapped key" };
        let (nonce, sealed) = wrapped.split_at_checked(NONCE_BYTES).ok_or_else(unreadable)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| unreadable())?;
        let mut sealed = sealed.to_vec();
        let key =
            self.wrapping.open_in_place(nonce, Aad::from(context), &mut sealed).map_err(|_| unreadable())?;
        Ok(key.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_key_opens_only_with_its_master_and_context() {
        let master = MasterKey::new(&[7; 32]);
        let wrapped = master.wrap(b"subject", &[9; 32]);
        assert_eq!(master.unwrap(b"subject", &wrapped).unwrap(), vec![9; 32]);
        assert!(master.unwrap(b"another", &wrapped).is_err());
        assert!(MasterKey::new(&[8; 32]).unwrap(b"subject", &wrapped).is_err());
        assert!(master.unwrap(b"subject", &wrapped[..5]).is_err());
    }

    #[test]
    fn a_master_key_file_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        assert!(matches!(MasterKey::read(&path), Err(ReadError::Unreadable { .. })));
        std::fs::write(&path, "too short").unwrap();
        assert!(matches!(MasterKey::read(&path), Err(ReadError::Malformed { .. })));
        std::fs::write(&path, format!("{}\n", "ab".repeat(32))).unwrap();
        assert_eq!(MasterKey::read(&path).unwrap().prove(b"x"), MasterKey::new(&[0xab; 32]).prove(b"x"));
    }
}
