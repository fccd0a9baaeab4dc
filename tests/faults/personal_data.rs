//! No value about a person stands anywhere in clear text: not in the database, its files, the logs, the metrics or
//! JetStream. Traits and associations stand plainly in the read models by design and are not looked for.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::{
    log::Log,
    processes, published,
    rollcall::{Client, Rollcall, Setup, data_directory, eventually},
};

/// Part of every value that is looked for: a word that means nothing and stands nowhere else.
const WORD: &str = "Zqxsentinelvk";
const PHONE: &str = "+4915782639401";
/// A value that stands plainly in the read models: what finds it would find the others.
const CONTROL: &str = "plainlyseencontrol";

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// Base64 of the text wherever it stands in a longer one: without the digits at its ends that depend on its neighbours.
fn base64(text: &str) -> Vec<String> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    (0..3)
        .map(|skipped| {
            let whole = text.len() - skipped - (text.len() - skipped) % 3;
            text.as_bytes()[skipped..skipped + whole]
                .chunks(3)
                .flat_map(|three| {
                    let bits = three.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
                    [18, 12, 6, 0].map(|shift| char::from(DIGITS[bits >> shift & 63]))
                })
                .collect()
        })
        .collect()
}

/// In every form, to be looked for without regard to case: as it is, in hexadecimal and in Base64.
fn forms(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let mut forms = vec![text.to_owned(), hex(text), hex(&lower), hex(&text.to_uppercase())];
    for text in [text, &lower] {
        forms.extend(base64(text));
    }
    forms
}

/// The files below a place that hold any of the texts; grep is fast where a test build is not.
fn files_with(texts: &[String], place: &Path) -> Vec<PathBuf> {
    let mut command = Command::new("grep");
    command.env("LC_ALL", "C").args(["-r", "-l", "-a", "-i", "-F"]);
    for text in texts {
        command.arg("-e").arg(text);
    }
    let output = command.arg("--").arg(place).stdin(Stdio::null()).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(PathBuf::from).collect()
}

/// pg_dump of the newest version that is installed.
fn dump(url: &str) -> Vec<u8> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut programs: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin/pg_dump")))
        })
        .collect();
    programs.sort();
    let program = programs.pop().map_or_else(|| PathBuf::from("pg_dump"), |(_, program)| program);
    let output = Command::new(program).arg("--dbname").arg(url).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Sends every kind of request that carries values about a person, accepted and refused.
async fn say_everything(client: &Client) -> String {
    let email = format!("{WORD}.ada@example.com");
    let body = json!({
        "email": email, "given_name": format!("{WORD} Ada"), "family_name": format!("{WORD} Lovelace"),
        "display_name": format!("{WORD} A. L."), "phone": PHONE, "locale": "en-GB", "time_zone": "Europe/London",
        "address": {"formatted": format!("{WORD} Road 1"), "street_address": format!("{WORD} Street 2"),
            "locality": format!("{WORD} Town"), "region": format!("{WORD} Shire"), "postal_code": format!("{WORD}")},
        "external_ids": {"hr": format!("{WORD}-E0001")}, "traits": {"department": CONTROL},
        "reason": format!("{WORD} wanted it"),
    });
    let key = format!("{WORD}-key");
    let keyed = [("Idempotency-Key", key.as_str())];
    let created = client.call("POST", "/api/v1/users", &keyed, Some(&body)).await.expect(201);
    client.call("POST", "/api/v1/users", &keyed, Some(&body)).await.expect(201);
    client.call("POST", "/api/v1/users", &keyed, Some(&json!({"email": email}))).await;
    let path = format!("/api/v1/users/{}", created.id());

    let reason = format!("{WORD} again");
    let new = format!("{WORD}.new@example.com");
    for (method, place, status, body) in [
        ("PATCH", "", 200, json!({"given_name": format!("{WORD} Bea"), "phone": null, "reason": reason})),
        ("PATCH", "", 200, json!({"phone": PHONE, "external_ids": {"crm": format!("{WORD}-7")}})),
        ("PATCH", "", 200, json!({"address": {"locality": format!("{WORD} City")}})),
        ("POST", "/change-email", 200, json!({"email": new, "reason": reason})),
        ("POST", "/verify-email", 200, json!({"email": new})),
        ("POST", "/accept-terms", 200, json!({"policy": "privacy", "version": "1", "reason": reason})),
        ("POST", "/deactivate", 200, json!({"reason": reason})),
        ("POST", "/reactivate", 200, json!({"reason": reason})),
        // Refused.
        ("POST", "/verify-email", 409, json!({"email": format!("{WORD}.third@example.com")})),
        ("POST", "/change-email", 422, json!({"email": format!("{WORD} without an at")})),
        ("PATCH", "", 422, json!({"phone": format!("{PHONE} {WORD}"), (WORD): WORD})),
        ("PATCH", "", 422, json!({"given_name": format!("{WORD}\u{7}"), "locale": WORD, "time_zone": WORD})),
        ("PATCH", "", 422, json!({"email": email, "address": {(WORD): WORD}, "kind": WORD})),
        ("PATCH", "", 422, json!({"traits": {"a b": WORD}, "external_ids": {(WORD): [WORD]}})),
    ] {
        let answer = client.call(method, &format!("{path}{place}"), &[], Some(&body)).await;
        assert_eq!(answer.status, status, "{method} {place} {body}: {answer:?}");
    }
    // A history that is long enough for a snapshot.
    let rename = |n| {
        let data = json!({"given_name": format!("{WORD} {n}")});
        json!({"type": "UpdateUser", "id": created.id(), "data": data})
    };
    let renames: Vec<_> = (0..120).map(rename).collect();
    client.post("/api/v1/commands", json!(renames)).await.expect(200);
    assert_eq!(client.create(&new).await.expect(409).code(), "email-taken");
    let taken = json!({"email": format!("{WORD}.b@example.com"), "given_name": WORD,
        "external_ids": {"hr": format!("{WORD}-E0001")}});
    assert_eq!(client.post("/api/v1/users", taken).await.expect(409).code(), "external-id-taken");
    client.post("/api/v1/users", json!({"email": WORD, "given_name": ""})).await.expect(422);
    let batch = json!([
        {"type": "CreateUser", "data": {"email": new, "given_name": WORD}},
        {"type": "CreateUser", "data": {"email": WORD}},
        {"type": WORD, "data": {}},
        {"type": "DeactivateUser", "id": WORD, "data": {"reason": WORD}},
    ]);
    client.post("/api/v1/commands", batch).await;
    let malformed = client.request("POST", "/api/v1/users").header("Content-Type", "application/json");
    let malformed = malformed.body(format!("{{\"email\": \"{email}\", \"given_name\": \"{WORD}"));
    assert_eq!(Client::send(malformed).await.unwrap().status, 400);
    let twice = client.request("POST", "/api/v1/users").header("Content-Type", "application/json");
    let twice = twice
        .body(format!("{{\"email\": \"{email}\", \"email\": \"{email}\", \"{WORD}\": 1, \"{WORD}\": 2}}"));
    assert_eq!(Client::send(twice).await.unwrap().status, 400);

    // Read, and read wrongly.
    let profile = client.get_after(&path, client.get(&path).await.token()).await.expect(200);
    assert!(profile.text.contains(WORD));
    for place in [
        format!("?email={new}"),
        format!("?name={WORD}"),
        format!("?external_id=hr:{WORD}-E0001"),
        format!("?{WORD}={WORD}"),
        format!("?page_token={WORD}&page_size={WORD}&status={WORD}"),
        format!("/{WORD}"),
        format!("/{WORD}/history"),
        format!("/{}/history?{WORD}={WORD}", created.id()),
        format!("/{}/associations/{WORD}/{WORD}/{WORD}", created.id()),
    ] {
        client.get(&format!("/api/v1/users{place}")).await;
    }
    for body in [
        json!({"email": new}),
        json!({"name": WORD}),
        json!({"external_id": format!("hr:{WORD}-E0001")}),
        json!({(WORD): WORD}),
        json!({"status": WORD}),
    ] {
        client.post("/api/v1/users/query", body).await;
    }
    client.get(&format!("{path}/history")).await.expect(200);
    client.get(&format!("{path}/events")).await;
    client.get(&format!("/api/v1/audit?actor={WORD}&event={WORD}")).await;
    client.get(&format!("/{WORD}")).await.expect(404);
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_about_a_person_stands_anywhere_in_clear_text() {
    let place = data_directory();
    let setup = Setup {
        directory: Some(place.path().to_owned()),
        variables: vec![("ROLLCALL_LOG".to_owned(), "trace".to_owned())],
        ..Setup::default()
    };
    let mut rollcall = Rollcall::start(setup);
    let client = rollcall.client("default");
    let path = say_everything(&client).await;

    // Servers that break in the middle of it say something, too.
    let data = place.path().join("data");
    processes::send(processes::server(&data, "postgres"), Signal::SIGKILL);
    processes::send(processes::server(&data, "nats-server"), Signal::SIGKILL);
    eventually("a creation after the crash", async || {
        let body = json!({"email": format!("{WORD}.c@example.com"), "given_name": WORD, "reason": WORD});
        let answer = client.post("/api/v1/users", body).await;
        client.post("/api/v1/users/query", json!({"name": WORD})).await;
        client.get(&path).await;
        // Taken, where an earlier attempt had succeeded unheard.
        matches!(answer.status, 201 | 409).then_some(())
    })
    .await;

    let log = Log::open(&rollcall.ready.postgres).await;
    eventually("a snapshot", async || {
        client.patch(&path, json!({"given_name": WORD})).await;
        let snapshots: i64 =
            sqlx::query_scalar("SELECT count(*) FROM log.snapshots").fetch_one(&log.pool).await.unwrap();
        (snapshots > 0).then_some(())
    })
    .await;
    published::assert_all(&rollcall.ready.nats, &log.events().await).await;
    let metrics = client.get("/metrics").await.expect(200).text;
    fs::write(place.path().join("metrics.txt"), &metrics).unwrap();
    assert!(metrics.contains("rollcall_http_requests_total"));
    fs::write(place.path().join("dump.sql"), dump(&rollcall.ready.postgres)).unwrap();
    // Written out to the files, as a copy of the disk would have them.
    sqlx::query("CHECKPOINT").execute(&log.pool).await.unwrap();
    drop(log);
    let (status, _) = rollcall.stop();
    assert!(status.success());

    let dump = place.path().join("dump.sql");
    assert_eq!(files_with(&[CONTROL.to_owned()], &dump).len(), 1, "the dump is not whole");
    assert!(!files_with(&[CONTROL.to_owned()], &data.join("postgres")).is_empty());
    assert!(!files_with(&["rollcall.events.default".to_owned()], &data.join("nats")).is_empty());
    let control = hex(CONTROL);
    fs::write(place.path().join("control"), format!("{control} {}", base64("xy plainly seen")[2])).unwrap();
    assert_eq!(files_with(&[control], place.path()).len(), 1, "the search finds what is there");
    assert!(fs::metadata(place.path().join("stderr.log")).unwrap().len() > 10_000);
    let logs = place.path().join("stderr.log");
    assert!(fs::read_to_string(&logs).unwrap().contains("TRACE"));

    let mut sought = forms(WORD);
    sought.extend(forms(PHONE.trim_start_matches('+')));
    let found = files_with(&sought, place.path());
    let lines = found.iter().flat_map(|file| lines_with(&sought, file)).collect::<Vec<_>>();
    assert!(found.is_empty(), "in clear text in {found:?}:\n{}", lines.join("\n"));
}

/// The first lines of a file in which a text stands, for whoever mends it.
fn lines_with(texts: &[String], file: &Path) -> Vec<String> {
    let text = fs::read(file).unwrap();
    let text = String::from_utf8_lossy(&text);
    let stands = |line: &&str| {
        let line = line.to_lowercase();
        texts.iter().any(|text| line.contains(&text.to_lowercase()))
    };
    text.lines().filter(stands).take(5).map(|line| line.chars().take(600).collect()).collect()
}
