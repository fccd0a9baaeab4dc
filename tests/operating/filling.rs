//! A new release brings a read model of another shape: its version fills itself, is checked, and only then serves.

use std::time::{Duration, Instant};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rollcall_projections::tables::turn_of;
use sqlx::{Connection, PgConnection};

use crate::{
    rebuild::{fill, number, rebuild, rebuilt, serves},
    rollcall::{Client, Rollcall, eventually},
    site::Site,
};

const USERS: i64 = 2_000;
const WRONG: &str = "rollcall_projection_versions_wrong{projection=\"profiles\"} ";

/// A site with users, whose profiles' tables have just been made anew because the shape is another one than it was.
async fn upgraded() -> Site {
    let site = Site::migrated().await;
    let commands = site.start(&["command-api"], &[]);
    fill(&Client::new(&commands.ready.http, "acme"), 2).await;
    execute(
        &site,
        "UPDATE projections.versions SET shape = 0 WHERE projection = 'profiles';
         UPDATE projections.serving SET shape = 0 WHERE projection = 'profiles'",
    )
    .await;
    site.migrate();
    assert_eq!(
        number(&site, "SELECT count(*) FROM projections.serving WHERE projection = 'profiles'").await,
        1
    );
    site
}

async fn execute(site: &Site, sql: &str) {
    let mut owner = PgConnection::connect(site.owner_url()).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut owner).await.unwrap();
}

async fn wrong(projector: &Rollcall, wrong: u8) {
    let client = Client::new(&projector.ready.http, "acme");
    eventually("the metric", async || {
        let metrics = client.get("/metrics").await.text;
        metrics.contains(&format!("{WRONG}{wrong}\n")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_fills_itself_is_checked_once_and_then_serves() {
    let site = upgraded().await;
    let queries = site.start(&["query-api"], &[]);
    let api = Client::new(&queries.ready.http, "acme");
    assert_eq!(api.get("/api/v1/users").await.expect(503).code(), "projection-behind");
    let projectors =
        [site.start(&["projector", "profiles"], &[]), site.start(&["projector", "profiles"], &[])];
    serves(&api, "profiles", 2).await;
    api.get("/api/v1/users").await.expect(200);
    let logged = projectors.each_ref().map(Rollcall::logged).concat();
    let checks: Vec<&str> = logged.lines().filter(|line| line.contains("filled itself")).collect();
    assert_eq!(checks.len(), 1, "{checks:?}");
    // So few events do not count as being behind; what is checked is all of them.
    assert!(checks[0].contains(&format!("{USERS} rows as counted in the log")), "{checks:?}");
    let in_order = "SELECT count(*) FROM projections.versions
         WHERE projection = 'profiles' AND version = 2 AND checked_at <= served_at AND wrong_at IS NULL";
    assert_eq!(number(&site, in_order).await, 1);
    drop((queries, projectors));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_filled_itself_wrongly_is_told_of_and_does_not_serve() {
    let site = upgraded().await;
    execute(
        &site,
        "CREATE FUNCTION public.damage() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN NEW.status := 'deactivated'; RETURN NEW; END $$;
         CREATE TRIGGER damages BEFORE INSERT ON profiles_2.users FOR EACH ROW EXECUTE FUNCTION public.damage()",
    )
    .await;
    let queries = site.start(&["query-api"], &[]);
    let api = Client::new(&queries.ready.http, "acme");
    let projector = site.start(&["projector", "profiles"], &[]);
    wrong(&projector, 1).await;
    let logged = projector.logged();
    let told: Vec<&str> = logged.lines().filter(|line| line.contains("is not what the log says")).collect();
    assert!(told.len() == 1 && told[0].contains("ERROR") && told[0].contains("in status"), "{told:?}");
    drop(projector);
    // It is not checked again, and nobody forgets it.
    let projector = site.start(&["projector", "profiles"], &[]);
    wrong(&projector, 1).await;
    assert!(!projector.logged().contains("is not what the log says"));
    assert_eq!(
        number(&site, "SELECT sum(shape)::int8 FROM projections.serving WHERE projection = 'profiles'").await,
        0
    );
    assert_eq!(api.get("/api/v1/users").await.expect(503).code(), "projection-behind");
    let status = site.command(&["status"]).output().unwrap();
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.lines().any(|line| line.contains("profiles_2") && line.contains("WRONG")), "{status}");

    // Another one is made, and no way leads back.
    execute(&site, "DROP TRIGGER damages ON profiles_2.users").await;
    let said = rebuilt(&site, &["profiles"]).await;
    assert!(said.contains("profiles_3 serves"), "{said}");
    serves(&api, "profiles", 3).await;
    wrong(&projector, 0).await;
    let (back, said) = rebuild(&site, &["profiles", "--switch-back"]).await;
    assert!(!back && said.contains("no version that served before"), "{said}");
    let said = rebuilt(&site, &["profiles", "--drop-old"]).await;
    assert!(said.contains("profiles_1 is gone") && said.contains("profiles_2 is gone"), "{said}");
    drop((queries, projector));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_freezes_while_it_checks_holds_up_nobody() {
    let site = upgraded().await;
    let mut turn = PgConnection::connect(site.owner_url()).await.unwrap();
    sqlx::query("SELECT pg_advisory_lock($1)").bind(turn_of("profiles")).execute(&mut turn).await.unwrap();
    let frozen = site.start(&["projector", "profiles"], &[]);
    eventually("all users", async || {
        (number(&site, "SELECT count(*) FROM profiles_2.users").await == USERS).then_some(())
    })
    .await;
    // Its check waits for a table, and stands there with the turn.
    let mut owner = PgConnection::connect(site.owner_url()).await.unwrap();
    let mut table = owner.begin().await.unwrap();
    sqlx::query("LOCK TABLE profiles_2.users IN ACCESS EXCLUSIVE MODE").execute(&mut *table).await.unwrap();
    turn.close().await.unwrap();
    eventually("the check", async || {
        let waits = "SELECT count(*) FROM pg_stat_activity
             WHERE application_name LIKE 'checker %' AND wait_event_type = 'Lock'";
        (number(&site, waits).await == 1).then_some(())
    })
    .await;
    kill(Pid::from_raw(frozen.pid().cast_signed()), Signal::SIGSTOP).unwrap();
    table.rollback().await.unwrap();
    let begun = Instant::now();
    let projector = site.start(&["projector", "profiles"], &[]);
    eventually("it serves", async || {
        let serves = "SELECT count(*) FROM projections.serving
             WHERE projection = 'profiles' AND shape > 0 AND version = 2";
        (number(&site, serves).await == 1).then_some(())
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(projector.logged().contains("filled itself is what the log says"));
    drop((frozen, projector));
    site.stop().await;
}
