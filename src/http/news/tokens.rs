//! The tokens that the hook accepts, and of which accounts their holders may tell.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{NewsToken, TokenHash};
use crate::http::authorization;
use crate::http::throttle::Guesses;
use crate::push::server_news::NewsScope;

/// The tokens, and the addresses that had wrong ones.
#[derive(Debug)]
pub(super) struct Tokens {
    /// Empty if none is needed.
    known: Vec<(TokenHash, NewsScope)>,
    guesses: Mutex<Guesses>,
}

/// The reason for which a request is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenProblem {
    /// It has none.
    Missing,
    /// It has a wrong one. `is_first`: the first of its address in a row.
    Wrong { is_first: bool },
    /// It has a wrong one again, too soon. The time to wait.
    TooSoon(Duration),
}

impl Tokens {
    pub(super) fn new(tokens: &[NewsToken]) -> Self {
        let known = tokens.iter().map(|token| {
            let logins = token.logins.as_deref().cloned();
            (*token.hash, logins.map_or(NewsScope::All, NewsScope::Logins))
        });
        Self { known: known.collect(), guesses: Mutex::default() }
    }

    /// Returns the scope of the token in an Authorization field of a request from `address`. The right token is always
    /// accepted: nobody guesses 256 bits, and another program at the same address must not be able to lock a mail server out.
    pub(super) fn scope(
        &self,
        authorization: Option<&[u8]>,
        address: IpAddr,
        now: Instant,
    ) -> Result<NewsScope, TokenProblem> {
        if self.known.is_empty() {
            return Ok(NewsScope::All);
        }
        let Some(token) = authorization.and_then(authorization::secret) else {
            return Err(TokenProblem::Missing);
        };
        let given = TokenHash::of(&token);
        // All are compared, so that the time tells nothing.
        let found = self.known.iter().fold(
            None,
            |found, (hash, scope)| {
                if hash.is(&given) { Some(scope) } else { found }
            },
        );
        let mut guesses = self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scope) = found {
            guesses.right(address);
            return Ok(scope.clone());
        }
        match guesses.wait(address, now) {
            Some(wait) => Err(TokenProblem::TooSoon(wait)),
            None => Err(TokenProblem::Wrong { is_first: guesses.wrong(address, now) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn token(text: &[u8], logins: Option<&str>) -> NewsToken {
        let logins = logins.map(|login| vec![login.parse().unwrap()].into());
        NewsToken { hash: TokenHash::of(text).into(), logins }
    }

    #[test]
    fn token_has_its_scope_and_wrong_ones_have_to_wait() {
        let tokens = Tokens::new(&[token(b"one", None), token(b"two", Some("a.example"))]);
        let now = Instant::now();
        let scope = |given: &[u8]| tokens.scope(Some(given), CLIENT, now);
        assert_eq!(scope(b"Bearer one"), Ok(NewsScope::All));
        assert_eq!(scope(b"Bearer two"), Ok(NewsScope::Logins(vec!["a.example".parse().unwrap()])));
        assert_eq!(tokens.scope(None, CLIENT, now), Err(TokenProblem::Missing));
        assert_eq!(scope(b"one"), Err(TokenProblem::Missing));
        assert_eq!(scope(b"Bearer three"), Err(TokenProblem::Wrong { is_first: true }));
        assert!(matches!(scope(b"Bearer four"), Err(TokenProblem::TooSoon(_))));
        let later = now + Duration::from_secs(2);
        let again = tokens.scope(Some(b"Bearer four"), CLIENT, later);
        assert_eq!(again, Err(TokenProblem::Wrong { is_first: false }));
        assert_eq!(scope(b"Bearer one"), Ok(NewsScope::All));
        assert_eq!(scope(b"Bearer five"), Err(TokenProblem::Wrong { is_first: true }));
    }

    #[test]
    fn hook_without_tokens_asks_for_none() {
        let tokens = Tokens::new(&[]);
        assert_eq!(tokens.scope(None, CLIENT, Instant::now()), Ok(NewsScope::All));
        assert_eq!(tokens.scope(Some(b"Bearer x"), CLIENT, Instant::now()), Ok(NewsScope::All));
    }
}
