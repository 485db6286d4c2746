//! Explains a mail server's capabilities with regard to push. Pure.

use crate::upstream::capabilities::Capabilities;
use crate::upstream::providers::Provider;

/// The time at which a server announced its capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CapabilitySource {
    /// Before the login: it may say more after it.
    Before,
    /// After the login; whether it pushes by itself.
    After {
        /// It does.
        pushes: bool,
    },
}

/// Explains each relevant capability in one line.
pub(crate) fn lines(
    capabilities: &Capabilities,
    said: CapabilitySource,
    provider: Option<&Provider>,
) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut add = |name: &str, what: &str| lines.push(format!("  {name}: {what}"));
    let has = |name: &str| capabilities.has(name);
    let is_final = said != CapabilitySource::Before;
    add(
        "IDLE",
        match (has("IDLE"), is_final) {
            (true, _) => "yes: push works",
            (false, true) => "no: push cannot work there; deltapush would only relay",
            (false, false) => "not announced before the login: known only after it",
        },
    );
    let later = "not announced before the login";
    add(
        "NOTIFY",
        match (has("NOTIFY"), is_final) {
            (true, _) => "yes: one session watches all mailboxes",
            (false, true) => "no: each watched mailbox takes a session",
            (false, false) => later,
        },
    );
    add(
        "COMPRESS",
        if has("COMPRESS=DEFLATE") {
            "yes"
        } else {
            "no: deltapush itself compresses the connections to phones"
        },
    );
    add(
        "METADATA",
        match (has("METADATA"), is_final) {
            (true, _) => "yes: deltapush relays it, but keeps push tokens here",
            (false, true) => "no: deltapush answers Delta Chat's requests itself",
            (false, false) => later,
        },
    );
    if said == (CapabilitySource::After { pushes: true }) {
        add(
            "push",
            "this server sends push notifications itself: Delta Chat needs no deltapush there",
        );
    }
    let ways: Vec<String> = capabilities.mechanisms().collect();
    let only_tokens = !ways.is_empty()
        && ways.iter().all(|way| matches!(way.as_str(), "XOAUTH2" | "OAUTHBEARER"))
        && has("LOGINDISABLED");
    if only_tokens {
        add("login", "OAuth tokens only, which current versions of Delta Chat do not support");
    }
    if let Some(provider) = provider.filter(|provider| !provider.hint.is_empty()) {
        add(provider.name, provider.hint);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::providers;

    fn text_of(names: &str, said: CapabilitySource, provider: Option<&Provider>) -> String {
        lines(&Capabilities::from_names(names.split(' ').map(str::as_bytes)), said, provider)
            .join("\n")
    }

    #[test]
    fn server_capabilities_are_shown_in_words() {
        let after = CapabilitySource::After { pushes: false };
        let all = text_of("IMAP4rev1 IDLE NOTIFY COMPRESS=DEFLATE METADATA", after, None);
        assert!(all.contains("IDLE: yes: push works") && !all.contains(": no"), "{all}");
        let none = text_of("IMAP4rev1", after, None);
        assert!(
            none.contains("IDLE: no: push cannot work there")
                && none.contains("each watched mailbox"),
            "{none}"
        );
        let before = text_of("IMAP4rev1 IDLE", CapabilitySource::Before, None);
        assert!(
            before.contains("IDLE: yes")
                && before.contains("NOTIFY: not announced before the login"),
            "{before}"
        );
        assert!(
            text_of("IDLE", CapabilitySource::After { pushes: true }, None)
                .contains("needs no deltapush")
        );
        assert!(
            text_of("AUTH=XOAUTH2 LOGINDISABLED", CapabilitySource::Before, None)
                .contains("OAuth tokens only")
        );
        assert!(
            !text_of("AUTH=XOAUTH2 AUTH=PLAIN", CapabilitySource::Before, None).contains("OAuth")
        );
        assert!(
            text_of("IDLE", after, providers::of_domain("gmail.com"))
                .contains("Gmail: it requires an app password")
        );
    }
}
