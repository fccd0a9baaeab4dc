//! `rollcall adopt-restored`: makes a restored log the one history, with its owner's rights.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, bail};
use rollcall_event_store::adopt::{self, Found};
use rollcall_projections::publisher::Newest;

use crate::{
    config::{Flags, Settings},
    nats,
};

#[derive(clap::Args)]
pub struct Options {
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub flags: Flags,
}

/// Shows what it found, asks, and adopts.
pub async fn run(settings: Settings, yes: bool) -> anyhow::Result<()> {
    let url = settings.database.named()?;
    let found = adopt::find(url.expose()).await?;
    print!("{}", describe(&found));
    match &settings.nats_url {
        Some(nats_url) => {
            let partitions = u16::try_from(found.heads.len()).context("a log has at most 1024 partitions")?;
            match nats::held(nats_url.expose(), partitions).await {
                Ok(newest) => print!("{}", beyond(&found, &newest)),
                Err(error) => println!("nats        could not be asked: {error:#}"),
            }
        }
        None => println!("nats        not asked, because nats.url is not set"),
    }
    if !yes && !confirmed()? {
        bail!("nothing was changed");
    }
    let log_id = adopt::adopt(url.expose(), found.log_id).await?;
    println!("adopted     {log_id}, which was {}", found.log_id);
    println!("Processes that run end by themselves within a second: see that they are started again.");
    Ok(())
}

fn describe(found: &Found) -> String {
    let mut text = format!("log         {}\n", found.log_id);
    for history in &found.histories {
        text.push_str(&format!("            was {} until {}\n", history.log_id, history.adopted_at));
    }
    let heads: Vec<String> = found.heads.iter().map(ToString::to_string).collect();
    text.push_str(&format!("heads       {}\n", heads.join(" ")));
    text.push_str(&match &found.halt {
        Some(halt) => format!("halted      {halt}\n"),
        None => "halted      no: nobody found that this log was restored\n".to_owned(),
    });
    text
}

/// What NATS holds of the present history and this log does not have.
fn beyond(found: &Found, newest: &[Newest]) -> String {
    let mut text = String::new();
    for &Newest { log_id, partition, position, event_id: _ } in newest {
        let head = found.heads.get(usize::from(partition)).copied().unwrap_or_default();
        if log_id == found.log_id && position > head {
            let events = position - head;
            text.push_str(&format!(
                "nats        partition {partition}: {events} events beyond {head}, up to {position}\n"
            ));
        } else if log_id != found.log_id && found.histories.iter().all(|history| history.log_id != log_id) {
            text.push_str(&format!(
                "nats        partition {partition}: events of the log {log_id}, which is unknown here\n"
            ));
        }
    }
    if text.is_empty() {
        text.push_str("nats        holds nothing beyond this log\n");
    }
    text
}

fn confirmed() -> anyhow::Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("nobody is there to ask: pass --yes to adopt this log");
    }
    print!("What is beyond this log is given up for good. Adopt it? Type yes: ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}
