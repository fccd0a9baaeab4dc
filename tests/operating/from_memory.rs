//! Users are shown from memory where nothing changed them, and as they are where something did, by every process.

use serde_json::json;

use crate::{
    rollcall::{Client, Rollcall},
    site::Site,
};

/// What a process counted of its answers from memory.
async fn hits(process: &Rollcall) -> u64 {
    let text = Client::new(&process.ready.http, "acme").get("/metrics").await.expect(200).text;
    let line = text.lines().find_map(|line| line.strip_prefix("rollcall_profile_cache_hits_total "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn what_is_shown_from_memory_is_never_older_than_a_token_at_any_query_api() {
    let site = Site::migrated().await;
    let commands = site.start(&["command-api"], &[]);
    let projector = site.start(&["projector", "profiles"], &[]);
    let queries = [site.start(&["query-api"], &[]), site.start(&["query-api"], &[])];
    let readers = [0, 1].map(|of| Client::new(&queries[of].ready.http, "acme"));
    let write = Client::new(&commands.ready.http, "acme");
    let created = write.create("ada@example.com").await.expect(201);
    let path = format!("/api/v1/users/{}", created.id());
    for round in 0..30 {
        let name = format!("Ada {round}");
        let patched = write.patch(&path, json!({"given_name": name})).await.expect(200);
        for reader in &readers {
            let user = reader.get_after(&path, patched.token()).await.expect(200);
            assert_eq!(user.json()["given_name"], name);
            // Who has seen it does not lose it again, token or no token.
            for _ in 0..5 {
                let again = reader.get(&path).await.expect(200);
                assert_eq!(again.json()["given_name"], name);
                assert_eq!(again.header("etag"), user.header("etag"));
            }
        }
    }
    for process in &queries {
        assert!(hits(process).await > 0, "nothing was ever shown from memory");
    }
    drop((commands, projector, queries));
    site.stop().await;
}
