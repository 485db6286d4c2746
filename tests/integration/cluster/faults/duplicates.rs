//! POSTs with nothing new to announce since the POST before, and their explanations, each of which is checked.
//!
//! Each message is a reason for one POST, at the time at which its watch may have heard of it; each POST whose answer may not have
//! been written is a reason for one more. A POST for which no reason is left is one too many.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::super::super::faults::ledger::Kind;
use super::super::super::faults::notifications::Accepted;
use super::books::Books;
use super::outages::{Outage, Outages, Part};
use super::takeovers::TAKEN_OVER;

/// From an accepted POST to the commit of its answer, and from a message to its POST, on a busy machine.
const SOON: Duration = Duration::from_secs(3);

/// After the database was away, each node has a whole lease to renew.
const AFTER_DATABASE: Duration = Duration::from_secs(12);

/// After a way to the mail server broke, watches begin again.
const AFTER_MAIL: Duration = Duration::from_secs(8);

/// All repeated POSTs, by their explanations.
#[derive(Default)]
pub(super) struct Duplicates {
    /// The watch heard of a message only after the POST for the one before it.
    heard_later: usize,
    /// The answer to an earlier POST could not be written: its node, or the database, failed in that moment.
    unwritten: usize,
    /// The node stood still between its decision to post and the POST.
    stood_still: usize,
    pub(super) unexplained: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ReasonKind {
    Message,
    Unwritten,
}

/// A reason for one POST, within these times.
struct Reason {
    kind: ReasonKind,
    from: Instant,
    to: Instant,
}

impl Reason {
    fn new(kind: ReasonKind, from: Instant, outages: &[Outage]) -> Self {
        Self { kind, from, to: latest(from, outages) }
    }
}

/// Explains all repeated POSTs of a run.
pub(super) fn explain(books: &Books, outages: &Outages) -> Duplicates {
    let (accepted, mut outages) = (books.accepted(), outages.all());
    outages.sort_unstable_by_key(|outage| outage.from);
    let mut posts: BTreeMap<&str, Vec<&Accepted>> = BTreeMap::new();
    for post in &accepted {
        posts.entry(&post.token).or_default().push(post);
    }
    let mut found = Duplicates::default();
    for (token, mut posts) in posts {
        posts.sort_unstable_by_key(|post| post.at);
        found.add(&posts, &news_for(books, token), &outages);
    }
    found
}

/// The times of the messages that deserve a push of the token, in order.
fn news_for(books: &Books, token: &str) -> Vec<Instant> {
    let is_for = |account: usize| books.accounts[account].tokens.iter().any(|one| one == token);
    let delivered = books.delivered().into_iter();
    let news = delivered.filter(|message| message.kind == Kind::News && is_for(message.account));
    let mut times: Vec<_> = news.map(|message| message.at).collect();
    times.sort_unstable();
    times
}

impl Duplicates {
    /// Adds the repeated ones among the POSTs of a token.
    fn add(&mut self, posts: &[&Accepted], news: &[Instant], outages: &[Outage]) {
        let message = |at: &Instant| Reason::new(ReasonKind::Message, *at, outages);
        let mut reasons: Vec<Reason> = news.iter().map(message).collect();
        let mut before: Option<&Accepted> = None;
        for &post in posts {
            let is_open = |reason: &Reason| (reason.from..=reason.to).contains(&post.at);
            let open = reasons.iter().enumerate().filter(|(_, reason)| is_open(reason));
            let first = open.min_by_key(|(_, reason)| reason.to).map(|(index, _)| index);
            let kind = first.map(|index| reasons.swap_remove(index).kind);
            if let Some(before) = before
                && !news.iter().any(|at| (before.at..=post.at).contains(at))
            {
                self.count(kind, (before, post), outages);
            }
            if is_unwritten(post, outages) {
                reasons.push(Reason::new(ReasonKind::Unwritten, post.at, outages));
            }
            before = Some(post);
        }
    }

    fn count(
        &mut self,
        kind: Option<ReasonKind>,
        (before, post): (&Accepted, &Accepted),
        outages: &[Outage],
    ) {
        match kind {
            Some(ReasonKind::Message) => self.heard_later += 1,
            Some(ReasonKind::Unwritten) => self.unwritten += 1,
            None if woke(post, outages) || woke(before, outages) => self.stood_still += 1,
            None => self.unexplained.push(format!(
                "{}: by {} {:.2} s after the first fault, again by {} {:.2} s later",
                post.token,
                before.from,
                since_first(outages, before.at),
                post.from,
                (post.at - before.at).as_secs_f32()
            )),
        }
    }
}

/// The latest time at which a node may hear of what has happened at a time: soon, or when all faults that follow on one another
/// are over.
fn latest(at: Instant, outages: &[Outage]) -> Instant {
    let mut latest = at + SOON;
    for outage in outages {
        let after = match outage.part {
            Part::Node(_) => TAKEN_OVER,
            Part::Database => AFTER_DATABASE,
            Part::Mail(_) => AFTER_MAIL,
        };
        let end = outage.to.unwrap_or(outage.from) + after;
        if outage.from <= latest && end >= at {
            latest = latest.max(end);
        }
    }
    latest
}

/// The node of the POST failed, or the database, before the answer was written.
fn is_unwritten(post: &Accepted, outages: &[Outage]) -> bool {
    outages.iter().any(|outage| {
        let concerns = match &outage.part {
            Part::Node(name) => *name == post.from,
            Part::Database => true,
            Part::Mail(_) => false,
        };
        concerns && outage.meets(post.at, post.at, SOON)
    })
}

/// The POST is by a node that woke up just before.
fn woke(post: &Accepted, outages: &[Outage]) -> bool {
    outages.iter().any(|outage| {
        let end = outage.to.unwrap_or(outage.from);
        outage.part == Part::Node(post.from.clone()) && (end..end + SOON).contains(&post.at)
    })
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

mod tests {
    use super::*;

    /// Tells for POSTs of a token by one node, at these seconds, how many are heard later, unwritten, and unexplained.
    fn counts(posts: &[u64], news: &[u64], outages: &[(Part, u64, u64)]) -> (usize, usize, usize) {
        let start = Instant::now();
        let at = |second: &u64| start + Duration::from_secs(*second);
        let post = |second| Accepted {
            at: at(second),
            token: "openpgp:a".to_owned(),
            from: "node-0".to_owned(),
        };
        let posts: Vec<_> = posts.iter().map(post).collect();
        let outage = |(part, from, to): &(Part, u64, u64)| Outage {
            name: "fault",
            part: part.clone(),
            from: at(from),
            to: Some(at(to)),
        };
        let outages: Vec<_> = outages.iter().map(outage).collect();
        let mut found = Duplicates::default();
        let news: Vec<_> = news.iter().map(at).collect();
        found.add(&posts.iter().collect::<Vec<_>>(), &news, &outages);
        (found.heard_later, found.unwritten, found.unexplained.len())
    }

    #[test]
    fn each_post_needs_a_reason_of_its_own() {
        assert_eq!(counts(&[10, 20], &[9, 19], &[]), (0, 0, 0));
        assert_eq!(counts(&[10, 12], &[9], &[]), (0, 0, 1));
        assert_eq!(counts(&[10, 12], &[9, 10], &[]), (0, 0, 0));
        assert_eq!(counts(&[10, 12], &[8, 9], &[]), (1, 0, 0));
        assert_eq!(counts(&[20, 30], &[8, 9], &[]), (0, 0, 1), "too late for the second one");
        let mail = [(Part::Mail("node-1".to_owned()), 9, 25)];
        assert_eq!(counts(&[10, 30], &[8, 9], &mail), (1, 0, 0), "it was cut off");
        assert_eq!(counts(&[10, 30], &[8], &mail), (0, 0, 1), "there was one message");
        let dead = [(Part::Node("node-0".to_owned()), 11, 15)];
        assert_eq!(counts(&[10, 25], &[9], &dead), (0, 1, 0));
        assert_eq!(
            counts(&[10, 25, 26], &[9, 20], &dead),
            (0, 1, 0),
            "the repeated one came first"
        );
        assert_eq!(counts(&[10, 25, 26], &[9], &dead), (0, 1, 1));
    }
}
