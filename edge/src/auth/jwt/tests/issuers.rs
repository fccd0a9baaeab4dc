//! Several issuers, their tenants, and settings that are refused.

use std::{error::Error as _, path::PathBuf};

use serde_json::{Value, json};

use super::{AUDIENCE, ISSUER, Signer, ask, claims, claims_with, file, issuer, refused, settings, signer};
use crate::auth::{
    Authenticator,
    jwt::{Error, Issuer, Settings, Source, Url, Verifier},
};

#[tokio::test]
async fn an_issuer_speaks_for_its_tenants_only() {
    let (one, two) = (Signer::ed25519("k"), Signer::es256("k"));
    let (_first, first) = file(&signer::set(&[&one]));
    let (_second, second) = file(&signer::set(&[&two]));
    let tenants = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let second = Issuer {
        issuer: "https://two.example".to_owned(),
        audience: "two".to_owned(),
        jwks: second,
        tenants: tenants(&["globex"]),
    };
    let first = Issuer { tenants: tenants(&["acme", "initech"]), ..issuer(first) };
    let verifier = Verifier::start(settings(vec![first, second])).await.unwrap();
    let mut of_two = claims_with("iss", "https://two.example");
    of_two["aud"] = "two".into();

    for tenant in ["acme", "initech"] {
        let token = one.token(&claims_with("tenant", tenant));
        assert_eq!(ask(&verifier, &token).await.unwrap().tenant.as_str(), tenant);
    }
    of_two["tenant"] = "globex".into();
    assert_eq!(ask(&verifier, &two.token(&of_two)).await.unwrap().tenant.as_str(), "globex");
    // With one tenant the claim may be left out, with two it must not.
    of_two["tenant"] = Value::Null;
    assert_eq!(ask(&verifier, &two.token(&of_two)).await.unwrap().tenant.as_str(), "globex");
    let unnamed = refused(ask(&verifier, &one.token(&claims_with("tenant", Value::Null))).await);
    assert!(unnamed.1.contains("tenant of the token is missing"), "{}", unnamed.1);

    for (signer, tenant) in [(&one, "globex"), (&two, "acme"), (&two, "hooli")] {
        let mut claims = if tenant == "globex" { claims() } else { of_two.clone() };
        claims["tenant"] = tenant.into();
        let (status, detail) = refused(ask(&verifier, &signer.token(&claims)).await);
        assert!(status == 401 && detail.contains("may not speak for"), "{detail}");
    }
    // One issuer's key under the other's name, and one's audience with the other.
    of_two["tenant"] = "globex".into();
    assert!(refused(ask(&verifier, &one.token(&of_two)).await).1.contains("algorithm"));
    of_two["aud"] = AUDIENCE.into();
    assert!(refused(ask(&verifier, &two.token(&of_two)).await).1.contains("audience"));
}

/// The error and its causes, as a start prints them.
async fn start_refused(settings: Settings) -> String {
    let error = Authenticator::jwt(settings).await.err().expect("a refusal");
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    assert!(!text.contains('\n'), "{text}");
    text
}

#[tokio::test]
async fn a_file_that_cannot_be_used_refuses_the_start() {
    let missing = PathBuf::from("/nowhere/jwks.json");
    assert_eq!(
        start_refused(settings(vec![issuer(Source::File(missing))])).await,
        "jwks file /nowhere/jwks.json cannot be read: No such file or directory (os error 2)"
    );
    let (held, source) = file(&json!({"keys": []}));
    let text = start_refused(settings(vec![issuer(source)])).await;
    let path = held.path().display();
    assert!(
        text.starts_with(&format!("jwks file {path} cannot be used: it holds no key that can be used")),
        "{text}"
    );
    std::fs::write(held.path(), vec![b' '; 1024 * 1024 + 1]).unwrap();
    let text = start_refused(settings(vec![issuer(Source::File(held.path().to_owned()))])).await;
    assert_eq!(text, format!("jwks file {path} is longer than 1048576 bytes"));
}

#[tokio::test]
async fn settings_that_would_let_too_many_in_are_refused() {
    let url = |text: &str| issuer(Source::Url(Url::parse(text).unwrap()));
    let good = || url("http://127.0.0.1:1/jwks");
    for (issuers, expected) in [
        (vec![], "issuers: at least one"),
        (vec![Issuer { issuer: String::new(), ..good() }], "issuer: must not be empty"),
        (
            vec![Issuer { audience: String::new(), ..good() }],
            "audience of https://id.example: must not be empty",
        ),
        (vec![good(), good()], "issuer https://id.example is configured twice"),
        (
            vec![Issuer { tenants: vec!["Acme".to_owned()], ..good() }],
            "tenant \"Acme\" of issuer https://id.example: must",
        ),
        (
            vec![url("http://user:secret@id.example:81/jwks?secret")],
            "jwks http://id.example:81/jwks must be a URL with https",
        ),
        (
            vec![url("http://127.0.0.1.evil.example/jwks")],
            "jwks http://127.0.0.1.evil.example/jwks must be a URL with https",
        ),
        (vec![url("ftp://127.0.0.1/jwks")], "jwks ftp://127.0.0.1/jwks must be a URL with https"),
        (vec![url("file:///etc/jwks.json")], "jwks file:///etc/jwks.json must be a URL with https"),
    ] {
        let text = start_refused(settings(issuers)).await;
        assert!(text.starts_with(expected), "{text}");
    }
    assert!(matches!(
        Authenticator::jwt(settings(vec![good(), good()])).await.err(),
        Some(Error::IssuerTwice(name)) if name == ISSUER
    ));
}
