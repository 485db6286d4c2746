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
    let wanted = wanted_names(name, &upstreams.routes, context.settings.get().accounts());
    let mut candidates: Vec<Candidate> = Vec::new();
    for account in wanted.iter().flat_map(|wanted| context.registry.with_local_part_of(wanted)) {
        if !candidates.iter().any(|known| Arc::ptr_eq(&known.account, &account)) {
            candidates.push(Candidate::new(context, account));
        }
    }
    let exact = |candidate: &Candidate| {
        candidate.names.iter().any(|own| wanted.iter().any(|wanted| is_same(own, wanted)))
    };
    let mut meant: Vec<Candidate> = candidates.extract_if(.., |found| exact(found)).collect();
    if meant.is_empty() && !name.contains('@') {
        let is_short = |own: &String| is_same(local_part(own), name);
        meant = candidates.into_iter().filter(|found| found.names.iter().any(is_short)).collect();
        meant.retain(|found| found.takes_news);
        if meant.len() > 1 {
            return Err(NewsError::Ambiguous);
        }
    }
    if meant.is_empty() {
        return Ok(Vec::new());
    }
    meant.retain(|found| found.takes_news);
    if meant.is_empty() {
        return Err(NewsError::NotConfigured);
    }
    meant.retain(|found| scope.covers(&found.names));
    if meant.is_empty() {
        return Err(NewsError::OutOfScope);
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

/// The name itself, the login name of the account that has it as an address, and what routes make of these for the mail server.
fn wanted_names(name: &str, routes: &Routes, accounts: &AccountSettingsByName) -> Vec<String> {
    let has_it = accounts
        .iter()
        .filter(|(_, settings)| settings.addresses.iter().any(|address| is_same(address, name)));
    let logins = has_it.map(|(login, _)| login.clone());
    let given: Vec<String> = [name.to_owned()].into_iter().chain(logins).collect();
    let applied: Vec<String> = given.iter().flat_map(|login| routes.applied(login)).collect();
    given.into_iter().chain(applied).collect()
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
