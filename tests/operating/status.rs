//! `rollcall status` and `rollcall audit-projections`, as an operator calls them.

use std::{process::Output, time::Duration};

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::{
    rollcall::{Client, Rollcall, Setup, data_directory, eventually},
    site::{Site, text},
};

fn run(site: &Site, arguments: &[&str]) -> (bool, String, String) {
    let Output { status, stdout, stderr } = site.command(arguments).output().unwrap();
    (status.success(), text(stdout), text(stderr))
}

async fn owner(site: &Site) -> PgConnection {
    PgConnection::connect(site.owner_url()).await.unwrap()
}

fn of<'a>(status: &'a Value, projection: &str) -> &'a Value {
    let mut projections = status["projections"].as_array().unwrap().iter();
    projections.find(|of| of["projection"] == projection).unwrap()
}

#[tokio::test]
async fn the_status_is_one_screen_or_one_object_with_or_without_anybody_at_work() {
    let site = Site::migrated().await;
    let services = site.migrate();
    let json_of = |more: &[&str]| -> Value {
        let (success, said, errors) = run(&site, &[&["status", "--json"], more].concat());
        assert!(success, "{errors}");
        serde_json::from_str(&said).unwrap()
    };
    let idle = json_of(&["--database-url", &services]);
    assert_eq!(idle["members"], json!([]));
    assert!(idle["leases"].as_array().unwrap().iter().all(|lease| lease["state"] == "free"));
    let (success, screen, _) = run(&site, &["status"]);
    assert!(
        success && screen.contains("NO PROCESS projects or publishes") && screen.contains("FREE (16)"),
        "{screen}"
    );

    let commands = site.start(&["command-api"], &[]);
    let write = Client::new(&commands.ready.http, "acme");
    for n in 0..5 {
        write.create(&format!("a{n}@example.com")).await.expect(201);
    }
    let behind = json_of(&[]);
    assert_eq!(
        (of(&behind, "profiles")["lag_events"].as_u64(), behind["publisher"]["lag_events"].as_u64()),
        (Some(5), Some(5))
    );
    assert!(of(&behind, "audit")["lag_seconds"].as_f64().unwrap() > 0.0);

    let projector = site.start(&["projector"], &[]);
    let status = eventually("all is applied and published", async || {
        let status = json_of(&[]);
        let done = ["profiles", "audit"].iter().all(|name| of(&status, name)["lag_events"] == 0);
        (done && status["publisher"]["lag_events"] == 0).then_some(status)
    })
    .await;
    assert_eq!(status["publisher"]["stream_sequence"], 5);
    let process = format!(":{}", projector.pid());
    assert!(status["publisher"]["process"].as_str().unwrap().ends_with(&process), "{status}");
    assert_eq!(status["members"].as_array().unwrap().len(), 1);
    assert_eq!(of(&status, "profiles")["state"], "serving");
    let instants = [&status["at"], &status["leases"][0]["taken_at"], &status["members"][0]["heard_at"]];
    assert!(instants.iter().all(|at| at.as_str().unwrap().ends_with('Z')), "{instants:?}");
    let heads: Vec<&Value> = status["partitions"].as_array().unwrap().iter().map(|of| &of["head"]).collect();
    assert_eq!(of(&status, "profiles")["positions"].as_array().unwrap().iter().collect::<Vec<_>>(), heads);
    let (success, screen, _) = run(&site, &["status"]);
    assert!(success);
    let held = "audit_1 (16), profiles_1 (16), publisher";
    for told in ["profiles_1", "serving", "publishing", &process, held, "alive", "PARTITION"] {
        assert!(screen.contains(told), "{told} is not in\n{screen}");
    }
    assert!(
        screen.lines().count() < 50 && !screen.contains("FREE") && !screen.contains("FROZEN"),
        "{screen}"
    );

    // The same where processes tell how they are.
    for base in [&projector.ready.http, &commands.ready.http] {
        let detailed = Client::new(base, "acme").get("/health/detailed").await.expect(200).json();
        assert_eq!(detailed["publisher"]["stream_sequence"], 5, "{detailed}");
        assert_eq!(detailed["leases"].as_array().unwrap().len(), 33);
        assert_eq!(detailed["members"][0]["state"], "alive");
        assert_eq!(detailed["partitions"].as_array().unwrap().len(), 16);
    }
    let detailed =
        Client::new(&projector.ready.http, "acme").get("/health/detailed").await.expect(200).json();
    let profiles = &detailed["projections"]["profiles"];
    assert_eq!(
        (&profiles["state"], &profiles["parked_streams"], &profiles["shape"]),
        (&json!("serving"), &json!(0), &json!(1))
    );

    // To watch it, a line each time, to the end that Ctrl-C makes.
    let mut watch = site.command(&["status", "--watch", "--json"]);
    let mut watch = watch.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let (lines, line) = std::sync::mpsc::channel();
    let out = watch.stdout.take().unwrap();
    std::thread::spawn(move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(out)) {
            let _ = lines.send(line.unwrap());
        }
    });
    for _ in 0..2 {
        let line = line.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["log_id"], status["log_id"]);
    }
    let pid = nix::unistd::Pid::from_raw(watch.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert!(watch.wait().unwrap().success());

    let (success, _, errors) =
        run(&site, &["status", "--database-url", "postgres://nobody@127.0.0.1:1/none"]);
    assert!(!success && errors.lines().count() == 1, "{errors}");
    drop((commands, projector));
    site.stop().await;
}

#[tokio::test]
async fn drift_is_found_told_and_repaired() {
    let site = Site::migrated().await;
    let commands = site.start(&["command-api"], &[]);
    let projector = site.start(&["projector", "profiles", "audit"], &[]);
    let write = Client::new(&commands.ready.http, "acme");
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(write.create(&format!("a{n}@example.com")).await.expect(201).id());
    }
    let metrics = Client::new(&projector.ready.http, "acme");
    eventually("all is applied", async || {
        let detailed = metrics.get("/health/detailed").await.expect(200).json();
        ["profiles", "audit"]
            .iter()
            .all(|name| detailed["projections"][name]["lag_events"] == 0)
            .then_some(())
    })
    .await;
    for how in [
        &["audit-projections", "--all"][..],
        &["audit-projections", "--sample", "10"],
        &["audit-projections", "profiles"],
    ] {
        let (success, said, errors) = run(&site, how);
        assert!(success && said.contains("0 differ"), "{said}{errors}");
    }
    let (_, said, _) = run(&site, &["audit-projections", "profiles", "--sample", "1"]);
    assert!(said.contains("profiles_1: 1 stream folded anew, 4 rows counted"), "{said}");

    let mut owner = owner(&site).await;
    for damage in [
        format!("UPDATE profiles_1.users SET status = 'deactivated' WHERE user_id = '{}'", ids[0]),
        format!("DELETE FROM profiles_1.users WHERE user_id = '{}'", ids[1]),
        "UPDATE audit_1.entries SET actor = 'somebody' WHERE position = 1".to_owned(),
    ] {
        sqlx::raw_sql(&damage).execute(&mut owner).await.unwrap();
    }
    let alarm = |drift: u64| {
        let line = format!("rollcall_projection_drift_streams{{projection=\"profiles\"}} {drift}");
        let metrics = &metrics;
        async move {
            eventually("the auditor notices", async || {
                metrics.get("/metrics").await.expect(200).text.contains(&line).then_some(())
            })
            .await;
        }
    };
    alarm(2).await;
    let told = projector.logged();
    let mut lines =
        told.lines().filter(|line| line.contains("not what the log says") && line.contains("profiles_1"));
    let line = lines.find(|line| line.contains(&ids[0])).unwrap();
    assert!(line.contains("ERROR") && line.contains("status") && !line.contains("deactivated"), "{line}");

    let (success, said, errors) = run(&site, &["audit-projections", "--all"]);
    assert!(!success && errors.contains("differences from the log"), "{said}{errors}");
    for line in [format!("user {}: status\n", ids[0]), format!("user {}: missing\n", ids[1])] {
        assert!(said.contains(&line), "{line} is not in {said}");
    }
    let (success, said, errors) = run(&site, &["audit-projections", "profiles", "--sample", "1"]);
    assert!(!success && said.contains("should have"), "rows are counted, too: {said}");
    assert!(
        said.contains("1 partition miscounted") && errors.contains("rows in 1 partition: --all finds"),
        "{errors}"
    );
    let (success, said, errors) = run(&site, &["audit-projections", "--all", "--repair", "--json"]);
    assert!(success, "{said}{errors}");
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let drift = lines.iter().find(|line| line["id"] == ids[0].as_str()).unwrap();
    assert_eq!(
        (&drift["fields"], &drift["tenant"], &drift["projection"], &drift["repaired"]),
        (&json!(["status"]), &json!("acme"), &json!("profiles"), &json!(true))
    );
    assert!(!said.contains("somebody") && !said.contains("example.com"));
    let (success, said, _) = run(&site, &["audit-projections", "--all"]);
    assert!(success, "{said}");
    alarm(0).await;
    drop((commands, projector));
    site.stop().await;
}

#[tokio::test]
async fn what_stands_still_is_told_wherever_one_looks() {
    let site = Site::migrated().await;
    let commands = site.start(&["command-api"], &[]);
    let projector = site.start(&["projector", "profiles", "audit"], &[]);
    let mut publisher = site.start(&["projector", "publisher"], &[("NATS_URL", "nats://127.0.0.1:1")]);
    let write = Client::new(&commands.ready.http, "acme");
    let mut owner = owner(&site).await;
    let service: String =
        sqlx::query_scalar("SELECT service_role FROM log.meta").fetch_one(&mut owner).await.unwrap();
    let revoke = format!("REVOKE INSERT ON audit_1.entries FROM {service}");
    sqlx::raw_sql(&revoke).execute(&mut owner).await.unwrap();
    write.create("ada@example.com").await.expect(201);
    let json_of = || -> Value { serde_json::from_str(&run(&site, &["status", "--json"]).1).unwrap() };
    let status = eventually("both are told", async || {
        let status = json_of();
        let stopped = of(&status, "audit")["stopped_partitions"].as_array().unwrap().len();
        (stopped == 1 && status["publisher"]["trouble"].is_string()).then_some(status)
    })
    .await;
    assert_eq!((&status["halt"], &of(&status, "profiles")["stopped_partitions"]), (&Value::Null, &json!([])));
    let (_, screen, _) = run(&site, &["status"]);
    for told in ["serving, 1 STOPPED", "STOPPED: the database failed: SQLSTATE 42501", "publisher FAILING: "]
    {
        assert!(screen.contains(told), "{told} is not in\n{screen}");
    }
    assert!(!screen.contains("publishing"), "{screen}");
    // Of a process that has met neither.
    let detailed = Client::new(&commands.ready.http, "acme").get("/health/detailed").await.expect(200).json();
    assert_eq!(
        (&detailed["status"], &detailed["checks"]["work"]["status"]),
        (&json!("degraded"), &json!("stopped")),
        "{detailed}"
    );
    let (well, said, _) = run(&site, &["doctor"]);
    assert!(!well && said.contains("FAIL  work") && said.contains("42501"), "{said}");

    let grant = format!("GRANT INSERT ON audit_1.entries TO {service}");
    sqlx::raw_sql(&grant).execute(&mut owner).await.unwrap();
    assert!(publisher.stop().0.success());
    eventually("nothing stands still", async || {
        let status = json_of();
        let goes_on = of(&status, "audit")["stopped_partitions"] == json!([]);
        (goes_on && status["publisher"]["trouble"].is_null()).then_some(())
    })
    .await;
    let halt = "INSERT INTO log.halt (found_by, why) VALUES ('a test', 'the log was restored')";
    sqlx::raw_sql(halt).execute(&mut owner).await.unwrap();
    assert_eq!(json_of()["halt"]["found_by"], "a test");
    let (_, screen, _) = run(&site, &["status"]);
    let told = "log HALTED, no commands are taken: the log was restored (found by a test, ";
    assert!(screen.contains(told), "{screen}");
    drop((commands, projector));
    site.stop().await;
}

#[tokio::test]
async fn what_nobody_works_on_is_told_wherever_one_looks() {
    let site = Site::migrated().await;
    let commands = site.start(&["command-api"], &[]);
    let mut projector = site.start(&["projector"], &[]);
    let write = Client::new(&commands.ready.http, "acme");
    // Of a process that projects nothing itself.
    let until = async |what: &str, is: &str, told: &[&str]| {
        eventually(what, async || {
            let detailed = write.get("/health/detailed").await.expect(200).json();
            let work = detailed["checks"]["work"].to_string();
            (detailed["status"] == is && told.iter().all(|told| work.contains(told))).then_some(detailed)
        })
        .await
    };
    let worked_off = async || {
        eventually("all is applied and published", async || {
            let status: Value = serde_json::from_str(&run(&site, &["status", "--json"]).1).unwrap();
            let mut readers =
                [of(&status, "profiles"), of(&status, "audit"), &status["publisher"]].into_iter();
            readers.all(|reader| reader["lag_events"] == 0).then_some(())
        })
        .await;
    };
    write.create("ada@example.com").await.expect(201);
    worked_off().await;
    let well = until("all is worked on", "ready", &["null"]).await;
    assert!(well["checks"].get("work").is_none(), "{well}");
    let (well, said, _) = run(&site, &["doctor"]);
    assert!(well && said.contains("ok    work"), "{said}");

    let pid = nix::unistd::Pid::from_raw(projector.pid().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    write.create("grace@example.com").await.expect(201);
    let frozen = format!(":{pid} is frozen");
    let alone = [
        "nobody works on profiles_1 (16 of 16 partitions), since 2",
        "nobody works on audit_1 (16 of 16 partitions), since 2",
        "nobody works on publisher, since 2",
        &frozen,
    ];
    until("the frozen one is told", "degraded", &alone).await;
    let (well, said, _) = run(&site, &["doctor"]);
    let warned = |told: &&str| said.contains(&format!("warn  work           {told}"));
    assert!(well && alone[..3].iter().all(warned) && said.contains(&frozen), "{said}");
    assert!(!said.contains("ok    work"), "{said}");
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    worked_off().await;
    until("it works again", "ready", &["null"]).await;

    // Where it has given everything back, it is what waits that tells.
    assert!(projector.stop().0.success());
    until("nothing waits yet", "ready", &["null"]).await;
    let (well, said, _) = run(&site, &["doctor"]);
    assert!(well && said.contains("warn  work           no process projects or publishes"), "{said}");
    write.create("edsger@example.com").await.expect(201);
    // One user lies in one partition.
    let waits =
        ["nobody works on profiles_1 (1 of 16 partitions), since 2", "nobody works on publisher, since 2"];
    let told = until("what waits is told", "degraded", &waits).await;
    assert!(told["publisher"]["lag_seconds"].as_f64().unwrap() > 4.0, "{told}");
    let (well, said, _) = run(&site, &["doctor"]);
    assert!(well && said.contains("warn  work           nobody works on publisher, since 2"), "{said}");
    drop(commands);
    site.stop().await;
}

#[tokio::test]
async fn who_watches_into_a_file_gets_no_escape_codes() {
    let site = Site::migrated().await;
    let mut watch = site.command(&["status", "--watch"]);
    let mut watch = watch.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut said = std::io::BufReader::new(watch.stdout.take().unwrap());
    let mut text = String::new();
    while text.matches("NO PROCESS").count() < 2 {
        assert!(std::io::BufRead::read_line(&mut said, &mut text).unwrap() > 0);
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert!(!text.contains('\x1b'), "{text:?}");
    site.stop().await;
}

#[tokio::test]
async fn whoever_knows_the_data_directory_of_an_up_can_ask_how_it_is() {
    let directory = data_directory();
    let mut up = Rollcall::start(Setup { directory: Some(directory.path().to_owned()), ..Setup::default() });
    let data = directory.path().join("data").display().to_string();
    let ask = |command: &[&str]| {
        let mut ask = std::process::Command::new(env!("CARGO_BIN_EXE_rollcall"));
        let Output { status, stdout, stderr } =
            ask.args(command).args(["--data-dir", &data]).output().unwrap();
        (status.success(), text(stdout) + &text(stderr))
    };
    let publishing = eventually("it publishes", async || {
        let (well, said) = ask(&["status"]);
        assert!(well, "{said}");
        said.contains("publishing").then_some(said)
    })
    .await;
    assert!(publishing.contains("profiles_1"), "{publishing}");
    let commands: [(&[&str], &str); 5] = [
        (&["parked"], "nothing is parked"),
        (&["parked", "list"], "nothing is parked"),
        (&["rebuild", "audit"], "audit_2 serves"),
        (&["audit-projections"], "0 differ"),
        (&["adopt-restored", "--yes", "--force"], "adopted"),
    ];
    for (command, told) in commands {
        let (well, said) = ask(command);
        assert!(well && said.contains(told), "{command:?}: {said}");
    }
    up.wait();
    let (well, said) = ask(&["status"]);
    assert!(!well && said.contains("no \"rollcall up\" with servers of its own runs in"), "{said}");
}
