//! Several command-api processes on one database, and how late a profile is at several rates.

use crate::{CALLERS, load, median, rollcall::Rollcall, seconds, site::Site};

const ROUNDS: usize = 3;
const QUIET: [(&str, &str); 1] = [("ROLLCALL_LOG", "warn")];

pub async fn measure() {
    let site = Site::migrated().await;
    let _projector = site.start(&["projector"], &QUIET);
    let apis: Vec<Rollcall> = (0..4).map(|_| site.start(&["command-api"], &QUIET)).collect();
    let queries = site.start(&["query-api"], &QUIET);
    together(&apis).await;
    let mut rates: Vec<(usize, Vec<f64>)> = [1, 2, 4].map(|processes| (processes, Vec::new())).into();
    for _ in 0..ROUNDS {
        for (processes, rates) in &mut rates {
            rates.push(together(&apis[..*processes]).await);
        }
    }
    let rates: Vec<(usize, f64)> = rates.into_iter().map(|(of, rates)| (of, median(rates))).collect();
    let (_, one) = rates[0];
    for (processes, rate) in &rates[1..] {
        println!(
            "| CreateUser by {processes} command-api together | {rate:.0}/s | one: {one:.0}/s | {:.2} | ≥ 0.80 |",
            rate / one
        );
    }
    for percent in [20, 50, 80] {
        let rate = one * f64::from(percent) / 100.0;
        let mut lags = Vec::new();
        for _ in 0..ROUNDS {
            lags.push(
                load::readable_after_on(&apis[0].ready.http, &queries.ready.http, rate, seconds()).await,
            );
        }
        lags.sort_by(|a, b| a.ms(0.99).total_cmp(&b.ms(0.99)));
        let lag = &lags[ROUNDS / 2];
        println!(
            "| from a command's answer to its profile being readable elsewhere, at {percent} % of that ({:.0}/s) | p50 {:.1} ms, \
             p99 {:.1} ms | | | |",
            lag.rate,
            lag.ms(0.5),
            lag.ms(0.99)
        );
    }
    drop((apis, queries));
    site.stop().await;
}

/// Commands per second of all processes, with the callers shared out among them.
async fn together(apis: &[Rollcall]) -> f64 {
    let loads = apis.iter().map(|api| load::creates(&api.ready.http, CALLERS / apis.len(), seconds()));
    futures_util::future::join_all(loads).await.iter().map(load::Closed::rate).sum()
}
