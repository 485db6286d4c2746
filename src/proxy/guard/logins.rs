//! Whose login is tried: what failed before decides, so that nobody guesses passwords through deltapush, and no upstream
//! bans its address for those who try.
//!
//! - A login is let through while what failed, and what is under way and may fail yet, stays below every limit: of the
//!   address, of the account, of the upstream. Under way counts too, or a hundred logins at once would all get through.
//! - The upstream's limit holds for its name, and once it is connected to for its address, which many names may lead to.
//! - Credentials that the upstream has accepted before are *known*: they cannot fail, so they pass whatever others did to
//!   account and upstream. But whoever is refused must not find out by trying which ones those are: tries that are refused
//!   count against their address, and for the account up to a number beyond which only addresses of earlier logins pass.
//! - Credentials that the upstream has refused just now are not asked about again: a phone with an old password repeats it
//!   for ever, and would use up what the others may fail.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Prefix;
use super::bounded::Bounded;
use crate::account::AccountId;
use crate::config::FailedLogins;

/// Names credentials without giving them away: a keyed hash. See [`gate`](super::gate).
pub type Digest = [u8; 32];

/// For how long an upstream counts what failed in a day.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// For how long an address is known from which an account was logged in to, and its credentials.
const KNOWN: Duration = Duration::from_secs(30 * 24 * 3600);

/// Different credentials that are known of one account: a user may have a password for each device.
const MAX_DIGESTS: usize = 8;

/// Tries at one account that were refused without asking the upstream, beyond which known credentials pass only from known
/// addresses.
const MAX_REFUSED: usize = 100;

/// Addresses, accounts, pairs of them and credentials that are remembered. An entry takes some 200 bytes.
const CAPACITY: usize = 20_000;

/// A login that is to be tried.
#[derive(Debug, Clone)]
pub struct Try {
    /// Where the client is.
    pub prefix: Prefix,
    /// Whose password it gives, and where.
    pub account: AccountId,
    /// Its credentials. None where they can be used only once.
    pub digest: Option<Digest>,
    /// They are the ones that the account is watched with.
    pub stored: bool,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Ask the upstream, and say what came of it: [`Logins::done`].
    Pass {
        /// It has accepted these credentials before.
        known: bool,
    },
    /// Ask again when a login that is under way has ended.
    Wait,
    /// The upstream has refused these very credentials a moment ago: say so again, after this time.
    Repeated(Duration),
    /// Refuse for the time being.
    Refuse {
        /// After this time.
        delay: Duration,
        /// It counted as a failure: the limits bound how often that is so.
        counted: bool,
    },
}

/// What came of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream accepted it.
    Accepted,
    /// It refused the credentials and said so.
    Refused,
    /// It refused, and did not say why: with most servers that do this it is the password.
    Unclear,
    /// Something else was in the way.
    Nothing,
}

/// What is remembered. All of it in one place: a login must find its three limits as they are at one moment.
#[derive(Debug)]
pub struct Logins {
    limits: FailedLogins,
    addresses: Bounded<Prefix, Window>,
    accounts: Bounded<AccountId, Account>,
    upstreams: Bounded<std::sync::Arc<str>, Upstream>,
    /// The same by the address that was connected to.
    servers: Bounded<IpAddr, Upstream>,
    /// Credentials that were refused.
    refused: Bounded<Digest, ()>,
    /// Credentials that were accepted, latest last.
    accepted: Bounded<AccountId, VecDeque<Digest>>,
    /// Whence accounts were logged in to.
    places: Bounded<(AccountId, Prefix), ()>,
}

#[derive(Debug, Default)]
struct Account {
    failed: Window,
    refused: Window,
    under_way: usize,
}

#[derive(Debug, Default)]
struct Upstream {
    failed: Window,
    under_way: usize,
}

/// When something happened, the latest last; never longer than the limit that it is compared with.
#[derive(Debug, Default)]
struct Window(VecDeque<Instant>);

impl Window {
    fn note(&mut self, now: Instant, limit: usize) {
        while self.0.len() >= limit {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }

    fn count(&self, within: Duration, now: Instant) -> usize {
        self.0.iter().rev().take_while(|then| now.saturating_duration_since(**then) < within).count()
    }
}

impl Logins {
    /// Nothing has failed yet.
    #[must_use]
    pub fn new(limits: FailedLogins) -> Self {
        let within = limits.within;
        Self {
            addresses: Bounded::new(CAPACITY, within),
            accounts: Bounded::new(CAPACITY, within),
            upstreams: Bounded::new(CAPACITY, DAY.max(within)),
            servers: Bounded::new(CAPACITY, DAY.max(within)),
            refused: Bounded::new(CAPACITY, within),
            accepted: Bounded::new(CAPACITY, KNOWN),
            places: Bounded::new(CAPACITY, KNOWN),
            limits,
        }
    }

    /// Other limits from now on; what happened before still counts.
    pub fn set_limits(&mut self, limits: FailedLogins) {
        self.addresses.set_lifetime(limits.within);
        self.accounts.set_lifetime(limits.within);
        self.upstreams.set_lifetime(DAY.max(limits.within));
        self.servers.set_lifetime(DAY.max(limits.within));
        self.refused.set_lifetime(limits.within);
        self.limits = limits;
    }

    /// The longest that an answer waits.
    #[must_use]
    pub fn longest_delay(&self) -> Duration {
        self.limits.longest_delay
    }

    /// Judges a login. After [`Verdict::Pass`], [`done`](Self::done) has to follow.
    pub fn judge(&mut self, login: &Try, now: Instant) -> Verdict {
        let at_home = self.places.get(&(login.account.clone(), login.prefix), now).is_some();
        if self.address_failures(login.prefix, now) >= self.limits.per_address && !at_home {
            return Verdict::Refuse { delay: self.limits.longest_delay, counted: false };
        }
        if self.is_known(login, now) && (at_home || self.refused_tries(&login.account, now) < MAX_REFUSED) {
            return Verdict::Pass { known: true };
        }
        if login.digest.is_some_and(|digest| self.refused.get(&digest, now).is_some()) {
            return Verdict::Repeated(self.delay(login, now));
        }
        let (failed, under_way) = self.account_load(&login.account, now);
        let account = room(failed, under_way, self.limits.per_account);
        let account = if at_home { Room::Some } else { account };
        let upstream = self.upstreams.get(&login.account.upstream, now);
        match account.min(upstream.map_or(Room::Some, |upstream| self.upstream_room(upstream, now))) {
            Room::Some => {
                self.begin(&login.account, now);
                Verdict::Pass { known: false }
            }
            Room::Later => Verdict::Wait,
            Room::None => Verdict::Refuse { delay: self.refuse(login, now), counted: true },
        }
    }

    /// Whether a login that was let through as `known` or not may be tried at a server's address. After [`Room::Some`] either
    /// [`done`](Self::done) or [`leave_server`](Self::leave_server) has to follow.
    pub fn enter_server(&mut self, server: IpAddr, known: bool, now: Instant) -> Room {
        if known {
            return Room::Some;
        }
        let room = self.servers.get(&server, now).map_or(Room::Some, |upstream| self.upstream_room(upstream, now));
        if room == Room::Some {
            let under_way = &mut self.servers.entry(server, now, Upstream::default).under_way;
            *under_way = under_way.saturating_add(1);
        }
        room
    }

    /// It is not tried there any more.
    pub fn leave_server(&mut self, server: IpAddr, known: bool) {
        if let Some(upstream) = self.servers.get_mut(&server).filter(|_| !known) {
            upstream.under_way = upstream.under_way.saturating_sub(1);
        }
    }

    /// Somebody wants a mailbox that nobody here knows the server of. How long the answer is to wait; none if the address has
    /// failed too often to be told of any more.
    pub fn lost(&mut self, prefix: Prefix, now: Instant) -> Option<Duration> {
        let failed = self.address_failures(prefix, now);
        if failed >= self.limits.per_address {
            return None;
        }
        self.addresses.entry(prefix, now, Window::default).note(now, self.limits.per_address);
        Some(self.delay_after(failed.saturating_add(1)))
    }

    /// What came of a login that [`judge`](Self::judge) let through as `known` or not, tried at `server` if it came as far as
    /// that. How long the answer is to wait, and whether it counted as a failed login.
    pub fn done(
        &mut self,
        login: &Try,
        known: bool,
        server: Option<IpAddr>,
        outcome: Outcome,
        now: Instant,
    ) -> Option<Duration> {
        if !known {
            self.end(&login.account);
        }
        if let Some(server) = server {
            self.leave_server(server, known);
        }
        match outcome {
            Outcome::Accepted => self.accept(login, now),
            Outcome::Refused => {
                self.disown(login, now);
                return Some(self.fail(login, server, now));
            }
            // What was right before is not wrong because the server cannot look it up.
            Outcome::Unclear if !known => return Some(self.fail(login, server, now)),
            Outcome::Unclear | Outcome::Nothing => {}
        }
        None
    }

    fn is_known(&self, login: &Try, now: Instant) -> bool {
        let accepted = || self.accepted.get(&login.account, now);
        login.stored || login.digest.is_some_and(|digest| accepted().is_some_and(|known| known.contains(&digest)))
    }

    fn address_failures(&self, prefix: Prefix, now: Instant) -> usize {
        self.addresses.get(&prefix, now).map_or(0, |window| window.count(self.limits.within, now))
    }

    fn refused_tries(&self, account: &AccountId, now: Instant) -> usize {
        self.accounts.get(account, now).map_or(0, |account| account.refused.count(self.limits.within, now))
    }

    fn account_load(&self, account: &AccountId, now: Instant) -> (usize, usize) {
        let within = self.limits.within;
        self.accounts.get(account, now).map_or((0, 0), |account| (account.failed.count(within, now), account.under_way))
    }

    fn upstream_room(&self, upstream: &Upstream, now: Instant) -> Room {
        let Upstream { failed, under_way } = upstream;
        let soon = room(failed.count(self.limits.within, now), *under_way, self.limits.per_upstream);
        soon.min(room(failed.count(DAY, now), *under_way, self.limits.per_upstream_day))
    }

    fn begin(&mut self, account: &AccountId, now: Instant) {
        let of_account = &mut self.accounts.entry(account.clone(), now, Account::default).under_way;
        *of_account = of_account.saturating_add(1);
        let of_upstream = &mut self.upstreams.entry(account.upstream.clone(), now, Upstream::default).under_way;
        *of_upstream = of_upstream.saturating_add(1);
    }

    fn end(&mut self, account: &AccountId) {
        if let Some(account) = self.accounts.get_mut(account) {
            account.under_way = account.under_way.saturating_sub(1);
        }
        if let Some(upstream) = self.upstreams.get_mut(&account.upstream) {
            upstream.under_way = upstream.under_way.saturating_sub(1);
        }
    }

    fn accept(&mut self, login: &Try, now: Instant) {
        self.places.entry((login.account.clone(), login.prefix), now, || ());
        let Some(digest) = login.digest else { return };
        self.refused.remove(&digest);
        let known = self.accepted.entry(login.account.clone(), now, VecDeque::new);
        known.retain(|other| *other != digest);
        while known.len() >= MAX_DIGESTS {
            known.pop_front();
        }
        known.push_back(digest);
    }

    /// The credentials are wrong, whatever they were before.
    fn disown(&mut self, login: &Try, now: Instant) {
        let Some(digest) = login.digest else { return };
        self.refused.entry(digest, now, || ());
        if let Some(known) = self.accepted.get_mut(&login.account) {
            known.retain(|other| *other != digest);
        }
    }

    fn fail(&mut self, login: &Try, server: Option<IpAddr>, now: Instant) -> Duration {
        let FailedLogins { per_address, per_account, per_upstream, per_upstream_day, .. } = self.limits;
        self.addresses.entry(login.prefix, now, Window::default).note(now, per_address);
        self.accounts.entry(login.account.clone(), now, Account::default).failed.note(now, per_account);
        let upstream = self.upstreams.entry(login.account.upstream.clone(), now, Upstream::default);
        upstream.failed.note(now, per_upstream.max(per_upstream_day));
        if let Some(server) = server {
            let server = self.servers.entry(server, now, Upstream::default);
            server.failed.note(now, per_upstream.max(per_upstream_day));
        }
        self.delay(login, now)
    }

    /// Notes a login that is refused for the time being. How long its answer is to wait.
    pub fn refuse(&mut self, login: &Try, now: Instant) -> Duration {
        self.addresses.entry(login.prefix, now, Window::default).note(now, self.limits.per_address);
        self.accounts.entry(login.account.clone(), now, Account::default).refused.note(now, MAX_REFUSED);
        self.delay(login, now)
    }

    /// 1, 2, 4 … times the first delay, by what failed so far from the address or for the account.
    fn delay(&self, login: &Try, now: Instant) -> Duration {
        let failed = self.address_failures(login.prefix, now).max(self.account_load(&login.account, now).0);
        self.delay_after(failed)
    }

    fn delay_after(&self, failed: usize) -> Duration {
        let doublings = u32::try_from(failed.saturating_sub(1)).unwrap_or(u32::MAX);
        let factor = 2u32.saturating_pow(doublings);
        self.limits.delay.saturating_mul(factor).min(self.limits.longest_delay)
    }
}

/// Whether one more may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Too many have failed.
    None,
    /// If what is under way does not fail.
    Later,
    /// Yes.
    Some,
}

fn room(failed: usize, under_way: usize, limit: usize) -> Room {
    if failed >= limit {
        Room::None
    } else if failed.saturating_add(under_way) >= limit {
        Room::Later
    } else {
        Room::Some
    }
}

#[cfg(test)]
#[path = "logins_tests.rs"]
mod tests;
