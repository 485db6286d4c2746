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

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::Prefix;
use super::fair_map::{EntryOrigin, FairMap};
pub use super::key::CredentialDigest;

use super::key::{AdmissionKey, LoginKeys};
use super::known::{KnownChanges, KnownEntry, KnownKind, KnownLogins};
use super::repeats::Repeats;
pub use super::window::{Blocked, LoginLimit, Room};

use super::window::{FailureWindow, room};
use crate::backoff::GrowingWait;
use crate::policy::FailedLogins;

/// For how long an upstream counts what failed in a day.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Time for which accepted credentials are known.
const KNOWN: Duration = Duration::from_secs(30 * 24 * 3600);

/// Different credentials that are known of one account: a user may have a password for each device.
const MAX_DIGESTS: usize = 8;

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
    /// Whose entries in the maps it makes.
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

/// Logins under way by account and mail server. As many as there are connections, since none outlives its login.
#[derive(Debug, Default)]
struct LoginsInFlight(HashMap<AdmissionKey, usize>);

impl LoginsInFlight {
    fn count(&self, key: AdmissionKey) -> usize {
        self.0.get(&key).copied().unwrap_or_default()
    }

    fn begin(&mut self, key: AdmissionKey) {
        let count = self.0.entry(key).or_default();
        *count += 1;
    }

    fn end(&mut self, key: AdmissionKey) {
        // Never zero: the last one removes it.
        let Some(count) = self.0.get_mut(&key) else { return };
        *count -= 1;
        if *count == 0 {
            self.0.remove(&key);
        }
    }
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

    /// A login for which there is no server. How long the answer is to wait; none if the address has failed too often to be told
    /// of any more.
    pub fn lost(&mut self, prefix: Prefix, origin: EntryOrigin, now: Instant) -> Option<Duration> {
        let failed = self.address_failures(prefix, now);
        if failed >= self.limits.per_address {
            return None;
        }
        self.addresses
            .entry(prefix, origin, now, FailureWindow::default)
            .note(now, self.limits.per_address);
        Some(self.delay_after(failed + 1))
    }

    /// Tells whether the name of the login was accepted before, or its account has a token.
    #[must_use]
    pub fn is_known_name(&self, login: &Try, now: Instant) -> bool {
        login.registered || self.known.has_name(&login.keys.account, now)
    }

    /// Tells whether the mail server of the login is known not to make accounts for whoever logs in.
    #[must_use]
    pub fn is_ordinary(&self, login: &Try, now: Instant) -> bool {
        self.known.has_name(&login.keys.ordinary, now)
    }

    /// Notes, after an accepted login, whether the mail server makes accounts for whoever logs in.
    pub fn note_server(&mut self, login: &Try, makes_accounts: bool, now: Instant) {
        if makes_accounts {
            self.known.forget_name(&login.keys.ordinary, now);
        } else {
            self.known.touch(KnownKind::Name, login.keys.ordinary, login.origin, now);
        }
    }

    /// Counts a login with an invented name, which is answered without asking the mail server. Some: there are so many of them
    /// from this address that the answer is to wait for [`longest_delay`](Self::longest_delay).
    pub fn invented(&mut self, login: &Try, now: Instant) -> Option<Blocked> {
        let FailedLogins { within, per_address, .. } = self.limits;
        let window = self.invented.entry(login.prefix, login.origin, now, FailureWindow::default);
        let wait = window.wait(per_address, within, now);
        if window.count(within, now) >= per_address {
            return Some(Blocked { limit: LoginLimit::Address, wait });
        }
        window.note(now, per_address);
        None
    }

    /// Takes in the outcome of a login that [`judge`](Self::judge) let through as `known` or not, tried at `server` if it came
    /// as far as that. How long the answer is to wait, if it counted as a failed login.
    pub fn done(
        &mut self,
        login: &Try,
        known: bool,
        server: Option<AdmissionKey>,
        outcome: LoginOutcome,
        now: Instant,
    ) -> Option<Duration> {
        if !known {
            self.under_way.end(login.keys.account);
            self.under_way.end(login.keys.upstream);
        }
        if let Some(server) = server {
            self.leave_server(server, known);
        }
        match outcome {
            LoginOutcome::Accepted => self.accept(login, server, now),
            LoginOutcome::Refused => {
                self.disown(login, now);
                return Some(self.fail(login, server, now));
            }
            // What was right before is not wrong because the server cannot look it up.
            LoginOutcome::Unclear | LoginOutcome::Broken if !known => {
                if outcome == LoginOutcome::Unclear {
                    self.note_refused(login, false, now);
                }
                return Some(self.fail(login, server, now));
            }
            LoginOutcome::Unclear | LoginOutcome::Broken | LoginOutcome::Nothing => {}
        }
        None
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

    fn accept(&mut self, login: &Try, server: Option<AdmissionKey>, now: Instant) {
        let Try { keys: LoginKeys { account, upstream, home, visit, .. }, origin, .. } = *login;
        self.bring_up(login, now);
        for key in [Some(account), Some(upstream), server].into_iter().flatten() {
            self.known.touch(KnownKind::Name, key, origin, now);
        }
        self.known.touch(KnownKind::Place, home, origin, now);
        self.known.touch(KnownKind::Place, visit, origin, now);
        let Some(digest) = login.digest else { return };
        self.refused.accepted(&digest);
        self.denied.remove(&digest);
        let known = self.accepted.entry(account, origin, now, VecDeque::new);
        known.retain(|other| *other != digest);
        while known.len() >= MAX_DIGESTS {
            known.pop_front();
        }
        known.push_back(digest);
    }

    /// The credentials are wrong, whatever they were before.
    fn disown(&mut self, login: &Try, now: Instant) {
        self.note_refused(login, true, now);
        let Some(digest) = login.digest else { return };
        if let Some(known) = self.accepted.get_mut(&login.keys.account) {
            known.retain(|other| *other != digest);
        }
    }

    fn note_refused(&mut self, login: &Try, is_clear: bool, now: Instant) {
        let accepted = self.known.accepted_at(&login.keys.upstream);
        if let Some(digest) = login.digest {
            self.refused.refused(digest, login.origin, accepted, is_clear, now);
        }
    }

    fn fail(&mut self, login: &Try, server: Option<AdmissionKey>, now: Instant) -> Duration {
        let FailedLogins { per_address, per_account, per_upstream, per_upstream_day, .. } =
            self.limits;
        let Try { keys, origin, .. } = *login;
        self.bring_up(login, now);
        self.addresses
            .entry(login.prefix, origin, now, FailureWindow::default)
            .note(now, per_address);
        self.accounts
            .entry(keys.account, origin, now, Failures::default)
            .failed
            .note(now, per_account);
        let longest = per_upstream.max(per_upstream_day);
        let upstreams = [Some(keys.upstream), server];
        if upstreams.into_iter().flatten().any(|upstream| self.is_in_reserve(upstream, now)) {
            self.reserved
                .entry(keys.account, origin, now, FailureWindow::default)
                .note(now, longest);
            self.reserved
                .entry(keys.neighbours, origin, now, FailureWindow::default)
                .note(now, longest);
        }
        for upstream in upstreams.into_iter().flatten() {
            self.upstreams.entry(upstream, origin, now, FailureWindow::default).note(now, longest);
        }
        self.delay(login, now)
    }

    fn bring_up(&mut self, login: &Try, now: Instant) {
        if !login.origin.is_open {
            return;
        }
        let servers = self.servers.entry(login.prefix, login.origin, now, VecDeque::new);
        servers.retain(|(key, at)| {
            *key != login.keys.upstream && now.saturating_duration_since(*at) < DAY
        });
        while servers.len() >= MAX_SERVERS {
            servers.pop_front();
        }
        servers.push_back((login.keys.upstream, now));
    }

    /// Notes a login that is refused because of a limit. How long its answer is to wait, and whether it counted: the same
    /// credentials count once, since repeating them finds nothing out, and a phone repeats them every minute.
    pub fn refuse(&mut self, login: &Try, now: Instant) -> (Duration, bool) {
        let is_repeated =
            login.digest.is_some_and(|digest| self.denied.get(&digest, now).is_some());
        if !is_repeated {
            let Try { keys, origin, .. } = *login;
            if let Some(digest) = login.digest {
                self.denied.entry(digest, origin, now, || ());
            }
            self.addresses
                .entry(login.prefix, origin, now, FailureWindow::default)
                .note(now, self.limits.per_address);
            self.accounts
                .entry(keys.account, origin, now, Failures::default)
                .refused
                .note(now, MAX_REFUSED);
        }
        (self.delay(login, now), !is_repeated)
    }

    /// 1, 2, 4 … times the first delay, by what failed so far from the address or for the account.
    fn delay(&self, login: &Try, now: Instant) -> Duration {
        let account = self.accounts.get(&login.keys.account, now);
        let account = account.map_or(0, |account| account.failed.count(self.limits.within, now));
        self.delay_after(self.address_failures(login.prefix, now).max(account))
    }

    fn delay_after(&self, failed: usize) -> Duration {
        let before = u32::try_from(failed.saturating_sub(1)).unwrap_or(u32::MAX);
        GrowingWait::doubling(self.limits.delay, self.limits.longest_delay).after(before)
    }
}

#[path = "reserve.rs"]
mod reserve;

pub use reserve::Strain;

#[cfg(test)]
#[path = "failed_logins_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "repeats_tests.rs"]
mod repeats_tests;
