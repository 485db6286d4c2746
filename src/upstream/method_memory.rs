//! The login method that worked at a server where the usual one did not: a bounded map with expiry, shared by clients and
//! watches, so that later logins do not waste a round trip. In memory only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::mechanism::LoginMethod;
use super::route::Endpoint;
use crate::credentials::CredentialKind;

/// Servers that are remembered.
const MAX_SERVERS: usize = 1024;

/// Lifetime of an entry. After it the usual order is tried again: the server may have been mended.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// A server and the kind of credentials.
type MethodKey = (Arc<str>, u16, CredentialKind);

/// The memory.
#[derive(Debug, Default)]
pub struct MethodMemory(Mutex<HashMap<MethodKey, (LoginMethod, Instant)>>);

impl MethodMemory {
    /// The method that worked before.
    pub(super) fn find(
        &self,
        server: &Endpoint,
        kind: CredentialKind,
        now: Instant,
    ) -> Option<LoginMethod> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (method, since) = known.get(&key(server, kind))?;
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
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(server, kind);
        if known.len() >= MAX_SERVERS && !known.contains_key(&key) {
            let oldest =
                known.iter().min_by_key(|(_, (_, since))| *since).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| known.remove(&oldest));
        }
        known.insert(key, (method, now));
    }
}

fn key(server: &Endpoint, kind: CredentialKind) -> MethodKey {
    (Arc::clone(&server.host), server.port, kind)
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
