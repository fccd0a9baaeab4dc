//! `rollcall status`: how everything stands to the right of the log, on one screen, from the database alone.

mod screen;

use std::{io::Write, time::Duration};

use anyhow::Context;
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
    let url =
        settings.database.url.as_ref().context("database.url must be set (--database-url, DATABASE_URL)")?;
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
        if !wish.json {
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

fn repaint(picture: &str) -> String {
    let lines: Vec<&str> = picture.lines().collect();
    format!("{HOME}{}{CLEAR_LINE}{CLEAR_BELOW}", lines.join(CLEAR_LINE))
}

/// Whoever reads may go away: that is an end like any other.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("nobody reads what is printed")
}
