//! Restarting one process after the other, while clients go on: no request fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;

use crate::{
    balancer::{ASKS_EVERY, Balancer},
    rollcall::{Client, Rollcall},
    site::Site,
};

const CLIENTS: usize = 8;

/// Longer than the balancer takes to notice.
const NOTICE: [(&str, &str); 1] = [("ROLLCALL_SHUTDOWN_NOTICE_S", "1")];

#[tokio::test]
async fn restarting_each_role_under_load_fails_no_request() {
    assert!(ASKS_EVERY * 3 < Duration::from_secs(1));
    let site = Site::migrated().await;
    let (commands, write_url) = Balancer::start().await;
    let (queries, read_url) = Balancer::start().await;
    let mut command_apis = vec![site.start(&["command-api"], &NOTICE), site.start(&["command-api"], &NOTICE)];
    let mut query_apis = vec![site.start(&["query-api"], &NOTICE), site.start(&["query-api"], &NOTICE)];
    let mut projectors = vec![site.start(&["projector"], &NOTICE)];
    for api in &command_apis {
        commands.join(&api.ready.http).await;
    }
    for api in &query_apis {
        queries.join(&api.ready.http).await;
    }

    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (write, read) = (Client::new(&write_url, "acme"), Client::new(&read_url, "acme"));
            tokio::spawn(work(client, write, read, Arc::clone(&stop), Arc::clone(&done)))
        })
        .collect();

    // The new one first, then the old one goes: what an orchestrator does.
    for _ in 0..2 {
        let new = site.start(&["command-api"], &NOTICE);
        commands.join(&new.ready.http).await;
        replace(&mut command_apis, new).await;
        let new = site.start(&["query-api"], &NOTICE);
        queries.join(&new.ready.http).await;
        replace(&mut query_apis, new).await;
        let new = site.start(&["projector"], &NOTICE);
        replace(&mut projectors, new).await;
    }
    let before = done.load(Ordering::Relaxed);
    while done.load(Ordering::Relaxed) < before + 50 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    site.stop().await;
}

/// The oldest goes, as by an orchestrator: SIGTERM, and it ends well.
async fn replace(roles: &mut Vec<Rollcall>, new: Rollcall) {
    let mut old = roles.remove(0);
    roles.push(new);
    let old = tokio::task::spawn_blocking(move || {
        let (status, took) = old.stop();
        assert!(status.success(), "{status}: {}", old.logged());
        assert!(took >= Duration::from_secs(1), "readiness goes first: {took:?}");
        old
    });
    drop(old.await.unwrap());
}

/// Creates, reads what it created, changes it, reads that; panics at the first answer that is not as it must be.
pub async fn work(client: usize, write: Client, read: Client, stop: Arc<AtomicBool>, done: Arc<AtomicUsize>) {
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let created = write.create(&format!("user-{client}-{round}@example.com")).await.expect(201);
        let path = format!("/api/v1/users/{}", created.id());
        read.get_after(&path, created.token()).await.expect(200);
        let patched = write.patch(&path, json!({"given_name": "Grace"})).await.expect(200);
        let user = read.get_after(&path, patched.token()).await.expect(200).json();
        assert_eq!(user["given_name"], "Grace");
        done.fetch_add(4, Ordering::Relaxed);
    }
}
