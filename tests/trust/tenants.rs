//! A token opens its tenant and no other.

use serde_json::json;

use crate::{
    operations::operations,
    service::{OF_GLOBEX, Service, claims, claims_with},
};

#[tokio::test]
async fn a_token_never_reaches_a_user_of_another_tenant() {
    let service = Service::shared();
    let (ours, theirs) = (service.token("ours"), service.token("theirs"));
    let ada = json!({"email": "ada@example.com", "given_name": "Ada"});
    let created = service.ask_with(&theirs, "POST", "/api/v1/users", Some(&ada)).await.expect(201);
    let path = format!("/api/v1/users/{}", created.id());
    let seen =
        [("Authorization", format!("Bearer {theirs}")), ("Consistency-Token", created.token().to_owned())];
    let seen = seen.each_ref().map(|(name, value)| (*name, value.as_str()));
    service.ask("GET", &path, &seen, None).await.expect(200);
    let mut asked = 0;
    for operation in operations().await.iter().filter(|operation| operation.template.contains("{id}")) {
        let path = operation.of_user(&created.id());
        assert!(path.contains(&created.id()), "{path}");
        let answer = service.ask_with(&ours, &operation.method, &path, operation.body.as_ref()).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not-found"), "{}", operation.name());
        asked += 1;
    }
    assert!(asked > 10);
    for path in ["/api/v1/users", "/api/v1/users?email=ada@example.com", "/api/v1/audit"] {
        let listed = service.ask_with(&ours, "GET", path, None).await.expect(200);
        assert_eq!(listed.json()["items"], json!([]), "{path}");
    }
    let unchanged = service.ask_with(&theirs, "PATCH", &path, Some(&json!({}))).await.expect(200);
    assert_eq!(unchanged.json()["version"], 1);
}

#[tokio::test]
async fn the_event_says_who_acted_by_the_token() {
    let service = Service::shared();
    let token = service.token("actors");
    let ada = json!({"email": "ada@example.com", "given_name": "Ada"});
    let created = service.ask_with(&token, "POST", "/api/v1/users", Some(&ada)).await.expect(201);
    let history = format!("/api/v1/users/{}/history", created.id());
    let history = service.ask_with(&token, "GET", &history, None).await.expect(200).json();
    assert_eq!(history["items"][0]["actor"], "svc:test");
}

#[tokio::test]
async fn an_issuer_with_tenants_speaks_for_no_other() {
    let service = Service::shared();
    let token_for = |tenant: &str| {
        let mut claims = claims(tenant);
        claims["iss"] = OF_GLOBEX.into();
        service.of_globex.token(&claims)
    };
    service.ask_with(&token_for("globex"), "GET", "/api/v1/users", None).await.expect(200);
    let refused = service.ask_with(&token_for("acme"), "GET", "/api/v1/users", None).await.expect(401);
    assert_eq!(
        refused.json()["detail"],
        "the issuer of the token may not speak for the tenant that it names"
    );
    // With one tenant its tokens need not name it.
    let mut unnamed = claims_with("tenant", serde_json::Value::Null);
    unnamed["iss"] = OF_GLOBEX.into();
    let ada = json!({"email": "unnamed@example.com", "given_name": "Ada"});
    let unnamed = service.of_globex.token(&unnamed);
    let created = service.ask_with(&unnamed, "POST", "/api/v1/users", Some(&ada)).await.expect(201);
    let path = format!("/api/v1/users/{}", created.id());
    let seen = [
        ("Authorization", format!("Bearer {}", service.token("globex"))),
        ("Consistency-Token", created.token().to_owned()),
    ];
    let seen = seen.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(service.ask("GET", &path, &seen, None).await.expect(200).json()["tenant"], "globex");
    // The other issuer's key under this one's name.
    let mut forged = claims("globex");
    forged["iss"] = OF_GLOBEX.into();
    service.ask_with(&service.signer.token(&forged), "GET", "/api/v1/users", None).await.expect(401);
}
