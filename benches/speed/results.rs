//! Puts what the benchmarks wrote together: `benches/RESULTS.md` and `benches/results.json`.

use std::{env, fs, path::Path};

use crate::support::report::Report;

const ASSEMBLE: &str = "assemble";
/// In this order, as far as they are there.
const BENCHES: [&str; 4] = ["speed", "large", "operating", "log"];

/// Whether that was asked for: `assemble DIRECTORY` with the directory that `BENCH_OUT` named files in.
pub fn assemble_asked() -> bool {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [what, directory] = arguments.as_slice() else { return false };
    if what != ASSEMBLE {
        return false;
    }
    let reports: Vec<Report> = BENCHES
        .iter()
        .filter_map(|bench| Report::read(&Path::new(directory).join(bench).with_extension("json")))
        .collect();
    let newest = reports.iter().map(|report| &report.machine).max_by_key(|machine| &machine.date);
    let machine = newest.expect("a benchmark was run").describe();
    let tables: Vec<String> = reports.iter().map(Report::markdown).collect();
    let text = format!(
        "# Measured\n\nWritten by `make bench`. Ratios count; absolute times belong to the machine, which PostgreSQL, NATS, the \
         service and the load share:\n{machine}\n\n{}",
        tables.join("\n")
    );
    fs::write("benches/RESULTS.md", text).unwrap();
    let json = serde_json::to_string_pretty(&reports).unwrap();
    fs::write("benches/results.json", json + "\n").unwrap();
    true
}
