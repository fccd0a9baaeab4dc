//! Stops: of the whole service, and of PostgreSQL beneath it.

use std::time::{Duration, Instant};

use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::json;

use crate::{
    log::{Log, versions},
    processes, published,
    rollcall::{Rollcall, Setup, data_directory, eventually},
};

const STOPS_WITHIN: Duration = Duration::from_secs(10);

async fn a_stop_ends_all(signal: Signal) {
    let place = data_directory();
    let data = place.path().join("data");
    let setup = Setup { directory: Some(place.path().to_owned()), ..Setup::default() };
    let mut rollcall = Rollcall::start(setup.clone());
    let client = rollcall.client("default");
    let answer = client.create("ada@example.com").await.expect(201);
    let load = tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        for number in 0.. {
            let body = json!({"email": format!("user-{number}@example.com"), "given_name": "Ada"});
            let request = client.request("POST", "/api/v1/users").json(&body);
            match crate::rollcall::Client::send(request).await {
                Ok(answer) if answer.status == 201 => acknowledged.push(answer.id()),
                // A server that stops says so or says nothing.
                Ok(answer) => {
                    assert_eq!(answer.status, 503, "{answer:?}");
                    answer.code();
                    break;
                }
                Err(_) => break,
            }
        }
        acknowledged
    });
    tokio::time::sleep(Duration::from_millis(200)).await;

    let begun = Instant::now();
    processes::send(Pid::from_raw(rollcall.pid().cast_signed()), signal);
    let status = rollcall.wait();
    assert!(begun.elapsed() < STOPS_WITHIN, "{:?}", begun.elapsed());
    assert_eq!(status.code(), Some(0), "{}", rollcall.logged());
    let left = processes::of(&data, 0);
    assert!(left.is_empty(), "orphans: {left:?}");
    assert!(!place.path().join("ready.json").exists());

    let acknowledged = load.await.unwrap();
    assert!(!acknowledged.is_empty());
    let rollcall = Rollcall::start(setup);
    let path = format!("/api/v1/users/{}", answer.id());
    let again = rollcall.client("default").get_after(&path, answer.token()).await;
    assert_eq!(again.expect(200).json()["email"], "ada@example.com");
    let events = Log::open(&rollcall.ready.postgres).await.assert_sound().await;
    let stored = versions(&events);
    assert!(acknowledged.iter().all(|id| stored.get(id) == Some(&1)));
    published::assert_all(&rollcall.ready.nats, &events).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ends_everything_within_ten_seconds_and_the_next_start_has_the_data() {
    a_stop_ends_all(Signal::SIGTERM).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigint_ends_everything_within_ten_seconds_and_the_next_start_has_the_data() {
    a_stop_ends_all(Signal::SIGINT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postgresql_comes_back_and_costs_no_acknowledged_command() {
    let rollcall = Rollcall::start(Setup::default());
    let data = rollcall.directory().join("data");
    let client = rollcall.client("default");
    let created = client.create("ada@example.com").await.expect(201);
    let (known, token) = (created.id(), created.token());
    client.get_after(&format!("/api/v1/users/{known}/history"), token).await.expect(200);
    let mut acknowledged = vec![known.clone()];
    let mut refused = 0;
    for round in 0..3 {
        let killed = processes::server(&data, "postgres");
        processes::send(killed, Signal::SIGKILL);
        let mut answered = 0;
        let deadline = Instant::now() + Duration::from_secs(60);
        // Until it has answered well for a while again: commands, and reads of what was acknowledged.
        while answered < 20 {
            assert!(Instant::now() < deadline, "the service did not recover: {}", rollcall.logged());
            let email = format!("user-{round}-{}@example.com", acknowledged.len() + refused);
            let created = client.create(&email).await;
            let read = client.get_after(&format!("/api/v1/users/{known}"), token).await;
            let history = client.get_after(&format!("/api/v1/users/{known}/history"), token).await;
            let patched = client.patch(&format!("/api/v1/users/{known}"), json!({"given_name": "Ada"})).await;
            let ready = client.get("/readyz").await;
            for answer in [&created, &read, &history, &patched] {
                assert!(matches!(answer.status, 200 | 201 | 503), "{answer:?}");
                if answer.status == 503 {
                    // Behind is a read model that finds its place again.
                    assert!(
                        matches!(answer.code().as_str(), "unavailable" | "projection-behind"),
                        "{answer:?}"
                    );
                    refused += 1;
                    answered = 0;
                }
            }
            assert!(matches!(ready.status, 200 | 503), "{ready:?}");
            if created.status == 201 {
                acknowledged.push(created.id());
                answered += 1;
            }
        }
        assert_ne!(processes::server(&data, "postgres"), killed);
    }
    let events = Log::open(&rollcall.ready.postgres).await.assert_sound().await;
    let stored = versions(&events);
    for id in &acknowledged {
        assert_eq!(stored.get(id), Some(&1));
        eventually("the profile", async || {
            (client.get(&format!("/api/v1/users/{id}")).await.status == 200).then_some(())
        })
        .await;
    }
    published::assert_all(&rollcall.ready.nats, &events).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_token_showed_once_it_shows_after_a_crash_of_postgresql_too() {
    let rollcall = Rollcall::start(Setup::default());
    let data = rollcall.directory().join("data");
    let client = rollcall.client("default");
    let id = client.create("ada@example.com").await.expect(201).id();
    let (path, history) = (format!("/api/v1/users/{id}"), format!("/api/v1/users/{id}/history"));
    for round in 0..6 {
        let changed = client.patch(&path, json!({"given_name": format!("Name {round}")})).await.expect(200);
        let (version, token) = (changed.json()["version"].clone(), changed.token());
        assert_eq!(client.get_after(&path, token).await.expect(200).json()["version"], version);
        client.get_after(&history, token).await.expect(200);
        // Read models are written without waiting for the disk: what was read a moment ago may be undone now.
        processes::send(processes::server(&data, "postgres"), Signal::SIGKILL);
        let mut answered = 0;
        let deadline = Instant::now() + Duration::from_secs(60);
        while answered < 20 {
            assert!(Instant::now() < deadline, "the service did not recover: {}", rollcall.logged());
            let profile = client.get_after(&path, token).await;
            let audit = client.get_after(&history, token).await;
            for answer in [&profile, &audit] {
                assert!(matches!(answer.status, 200 | 503), "round {round}: the past was shown: {answer:?}");
            }
            if profile.status == 200 {
                assert_eq!(profile.json()["version"], version, "round {round}: the past was shown");
            }
            if audit.status == 200 {
                assert_eq!(audit.json()["items"][0]["version"], version, "round {round}: the past was shown");
            }
            answered += usize::from(profile.status == 200 && audit.status == 200);
        }
    }
}
