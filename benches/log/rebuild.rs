//! Rebuilding profiles, beside a copy of the same rows inside the database; and how fast the log's tail can be read.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use rollcall_event_store::tail::{self, Span};
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};

use crate::{
    rollcall::{Client, Rollcall},
    site::Site,
    support::{
        report::{Figure, Goal, Report, thousands},
        run::number,
    },
};

const QUIET: [(&str, &str); 1] = [("ROLLCALL_LOG", "warn")];
const BATCH: u64 = 1_000;
const CONNECTIONS: u64 = 4;
/// Events that one read of the tail takes.
const PAGE: u64 = 1_000;

pub async fn measure(report: &mut Report) {
    let events = number("BENCH_EVENTS", 1_000_000);
    let site = Site::migrated().await;
    let commands = site.start(&["command-api"], &QUIET);
    fill(&commands, events).await;
    tails(&site, report).await;
    drop(commands);

    // The first version is filled from nothing, too.
    let first = rebuild(&site, &["profiles"]).await;
    let copied = copy(&site).await;
    rebuild(&site, &["profiles"]).await;
    let rate = events as f64 / first.as_secs_f64();
    let name = format!(
        "a rebuild of profiles from {} events, whole (filled, indexed, checked, switched)",
        thousands(events as f64)
    );
    report.add(
        Figure::rate(name, rate)
            .detail(format!("{:.0} s", first.as_secs_f64()))
            .against("INSERT … SELECT of the rows, indexes and all", events as f64 / copied.as_secs_f64())
            .goal(Goal::AtLeast(100_000.0)),
    );
    site.stop().await;
}

/// Users by batches of commands.
async fn fill(commands: &Rollcall, events: u64) {
    let begun = Instant::now();
    let base = commands.ready.http.clone();
    let workers = (0..CONNECTIONS).map(|worker| {
        let client = Client::new(&base, "acme");
        tokio::spawn(async move {
            for batch in 0..events / BATCH / CONNECTIONS {
                let create = |user| {
                    json!({"type": "CreateUser", "data": {"email": format!("user-{worker}-{batch}-{user}@example.com"),
                        "given_name": "Ada", "family_name": "Lovelace", "phone": "+4930123456", "locale": "en-GB",
                        "time_zone": "Europe/London", "traits": {"department": "R&D", "seats": 3},
                        "preferences": {"email": {"newsletter": true}}}})
                };
                client.post("/api/v1/commands", Value::Array((0..BATCH).map(create).collect())).await.expect(200);
            }
        })
    });
    futures_util::future::join_all(workers.collect::<Vec<_>>()).await.into_iter().for_each(Result::unwrap);
    eprintln!("{events} events in {:.0} s", begun.elapsed().as_secs_f64());
}

async fn rebuild(site: &Site, arguments: &[&str]) -> Duration {
    let begun = Instant::now();
    let mut command: Command = site.command(&[&["rebuild"], arguments].concat());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    eprintln!("{}", said.trim());
    begun.elapsed()
}

/// The same rows into a table like the read model's, with its indexes.
async fn copy(site: &Site) -> Duration {
    let mut owner = PgConnection::connect(site.owner_url()).await.unwrap();
    let serving: i32 =
        sqlx::query_scalar("SELECT version FROM projections.serving WHERE projection = 'profiles'")
            .fetch_one(&mut owner)
            .await
            .unwrap();
    let from = format!("profiles_{serving}.users");
    owner.execute("SET statement_timeout = 0").await.unwrap();
    let begun = Instant::now();
    owner.execute(format!("CREATE TABLE copied (LIKE {from} INCLUDING ALL)").as_str()).await.unwrap();
    owner.execute(format!("INSERT INTO copied SELECT * FROM {from}").as_str()).await.unwrap();
    let took = begun.elapsed();
    owner.execute("DROP TABLE copied").await.unwrap();
    took
}

async fn tails(site: &Site, report: &mut Report) {
    let mut owner = PgConnection::connect(site.owner_url()).await.unwrap();
    let heads: Vec<(i32, i64)> =
        sqlx::query_as("SELECT partition, position FROM log.heads ORDER BY partition")
            .fetch_all(&mut owner)
            .await
            .unwrap();
    for (name, partitions) in [("one partition", 1), ("all partitions", heads.len())] {
        let heads: Vec<(u16, u64)> = heads[..partitions]
            .iter()
            .map(|&(partition, head)| (u16::try_from(partition).unwrap(), head.cast_unsigned()))
            .collect();
        let mut at = vec![0_u64; partitions];
        let (begun, mut read) = (Instant::now(), 0);
        loop {
            let each = PAGE / partitions as u64;
            let span = |(place, &(partition, head)): (usize, &(u16, u64))| {
                let (after, until) = (at[place], head.min(at[place] + each));
                (until > after).then_some(Span { partition, after, until })
            };
            let spans: Vec<Span> = heads.iter().enumerate().filter_map(span).collect();
            if spans.is_empty() || begun.elapsed() > Duration::from_secs(10) {
                break;
            }
            read += tail::read_spans(&mut owner, &spans).await.unwrap().len();
            for span in spans {
                let place = heads.iter().position(|(partition, _)| *partition == span.partition).unwrap();
                at[place] = span.until;
            }
        }
        let name = format!("reading the log's tail, {name}, pages of {PAGE}, one connection");
        report.add(Figure::rate(name, read as f64 / begun.elapsed().as_secs_f64()));
    }
}
