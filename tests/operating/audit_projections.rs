//! `rollcall audit-projections` where things are parked, were discarded or cannot be read.

use std::process::Output;

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::{
    parked::{forge, parked},
    rollcall::{Client, Rollcall, eventually},
    site::{Site, text},
};

/// A site at work, and users that were renamed.
struct Work {
    site: Site,
    commands: Rollcall,
    queries: Rollcall,
    projector: Rollcall,
    write: Client,
    read: Client,
    /// With the token of what was done last.
    users: Vec<(String, String)>,
}

impl Work {
    async fn begin(users: usize) -> Self {
        let site = Site::migrated().await;
        let commands = site.start(&["command-api"], &[]);
        let queries = site.start(&["query-api"], &[]);
        let (write, read) =
            (Client::new(&commands.ready.http, "acme"), Client::new(&queries.ready.http, "acme"));
        let mut renamed = Vec::new();
        for n in 0..users {
            let id = write.create(&format!("ada-{n}@example.com")).await.expect(201).id();
            let path = format!("/api/v1/users/{id}");
            let answer = write.patch(&path, json!({"given_name": "Grace"})).await.expect(200);
            renamed.push((id, answer.token().to_owned()));
        }
        let projector = site.start(&["projector", "profiles", "audit"], &[]);
        Self { site, commands, queries, projector, write, read, users: renamed }
    }

    async fn applied(&self) {
        for (id, token) in &self.users {
            eventually("it is applied", async || {
                let answer = self.read.get_after(&format!("/api/v1/users/{id}"), token).await;
                (answer.status == 200).then_some(())
            })
            .await;
        }
    }

    async fn execute(&self, sql: &str) {
        let mut owner = PgConnection::connect(self.site.owner_url()).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut owner).await.unwrap();
    }

    fn audit(&self, arguments: &[&str]) -> (bool, String, String) {
        let arguments = [&["audit-projections", "profiles", "--all"], arguments].concat();
        let Output { status, stdout, stderr } = self.site.command(&arguments).output().unwrap();
        (status.success(), text(stdout), text(stderr))
    }

    async fn end(self) {
        drop((self.commands, self.queries, self.projector));
        self.site.stop().await;
    }
}

#[tokio::test]
async fn a_row_without_a_discarded_event_is_audited_and_repaired_as_any_other() {
    let site = Work::begin(0).await;
    drop(site.projector);
    let id = site.write.create("ada@example.com").await.expect(201).id();
    let path = format!("/api/v1/users/{id}");
    site.write.patch(&path, json!({"given_name": "Grace"})).await.expect(200);
    let after = site.write.patch(&path, json!({"family_name": "Hopper"})).await.expect(200);
    forge(&site.site, "UPDATE log.events SET event_type = 'Odd' WHERE sequence = 2").await;
    let projector = site.site.start(&["projector", "profiles", "audit"], &[]);
    eventually("it is parked", async || parked(&site.site, &["list"]).1.contains(&id).then_some(())).await;
    let discard = ["discard", "profiles", "acme", &id, "--reason", "of no use", "--yes"];
    let (done, said) = parked(&site.site, &discard);
    assert!(done, "{said}");
    let site = Work { projector, users: vec![(id.clone(), after.token().to_owned())], ..site };
    site.applied().await;
    let before = site.read.get(&path).await.expect(200).json();
    assert_eq!((&before["given_name"], &before["family_name"]), (&json!("Ada"), &json!("Hopper")));
    let (success, said, errors) = site.audit(&[]);
    assert!(success && said.contains("0 differ"), "{said}{errors}");
    for (damage, field) in [
        ("DELETE FROM profiles_1.users", "missing"),
        ("UPDATE profiles_1.users SET sealed = set_byte(sealed, 30, get_byte(sealed, 30) # 255)", "sealed"),
    ] {
        site.execute(damage).await;
        let (success, said, errors) = site.audit(&[]);
        assert!(!success && said.contains(&format!("user {id}: {field}\n")), "{said}{errors}");
        let (success, said, errors) = site.audit(&["--repair"]);
        assert!(success && said.contains("1 differ, 1 repaired"), "{said}{errors}");
        assert_eq!(site.read.get(&path).await.expect(200).json(), before);
    }
    site.end().await;
}

#[tokio::test]
async fn a_user_whose_damaged_row_parked_it_is_found_by_the_log_line_and_goes_on_once_repaired() {
    let mut site = Work::begin(3).await;
    site.applied().await;
    let ids: Vec<String> = site.users.iter().map(|(id, _)| id.clone()).collect();
    site.execute(&format!(
        "UPDATE profiles_1.users SET sealed = set_byte(sealed, 30, get_byte(sealed, 30) # 255) WHERE user_id = '{}';
         DELETE FROM profiles_1.users WHERE user_id = '{}'",
        ids[0], ids[1]
    ))
    .await;
    let paths: Vec<String> = ids.iter().map(|id| format!("/api/v1/users/{id}")).collect();
    // Whoever looks at the log knows whose row it is.
    site.read.get("/api/v1/users").await.expect(500);
    let line = eventually("the line", async || {
        let logged = site.queries.logged();
        logged.lines().find(|line| line.contains("a request failed on an internal error")).map(str::to_owned)
    })
    .await;
    let user = format!("the profile of acme/user/{} cannot be read", ids[0]);
    assert!(
        line.contains("ERROR") && line.contains(&user) && line.contains("a row of a read model"),
        "{line}"
    );
    for ((_, token), path) in site.users.iter_mut().zip(&paths) {
        let answer = site.write.patch(path, json!({"family_name": "Hopper"})).await.expect(200);
        *token = answer.token().to_owned();
    }
    eventually("two are parked", async || {
        let (_, list) = parked(&site.site, &["list"]);
        ids[..2].iter().all(|id| list.contains(id.as_str())).then_some(())
    })
    .await;
    site.read.get(&paths[0]).await.expect(500);
    site.read.get(&paths[1]).await.expect(404);
    let (success, said, errors) = site.audit(&[]);
    assert!(!success && said.contains("2 are parked and were compared up to there"), "{said}{errors}");
    for (id, field) in ids.iter().zip(["sealed", "missing"]) {
        assert!(said.contains(&format!("user {id}: {field}; it is parked\n")), "{said}");
    }
    let (success, said, errors) = site.audit(&["--repair", "--json"]);
    assert!(success, "{said}{errors}");
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let repaired = lines.iter().filter(|line| line["parked"] == true && line["repaired"] == true);
    assert_eq!(repaired.count(), 2, "{said}");
    assert_eq!(lines.last().unwrap()["differ"], 2);
    site.applied().await;
    for path in &paths {
        assert_eq!(site.read.get(path).await.expect(200).json()["family_name"], "Hopper");
    }
    let (_, list) = parked(&site.site, &["list"]);
    assert!(list.contains("nothing is parked"), "{list}");
    site.end().await;
}

#[tokio::test]
async fn a_stream_that_cannot_be_folded_is_named_and_the_others_are_repaired() {
    let site = Work::begin(4).await;
    site.applied().await;
    let [lost, damaged] = [0, 1].map(|n| &site.users[n].0);
    site.execute(&format!(
        "DELETE FROM vault.data_keys WHERE aggregate_id = '{lost}';
         DELETE FROM profiles_1.users WHERE user_id = '{damaged}'"
    ))
    .await;
    let (success, said, errors) = site.audit(&["--repair"]);
    assert!(!success && errors.contains("1 stream cannot be folded"), "{said}{errors}");
    let line = format!("profiles_1: acme/user/{lost} cannot be folded: the data key");
    assert!(said.contains(&line) && said.contains(&format!("(stream acme/user/{lost})")), "{said}");
    assert!(said.contains(&format!("user {damaged}: missing; repaired")), "{said}");
    assert!(said.contains("1 differ, 1 repaired") && said.contains("1 cannot be folded"), "{said}");
    assert!(!said.contains("StreamId") && !errors.contains("StreamId"), "{said}{errors}");
    let (success, said, _) = site.audit(&["--json"]);
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!success && lines.len() == 2, "{said}");
    assert_eq!((&lines[0]["tenant"], &lines[0]["id"]), (&json!("acme"), &json!(lost)));
    assert_eq!((&lines[1]["differ"], &lines[1]["unfolded"]), (&json!(0), &json!(1)));
    eventually("the auditor says so, too", async || {
        let logged = site.projector.logged();
        let mut lines = logged.lines().filter(|line| line.contains("a stream cannot be folded anew"));
        lines.any(|line| line.contains("ERROR") && line.contains(lost.as_str())).then_some(())
    })
    .await;
    site.end().await;
}
