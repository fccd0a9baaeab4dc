//! What a command costs on a log of millions of events, against an empty one.

use sqlx::{Connection, Executor, PgConnection};

use crate::{
    CALLERS,
    site::Site,
    support::{
        load,
        report::{Figure, Goal, Report, thousands},
        run::{median, number, rounds, seconds},
    },
};

const QUIET: [(&str, &str); 1] = [("ROLLCALL_LOG", "warn")];

pub async fn measure(report: &mut Report) {
    let events = number("BENCH_LARGE_EVENTS", 5_000_000);
    let (empty, full) = (Site::migrated().await, Site::migrated().await);
    let api = full.start(&["command-api"], &QUIET);
    load::creates(&api.ready.http, CALLERS, seconds()).await;
    drop(api);
    grow(&full, events).await;
    let apis = [empty.start(&["command-api"], &QUIET), full.start(&["command-api"], &QUIET)];
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..=rounds() {
        for (api, rates) in apis.iter().zip(&mut rates) {
            let rate = load::creates(&api.ready.http, CALLERS, seconds()).await.rate();
            // The first round warms up.
            if round > 0 {
                rates.push(rate);
            }
        }
    }
    let [empty_rate, full_rate] = rates.map(|rates| median(&rates));
    report.add(
        Figure::rate(format!("CreateUser on a log of {} events", thousands(events as f64)), full_rate)
            .against("on an empty one", empty_rate)
            .goal(Goal::RatioAtLeast(0.87)),
    );
    drop(apis);
    empty.stop().await;
    full.stop().await;
}

/// Makes the log that large: events like those that are there, with claims and keys, of streams of their own.
async fn grow(site: &Site, events: u64) {
    let mut owner = PgConnection::connect(site.owner_url()).await.unwrap();
    owner.execute("SET statement_timeout = 0; SET synchronous_commit = off").await.unwrap();
    let partitions: i64 =
        sqlx::query_scalar("SELECT count(*) FROM log.partitions").fetch_one(&mut owner).await.unwrap();
    let each = events.cast_signed() / partitions;
    for partition in 0..partitions {
        let sql = format!(
            "WITH like_this AS (SELECT * FROM log.events WHERE partition = {partition} ORDER BY position DESC LIMIT 1),
             made AS (SELECT h.position + n AS position, h.recorded_at + n * interval '1 microsecond' AS recorded_at,
                             gen_random_uuid() AS id
                      FROM log.heads h, generate_series(1, {each}) AS n WHERE h.partition = {partition}),
             events AS (
                 INSERT INTO log.events (position, sequence, recorded_at, event_id, partition, tenant_id, aggregate_type,
                                         aggregate_id, event_type, event_version, payload, personal, metadata)
                 SELECT m.position, 1, m.recorded_at, m.id, {partition}, l.tenant_id, l.aggregate_type, m.id::text, l.event_type,
                        l.event_version, l.payload, l.personal, l.metadata FROM made m, like_this l ORDER BY m.position),
             claims AS (
                 INSERT INTO log.claims (digest, generation, tenant_id, aggregate_type, aggregate_id)
                 SELECT sha256(m.id::text::bytea), 1, l.tenant_id, l.aggregate_type, m.id::text FROM made m, like_this l),
             keys AS (
                 INSERT INTO vault.data_keys (aggregate_id, tenant_id, aggregate_type, master_generation, wrapped)
                 SELECT m.id::text, l.tenant_id, l.aggregate_type, 1, k.wrapped FROM made m, like_this l,
                     (SELECT wrapped FROM vault.data_keys LIMIT 1) k)
             SELECT"
        );
        owner.execute(sql.as_str()).await.unwrap();
    }
    owner.execute("VACUUM ANALYZE log.events, log.claims, vault.data_keys; ").await.unwrap();
    owner.execute("CHECKPOINT").await.unwrap();
}
