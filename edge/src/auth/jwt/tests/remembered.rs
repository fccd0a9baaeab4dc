//! Tokens that come again.

use super::{NOW, Signer, ask, ask_at, claims, claims_with, verifier};

#[tokio::test]
async fn only_what_was_verified_is_remembered() {
    let signer = Signer::ed25519("a");
    let verifier = verifier(&[&signer]).await;
    let good = signer.token(&claims());
    let expired = signer.token(&claims_with("exp", NOW - 3600));
    let forged = format!("{}AAAA", &good[..good.len() - 4]);
    for token in [&good, &expired, &forged] {
        let remembered = ask(&verifier, token).await.is_ok();
        assert_eq!(remembered, token == &good);
        assert_eq!(verifier.remembered(token, NOW).is_some(), remembered);
    }
}

#[tokio::test]
async fn a_remembered_token_expires_all_the_same() {
    let signer = Signer::ed25519("a");
    let verifier = verifier(&[&signer]).await;
    let token = signer.token(&claims());
    let first = ask(&verifier, &token).await.unwrap();
    assert_eq!(ask(&verifier, &token).await, Ok(first));
    let problem = ask_at(&verifier, &token, NOW + 600 + super::LEEWAY_S).await.unwrap_err();
    assert!(problem.detail.contains("expired"), "{}", problem.detail);
}

#[tokio::test]
async fn a_token_is_remembered_for_a_minute_and_by_the_verifier_that_verified_it() {
    let signer = Signer::ed25519("a");
    let (verifier, another) = (verifier(&[&signer]).await, verifier(&[&signer]).await);
    let token = signer.token(&claims());
    ask(&verifier, &token).await.unwrap();
    assert!(verifier.remembered(&token, NOW + 59).is_some());
    assert!(verifier.remembered(&token, NOW + 60).is_none());
    assert!(another.remembered(&token, NOW).is_none());
}
