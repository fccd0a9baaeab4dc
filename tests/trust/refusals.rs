//! Every operation refuses everybody who may not, in every way.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use rollcall_edge::principal::Scope;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    operations::{Operation, operations},
    rollcall::Answer,
    service::{AUDIENCE, ISSUER, Service, claims, claims_with, now, scopes},
    signer::{Signer, message},
};

/// What is sent as Authorization, and what the answer must say is wrong with it.
struct Bad {
    name: &'static str,
    authorization: Option<String>,
    words: &'static str,
}

fn bearer(name: &'static str, token: &str, words: &'static str) -> Bad {
    Bad { name, authorization: Some(format!("Bearer {token}")), words }
}

fn bad_tokens() -> Vec<Bad> {
    let Service { signer, of_globex, .. } = Service::shared();
    let foreign = Signer::ed25519("main");
    let good = claims("acme").to_string();
    let unsigned = |alg: &str| message(&json!({"alg": alg, "kid": "main"}), &good);
    let published = signer.jwk();
    let with_public_key = |secret: &[u8]| {
        let message = unsigned("HS256");
        let key = EncodingKey::from_secret(secret);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{message}.{signature}")
    };
    let public_key = URL_SAFE_NO_PAD.decode(published["x"].as_str().unwrap()).unwrap();
    let injected = |name: &str, value: Value| {
        let mut header = foreign.header();
        header[name] = value;
        foreign.sign(&header, &good)
    };
    let for_logout = {
        let mut header = signer.header();
        header["typ"] = "logout+jwt".into();
        signer.sign(&header, &good)
    };
    let unknown = "kid) is not among";
    let mut cut = signer.token(&claims("acme"));
    cut.truncate(cut.len() - 10);
    vec![
        Bad { name: "no token", authorization: None, words: "" },
        Bad { name: "another scheme", authorization: Some("Basic YWRhOmFkYQ==".to_owned()), words: "" },
        bearer("no JWT", "token", "not a signed JWT"),
        bearer("a cut signature", &cut, "signature"),
        bearer("for another use", &for_logout, "type (typ)"),
        bearer("expired", &signer.token(&claims_with("exp", now() - 60)), "expired at 20"),
        bearer("not yet valid", &signer.token(&claims_with("nbf", now() + 60)), "not valid before 20"),
        bearer("without exp", &signer.token(&claims_with("exp", Value::Null)), "exp of the token is missing"),
        bearer("wrong issuer", &signer.token(&claims_with("iss", "https://evil.example")), "issuer"),
        bearer("another issuer's key", &of_globex.token(&claims("globex")), unknown),
        bearer("wrong audience", &signer.token(&claims_with("aud", "https://other.example")), "audience"),
        bearer(
            "no tenant",
            &signer.token(&claims_with("tenant", Value::Null)),
            "tenant of the token is missing",
        ),
        bearer("alg none", &format!("{}.", unsigned("none")), "algorithm"),
        bearer("HS256 with the public key", &with_public_key(&public_key), "algorithm"),
        bearer("HS256 with the JWK", &with_public_key(published.to_string().as_bytes()), "algorithm"),
        bearer("unknown kid", &Signer::ed25519("stranger").token(&claims("acme")), unknown),
        bearer("another key of that kid", &foreign.token(&claims("acme")), "signature"),
        bearer("injected jwk", &injected("jwk", foreign.jwk()), "signature"),
        bearer("injected jku", &injected("jku", json!("http://127.0.0.1:1/jwks.json")), "signature"),
        bearer("20 kilobytes", &"a".repeat(20 * 1024), "8 KiB"),
    ]
}

async fn ask(operation: &Operation, headers: &[(&str, &str)]) -> Answer {
    Service::shared().ask(&operation.method, &operation.path, headers, operation.body.as_ref()).await
}

async fn ask_with(operation: &Operation, token: &str) -> Answer {
    ask(operation, &[("Authorization", &format!("Bearer {token}"))]).await
}

#[tokio::test]
async fn every_operation_refuses_every_bad_token() {
    let bad_tokens = bad_tokens();
    for operation in operations().await {
        for Bad { name, authorization, words } in &bad_tokens {
            let what = format!("{name}: {}", operation.name());
            let headers: Vec<_> =
                authorization.iter().map(|value| ("Authorization", value.as_str())).collect();
            let answer = ask(&operation, &headers).await;
            assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"), "{what}");
            let challenge = answer.header("www-authenticate").unwrap();
            if words.is_empty() {
                assert_eq!(challenge, r#"Bearer realm="rollcall""#, "{what}");
                continue;
            }
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains(words), "{what}: {detail}");
            assert_eq!(
                challenge,
                format!(r#"Bearer realm="rollcall", error="invalid_token", error_description="{detail}""#)
            );
            let token = authorization.as_ref().unwrap().split_once(' ').unwrap().1;
            assert!(token.split('.').all(|part| part.len() < 8 || !answer.text.contains(part)), "{what}");
        }
    }
}

#[tokio::test]
async fn every_operation_needs_its_scope_and_no_other() {
    let signer = &Service::shared().signer;
    let all = Scope::ALL.map(Scope::as_str);
    for operation in operations().await {
        let name = operation.name();
        for needed in &operation.scopes {
            assert!(all.contains(&needed.as_str()), "{name}: {needed}");
            let others = scopes(all.into_iter().filter(|scope| scope != needed));
            let answer = ask_with(&operation, &signer.token(&claims_with("scope", others))).await;
            assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{name}");
            assert_eq!(
                answer.header("www-authenticate").unwrap(),
                format!(r#"Bearer realm="rollcall", error="insufficient_scope", scope="{needed}""#),
                "{name}"
            );
        }
        let none = ask_with(&operation, &signer.token(&claims_with("scope", ""))).await;
        assert_eq!(none.status, 403, "{name}");
        let exactly = scopes(operation.scopes.iter().map(String::as_str));
        let answer = ask_with(&operation, &signer.token(&claims_with("scope", exactly))).await;
        // Nobody is at the path that was made up, and otherwise the request is in order.
        assert!(matches!(answer.status, 200 | 201 | 404 | 409 | 422), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn every_operation_refuses_headers_that_name_another_than_the_token() {
    let token = format!("Bearer {}", Service::shared().token("acme"));
    for operation in operations().await {
        for (name, value, detail) in [
            ("Tenant", "globex", "the header Tenant names another tenant than the token: leave it out"),
            ("Actor", "svc:other", "the header Actor names another subject than the token: leave it out"),
        ] {
            let answer = ask(&operation, &[("Authorization", &token), (name, value)]).await;
            assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{}", operation.name());
            assert_eq!(answer.json()["detail"], detail, "{}", operation.name());
        }
        let agreeing = [("Authorization", token.as_str()), ("Tenant", "acme"), ("Actor", "svc:test")];
        let answer = ask(&operation, &agreeing).await;
        assert!(!matches!(answer.status, 400 | 401 | 403), "{}: {answer:?}", operation.name());
    }
}

/// The status of the answer to a head that is sent as it is; the server may stop reading before its end.
async fn status_of(head: String) -> String {
    let stream = TcpStream::connect(Service::shared().address()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let send = async { drop(write.write_all(head.as_bytes()).await) };
    let receive = async {
        let mut status = vec![0; "HTTP/1.1 431".len()];
        read.read_exact(&mut status).await.expect("an answer");
        String::from_utf8(status).unwrap()
    };
    tokio::join!(send, receive).1
}

#[tokio::test]
async fn every_operation_refuses_a_megabyte_of_token() {
    let token = "a".repeat(1024 * 1024);
    for operation in operations().await {
        let head = format!(
            "{} {} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n",
            operation.method, operation.path
        );
        let status = status_of(head).await;
        assert!(status == "HTTP/1.1 431" || status == "HTTP/1.1 401", "{}: {status}", operation.name());
    }
    let answer =
        Service::shared().ask_with(&Service::shared().token("acme"), "GET", "/api/v1/users", None).await;
    answer.expect(200);
}

#[tokio::test]
async fn what_is_refused_is_counted_by_reason() {
    let service = Service::shared();
    let expired = service.signer.token(&claims_with("exp", now() - 60));
    let good = service.token("acme");
    for token in [&expired, &good, &good] {
        service.ask_with(token, "GET", "/api/v1/users", None).await;
    }
    let metrics = service.ask("GET", "/metrics", &[], None).await.expect(200).text;
    for line in [
        r#"rollcall_auth_refusals_total{reason="expired"}"#,
        "rollcall_token_cache_hits_total ",
        "rollcall_token_cache_misses_total ",
        r#"rollcall_jwks_refreshes_total{outcome="changed"}"#,
    ] {
        assert!(metrics.lines().any(|counted| counted.starts_with(line)), "{line} is not in\n{metrics}");
    }
    for told in [ISSUER, AUDIENCE, "svc:test", "acme"] {
        assert!(!metrics.contains(told), "{told} is in\n{metrics}");
    }
}
