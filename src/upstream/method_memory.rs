//! The login method that worked at a server where the usual one did not: a bounded map with expiry, shared by clients and
//! watches, so that later logins do not waste a round trip. In memory only; nodes tell one another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::mechanism::LoginMethod;
use super::route::Endpoint;
use super::server_fact::MethodFact;
use crate::credentials::{CredentialKind, Mechanism};

/// Servers that are remembered.
const MAX_SERVERS: usize = 1024;

/// Lifetime of an entry. After it the usual order is tried again: the server may have been mended.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// A server and the kind of credentials.
type MethodKey = (Arc<str>, u16, CredentialKind);

#[derive(Debug)]
struct KnownMethod {
    method: LoginMethod,
    since: Instant,
    /// Another node has found it out.
    is_heard: bool,
}

/// The memory.
#[derive(Debug, Default)]
pub struct MethodMemory(Mutex<HashMap<MethodKey, KnownMethod>>);

impl MethodMemory {
    /// The method that worked before.
    pub(super) fn find(
        &self,
        server: &Endpoint,
        kind: CredentialKind,
        now: Instant,
    ) -> Option<LoginMethod> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let KnownMethod { method, since, .. } = known.get(&key(server, kind))?;
        (now.saturating_duration_since(*since) < LIFETIME).then_some(*method)
    }

    /// Remembers that `method` worked after another one was refused. Evicts the oldest entry when the map is full.
    pub(super) fn note(
        &self,
        server: &Endpoint,
        kind: CredentialKind,
        method: LoginMethod,
        now: Instant,
    ) {
        self.insert(key(server, kind), KnownMethod { method, since: now, is_heard: false });
    }

    /// Methods that this process has found out since, and when.
    pub(super) fn learned_since(&self, since: Instant) -> Vec<(MethodFact, Instant)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = known.iter().filter(|(_, known)| !known.is_heard && known.since >= since);
        own.filter_map(|(key, known)| Some((fact(key, known.method)?, known.since))).collect()
    }

    /// Another node found this out then.
    pub(super) fn hear(&self, fact: MethodFact, since: Instant) {
        let MethodFact { host, port, is_token, mechanism, initial } = fact;
        let method = match mechanism.map(|name| Mechanism::from_name(name.as_bytes())) {
            None => LoginMethod::Login,
            Some(Some(mechanism)) => LoginMethod::Sasl { mechanism, initial },
            Some(None) => return,
        };
        let kind = if is_token { CredentialKind::Token } else { CredentialKind::Password };
        let key = (host.into(), port, kind);
        if self.since(&key).is_none_or(|own| own < since) {
            self.insert(key, KnownMethod { method, since, is_heard: true });
        }
    }

    fn since(&self, key: &MethodKey) -> Option<Instant> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key).map(|known| known.since)
    }

    fn insert(&self, key: MethodKey, method: KnownMethod) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_SERVERS && !known.contains_key(&key) {
            let oldest =
                known.iter().min_by_key(|(_, known)| known.since).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| known.remove(&oldest));
        }
        known.insert(key, method);
    }
}

fn key(server: &Endpoint, kind: CredentialKind) -> MethodKey {
    (Arc::clone(&server.host), server.port, kind)
}

/// None for an exchange that no other node can go on with.
fn fact((host, port, kind): &MethodKey, method: LoginMethod) -> Option<MethodFact> {
    let is_token = match kind {
        CredentialKind::Password => false,
        CredentialKind::Token => true,
        CredentialKind::Exchange(_) => return None,
    };
    let (mechanism, initial) = match method {
        LoginMethod::Login => (None, false),
        LoginMethod::Sasl { mechanism, initial } => (Some(mechanism.name().to_owned()), initial),
    };
    Some(MethodFact { host: host.to_string(), port: *port, is_token, mechanism, initial })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Security;

    fn server(number: usize) -> Endpoint {
        Endpoint::of_host(format!("imap{number}.example.org"), 993, Security::Tls)
    }

    #[test]
    fn entries_expire_and_are_of_one_server_and_kind() {
        let (memory, now) = (MethodMemory::default(), Instant::now());
        memory.note(&server(1), CredentialKind::Password, LoginMethod::Login, now);
        assert_eq!(
            memory.find(&server(1), CredentialKind::Password, now),
            Some(LoginMethod::Login)
        );
        assert_eq!(memory.find(&server(2), CredentialKind::Password, now), None);
        assert_eq!(memory.find(&server(1), CredentialKind::Token, now), None);
        assert_eq!(memory.find(&server(1), CredentialKind::Password, now + LIFETIME), None);
    }

    #[test]
    fn what_one_node_finds_out_another_uses() {
        let (one, two, begin) = (MethodMemory::default(), MethodMemory::default(), Instant::now());
        let later = begin + Duration::from_secs(9);
        let plain = LoginMethod::Sasl { mechanism: Mechanism::Plain, initial: true };
        one.note(&server(1), CredentialKind::Password, LoginMethod::Login, begin);
        one.note(&server(1), CredentialKind::Token, plain, later);
        one.note(&server(1), CredentialKind::Exchange(Mechanism::ScramSha1), plain, later);
        for (fact, since) in one.learned_since(begin) {
            two.hear(fact, since);
        }
        assert_eq!(two.find(&server(1), CredentialKind::Password, later), Some(LoginMethod::Login));
        assert_eq!(two.find(&server(1), CredentialKind::Token, later), Some(plain));
        assert!(two.learned_since(begin).is_empty(), "it is not the one that found it out");
        assert_eq!(one.learned_since(later).len(), 1, "told once");
        // An older one does not replace this node's own.
        two.note(&server(1), CredentialKind::Password, plain, later);
        for (fact, since) in one.learned_since(begin) {
            two.hear(fact, since);
        }
        assert_eq!(two.find(&server(1), CredentialKind::Password, later), Some(plain));
    }

    #[test]
    fn map_is_bounded() {
        let (memory, now) = (MethodMemory::default(), Instant::now());
        for number in 0..MAX_SERVERS + 10 {
            memory.note(
                &server(number),
                CredentialKind::Password,
                LoginMethod::Login,
                now + Duration::from_millis(number as u64),
            );
        }
        assert_eq!(memory.0.lock().unwrap().len(), MAX_SERVERS);
        assert_eq!(memory.find(&server(9), CredentialKind::Password, now), None);
        assert!(memory.find(&server(10), CredentialKind::Password, now).is_some());
    }
}
