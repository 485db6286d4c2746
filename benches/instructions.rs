//! The work for each relayed byte and command, in a form whose instructions can be counted: `scripts/callgrind` does that,
//! and compares them with `benches/instructions/counts.txt`.
//!
//! Without arguments it does everything once and prints the names; with a name that one alone.
#![expect(clippy::print_stdout, reason = "the names are for the script")]

#[path = "instructions/scenarios.rs"]
mod scenarios;

use std::env;
use std::process::ExitCode;

use scenarios::{ALL, Work};

/// Between its beginning and its end instructions are counted: the script knows it by name.
#[inline(never)]
fn counted(work: &mut Work) {
    work();
}

fn main() -> ExitCode {
    // Cargo says `--bench`.
    let wanted = env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let mut found = false;
    for (name, prepare) in ALL {
        if wanted.as_ref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        found = true;
        let mut work = prepare();
        // Work done once in a process, such as asking the processor what it can, is done here.
        work();
        counted(&mut work);
        println!("{name}");
    }
    if found { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
