//! Which JWK sets can be used.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::Signer;
use crate::auth::jwt::key_set::{Error, KeySet};

fn parse(keys: &[Value]) -> Result<KeySet, Error> {
    KeySet::parse(json!({"keys": keys}).to_string().as_bytes())
}

fn with(mut jwk: Value, name: &str, value: impl Into<Value>) -> Value {
    jwk[name] = value.into();
    jwk
}

#[test]
fn a_secret_in_the_set_is_refused_loudly() {
    let good = Signer::ed25519("a").jwk();
    assert!(matches!(parse(&[good.clone(), json!({"kty": "oct", "k": "AAAA"})]), Err(Error::Symmetric)));
    assert!(matches!(parse(&[with(good.clone(), "d", "AAAA")]), Err(Error::Private)));
    assert!(matches!(
        parse(&[good.clone(), with(good, "x", "AAAA"), json!({"kty": "oct"})]),
        Err(Error::Symmetric)
    ));
}

#[test]
fn keys_of_other_kinds_and_uses_are_passed_over() {
    let (ed, ec, rsa) = (Signer::ed25519("ed").jwk(), Signer::es256("ec").jwk(), Signer::rs256("rsa").jwk());
    assert!(parse(&[ed.clone(), ec.clone(), rsa.clone()]).is_ok());
    let n = |bytes: usize| {
        let mut n = vec![0xff; bytes];
        n.insert(0, 0);
        URL_SAFE_NO_PAD.encode(n)
    };
    for useless in [
        json!({}),
        json!("text"),
        json!({"kty": "EC", "crv": "P-384", "x": "AAAA", "y": "AAAA"}),
        json!({"kty": "OKP", "crv": "X25519", "x": ed["x"]}),
        json!({"kty": "OKP", "crv": "Ed448", "x": ed["x"]}),
        json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"}),
        with(ed.clone(), "use", "enc"),
        with(ed.clone(), "key_ops", json!(["sign"])),
        with(ed.clone(), "alg", "ES256"),
        with(ed.clone(), "alg", "HS256"),
        with(ed.clone(), "x", "AAAA"),
        with(ec.clone(), "x", ec["y"].clone()),
        with(ec.clone(), "y", format!("AA{}", ec["y"].as_str().unwrap())),
        with(rsa.clone(), "alg", "PS256"),
        with(rsa.clone(), "n", n(255)),
        with(rsa.clone(), "n", n(1025)),
        with(rsa.clone(), "e", "AQ"),
        with(rsa.clone(), "e", "Ag"),
        with(rsa.clone(), "n", ""),
    ] {
        assert!(matches!(parse(std::slice::from_ref(&useless)), Err(Error::Unusable)), "{useless}");
        assert!(parse(&[useless.clone(), ed.clone()]).is_ok(), "{useless}");
    }
    assert!(parse(&[with(rsa, "n", n(256))]).is_ok());
    assert!(parse(&[with(ed, "key_ops", json!(["verify"]))]).is_ok());
}

#[test]
fn what_is_no_set_is_refused() {
    for text in ["", "x", "[]", "{}", r#"{"keys":{}}"#, "<html>"] {
        assert!(matches!(KeySet::parse(text.as_bytes()), Err(Error::Json(_))), "{text}");
    }
    let (a, b) = (Signer::ed25519("same").jwk(), Signer::es256("same").jwk());
    assert!(matches!(parse(&[a, b]), Err(Error::SameKid)));
}

#[test]
fn the_order_of_keys_does_not_count() {
    let (a, b) = (Signer::ed25519("a").jwk(), Signer::es256("b").jwk());
    let one = parse(&[a.clone(), b.clone()]).unwrap();
    assert_eq!(one, parse(&[b.clone(), a.clone()]).unwrap());
    assert_ne!(one, parse(&[a]).unwrap());
    assert_ne!(one, parse(&[b, Signer::ed25519("a").jwk()]).unwrap());
}
