//! Secrets that a server repeats.

use super::LoginMachine;
use crate::credentials::Mechanism;
use crate::parser::quote::push_quoted;
use crate::upstream::mechanism;

impl LoginMachine {
    /// Reports if `line` contains the password, or a message with it: some servers repeat input that they do not
    /// understand.
    #[must_use]
    pub fn repeats_secret(&self, line: &[u8]) -> bool {
        let password = self.credentials.password.expose();
        // Some repeat the command in capital letters.
        let has = |secret: &[u8]| {
            line.windows(secret.len().max(1)).any(|part| part.eq_ignore_ascii_case(secret))
        };
        let messages = Mechanism::ALL.iter().flat_map(|(mechanism, _)| {
            // LOGIN's first message is the name.
            mechanism::messages(&self.credentials, *mechanism).into_iter().next_back()
        });
        let mut quoted = Vec::with_capacity(password.len().saturating_mul(2).saturating_add(2));
        push_quoted(&mut quoted, password);
        // As LOGIN has it: with `"` and `\` escaped.
        let escaped = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
        // A password of a letter or two stands in any line; in base64 these are four.
        password.len() > 3 && (has(password) || has(escaped))
            || !password.is_empty() && has(&quoted)
            || messages
                .chain(self.relayed.iter().cloned())
                .any(|message| message.len() > 4 && has(message.as_bytes()))
    }
}
