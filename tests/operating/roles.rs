//! Each role does its part, and only its part.

use futures_util::StreamExt;
use serde_json::json;

use crate::{
    rollcall::{Client, Rollcall, eventually},
    site::Site,
};

#[tokio::test]
async fn the_roles_together_are_the_whole_service() {
    let site = Site::new().await;
    let service_url = site.migrate();
    assert!(!service_url.contains("postgres:") || service_url.contains("rollcall_service"), "{service_url}");
    // The services get the URL that migrate told: no owner's rights, no password.
    let own = [("DATABASE_URL", service_url.as_str())];
    let mut commands = site.start(&["command-api"], &own);
    let mut queries = site.start(&["query-api"], &own);
    let mut profiles = site.start(&["projector", "profiles"], &own);
    let mut rest = site.start(&["projector", "audit", "publisher"], &own);
    let (write, read) = (Client::new(&commands.ready.http, "acme"), Client::new(&queries.ready.http, "acme"));

    let created = write.create("ada@example.com").await.expect(201);
    let (id, token) = (created.id(), created.token().to_owned());
    let path = format!("/api/v1/users/{id}");
    let user = read.get_after(&path, &token).await.expect(200).json();
    assert_eq!(user["email"], "ada@example.com");
    for n in 0..20 {
        let patched = write.patch(&path, json!({"given_name": format!("Ada {n}")})).await.expect(200);
        let user = read.get_after(&path, patched.token()).await.expect(200).json();
        assert_eq!(user["given_name"], format!("Ada {n}"), "a query sees what its token saw");
    }
    let audit = read.get_after("/api/v1/audit", &token).await.expect(200).json();
    assert!(!audit["items"].as_array().unwrap().is_empty());

    let client = async_nats::ConnectOptions::new().connect(without_user(site.nats_url())).await.unwrap();
    let stream = async_nats::jetstream::new(client).get_stream("ROLLCALL").await.unwrap();
    let consumer = stream
        .create_consumer(async_nats::jetstream::consumer::pull::OrderedConfig::default())
        .await
        .unwrap();
    let mut messages = consumer.messages().await.unwrap();
    let first = messages.next().await.unwrap().unwrap();
    assert!(first.subject.starts_with("rollcall.events.acme.user.UserCreated."), "{}", first.subject);

    // Each has its own routes and no other's.
    write.get(&path).await.expect(405);
    assert_eq!(read.create("grace@example.com").await.status, 405);
    for role in [&commands, &queries, &profiles, &rest] {
        let health = Client::new(&role.ready.http, "acme");
        health.get("/livez").await.expect(200);
        assert_eq!(health.get("/readyz").await.expect(200).json()["status"], "ready", "{}", role.ready.http);
        assert!(health.get("/metrics").await.expect(200).text.contains("rollcall_build_info"));
    }
    let lag = eventually("the projections catch up", async || {
        let health = Client::new(&queries.ready.http, "acme").get("/health/detailed").await.json();
        (health["projections"]["profiles"]["lag_events"] == 0).then_some(health)
    })
    .await;
    assert!(lag["projections"].get("publisher").is_none(), "{lag}");

    for role in [&mut commands, &mut queries, &mut profiles, &mut rest] {
        let (status, _) = role.stop();
        assert!(status.success(), "{status}: {}", role.logged());
    }
    site.stop().await;
}

fn without_user(url: &str) -> String {
    format!("nats://{}", url.rsplit_once('@').unwrap().1)
}

#[tokio::test]
async fn migrating_again_changes_nothing() {
    let site = Site::new().await;
    let first = site.migrate();
    assert_eq!(site.migrate(), first);
    site.stop().await;
}

#[tokio::test]
async fn a_role_that_cannot_start_says_what_to_do() {
    let site = Site::new().await;
    let refused = |role: &[&str], more: &[(&str, &str)], arguments: &[&str]| {
        let mut setup = site.setup(role, more);
        setup.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let directory = setup.directory.clone().unwrap();
        let (status, said) = Rollcall::refused(&setup, &directory);
        assert_eq!(status.code(), Some(1), "{said}");
        said
    };
    for role in ["command-api", "query-api", "projector"] {
        let said = refused(&[role], &[], &[]);
        assert!(said.contains("rollcall migrate"), "{role}: {said}");
    }
    site.migrate();
    let said = refused(&["command-api"], &[("DATABASE_URL", "")], &[]);
    assert!(said.contains("DATABASE_URL is set and empty"), "{said}");
    let said = refused(&["query-api"], &[("ROLLCALL_MASTER_KEY_FILE", "")], &[]);
    assert!(said.contains("master_key.file must be set"), "{said}");
    let said = refused(&["projector", "publisher"], &[("NATS_URL", "")], &[]);
    assert!(said.contains("NATS_URL is set and empty"), "{said}");
    let said = refused(&["command-api"], &[("ROLLCALL_HTTP", "0.0.0.0:0")], &["--http", "0.0.0.0:0"]);
    assert!(said.contains("refusing to listen") && said.contains("auth.mode"), "{said}");
    let said = refused(&["command-api"], &[("ROLLCALL_LIMITS_REQUESTS", "lots")], &[]);
    assert!(said.contains("limits.requests (from ROLLCALL_LIMITS_REQUESTS) must be a number"), "{said}");
    site.stop().await;
}

#[tokio::test]
async fn a_projector_alone_asks_nobody_who_they_are_and_may_listen_anywhere() {
    let site = Site::migrated().await;
    // The keys that the APIs need are no concern of it.
    let jwt = [
        ("ROLLCALL_AUTH_MODE", "jwt"),
        ("ROLLCALL_AUTH_ISSUER", "https://id.example"),
        ("ROLLCALL_AUTH_AUDIENCE", "rollcall"),
        ("ROLLCALL_AUTH_JWKS", "/nowhere"),
    ];
    let mut setup = site.setup(&["projector", "profiles"], &jwt);
    setup.arguments = vec!["--http".to_owned(), "0.0.0.0:0".to_owned()];
    let mut projector = Rollcall::start(setup);
    let client = Client::new(&projector.ready.http.replace("0.0.0.0", "127.0.0.1"), "acme");
    client.get("/api/v1/users").await.expect(404);
    assert_eq!(client.get("/health").await.expect(200).json()["checks"].get("nats"), None);
    assert!(projector.stop().0.success());
    site.stop().await;
}
