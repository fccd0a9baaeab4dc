//! Starts that are refused: one clear line each, and an exit status that says so.

use std::{cell::RefCell, fs, path::Path, time::Instant};

use sqlx::Executor;

use crate::{
    log::Log,
    nats_away::{NatsServer, free_port},
    rollcall::{Rollcall, Setup, data_directory, eventually},
};

/// A start that must be refused with one line that has all of these words.
struct Refusal<'a> {
    arguments: &'a [&'a str],
    variables: &'a [(&'a str, &'a str)],
    says: &'a [&'a str],
}

impl Refusal<'_> {
    /// What is wrong with it, if anything is.
    fn check(&self, directory: &Path) -> Result<(), String> {
        let mut variables: Vec<(String, String)> =
            self.variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        // What an operator sees who sets nothing is at most this.
        variables.push(("ROLLCALL_LOG".to_owned(), "warn".to_owned()));
        let arguments = self.arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let begun = Instant::now();
        let (status, said) =
            Rollcall::refused(&Setup { arguments, variables, ..Setup::default() }, directory);
        let is_one_line = said.lines().count() == 1 && said.starts_with("rollcall: ");
        let missing = self.says.iter().find(|word| !said.contains(**word));
        let wrong = [
            (begun.elapsed().as_secs() >= 30, "it took long"),
            (status.code().is_none_or(|code| code == 0), "its exit status is no failure"),
            (!is_one_line, "it is not one line"),
            (said.contains("secret"), "it shows a password"),
            (missing.is_some(), "words are missing"),
            (directory.join("ready.json").exists(), "it was ready"),
        ];
        match wrong.iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, what)) => Err(format!("{what} ({missing:?}, {status}):\n{said}")),
            None => Ok(()),
        }
    }
}

fn refuse(directory: &Path, arguments: &[&str], variables: &[(&str, &str)], says: &[&str]) {
    if let Err(wrong) = (Refusal { arguments, variables, says }).check(directory) {
        panic!("{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_cannot_be_is_refused_in_one_line() {
    let running = Rollcall::start(Setup::default());
    let client = running.client("default");
    client.create("ada@example.com").await.expect(201);
    let database = running.ready.postgres.clone();
    let key = running.directory().join("data/master.key");
    let key = key.to_str().unwrap();
    // Nobody listens there, and the refusals come before it would matter.
    let (nowhere, nobody) = (format!("nats://127.0.0.1:{}", free_port()), free_port());
    let of_ours = [("DATABASE_URL", database.as_str()), ("NATS_URL", nowhere.as_str())];
    let with = |more: &[(&'static str, String)]| -> Vec<(String, String)> {
        let mut variables: Vec<(String, String)> =
            of_ours.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        variables.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        variables
    };
    let wrong = RefCell::new(Vec::new());
    let refused = |arguments: &[&str], variables: &[(String, String)], says: &[&str]| {
        let place = data_directory();
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        wrong
            .borrow_mut()
            .extend(Refusal { arguments, variables: &variables, says }.check(place.path()).err());
    };

    // The data directory of a service that runs.
    let place = data_directory();
    let held = running.directory().join("data");
    std::os::unix::fs::symlink(&held, place.path().join("data")).unwrap();
    refuse(
        place.path(),
        &[],
        &[],
        &["in use by process", &running.pid().to_string(), "another data directory"],
    );

    // Databases that are not there.
    let unreachable = format!("postgres://user:secret@127.0.0.1:{nobody}/rollcall");
    let named = |url: &str| vec![("DATABASE_URL".to_owned(), url.to_owned()), with(&[])[1].clone()];
    refused(&[], &named(&unreachable), &["PostgreSQL cannot be reached at", &nobody.to_string()]);
    refused(&[], &named("mysql://user:secret@127.0.0.1/rollcall"), &["DATABASE_URL", "postgres://"]);
    refused(&[], &named("postgres://user:secret@127.0.0.1:port/rollcall"), &["DATABASE_URL"]);
    refused(&[], &named("no URL"), &["DATABASE_URL"]);
    refused(&[], &named(""), &["DATABASE_URL"]);
    let wrong_password = database.replacen("rollcall_owner:", "rollcall_owner:secret", 1);
    refused(&[], &named(&wrong_password), &["PostgreSQL cannot be reached at", "password"]);
    let other_database = format!("{}_not_there", database);
    refused(&[], &named(&other_database), &["PostgreSQL cannot be reached at", "does not exist"]);

    // A NATS that can be reached and has no JetStream, and what is no NATS.
    let plain = NatsServer::start(free_port(), None);
    let address = plain.url.strip_prefix("nats://").unwrap().to_owned();
    eventually("nats-server", async || std::net::TcpStream::connect(&address).ok()).await;
    let variables = [
        ("DATABASE_URL".to_owned(), database.clone()),
        ("NATS_URL".to_owned(), plain.url.clone()),
        ("ROLLCALL_MASTER_KEY_FILE".to_owned(), key.to_owned()),
    ];
    refused(&[], &variables, &["nats.url", "no JetStream", "-js"]);
    let variables =
        [variables[0].clone(), ("NATS_URL".to_owned(), "no URL".to_owned()), variables[2].clone()];
    refused(&[], &variables, &["nats.url"]);

    // A schema that a newer binary made.
    let log = Log::open(&database).await;
    log.pool.execute("UPDATE log.meta SET requires = 9999").await.unwrap();
    let right_key = with(&[("ROLLCALL_MASTER_KEY_FILE", key.to_owned())]);
    refused(&[], &right_key, &["newer than this binary", "9999"]);
    log.pool.execute("UPDATE log.meta SET requires = 1").await.unwrap();

    // Master keys: another one, none, none where one was named, and what is none.
    let place = data_directory();
    let other_key = place.path().join("other.key");
    let write = |text: &str| {
        use std::os::unix::fs::PermissionsExt;
        fs::write(&other_key, text).unwrap();
        fs::set_permissions(&other_key, fs::Permissions::from_mode(0o600)).unwrap();
    };
    let named = with(&[("ROLLCALL_MASTER_KEY_FILE", other_key.to_str().unwrap().to_owned())]);
    refused(&[], &named, &["other.key", "master key"]);
    write(&"5a".repeat(32));
    refused(&[], &named, &["another master key", "other.key"]);
    write("5a");
    refused(&[], &named, &["other.key"]);
    write("");
    refused(&[], &named, &["other.key"]);
    refused(&[], &with(&[]), &["has a master key, but there is none at", "master.key"]);
    log.pool.execute("CREATE DATABASE another").await.unwrap();
    let another = format!("{}/another", database.rsplit_once('/').unwrap().0);
    let not_there = place.path().join("missing.key");
    let variables = [
        ("DATABASE_URL".to_owned(), another),
        ("NATS_URL".to_owned(), nowhere.clone()),
        ("ROLLCALL_MASTER_KEY_FILE".to_owned(), not_there.to_str().unwrap().to_owned()),
    ];
    refused(&[], &variables, &["missing.key", "openssl rand -hex 32"]);
    assert!(!not_there.exists(), "a key that an operator named is not made for them");

    // Addresses.
    refused(&["--http", "0.0.0.0:0"], &right_key, &["refusing to listen on 0.0.0.0:0", "loopback"]);
    refused(&["--http", "[::]:0"], &right_key, &["loopback"]);
    let ours = running.ready.http.strip_prefix("http://").unwrap();
    refused(&["--http", ours], &right_key, &["cannot listen on", ours]);

    let wrong = wrong.take();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // None of this harmed the one that runs.
    client.create("bea@example.com").await.expect(201);
    assert_eq!(log.assert_sound().await.len(), 2);
}

#[test]
fn data_of_another_postgresql_version_are_refused_in_one_line() {
    for (version, says) in [("14", "15 or newer is needed"), ("99", "install \"postgresql-99\"")] {
        let place = data_directory();
        let cluster = place.path().join("data/postgres");
        fs::create_dir_all(&cluster).unwrap();
        fs::write(cluster.join("PG_VERSION"), format!("{version}\n")).unwrap();
        let made_by = format!("was made by PostgreSQL {version}");
        refuse(place.path(), &[], &[], &[&made_by, says]);
    }
}

#[test]
fn a_password_that_is_missing_beside_its_data_is_refused_in_one_line() {
    let place = data_directory();
    let setup = Setup { directory: Some(place.path().to_owned()), ..Setup::default() };
    let mut rollcall = Rollcall::start(setup.clone());
    let (status, _) = rollcall.stop();
    assert!(status.success());
    fs::remove_file(place.path().join("data/postgres.password")).unwrap();
    refuse(place.path(), &[], &[], &["postgres.password", "restore it from a backup"]);
}
