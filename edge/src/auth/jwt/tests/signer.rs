//! An issuer's key pair.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair},
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, jwk::Jwk};
use serde_json::{Value, json};

pub struct Signer {
    pub kid: String,
    algorithm: Algorithm,
    key: EncodingKey,
}

/// What stands before the RSAPrivateKey in PKCS #8 of 2048 bits and more.
const PKCS8_HEAD_BYTES: usize = 26;

impl Signer {
    pub fn ed25519(kid: &str) -> Self {
        let document = Ed25519KeyPair::generate().unwrap().to_pkcs8v1().unwrap();
        Self::new(kid, Algorithm::EdDSA, EncodingKey::from_ed_der(document.as_ref()))
    }

    pub fn es256(kid: &str) -> Self {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        Self::new(kid, Algorithm::ES256, EncodingKey::from_ec_der(document.as_ref()))
    }

    pub fn rs256(kid: &str) -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let document: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let key = EncodingKey::from_rsa_der(&document.as_ref()[PKCS8_HEAD_BYTES..]);
        Self::new(kid, Algorithm::RS256, key)
    }

    fn new(kid: &str, algorithm: Algorithm, key: EncodingKey) -> Self {
        Self { kid: kid.to_owned(), algorithm, key }
    }

    /// The public part.
    pub fn jwk(&self) -> Value {
        let mut jwk =
            serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()).unwrap();
        jwk["kid"] = self.kid.as_str().into();
        jwk["use"] = "sig".into();
        jwk
    }

    pub fn header(&self) -> Value {
        json!({"typ": "JWT", "alg": format!("{:?}", self.algorithm), "kid": self.kid})
    }

    pub fn token(&self, claims: &Value) -> String {
        self.sign(&self.header(), &claims.to_string())
    }

    /// Signs whatever it is given.
    pub fn sign(&self, header: &Value, payload: &str) -> String {
        let message = message(header, payload);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }
}

pub fn message(header: &Value, payload: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(payload))
}

pub fn set(signers: &[&Signer]) -> Value {
    json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()})
}
