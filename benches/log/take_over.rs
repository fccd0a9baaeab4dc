//! How long readers wait for what a projector that is gone held.

use std::time::{Duration, Instant};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    rollcall::{Client, Rollcall},
    site::Site,
    support::report::{Figure, Goal, Report, Unit},
};

const QUIET: [(&str, &str); 1] = [("ROLLCALL_LOG", "warn")];
const ROUNDS: usize = 3;

pub async fn measure(report: &mut Report) {
    let site = Site::migrated().await;
    let (commands, queries) = (site.start(&["command-api"], &QUIET), site.start(&["query-api"], &QUIET));
    let _one = site.start(&["projector"], &QUIET);
    let (write, read) = (Client::new(&commands.ready.http, "acme"), Client::new(&queries.ready.http, "acme"));
    for (how, signal, goal) in [
        ("stopped (SIGTERM)", Signal::SIGTERM, 1.0),
        ("killed (SIGKILL)", Signal::SIGKILL, 5.0),
        ("frozen (SIGSTOP)", Signal::SIGSTOP, 15.0),
    ] {
        let mut worst = Duration::ZERO;
        for round in 0..ROUNDS {
            let other = site.start(&["projector"], &QUIET);
            slowest(&write, &read, &format!("{how:.4}-{round}-before")).await;
            // Until the leases are spread.
            tokio::time::sleep(Duration::from_secs(2)).await;
            send(&other, signal);
            worst = worst.max(slowest(&write, &read, &format!("{how:.4}-{round}-after")).await);
            if signal == Signal::SIGSTOP {
                send(&other, Signal::SIGCONT);
            }
        }
        let name = format!("the longest wait for a profile after one of two projectors was {how}");
        report.add(Figure::new(name, worst.as_secs_f64(), Unit::Seconds).goal(Goal::Below(goal)));
    }
    drop((commands, queries));
    site.stop().await;
}

fn send(process: &Rollcall, signal: Signal) {
    kill(Pid::from_raw(process.pid().cast_signed()), signal).unwrap();
}

/// Writes to all partitions and reads all of it back; the longest wait.
async fn slowest(write: &Client, read: &Client, name: &str) -> Duration {
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let begun = Instant::now();
    let mut created = Vec::new();
    for number in 0..64 {
        created.push(write.create(&format!("{name}-{number}@example.com")).await.expect(201));
    }
    for user in created {
        while read.get_after(&format!("/api/v1/users/{}", user.id()), user.token()).await.status != 200 {}
    }
    begun.elapsed()
}
