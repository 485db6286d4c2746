//! Limits on new accounts: in all, and for open routes per address and per mail server. Without I/O. Known accounts are
//! never refused.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Accounts of one address prefix count for so long.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Address prefixes that are counted at most; beyond it the oldest goes.
const MAX_PREFIXES: usize = 10_000;

/// Of all accounts, one mail server that a login's domain named may have one in so many.
const UPSTREAM_SHARE: usize = 2;

/// The least time between two warnings.
const REPEAT: Duration = Duration::from_secs(15 * 60);

/// Limits on the number of accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountLimits {
    /// In all.
    pub accounts: usize,
    /// New ones from one address prefix within a day, where the login's domain names the server.
    pub new_per_address: usize,
}

impl Default for AccountLimits {
    fn default() -> Self {
        Self { accounts: usize::MAX, new_per_address: usize::MAX }
    }
}

/// The origin of an account that may be new.
#[derive(Debug, Clone, Copy)]
pub struct AccountOrigin {
    /// The prefix of the client's address.
    pub prefix: IpAddr,
    /// The login's domain named the mail server: anybody can have a domain, and any number of logins there.
    pub is_open: bool,
}

/// Why a new account is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccountsFull {
    /// There are too many.
    #[error("all accounts of limits.accounts are in use")]
    InAll,
    /// Too many came from the client's address.
    #[error("too many new accounts came from the client's network today")]
    Address,
    /// Too many are at the mail server.
    #[error("the account's mail server has too many accounts here")]
    Upstream,
}

/// Counts them.
#[derive(Debug, Default)]
pub(super) struct Newcomers {
    pub(super) limits: AccountLimits,
    by_prefix: HashMap<IpAddr, Came>,
    /// Admitted, and not stored yet.
    pub(super) under_way: usize,
    /// Refused since the start.
    pub(super) refused: u64,
    /// When the operator was last warned.
    warned: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Came {
    since: Instant,
    count: usize,
}

impl Newcomers {
    /// Reports if a new account may be stored, where there are `accounts` in all and `at_upstream` at its mail server.
    /// If so, it is in progress until [`stored`](Self::stored).
    pub(super) fn admit(
        &mut self,
        origin: AccountOrigin,
        accounts: usize,
        at_upstream: impl FnOnce() -> usize,
        now: Instant,
    ) -> Result<(), AccountsFull> {
        let admitted = self.may_come(origin, accounts + self.under_way, at_upstream, now);
        match admitted {
            Ok(()) => self.under_way += 1,
            Err(_) => self.refused += 1,
        }
        admitted
    }

    fn may_come(
        &mut self,
        origin: AccountOrigin,
        accounts: usize,
        at_upstream: impl FnOnce() -> usize,
        now: Instant,
    ) -> Result<(), AccountsFull> {
        let AccountLimits { accounts: most, new_per_address } = self.limits;
        if accounts >= most {
            return Err(AccountsFull::InAll);
        }
        if !origin.is_open {
            return Ok(());
        }
        if at_upstream() >= most.div_ceil(UPSTREAM_SHARE) {
            return Err(AccountsFull::Upstream);
        }
        let is_old = |came: &Came| now.saturating_duration_since(came.since) >= DAY;
        if self.by_prefix.len() >= MAX_PREFIXES && !self.by_prefix.contains_key(&origin.prefix) {
            self.by_prefix.retain(|_, came| !is_old(came));
            if self.by_prefix.len() >= MAX_PREFIXES
                && let Some(oldest) = self
                    .by_prefix
                    .iter()
                    .min_by_key(|(_, came)| came.since)
                    .map(|(prefix, _)| *prefix)
            {
                self.by_prefix.remove(&oldest);
            }
        }
        let came = self.by_prefix.entry(origin.prefix).or_insert(Came { since: now, count: 0 });
        if is_old(came) {
            *came = Came { since: now, count: 0 };
        }
        if came.count >= new_per_address {
            return Err(AccountsFull::Address);
        }
        came.count += 1;
        Ok(())
    }

    /// An account that was admitted is stored, or could not be.
    pub(super) fn stored(&mut self) {
        self.under_way -= 1;
    }

    /// The number of refused accounts, if the operator is to be warned now.
    pub(super) fn is_news(&mut self, now: Instant) -> Option<u64> {
        let is_due =
            self.warned.is_none_or(|warned| now.saturating_duration_since(warned) >= REPEAT);
        is_due.then(|| self.warned = Some(now)).map(|()| self.refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newcomers(accounts: usize, new_per_address: usize) -> Newcomers {
        Newcomers { limits: AccountLimits { accounts, new_per_address }, ..Newcomers::default() }
    }

    fn from(last: u8, is_open: bool) -> AccountOrigin {
        AccountOrigin { prefix: [192, 0, 2, last].into(), is_open }
    }

    #[test]
    fn accounts_in_all_are_bounded_with_those_under_way() {
        let (mut newcomers, now) = (newcomers(10, 100), Instant::now());
        assert_eq!(newcomers.admit(from(1, false), 8, || 8, now), Ok(()));
        assert_eq!(newcomers.admit(from(1, false), 8, || 8, now), Ok(()));
        assert_eq!(newcomers.admit(from(1, false), 8, || 8, now), Err(AccountsFull::InAll));
        newcomers.stored();
        assert_eq!(newcomers.admit(from(1, false), 9, || 9, now), Err(AccountsFull::InAll));
        newcomers.stored();
        assert_eq!(newcomers.admit(from(1, false), 9, || 9, now), Ok(()));
        assert_eq!(newcomers.refused, 2);
    }

    #[test]
    fn open_routes_have_a_share_for_each_server_and_for_each_address_and_day() {
        let (mut newcomers, now) = (newcomers(100, 3), Instant::now());
        assert_eq!(newcomers.admit(from(1, true), 60, || 50, now), Err(AccountsFull::Upstream));
        assert_eq!(newcomers.admit(from(1, false), 60, || 50, now), Ok(()));
        for _ in 0..3 {
            assert_eq!(newcomers.admit(from(1, true), 60, || 1, now), Ok(()));
        }
        assert_eq!(newcomers.admit(from(1, true), 60, || 1, now), Err(AccountsFull::Address));
        assert_eq!(newcomers.admit(from(2, true), 60, || 1, now), Ok(()), "others still come");
        assert_eq!(
            newcomers.admit(from(1, false), 60, || 1, now),
            Ok(()),
            "the operator named that server"
        );
        assert_eq!(newcomers.admit(from(1, true), 60, || 1, now + DAY), Ok(()));
    }

    #[test]
    fn addresses_that_are_counted_are_bounded() {
        let (mut newcomers, now) = (newcomers(usize::MAX, 3), Instant::now());
        // Each beyond the bound looks for the oldest: a few show it.
        for number in 0..10_100_u32 {
            let prefix = std::net::Ipv4Addr::from_bits(number).into();
            newcomers.admit(AccountOrigin { prefix, is_open: true }, 0, || 0, now).unwrap();
            assert!(newcomers.by_prefix.len() <= MAX_PREFIXES);
        }
    }

    #[test]
    fn operator_is_warned_now_and_then() {
        let (mut newcomers, now) = (newcomers(0, 1), Instant::now());
        let warned = |newcomers: &mut Newcomers, seconds| {
            newcomers.is_news(now + Duration::from_secs(seconds))
        };
        assert_eq!(newcomers.admit(from(1, true), 0, || 0, now), Err(AccountsFull::InAll));
        assert_eq!(
            (warned(&mut newcomers, 0), warned(&mut newcomers, 60), warned(&mut newcomers, 900)),
            (Some(1), None, Some(1))
        );
    }
}
