//! A subject's own key, and the form of what it seals.
//!
//! Sealed form of an event's personal values: format byte (1), key id (4 bytes, big-endian), nonce (12), ciphertext and
//! tag. Associated data: event id, tenant, stream, sequence; a ciphertext opens nowhere but where it was put.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rand::Rng;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Error, master::MasterKey};
use crate::StreamId;

const FORMAT: u8 = 1;
/// A subject has one data key in its life.
const KEY_ID: u32 = 1;
const NONCE_BYTES: usize = 12;
const HEADER_BYTES: usize = 1 + 4 + NONCE_BYTES;
const TAG_BYTES: usize = 16;

/// What a snapshot is bound to beside its stream: the last event in it, by sequence and by id, so that it never passes for
/// that of another history, and the shape of its plain text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub sequence: u64,
    pub event_id: Uuid,
    pub shape: i32,
}

const KEY_BYTES: usize = 32;

/// Seals and opens one subject's values with AES-256-GCM. Does not print.
#[derive(Clone)]
pub struct DataKey(Zeroizing<[u8; KEY_BYTES]>);

/// A data key as the vault stores it.
#[derive(Clone, Debug)]
pub struct WrappedKey {
    pub master_generation: i32,
    pub bytes: Vec<u8>,
}

impl DataKey {
    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*self.0).expect("a data key has the cipher's length"))
    }

    pub(super) fn generate(
        master: &MasterKey,
        master_generation: i32,
        subject: &StreamId,
    ) -> (Self, WrappedKey) {
        let mut key = Self(Zeroizing::default());
        rand::rng().fill_bytes(&mut *key.0);
        let wrapped = master.wrap(&context(b"data key", subject), &*key.0);
        (key, WrappedKey { master_generation, bytes: wrapped })
    }

    pub(super) fn unwrap(master: &MasterKey, subject: &StreamId, wrapped: &[u8]) -> Result<Self, Error> {
        let bytes = Zeroizing::new(master.unwrap(&context(b"data key", subject), wrapped)?);
        let bytes =
            <[u8; KEY_BYTES]>::try_from(&**bytes).map_err(|_| Error::Unreadable { what: "a data key" })?;
        Ok(Self(Zeroizing::new(bytes)))
    }

    /// Seals an event's personal values.
    pub fn seal_event(&self, event_id: Uuid, stream: &StreamId, sequence: u64, plain: &[u8]) -> Vec<u8> {
        self.seal(&event_context(event_id, stream, sequence), plain)
    }

    /// # Errors
    /// [`Error::Unreadable`] where the bytes were changed or belong to another event.
    pub fn open_event(
        &self,
        event_id: Uuid,
        stream: &StreamId,
        sequence: u64,
        sealed: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.open(&event_context(event_id, stream, sequence), sealed, "an event's personal values")
    }

    /// Seals what a stream's events came to; see [`Point`].
    pub fn seal_snapshot(&self, stream: &StreamId, point: Point, plain: &[u8]) -> Vec<u8> {
        self.seal(&snapshot_context(stream, point), plain)
    }

    /// # Errors
    /// [`Error::Unreadable`] where the bytes were changed or were made of other events or in another shape.
    pub fn open_snapshot(&self, stream: &StreamId, point: Point, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        self.open(&snapshot_context(stream, point), sealed, "a snapshot")
    }

    /// Seals what a read model holds about a subject; `place` names the read model.
    pub fn seal_row(&self, place: &'static str, subject: &StreamId, plain: &[u8]) -> Vec<u8> {
        self.seal(&context(place.as_bytes(), subject), plain)
    }

    /// # Errors
    /// [`Error::Unreadable`] where the bytes were changed or belong to another subject or read model.
    pub fn open_row(&self, place: &'static str, subject: &StreamId, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        self.open(&context(place.as_bytes(), subject), sealed, "a row of a read model")
    }

    fn seal(&self, context: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        rand::rng().fill_bytes(&mut nonce);
        let mut sealed = Vec::with_capacity(HEADER_BYTES + plain.len() + TAG_BYTES);
        sealed.push(FORMAT);
        sealed.extend_from_slice(&KEY_ID.to_be_bytes());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let tag = self
            .cipher()
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context),
                &mut sealed[HEADER_BYTES..],
            )
            .expect("a command is far shorter than the cipher's limit");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    fn open(&self, context: &[u8], sealed: &[u8], what: &'static str) -> Result<Vec<u8>, Error> {
        let unreadable = || Error::Unreadable { what };
        let (header, body) = sealed.split_at_checked(HEADER_BYTES).ok_or_else(unreadable)?;
        if header[0] != FORMAT || header[1..5] != KEY_ID.to_be_bytes() {
            return Err(unreadable());
        }
        let nonce = Nonce::try_assume_unique_for_key(&header[5..]).map_err(|_| unreadable())?;
        let mut body = body.to_vec();
        let plain = self
            .cipher()
            .open_in_place(nonce, Aad::from(context), &mut body)
            .map_err(|_| unreadable())?
            .len();
        body.truncate(plain);
        Ok(body)
    }
}

/// What is authenticated beside a value. Tenants, types and ids hold no NUL, so the parts cannot run together.
fn context(place: &[u8], subject: &StreamId) -> Vec<u8> {
    [place, subject.tenant.as_bytes(), subject.aggregate_type.as_bytes(), subject.aggregate_id.as_bytes()]
        .join(&0)
}

fn event_context(event_id: Uuid, stream: &StreamId, sequence: u64) -> Vec<u8> {
    let mut bytes = context(b"event", stream);
    bytes.extend_from_slice(event_id.as_bytes());
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes
}

fn snapshot_context(stream: &StreamId, point: Point) -> Vec<u8> {
    let mut bytes = context(b"snapshot", stream);
    bytes.extend_from_slice(point.event_id.as_bytes());
    bytes.extend_from_slice(&point.sequence.to_be_bytes());
    bytes.extend_from_slice(&point.shape.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> StreamId {
        StreamId::new("acme", "user", "ada")
    }

    #[test]
    fn a_value_opens_only_where_it_was_put() {
        let (key, _) = DataKey::generate(&MasterKey::new(&[1; 32]), 1, &subject());
        let event_id = Uuid::from_u128(7);
        let sealed = key.seal_event(event_id, &subject(), 3, b"ada@example.com");
        assert!(!sealed.windows(3).any(|part| part == b"ada"));
        assert_eq!(key.open_event(event_id, &subject(), 3, &sealed).unwrap(), b"ada@example.com");
        assert!(key.open_event(Uuid::from_u128(8), &subject(), 3, &sealed).is_err());
        assert!(key.open_event(event_id, &subject(), 4, &sealed).is_err());
        assert!(key.open_event(event_id, &StreamId::new("other", "user", "ada"), 3, &sealed).is_err());
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(key.open_event(event_id, &subject(), 3, &changed).is_err(), "byte {position}");
        }
        assert!(key.open_event(event_id, &subject(), 3, &sealed[..10]).is_err());
    }

    #[test]
    fn a_snapshot_opens_only_for_the_events_and_the_shape_that_it_was_made_of() {
        let (key, _) = DataKey::generate(&MasterKey::new(&[1; 32]), 1, &subject());
        let point = Point { sequence: 3, event_id: Uuid::from_u128(7), shape: 2 };
        let sealed = key.seal_snapshot(&subject(), point, b"ada");
        assert_eq!(key.open_snapshot(&subject(), point, &sealed).unwrap(), b"ada");
        for other in [
            Point { sequence: 4, ..point },
            Point { event_id: Uuid::from_u128(8), ..point },
            Point { shape: 1, ..point },
        ] {
            assert!(key.open_snapshot(&subject(), other, &sealed).is_err(), "{other:?}");
        }
        assert!(key.open_snapshot(&StreamId::new("other", "user", "ada"), point, &sealed).is_err());
        assert!(key.open_event(point.event_id, &subject(), point.sequence, &sealed).is_err());
    }

    #[test]
    fn a_wrapped_data_key_belongs_to_its_subject() {
        let master = MasterKey::new(&[1; 32]);
        let (key, wrapped) = DataKey::generate(&master, 1, &subject());
        let again = DataKey::unwrap(&master, &subject(), &wrapped.bytes).unwrap();
        let sealed = key.seal_row("profiles", &subject(), b"x");
        assert_eq!(again.open_row("profiles", &subject(), &sealed).unwrap(), b"x");
        assert!(again.open_row("audit", &subject(), &sealed).is_err());
        assert!(DataKey::unwrap(&master, &StreamId::new("acme", "user", "eve"), &wrapped.bytes).is_err());
    }
}
