//! What is refused, and with which words.

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::{LEEWAY_S, NOW, Signer, ask, ask_at, claims, claims_with, refused, signer::message, verifier};
use crate::principal::{Scope, Scopes};

#[tokio::test]
async fn a_token_of_each_algorithm_says_who_calls() {
    for signer in [Signer::ed25519("a"), Signer::es256("a"), Signer::rs256("a")] {
        let verifier = verifier(&[&signer]).await;
        let principal = ask(&verifier, &signer.token(&claims())).await.unwrap();
        assert_eq!((principal.tenant.as_str(), principal.subject.as_str()), ("acme", "svc:crm"));
        assert_eq!(principal.scopes, Scopes::from_iter([Scope::UsersRead, Scope::UsersWrite]));
    }
}

#[tokio::test]
async fn a_token_that_is_cut_or_of_another_form_is_refused() {
    let signer = Signer::ed25519("a");
    let verifier = verifier(&[&signer]).await;
    let good = signer.token(&claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    let payload_of = |payload: &str| signer.sign(&signer.header(), payload);
    for bad in [
        "x".to_owned(),
        "..".to_owned(),
        message.to_owned(),
        format!("{message}."),
        format!("{good}."),
        format!("{good}.x"),
        format!(".{payload}.{signature}"),
        format!("{header}..{signature}"),
        format!("{header}={}.{signature}", payload),
        payload_of("[]"),
        payload_of("null"),
        payload_of(r#"["https://id.example"]"#),
        payload_of(&claims().to_string().replacen('{', r#"{"sub":"other","#, 1)),
        payload_of(&format!("{} {{}}", claims())),
        signer.sign(&json!(["EdDSA", "a"]), &claims().to_string()),
        signer.sign(&json!({"alg": "EdDSA", "kid": 1}), &claims().to_string()),
        signer.sign(&json!({"kid": "a"}), &claims().to_string()),
    ] {
        let (status, detail) = refused(ask(&verifier, &bad).await);
        let known = detail.contains("not a signed JWT") || detail.contains("signature");
        assert!(status == 401 && known, "{bad}: {detail}");
    }
}

#[tokio::test]
async fn the_algorithm_is_the_keys_own() {
    let (ed, rsa) = (Signer::ed25519("ed"), Signer::rs256("rsa"));
    let verifier = verifier(&[&ed, &rsa]).await;
    let claims = claims().to_string();
    let unsigned = |alg: &str, kid: &str| message(&json!({"alg": alg, "kid": kid}), &claims);
    let mut bad = Vec::new();
    for none in ["none", "None", "NONE", "nOnE", ""] {
        bad.push(format!("{}.", unsigned(none, "ed")));
        bad.push(format!("{}.AAAA", unsigned(none, "ed")));
    }
    // The published key as the secret of a symmetric algorithm, in the forms that libraries have fallen for.
    let jwk = ed.jwk();
    let published = jwk["x"].as_str().unwrap();
    for secret in [published.as_bytes(), jwk.to_string().as_bytes()] {
        for (name, algorithm) in [("HS256", Algorithm::HS256), ("HS512", Algorithm::HS512)] {
            let message = unsigned(name, "ed");
            let key = EncodingKey::from_secret(secret);
            let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
            bad.push(format!("{message}.{signature}"));
        }
    }
    // A right signature under another algorithm's name, and another key's under the right name.
    bad.push(ed.sign(&json!({"alg": "RS256", "kid": "ed"}), &claims));
    bad.push(ed.sign(&json!({"alg": "ES256", "kid": "ed"}), &claims));
    bad.push(rsa.sign(&json!({"alg": "RS512", "kid": "rsa"}), &claims));
    bad.push(rsa.sign(&json!({"alg": "EdDSA", "kid": "rsa"}), &claims));
    for token in bad {
        assert_eq!(
            refused(ask(&verifier, &token).await),
            (
                401,
                "the token names an algorithm that is not its key's; EdDSA, ES256 and RS256 are taken"
                    .to_owned()
            )
        );
    }
    for (signer, kid) in [(&ed, "rsa"), (&rsa, "ed")] {
        let header = json!({"alg": signer.header()["alg"], "kid": kid});
        assert_eq!(refused(ask(&verifier, &signer.sign(&header, &claims)).await).0, 401);
    }
}

#[tokio::test]
async fn a_token_does_not_bring_its_key() {
    let (known, foreign) = (Signer::ed25519("a"), Signer::ed25519("a"));
    let verifier = verifier(&[&known]).await;
    for (name, value) in [
        ("jwk", foreign.jwk()),
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("x5c", json!(["MIIB"])),
    ] {
        let mut header = foreign.header();
        header[name] = value;
        let forged = foreign.sign(&header, &claims().to_string());
        let (status, detail) = refused(ask(&verifier, &forged).await);
        assert!(status == 401 && detail.contains("signature"), "{name}: {detail}");
        // What the issuer itself adds there is passed over.
        let own = known.sign(&header, &claims().to_string());
        ask(&verifier, &own).await.unwrap();
    }
}

#[tokio::test]
async fn critical_extensions_are_refused() {
    let signer = Signer::ed25519("a");
    let verifier = verifier(&[&signer]).await;
    for crit in [json!(["b64"]), json!(["exp"]), json!([]), Value::Null] {
        let mut header = signer.header();
        header["crit"] = crit;
        let (status, detail) = refused(ask(&verifier, &signer.sign(&header, &claims().to_string())).await);
        assert!(status == 401 && detail.contains("crit"), "{detail}");
    }
}

#[tokio::test]
async fn a_token_for_another_use_is_refused() {
    let signer = Signer::ed25519("a");
    let verifier = verifier(&[&signer]).await;
    let with_typ = |typ: Value| {
        let mut header = signer.header();
        header["typ"] = typ;
        signer.sign(&header, &claims().to_string())
    };
    let taken =
        ["JWT", "jwt", "at+jwt", "AT+JWT", "application/jwt", "application/at+jwt", "Application/At+Jwt"];
    for typ in taken.map(Value::from).into_iter().chain([Value::Null]) {
        assert!(ask(&verifier, &with_typ(typ.clone())).await.is_ok(), "{typ}");
    }
    let untyped = signer.sign(&json!({"alg": "EdDSA", "kid": "a"}), &claims().to_string());
    ask(&verifier, &untyped).await.unwrap();
    for typ in [
        "logout+jwt",
        "application/logout+jwt",
        "dpop+jwt",
        "secevent+jwt",
        "JOSE",
        "",
        "application/",
        "application/application/jwt",
        "text/jwt",
        "jwt ",
        "at+jwt+x",
        "äpplication/jwt",
    ] {
        let (status, detail) = refused(ask(&verifier, &with_typ(typ.into())).await);
        assert!(status == 401 && detail.contains("type (typ)"), "{typ}: {detail}");
    }
    for typ in [json!(1), json!(["JWT"])] {
        let (status, detail) = refused(ask(&verifier, &with_typ(typ.clone())).await);
        assert!(status == 401 && detail.contains("header cannot be read"), "{typ}: {detail}");
    }
}

#[tokio::test]
async fn a_key_may_be_left_unnamed_where_there_is_one() {
    let (one, other) = (Signer::ed25519("a"), Signer::ed25519("b"));
    let unnamed = one.sign(&json!({"alg": "EdDSA"}), &claims().to_string());
    ask(&verifier(&[&one]).await, &unnamed).await.unwrap();
    let (status, detail) = refused(ask(&verifier(&[&one, &other]).await, &unnamed).await);
    assert!(status == 401 && detail.contains("several"), "{detail}");
    let unknown = one.sign(&json!({"alg": "EdDSA", "kid": "c"}), &claims().to_string());
    let (status, detail) = refused(ask(&verifier(&[&one]).await, &unknown).await);
    assert!(status == 401 && detail.contains("kid"), "{detail}");
}

#[tokio::test]
async fn each_claim_is_checked_and_named() {
    let signer = Signer::ed25519("a");
    let verifier = verifier(&[&signer]).await;
    for (claim, value, words) in [
        ("iss", json!("https://evil.example"), "issuer"),
        ("iss", json!("https://id.example/"), "issuer"),
        ("iss", json!(["https://id.example"]), "issuer"),
        ("iss", Value::Null, "issuer"),
        ("aud", json!("other"), "audience"),
        ("aud", json!(["other"]), "audience"),
        ("aud", json!([]), "audience"),
        ("aud", json!("rollcall "), "audience"),
        ("aud", Value::Null, "audience"),
        ("exp", json!(NOW - 3600), "expired at 2027-01-15T07:00:00Z"),
        ("exp", Value::Null, "exp of the token is missing"),
        ("exp", json!("2030-01-01"), "exp of the token must be a number of seconds"),
        ("exp", json!(NOW.to_string()), "exp of the token must be a number of seconds"),
        ("exp", json!(NOW * 1000), "exp of the token must be a number of seconds"),
        ("exp", json!(-1), "exp of the token must be a number of seconds"),
        ("nbf", json!(NOW + 3600), "not valid before 2027-01-15T09:00:00Z"),
        ("nbf", json!("now"), "nbf of the token must be a number of seconds"),
        ("tenant", Value::Null, "tenant of the token is missing"),
        ("tenant", json!("Acme"), "tenant of the token must be 1 to 63"),
        ("tenant", json!(7), "tenant of the token must be a text"),
        ("sub", Value::Null, "sub of the token is missing"),
        ("sub", json!("ada@example.com"), "opaque id"),
        ("sub", json!(""), "sub of the token must be 1 to 128"),
        ("scope", json!(["users:read"]), "scope of the token must be a text"),
    ] {
        let token = signer.token(&claims_with(claim, value.clone()));
        let (status, detail) = refused(ask(&verifier, &token).await);
        assert!(status == 401 && detail.contains(words), "{claim} {value}: {detail}");
    }
    for (claim, value) in [
        ("aud", json!(["other", "rollcall"])),
        ("exp", json!(NOW as f64 + 0.5)),
        ("nbf", Value::Null),
        ("iat", Value::Null),
        ("iat", json!(NOW + 3600)),
        ("scope", Value::Null),
    ] {
        let token = signer.token(&claims_with(claim, value.clone()));
        assert!(ask(&verifier, &token).await.is_ok(), "{claim} {value}");
    }
    let without = ask(&verifier, &signer.token(&claims_with("scope", Value::Null))).await.unwrap();
    assert_eq!(without.scopes, Scopes::default());
}

#[tokio::test]
async fn the_leeway_holds_on_both_ends_to_the_second() {
    let signer = Signer::ed25519("a");
    let verifier = verifier(&[&signer]).await;
    let (exp, nbf) = (NOW + 100, NOW - 100);
    let mut claims = claims_with("exp", exp);
    claims["nbf"] = nbf.into();
    let token = signer.token(&claims);
    // Remembered or not, it is the same.
    for _ in 0..2 {
        for (now, counts) in [
            (nbf - LEEWAY_S - 1, false),
            (nbf - LEEWAY_S, true),
            (exp + LEEWAY_S - 1, true),
            (exp + LEEWAY_S, false),
        ] {
            assert_eq!(ask_at(&verifier, &token, now).await.is_ok(), counts, "{}", now - NOW);
        }
    }
    let fraction = signer.token(&claims_with("nbf", NOW as f64 + LEEWAY_S as f64 + 0.5));
    assert!(ask(&verifier, &fraction).await.is_err());
}
