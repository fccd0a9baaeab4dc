//! `rollcall adopt-restored`: makes a restored log the one history, with its owner's rights.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, bail};
use rollcall_event_store::adopt::{self, Found};
use rollcall_projections::publisher::Newest;

use crate::{
    config::{Flags, Settings},
    nats,
    text::counted,
};

#[derive(clap::Args)]
pub struct Options {
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Adopt it although nothing says that it was restored.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub flags: Flags,
}

/// What the operator said.
#[derive(Clone, Copy)]
pub struct Wish {
    yes: bool,
    force: bool,
}

impl Options {
    pub fn wish(&self) -> Wish {
        Wish { yes: self.yes, force: self.force }
    }
}

/// Shows what it found, asks, and adopts.
pub async fn run(settings: Settings, wish: Wish) -> anyhow::Result<()> {
    let url = settings.database.named()?;
    let found = adopt::find(url.expose()).await?;
    print!("{}", describe(&found));
    let mut beyond = Vec::new();
    match &settings.nats_url {
        Some(nats_url) => {
            let partitions = u16::try_from(found.heads.len()).context("a log has at most 1024 partitions")?;
            match nats::held(nats_url.expose(), partitions).await {
                Ok(newest) => {
                    beyond = self::beyond(&found, &newest);
                    match beyond.is_empty() {
                        true => println!("nats        holds nothing beyond this log"),
                        false => beyond.iter().for_each(|line| println!("nats        {line}")),
                    }
                }
                Err(error) => println!("nats        could not be asked: {error:#}"),
            }
        }
        None => println!("nats        not asked, because nats.url is not set"),
    }
    if found.halt.is_none() && beyond.is_empty() && !wish.force {
        bail!(
            "nothing says that this log was restored, and adopting it ends every process and all tokens: pass --force if you \
             know that it was"
        );
    }
    if !wish.yes && !confirmed()? {
        bail!("nothing was changed");
    }
    let log_id = adopt::adopt(url.expose(), found.log_id).await?;
    println!("adopted     {log_id}, which was {}", found.log_id);
    println!(
        "Processes that run notice it within a second, finish their requests (for shutdown.notice_s and shutdown.drain_s at most) \
         and end: see that they are started again."
    );
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

/// What NATS holds of the present history and this log does not have; a line for each partition, and one for all.
fn beyond(found: &Found, newest: &[Newest]) -> Vec<String> {
    let (mut lines, mut sum) = (Vec::new(), 0);
    for &Newest { log_id, partition, position, event_id: _ } in newest {
        let head = found.heads.get(usize::from(partition)).copied().unwrap_or_default();
        if log_id == found.log_id && position > head {
            let events = counted(position - head, "event");
            sum += position - head;
            lines.push(format!("partition {partition}: {events} beyond {head}, up to {position}"));
        } else if log_id != found.log_id && found.histories.iter().all(|history| history.log_id != log_id) {
            lines.push(format!("partition {partition}: events of the log {log_id}, which is unknown here"));
        }
    }
    if sum > 0 {
        lines.push(format!("in all {} that this log does not have", counted(sum, "event")));
    }
    lines
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
