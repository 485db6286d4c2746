//! Records of outcomes: of a login that ended, was refused, or had nowhere to go; and the delay of its answer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{
    Blocked, DAY, FailureWindow, Failures, LoginLimit, LoginOutcome, Logins, MAX_REFUSED,
    MAX_SERVERS, Try,
};
use crate::admission::Prefix;
use crate::admission::fair_map::EntryOrigin;
use crate::admission::key::{AdmissionKey, LoginKeys};
use crate::admission::known::KnownKind;
use crate::backoff::GrowingWait;
use crate::policy::FailedLogins;

/// Different credentials that are known of one account: a user may have a password for each device.
const MAX_DIGESTS: usize = 8;

impl Logins {
    /// Counts a login for which there is no server. Returns the delay of its answer; none if the address has failed too
    /// often to be told of any more.
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

    /// Notes, after an accepted login, whether the mail server makes accounts on login.
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

    /// Takes in the outcome of a login that [`judge`](Self::judge) let through as `known` or not, tried at `server` if it
    /// came as far as that. Returns the delay of the answer if the login counted as failed.
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
            // A password that was right before is not wrong because the server cannot look it up.
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

    /// Notes a login that is refused because of a limit. Returns the delay of its answer, and whether it counted: the same
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
    pub(super) fn delay(&self, login: &Try, now: Instant) -> Duration {
        let account = self.accounts.get(&login.keys.account, now);
        let account = account.map_or(0, |account| account.failed.count(self.limits.within, now));
        self.delay_after(self.address_failures(login.prefix, now).max(account))
    }

    fn delay_after(&self, failed: usize) -> Duration {
        let before = u32::try_from(failed.saturating_sub(1)).unwrap_or(u32::MAX);
        GrowingWait::doubling(self.limits.delay, self.limits.longest_delay).after(before)
    }
}
