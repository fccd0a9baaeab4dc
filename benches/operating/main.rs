//! What operating costs: bearer tokens against open mode, a rolling restart, more load than there is room for. Ratios of
//! one run count; absolute times belong to the machine. The names of its parts make it shorter: `cargo bench --bench operating
//! -- tokens rolling`.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on panics")]

#[path = "../../tests/operating/balancer.rs"]
mod balancer;
mod overload;
#[path = "../../tests/support/rollcall.rs"]
#[expect(dead_code, reason = "the harness serves the tests")]
mod rollcall;
mod rolling;
#[path = "../../edge/src/auth/jwt/tests/signer.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod signer;
#[path = "../../tests/operating/site.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod site;
#[path = "../support/lib.rs"]
#[expect(dead_code, reason = "the other benchmarks use the rest of it")]
mod support;
mod tokens;

use support::{report::Report, run};

fn main() {
    if !run::is_wanted() {
        return;
    }
    run::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut report = Report::new("operating", run::rounds());
        if run::is_part("tokens") {
            tokens::measure(&mut report).await;
        }
        if run::is_part("rolling") {
            rolling::measure(&mut report).await;
        }
        if run::is_part("overload") {
            overload::measure(&mut report).await;
        }
        report.finish();
    });
}
