//! Positions that devices have seen in their own sessions: they need no push for these messages.

use super::observer::ShownPosition;
use crate::secret::DeviceToken;
use crate::store::MAX_TOKENS;

/// The last position of each device of an account.
#[derive(Default)]
pub(super) struct ShownByDevice(Vec<(DeviceToken, ShownPosition)>);

impl ShownByDevice {
    /// Records the position that this device was shown.
    pub(super) fn record(&mut self, token: &DeviceToken, shown: ShownPosition) {
        self.0.retain(|(known, _)| known != token);
        if self.0.len() >= MAX_TOKENS {
            self.0.remove(0);
        }
        self.0.push((token.clone(), shown));
    }

    /// The devices that were shown all of `news`. Not those that fetched at the right time: the mail server may not have
    /// announced it in their session yet.
    pub(super) fn devices(&self, news: &ShownPosition) -> Vec<DeviceToken> {
        self.0
            .iter()
            .filter(|(_, shown)| shown.covers(news))
            .map(|(token, _)| token.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str) -> DeviceToken {
        DeviceToken::new(name.as_bytes()).unwrap()
    }

    fn shown(mailbox: &str, uid_validity: u64, uid: u64) -> ShownPosition {
        ShownPosition { mailbox: mailbox.into(), uid_validity, uid }
    }

    #[test]
    fn device_knows_what_its_own_session_has_shown_it_and_no_more() {
        let (one, other) = (token("one"), token("other"));
        let mut devices = ShownByDevice::default();
        devices.record(&one, shown("INBOX", 7, 4));
        devices.record(&other, shown("inbox", 7, 5));
        assert_eq!(devices.devices(&shown("INBOX", 7, 4)), [one.clone(), other]);
        assert_eq!(
            devices.devices(&shown("INBOX", 7, 5)),
            [token("other")],
            "the other one's fetch came too early"
        );
        assert_eq!(devices.devices(&shown("INBOX", 8, 4)), [], "numbers of another UIDVALIDITY");
        assert_eq!(devices.devices(&shown("DeltaChat", 7, 4)), []);
        devices.record(&one, shown("INBOX", 7, 6));
        assert_eq!(devices.devices(&shown("INBOX", 7, 6)), [one]);
    }

    #[test]
    fn there_are_not_more_than_an_account_has_tokens() {
        let mut devices = ShownByDevice::default();
        for number in 0..2 * MAX_TOKENS {
            devices.record(&token(&number.to_string()), shown("INBOX", 7, 4));
        }
        assert_eq!(devices.devices(&shown("INBOX", 7, 4)).len(), MAX_TOKENS);
    }
}
