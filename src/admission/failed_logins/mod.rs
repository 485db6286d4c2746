//! Admission of logins: limits on failures, so that nobody guesses passwords through deltapush, and no mail server bans
//! its address because of failed logins.
//!
//! - A login is admitted while the failures, and the logins under way that may fail yet, stay below every limit: of the address,
//!   of the account, of the mail server. Logins under way count too, or a hundred at once would all get through.
//! - The limit of a mail server holds for its name, and once it is connected to for its address, which many names may lead to.
//! - Credentials that the server has accepted before are *known*: they cannot fail, so they pass whatever others did to account
//!   and server. But a client that is refused must not find out by trying which ones those are: tries that are refused count
//!   against their address, and for the account up to a number beyond which only addresses of earlier logins pass.
//! - Credentials that the server has refused are not asked about again for a while, that grows (`repeats`): a phone with an old
//!   password repeats it without end, and would use up what the others may fail.
//! - Half of what a server may fail is reserved for login names that it has accepted before, and for networks from which somebody
//!   has logged in there. Each name and each network may use a part of that. All together stay below the server's limit.
//! - Nothing is remembered of a login before it has failed or was accepted.

mod in_flight;
mod outcomes;
#[cfg(test)]
mod repeats_tests;
mod reserve;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Prefix;
use super::fair_map::{EntryOrigin, FairMap};
pub use super::key::CredentialDigest;
use super::key::{AdmissionKey, LoginKeys};
use super::known::{KnownChanges, KnownEntry, KnownLogins};
use super::repeats::Repeats;
pub use super::window::{Blocked, LoginLimit, Room};
use super::window::{FailureWindow, room};
use crate::policy::FailedLogins;
use in_flight::LoginsInFlight;
pub use reserve::Strain;

/// For how long an upstream counts what failed in a day.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Time for which accepted credentials are known.
const KNOWN: Duration = Duration::from_secs(30 * 24 * 3600);

/// Tries at one account that were refused without asking the upstream, beyond which known credentials pass only from known
/// addresses.
const MAX_REFUSED: usize = 100;

/// Mail servers that logins from one prefix may bring up in a day, where logins name their servers.
const MAX_SERVERS: usize = 32;

/// Entries of each map of failures. An entry takes some 100 bytes, and 16 for each failure in it.
const CAPACITY: usize = 20_000;

/// A login that is to be tried.
#[derive(Debug, Clone, Copy)]
pub struct Try {
    /// The client's network.
    pub prefix: Prefix,
    /// The origin of the entries that it makes in the maps.
    pub origin: EntryOrigin,
    /// The account and the mail server.
    pub keys: LoginKeys,
    /// Its credentials. None where they can be used only once.
    pub digest: Option<CredentialDigest>,
    /// They are the ones that the account is watched with.
    pub stored: bool,
    /// The account has a token.
    pub registered: bool,
}

/// The decision about a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginDecision {
    /// Ask the upstream, and report the outcome: [`Logins::done`].
    Pass {
        /// It has accepted these credentials before.
        known: bool,
    },
    /// Ask again when a login that is under way has ended.
    Wait,
    /// The upstream has refused these very credentials before: refuse again.
    Repeated {
        /// Delay of the answer.
        delay: Duration,
        /// For how long they are not asked about.
        wait: Duration,
    },
    /// Refuse for the time being.
    Refuse {
        /// Delay of the answer.
        delay: Duration,
        /// The try counted against the address: the limits bound how often that is so.
        counted: bool,
        /// The limit, and when to try again.
        blocked: Blocked,
    },
}

/// The outcome of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginOutcome {
    /// The upstream accepted it.
    Accepted,
    /// It refused the credentials and said so.
    Refused,
    /// It refused, and did not say why: with most servers that do this it is the password.
    Unclear,
    /// It had the credentials, and then broke the connection, said BYE or did not answer in time.
    Broken,
    /// Something else was in the way.
    Nothing,
}

/// All that is remembered. In one place: a login must find its three limits as they are at one moment.
#[derive(Debug)]
pub struct Logins {
    limits: FailedLogins,
    addresses: FairMap<Prefix, FailureWindow>,
    accounts: FairMap<AdmissionKey, Failures>,
    /// Of mail servers, by name and by address.
    upstreams: FairMap<AdmissionKey, FailureWindow>,
    /// Failed logins of the reserved part, by login name and network.
    reserved: FairMap<AdmissionKey, FailureWindow>,
    /// Credentials that the upstream has refused.
    refused: Repeats,
    /// Credentials that were refused because of a limit.
    denied: FairMap<CredentialDigest, ()>,
    /// Credentials that were accepted, latest last.
    accepted: FairMap<AdmissionKey, VecDeque<CredentialDigest>>,
    /// Mail servers that logins from a prefix have brought up.
    servers: FairMap<Prefix, VecDeque<(AdmissionKey, Instant)>>,
    /// Logins with invented names that were answered without asking.
    invented: FairMap<Prefix, FailureWindow>,
    known: KnownLogins,
    under_way: LoginsInFlight,
}

/// Failed logins at an account.
#[derive(Debug, Default)]
struct Failures {
    failed: FailureWindow,
    refused: FailureWindow,
}

impl Logins {
    /// Nothing has failed yet.
    #[must_use]
    pub fn new(limits: FailedLogins) -> Self {
        let within = limits.within;
        Self {
            addresses: FairMap::new(CAPACITY, within),
            accounts: FairMap::new(CAPACITY, within),
            upstreams: FairMap::new(CAPACITY, DAY.max(within)),
            reserved: FairMap::new(CAPACITY, DAY.max(within)),
            refused: Repeats::new(within),
            denied: FairMap::new(CAPACITY, within),
            accepted: FairMap::new(CAPACITY, KNOWN),
            servers: FairMap::new(CAPACITY, DAY),
            invented: FairMap::new(CAPACITY, within),
            known: KnownLogins::new(),
            under_way: LoginsInFlight::default(),
            limits,
        }
    }

    /// Other limits from now on; what happened before still counts.
    pub fn set_limits(&mut self, limits: FailedLogins) {
        let within = limits.within;
        self.addresses.set_lifetime(within);
        self.accounts.set_lifetime(within);
        self.upstreams.set_lifetime(DAY.max(within));
        self.reserved.set_lifetime(DAY.max(within));
        self.refused.set_first(within);
        self.denied.set_lifetime(within);
        self.invented.set_lifetime(within);
        self.limits = limits;
    }

    /// The longest that an answer waits.
    #[must_use]
    pub fn longest_delay(&self) -> Duration {
        self.limits.longest_delay
    }

    /// Takes back what was known before a restart, the oldest first.
    pub fn restore(&mut self, entries: &[KnownEntry], now: Instant) {
        self.known.restore(entries, now);
    }

    /// Takes in what became known at other nodes.
    pub fn learn(&mut self, entries: &[KnownEntry], now: Instant) {
        self.known.learn(entries, now);
    }

    /// Hands over what has changed of what is known, for the state.
    pub fn take_changes(&mut self, now: Instant) -> KnownChanges {
        self.known.take_changes(now)
    }

    /// Judges a login. After [`LoginDecision::Pass`], [`done`](Self::done) has to follow.
    pub fn judge(&mut self, login: &Try, now: Instant) -> LoginDecision {
        let at_home = self.known.has_place(&login.keys.home, now);
        if let Some(blocked) = self.address_blocked(login, now).filter(|_| !at_home) {
            return LoginDecision::Refuse {
                delay: self.limits.longest_delay,
                counted: false,
                blocked,
            };
        }
        if self.is_known(login, now)
            && (at_home || self.refused_tries(login.keys.account, now) < MAX_REFUSED)
        {
            return LoginDecision::Pass { known: true };
        }
        if let Some(wait) = self.repeated(login, now) {
            return LoginDecision::Repeated { delay: self.delay(login, now), wait };
        }
        let account = if at_home { Room::Some } else { self.account_room(login.keys.account, now) };
        match account.and(self.upstream_room(login.keys.upstream, login, now)) {
            Room::Some => {
                self.under_way.begin(login.keys.account);
                self.under_way.begin(login.keys.upstream);
                LoginDecision::Pass { known: false }
            }
            Room::Later => LoginDecision::Wait,
            Room::None(blocked) => {
                let (delay, counted) = self.refuse(login, now);
                LoginDecision::Refuse { delay, counted, blocked }
            }
        }
    }

    /// Tells whether a login that was let through as `known` or not may be tried at the address of a server. After [`Room::Some`]
    /// either [`done`](Self::done) or [`leave_server`](Self::leave_server) has to follow.
    pub fn enter_server(
        &mut self,
        login: &Try,
        server: AdmissionKey,
        known: bool,
        now: Instant,
    ) -> Room {
        if known {
            return Room::Some;
        }
        let room = self.upstream_room(server, login, now);
        if room == Room::Some {
            self.under_way.begin(server);
        }
        room
    }

    /// It is not tried there any more.
    pub fn leave_server(&mut self, server: AdmissionKey, known: bool) {
        if !known {
            self.under_way.end(server);
        }
    }

    /// Tells whether the name of the login was accepted before, or its account has a token.
    #[must_use]
    pub fn is_known_name(&self, login: &Try, now: Instant) -> bool {
        login.registered || self.known.has_name(&login.keys.account, now)
    }

    /// Tells whether the mail server of the login is known not to make accounts on login.
    #[must_use]
    pub fn is_ordinary(&self, login: &Try, now: Instant) -> bool {
        self.known.has_name(&login.keys.ordinary, now)
    }

    fn is_known(&self, login: &Try, now: Instant) -> bool {
        let accepted = || self.accepted.get(&login.keys.account, now);
        login.stored
            || login
                .digest
                .is_some_and(|digest| accepted().is_some_and(|known| known.contains(&digest)))
    }

    fn address_failures(&self, prefix: Prefix, now: Instant) -> usize {
        self.addresses.get(&prefix, now).map_or(0, |window| window.count(self.limits.within, now))
    }

    fn address_blocked(&self, login: &Try, now: Instant) -> Option<Blocked> {
        let FailedLogins { within, per_address, .. } = self.limits;
        let failed = self.addresses.get(&login.prefix, now);
        match room(failed, 0, (LoginLimit::Address, per_address), within, now) {
            Room::None(blocked) => Some(blocked),
            Room::Some | Room::Later => self.servers_blocked(login, now),
        }
    }

    /// A server of an attacker's own costs nothing, and each has a count of its own.
    fn servers_blocked(&self, login: &Try, now: Instant) -> Option<Blocked> {
        let servers = self.servers.get(&login.prefix, now).filter(|_| login.origin.is_open)?;
        let mut recent = servers.iter().filter(|(_, at)| now.saturating_duration_since(*at) < DAY);
        let oldest = recent.clone().next()?.1;
        let is_one_more = recent.clone().count() >= MAX_SERVERS
            && recent.all(|(key, _)| *key != login.keys.upstream);
        let wait = DAY.saturating_sub(now.saturating_duration_since(oldest));
        is_one_more.then_some(Blocked { limit: LoginLimit::Servers, wait })
    }

    fn refused_tries(&self, account: AdmissionKey, now: Instant) -> usize {
        self.accounts
            .get(&account, now)
            .map_or(0, |account| account.refused.count(self.limits.within, now))
    }

    fn repeated(&self, login: &Try, now: Instant) -> Option<Duration> {
        self.refused.wait(&login.digest?, self.known.accepted_at(&login.keys.upstream), now)
    }

    fn account_room(&self, account: AdmissionKey, now: Instant) -> Room {
        let failed = self.accounts.get(&account, now).map(|account| &account.failed);
        let limit = (LoginLimit::Account, self.limits.per_account);
        room(failed, self.under_way.count(account), limit, self.limits.within, now)
    }
}
