//! From the name in the mail server's news to the accounts that it means.

use std::sync::Arc;

use super::types::{NewsError, NewsScope};
use crate::config::{AccountSettingsByName, NewsSource};
use crate::push::account::Account;
use crate::push::registry::local_part;
use crate::push::watcher::context::WatchContext;
use crate::upstream::route::Routes;

/// An account that a name may mean.
struct Candidate {
    account: Arc<Account>,
    /// The names that it goes by: at the mail server, and at deltapush.
    names: Vec<String>,
    /// Its route takes news of the mail server.
    takes_news: bool,
}

/// The accounts that `name` means and whose news `scope` covers; none if no such account has a device.
///
/// The mail server may name an account by its user, by the login name of its clients, or by one of its configured addresses. Case
/// does not matter. A name without a domain means the account with that local part, if there is one only.
///
/// # Errors
/// [`NewsError`], if the accounts are there, and this news of them is not accepted.
pub(super) fn find(
    context: &WatchContext,
    name: &str,
    scope: &NewsScope,
) -> Result<Vec<Arc<Account>>, NewsError> {
    let upstreams = context.upstreams.get();
    let wanted = Wanted::new(name, &upstreams.routes, context.settings.get().accounts());
    let mut candidates: Vec<Candidate> = Vec::new();
    for account in wanted.names().flat_map(|name| context.registry.with_local_part_of(name)) {
        // An account that another node watches takes news there.
        let is_here = context.registry.is_watched_here(&account.id);
        if is_here && !candidates.iter().any(|known| Arc::ptr_eq(&known.account, &account)) {
            candidates.push(Candidate::new(context, account));
        }
    }
    let mut meant: Vec<Candidate> =
        candidates.extract_if(.., |found| wanted.is_exactly(found)).collect();
    if meant.is_empty() && !name.contains('@') {
        let is_short = |own: &String| is_same(local_part(own), name);
        meant = candidates.into_iter().filter(|found| found.names.iter().any(is_short)).collect();
        meant.retain(|found| found.takes_news);
        if meant.len() > 1 {
            return Err(NewsError::Ambiguous);
        }
    }
    // First: other accounts and their routes are no business of the sender's, not even if they exist.
    let is_other = name.contains('@') && !scope.covers(&wanted.given);
    meant.retain(|found| scope.covers(&found.names));
    if meant.is_empty() {
        return if is_other { Err(NewsError::OutOfScope) } else { Ok(Vec::new()) };
    }
    meant.retain(|found| found.takes_news);
    if meant.is_empty() {
        return Err(NewsError::NotConfigured);
    }
    Ok(meant.into_iter().map(|found| found.account).collect())
}

impl Candidate {
    fn new(context: &WatchContext, account: Arc<Account>) -> Self {
        let names = context.logins(&account.id);
        let takes_news = context.news_source(&account.id).is_some_and(NewsSource::has_server);
        Self { account, names, takes_news }
    }
}

/// The names that may be those of an account that is meant.
struct Wanted {
    /// The name itself, and the login name of each account that has it as an address.
    given: Vec<String>,
    /// The mail servers to which routes lead these, and the user there.
    applied: Vec<(Arc<str>, String)>,
}

impl Wanted {
    fn new(name: &str, routes: &Routes, accounts: &AccountSettingsByName) -> Self {
        let has_it = |addresses: &[String]| addresses.iter().any(|address| is_same(address, name));
        let logins = accounts.iter().filter(|(_, settings)| has_it(&settings.addresses));
        let logins = logins.map(|(login, _)| login.clone());
        let given: Vec<String> = [name.to_owned()].into_iter().chain(logins).collect();
        let applied = given.iter().flat_map(|login| routes.applied(login)).collect();
        Self { given, applied }
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.given.iter().chain(self.applied.iter().map(|(_, user)| user))
    }

    /// A user's name counts at its own mail server only: another one may have a user of the same name.
    fn is_exactly(&self, Candidate { account, names, .. }: &Candidate) -> bool {
        let is_given = |own: &String| self.given.iter().any(|given| is_same(own, given));
        names.iter().any(is_given)
            || self.applied.iter().any(|(server, user)| {
                **server == *account.id.upstream && is_same(account.id.login(), user)
            })
    }
}

fn is_same(one: &str, other: &str) -> bool {
    one == other || one.to_lowercase() == other.to_lowercase()
}

impl NewsScope {
    fn covers(&self, names: &[String]) -> bool {
        match self {
            Self::All => true,
            Self::Logins(logins) => {
                names.iter().any(|name| logins.iter().any(|login| login.is_for(name)))
            }
        }
    }
}
