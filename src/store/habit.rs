//! Fetch habits of a device's app, as observed in its sessions: stored with its token.

use aws_lc_rs::digest::{SHA256, digest};

use super::UnixTime;
use super::sql::{self, Row};
use crate::secret::DeviceToken;

/// Unencrypted messages of so many senders have to be left unfetched: an app does not fetch mail of a blocked contact either.
const ENOUGH_SENDERS: usize = 3;

/// Bytes of a sender's hash that are stored.
const HASH_LEN: usize = 8;

/// A sender of mail, as a hash that nothing but the same sender and the same token gives.
pub(super) type SenderHash = [u8; HASH_LEN];

/// The messages that a device's app fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetches {
    /// Encrypted ones only, by the rule in [`encrypted_only`](crate::push::encrypted_only).
    EncryptedOnly,
    /// Unencrypted ones too.
    All,
}

/// The evidence of which messages a device's app fetches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FetchHabit {
    /// When it was last noted that it fetched an unencrypted message.
    pub fetched: Option<UnixTime>,
    /// When it was last noted that it left one unfetched.
    pub left: Option<UnixTime>,
    /// Of whom it has left unencrypted messages since it last fetched one; three at most.
    pub senders: Vec<SenderHash>,
}

/// Something that an app did with unencrypted messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchLesson {
    /// It fetched one.
    FetchedUnencrypted,
    /// It looked at the headers of some of these senders, and fetched none.
    LeftUnencrypted(Vec<String>),
}

impl FetchHabit {
    /// The messages that it fetches; `None` until these are known.
    #[must_use]
    pub fn fetches(&self) -> Option<Fetches> {
        match self.fetched {
            _ if self.senders.len() >= ENOUGH_SENDERS => Some(Fetches::EncryptedOnly),
            Some(_) => Some(Fetches::All),
            None => None,
        }
    }

    /// Takes a lesson in. Returns whether that is worth writing down: what is known well enough is not noted again within
    /// `recently`.
    pub fn learn(
        &mut self,
        token: &DeviceToken,
        lesson: &FetchLesson,
        now: UnixTime,
        recently: std::time::Duration,
    ) -> bool {
        let is_recent = |noted: Option<UnixTime>| {
            noted.is_some_and(|noted| noted <= now && noted.age(now) < recently)
        };
        match lesson {
            FetchLesson::FetchedUnencrypted => {
                let is_news = !self.senders.is_empty() || !is_recent(self.fetched);
                *self = Self { fetched: Some(now), ..Self::default() };
                is_news
            }
            FetchLesson::LeftUnencrypted(senders) => {
                let known = self.senders.len();
                for sender in senders.iter().map(|sender| sender_hash(token, sender)) {
                    if self.senders.len() < ENOUGH_SENDERS && !self.senders.contains(&sender) {
                        self.senders.push(sender);
                    }
                }
                let is_news = self.senders.len() > known || !is_recent(self.left);
                self.left = Some(now);
                is_news && !senders.is_empty()
            }
        }
    }
}

/// Hashes a sender with the token: the hash of one sender differs from device to device. The token's holder can try
/// addresses against it.
fn sender_hash(token: &DeviceToken, sender: &str) -> SenderHash {
    let digest = digest(
        &SHA256,
        [token.expose().as_bytes(), b"\0", sender.to_lowercase().as_bytes()].concat().as_slice(),
    );
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

/// The habit that begins in column `first`: `fetched_plain`, `left_plain`, `left_senders`.
pub(super) fn habit_in(row: &Row<'_>, first: usize) -> sql::Result<FetchHabit> {
    let senders: Vec<u8> = row.get(first + 2)?;
    Ok(FetchHabit {
        fetched: row.get::<Option<i64>>(first)?.map(UnixTime),
        left: row.get::<Option<i64>>(first + 1)?.map(UnixTime),
        senders: senders.as_chunks().0.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn left(senders: &[&str]) -> FetchLesson {
        FetchLesson::LeftUnencrypted(senders.iter().map(|sender| (*sender).to_owned()).collect())
    }

    #[test]
    fn three_senders_teach_and_one_fetch_forgets() {
        let token = DeviceToken::new(b"openpgp:x").unwrap();
        let mut habit = FetchHabit::default();
        let mut learn = |lesson: &FetchLesson, now| {
            let is_news = habit.learn(&token, lesson, UnixTime(now), HOUR);
            (is_news, habit.fetches())
        };
        assert_eq!(learn(&left(&[]), 0), (false, None));
        assert_eq!(learn(&left(&["a@x"]), 1), (true, None));
        assert_eq!(learn(&left(&["A@x"]), 2), (false, None), "a blocked contact may write often");
        assert_eq!(learn(&left(&["b@x"]), 3), (true, None));
        assert_eq!(learn(&left(&["c@x", "d@x", "e@x"]), 4), (true, Some(Fetches::EncryptedOnly)));
        assert_eq!(learn(&left(&["f@x"]), 5), (false, Some(Fetches::EncryptedOnly)));
        assert_eq!(
            learn(&left(&["f@x"]), 9999),
            (true, Some(Fetches::EncryptedOnly)),
            "once an hour"
        );
        assert_eq!(learn(&FetchLesson::FetchedUnencrypted, 10_000), (true, Some(Fetches::All)));
        assert_eq!(learn(&FetchLesson::FetchedUnencrypted, 10_001), (false, Some(Fetches::All)));
        assert_eq!(
            learn(&left(&["a@x", "b@x"]), 10_002),
            (true, Some(Fetches::All)),
            "the evidence begins again"
        );
        assert_eq!(learn(&left(&["c@x"]), 10_003), (true, Some(Fetches::EncryptedOnly)));
    }

    #[test]
    fn hashes_of_a_sender_differ_from_token_to_token() {
        let hash = |token: &[u8], sender| sender_hash(&DeviceToken::new(token).unwrap(), sender);
        assert_ne!(hash(b"openpgp:x", "a@x"), hash(b"openpgp:y", "a@x"));
        assert_ne!(hash(b"openpgp:x", "a@x"), hash(b"openpgp:x", "b@x"));
        assert_eq!(hash(b"openpgp:x", "a@x"), hash(b"openpgp:x", "A@X"));
    }
}
