//! From the name in the mail server's news to the accounts that it means.

use std::sync::Arc;

use super::types::{NewsError, NewsScope};
use crate::account::AccountId;
use crate::config::{AccountSettingsByName, NewsSource};
use crate::push::account::Account;
use crate::push::registry::local_part;
use crate::push::watcher::context::WatchContext;
use crate::store::StoreError;
use crate::upstream::route::Routes;

/// An account that a name means.
pub(super) enum Meant {
    /// It is this node's.
    Own(Arc<Account>),
    /// It is another node's.
    Elsewhere(AccountId),
}

/// An account that a name may mean.
struct Candidate {
    account: Meant,
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
pub(super) async fn find(
    context: &WatchContext,
    name: &str,
    scope: &NewsScope,
) -> Result<Vec<Meant>, NewsError> {
    let upstreams = context.upstreams.get();
    let wanted = Wanted::new(name, &upstreams.routes, context.settings.get().accounts());
    let mut candidates = wanted.candidates(context);
    if !context.registry.ownership().is_sole() {
        for id in wanted.with_local_part(context).await? {
            // One whose slot has just come is in neither place: it is forwarded to this very node.
            if !candidates.iter().any(|known| *known.account.id() == id) {
                candidates.push(Candidate::new(context, Meant::Elsewhere(id)));
            }
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

impl Meant {
    fn id(&self) -> &AccountId {
        match self {
            Self::Own(account) => &account.id,
            Self::Elsewhere(id) => id,
        }
    }
}

impl Candidate {
    fn new(context: &WatchContext, account: Meant) -> Self {
        let names = context.logins(account.id());
        let takes_news = context.news_source(account.id()).is_some_and(NewsSource::has_server);
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

    /// The accounts of this node that may be meant.
    fn candidates(&self, context: &WatchContext) -> Vec<Candidate> {
        let registry = &context.registry;
        let mut candidates: Vec<Candidate> = Vec::new();
        for account in self.names().flat_map(|name| registry.with_local_part_of(name)) {
            let is_new = !candidates.iter().any(|known| *known.account.id() == account.id);
            if is_new && registry.ownership().has(&account.id) {
                candidates.push(Candidate::new(context, Meant::Own(account)));
            }
        }
        candidates
    }

    /// The accounts of all nodes that may be meant.
    async fn with_local_part(&self, context: &WatchContext) -> Result<Vec<AccountId>, StoreError> {
        let names: Vec<&str> = self.names().map(String::as_str).collect();
        let local_parts: Vec<&str> = names.iter().map(|name| local_part(name)).collect();
        context.registry.store().with_local_parts(&local_parts, &names).await
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.given.iter().chain(self.applied.iter().map(|(_, user)| user))
    }

    /// A user's name counts at its own mail server only: another one may have a user of the same name.
    fn is_exactly(&self, Candidate { account, names, .. }: &Candidate) -> bool {
        let is_given = |own: &String| self.given.iter().any(|given| is_same(own, given));
        names.iter().any(is_given)
            || self.applied.iter().any(|(server, user)| {
                **server == *account.id().upstream && is_same(account.id().login(), user)
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
