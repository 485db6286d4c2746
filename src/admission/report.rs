//! The one line of the log for each failed login. `contrib/fail2ban` reads those that begin with `failed login from`, and of
//! these not the ones without an answer: their form does not change.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use tracing::info;

use super::failed_logins::{Blocked, LoginLimit};

/// The log's target, also for filters.
pub const TARGET: &str = "deltapush::login";

/// Characters of a login name that are shown.
const MAX_USER: usize = 64;

/// The kind of a failed login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The mail server refused it.
    ByServer,
    /// The mail server got the credentials and gave no answer: it broke off, or took too long.
    NoAnswer,
    /// No mail server was asked, since none is there for it.
    NotAsked,
}

/// Writes the line of a failed login.
pub fn failed_login(address: IpAddr, user: &str, upstream: &str, how: How) {
    info!(target: TARGET, "{}", line(address, user, upstream, how));
}

/// Writes the line of a login that is refused because of a limit. It may be somebody with the right password: nobody is to be
/// banned for it.
pub fn not_tried(address: IpAddr, user: &str, upstream: &str, blocked: Blocked) {
    info!(target: TARGET, "{}", line_of_limit(address, user, upstream, blocked));
}

/// The address first, before anything that a stranger has chosen; the name quoted, in printable ASCII, and not too long.
fn line(address: IpAddr, user: &str, upstream: &str, how: How) -> String {
    let how = match how {
        How::ByServer => "refused by the mail server",
        How::NoAnswer => "not answered by the mail server",
        How::NotAsked => "refused without asking the mail server",
    };
    format!("failed login from {}: {how}, {}", address.to_canonical(), shown(user, upstream))
}

fn line_of_limit(
    address: IpAddr,
    user: &str,
    upstream: &str,
    Blocked { limit, wait }: Blocked,
) -> String {
    let limit = match limit {
        LoginLimit::Address => "per_address",
        LoginLimit::Account => "per_account",
        LoginLimit::Upstream => "per_upstream",
        LoginLimit::Servers => "too many mail servers",
    };
    let (address, wait) = (address.to_canonical(), in_words(wait));
    format!(
        "login not tried from {address}: limit {limit} is reached for {wait}, {}",
        shown(user, upstream)
    )
}

fn shown(user: &str, upstream: &str) -> String {
    let mut shown = String::new();
    for char in user.chars().take(MAX_USER) {
        match char {
            ' '..='~' if char != '"' && char != '\\' => shown.push(char),
            // Writing to a string does not fail.
            _ => drop(write!(shown, "{}", char.escape_unicode())),
        }
    }
    let more = if user.chars().nth(MAX_USER).is_some() { "…" } else { "" };
    format!("user \"{shown}\"{more}, upstream \"{}\"", upstream.escape_default())
}

/// A duration for people, rounded up: "8 minutes".
pub(crate) fn in_words(duration: Duration) -> String {
    let minutes = duration.as_secs().div_ceil(60).max(1);
    let (count, unit) =
        if minutes < 90 { (minutes, "minute") } else { (minutes.div_ceil(60), "hour") };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_fixed_and_a_name_cannot_break_out_of_it() {
        let address = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(
            line(address, "alice@example.org", "imap.example.org:993", How::ByServer),
            "failed login from 192.0.2.1: refused by the mail server, user \"alice@example.org\", upstream \"imap.example.org:993\""
        );
        let blocked = Blocked { limit: LoginLimit::Upstream, wait: Duration::from_secs(471) };
        assert_eq!(
            line_of_limit(address, "alice@example.org", "imap.example.org:993", blocked),
            "login not tried from 192.0.2.1: limit per_upstream is reached for 8 minutes, user \"alice@example.org\", \
             upstream \"imap.example.org:993\""
        );
        let evil = "x\"\r\n2026-01-01T00:00:00Z INFO deltapush::login: failed login from 198.51.100.1: \\ \u{1b}[2Jü";
        let told = line(address, evil, "imap:993", How::NotAsked);
        assert!(told.starts_with(
            "failed login from 192.0.2.1: refused without asking the mail server, user \"x\\u{22}\\u{d}\\u{a}"
        ));
        assert!(
            told.bytes().all(|byte| (b' '..=b'~').contains(&byte) || !byte.is_ascii()),
            "{told}"
        );
        assert_eq!(told.matches('"').count(), 4, "{told}");
        assert!(line(address, &"x".repeat(100_000), "imap:993", How::ByServer).len() < 300);
    }
}
