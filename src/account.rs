//! The identity of an account, across sessions, watchers and the state file.

use std::fmt;
use std::sync::Arc;

use crate::credentials::Credentials;

/// An account: a login name on an upstream server. Two people called `bob` on two servers are two accounts.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId {
    /// The login name, as the client gave it.
    pub user: Arc<str>,
    /// The server, as `host:port`.
    pub upstream: Arc<str>,
}

impl AccountId {
    /// The account that `credentials` lead to on `upstream`. A login on behalf of somebody else is an account of its own: which
    /// of the two names a server goes by is the server's business.
    #[must_use]
    pub fn of(credentials: &Credentials, upstream: &str) -> Self {
        match &credentials.authorization {
            None => Self::new(&credentials.user, upstream),
            // No name has a line feed: routes refuse it.
            Some(other) => Self::new(&format!("{other}\n{}", credentials.user), upstream),
        }
    }

    /// The login name.
    #[must_use]
    pub fn login(&self) -> &str {
        self.user.rsplit_once('\n').map_or(&self.user, |(_, login)| login)
    }

    /// The owner of the mailbox.
    #[must_use]
    pub fn owner(&self) -> &str {
        self.user.split_once('\n').map_or(&self.user, |(owner, _)| owner)
    }

    /// The account of `user` on `upstream` (`host:port`).
    #[must_use]
    pub fn new(user: &str, upstream: &str) -> Self {
        Self { user: user.into(), upstream: upstream.into() }
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.user.escape_debug())
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.user.escape_debug(), self.upstream)
    }
}
