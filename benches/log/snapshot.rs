//! What a transaction that holds an old snapshot costs: checkpoints are updated all the while, and nothing of theirs can be
//! tidied up. Beside it the same log right after the snapshot is gone: it has grown by millions of users, which costs as well.

use std::time::{Duration, Instant};

use sqlx::{Connection, Executor, PgConnection};

use crate::{
    CALLERS,
    rollcall::{Rollcall, Setup},
    support::{
        load,
        report::{Figure, Goal, Report},
        run::{median, number, seconds},
    },
};

pub async fn measure(report: &mut Report) {
    let hold = Duration::from_secs(number("BENCH_HOLD_SECONDS", 300));
    let variables = vec![("ROLLCALL_LOG".to_owned(), "warn".to_owned())];
    let service = Rollcall::start(Setup { variables, ..Setup::default() });
    let base = service.ready.http.clone();
    load::creates(&base, CALLERS, seconds()).await;
    let mut before = Vec::new();
    for _ in 0..3 {
        before.push(load::creates(&base, CALLERS, seconds()).await.rate());
    }
    let mut holder = PgConnection::connect(&service.ready.postgres).await.unwrap();
    let mut held = holder.begin().await.unwrap();
    held.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    held.execute("SELECT count(*) FROM log.heads").await.unwrap();
    let begun = Instant::now();
    let mut during = Vec::new();
    while begun.elapsed() < hold {
        during.push(load::creates(&base, CALLERS, seconds()).await.rate());
    }
    held.rollback().await.unwrap();
    let last = median(&during.split_off(during.len().saturating_sub(3)));
    // Until the server has tidied up.
    tokio::time::sleep(Duration::from_secs(number("BENCH_TIDY_SECONDS", 70))).await;
    let mut after = Vec::new();
    for _ in 0..3 {
        after.push(load::creates(&base, CALLERS, seconds()).await.rate());
    }
    let name = format!("CreateUser after a snapshot was held for {} s", hold.as_secs());
    report.add(
        Figure::rate(name.clone(), last)
            .against("without it, on a log as large", median(&after))
            .goal(Goal::RatioAtLeast(0.8)),
    );
    report.add(Figure::rate(name, last).against("before, on a small log", median(&before)));
}
