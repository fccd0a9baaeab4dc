//! Keys that come and go, and servers that are away.

use std::time::Duration;

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use tokio::{net::TcpListener, time::timeout};

use super::{
    Issuer, Signer, Source, Verifier, ask, claims, claims_with, file, issuer, refused, server::Server,
    settings, signer::set,
};
use crate::auth::jwt::keeper::{REFETCH_EVERY, REFETCH_WITHIN, WAITING_MAX};

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1_500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} did not happen");
}

#[tokio::test]
async fn a_herd_with_a_new_key_fetches_once() {
    let (old, new) = (Signer::ed25519("old"), Signer::ed25519("new"));
    let server = Server::start(&set(&[&old])).await;
    let verifier = Verifier::start(settings(vec![issuer(server.source())])).await.unwrap();
    let (of_old, of_new) = (old.token(&claims()), new.token(&claims()));
    ask(&verifier, &of_old).await.unwrap();
    server.answer(200, set(&[&new]));
    let answers = join_all((0..WAITING_MAX).map(|_| ask(&verifier, &of_new))).await;
    assert!(answers.iter().all(Result::is_ok), "{:?}", answers.iter().find(|answer| answer.is_err()));
    assert_eq!(server.asked(), 2);
    // It was remembered, but the key is gone.
    let (status, detail) = refused(ask(&verifier, &of_old).await);
    assert!(status == 401 && detail.contains("kid"), "{detail}");
}

#[tokio::test]
async fn unknown_keys_cause_one_fetch_in_thirty_seconds() {
    let known = Signer::ed25519("known");
    let server = Server::start(&set(&[&known])).await;
    let verifier = Verifier::start(settings(vec![issuer(server.source())])).await.unwrap();
    let attack = async |name: &str| {
        let strangers: Vec<_> =
            (0..50).map(|i| Signer::ed25519(&format!("{name}{i}")).token(&claims())).collect();
        for answer in join_all(strangers.iter().map(|token| ask(&verifier, token))).await {
            assert_eq!(refused(answer).0, 401);
        }
    };
    attack("a").await;
    assert_eq!(server.asked(), 2);
    // Those who come too soon do not wait for a fetch that will not be.
    timeout(REFETCH_WITHIN / 2, attack("b")).await.expect("an answer at once");
    assert_eq!(server.asked(), 2);
    verifier.issuers[0].keeper.let_pass(REFETCH_EVERY);
    attack("c").await;
    assert_eq!(server.asked(), 3);
    ask(&verifier, &known.token(&claims())).await.unwrap();
}

#[tokio::test]
async fn those_who_wait_for_a_fetch_are_bounded() {
    const MORE: usize = 100;
    let (old, new) = (Signer::ed25519("old"), Signer::ed25519("new"));
    let server = Server::start(&set(&[&old])).await;
    let verifier = Verifier::start(settings(vec![issuer(server.source())])).await.unwrap();
    server.answer(200, set(&[&old, &new]));
    let held = server.hold().await;
    let of_new = new.token(&claims());
    let mut herd: FuturesUnordered<_> = (0..WAITING_MAX + MORE).map(|_| ask(&verifier, &of_new)).collect();
    let at_once = timeout(REFETCH_WITHIN / 2, herd.by_ref().take(MORE).collect::<Vec<_>>());
    for answer in at_once.await.expect("answers while the fetch is under way") {
        assert_eq!(refused(answer).0, 401);
    }
    // Whoever is known is not kept waiting by them.
    ask(&verifier, &old.token(&claims())).await.unwrap();
    drop(held);
    let waited: Vec<_> = herd.collect().await;
    assert_eq!(waited.len(), WAITING_MAX);
    assert!(waited.iter().all(Result::is_ok), "{:?}", waited.iter().find(|answer| answer.is_err()));
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn tokens_that_can_never_verify_cause_no_fetch() {
    let known = Signer::ed25519("known");
    let server = Server::start(&set(&[&known])).await;
    let verifier = Verifier::start(settings(vec![issuer(server.source())])).await.unwrap();
    let stranger = Signer::ed25519("stranger");
    let foreign = stranger.token(&claims_with("iss", "https://evil.example"));
    let none = stranger.sign(&serde_json::json!({"alg": "none", "kid": "x"}), &claims().to_string());
    for token in [foreign, none] {
        assert_eq!(refused(ask(&verifier, &token).await).0, 401);
    }
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn keys_stay_while_their_server_fails() {
    let known = Signer::ed25519("known");
    let server = Server::start(&set(&[&known])).await;
    let verifier = Verifier::start(settings(vec![issuer(server.source())])).await.unwrap();
    let stranger = Signer::ed25519("stranger");
    let theirs = set(&[&stranger]).to_string();
    let stranger = stranger.token(&claims());
    for (status, body) in [
        (500, theirs.clone()),
        (302, theirs.clone()),
        (200, "<html>".to_owned()),
        (200, theirs.replace("]}", r#",{"kty":"oct","k":"AAAA"}]}"#)),
        (200, format!("{}{theirs}", " ".repeat(1024 * 1024))),
    ] {
        let asked = server.asked();
        server.answer(status, body);
        verifier.issuers[0].keeper.let_pass(REFETCH_EVERY);
        assert_eq!(refused(ask(&verifier, &stranger).await).0, 401);
        assert!(server.asked() > asked, "{status}");
        ask(&verifier, &known.token(&claims_with("sub", format!("s{asked}")))).await.unwrap();
    }
    assert!(verifier.keys_ready());
}

#[tokio::test]
async fn a_start_without_the_server_goes_on_and_is_ready_later() {
    let known = Signer::ed25519("known");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let source = Source::Url(format!("http://{address}/jwks.json").parse().unwrap());
    let verifier = Verifier::start(settings(vec![issuer(source)])).await.unwrap();
    assert!(!verifier.keys_ready());
    assert_eq!(verifier.issuers_without_keys().len(), 1);
    let problem = ask(&verifier, &known.token(&claims())).await.unwrap_err();
    assert_eq!((problem.status.as_u16(), problem.retry_after_s), (503, Some(2)));
    let server = Server::start_on(TcpListener::bind(address).await.unwrap(), &set(&[&known])).await;
    eventually("readiness", async || verifier.keys_ready()).await;
    ask(&verifier, &known.token(&claims())).await.unwrap();
    assert!(server.asked() > 0);
}

#[tokio::test]
async fn an_issuer_that_is_away_takes_no_other_along() {
    let (here, away) = (Signer::ed25519("here"), Signer::ed25519("away"));
    let (_held, source) = file(&set(&[&here]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let elsewhere = Issuer {
        issuer: "https://away.example".to_owned(),
        ..issuer(Source::Url(format!("http://{address}/jwks.json").parse().unwrap()))
    };
    let verifier = Verifier::start(settings(vec![issuer(source), elsewhere])).await.unwrap();
    let of_away = away.token(&claims_with("iss", "https://away.example"));
    assert!(verifier.keys_ready());
    assert_eq!(verifier.issuers_without_keys().len(), 1);
    ask(&verifier, &here.token(&claims())).await.unwrap();
    assert_eq!(refused(ask(&verifier, &of_away).await).0, 503);
    let _server = Server::start_on(TcpListener::bind(address).await.unwrap(), &set(&[&away])).await;
    eventually("the other's keys", async || verifier.issuers_without_keys().is_empty()).await;
    ask(&verifier, &of_away).await.unwrap();
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changed_and_kept_when_it_is_spoilt() {
    let (old, new) = (Signer::ed25519("old"), Signer::es256("new"));
    let (held, source) = file(&set(&[&old]));
    let verifier = Verifier::start(settings(vec![issuer(source)])).await.unwrap();
    let (of_old, of_new) = (old.token(&claims()), new.token(&claims()));
    ask(&verifier, &of_old).await.unwrap();
    assert_eq!(refused(ask(&verifier, &of_new).await).0, 401);

    std::fs::write(held.path(), set(&[&new]).to_string()).unwrap();
    eventually("the new key", async || ask(&verifier, &of_new).await.is_ok()).await;
    assert_eq!(refused(ask(&verifier, &of_old).await).0, 401);

    std::fs::write(held.path(), "{").unwrap();
    assert_eq!(refused(ask(&verifier, &of_old).await).0, 401);
    ask(&verifier, &of_new).await.unwrap();
    std::fs::write(held.path(), set(&[&old]).to_string()).unwrap();
    eventually("the old key", async || ask(&verifier, &of_old).await.is_ok()).await;
}

#[tokio::test]
async fn the_task_that_keeps_keys_ends_with_the_verifier() {
    let (_held, source) = file(&set(&[&Signer::ed25519("a")]));
    let verifier = Verifier::start(settings(vec![issuer(source)])).await.unwrap();
    let keeper = std::sync::Arc::downgrade(&verifier.issuers[0].keeper);
    drop(verifier);
    eventually("the end of the task", async || keeper.strong_count() == 0).await;
}
