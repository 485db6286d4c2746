//! Which device has seen how much of which mailbox for itself: what it has seen needs no push.

use crate::secret::DeviceToken;
use crate::store::{MAX_TOKENS, Position};

/// The last look of each device into each mailbox, the newest last.
#[derive(Default)]
pub(super) struct Looks(Vec<Look>);

struct Look {
    token: DeviceToken,
    mailbox: String,
    through: Position,
}

impl Looks {
    /// The device with this token has fetched all that is new in a mailbox, up to there.
    pub(super) fn add(&mut self, token: DeviceToken, mailbox: &str, through: Position) {
        self.0.retain(|look| look.token != token || look.mailbox != mailbox);
        // What is forgotten costs a push for nothing.
        if self.0.len() >= MAX_TOKENS {
            self.0.remove(0);
        }
        self.0.push(Look { token, mailbox: mailbox.to_owned(), through });
    }

    /// The tokens of the devices that have seen all of a mailbox up to there. What they fetched before the last of it came
    /// is not enough.
    pub(super) fn through(&self, mailbox: &str, position: Position) -> Vec<DeviceToken> {
        let has_seen = |look: &&Look| {
            let Position { uid_validity, uid_next } = look.through;
            look.mailbox == mailbox && uid_validity == position.uid_validity && uid_next >= position.uid_next
        };
        self.0.iter().filter(has_seen).map(|look| look.token.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_seen_what_it_has_looked_through() {
        let token = |name: &str| DeviceToken::new(name.as_bytes()).unwrap();
        let position = |uid_validity, uid_next| Position { uid_validity, uid_next };
        let mut looks = Looks::default();
        looks.add(token("a"), "INBOX", position(7, 5));
        looks.add(token("b"), "INBOX", position(7, 6));
        looks.add(token("c"), "DeltaChat", position(7, 9));
        looks.add(token("d"), "INBOX", position(6, 9));
        assert_eq!(looks.through("INBOX", position(7, 5)), [token("a"), token("b")]);
        // One more came while the first one fetched.
        assert_eq!(looks.through("INBOX", position(7, 6)), [token("b")]);
        looks.add(token("a"), "INBOX", position(7, 6));
        assert_eq!(looks.through("INBOX", position(7, 6)), [token("b"), token("a")]);
        (0..100).for_each(|number| looks.add(token(&format!("t{number}")), "INBOX", position(7, 6)));
        assert_eq!(looks.through("INBOX", position(7, 6)).len(), MAX_TOKENS);
    }
}
