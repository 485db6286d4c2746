//! Cache of the mail servers that send push notifications themselves.

use std::time::{Duration, Instant};

use dashmap::DashMap;
use tracing::info;

use crate::upstream::route::Target;
use crate::upstream::server_fact::{LearnedFact, ServerFact};

/// The upstreams that push by themselves, as far as they were asked: a question less at each login.
#[derive(Debug, Default)]
pub(super) struct Probes {
    known: DashMap<String, ProbeAnswer>,
}

#[derive(Debug)]
struct ProbeAnswer {
    pushes: bool,
    at: Instant,
    /// Another node has asked.
    is_heard: bool,
}

/// Lifetime of an answer.
const PROBE_LIFE: Duration = Duration::from_secs(3600);

/// Most upstreams that are remembered.
const MAX_PROBES: usize = 1000;

impl Probes {
    fn get(&self, target: &Target) -> Option<bool> {
        let known = self.known.get(&target.name())?;
        (known.at.elapsed() < PROBE_LIFE).then_some(known.pushes)
    }

    pub(super) fn is_known(&self, target: &Target) -> bool {
        self.get(target).is_some()
    }

    pub(super) fn pushes(&self, target: &Target) -> bool {
        self.get(target).unwrap_or(false)
    }

    pub(super) fn remember(&self, target: &Target, pushes: bool) {
        let answer = ProbeAnswer { pushes, at: Instant::now(), is_heard: false };
        let before = self.insert(target.name(), answer);
        if pushes && before.is_none_or(|before| !before.pushes) {
            info!(
                upstream = %target,
                "this mail server sends push notifications itself: deltapush passes device tokens on to it \
                 (push.native: passthrough)"
            );
        }
    }

    fn insert(&self, server: String, answer: ProbeAnswer) -> Option<ProbeAnswer> {
        if self.known.len() >= MAX_PROBES {
            self.known.clear();
        }
        self.known.insert(server, answer)
    }

    /// Answers that this process has found out since, for the other nodes.
    pub(super) fn learned_since(&self, since: Instant) -> Vec<LearnedFact> {
        let own = self.known.iter().filter(|known| !known.is_heard && known.at >= since);
        let learned = own.map(|known| LearnedFact {
            fact: ServerFact::Pushes { server: known.key().clone(), pushes: known.pushes },
            age: known.at.elapsed(),
        });
        learned.collect()
    }

    /// Another node found this out so long ago.
    pub(super) fn hear(&self, server: String, pushes: bool, age: Duration) {
        let Some(at) = Instant::now().checked_sub(age) else { return };
        if self.known.get(&server).is_none_or(|known| known.at < at) {
            self.insert(server, ProbeAnswer { pushes, at, is_heard: true });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_node_finds_out_another_uses() {
        let (one, two, begin) = (Probes::default(), Probes::default(), Instant::now());
        let answer = |pushes| ProbeAnswer { pushes, at: Instant::now(), is_heard: false };
        one.insert("imap.example.org".to_owned(), answer(true));
        for LearnedFact { fact, age } in one.learned_since(begin) {
            let ServerFact::Pushes { server, pushes } = fact else { panic!("{fact:?}") };
            two.hear(server, pushes, age);
        }
        let known = || two.known.get("imap.example.org").unwrap().pushes;
        assert!(known());
        assert!(two.learned_since(begin).is_empty(), "it is not the one that found it out");
        two.hear("imap.example.org".to_owned(), false, Duration::from_secs(9));
        assert!(known(), "that is older");
        two.hear("imap.example.org".to_owned(), false, Duration::ZERO);
        assert!(!known());
    }
}
