//! Rewrites a server's capability list for the client: a pure function on one line.

use super::response;
use crate::policy::JmapAccess;

/// Reports if `name` can cross a relay. Removed are, in the order of the arms: a layer that ends at deltapush, a change of
/// user without deltapush, a login that has happened, mechanisms bound to a TLS channel of which there are two, and ways to
/// the mail that bypass deltapush.
#[must_use]
pub fn can_cross(name: &[u8], jmapaccess: JmapAccess) -> bool {
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    let begins = |prefix: &str| {
        name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    let ends = |suffix: &str| {
        let start = name.len().checked_sub(suffix.len());
        start
            .and_then(|start| name.get(start..))
            .is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes()))
    };
    !(is("STARTTLS")
        || begins("COMPRESS=")
        || is("UNAUTHENTICATE")
        || is("LOGINDISABLED")
        || begins("AUTH=") && ends("-PLUS")
        || is("LOGIN-REFERRALS")
        || is("MAILBOX-REFERRALS")
        || is("JMAPACCESS") && jmapaccess == JmapAccess::Strip)
}

/// Names to add to a list that lacks them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Added {
    /// METADATA and XDELTAPUSH, which make a client hand over its token. Not where the upstream pushes by itself and
    /// keeps the tokens.
    pub push: bool,
    /// COMPRESS=DEFLATE: deltapush's own, whether or not the upstream has it. Not once it is in use.
    pub compress: bool,
}

impl Added {
    fn names(self) -> impl Iterator<Item = &'static str> {
        let push = self.push.then_some(["METADATA", "XDELTAPUSH"]).into_iter().flatten();
        push.chain(self.compress.then_some(COMPRESS))
    }
}

/// The one mechanism of RFC 4978.
const COMPRESS: &str = "COMPRESS=DEFLATE";

/// The whole line `line` as the client gets it; `None` if it carries no capability list or stays as it is.
#[must_use]
pub fn rewrite(line: &[u8], added: Added, jmapaccess: JmapAccess) -> Option<Vec<u8>> {
    let names: Vec<&[u8]> = response::capabilities(line)?.collect();
    let is_in = |list: &[&[u8]], name: &str| {
        list.iter().any(|other| other.eq_ignore_ascii_case(name.as_bytes()))
    };
    let kept: Vec<&[u8]> =
        names.iter().copied().filter(|name| can_cross(name, jmapaccess)).collect();
    let missing: Vec<&str> = added.names().filter(|name| !is_in(&kept, name)).collect();
    let list: Vec<&[u8]> = kept.into_iter().chain(missing.into_iter().map(str::as_bytes)).collect();
    if list == names {
        return None;
    }
    let (before, after) = around_list(line)?;
    Some([before, &list.join(&b' '), after].concat())
}

/// The text before and after the list in a line that has one; `None` if there is no place for a list.
fn around_list(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (start, end) = match response::status(line) {
        // After a space: a list that is not there at all has no place.
        None => {
            line.strip_prefix(b"* ")?.get(b"CAPABILITY".len()).filter(|byte| **byte == b' ')?;
            let line_end =
                line.iter().rev().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            (b"* CAPABILITY ".len(), line.len().checked_sub(line_end)?)
        }
        // From the end of the line: a tag may have a bracket in it.
        Some(status) => {
            let code = line
                .trim_ascii_end()
                .len()
                .checked_sub(status.text.len())?
                .checked_add(b"[".len())?;
            (code.checked_add(b"CAPABILITY ".len())?, code.checked_add(status.code.len())?)
        }
    };
    (start <= end).then_some((line.get(..start)?, line.get(end..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUSH: Added = Added { push: true, compress: false };

    fn rewritten(line: &str) -> Option<String> {
        rewrite(line.as_bytes(), PUSH, JmapAccess::Strip)
            .map(|line| String::from_utf8(line).unwrap())
    }

    #[test]
    fn push_is_added_wherever_a_list_stands() {
        assert_eq!(
            rewritten("* CAPABILITY IMAP4rev1 IDLE\r\n").as_deref(),
            Some("* CAPABILITY IMAP4rev1 IDLE METADATA XDELTAPUSH\r\n")
        );
        assert_eq!(
            rewritten("* OK [CAPABILITY IMAP4rev1] hi [x]\r\n").as_deref(),
            Some("* OK [CAPABILITY IMAP4rev1 METADATA XDELTAPUSH] hi [x]\r\n")
        );
        assert_eq!(
            rewritten("A1 ok [capability IMAP4rev2 metadata] Logged in\r\n").as_deref(),
            Some("A1 ok [capability IMAP4rev2 metadata XDELTAPUSH] Logged in\r\n")
        );
    }

    #[test]
    fn capabilities_that_cannot_cross_are_removed() {
        let all = "* CAPABILITY IMAP4rev1 STARTTLS COMPRESS=DEFLATE compress=deflate UNAUTHENTICATE \
                   AUTH=SCRAM-SHA-256-PLUS AUTH=X-plus AUTH=SCRAM-SHA-256 LOGIN-REFERRALS MAILBOX-REFERRALS X-PLUS \
                   JMAPACCESS LOGINDISABLED\r\n";
        for (jmapaccess, expected) in [
            (JmapAccess::Strip, "* CAPABILITY IMAP4rev1 AUTH=SCRAM-SHA-256 X-PLUS\r\n"),
            (JmapAccess::Pass, "* CAPABILITY IMAP4rev1 AUTH=SCRAM-SHA-256 X-PLUS JMAPACCESS\r\n"),
        ] {
            let rewritten = rewrite(all.as_bytes(), Added::default(), jmapaccess).unwrap();
            assert_eq!(String::from_utf8(rewritten).unwrap(), expected);
        }
    }

    #[test]
    fn other_lines_and_lists_that_are_right_stay() {
        assert_eq!(rewritten("* OK hi\r\n"), None);
        assert_eq!(rewritten("* 1 FETCH (BODY \"[CAPABILITY X]\")\r\n"), None);
        assert_eq!(rewritten("* CAPABILITY IMAP4rev1  METADATA XDELTAPUSH\r\n"), None);
        assert_eq!(rewritten("* OK [CAPABILITY IMAP4rev1 unclosed\r\n"), None);
        assert_eq!(
            rewrite(b"* CAPABILITY IMAP4rev1\r\n", Added::default(), JmapAccess::Strip),
            None
        );
    }

    #[test]
    fn compression_is_deltapushs_own_and_stands_in_a_list_once() {
        let rewritten = |line: &str, added| {
            rewrite(line.as_bytes(), added, JmapAccess::Strip)
                .map(|line| String::from_utf8(line).unwrap())
        };
        let compress = Added { push: false, compress: true };
        let offered = Some("* CAPABILITY IMAP4rev1 COMPRESS=DEFLATE\r\n".to_owned());
        assert_eq!(rewritten("* CAPABILITY IMAP4rev1\r\n", compress), offered);
        assert_eq!(
            rewritten("* CAPABILITY COMPRESS=X IMAP4rev1 compress=deflate\r\n", compress),
            offered
        );
        assert_eq!(rewritten("* CAPABILITY IMAP4rev1 COMPRESS=DEFLATE\r\n", compress), None);
        let both = Added { push: true, compress: true };
        assert_eq!(
            rewritten("a OK [CAPABILITY IMAP4rev1] in\r\n", both).as_deref(),
            Some("a OK [CAPABILITY IMAP4rev1 METADATA XDELTAPUSH COMPRESS=DEFLATE] in\r\n")
        );
    }

    #[test]
    fn bracket_in_a_tag_begins_no_list() {
        assert_eq!(
            rewritten("A[1 OK [CAPABILITY IMAP4rev1] hi\r\n").as_deref(),
            Some("A[1 OK [CAPABILITY IMAP4rev1 METADATA XDELTAPUSH] hi\r\n")
        );
    }

    #[test]
    fn where_no_list_has_place_none_is_put() {
        assert_eq!(rewritten("* CAPABILITY\r\n"), None);
        assert_eq!(rewritten("* CAPABILITY\rIMAP4rev1 IDLE\r\n"), None);
    }

    #[test]
    fn empty_list_is_filled() {
        assert_eq!(
            rewritten("* CAPABILITY \r\n").as_deref(),
            Some("* CAPABILITY METADATA XDELTAPUSH\r\n")
        );
    }
}
