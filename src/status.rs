//! `rollcall status`: how everything stands to the right of the log, on one screen, from the database alone.

mod screen;

use std::{io::Write, time::Duration};

use anyhow::Context;
use console::Term;
use rollcall_event_store::{bounded, migrate::attach, session};
use rollcall_projections::{
    projector::chain,
    status::{self, Status},
};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

use self::screen::Screen;
use crate::{
    config::{Flags, Settings},
    master_key::KeyFile,
};

const EVERY: Duration = Duration::from_secs(1);
/// Back to the first line, without a flicker; what is left of the last picture is cleared as it is painted over.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K\n";
const CLEAR_BELOW: &str = "\x1b[J";
const CLEAR_ALL: &str = "\x1b[2J";

#[derive(clap::Args)]
pub struct Options {
    /// Look again every second, until Ctrl-C.
    #[arg(long)]
    watch: bool,
    /// Print one JSON object; with --watch a line each time.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub flags: Flags,
}

/// How to print it.
#[derive(Clone, Copy)]
pub struct Wish {
    watch: bool,
    json: bool,
}

impl Options {
    pub fn wish(&self) -> Wish {
        Wish { watch: self.watch, json: self.json }
    }
}

/// # Errors
/// Where the database cannot be read; while it is watched, only at the first look.
pub async fn run(settings: Settings, wish: Wish) -> anyhow::Result<()> {
    let url = settings.database.named()?;
    let provisioned = attach(url.expose(), &KeyFile::named(&settings)?).await?;
    let options = session(&provisioned.service, "rollcall-status");
    let mut connection = None;
    let first = look(&options, &mut connection).await?;
    let mut screen = Screen::default();
    if !wish.watch {
        return print(&match wish.json {
            true => serde_json::to_string_pretty(&first)? + "\n",
            false => screen.paint(&first),
        });
    }
    let watching = async {
        if !wish.json && Term::stdout().is_term() {
            print(CLEAR_ALL)?;
        }
        let mut seen = Ok(first);
        loop {
            show(&mut screen, &seen, wish.json)?;
            tokio::time::sleep(EVERY).await;
            seen = look(&options, &mut connection).await;
        }
    };
    tokio::select! {
        outcome = watching => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn look(options: &PgConnectOptions, connection: &mut Option<PgConnection>) -> anyhow::Result<Status> {
    let work = async {
        let mut live = match connection.take() {
            Some(live) => live,
            None => PgConnection::connect_with(options).await?,
        };
        let status = status::read(&mut live).await?;
        *connection = Some(live);
        Ok::<_, status::Error>(status)
    };
    bounded(work).await.context("how it stands cannot be read")
}

fn show(screen: &mut Screen, seen: &anyhow::Result<Status>, json: bool) -> anyhow::Result<()> {
    match seen {
        Ok(status) if json => print(&(serde_json::to_string(status)? + "\n")),
        Err(error) if json => {
            eprintln!("rollcall: {}", chain(error.as_ref()));
            Ok(())
        }
        Ok(status) => print(&repaint(&screen.paint(status))),
        Err(error) => print(&repaint(&format!("{}; trying again\n", chain(error.as_ref())))),
    }
}

/// On a terminal over the last picture; into a file one after the other.
fn repaint(picture: &str) -> String {
    let terminal = Term::stdout();
    if !terminal.is_term() {
        return format!("{picture}\n");
    }
    let (rows, columns) = terminal.size();
    let lines = fit(picture, usize::from(rows), usize::from(columns));
    format!("{HOME}{}{CLEAR_LINE}{CLEAR_BELOW}", lines.join(CLEAR_LINE))
}

/// What of a picture a terminal can show: longer lines would be folded, and more of them would push the first ones out.
fn fit(picture: &str, rows: usize, columns: usize) -> Vec<String> {
    // The last row is the cursor's.
    let rows = rows.saturating_sub(1).max(1);
    let mut lines: Vec<String> =
        picture.lines().map(|line| console::truncate_str(line, columns, "…").into_owned()).collect();
    if lines.len() > rows {
        let more = lines.len() - (rows - 1);
        lines.truncate(rows - 1);
        lines.push(format!("… {more} more"));
    }
    lines
}

/// Whoever reads may go away: that is an end like any other.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("nobody reads what is printed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_cut_to_what_the_terminal_can_show() {
        assert_eq!(fit("one\ntwo\nthree\nfour\n", 4, 4), ["one", "two", "… 2 more"]);
        assert_eq!(fit("one\ntwo\nthree\n", 4, 4), ["one", "two", "thr…"]);
        assert_eq!(fit("one\ntwo\n", 1, 80), ["… 2 more"]);
    }
}
