//! An event that cannot be applied, in an operator's hands.

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::{
    rollcall::{Client, eventually},
    site::{Site, text},
};

/// `rollcall parked …`: whether it succeeded, and what it said.
fn parked(site: &Site, arguments: &[&str]) -> (bool, String) {
    let output = site.command(&[&["parked"], arguments].concat()).output().unwrap();
    (output.status.success(), text(output.stdout) + &text(output.stderr))
}

/// Changes events, as only the owner can and nobody may.
async fn forge(site: &Site, sql: &str) {
    let mut owner = PgConnection::connect(site.owner_url()).await.unwrap();
    let sql = format!(
        "ALTER TABLE log.events DISABLE TRIGGER events_are_immutable; {sql};
         ALTER TABLE log.events ENABLE TRIGGER events_are_immutable"
    );
    sqlx::raw_sql(&sql).execute(&mut owner).await.unwrap();
}

#[tokio::test]
async fn a_parked_user_is_listed_tried_again_and_at_last_goes_on() {
    let site = Site::migrated().await;
    let commands = site.start(&["command-api"], &[]);
    let queries = site.start(&["query-api"], &[]);
    let (write, read) = (Client::new(&commands.ready.http, "acme"), Client::new(&queries.ready.http, "acme"));
    let mut users = Vec::new();
    for n in 0..3 {
        let created = write.create(&format!("ada-{n}@example.com")).await.expect(201);
        users.push((created.id(), created.token().to_owned(), String::new()));
    }
    for (id, _, after) in &mut users {
        let path = format!("/api/v1/users/{id}");
        write.patch(&path, json!({"given_name": "Grace"})).await.expect(200);
        let named = write.patch(&path, json!({"family_name": "Hopper"})).await.expect(200);
        *after = named.token().to_owned();
    }
    // Of the first two, what changed the given name cannot be read.
    let ids = format!("('{}', '{}')", users[0].0, users[1].0);
    forge(
        &site,
        &format!("UPDATE log.events SET event_type = 'Odd' WHERE sequence = 2 AND aggregate_id IN {ids}"),
    )
    .await;
    let projector = site.start(&["projector", "profiles", "publisher"], &[]);
    let list = eventually("two users are parked", async || {
        let list: Value = serde_json::from_str(&parked(&site, &["list", "--json"]).1).unwrap();
        (list.as_array().unwrap().len() == 2).then_some(list)
    })
    .await;
    assert_eq!(list[0]["sequence"], 2);
    assert_eq!(list[0]["event_type"], "Odd");
    let metrics = Client::new(&projector.ready.http, "acme").get("/metrics").await.text;
    assert!(
        metrics.contains("rollcall_projection_parked_streams{projection=\"profiles\",version=\"1\"} 2"),
        "{metrics}"
    );
    assert!(metrics.contains("rollcall_projection_parked_total{projection=\"profiles\"} 2"), "{metrics}");

    // Who knows of the event is told at once that it is not to be had; who does not gets what there is.
    let (id, before, after) = &users[0];
    for path in ["", "/email-preferences", "/terms"] {
        let path = format!("/api/v1/users/{id}{path}");
        let begun = std::time::Instant::now();
        let refused = read.get_after(&path, after).await.expect(503);
        assert_eq!(refused.code(), "projection-parked");
        assert!(begun.elapsed() < std::time::Duration::from_millis(1_500));
        assert!(refused.header("retry-after").is_some());
    }
    let path = format!("/api/v1/users/{id}");
    let batch = json!({"ids": [users[2].0, id]});
    let after_all = [("Consistency-Token", after.as_str())];
    let refused = read.call("POST", "/api/v1/users/batch-get", &after_all, Some(&batch)).await.expect(503);
    assert_eq!(refused.code(), "projection-parked");
    for answer in [read.get(&path).await, read.get_after(&path, before).await] {
        assert_eq!(answer.expect(200).json()["given_name"], "Ada");
    }
    let found = read.call("POST", "/api/v1/users/batch-get", &[], Some(&batch)).await.expect(200).json();
    assert_eq!(found["items"].as_array().unwrap().len(), 2);
    read.get_after("/api/v1/users", after).await.expect(200);
    let (other_id, _, after_other) = &users[2];
    let other = read.get_after(&format!("/api/v1/users/{other_id}"), after_other).await.expect(200).json();
    assert_eq!((&other["given_name"], &other["family_name"]), (&json!("Grace"), &json!("Hopper")));

    let (shown, said) = parked(&site, &["show", "profiles", "acme", id]);
    assert!(
        shown
            && said.contains("1 event queues behind it")
            && said.contains("which serves")
            && said.contains("Odd"),
        "{said}"
    );
    assert!(!said.contains("example.com"), "{said}");
    let (_, said) = parked(&site, &["list"]);
    assert!(said.contains("VERSION") && said.contains(&format!("acme  {id}  1 (serves)  Odd@2")), "{said}");
    let (found, said) = parked(&site, &["show", "profile", "acme", id]);
    assert!(!found && said.contains("profiles, audit"), "{said}");
    let (well, said) = parked(&site, &["retry"]);
    assert!(!well && said.contains("--all"), "{said}");
    let (well, said) = parked(&site, &["retry", "profiles", "acme", other_id]);
    assert!(!well && said.contains("nothing is parked there"), "{said}");
    let (cured, said) = parked(&site, &["retry", "profiles", "acme", id]);
    assert!(!cured && said.contains("is parked at Odd@2") && said.contains("stays parked"), "{said}");

    forge(
        &site,
        &format!(
            "UPDATE log.events SET event_type = 'ProfileChanged' WHERE aggregate_id = '{id}' AND sequence = 2"
        ),
    )
    .await;
    let (cured, said) = parked(&site, &["retry", "profiles", "acme", id]);
    assert!(cured && said.contains("goes on"), "{said}");
    let user = eventually("the queries hear of it", async || {
        let answer = read.get_after(&path, after).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    assert_eq!((&user["given_name"], &user["family_name"]), (&json!("Grace"), &json!("Hopper")));

    // The other one never will be: an operator decides, and says why.
    let (id, _, after) = &users[1];
    let discard =
        ["discard", "profiles", "acme", id.as_str(), "--reason", "written by a program of ours that is gone"];
    let (done, said) = parked(&site, &discard);
    assert!(
        !done && said.contains("will be missing from the profile") && said.contains("say --yes"),
        "{said}"
    );
    let (done, said) = parked(&site, &[&discard[..], &["--yes", "--by", "erin"]].concat());
    assert!(done && said.contains("discarded by erin") && said.contains("goes on"), "{said}");
    let path = format!("/api/v1/users/{id}");
    let user = eventually("the queries hear of it", async || {
        let answer = read.get_after(&path, after).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    assert_eq!((&user["given_name"], &user["family_name"]), (&json!("Ada"), &json!("Hopper")));
    assert_eq!(user["version"], 3);
    let (_, said) = parked(&site, &["list"]);
    assert!(said.contains("nothing is parked"), "{said}");
    let (_, said) = parked(&site, &["retry", "--all"]);
    assert!(said.contains("nothing is parked"), "{said}");
    let mut owner = PgConnection::connect(site.owner_url()).await.unwrap();
    let record: (String, String) = sqlx::query_as("SELECT discarded_by, reason FROM projections.discarded")
        .fetch_one(&mut owner)
        .await
        .unwrap();
    assert_eq!(record, ("erin".to_owned(), "written by a program of ours that is gone".to_owned()));
    drop((commands, queries, projector));
    site.stop().await;
}
