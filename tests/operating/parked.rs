//! An event that cannot be applied, in an operator's hands.

use std::{
    fs::File,
    io::{Read, Write},
    process::Stdio,
    time::{Duration, Instant},
};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::{
    rollcall::{Client, eventually},
    site::{Site, text},
};

/// `rollcall parked …`: whether it succeeded, and what it said.
pub fn parked(site: &Site, arguments: &[&str]) -> (bool, String) {
    let output = site.command(&[&["parked"], arguments].concat()).output().unwrap();
    (output.status.success(), text(output.stdout) + &text(output.stderr))
}

/// Changes events, as only the owner can and nobody may.
pub async fn forge(site: &Site, sql: &str) {
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

    let doctor = site.command(&["doctor"]).output().unwrap();
    let (well, said) = (doctor.status.success(), text(doctor.stdout));
    assert!(well && said.contains("warn  work           profiles_1: 2 streams are parked"), "{said}");
    assert!(said.contains("rollcall parked list") && !said.contains("ok    work"), "{said}");

    // Who knows of the event is told at once that it is not to be had; who does not gets what there is.
    let (id, before, after) = &users[0];
    for path in ["", "/email-preferences", "/terms"] {
        let path = format!("/api/v1/users/{id}{path}");
        let begun = Instant::now();
        let refused = read.get_after(&path, after).await.expect(503);
        assert_eq!(refused.code(), "projection-parked");
        assert!(begun.elapsed() < Duration::from_millis(1_500));
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
    // To look is what is meant where nothing else is said.
    let (well, said) = parked(&site, &["--projection", "profiles"]);
    assert!(well && said.contains(&format!("acme  {id}  1 (serves)  Odd@2")), "{said}");
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

#[tokio::test]
async fn a_client_that_has_seen_a_parked_event_is_told_so_whenever_it_comes() {
    let site = Site::migrated().await;
    let commands = site.start(&["command-api"], &[]);
    let queries = site.start(&["query-api"], &[]);
    let projector = site.start(&["projector", "profiles"], &[]);
    let (write, read) = (Client::new(&commands.ready.http, "acme"), Client::new(&queries.ready.http, "acme"));
    let created = write.create("ada@example.com").await.expect(201);
    let path = format!("/api/v1/users/{}", created.id());
    read.get_after(&path, created.token()).await.expect(200);
    // Its row takes a while, and then nothing.
    let mut owner = PgConnection::connect(site.owner_url()).await.unwrap();
    sqlx::raw_sql(
        "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_sleep(1); RAISE EXCEPTION 'no' USING ERRCODE = '22000'; END $$;
         CREATE TRIGGER refuses BEFORE UPDATE ON profiles_1.users FOR EACH ROW EXECUTE FUNCTION public.refuse()",
    )
    .execute(&mut owner)
    .await
    .unwrap();
    // While its event is being applied.
    let renamed = write.patch(&path, json!({"given_name": "Grace"})).await.expect(200);
    let refused = read.get_after(&path, renamed.token()).await.expect(503);
    assert_eq!(refused.code(), "projection-parked");
    // While nobody applies any: waiting would be in vain.
    drop(projector);
    let renamed = write.patch(&path, json!({"given_name": "Grete"})).await.expect(200);
    let begun = Instant::now();
    let refused = read.get_after(&path, renamed.token()).await.expect(503);
    assert_eq!(refused.code(), "projection-parked");
    assert!(begun.elapsed() < Duration::from_millis(1_500));
    assert_eq!(read.get(&path).await.expect(200).json()["given_name"], "Ada");
    drop((commands, queries));
    site.stop().await;
}

const ASKS: &str = "Discard it? [y/N] ";

/// `rollcall parked …` at a terminal, where somebody types an answer once asked, or hangs up: whether it succeeded, and what
/// it said.
fn answered(site: &Site, arguments: &[&str], answer: Option<&[u8]>) -> (bool, String) {
    let terminal = nix::pty::openpty(None, None).unwrap();
    // Who types is not among those who hold the terminal open.
    fcntl(&terminal.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    let mut command = site.command(&[&["parked"], arguments].concat());
    command.stdin(terminal.slave).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = crate::rollcall::spawn(command);
    let (mut output, mut said, mut some) = (child.stdout.take().unwrap(), Vec::new(), [0; 1_024]);
    while !said.ends_with(ASKS.as_bytes()) {
        match output.read(&mut some).unwrap() {
            0 => break,
            read => said.extend_from_slice(&some[..read]),
        }
    }
    let mut keyboard = File::from(terminal.master);
    match answer {
        Some(answer) => keyboard.write_all(answer).unwrap(),
        None => drop(keyboard),
    }
    output.read_to_end(&mut said).unwrap();
    child.stderr.take().unwrap().read_to_end(&mut said).unwrap();
    (child.wait().unwrap().success(), text(said))
}

#[tokio::test]
async fn discard_asks_at_a_terminal_and_only_yes_means_yes() {
    let site = Site::migrated().await;
    let commands = site.start(&["command-api"], &[]);
    let write = Client::new(&commands.ready.http, "acme");
    let mut ids = Vec::new();
    for n in 0..2 {
        let id = write.create(&format!("ada-{n}@example.com")).await.expect(201).id();
        write.patch(&format!("/api/v1/users/{id}"), json!({"given_name": "Grace"})).await.expect(200);
        ids.push(id);
    }
    forge(&site, "UPDATE log.events SET event_type = 'Odd' WHERE sequence = 2").await;
    let projector = site.start(&["projector", "profiles"], &[]);
    eventually("both are parked", async || {
        let (_, list) = parked(&site, &["list"]);
        ids.iter().all(|id| list.contains(id.as_str())).then_some(())
    })
    .await;
    let discarded = async || -> i64 {
        let mut owner = PgConnection::connect(site.owner_url()).await.unwrap();
        sqlx::query_scalar("SELECT count(*) FROM projections.discarded").fetch_one(&mut owner).await.unwrap()
    };
    let discard = |id: &str, answer: Option<&[u8]>| {
        answered(&site, &["discard", "profiles", "acme", id, "--reason", "of no use"], answer)
    };
    let end_of_input: &[u8] = b"\x04";
    let not_yes: [&[u8]; 8] =
        [b"n\n", b"\n", b"no\n", b"N\n", b"maybe\n", b"y y\n", b"\xff\xfe\n", end_of_input];
    for answer in not_yes.map(Some).into_iter().chain([None]) {
        let (done, said) = discard(&ids[0], answer);
        assert!(!done && said.contains(ASKS) && said.contains("cannot be undone"), "{answer:?}: {said}");
        assert_eq!(discarded().await, 0, "{answer:?}: {said}");
    }
    let yes: [&[u8]; 2] = [b"y\n", b"yes\n"];
    for (before, (id, answer)) in (0..).zip(ids.iter().zip(yes)) {
        assert_eq!(discarded().await, before);
        let (done, said) = discard(id, Some(answer));
        assert!(done && said.contains("discarded by ") && said.contains("goes on"), "{said}");
    }
    assert_eq!(discarded().await, 2);
    // Whoever says so beforehand is not asked, terminal or not.
    let (_, said) =
        answered(&site, &["discard", "profiles", "acme", &ids[0], "--reason", "x", "--yes"], Some(b"n\n"));
    assert!(said.contains("nothing is parked there") && !said.contains(ASKS), "{said}");
    drop((commands, projector));
    site.stop().await;
}
