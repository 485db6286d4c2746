//! Replacement names in an export.

use std::collections::HashMap;
use std::net::IpAddr;

/// Words in place of names. The same name has the same word throughout, without regard to case.
#[derive(Default)]
pub(super) struct Names {
    users: HashMap<String, usize>,
    hosts: HashMap<String, usize>,
    words: HashMap<String, usize>,
}

impl Names {
    /// A login name, or an address: `user1@host1.example`.
    pub(super) fn login(&mut self, name: &str) -> String {
        match name.rsplit_once('@') {
            Some((user, host)) => format!("{}@{}", self.user(user), self.host(host)),
            None => self.user(name),
        }
    }

    /// The part of an address before its @, or another name of a person that stands in its place.
    pub(super) fn user(&mut self, name: &str) -> String {
        format!("user{}", number(&mut self.users, name))
    }

    /// A host, a domain, or an address of the network. This machine's own are nobody's.
    pub(super) fn host(&mut self, name: &str) -> String {
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        if name.eq_ignore_ascii_case("localhost")
            || address.is_ok_and(|address| address.is_loopback())
        {
            return name.to_owned();
        }
        format!("host{}.example", number(&mut self.hosts, name.trim_end_matches('.')))
    }

    /// Any other word, which may be a name that is known.
    pub(super) fn word(&mut self, word: &str) -> String {
        self.known(word).unwrap_or_else(|| format!("word{}", number(&mut self.words, word)))
    }

    /// The replacement of a word that is somebody's name.
    pub(super) fn known(&self, word: &str) -> Option<String> {
        // Numbers are sizes and places here, whoever else is called so.
        if word.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let word = word.to_lowercase();
        let user = self.users.get(&word).map(|number| format!("user{number}"));
        user.or_else(|| self.hosts.get(&word).map(|number| format!("host{number}.example")))
    }
}

fn number(numbers: &mut HashMap<String, usize>, name: &str) -> usize {
    let next = numbers.len().saturating_add(1);
    *numbers.entry(name.to_lowercase()).or_insert(next)
}
