//! Several command-api processes on one database, and how late a profile is at several rates.

use crate::{
    CALLERS,
    rollcall::Rollcall,
    site::Site,
    support::{
        load,
        report::{Figure, Goal, Report, thousands},
        run::{median, middle, rounds, seconds},
    },
};

const QUIET: [(&str, &str); 1] = [("ROLLCALL_LOG", "warn")];

pub async fn measure(report: &mut Report) {
    let site = Site::migrated().await;
    let _projector = site.start(&["projector"], &QUIET);
    let apis: Vec<Rollcall> = (0..4).map(|_| site.start(&["command-api"], &QUIET)).collect();
    let queries = site.start(&["query-api"], &QUIET);
    together(&apis).await;
    let mut rates: Vec<(usize, Vec<f64>)> = [1, 2, 4].map(|processes| (processes, Vec::new())).into();
    for _ in 0..rounds() {
        for (processes, rates) in &mut rates {
            rates.push(together(&apis[..*processes]).await);
        }
    }
    let rates: Vec<(usize, f64)> = rates.into_iter().map(|(of, rates)| (of, median(&rates))).collect();
    let (_, one) = rates[0];
    for (processes, rate) in &rates[1..] {
        report.add(
            Figure::rate(format!("CreateUser by {processes} command-api together"), *rate)
                .against("one", one)
                .goal(Goal::RatioAtLeast(0.8)),
        );
    }
    for percent in [20, 50, 80] {
        let rate = one * f64::from(percent) / 100.0;
        let mut lags = Vec::new();
        for _ in 0..rounds() {
            lags.push(
                load::readable_after_on(&apis[0].ready.http, &queries.ready.http, rate, seconds()).await,
            );
        }
        let lag = middle(lags, |lag| lag.ms(0.99));
        report.add(
            Figure::ms(
                format!(
                    "from a command's answer to its profile being readable elsewhere, at {percent} % of one's rate ({}/s were reached): p99",
                    thousands(lag.rate)
                ),
                lag.ms(0.99),
            )
            .detail(format!("p50 {:.1} ms", lag.ms(0.5))),
        );
    }
    drop((apis, queries));
    site.stop().await;
}

/// Commands per second of all processes, with the callers shared out among them.
async fn together(apis: &[Rollcall]) -> f64 {
    let loads = apis.iter().map(|api| load::creates(&api.ready.http, CALLERS / apis.len(), seconds()));
    futures_util::future::join_all(loads).await.iter().map(load::Seen::rate).sum()
}
