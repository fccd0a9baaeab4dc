//! A status as text: aligned tables, the worst to be seen at once.

use std::{collections::BTreeMap, time::Instant};

use rollcall_projections::status::{Lease, Member, Status, Trouble};

/// Partitions that are listed one by one; of more than that only those with something to tell.
const PARTITIONS_MAX: usize = 32;
/// Troubles that are told one by one; partitions that stop mostly do so for one reason.
const TROUBLES_MAX: usize = 8;

/// Paints a status, and knows the one before, for rates.
#[derive(Default)]
pub struct Screen {
    before: Option<(Instant, BTreeMap<String, u64>)>,
}

/// A row for each reader of the log.
struct Reader<'a> {
    name: String,
    state: String,
    shape: String,
    positions: &'a [u64],
    lag_events: u64,
    lag_seconds: f64,
    parked: Option<u64>,
    leases: Vec<&'a Lease>,
}

impl Screen {
    pub fn paint(&mut self, status: &Status) -> String {
        let readers = readers(status);
        let now = Instant::now();
        let applied: BTreeMap<String, u64> =
            readers.iter().map(|reader| (reader.name.clone(), reader.positions.iter().sum())).collect();
        let before = self.before.replace((now, applied.clone()));
        let rate = |name: &str| {
            let (at, before) = before.as_ref()?;
            let done = applied.get(name)?.saturating_sub(*before.get(name)?);
            Some(format!("{:.0}", done as f64 / now.duration_since(*at).as_secs_f64().max(0.001)))
        };
        let events: u64 = status.partitions.iter().map(|partition| partition.head).sum();
        let mut text = format!(
            "log {}, {events} events in {} partitions, at {}\n",
            status.log_id,
            status.partitions.len(),
            instant(&status.at),
        );
        if let Some(halt) = &status.halt {
            text += &format!(
                "log HALTED, no commands are taken: {} (found by {}, {})\n",
                halt.why,
                halt.found_by,
                instant(&halt.found_at)
            );
        }
        text.push('\n');
        let mut table = Table::new(&[
            "PROJECTION",
            "STATE",
            "SHAPE",
            ">APPLIED",
            ">BEHIND",
            ">OLDEST",
            ">EVENTS/S",
            ">PARKED",
            "WORKED ON BY",
        ]);
        for reader in &readers {
            table.row([
                reader.name.clone(),
                reader.state.clone(),
                reader.shape.clone(),
                applied[&reader.name].to_string(),
                reader.lag_events.to_string(),
                seconds(reader.lag_seconds),
                rate(&reader.name).unwrap_or_else(|| "-".to_owned()),
                reader.parked.map_or_else(|| "-".to_owned(), |parked| parked.to_string()),
                holders(&reader.leases),
            ]);
        }
        text += &table.text();
        text += &troubles(status);
        if let Some(publisher) = &status.publisher {
            text += &format!("\nthe stream in NATS was at {}\n", publisher.stream_sequence);
        }
        text += "\n";
        text += &members(status);
        text += "\n";
        text += &partitions(status, &readers);
        text
    }
}

fn readers(status: &Status) -> Vec<Reader<'_>> {
    let leases = |projection: &str, version: Option<i32>| {
        let of = status.leases.iter().filter(|lease| lease.projection == projection);
        of.filter(|lease| version.is_none_or(|version| lease.version == version)).collect()
    };
    let mut readers: Vec<Reader<'_>> = status
        .projections
        .iter()
        .map(|of| Reader {
            name: of.qualifier(),
            state: {
                let state = if of.state == "wrong" { "WRONG" } else { &of.state };
                match of.stopped_partitions.len() {
                    0 => state.to_owned(),
                    stopped => format!("{state}, {stopped} STOPPED"),
                }
            },
            shape: of.shape.to_string(),
            positions: &of.positions,
            lag_events: of.lag_events,
            lag_seconds: of.lag_seconds,
            parked: Some(of.parked_streams),
            leases: leases(&of.projection, Some(of.version)),
        })
        .collect();
    readers.extend(status.publisher.as_ref().map(|of| {
        Reader {
            name: "publisher".to_owned(),
            state: match (&of.process, &of.trouble) {
                (_, Some(_)) => "FAILING",
                (Some(_), None) => "publishing",
                (None, None) => "nobody publishes",
            }
            .to_owned(),
            shape: "-".to_owned(),
            positions: &of.positions,
            lag_events: of.lag_events,
            lag_seconds: of.lag_seconds,
            parked: None,
            leases: leases("publisher", None),
        }
    }));
    readers
}

/// A line for each thing that stands still.
fn troubles(status: &Status) -> String {
    let all: Vec<Trouble<'_>> = status.troubles().collect();
    let mut text = String::new();
    for Trouble { of, why } in all.iter().take(TROUBLES_MAX) {
        let what = if of == "publisher" { "FAILING" } else { "STOPPED" };
        text += &format!("\n{of} {what}: {why}");
    }
    if all.len() > TROUBLES_MAX {
        text += &format!("\n… {} more", all.len() - TROUBLES_MAX);
    }
    if text.is_empty() { text } else { text + "\n" }
}

/// `web1:4711 (8), 8 FREE`.
fn holders(leases: &[&Lease]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for lease in leases {
        *counts.entry(holder(lease)).or_default() += 1;
    }
    let holders: Vec<String> = counts.iter().map(|(holder, units)| format!("{holder} ({units})")).collect();
    holders.join(", ")
}

fn holder(lease: &Lease) -> String {
    let process = lease.process.as_deref().unwrap_or("unknown");
    match lease.state.as_str() {
        "held" => process.to_owned(),
        "frozen" => format!("FROZEN {process}"),
        _ => "FREE".to_owned(),
    }
}

fn members(status: &Status) -> String {
    let mut table = Table::new(&["PROCESS", "STATE", ">HEARD", "HOLDS", "MEMBER"]);
    for member in &status.members {
        let state = if member.state == "alive" { member.state.clone() } else { member.state.to_uppercase() };
        table.row([
            member.process.clone(),
            state,
            seconds(member.heard_seconds_ago),
            holds(status, member),
            member.member.to_string(),
        ]);
    }
    match status.members.is_empty() {
        true => "NO PROCESS projects or publishes\n".to_owned(),
        false => table.text(),
    }
}

/// `profiles_1 (8), publisher`: the versions that it works on, with how many partitions, and what it leaves to others.
fn holds(status: &Status, member: &Member) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for lease in status.leases.iter().filter(|lease| lease.member == Some(member.member)) {
        let of = match lease.projection.as_str() {
            "publisher" => "publisher".to_owned(),
            name => format!("{name}_{}", lease.version),
        };
        *counts.entry(of).or_default() += 1;
    }
    let held: Vec<String> = counts
        .iter()
        .map(|(of, units)| if of == "publisher" { of.clone() } else { format!("{of} ({units})") })
        .collect();
    let mut text = if held.is_empty() { "nothing".to_owned() } else { held.join(", ") };
    if !member.declines.is_empty() {
        text += &format!(" (DECLINES {})", member.declines.join(", "));
    }
    text
}

/// How far each reader is behind in each partition, and under which epoch of whom.
fn partitions(status: &Status, readers: &[Reader<'_>]) -> String {
    let names = readers.iter().map(|reader| format!("{} BEHIND/EPOCH", reader.name));
    let heads = ["PARTITION", ">HEAD", "RECORDED AT"].map(str::to_owned);
    let heads: Vec<String> = heads.into_iter().chain(names).collect();
    let mut table = Table::new(&heads.iter().map(String::as_str).collect::<Vec<_>>());
    let (mut listed, mut left_out) = (0, 0);
    for head in &status.partitions {
        let place = usize::from(head.partition);
        let lease = |reader: &Reader<'_>| {
            let one = reader.leases.len() == 1;
            reader.leases.iter().find(|lease| one || lease.unit == head.partition).map(|&lease| lease.clone())
        };
        let behind = |reader: &Reader<'_>| {
            head.head.saturating_sub(reader.positions.get(place).copied().unwrap_or_default())
        };
        let tells = readers.iter().any(|reader| {
            behind(reader) > 0
                || lease(reader).is_none_or(|lease| lease.state != "held" || lease.trouble.is_some())
        });
        if listed >= PARTITIONS_MAX || (status.partitions.len() > PARTITIONS_MAX && !tells) {
            left_out += 1;
            continue;
        }
        listed += 1;
        let mut cells = vec![
            head.partition.to_string(),
            head.head.to_string(),
            head.recorded_at.as_deref().map_or_else(|| "-".to_owned(), instant),
        ];
        for reader in readers {
            let (epoch, mark) = lease(reader).map_or((0, ""), |lease| {
                (
                    lease.epoch,
                    match lease.state.as_str() {
                        _ if lease.trouble.is_some() && reader.parked.is_some() => " STOPPED",
                        "held" => "",
                        "frozen" => " FROZEN",
                        _ => " FREE",
                    },
                )
            });
            cells.push(format!("{}/{epoch}{mark}", behind(reader)));
        }
        table.row(cells);
    }
    let mut text = table.text();
    if left_out > 0 {
        text += &format!("and {left_out} more partitions\n");
    }
    text
}

/// To the second: `2026-11-20 18:31:07`.
fn instant(rfc3339: &str) -> String {
    rfc3339.get(..19).unwrap_or(rfc3339).replace('T', " ")
}

fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3_600.0),
    }
}

/// Columns as wide as what stands in them; those whose head begins with `>` are flush right.
struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    fn new(heads: &[&str]) -> Self {
        let right = heads.iter().map(|head| head.starts_with('>')).collect();
        let heads = heads.iter().map(|head| head.trim_start_matches('>').to_owned());
        Self { rows: vec![heads.collect()], right }
    }

    fn row(&mut self, cells: impl Into<Vec<String>>) {
        self.rows.push(cells.into());
    }

    fn text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells =
                row.iter().zip(&widths).zip(&self.right).map(|((cell, &width), &right)| match right {
                    true => format!("{cell:>width$}"),
                    false => format!("{cell:<width$}"),
                });
            text += cells.collect::<Vec<_>>().join("  ").trim_end();
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_flush_right() {
        let mut table = Table::new(&["NAME", ">BEHIND", "STATE"]);
        table.row(["profiles_1", "7", "serving"].map(str::to_owned));
        table.row(["audit_1", "1200", ""].map(str::to_owned));
        assert_eq!(
            table.text(),
            "NAME        BEHIND  STATE\nprofiles_1       7  serving\naudit_1       1200\n"
        );
    }

    #[test]
    fn times_are_told_in_the_unit_that_one_thinks_in() {
        assert_eq!([0.04, 59.0, 600.0, 90_000.0].map(seconds), ["0.0 s", "59.0 s", "10 min", "25.0 h"]);
    }
}
