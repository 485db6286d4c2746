//! Describes which messages wake an account's devices, and the evidence of what their apps fetch.

use super::format::{counted, date, timestamp};
use crate::config::Messages;
use crate::store::{FetchHabit, Fetches, TokenStatus};

/// Describes which messages wake devices with these tokens.
pub(super) fn messages(messages: Messages, tokens: &[TokenStatus]) -> &'static str {
    let all = |fetches| {
        !tokens.is_empty() && tokens.iter().all(|token| token.habit.fetches() == Some(fetches))
    };
    let any = |fetches| tokens.iter().any(|token| token.habit.fetches() == fetches);
    match messages {
        Messages::All => "all messages (push.messages: all)",
        Messages::Chat => "chat messages (push.messages: chat)",
        Messages::Encrypted => "encrypted messages (push.messages: encrypted)",
        Messages::Auto if all(Fetches::EncryptedOnly) => {
            "encrypted messages: its apps fetch no others"
        }
        Messages::Auto if any(Some(Fetches::All)) => {
            "all messages: one of its apps fetches unencrypted ones too"
        }
        Messages::Auto => "all messages: deltapush does not know yet which ones its apps fetch",
    }
}

/// Describes what an app fetches, with the evidence; empty if unknown.
pub(super) fn evidence(habit: &FetchHabit) -> String {
    let time = |time: Option<crate::store::UnixTime>| {
        time.map(|time| date(timestamp(time))).unwrap_or_default()
    };
    let senders = habit.senders.len();
    match habit.fetches() {
        Some(Fetches::EncryptedOnly) => {
            format!(
                "its app fetches encrypted messages only: it did not fetch unencrypted ones of {}, last {}",
                counted(senders as u64, "sender"),
                time(habit.left)
            )
        }
        Some(Fetches::All) => {
            format!("its app fetches unencrypted messages too, last {}", time(habit.fetched))
        }
        None if senders > 0 => {
            format!(
                "its app did not fetch unencrypted messages of {}, last {}; deltapush is certain after 3",
                counted(senders as u64, "sender"),
                time(habit.left)
            )
        }
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::UnixTime;

    fn token(habit: FetchHabit) -> TokenStatus {
        let seen = UnixTime(0);
        TokenStatus {
            fingerprint: String::new(),
            first_seen: seen,
            last_seen: seen,
            habit,
            pending: false,
            accepted: None,
            given_up: None,
            quarantine: None,
        }
    }

    #[test]
    fn most_inclusive_device_decides() {
        let encrypted = FetchHabit {
            left: Some(UnixTime(0)),
            senders: vec![[0; 8], [1; 8], [2; 8]],
            fetched: None,
        };
        let all = FetchHabit { fetched: Some(UnixTime(0)), ..FetchHabit::default() };
        let said = |habits: &[&FetchHabit]| {
            let tokens: Vec<TokenStatus> =
                habits.iter().map(|habit| token((*habit).clone())).collect();
            messages(Messages::Auto, &tokens)
        };
        assert!(said(&[&encrypted]).starts_with("encrypted messages"));
        assert!(said(&[&encrypted, &all]).contains("one of its apps fetches unencrypted"));
        assert!(said(&[&encrypted, &FetchHabit::default()]).contains("does not know yet"));
        assert!(said(&[]).contains("does not know yet"));
        assert!(evidence(&encrypted).ends_with("of 3 senders, last 1970-01-01"));
        assert!(evidence(&all).ends_with("last 1970-01-01"));
        assert_eq!(evidence(&FetchHabit::default()), "");
    }
}
