//! Duration of framer, command parser, capability rewriting and the relaying of a session: `cargo bench --bench parsers`.
//! The inputs are those whose instructions `scripts/callgrind` counts; `cargo test --bench parsers` runs each once.

#[path = "instructions/scenarios.rs"]
mod scenarios;

use divan::Bencher;

use scenarios::ALL;

fn main() {
    divan::main();
}

#[divan::bench(args = ALL.map(|(name, _)| name))]
fn parsers(bencher: Bencher<'_, '_>, wanted: &str) {
    let mut works =
        ALL.into_iter().filter(|(name, _)| *name == wanted).map(|(_, prepare)| prepare());
    let Some(work) = works.next() else { return };
    bencher.bench_local(work);
}
