//! Figures, each beside its baseline and its goal: printed as they are measured, and written as Markdown and JSON at the end
//! where `BENCH_OUT` names the files, without their extensions.
//!
//! A goal that is missed is said to be missed. Ratios are always ours by the baseline's.

use std::{fmt::Write, fs, path::Path};

use serde::{Deserialize, Serialize};

use super::{machine::Machine, run};

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Unit {
    #[serde(rename = "1/s")]
    PerSecond,
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "MB")]
    Megabytes,
    #[serde(rename = "bytes")]
    Bytes,
    #[serde(rename = "")]
    Count,
}

#[derive(Clone, Copy, Debug)]
pub enum Goal {
    RatioAtLeast(f64),
    RatioAtMost(f64),
    AtLeast(f64),
    Below(f64),
    /// A count that must be nothing.
    None,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    name: String,
    value: f64,
    unit: Unit,
    /// What else the measurement saw.
    detail: Option<String>,
    baseline: Option<Baseline>,
    ratio: Option<f64>,
    goal: Option<String>,
    met: Option<bool>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Baseline {
    name: String,
    value: f64,
}

impl Figure {
    pub fn new(name: impl Into<String>, value: f64, unit: Unit) -> Self {
        let name = name.into();
        Self { name, value, unit, detail: None, baseline: None, ratio: None, goal: None, met: None }
    }

    pub fn rate(name: impl Into<String>, per_second: f64) -> Self {
        Self::new(name, per_second, Unit::PerSecond)
    }

    pub fn ms(name: impl Into<String>, ms: f64) -> Self {
        Self::new(name, ms, Unit::Milliseconds)
    }

    pub fn mb(name: impl Into<String>, mb: f64) -> Self {
        Self::new(name, mb, Unit::Megabytes)
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Beside a baseline in the same unit.
    pub fn against(mut self, name: impl Into<String>, value: f64) -> Self {
        self.baseline = Some(Baseline { name: name.into(), value });
        self.ratio = Some(self.value / value);
        self
    }

    pub fn goal(mut self, goal: Goal) -> Self {
        let ratio = self.ratio.unwrap_or(f64::NAN);
        let (text, met) = match goal {
            Goal::RatioAtLeast(least) => (format!("≥ {least} ×"), ratio >= least),
            Goal::RatioAtMost(most) => (format!("≤ {most} ×"), ratio <= most),
            Goal::AtLeast(least) => (format!("≥ {}", shown(least, self.unit)), self.value >= least),
            Goal::Below(bound) => (format!("< {}", shown(bound, self.unit)), self.value < bound),
            Goal::None => ("none".to_owned(), self.value == 0.0),
        };
        (self.goal, self.met) = (Some(text), Some(met));
        self
    }

    fn row(&self) -> String {
        let detail = self.detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
        let baseline = self.baseline.as_ref().map_or_else(String::new, |baseline| {
            format!("{}: {}", baseline.name, shown(baseline.value, self.unit))
        });
        let ratio = self.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let met = self.met.map_or("", |met| if met { "yes" } else { "**no**" });
        format!(
            "| {} | {}{detail} | {baseline} | {ratio} | {} | {met} |",
            self.name,
            shown(self.value, self.unit),
            self.goal.as_deref().unwrap_or_default()
        )
    }
}

fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::PerSecond => format!("{}/s", thousands(value)),
        Unit::Milliseconds if value < 10.0 => format!("{value:.2} ms"),
        Unit::Milliseconds => format!("{} ms", thousands(value)),
        Unit::Seconds => format!("{value:.2} s"),
        Unit::Megabytes => format!("{value:.0} MB"),
        Unit::Bytes => format!("{} bytes", thousands(value)),
        Unit::Count => thousands(value),
    }
}

/// Whole, with commas.
pub fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[derive(Debug, Serialize, Deserialize)]
struct Section {
    title: String,
    figures: Vec<Figure>,
}

/// What one run of one benchmark measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    bench: String,
    pub machine: Machine,
    seconds: u64,
    rounds: usize,
    sections: Vec<Section>,
}

const HEAD: &str = "| figure | Rollcall | baseline in the same run | ratio | goal | met |\n| --- | --- | --- | --- | --- | --- |";

impl Report {
    /// Of a benchmark whose figures are medians of that many rounds.
    pub fn new(bench: &str, rounds: usize) -> Self {
        let (bench, machine) = (bench.to_owned(), Machine::here());
        println!("{}", machine.describe());
        Self { bench, machine, seconds: run::seconds().as_secs(), rounds, sections: Vec::new() }
    }

    /// What follows belongs under this title.
    pub fn section(&mut self, title: impl Into<String>) {
        let title = title.into();
        println!("\n{title}\n\n{HEAD}");
        self.sections.push(Section { title, figures: Vec::new() });
    }

    pub fn add(&mut self, figure: Figure) {
        if self.sections.is_empty() {
            self.section(self.bench.clone());
        }
        println!("{}", figure.row());
        if let Some(section) = self.sections.last_mut() {
            section.figures.push(figure);
        }
    }

    /// Writes what there is, where the environment says so.
    pub fn finish(self) {
        let goals = self.sections.iter().flat_map(|section| &section.figures).filter_map(|figure| figure.met);
        let (met, missed): (Vec<bool>, Vec<bool>) = goals.partition(|met| *met);
        println!("\n{} goals met, {} missed.", met.len(), missed.len());
        let Some(prefix) = std::env::var_os("BENCH_OUT") else { return };
        let prefix = Path::new(&prefix);
        if let Some(directory) = prefix.parent() {
            fs::create_dir_all(directory).expect("a directory for the figures");
        }
        let json = serde_json::to_string_pretty(&self).expect("figures are JSON");
        fs::write(prefix.with_extension("json"), json + "\n").expect("the figures can be written");
        let markdown = format!("{}\n\n{}", self.machine.describe(), self.markdown());
        fs::write(prefix.with_extension("md"), markdown).expect("the figures can be written");
    }

    /// # Panics
    /// Where the file is not what [`Self::finish`] wrote.
    pub fn read(path: &Path) -> Option<Self> {
        let text = fs::read(path).ok()?;
        Some(serde_json::from_slice(&text).expect("figures of this program"))
    }

    pub fn markdown(&self) -> String {
        let mut text = format!(
            "`{}` at {}, {}: {} s for each measurement, medians of {} rounds.\n",
            self.bench, self.machine.commit, self.machine.date, self.seconds, self.rounds
        );
        for section in &self.sections {
            write!(text, "\n## {}\n\n{HEAD}\n", section.title).expect("text takes text");
            for figure in &section.figures {
                writeln!(text, "{}", figure.row()).expect("text takes text");
            }
        }
        text
    }
}
