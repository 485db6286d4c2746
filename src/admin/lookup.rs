//! Finds the account that the operator's name selects.

use crate::account::AccountId;

/// Number of similar names that are listed for an unknown name.
const MAX_OFFERED: usize = 5;

/// The account that goes by `name`: its login name, in whatever case if that is clear, or `NAME@SERVER` where the same login name is
/// on two servers; with `server`, the one there.
///
/// # Errors
/// Words for a person, if there is none, or more than one.
pub(super) fn find(
    accounts: Vec<AccountId>,
    name: &str,
    server: Option<&str>,
) -> Result<AccountId, String> {
    let on_server =
        |account: &AccountId| server.is_none_or(|server| is_server(&account.upstream, server));
    let here: Vec<AccountId> = accounts.into_iter().filter(on_server).collect();
    let ways: [&dyn Fn(&AccountId) -> bool; 3] =
        [&|account| is_called(account, name), &|account| names_server(account, name), &|account| {
            account.to_string().to_lowercase() == name.to_lowercase()
        }];
    let found =
        ways.iter().map(|way| here.iter().filter(|account| way(account)).collect::<Vec<_>>());
    match found.into_iter().find(|found| !found.is_empty()).unwrap_or_default().as_slice() {
        [] => Err(unknown(&here, name, server)),
        [only] => Ok(AccountId::clone(only)),
        several => {
            let ways = several
                .iter()
                .map(|account| format!("\n  {account} --server {}", account.upstream));
            Err(format!(
                "{name} matches {} accounts; choose one:{}",
                several.len(),
                ways.collect::<String>()
            ))
        }
    }
}

/// The login names that `name` may stand for: itself, and what is before a server's name.
pub(super) fn spellings(name: &str) -> Vec<String> {
    let cuts = name.match_indices('@').filter_map(|(at, _)| name.get(..at));
    std::iter::once(name).chain(cuts).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The part of `name` that stands in the login name itself, for a search: before an escape sequence.
pub(super) fn stem(name: &str) -> &str {
    name.split('\\').next().unwrap_or_default()
}

/// Compares with the escaped form too: an operator types in the name as it was shown.
fn is_called(account: &AccountId, name: &str) -> bool {
    *account.user == *name || account.to_string() == name
}

/// `NAME@SERVER`, the server with or without its port.
fn names_server(account: &AccountId, name: &str) -> bool {
    let mut cuts = name.match_indices('@');
    cuts.any(|(at, _)| {
        let (user, server) = name.split_at(at);
        let server = server.strip_prefix('@').unwrap_or(server);
        is_called(account, user) && is_server(&account.upstream, server)
    })
}

fn is_server(upstream: &str, server: &str) -> bool {
    let host = upstream.rsplit_once(':').map_or(upstream, |(host, _)| host);
    [upstream, host].iter().any(|known| known.eq_ignore_ascii_case(server))
}

fn unknown(accounts: &[AccountId], name: &str, server: Option<&str>) -> String {
    let at = server.map(|server| format!(" at {server}")).unwrap_or_default();
    let part = name.to_lowercase();
    let like: Vec<String> = accounts
        .iter()
        .map(ToString::to_string)
        .filter(|known| known.to_lowercase().contains(&part))
        .take(MAX_OFFERED)
        .collect();
    let offered = if like.is_empty() {
        String::new()
    } else {
        format!("; similar names: {}", like.join(", "))
    };
    format!(
        "no account with a device is called {name}{at}{offered}; `deltapush status` lists all of them"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Vec<AccountId> {
        [
            ("bob", "imap.example.org:993"),
            ("bob", "imap.example.net:993"),
            ("alice@example.org", "imap.example.org:993"),
            ("Alice@example.org", "imap.example.net:993"),
            ("boss\nalice", "imap.example.org:993"),
        ]
        .map(|(user, upstream)| AccountId::new(user, upstream))
        .to_vec()
    }

    fn found(name: &str, server: Option<&str>) -> Result<String, String> {
        find(accounts(), name, server).map(|account| format!("{account:?}"))
    }

    #[test]
    fn name_finds_its_account() {
        for (name, server, wanted) in [
            ("alice@example.org", None, "alice@example.org at imap.example.org:993"),
            ("Alice@example.org", None, "Alice@example.org at imap.example.net:993"),
            ("bob", Some("imap.example.net"), "bob at imap.example.net:993"),
            ("bob", Some("IMAP.example.org:993"), "bob at imap.example.org:993"),
            ("bob@imap.example.net", None, "bob at imap.example.net:993"),
            (
                "alice@example.org@imap.example.org:993",
                None,
                "alice@example.org at imap.example.org:993",
            ),
            ("boss\\nalice", None, "boss\\nalice at imap.example.org:993"),
        ] {
            assert_eq!(found(name, server).as_deref(), Ok(wanted));
        }
    }

    #[test]
    fn search_is_for_what_stands_in_the_login_name() {
        assert_eq!(spellings("bob"), ["bob"]);
        let several = ["a@example.org@imap.example.org", "a", "a@example.org"];
        assert_eq!(spellings(several[0]), several);
        assert_eq!(spellings("@x"), ["@x"]);
        assert_eq!((stem("bob"), stem("boss\\nalice")), ("bob", "boss"));
    }

    #[test]
    fn unclear_answers_are_named() {
        let several = found("bob", None).unwrap_err();
        assert!(
            several.contains("bob matches 2 accounts")
                && several.contains("\n  bob --server imap.example.net:993"),
            "{several}"
        );
        assert!(found("ALICE@example.org", None).unwrap_err().contains("matches 2 accounts"));
        let none = found("bo", None).unwrap_err();
        assert!(
            none.contains("similar names: bob, bob, boss\\nalice; `deltapush status`"),
            "{none}"
        );
        assert!(found("bob", Some("elsewhere")).unwrap_err().contains("called bob at elsewhere;"));
    }
}
