//! What is in force, where it came from, and what a start would need.

use std::{fs, process::Output};

use crate::{
    rollcall::{Rollcall, Setup},
    site::{Site, text, write_key},
};

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rollcall"));
    command.args(arguments).env_remove("DATABASE_URL").env_remove("NATS_URL").envs(variables.iter().copied());
    told(command.output().unwrap())
}

fn told(output: Output) -> (bool, String, String) {
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn config_tells_every_value_and_its_origin_and_no_password() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "[limits]\nrequests = 77\n").unwrap();
    let path = file.path().display().to_string();
    let (good, shown, errors) = run(
        &["config", "--config", &path, "--set", "limits.connections=5"],
        &[("DATABASE_URL", "postgres://owner:hidden@db/rollcall"), ("ROLLCALL_LOG_FORMAT", "json")],
    );
    assert!(good, "{errors}");
    let line = |key: &str| shown.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    assert!(line("limits.requests = 77").ends_with(&format!("# {path}")));
    assert!(line("limits.connections = \"5\"").ends_with("# --set"), "{}", line("limits.connections"));
    assert!(line("log_format = \"json\"").ends_with("# ROLLCALL_LOG_FORMAT"));
    assert!(line("database.url = \"postgres://owner:***@db/rollcall\"").ends_with("# DATABASE_URL"));
    assert!(line("shutdown.drain_s = 30").ends_with("# default"));
    assert!(!shown.contains("hidden") && !errors.contains("hidden"));
}

#[test]
fn the_defaults_are_a_file_to_start_from() {
    let (good, defaults, _) = run(&["config", "--defaults"], &[]);
    assert!(good && defaults.contains("# Where to listen"));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), defaults).unwrap();
    let (good, shown, errors) = run(&["config", "--config", &file.path().display().to_string()], &[]);
    assert!(good && shown.contains("limits.requests = 6000"), "{errors}");
}

#[test]
fn what_a_start_would_refuse_is_refused_by_name() {
    let (good, _, errors) =
        run(&["config"], &[("ROLLCALL_AUTH_MODE", "jwt"), ("ROLLCALL_LIMITS_REQUESTS", "0")]);
    assert!(!good);
    assert!(errors.contains("auth.issuer") && errors.contains("limits.requests"), "{errors}");
    let (good, _, errors) = run(&["config", "--set", "limits.request=1"], &[]);
    assert!(!good && errors.contains("`limits.requests`"), "{errors}");
    let (good, _, errors) = run(&["config", "--config", "/nowhere.toml"], &[]);
    assert!(!good && errors.contains("/nowhere.toml"), "{errors}");
}

#[tokio::test]
async fn the_doctor_finds_what_is_missing_and_says_how_to_mend_it() {
    let site = Site::new().await;
    let (good, report, errors) = told(site.command(&["doctor"]).output().unwrap());
    assert!(!good && errors.contains("1 check failed"), "{report} {errors}");
    assert!(report.contains("FAIL  log") && report.contains("to mend: run: rollcall migrate"), "{report}");
    site.migrate();
    let (good, report, errors) = told(site.command(&["doctor"]).output().unwrap());
    assert!(good, "{report} {errors}");
    for found in ["ok    database", "ok    log", "ok    read models", "ok    nats", "ok    master key"] {
        assert!(report.contains(found), "{found}: {report}");
    }
    assert!(!report.contains(site.owner_url()), "{report}");

    let fails = |set: &str, what: &str, mend: &str| {
        let (good, report, errors) = told(site.command(&["doctor", "--set", set]).output().unwrap());
        assert!(!good && errors.contains("failed"), "{report} {errors}");
        let line = report.lines().position(|line| line.starts_with(&format!("FAIL  {what}")));
        let line = line.unwrap_or_else(|| panic!("{what}: {report}"));
        assert!(report.lines().nth(line + 1).unwrap().contains(mend), "{report}");
    };
    let wrong = site.path().join("wrong.key");
    write_key(&wrong, "08");
    fails(&format!("master_key.file={}", wrong.display()), "log", "as it says");
    fails("master_key.file=/nowhere", "master key", "openssl rand -hex 32");
    fails("database.url=postgres://nobody@127.0.0.1:1/x", "database", "database.url");
    fails("nats.url=nats://127.0.0.1:1", "nats", "nats.url");
    fails(&format!("database.url={}?sslmod=verify-full", site.owner_url()), "database", "database.url");
    // With the service's own URL PostgreSQL is the first to notice another key.
    let service = site.migrate();
    let set = format!("database.url={service}");
    let wrong = format!("master_key.file={}", wrong.display());
    let (good, report, _) = told(site.command(&["doctor", "--set", &set, "--set", &wrong]).output().unwrap());
    assert!(!good && report.contains("this is not the key of this log"), "{report}");
    let (_, report, _) = told(site.command(&["doctor", "--set", "http=0.0.0.0:0"]).output().unwrap());
    assert!(report.contains("warn  http") && report.contains("auth.mode"), "{report}");
    let (_, report, _) = run(&["doctor", "--data-dir", "/nowhere"], &[]);
    let told = "warn  data           no \"rollcall up\" with servers of its own runs in /nowhere";
    assert!(report.contains(told), "{report}");
    site.stop().await;
}

#[tokio::test]
async fn healthcheck_says_whether_a_process_is_ready() {
    let mut rollcall = Rollcall::start(Setup::default());
    let url = format!("{}/readyz", rollcall.ready.http);
    let address = rollcall.ready.http.strip_prefix("http://").unwrap().to_owned();
    assert!(run(&["healthcheck", &url], &[]).0);
    for short in [&address, &rollcall.ready.http] {
        let (good, _, errors) = run(&["healthcheck", short], &[]);
        assert!(good, "{short}: {errors}");
    }
    let (good, _, errors) = run(&["healthcheck", &format!("{address}/ready")], &[]);
    assert!(!good && errors.contains("404") && errors.contains("/readyz"), "{errors}");
    assert!(run(&["healthcheck"], &[("ROLLCALL_HTTP", &address)]).0);
    let data = rollcall.directory().join("data").display().to_string();
    let (good, _, errors) = run(&["healthcheck", "--data-dir", &data], &[]);
    assert!(good, "{errors}");
    rollcall.stop();
    let (good, _, errors) = run(&["healthcheck", &url], &[]);
    assert!(!good && errors.contains("does not answer"), "{errors}");
    // Whoever listens elsewhere is not the one that was meant.
    for data in [data.as_str(), "/nowhere"] {
        for given in [(&["healthcheck", "--data-dir", data][..], ""), (&["healthcheck"], data)] {
            let (arguments, variable) = given;
            let variables = [("ROLLCALL_DATA_DIR", variable)];
            let (good, _, errors) = run(arguments, if variable.is_empty() { &[] } else { &variables });
            let told = format!("no \"rollcall up\" with servers of its own runs in {data}");
            assert!(!good && errors.contains(&told), "{given:?}: {errors}");
        }
    }
}
