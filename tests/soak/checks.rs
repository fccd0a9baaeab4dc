//! What must hold when all is over.
//!
//! Seen through the public API where that can show it: what each user's events are (`GET /audit`), what it is now
//! (`GET /users`), who has an email (`POST /users/query`). A fresh fold is one that a projector makes from nothing.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    SETTLES_WITHIN,
    load::Ledger,
    log::{Event, Log},
    request::{Command, TENANT, Wish},
    roles::Roles,
    rollcall::{Client, eventually},
    subscriber::Subscriber,
};

const PAGE: usize = 1_000;
/// How long folding an event may take, all projections together.
const FOLDS_EACH_WITHIN: Duration = Duration::from_millis(2);
/// Queries at once.
const AT_ONCE: usize = 8;

/// Waits until every projection, the publisher among them, has reached the heads; when that was. Panics with what is behind
/// at the deadline.
pub async fn settled(log: &Log, roles: &Roles, deadline: Instant) -> Instant {
    let statement =
        "SELECT format('%s of partition %s at %s of %s', c.projection, partition, c.position, p.position)
         FROM projections.checkpoints c JOIN log.heads p USING (partition) WHERE c.position <> p.position";
    loop {
        assert_eq!(roles.failures(), Vec::<String>::new(), "a process ended by itself");
        let behind: Vec<String> = sqlx::query_scalar(statement).fetch_all(&log.pool).await.unwrap();
        if behind.is_empty() {
            return Instant::now();
        }
        if Instant::now() > deadline {
            // A log that is broken says more than what stops there.
            log.assert_sound().await;
            panic!("stuck: {behind:#?}");
        }
        sleep(Duration::from_millis(50)).await;
    }
}

pub async fn everything(log: &Log, roles: &Roles, ledger: &Ledger, subscriber: &Subscriber) {
    let events = log.assert_sound().await;
    let reader = Client::new(&roles.urls("query-api")[0], TENANT);
    let audit = pages(&reader, "/api/v1/audit").await;
    each_event_is_audited_once(&events, &audit);
    each_command_is_there_once_or_not_at_all(ledger, &audit);
    records_are_of_what_was_done(log, ledger).await;

    let users = pages(&reader, "/api/v1/users").await;
    users_are_what_their_events_made(&users, &audit);
    each_email_is_its_holders(&reader, &users, &audit).await;
    subscribers_saw_everything_in_order(&events, subscriber).await;
    a_fresh_fold_gives_the_same(log, roles, &reader, &users, &audit).await;
    println!("{} events of {} users", events.len(), users.len());
}

/// All items of a listing.
async fn pages(client: &Client, path: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut token = None::<String>;
    loop {
        let after = token.map(|token| format!("&page_token={token}")).unwrap_or_default();
        let page = client.get(&format!("{path}?page_size={PAGE}{after}")).await.expect(200).json();
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next_page_token"].as_str() {
            Some(next) => token = Some(next.to_owned()),
            None => return items,
        }
    }
}

fn text<'a>(item: &'a Value, member: &str) -> &'a str {
    item[member].as_str().unwrap_or_else(|| panic!("no {member}: {item}"))
}

fn version(item: &Value) -> u64 {
    item["version"].as_u64().unwrap()
}

fn each_event_is_audited_once(events: &[Event], audit: &[Value]) {
    let mut audited: HashMap<&str, usize> = HashMap::new();
    for entry in audit {
        *audited.entry(text(entry, "event_id")).or_default() += 1;
    }
    for event in events {
        let times = audited.remove(event.event_id.to_string().as_str()).unwrap_or_default();
        assert_eq!(times, 1, "the audit does not list once: {event:?}");
    }
    assert!(audited.is_empty(), "the audit lists what is not in the log: {audited:?}");
}

/// Entries by a member, each group in order of versions.
fn grouped<'a>(audit: &'a [Value], member: &str) -> HashMap<&'a str, Vec<&'a Value>> {
    let mut groups: HashMap<&str, Vec<&Value>> = HashMap::new();
    for entry in audit {
        groups.entry(text(entry, member)).or_default().push(entry);
    }
    groups.values_mut().for_each(|entries| entries.sort_by_key(|entry| version(entry)));
    groups
}

fn each_command_is_there_once_or_not_at_all(ledger: &Ledger, audit: &[Value]) {
    let mut stored = grouped(audit, "reason");
    let histories = grouped(audit, "user_id");
    for command in ledger.requests.iter().flat_map(|request| &request.commands) {
        let entries = stored.remove(command.marker.as_str()).unwrap_or_default();
        let count = entries.len();
        let whole = command.events().contains(&count);
        match &command.known.done {
            Some(done) => {
                assert!(whole, "an acknowledged command is there {count} times: {command:?} {entries:?}");
                for (entry, expected) in entries.iter().rev().zip((0..=done.version).rev()) {
                    assert_eq!(
                        (text(entry, "user_id"), version(entry)),
                        (&*done.id, expected),
                        "{command:?}"
                    );
                }
                assert_wish_is_true(command, done.version, &histories[&*done.id]);
            }
            None if command.known.uncertain => {
                assert!(whole || count == 0, "a command is there in part: {command:?} {entries:?}");
                assert!(
                    entries.windows(2).all(|pair| version(pair[0]) + 1 == version(pair[1])),
                    "{entries:?}"
                );
            }
            None => assert_eq!(count, 0, "a command that was refused happened: {command:?} {entries:?}"),
        }
    }
    assert!(stored.is_empty(), "nobody asked for {stored:?}");
}

/// At the version that was told the user is as it was wished.
fn assert_wish_is_true(command: &Command, at: u64, history: &[&Value]) {
    let (path, wished) = match &command.wish {
        Wish::Create { email } | Wish::ChangeEmail { email } => ("/email", email.clone()),
        Wish::Update => ("/given_name", format!("Name {}", command.marker)),
    };
    let until: Vec<&Value> = history.iter().copied().filter(|entry| version(entry) <= at).collect();
    assert_eq!(last(&until, path), Some(&json!(wished)), "{command:?} at {at}");
}

/// What a member became last.
fn last<'a>(history: &[&'a Value], path: &str) -> Option<&'a Value> {
    let changes = |entry: &'a Value| entry["changes"].as_array().unwrap().iter();
    history
        .iter()
        .rev()
        .find_map(|entry| changes(entry).find(|change| change["path"] == path))
        .map(|to| &to["to"])
}

async fn records_are_of_what_was_done(log: &Log, ledger: &Ledger) {
    let keyed = ledger.requests.iter().filter(|request| request.key.is_some());
    let commands = || keyed.clone().flat_map(|request| &request.commands);
    let done = commands().filter(|command| command.known.done.is_some()).count();
    let maybe = commands().filter(|command| command.known.done.is_none() && command.known.uncertain).count();
    let kept: i64 =
        sqlx::query_scalar("SELECT count(*) FROM log.commands").fetch_one(&log.pool).await.unwrap();
    let kept = usize::try_from(kept).unwrap();
    assert!(
        (done..=done + maybe).contains(&kept),
        "{kept} records of {done} commands done and {maybe} unknown"
    );
}

fn users_are_what_their_events_made(users: &[Value], audit: &[Value]) {
    let histories = grouped(audit, "user_id");
    assert_eq!(users.len(), histories.len(), "a user is missing, or nobody made it");
    for user in users {
        let history = &histories[text(user, "id")];
        assert_eq!(user["version"], history.last().unwrap()["version"], "{user} is not at its last event");
        assert_eq!(history.len() as u64, version(user), "{user} has a hole in its history");
        for member in ["email", "given_name"] {
            assert_eq!(Some(&user[member]), last(history, &format!("/{member}")), "{user}");
        }
    }
}

/// Who has an email holds its claim, and what nobody has any more is nobody's. As many claims as users are in the log, so
/// there is no other.
async fn each_email_is_its_holders(reader: &Client, users: &[Value], audit: &[Value]) {
    let mut holders: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for change in audit.iter().flat_map(|entry| entry["changes"].as_array().unwrap()) {
        if change["path"] == "/email" {
            holders.insert(text(change, "to"), None);
        }
    }
    for user in users {
        let before = holders.insert(text(user, "email"), Some(text(user, "id")));
        assert_eq!(before, Some(None), "two users have one email: {user}");
    }
    stream::iter(holders)
        .for_each_concurrent(AT_ONCE, async |(email, holder)| {
            let found = reader.post("/api/v1/users/query", json!({"email": email})).await.expect(200).json();
            let found: Vec<&str> =
                found["items"].as_array().unwrap().iter().map(|user| text(user, "id")).collect();
            assert_eq!(found, Vec::from_iter(holder), "holders of {email}");
        })
        .await;
}

/// At least once, and the first times in the order of their positions.
async fn subscribers_saw_everything_in_order(events: &[Event], subscriber: &Subscriber) {
    let seen = eventually("the subscriber's seeing of every event", async || {
        let seen = subscriber.seen();
        (seen.len() >= events.len()).then_some(seen)
    })
    .await;
    let stored: HashMap<(i32, i64), String> =
        events.iter().map(|event| ((event.partition, event.position), event.event_id.to_string())).collect();
    let mut reached: BTreeMap<i32, i64> = BTreeMap::new();
    for message in &seen {
        let (place, last) =
            ((message.partition, message.position), reached.entry(message.partition).or_default());
        assert_eq!(stored.get(&place), Some(&message.event_id), "a message is not in the log: {message:?}");
        assert!(
            message.position <= *last + 1,
            "the subscriber missed what is between {last} and {message:?}"
        );
        *last = (*last).max(message.position);
    }
    assert_eq!(reached.values().sum::<i64>(), events.len() as i64, "the subscriber did not see every event");
}

/// Empties the read models and lets the projectors fold the log from its beginning.
async fn a_fresh_fold_gives_the_same(
    log: &Log,
    roles: &Roles,
    reader: &Client,
    users: &[Value],
    audit: &[Value],
) {
    sqlx::raw_sql(
        "BEGIN;
         UPDATE projections.checkpoints SET position = 0 WHERE projection IN ('profiles', 'audit');
         TRUNCATE profiles_1.users, audit_1.entries;
         COMMIT",
    )
    .execute(&log.pool)
    .await
    .unwrap();
    // A projector reads its checkpoints when it starts.
    roles.iter().filter(|role| role.name.starts_with("projector")).for_each(|role| role.kill());
    let within = SETTLES_WITHIN + FOLDS_EACH_WITHIN * audit.len().try_into().unwrap();
    settled(log, roles, Instant::now() + within).await;
    for (listing, before) in [("/api/v1/users", users), ("/api/v1/audit", audit)] {
        let folded = pages(reader, listing).await;
        for (before, folded) in before.iter().zip(&folded) {
            assert_eq!(before, folded, "{listing} was not what a fresh fold gives");
        }
        assert_eq!(before.len(), folded.len(), "{listing} was not what a fresh fold gives");
    }
}
