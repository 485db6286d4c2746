//! Questions on the terminal. Without one nothing is asked.

use std::io::{self, BufRead, IsTerminal, Write};

/// Asks on the terminal for yes or no; Enter stands for `default`. Without a terminal the answer is no.
pub(super) fn confirm(question: &str, default: bool) -> bool {
    let choice = if default { "[Y/n]" } else { "[y/N]" };
    match self::question(&format!("{question} {choice}")).as_deref() {
        Some("") => default,
        Some("y" | "Y" | "yes") => true,
        _ => false,
    }
}

/// Asks on the terminal. `None` without one.
pub(super) fn question(question: &str) -> Option<String> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return None;
    }
    let mut out = io::stdout();
    // Without a question there is no answer.
    write!(out, "{question} ").and_then(|()| out.flush()).ok()?;
    let mut answer = String::new();
    match io::stdin().lock().read_line(&mut answer) {
        Ok(read) if read > 0 => Some(answer.trim().to_owned()),
        _ => None,
    }
}
