//! Messages that a device was woken for in one of its accounts: a copy in another account wakes it only if the first one is long ago.
//! A message goes to several relays of a profile, and each of them is an account here.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::account::AccountId;
use crate::secret::DeviceToken;

/// So many messages are remembered, over all devices; the oldest goes first.
const MAX_MESSAGES: usize = 1024;

/// Messages of the last seconds, by device.
#[derive(Debug, Default)]
pub(super) struct Duplicates {
    /// The oldest first.
    messages: VecDeque<PushedMessage>,
}

#[derive(Debug)]
struct PushedMessage {
    /// The short hash of the device's token.
    device: u32,
    /// The message's identifier.
    id: u64,
    /// In which account.
    account: AccountId,
    at: Instant,
}

impl Duplicates {
    /// Reports if `token` was woken within `window` for each of these messages because of other accounts. If not, it
    /// counts as woken for them in `account` from now on.
    pub(super) fn was_woken(
        &mut self,
        token: &DeviceToken,
        ids: &[u64],
        account: &AccountId,
        window: Duration,
        now: Instant,
    ) -> bool {
        while self
            .messages
            .front()
            .is_some_and(|oldest| now.saturating_duration_since(oldest.at) > window)
        {
            self.messages.pop_front();
        }
        let device = token.short_hash();
        let is_known = |id: &u64| {
            self.messages
                .iter()
                .any(|known| known.device == device && known.id == *id && known.account != *account)
        };
        if !ids.is_empty() && ids.iter().all(is_known) {
            return true;
        }
        for id in ids {
            if self.messages.len() >= MAX_MESSAGES {
                self.messages.pop_front();
            }
            self.messages.push_back(PushedMessage {
                device,
                id: *id,
                account: account.clone(),
                at: now,
            });
        }
        false
    }

    /// Removes messages found in `account` that could not be stored: nobody was woken for them.
    pub(super) fn forget(&mut self, ids: &[u64], account: &AccountId) {
        self.messages.retain(|known| known.account != *account || !ids.contains(&known.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    #[test]
    fn copy_in_another_account_wakes_a_device_once_within_the_window() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let [one, two] = [b"openpgp:1", b"openpgp:2"].map(|token| DeviceToken::new(token).unwrap());
        let [alice, bob] =
            ["alice", "bob"].map(|user| AccountId::new(user, "imap.example.org:993"));
        let mut known = Duplicates::default();
        assert!(!known.was_woken(&one, &[7], &alice, WINDOW, at(0)));
        assert!(known.was_woken(&one, &[7], &bob, WINDOW, at(9)));
        assert!(
            !known.was_woken(&one, &[7], &alice, WINDOW, at(9)),
            "its own account finds it again"
        );
        assert!(!known.was_woken(&two, &[7], &bob, WINDOW, at(9)), "another device");
        assert!(!known.was_woken(&one, &[7, 8], &bob, WINDOW, at(9)), "one of them is new");
        assert!(!known.was_woken(&one, &[], &bob, WINDOW, at(9)), "nothing is known of them");
        assert!(
            !known.was_woken(&one, &[7], &AccountId::new("eve", "x"), WINDOW, at(30)),
            "that was long ago"
        );
    }

    #[test]
    fn message_that_could_not_be_recorded_is_no_duplicate() {
        let (now, token) = (Instant::now(), DeviceToken::new(b"openpgp:1").unwrap());
        let [alice, bob] =
            ["alice", "bob"].map(|user| AccountId::new(user, "imap.example.org:993"));
        let mut known = Duplicates::default();
        assert!(!known.was_woken(&token, &[7, 8], &alice, WINDOW, now));
        known.forget(&[7], &alice);
        assert!(!known.was_woken(&token, &[7], &bob, WINDOW, now));
        assert!(known.was_woken(&token, &[8], &bob, WINDOW, now));
    }

    #[test]
    fn memory_is_bounded() {
        let (now, token) = (Instant::now(), DeviceToken::new(b"openpgp:1").unwrap());
        let account = AccountId::new("alice", "imap.example.org:993");
        let mut known = Duplicates::default();
        for id in 0..10_000 {
            assert!(!known.was_woken(&token, &[id], &account, WINDOW, now));
        }
        assert_eq!(known.messages.len(), MAX_MESSAGES);
    }
}
