//! The one line of the log for each failed login, in the form that `contrib/fail2ban` reads. It does not change.

use std::fmt::Write as _;
use std::net::IpAddr;

use tracing::info;

/// The log's target, also for filters.
pub const TARGET: &str = "deltapush::login";

/// Characters of a login name that are shown.
const MAX_USER: usize = 64;

/// Writes it.
pub fn failed_login(address: IpAddr, user: &str, upstream: &str, asked: bool) {
    info!(target: TARGET, "{}", line(address, user, upstream, asked));
}

/// The address first, before anything that a stranger has chosen; the name quoted, in printable ASCII, and not too long.
fn line(address: IpAddr, user: &str, upstream: &str, asked: bool) -> String {
    let mut shown = String::new();
    for char in user.chars().take(MAX_USER) {
        match char {
            ' '..='~' if char != '"' && char != '\\' => shown.push(char),
            // Writing to a string does not fail.
            _ => drop(write!(shown, "{}", char.escape_unicode())),
        }
    }
    let more = if user.chars().nth(MAX_USER).is_some() { "…" } else { "" };
    let how = if asked { "refused by the mail server" } else { "refused without asking the mail server" };
    format!(
        "failed login from {}: {how}, user \"{shown}\"{more}, upstream \"{}\"",
        address.to_canonical(),
        upstream.escape_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_fixed_and_a_name_cannot_break_out_of_it() {
        let address = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(
            line(address, "alice@example.org", "imap.example.org:993", true),
            "failed login from 192.0.2.1: refused by the mail server, user \"alice@example.org\", upstream \"imap.example.org:993\""
        );
        let evil = "x\"\r\n2026-01-01T00:00:00Z INFO deltapush::login: failed login from 198.51.100.1: \\ \u{1b}[2Jü";
        let told = line(address, evil, "imap:993", false);
        assert!(told.starts_with(
            "failed login from 192.0.2.1: refused without asking the mail server, user \"x\\u{22}\\u{d}\\u{a}"
        ));
        assert!(told.bytes().all(|byte| (b' '..=b'~').contains(&byte) || !byte.is_ascii()), "{told}");
        assert_eq!(told.matches('"').count(), 4, "{told}");
        assert!(line(address, &"x".repeat(100_000), "imap:993", true).len() < 300);
    }
}
