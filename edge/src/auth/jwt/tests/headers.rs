//! Where the token stands, and what headers beside it may say.

use super::{NOW, Signer, at, claims, refused, verifier};
use crate::testing::header_map;
use axum::response::IntoResponse;

#[tokio::test]
async fn the_scheme_is_of_any_case_and_the_token_stands_once() {
    let signer = Signer::ed25519("a");
    let verifier = verifier(&[&signer]).await;
    let token = signer.token(&claims());
    let ask = async |values: &[String]| {
        let headers: Vec<_> = values.iter().map(|value| ("authorization", value.as_str())).collect();
        verifier.authenticate(&header_map(&headers), at(NOW)).await
    };
    for scheme in ["Bearer", "bearer", "BEARER", "Bearer "] {
        assert!(ask(&[format!("{scheme} {token}")]).await.is_ok(), "{scheme}");
    }
    for (values, words) in [
        (vec![], "no bearer token"),
        (vec!["Basic YTpi".to_owned()], "no bearer token"),
        (vec![token.clone()], "no bearer token"),
        (vec![format!("Bearer{token}")], "no bearer token"),
        (vec!["Bearer".to_owned()], "must have a token"),
        (vec!["Bearer ".to_owned()], "must have a token"),
        (vec![format!("Bearer {token}"), format!("Bearer {token}")], "given once"),
        (vec![format!("Bearer {token} {token}")], "not a signed JWT"),
        (vec![format!("Bearer \u{e9}")], "ASCII"),
        (vec![format!("Bearer {}", "a".repeat(8 * 1024))], "not a signed JWT"),
        (vec![format!("Bearer {}", "a".repeat(8 * 1024 + 1))], "8 KiB"),
    ] {
        let (status, detail) = refused(ask(&values).await);
        assert!(status == 401 && detail.contains(words), "{detail}");
    }
}

#[tokio::test]
async fn a_401_says_what_to_send_and_what_is_wrong() {
    let signer = Signer::ed25519("a");
    let verifier = verifier(&[&signer]).await;
    let challenge = async |headers: &[(&str, &str)]| {
        let problem = verifier.authenticate(&header_map(headers), at(NOW)).await.unwrap_err();
        problem.into_response().headers()["www-authenticate"].to_str().unwrap().to_owned()
    };
    assert_eq!(challenge(&[]).await, r#"Bearer realm="rollcall""#);
    let token = signer.token(&super::claims_with("exp", NOW - 60));
    assert_eq!(
        challenge(&[("authorization", &format!("Bearer {token}"))]).await,
        r#"Bearer realm="rollcall", error="invalid_token", error_description="the token expired at 2027-01-15T07:59:00Z""#
    );
}

#[tokio::test]
async fn headers_may_only_agree_with_the_token() {
    let signer = Signer::ed25519("a");
    let verifier = verifier(&[&signer]).await;
    let token = format!("Bearer {}", signer.token(&claims()));
    let ask = async |name: &str, value: &str| {
        let headers = header_map(&[("authorization", &token), (name, value)]);
        verifier.authenticate(&headers, at(NOW)).await
    };
    for (name, value) in
        [("tenant", "acme"), ("actor", "svc:crm"), ("host", "rollcall.example"), ("origin", "x")]
    {
        assert!(ask(name, value).await.is_ok(), "{name}");
    }
    for (name, value, words) in [
        ("tenant", "globex", "Tenant names another tenant"),
        ("tenant", "", "Tenant names another tenant"),
        ("tenant", "Acme", "Tenant names another tenant"),
        ("actor", "svc:other", "Actor names another subject"),
    ] {
        let (status, detail) = refused(ask(name, value).await);
        assert!(status == 403 && detail.contains(words), "{detail}");
    }
}
