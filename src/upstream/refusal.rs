//! Classification of a server's refusal of a login: the password, or a temporary condition. A pure function of its
//! answer.
//!
//! A moment that is taken for a password ends a watch for nothing; a password that is taken for a moment is tried again and
//! again, until the server locks the account.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

use crate::parser::response::{self, Condition, Status};

/// Why a login was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginRefusal {
    /// The credentials are not valid, or not any more.
    Credentials,
    /// There are too many sessions of this account: another client needs one.
    TooManySessions,
    /// Not now: something at the server is out of order for the moment.
    Temporary,
    /// Not so often: the account, or the address that asks, has had too much.
    Throttled,
    /// IMAP is switched off in the account's settings: for the person to change there, whenever that is.
    Disabled,
    /// A bare NO: a wrong password at most servers, and at some an outage of what knows the passwords.
    Unclear,
}

/// Response codes that say it (RFC 5530, RFC 9051 section 7.1, and what Gmail and others send).
const CODES: [(&str, LoginRefusal); 13] = [
    ("AUTHENTICATIONFAILED", LoginRefusal::Credentials),
    ("AUTHORIZATIONFAILED", LoginRefusal::Credentials),
    ("EXPIRED", LoginRefusal::Credentials),
    ("WEBALERT", LoginRefusal::Credentials),
    ("CONTACTADMIN", LoginRefusal::Credentials),
    ("LIMIT", LoginRefusal::TooManySessions),
    ("INUSE", LoginRefusal::Temporary),
    ("UNAVAILABLE", LoginRefusal::Temporary),
    ("OVERQUOTA", LoginRefusal::Throttled),
    ("THROTTLED", LoginRefusal::Throttled),
    ("SERVERBUG", LoginRefusal::Temporary),
    ("SYS/TEMP", LoginRefusal::Temporary),
    ("PRIVACYREQUIRED", LoginRefusal::Credentials),
];

/// Words that tell the refusal if no code does; the first that is found counts. Those that are about the moment for certain
/// come first, and "try again" late: servers say it of a wrong password too, and a refusal of the moment is counted as no
/// failed login.
const WORDS: [(&str, LoginRefusal); 37] = [
    ("enable imap", LoginRefusal::Disabled),
    ("not enabled for imap", LoginRefusal::Disabled),
    ("imap is disabled", LoginRefusal::Disabled),
    ("imap access is disabled", LoginRefusal::Disabled),
    ("imap disabled", LoginRefusal::Disabled),
    // Of the tries, not of the sessions.
    ("too many failed", LoginRefusal::Throttled),
    ("too many invalid", LoginRefusal::Throttled),
    ("too many incorrect", LoginRefusal::Throttled),
    ("too many unsuccessful", LoginRefusal::Throttled),
    ("too many auth", LoginRefusal::Throttled),
    ("too many", LoginRefusal::TooManySessions),
    ("maximum number", LoginRefusal::TooManySessions),
    ("connection limit", LoginRefusal::TooManySessions),
    ("simultaneous", LoginRefusal::TooManySessions),
    ("temporar", LoginRefusal::Temporary),
    ("unavailable", LoginRefusal::Temporary),
    ("internal error", LoginRefusal::Temporary),
    ("server error", LoginRefusal::Temporary),
    ("rate limit", LoginRefusal::Throttled),
    // Outlook: "Request is throttled. Suggested Backoff Time: 59995 milliseconds".
    ("throttled", LoginRefusal::Throttled),
    // Outlook, when what holds the mailbox cannot be reached.
    ("not connected", LoginRefusal::Temporary),
    // email-oauth2-proxy, when the provider's page for tokens does not work: "please check your internet connection and retry".
    ("internet connection", LoginRefusal::Temporary),
    ("invalid credentials", LoginRefusal::Credentials),
    ("invalid password", LoginRefusal::Credentials),
    ("wrong password", LoginRefusal::Credentials),
    ("bad password", LoginRefusal::Credentials),
    ("invalid user", LoginRefusal::Credentials),
    ("invalid login", LoginRefusal::Credentials),
    ("incorrect", LoginRefusal::Credentials),
    ("try again later", LoginRefusal::Temporary),
    ("try again in", LoginRefusal::Temporary),
    ("your password", LoginRefusal::Credentials),
    ("or password", LoginRefusal::Credentials),
    ("and password", LoginRefusal::Credentials),
    ("check your", LoginRefusal::Credentials),
    ("try again", LoginRefusal::Temporary),
    ("authentication failed", LoginRefusal::Credentials),
];

/// Reads the answer to a login without its tag (condition, code, text) and the untagged lines that came before it: some
/// servers give the reason in an alert, and a bare NO after it.
#[must_use]
pub fn classify(answer: &[u8], untagged: &[u8]) -> LoginRefusal {
    let refusal = classify_line(&[b"* ", answer, b"\r\n"].concat());
    if refusal != LoginRefusal::Unclear {
        return refusal;
    }
    let reasons = untagged.split_inclusive(|byte| *byte == b'\n').map(classify_line);
    reasons
        .into_iter()
        .find(|reason| *reason != LoginRefusal::Unclear)
        .unwrap_or(LoginRefusal::Unclear)
}

/// The same for the words with which a server closes the connection.
#[must_use]
pub fn classify_bye(words: &str) -> LoginRefusal {
    classify(format!("NO {words}").as_bytes(), b"")
}

/// The word, in any case, by which a client recognizes a wrong password (chatmail/core does).
const FATAL_WORD: &[u8] = b"authentication";

/// A refused login as the client gets it, answer and untagged lines as in [`classify`]: as it is if it is about the
/// password, or may be. Otherwise in words that are not taken for that; code and meaning stay.
#[must_use]
pub fn for_client(answer: Vec<u8>, untagged: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    match classify(&answer, &untagged) {
        LoginRefusal::Credentials | LoginRefusal::Unclear => (answer, untagged),
        LoginRefusal::TooManySessions
        | LoginRefusal::Temporary
        | LoginRefusal::Throttled
        | LoginRefusal::Disabled => {
            let lines = untagged.split_inclusive(|byte| *byte == b'\n');
            (
                reworded(&answer, b"* ", b"\r\n"),
                lines.flat_map(|line| reworded(line, b"", b"")).collect(),
            )
        }
    }
}

/// A status response without the word: a code that has it goes, in the text stands "login". `before` and `after` are what the
/// line lacks to be one.
fn reworded(line: &[u8], before: &[u8], after: &[u8]) -> Vec<u8> {
    let whole = [before, line, after].concat();
    let fatal = |bytes: &[u8]| find_fatal(bytes).is_some();
    let code = response::status(&whole).map(|status| status.code).filter(|code| fatal(code));
    let mut rest = line;
    let mut out = Vec::with_capacity(line.len());
    if let Some((start, end)) = code.and_then(|code| {
        let start = memchr::memmem::find(line, &[b"[", code, b"]"].concat())?;
        Some((start, start.checked_add(code.len())?.checked_add(2)?))
    }) {
        out.extend_from_slice(line.get(..start).unwrap_or_default());
        rest = line.get(end..).unwrap_or_default().trim_ascii_start();
    }
    while let Some(at) = find_fatal(rest) {
        let (kept, word) = rest.split_at_checked(at).unwrap_or((rest, b""));
        out.extend_from_slice(kept);
        out.extend_from_slice(if word.first() == Some(&b'A') { b"Login" } else { b"login" });
        rest = word.get(FATAL_WORD.len()..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

fn find_fatal(bytes: &[u8]) -> Option<usize> {
    bytes.windows(FATAL_WORD.len()).position(|window| window.eq_ignore_ascii_case(FATAL_WORD))
}

/// Reports if a server that closes the connection with these words means that an access token has expired.
#[must_use]
pub fn is_about_expiry(words: &str) -> bool {
    // Outlook: "Session invalidated - AccessTokenExpired".
    words.to_lowercase().contains("expired")
}

/// Words for the form of a login. Together with a verb of `REJECTS` they judge no password.
const FORMS: [&str; 6] =
    ["mechanism", "method", "command", "sasl", "auth type", "initial response"];

/// See `FORMS`.
const REJECTS: [&str; 13] = [
    "unsupported",
    "not support",
    "n't support",
    "unimplemented",
    "not implement",
    "unknown",
    "unrecogni",
    "not recogni",
    "disabled",
    "not enabled",
    "not available",
    "not allowed",
    "invalid",
];

/// Number of `REJECTS` that also count together with "authenticate", which refusals of a password contain as well.
const CLEAR_REJECTS: usize = 5;

/// Words that are about the form of a command by themselves.
const SYNTAX: [&str; 4] = ["syntax", "not ending with", "parse error", "bad arguments"];

/// Reports if another login method may be tried after this refusal (condition, code, text, and untagged lines as in
/// [`classify`]). The password must not be judged twice: most servers answer a wrong one with a NO, some without any code.
#[must_use]
pub fn allows_next_method(answer: &[u8], untagged: &[u8], has_sent_secret: bool) -> bool {
    let line = [b"* ", answer, b"\r\n"].concat();
    let Some(status) = response::status(&line) else { return false };
    if CODES.iter().any(|(code, _)| status.has_code(code)) {
        return false;
    }
    if is_about_the_form(&status.human_text().to_lowercase()) {
        return true;
    }
    let is_unclear = classify(answer, untagged) == LoginRefusal::Unclear;
    is_unclear && (status.condition == Condition::Bad || !has_sent_secret)
}

fn is_about_the_form(text: &str) -> bool {
    let any = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if text.contains("temporar") || text.contains("credentials") || text.contains("password") {
        return false;
    }
    let names_authenticate =
        text.contains("authenticat") && any(REJECTS.get(..CLEAR_REJECTS).unwrap_or_default());
    any(&SYNTAX) || any(&FORMS) && any(&REJECTS) || names_authenticate
}

/// Reports if an untagged status response may be the reason of the next failure: NO, BAD, or an alert.
#[must_use]
pub fn is_complaint(status: Status<'_>) -> bool {
    let is_bad = matches!(status.condition, Condition::No | Condition::Bad);
    status.tag.is_none() && (is_bad || status.has_code("ALERT"))
}

/// The longest words of a server that are quoted in a reason, in characters.
const MAX_WORDS: usize = 300;

/// A server's words as they are quoted in logs and in the status: on one line and of bounded length.
#[must_use]
pub fn words(status: Status<'_>) -> String {
    let text = status.human_text();
    let mut chars = text.chars();
    let mut words = String::new();
    for char in chars.by_ref().take(MAX_WORDS) {
        if char.is_control() {
            words.extend(char.escape_default());
        } else {
            words.push(char);
        }
    }
    if chars.next().is_some() {
        words.push('…');
    }
    words
}

fn classify_line(line: &[u8]) -> LoginRefusal {
    let Some(status) = response::status(line) else { return LoginRefusal::Unclear };
    if let Some((_, refusal)) = CODES.iter().find(|(code, _)| status.has_code(code)) {
        return *refusal;
    }
    let text = status.human_text().to_lowercase();
    let said = WORDS.iter().find(|(words, _)| text.contains(words));
    said.map_or(LoginRefusal::Unclear, |(_, refusal)| *refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moment_is_no_wrong_password() {
        let cases = [
            ("NO [AUTHENTICATIONFAILED] try again later", LoginRefusal::Credentials),
            ("NO [ALERT] Invalid credentials (Failure)", LoginRefusal::Credentials),
            ("NO Incorrect username or password", LoginRefusal::Credentials),
            ("NO Wrong password, please try again", LoginRefusal::Credentials),
            (
                "NO Login failed. Check your user name and password and try again.",
                LoginRefusal::Credentials,
            ),
            ("NO Invalid user name or password, try again later", LoginRefusal::Credentials),
            ("NO Cannot verify your password now, try again later", LoginRefusal::Temporary),
            ("NO Too many invalid logon attempts.", LoginRefusal::Throttled),
            ("NO Too many failed logins, try again in 10 minutes", LoginRefusal::Throttled),
            ("NO LOGIN Server error - Please try again later", LoginRefusal::Temporary),
            (
                "BAD Request is throttled. Suggested Backoff Time: 59995 milliseconds",
                LoginRefusal::Throttled,
            ),
            ("NO Login failed, try again", LoginRefusal::Temporary),
            ("NO LOGIN failed.", LoginRefusal::Unclear),
            ("NO", LoginRefusal::Unclear),
            (
                "NO [ALERT] Too many simultaneous connections. (Failure)",
                LoginRefusal::TooManySessions,
            ),
            (
                "NO [LIMIT] Maximum number of connections from user+IP exceeded",
                LoginRefusal::TooManySessions,
            ),
            (
                "NO Maximum number of connections from user+IP exceeded",
                LoginRefusal::TooManySessions,
            ),
            ("NO [UNAVAILABLE] Temporary authentication failure.", LoginRefusal::Temporary),
            ("NO [INUSE] locked", LoginRefusal::Temporary),
            (
                "NO AUTHENTICATE Email OAuth 2.0 Proxy: Login failed for account a@b.example - please check your internet connection and retry",
                LoginRefusal::Temporary,
            ),
            (
                "NO LOGIN Email OAuth 2.0 Proxy: Login failed - the password for account a@b.example is incorrect",
                LoginRefusal::Credentials,
            ),
            (
                "NO [ALERT] Your account is not enabled for IMAP use. (Failure)",
                LoginRefusal::Disabled,
            ),
            ("BAD [ALERT] Please enable IMAP access in your settings", LoginRefusal::Disabled),
            ("NO [OVERQUOTA] Account exceeded bandwidth limits", LoginRefusal::Throttled),
            ("BAD internal error", LoginRefusal::Temporary),
            ("BAD User is authenticated but not connected.", LoginRefusal::Temporary),
        ];
        for (answer, expected) in cases {
            assert_eq!(classify(answer.as_bytes(), b""), expected, "{answer}");
        }
        let alert = b"* CAPABILITY X\r\n* NO [ALERT] Too many simultaneous connections\r\n";
        assert_eq!(classify(b"NO", alert), LoginRefusal::TooManySessions);
        assert_eq!(classify(b"NO [AUTHENTICATIONFAILED] no", alert), LoginRefusal::Credentials);
        assert_eq!(classify_bye("Too many connections"), LoginRefusal::TooManySessions);
        assert_eq!(classify_bye("Too many failed logins"), LoginRefusal::Throttled);
        // mox, of the address.
        assert_eq!(classify_bye("too many auth failures"), LoginRefusal::Throttled);
        assert_eq!(classify_bye("overloaded"), LoginRefusal::Unclear);
    }

    #[test]
    fn next_method_is_tried_unless_the_password_was_judged() {
        for (answer, has_sent_secret, expected) in [
            ("BAD Request not ending with <CR><LF>", true, true),
            ("BAD Parse command error", true, true),
            ("BAD", true, true),
            ("BAD incorrect syntax, check your command", true, true),
            ("BAD [AUTHENTICATIONFAILED] x", true, false),
            ("BAD invalid credentials", true, false),
            ("BAD Request is throttled. Suggested Backoff Time: 59995 milliseconds", true, false),
            ("NO", true, false),
            ("NO LOGIN failed.", true, false),
            ("NO AUTHENTICATE failed", true, false),
            ("NO Authentication failed: unknown user", true, false),
            ("NO Unsupported authentication mechanism", true, true),
            ("NO AUTHENTICATE PLAIN is not supported", true, true),
            ("NO mechanism unknown", true, true),
            ("NO this method is disabled, wrong password", true, false),
            ("NO", false, true),
            ("NO [CANNOT] no such mechanism", false, true),
            ("NO [AUTHENTICATIONFAILED] x", false, false),
            ("NO Too many connections", false, false),
            ("NO [PRIVACYREQUIRED] x", false, false),
        ] {
            assert_eq!(
                allows_next_method(answer.as_bytes(), b"", has_sent_secret),
                expected,
                "{answer}"
            );
        }
        assert!(!allows_next_method(
            b"BAD",
            b"* NO [ALERT] Too many simultaneous connections\r\n",
            true
        ));
    }

    #[test]
    fn words_are_quoted_on_one_line() {
        let quoted = |line: &str| words(response::status(line.as_bytes()).unwrap());
        assert_eq!(quoted("* BAD [ALERT] Please enable IMAP\r\n"), "Please enable IMAP");
        assert_eq!(quoted("* NO a\u{1b}[31mb\rc\r\n"), "a\\u{1b}[31mb\\rc");
        let long = quoted(&format!("* NO {}\r\n", "\u{fc}".repeat(4000)));
        assert_eq!(long.chars().count(), MAX_WORDS + 1);
    }

    #[test]
    fn other_refusals_never_look_like_a_wrong_password() {
        let heard = |answer: &str, untagged: &str| {
            let (answer, untagged) = for_client(answer.into(), untagged.into());
            (String::from_utf8(answer).unwrap(), String::from_utf8(untagged).unwrap())
        };
        for (answer, expected) in [
            (
                "NO [UNAVAILABLE] Temporary authentication failure.",
                "NO [UNAVAILABLE] Temporary login failure.",
            ),
            ("NO [ALERT] Authentication is down, try again", "NO [ALERT] Login is down, try again"),
            ("NO [AUTHENTICATION-RATE x] Too many AUTHENTICATIONS", "NO Too many LoginS"),
            (
                "BAD User is authenticated but not connected.",
                "BAD User is authenticated but not connected.",
            ),
            (
                "NO [AUTHENTICATIONFAILED] Authentication failed.",
                "NO [AUTHENTICATIONFAILED] Authentication failed.",
            ),
            ("NO Authentication went wrong", "NO Authentication went wrong"),
        ] {
            assert_eq!(heard(answer, "").0, expected);
        }
        let untagged = "* CAPABILITY X\r\n* NO [ALERT] Too many authentications\r\n";
        assert_eq!(
            heard("NO no", untagged).1,
            "* CAPABILITY X\r\n* NO [ALERT] Too many logins\r\n"
        );
    }
}
