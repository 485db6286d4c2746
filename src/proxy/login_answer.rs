//! The answer to a successful login. Its tagged OK always has the capability list: deltapush greets before the server is known,
//! so a client that asks no more would go on to believe the list of that greeting.

use crate::parser::response;
use crate::upstream::capabilities::Capabilities;
use crate::upstream::login_machine::LoggedIn;

/// The lines for the client, under its tag. `rewrite` adapts a line of the server's, and returns `None` where it stays as it is.
///
/// A status response has one response code (RFC 9051 section 7.1). Another code than the list goes ahead in an untagged OK.
pub(super) fn lines(
    tag: &[u8],
    logged_in: &LoggedIn,
    rewrite: impl Fn(&[u8]) -> Option<Vec<u8>>,
) -> Vec<u8> {
    let adapted = |line: &[u8]| rewrite(line).unwrap_or_else(|| line.to_vec());
    let untagged = logged_in.untagged.split_inclusive(|byte| *byte == b'\n');
    let mut lines: Vec<u8> = untagged.flat_map(adapted).collect();
    // Read as an untagged response, so that the client's tag has no part in it.
    let answer = [b"* ", logged_in.answer.as_slice(), b"\r\n"].concat();
    let answer = response::without_referral(&answer).unwrap_or(answer);
    let (ahead, answer) = with_list(&answer, &logged_in.capabilities);
    lines.extend(ahead.iter().flat_map(|line| adapted(line)));
    lines.extend_from_slice(tag);
    lines.extend_from_slice(adapted(&answer).get(1..).unwrap_or_default());
    lines
}

/// The OK with the list in it, and what has to go ahead of it.
fn with_list(answer: &[u8], capabilities: &Capabilities) -> (Option<Vec<u8>>, Vec<u8>) {
    let as_it_is = (None, answer.to_vec());
    let Some(status) = response::status(answer).filter(|status| !status.has_code("CAPABILITY"))
    else {
        return as_it_is;
    };
    let names: Vec<&str> = capabilities.iter().filter(|name| is_name(name)).collect();
    if names.is_empty() {
        return as_it_is;
    }
    let words = if status.words().is_empty() { b"done" } else { status.words() };
    let ahead = (!status.code.is_empty()).then(|| answer.to_vec());
    (ahead, [b"* OK [CAPABILITY ", names.join(" ").as_bytes(), b"] ", words, b"\r\n"].concat())
}

/// Reports if a name fits into a response code.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| matches!(byte, b'!'..=b'~') && !b"[](){}\"\\%*".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::JmapAccess;
    use crate::parser::capability::{self, Added};

    fn answered(answer: &str, untagged: &str, capabilities: &str) -> String {
        let logged_in = LoggedIn {
            answer: answer.into(),
            untagged: untagged.into(),
            capabilities: Capabilities::from_names(capabilities.split(' ').map(str::as_bytes)),
            pushes: false,
        };
        let added = Added { push: true, compress: false };
        let rewrite = |line: &[u8]| {
            capability::rewrite(line, added, JmapAccess::Strip)
                .or_else(|| response::without_referral(line))
        };
        String::from_utf8(lines(b"A[1", &logged_in, rewrite)).unwrap()
    }

    #[test]
    fn list_stands_in_the_ok_wherever_the_server_told_it() {
        const LIST: &str = "IMAP4rev1 LITERAL- STARTTLS";
        const OK: &str = "A[1 OK [CAPABILITY IMAP4rev1 LITERAL- METADATA XDELTAPUSH]";
        for (answer, untagged, expected) in [
            // Asked by deltapush: the client would not hear of it.
            ("OK Logged in", "", format!("{OK} Logged in\r\n")),
            ("OK done", "", format!("{OK} done\r\n")),
            ("OK", "", format!("{OK} done\r\n")),
            ("OK [CAPABILITY IMAP4rev1 LITERAL-] in", "", format!("{OK} in\r\n")),
            // Gmail, SmarterMail.
            (
                "OK a@gmail.test authenticated (Success)",
                "* CAPABILITY IMAP4rev1 LITERAL-\r\n",
                format!(
                    "* CAPABILITY IMAP4rev1 LITERAL- METADATA XDELTAPUSH\r\n{OK} a@gmail.test authenticated (Success)\r\n"
                ),
            ),
            (
                "OK [ALERT] Quota is full",
                "",
                format!("* OK [ALERT] Quota is full\r\n{OK} Quota is full\r\n"),
            ),
            ("OK [REFERRAL imap://two.test/] moved", "", format!("{OK} moved\r\n")),
        ] {
            assert_eq!(answered(answer, untagged, LIST), expected, "{answer}");
        }
    }

    #[test]
    fn no_list_is_made_up() {
        assert_eq!(answered("OK in", "", ""), "A[1 OK in\r\n");
        assert_eq!(answered("OK in", "", "a] b\\"), "A[1 OK in\r\n");
    }
}
