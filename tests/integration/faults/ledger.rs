//! Records of deliveries and pushes, and their comparison.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::notifications::Accepted;

/// A message's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// From somebody else: it deserves a push.
    News,
    /// `Auto-Submitted: auto-replied`.
    AutoReply,
    /// From the account itself.
    OwnMail,
    /// Another client has shown it before deltapush could see it.
    Seen,
}

/// An account and its devices.
#[derive(Debug)]
pub(crate) struct Account {
    /// The login name.
    pub(crate) user: String,
    /// The devices' tokens.
    pub(crate) tokens: Vec<String>,
    /// It is sent nothing that deserves a push.
    pub(crate) quiet: bool,
    /// Automatic replies are among its mail.
    pub(crate) gets_replies: bool,
}

impl Account {
    /// A kind of message for this account: three of four deserve a push.
    pub(crate) fn kind(&self, rng: &mut Rng) -> Kind {
        let skipped = [Kind::AutoReply, Kind::OwnMail, Kind::Seen];
        let skipped = if self.gets_replies { &skipped[..] } else { &skipped[1..] };
        match rng.u32(0..12) {
            0..3 => skipped[rng.usize(0..skipped.len())],
            _ if self.quiet => skipped[rng.usize(0..skipped.len())],
            _ => Kind::News,
        }
    }
}

/// A message in a mailbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivered {
    /// Index of the account.
    pub(crate) account: usize,
    /// Its number.
    pub(crate) message: usize,
    /// Its kind.
    pub(crate) kind: Kind,
    /// The last moment at which it was not there yet.
    pub(crate) at: Instant,
}

/// A message that deserved a push, and a device that was not told after it came.
#[derive(Debug)]
pub(crate) struct Missing {
    account: String,
    token: String,
    /// Time from its arrival to the last delivery.
    before_end: Duration,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { account, token, before_end } = self;
        write!(
            f,
            "{account}, {token}: what came {:.3} s before the last message",
            before_end.as_secs_f32()
        )
    }
}

/// The outcome of a run.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Messages delivered.
    pub(crate) delivered: usize,
    /// Of these, those that deserve a push.
    pub(crate) deserving: usize,
    /// Notifications that had to come: one per deserving message and token, fewer POSTs if they share one.
    pub(crate) owed: usize,
    /// Those of them that did not.
    pub(crate) missing: Vec<Missing>,
    /// POSTs that were accepted.
    pub(crate) accepted: usize,
    /// Of these, those since whose predecessor nothing deserving was delivered: it had been before that one, but deltapush heard
    /// of it later, or it was not sure that the predecessor was accepted.
    pub(crate) surplus: usize,
    /// Of these, those of accounts that had nothing to announce at all.
    pub(crate) nuisances: Vec<String>,
    /// From a deserving message to the first POST after it, in order.
    pub(crate) waits: Vec<Duration>,
}

/// Compares what was delivered with what was announced. `knows`: whether a device, of which the user's name and the token are
/// given, has found out about a message by itself.
pub(crate) fn compare(
    accounts: &[Account],
    delivered: &[Delivered],
    accepted: &[Accepted],
    knows: impl Fn(&str, &str, usize) -> bool,
) -> Tally {
    let mut posts: HashMap<&str, Vec<Instant>> = HashMap::new();
    for accepted in accepted {
        posts.entry(&accepted.token).or_default().push(accepted.at);
    }
    posts.values_mut().for_each(|posts| posts.sort_unstable());
    let mut news: HashMap<&str, Vec<Instant>> = HashMap::new();
    let mut tally =
        Tally { delivered: delivered.len(), accepted: accepted.len(), ..Tally::default() };
    let end = delivered.iter().map(|delivered| delivered.at).max();
    for message in delivered.iter().filter(|message| message.kind == Kind::News) {
        tally.deserving += 1;
        let account = &accounts[message.account];
        for token in &account.tokens {
            tally.owed += 1;
            news.entry(token).or_default().push(message.at);
            let posts = posts.get(token.as_str()).map(Vec::as_slice).unwrap_or_default();
            match posts.iter().find(|post| **post >= message.at) {
                Some(post) => tally.waits.push(*post - message.at),
                None if knows(&account.user, token, message.message) => {}
                None => tally.missing.push(Missing {
                    account: account.user.clone(),
                    token: token.clone(),
                    before_end: end.unwrap_or(message.at) - message.at,
                }),
            }
        }
    }
    tally.waits.sort_unstable();
    for (token, posts) in &posts {
        let news = news.get(token).map(Vec::as_slice).unwrap_or_default();
        if news.is_empty() {
            tally.nuisances.extend(posts.iter().map(|_| (*token).to_owned()));
        }
        let mut before = None;
        for post in posts {
            let has_news =
                news.iter().any(|news| news <= post && before.is_none_or(|before| *news > before));
            tally.surplus += usize::from(!has_news);
            before = Some(*post);
        }
    }
    tally
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wait = |percent: usize| {
            let index = (self.waits.len() * percent / 100).min(self.waits.len().saturating_sub(1));
            self.waits.get(index).map_or(f32::NAN, Duration::as_secs_f32)
        };
        writeln!(f, "| messages delivered | {:>6} |", self.delivered)?;
        writeln!(f, "| … that deserve a push | {:>6} |", self.deserving)?;
        writeln!(f, "| … times the tokens of their accounts | {:>6} |", self.owed)?;
        writeln!(f, "| not announced | {:>6} |", self.missing.len())?;
        writeln!(f, "| POSTs accepted | {:>6} |", self.accepted)?;
        writeln!(f, "| … with nothing new to announce | {:>6} |", self.surplus)?;
        writeln!(f, "| … for skipped mail | {:>6} |", self.nuisances.len())?;
        writeln!(f, "| from delivery to POST, median | {:>4.1} s |", wait(50))?;
        writeln!(f, "| … the slowest in a hundred | {:>4.1} s |", wait(99))?;
        write!(f, "| … the slowest | {:>4.1} s |", wait(100))
    }
}

mod tests {
    use super::*;

    #[test]
    fn ledger_tells_missing_surplus_and_nuisance_apart() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let account = |user: &str, tokens: &[&str], quiet| Account {
            user: user.to_owned(),
            tokens: tokens.iter().map(|&token| token.to_owned()).collect(),
            quiet,
            gets_replies: true,
        };
        let accounts = [
            account("a", &["1", "2"], false),
            account("b", &["2"], false),
            account("c", &["3"], true),
        ];
        let delivered = |account, kind, seconds: u64| {
            let message = usize::try_from(seconds).unwrap();
            Delivered { account, message, kind, at: at(seconds) }
        };
        let nobody = |_: &str, _: &str, _: usize| false;
        let delivered = [
            delivered(0, Kind::News, 10),
            delivered(0, Kind::News, 11),
            delivered(1, Kind::News, 20),
            delivered(2, Kind::Seen, 21),
        ];
        let accepted = |token: &str, seconds| Accepted {
            at: at(seconds),
            token: token.to_owned(),
            from: String::new(),
        };
        let good = [accepted("2", 12), accepted("1", 11), accepted("2", 20)];
        let tally = compare(&accounts, &delivered, &good, nobody);
        assert_eq!((tally.deserving, tally.owed, tally.surplus), (3, 5, 0), "{tally:?}");
        assert!(tally.missing.is_empty() && tally.nuisances.is_empty(), "{tally:?}");

        let late = [accepted("1", 11), accepted("2", 12), accepted("2", 19), accepted("3", 30)];
        let tally = compare(&accounts, &delivered, &late, nobody);
        assert_eq!((tally.missing.len(), tally.surplus), (1, 2), "{tally:?}");
        assert_eq!(
            (tally.missing[0].account.as_str(), tally.nuisances),
            ("b", vec!["3".to_owned()])
        );

        let told =
            |user: &str, token: &str, message: usize| (user, token, message) == ("b", "2", 20);
        assert!(
            compare(&accounts, &delivered, &late, told).missing.is_empty(),
            "it has seen it for itself"
        );
        let told =
            |user: &str, token: &str, message: usize| (user, token, message) == ("b", "2", 10);
        assert_eq!(
            compare(&accounts, &delivered, &late, told).missing.len(),
            1,
            "that was another message"
        );
    }
}
