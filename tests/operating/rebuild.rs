//! A read model is made anew from the log while the service goes on.

use std::{
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::{
    rollcall::{self, Client, eventually},
    rolling::work,
    site::Site,
};

/// Runs to its end: whether it went well, and what it said.
pub async fn rebuild(site: &Site, arguments: &[&str]) -> (bool, String) {
    let mut command = site.command(&[&["rebuild"], arguments].concat());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.success(), said.concat())
}

pub async fn rebuilt(site: &Site, arguments: &[&str]) -> String {
    let (well, said) = rebuild(site, arguments).await;
    assert!(well, "{said}");
    said
}

/// The version that a query-api reads, by what it says itself.
pub async fn serves(api: &Client, projection: &str, version: u64) {
    eventually("the version that serves", async || {
        let health = api.get("/health/detailed").await.json();
        (health["projections"][projection]["version"] == version).then_some(())
    })
    .await;
}

pub async fn number(site: &Site, sql: &str) -> i64 {
    let mut connection = PgConnection::connect(site.owner_url()).await.unwrap();
    sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_neither_refused_nor_stale_while_a_read_model_is_rebuilt_and_switched() {
    let site = Site::migrated().await;
    let commands = site.start(&["command-api"], &[]);
    let queries = [site.start(&["query-api"], &[]), site.start(&["query-api"], &[])];
    let projectors = [site.start(&["projector"], &[]), site.start(&["projector"], &[])];
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..6)
        .map(|client| {
            let write = Client::new(&commands.ready.http, "acme");
            let read = Client::new(&queries[client % 2].ready.http, "acme");
            tokio::spawn(work(client, write, read, Arc::clone(&stop), Arc::clone(&done)))
        })
        .collect();
    let api = Client::new(&queries[0].ready.http, "acme");
    let said = rebuilt(&site, &["profiles"]).await;
    assert!(said.contains("folded anew are alike") && said.contains("profiles_2 serves"), "{said}");
    serves(&api, "profiles", 2).await;
    for projector in &projectors {
        let said = projector.logged();
        assert!(!said.contains("projecting failed"), "{said}");
    }
    rebuilt(&site, &["profiles", "--switch-back"]).await;
    serves(&api, "profiles", 1).await;
    let said = rebuilt(&site, &["profiles", "--drop-old"]).await;
    assert!(said.contains("profiles_2 is gone"), "{said}");
    rebuilt(&site, &["audit"]).await;
    serves(&api, "audit", 2).await;
    rebuilt(&site, &["audit", "--drop-old"]).await;
    let before = done.load(Ordering::Relaxed);
    eventually("more reads", async || (done.load(Ordering::Relaxed) > before + 100).then_some(())).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    // What an operator asked for is no failure.
    for projector in &projectors {
        eventually("both versions are forgotten", async || {
            (projector.logged().matches("the version was dropped").count() == 2).then_some(())
        })
        .await;
        let said = projector.logged();
        assert!(!said.contains("projecting failed") && !said.contains("no rows returned"), "{said}");
        assert!(!said.contains("cannot be projected any further"), "{said}");
    }
    let left = "SELECT count(*) FROM pg_namespace WHERE nspname ~ '^(profiles|audit)_[0-9]+$'";
    assert_eq!(number(&site, left).await, 2);
    site.stop().await;
}

/// Users enough that filling takes a while.
pub async fn fill(write: &Client, batches: usize) {
    for batch in 0..batches {
        let create = |user| {
            let email = format!("user-{batch}-{user}@example.com");
            json!({"type": "CreateUser", "data": {"email": email, "given_name": "Ada"}})
        };
        let commands: Vec<Value> = (0..1_000).map(create).collect();
        write.post("/api/v1/commands", Value::Array(commands)).await.expect(200);
    }
}

/// Starts a rebuild and kills it once it has made its version.
async fn killed_in_the_middle(site: &Site, arguments: &[&str]) {
    let mut command: Command = site.command(&[&["rebuild"], arguments].concat());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = rollcall::spawn(command);
    eventually("its version", async || {
        let made = "SELECT count(*) FROM projections.versions WHERE projection = 'profiles' AND version = 2";
        (number(site, made).await > 0).then_some(())
    })
    .await;
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_that_was_killed_goes_on_where_it_was() {
    let site = Site::migrated().await;
    let commands = site.start(&["command-api"], &[]);
    fill(&Client::new(&commands.ready.http, "acme"), 12).await;
    killed_in_the_middle(&site, &["profiles"]).await;
    let filled = number(
        &site,
        "SELECT sum(position)::int8 FROM projections.checkpoints WHERE projection = 'profiles' AND version = 2",
    )
    .await;
    assert!(filled < 12_000, "it was killed too late to tell");
    let said = rebuilt(&site, &["profiles"]).await;
    assert!(said.contains("going on where") && said.contains("12000 rows"), "{said}");
    assert_eq!(number(&site, "SELECT count(*) FROM profiles_2.users").await, 12_000);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_not_what_the_log_says_never_serves_and_the_next_rebuild_makes_another() {
    let damages = [
        (
            "DELETE FROM profiles_2.users WHERE user_id = (SELECT min(user_id) FROM profiles_2.users)",
            "rows and should have",
        ),
        ("UPDATE profiles_2.users SET status = 'deactivated'", "in status"),
    ];
    for (damage, said_of_it) in damages {
        let site = Site::migrated().await;
        let commands = site.start(&["command-api"], &[]);
        let queries = site.start(&["query-api"], &[]);
        fill(&Client::new(&commands.ready.http, "acme"), 2).await;
        // The version is there, and filled by whatever runs, after this.
        killed_in_the_middle(&site, &["profiles"]).await;
        let _projector = site.start(&["projector"], &[]);
        eventually("all of it", async || {
            (number(&site, "SELECT count(*) FROM profiles_2.users").await == 2_000).then_some(())
        })
        .await;
        let mut owner = PgConnection::connect(site.owner_url()).await.unwrap();
        sqlx::query(damage).execute(&mut owner).await.unwrap();
        let (well, said) = rebuild(&site, &["profiles"]).await;
        assert!(!well && said.contains(said_of_it) && said.contains("profiles_2 is not what"), "{said}");
        assert!(said.contains("it never serves"), "{said}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        serves(&Client::new(&queries.ready.http, "acme"), "profiles", 1).await;
        rebuilt(&site, &["profiles"]).await;
        serves(&Client::new(&queries.ready.http, "acme"), "profiles", 3).await;
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_back_goes_to_the_version_that_served_right_before_and_forth_again() {
    let site = Site::migrated().await;
    rebuilt(&site, &["audit"]).await;
    rebuilt(&site, &["audit", "--switch-back"]).await;
    let commands = site.start(&["command-api"], &[]);
    fill(&Client::new(&commands.ready.http, "acme"), 1).await;
    let said = rebuilt(&site, &["audit"]).await;
    assert!(said.contains("audit_3 serves. audit_1 is kept up"), "{said}");
    // No projector runs: it is fed by whoever switches.
    let said = rebuilt(&site, &["audit", "--switch-back"]).await;
    assert!(said.contains("audit_1 serves. audit_3 is kept up") && said.contains("1000 rows"), "{said}");
    let said = rebuilt(&site, &["audit", "--switch-back"]).await;
    assert!(said.contains("audit_3 serves. audit_1 is kept up"), "{said}");

    let mut owner = PgConnection::connect(site.owner_url()).await.unwrap();
    sqlx::query("UPDATE audit_1.entries SET actor = 'somebody'").execute(&mut owner).await.unwrap();
    let (well, said) = rebuild(&site, &["audit", "--switch-back"]).await;
    assert!(!well && said.contains("audit_1 is not what the log says"), "{said}");
    // It never serves again; the one before it may.
    sqlx::query("DROP TABLE audit_2.entries").execute(&mut owner).await.unwrap();
    let (well, said) = rebuild(&site, &["audit", "--switch-back"]).await;
    assert!(!well && said.contains("audit_2 cannot be read any more, and does not serve"), "{said}");
    let serving = "SELECT version::int8 FROM projections.serving WHERE projection = 'audit'";
    assert_eq!(number(&site, serving).await, 3);

    let said = rebuilt(&site, &["audit", "--drop-old"]).await;
    assert!(said.contains("audit_1 is gone") && said.contains("audit_2 is gone"), "{said}");
    let (well, said) = rebuild(&site, &["audit", "--switch-back"]).await;
    assert!(!well && said.contains("no version that served before"), "{said}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_of_two_rebuilds_at_once_says_that_it_waits_and_finds_the_work_done() {
    let site = Site::migrated().await;
    // Whoever has the turn, a rebuild that takes a while.
    let mut first = PgConnection::connect(site.owner_url()).await.unwrap();
    let turn = rollcall_projections::tables::turn_of("audit");
    sqlx::query("SELECT pg_advisory_lock($1)").bind(turn).execute(&mut first).await.unwrap();
    let second = |arguments: &[&str]| {
        let mut command = site.command(&[&["rebuild", "audit"], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        assert_eq!(line, "waiting for another rebuild of audit\n");
        (child, said)
    };
    let ended = |(mut child, mut said): (std::process::Child, std::io::BufReader<_>)| {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut said, &mut rest).unwrap();
        assert!(child.wait().unwrap().success(), "{rest}");
        rest
    };
    let waits = [second(&[]), second(&["--drop-old"])];
    let unlock = "SELECT pg_advisory_unlock($1)";
    let [rebuilds, drops] = waits;
    // What the first one did.
    sqlx::raw_sql(
        "UPDATE projections.versions SET version = 2 WHERE projection = 'audit';
         UPDATE projections.serving SET version = 2 WHERE projection = 'audit'",
    )
    .execute(&mut first)
    .await
    .unwrap();
    sqlx::query(unlock).bind(turn).execute(&mut first).await.unwrap();
    let said = ended(rebuilds);
    assert!(said.contains("audit_2 was made by the rebuild that this one waited for"), "{said}");
    let said = ended(drops);
    assert!(said.contains("no version that may be dropped"), "{said}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_that_starts_while_another_has_switched_and_not_ended_makes_no_further_version() {
    let site = Site::migrated().await;
    let mut first = PgConnection::connect(site.owner_url()).await.unwrap();
    let turn = rollcall_projections::tables::turn_of("audit");
    sqlx::query("SELECT pg_advisory_lock($1)").bind(turn).execute(&mut first).await.unwrap();
    sqlx::raw_sql(
        "UPDATE projections.versions SET version = 2, served_at = clock_timestamp() WHERE projection = 'audit';
         UPDATE projections.serving SET version = 2 WHERE projection = 'audit'",
    )
    .execute(&mut first)
    .await
    .unwrap();
    let mut child = site.command(&["rebuild", "audit"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert_eq!(line, "waiting for another rebuild of audit\n");
    first.close().await.unwrap();
    std::io::Read::read_to_string(&mut said, &mut line).unwrap();
    assert!(child.wait().unwrap().success(), "{line}");
    assert!(line.contains("audit_2 was made by the rebuild that this one waited for"), "{line}");
    site.stop().await;
}

#[tokio::test]
async fn who_is_not_the_owner_is_told_to_connect_as_the_owner() {
    let site = Site::new().await;
    let services = site.migrate();
    for wish in [&["rebuild", "profiles"][..], &["rebuild", "profiles", "--drop-old"], &["migrate"]] {
        let output = site.command(&[wish, &["--database-url", &services]].concat()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("connect as the owner"), "{wish:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    site.stop().await;
}
