//! POSTs with nothing new to announce since the POST before, and their explanations, each of which is checked.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::super::super::faults::ledger::Kind;
use super::super::super::faults::notifications::Accepted;
use super::books::Books;
use super::outages::{Outage, Outages, Part};

/// From an accepted POST to the commit of its answer, and from a message to its POST, on a busy machine.
const SOON: Duration = Duration::from_secs(3);

/// All repeated POSTs, by their explanations.
#[derive(Default)]
pub(super) struct Duplicates {
    /// The watch heard of a message only after the POST for the one before it.
    heard_later: usize,
    /// The answer to the first POST could not be written: its node, or the database, failed in that moment.
    unwritten: usize,
    /// The node stood still between its decision to post and the POST.
    stood_still: usize,
    pub(super) unexplained: Vec<String>,
}

/// Explains all repeated POSTs of a run.
pub(super) fn explain(books: &Books, outages: &Outages) -> Duplicates {
    let (accepted, outages) = (books.accepted(), outages.all());
    let mut posts: BTreeMap<&str, Vec<&Accepted>> = BTreeMap::new();
    for post in &accepted {
        posts.entry(&post.token).or_default().push(post);
    }
    let mut found = Duplicates::default();
    for (token, mut posts) in posts {
        posts.sort_unstable_by_key(|post| post.at);
        let news = news_of(books, token);
        for index in 1..posts.len() {
            let (first, second) = (posts[index - 1], posts[index]);
            if news.iter().any(|at| (first.at..=second.at).contains(at)) {
                continue;
            }
            let before = index.checked_sub(2).map(|index| posts[index].at);
            found.add(Repeated { token, before, first, second }, &news, &outages);
        }
    }
    found
}

/// The times of all messages that deserve a push to the token.
fn news_of(books: &Books, token: &str) -> Vec<Instant> {
    let has_token = |account: usize| books.accounts[account].tokens.iter().any(|one| one == token);
    let delivered = books.delivered().into_iter();
    let mut news: Vec<_> = delivered
        .filter(|message| message.kind == Kind::News && has_token(message.account))
        .map(|message| message.at)
        .collect();
    news.sort_unstable();
    news
}

/// A POST, and the one before.
struct Repeated<'a> {
    token: &'a str,
    before: Option<Instant>,
    first: &'a Accepted,
    second: &'a Accepted,
}

impl Duplicates {
    fn add(&mut self, repeated: Repeated<'_>, news: &[Instant], outages: &[Outage]) {
        if repeated.is_of_news_heard_later(news, outages) {
            self.heard_later += 1;
        } else if repeated.was_unwritten(outages) {
            self.unwritten += 1;
        } else if repeated.stood_still(outages) {
            self.stood_still += 1;
        } else {
            let Repeated { token, first, second, .. } = repeated;
            self.unexplained.push(format!(
                "{token}: by {} {:.2} s after the first fault, again by {} {:.2} s later",
                first.from,
                since_first(outages, first.at),
                second.from,
                (second.at - first.at).as_secs_f32()
            ));
        }
    }
}

impl Repeated<'_> {
    /// The first POST may have announced the first of two messages only: the second had just come, or its watch was cut off.
    fn is_of_news_heard_later(&self, news: &[Instant], outages: &[Outage]) -> bool {
        let is_open =
            |at: &&Instant| **at <= self.first.at && self.before.is_none_or(|before| **at > before);
        let open: Vec<_> = news.iter().filter(is_open).collect();
        let cut_off = |at: Instant| {
            outages.iter().any(|outage| {
                matches!(outage.part, Part::Mail(_)) && outage.meets(at, self.first.at, SOON)
            })
        };
        let is_late = |at: &Instant| self.first.at - *at < SOON || cut_off(*at);
        open.len() > 1 && open.last().is_some_and(|at| is_late(at))
            // The watch of another account with the device was cut off.
            || self.token == "openpgp:shared" && news.iter().any(|at| *at <= self.first.at && cut_off(*at))
    }

    /// The node of the first POST failed, or the database, before the answer was written.
    fn was_unwritten(&self, outages: &[Outage]) -> bool {
        outages.iter().any(|outage| {
            let concerns = match &outage.part {
                Part::Node(name) => *name == self.first.from,
                Part::Database => true,
                Part::Mail(_) => false,
            };
            concerns && outage.meets(self.first.at, self.first.at, SOON)
        })
    }

    /// The second POST, or the first one, is by a node that woke up just before.
    fn stood_still(&self, outages: &[Outage]) -> bool {
        let woke = |post: &Accepted| {
            outages.iter().any(|outage| {
                let end = outage.to.unwrap_or(outage.from);
                outage.part == Part::Node(post.from.clone()) && (end..end + SOON).contains(&post.at)
            })
        };
        woke(self.second) || woke(self.first)
    }
}

fn since_first(outages: &[Outage], at: Instant) -> f32 {
    let first = outages.iter().map(|outage| outage.from).min();
    first.map_or(0.0, |first| at.saturating_duration_since(first).as_secs_f32())
}

impl fmt::Display for Duplicates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| repeated: a message was heard of later | {:>6} |", self.heard_later)?;
        writeln!(f, "| repeated: the answer could not be written | {:>6} |", self.unwritten)?;
        writeln!(f, "| repeated: the node stood still before it | {:>6} |", self.stood_still)?;
        writeln!(f, "| repeated without an explanation | {:>6} |", self.unexplained.len())
    }
}
