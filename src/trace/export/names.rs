//! Replacement names in an export.

use std::collections::HashMap;

use super::address;

/// Fewest digits of a name that may be a telephone number: the shortest numbers of people have six.
pub(super) const SHORTEST_NUMBER: usize = 6;

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
        let address = address::parse(name);
        if name.eq_ignore_ascii_case("localhost")
            || address.is_some_and(|address| address.is_loopback())
        {
            return name.to_owned();
        }
        // An address has many notations, and is one host.
        let name = address
            .map_or_else(|| name.trim_end_matches('.').to_owned(), |address| address.to_string());
        format!("host{}.example", number(&mut self.hosts, &name))
    }

    /// Any other word, which may be a name that is known.
    pub(super) fn word(&mut self, word: &str) -> String {
        self.known(word).unwrap_or_else(|| format!("word{}", number(&mut self.words, word)))
    }

    /// The replacement of a word that is somebody's name.
    pub(super) fn known(&self, word: &str) -> Option<String> {
        // A short number is a size or a place, even if somebody is called so.
        if word.len() < SHORTEST_NUMBER && word.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        // `*` is a user in a URL of IMAP, and begins most lines.
        if !word.chars().any(char::is_alphanumeric) {
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
