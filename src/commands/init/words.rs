//! What a mail server's capabilities mean to somebody who wants push, in words. Pure.

use crate::upstream::login_machine::Capabilities;
use crate::upstream::providers::Provider;

/// When a server said what it can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CapabilitySource {
    /// Before the login: it may say more after it.
    Before,
    /// After the login; whether it pushes by itself.
    After {
        /// It does.
        pushes: bool,
    },
}

/// A line for each thing that matters.
pub(super) fn lines(capabilities: &Capabilities, said: CapabilitySource, provider: Option<&Provider>) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut tell = |name: &str, what: &str| lines.push(format!("  {name}: {what}"));
    let has = |name: &str| capabilities.has(name);
    let is_final = said != CapabilitySource::Before;
    tell(
        "IDLE",
        match (has("IDLE"), is_final) {
            (true, _) => "yes: push works",
            (false, true) => "no: push cannot work there; deltapush would only pass things on",
            (false, false) => "not before the login: whether push works shows after it",
        },
    );
    let later = "not before the login";
    tell(
        "NOTIFY",
        match (has("NOTIFY"), is_final) {
            (true, _) => "yes: one session watches all mailboxes",
            (false, true) => "no: each watched mailbox takes a session",
            (false, false) => later,
        },
    );
    tell(
        "COMPRESS",
        if has("COMPRESS=DEFLATE") { "yes" } else { "no: deltapush compresses what goes to phones by itself" },
    );
    tell(
        "METADATA",
        match (has("METADATA"), is_final) {
            (true, _) => "yes: what it keeps passes; push tokens stay here",
            (false, true) => "no: deltapush answers what Delta Chat asks",
            (false, false) => later,
        },
    );
    if said == (CapabilitySource::After { pushes: true }) {
        tell("push", "it pushes by itself: Delta Chat needs no deltapush there");
    }
    let ways: Vec<String> = capabilities.mechanisms().collect();
    let only_tokens = !ways.is_empty()
        && ways.iter().all(|way| matches!(way.as_str(), "XOAUTH2" | "OAUTHBEARER"))
        && has("LOGINDISABLED");
    if only_tokens {
        tell("login", "by OAuth tokens only, which current versions of Delta Chat do not have");
    }
    if let Some(provider) = provider.filter(|provider| !provider.hint.is_empty()) {
        tell(provider.name, provider.hint);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::providers;

    fn told(names: &str, said: CapabilitySource, provider: Option<&Provider>) -> String {
        lines(&Capabilities::from_names(names.split(' ').map(str::as_bytes)), said, provider).join("\n")
    }

    #[test]
    fn what_a_server_can_do_is_told_in_words() {
        let after = CapabilitySource::After { pushes: false };
        let all = told("IMAP4rev1 IDLE NOTIFY COMPRESS=DEFLATE METADATA", after, None);
        assert!(all.contains("IDLE: yes: push works") && !all.contains(": no"), "{all}");
        let none = told("IMAP4rev1", after, None);
        assert!(none.contains("IDLE: no: push cannot work there") && none.contains("each watched mailbox"), "{none}");
        let before = told("IMAP4rev1 IDLE", CapabilitySource::Before, None);
        assert!(before.contains("IDLE: yes") && before.contains("NOTIFY: not before the login"), "{before}");
        assert!(told("IDLE", CapabilitySource::After { pushes: true }, None).contains("needs no deltapush"));
        assert!(told("AUTH=XOAUTH2 LOGINDISABLED", CapabilitySource::Before, None).contains("OAuth tokens only"));
        assert!(!told("AUTH=XOAUTH2 AUTH=PLAIN", CapabilitySource::Before, None).contains("OAuth"));
        assert!(told("IDLE", after, providers::of_domain("gmail.com")).contains("Gmail: it requires an app password"));
    }
}
