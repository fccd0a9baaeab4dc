//! The public keys of an issuer, from a JWK set (RFC 7517).

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// Shorter ones can be factored (NIST SP 800-131A), longer ones cost too much for a token that anybody may send.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
const COORDINATE_BYTES: usize = 32;

/// Why a set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("it is not a JSON object with an array `keys` (RFC 7517)")]
    Json(#[source] serde_json::Error),
    #[error("it holds no key that can be used (EdDSA on Ed25519, ES256, or RS256 of 2048 to 8192 bits)")]
    Unusable,
    #[error(
        "it holds a symmetric key (oct): whoever verifies with it could sign too; take a key pair instead"
    )]
    Symmetric,
    #[error("it holds a private key (d): keep that with the issuer and give the public part only")]
    Private,
    #[error("it holds two keys of one kid")]
    SameKid,
}

/// Keys for verifying, by kid. Keys of other kinds or for other uses are passed over, as RFC 7517 5 asks.
#[derive(Debug, PartialEq)]
pub struct KeySet(Vec<Key>);

#[derive(Debug)]
pub struct Key {
    kid: Option<String>,
    material: Material,
    decoding: DecodingKey,
}

#[derive(Debug, PartialEq, Eq)]
enum Material {
    Ed25519(Vec<u8>),
    P256(Vec<u8>),
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// The members that matter. `x5c`, `x5u` and the like are not read: a key is trusted for where its set comes from.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl KeySet {
    /// # Errors
    /// Where the set holds nothing to verify with, or something that must not be in it.
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        let set: Set = serde_json::from_slice(json).map_err(Error::Json)?;
        let mut keys: Vec<Key> = Vec::new();
        for jwk in set.keys {
            match jwk.get("kty").and_then(Value::as_str) {
                Some("oct") => return Err(Error::Symmetric),
                Some("EC" | "OKP" | "RSA") if jwk.get("d").is_some() => return Err(Error::Private),
                _ => {}
            }
            let Some(key) = serde_json::from_value(jwk).ok().and_then(Key::of) else { continue };
            if key.kid.is_some() && keys.iter().any(|other| other.kid == key.kid) {
                return Err(Error::SameKid);
            }
            keys.push(key);
        }
        // Issuers may shuffle them; the set is the same.
        keys.sort_by(|a, b| a.kid.cmp(&b.kid));
        if keys.is_empty() { Err(Error::Unusable) } else { Ok(Self(keys)) }
    }

    #[must_use]
    pub fn find(&self, kid: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.kid.as_deref() == Some(kid))
    }

    /// For a token that names no key: the issuer's one, `None` where it has several.
    #[must_use]
    pub fn only(&self) -> Option<&Key> {
        match self.0.as_slice() {
            [key] => Some(key),
            _ => None,
        }
    }
}

impl Key {
    fn of(jwk: Jwk) -> Option<Self> {
        let verifies = jwk.usage.as_deref().is_none_or(|usage| usage == "sig")
            && jwk.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|name| name == "verify"));
        let material = Material::of(&jwk).filter(|_| verifies)?;
        if jwk.alg.as_deref().is_some_and(|alg| alg != material.algorithm_name()) {
            return None;
        }
        let decoding = match &material {
            Material::Ed25519(bytes) => DecodingKey::from_ed_der(bytes),
            Material::P256(point) => DecodingKey::from_ec_der(point),
            Material::Rsa { modulus, exponent } => DecodingKey::from_rsa_raw_components(modulus, exponent),
        };
        Some(Self { kid: jwk.kid, material, decoding })
    }

    /// The one algorithm of the key, whatever a token says of itself (RFC 8725 3.1).
    #[must_use]
    pub fn algorithm_name(&self) -> &'static str {
        self.material.algorithm_name()
    }

    /// Whether `signature`, in base64url, is this key's of `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &str) -> bool {
        let algorithm = match &self.material {
            Material::Ed25519(_) => Algorithm::EdDSA,
            Material::P256(_) => Algorithm::ES256,
            Material::Rsa { .. } => Algorithm::RS256,
        };
        jsonwebtoken::crypto::verify(signature, message, &self.decoding, algorithm).unwrap_or(false)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        (&self.kid, &self.material) == (&other.kid, &other.material)
    }
}

impl Material {
    fn of(jwk: &Jwk) -> Option<Self> {
        let material = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("OKP", Some("Ed25519")) => Self::Ed25519(decode(jwk.x.as_deref())?),
            ("EC", Some("P-256")) => {
                let (x, y) = (decode(jwk.x.as_deref())?, decode(jwk.y.as_deref())?);
                if x.len() != COORDINATE_BYTES || y.len() != COORDINATE_BYTES {
                    return None;
                }
                // An uncompressed point (SEC 1, 2.3.3).
                Self::P256([&[4], x.as_slice(), y.as_slice()].concat())
            }
            ("RSA", _) => Self::Rsa {
                modulus: without_leading_zeros(decode(jwk.n.as_deref())?),
                exponent: without_leading_zeros(decode(jwk.e.as_deref())?),
            },
            _ => return None,
        };
        material.is_sound().then_some(material)
    }

    /// Whether the numbers are a public key at all.
    fn is_sound(&self) -> bool {
        match self {
            Self::Ed25519(bytes) => ParsedPublicKey::new(&ED25519, bytes).is_ok(),
            Self::P256(point) => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).is_ok(),
            Self::Rsa { modulus, exponent } => {
                let unused = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
                let odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
                RSA_BITS.contains(&(modulus.len() * 8 - unused))
                    && odd(modulus)
                    && odd(exponent)
                    && exponent.as_slice() != [1]
            }
        }
    }

    fn algorithm_name(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "EdDSA",
            Self::P256(_) => "ES256",
            Self::Rsa { .. } => "RS256",
        }
    }
}

fn decode(text: Option<&str>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text?).ok()
}

fn without_leading_zeros(mut number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.drain(..zeros);
    number
}
