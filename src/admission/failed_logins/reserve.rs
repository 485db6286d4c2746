//! The limit of failed logins per mail server, half of which is reserved for login names and networks that are known
//! there.

use std::time::{Duration, Instant};

use super::{DAY, LoginLimit, Logins, Room, Try};
use crate::admission::key::{AdmissionKey, LoginKeys};
use crate::admission::window::room;
use crate::policy::FailedLogins;

/// A mail server at which logins of strangers are refused for what failed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strain {
    /// Failures that count.
    pub failed: usize,
    /// The number of unknown logins that may fail.
    pub limit: usize,
    /// In this time.
    pub within: Duration,
    /// Time until unknown logins are admitted again.
    pub wait: Duration,
}

impl Logins {
    /// The failures that count at a mail server, if logins of strangers are refused for them now.
    #[must_use]
    pub fn strain(&self, upstream: AdmissionKey, now: Instant) -> Option<Strain> {
        let FailedLogins { within, per_upstream, per_upstream_day, .. } = self.limits;
        let window = self.upstreams.get(&upstream, now)?;
        let has_reserve = self.has_reserve(upstream, now);
        let of = |limit: usize, within: Duration| {
            let limit = if has_reserve { for_strangers(limit) } else { limit };
            Strain {
                failed: window.count(within, now),
                limit,
                within,
                wait: window.wait(limit, within, now),
            }
        };
        let strains = [of(per_upstream, within), of(per_upstream_day, DAY)];
        strains
            .into_iter()
            .filter(|strain| strain.failed >= strain.limit)
            .max_by_key(|strain| strain.wait)
    }

    /// Room at a mail server, by its name or its address.
    pub(super) fn upstream_room(&self, upstream: AdmissionKey, login: &Try, now: Instant) -> Room {
        let FailedLogins { within, per_upstream, per_upstream_day, .. } = self.limits;
        let is_reserved = self.has_reserve(upstream, now) && !self.has_claim(login, now);
        let failed = self.upstreams.get(&upstream, now);
        let of = |limit: usize, within: Duration| {
            let limit = if is_reserved { for_strangers(limit) } else { limit };
            room(failed, self.under_way.count(upstream), (LoginLimit::Upstream, limit), within, now)
        };
        of(per_upstream, within).and(of(per_upstream_day, DAY))
    }

    /// Tells whether a part of the limit of this mail server is reserved: for somebody, that is, who has logged in there some time ago.
    fn has_reserve(&self, upstream: AdmissionKey, now: Instant) -> bool {
        self.known.is_old_name(&upstream, self.limits.within, now)
    }

    /// Tells whether the login may use the part that is reserved: by its name or by its network, each of which has a bound.
    fn has_claim(&self, login: &Try, now: Instant) -> bool {
        let FailedLogins { within, per_upstream, per_upstream_day, .. } = self.limits;
        let is_left = |key: &AdmissionKey| {
            self.reserved.get(key, now).is_none_or(|used| {
                used.count(within, now) < for_one(per_upstream)
                    && used.count(DAY, now) < for_one(per_upstream_day)
            })
        };
        let LoginKeys { account, visit, neighbours, .. } = &login.keys;
        (self.is_known_name(login, now) && is_left(account))
            || (self.known.has_place(visit, now) && is_left(neighbours))
    }

    /// Tells whether one more failure at the mail server is one of the reserved part.
    pub(super) fn is_in_reserve(&self, upstream: AdmissionKey, now: Instant) -> bool {
        let FailedLogins { within, per_upstream, per_upstream_day, .. } = self.limits;
        let Some(failed) = self.upstreams.get(&upstream, now) else { return false };
        let is_used_up = |limit, within| failed.count(within, now) >= for_strangers(limit);
        self.has_reserve(upstream, now)
            && (is_used_up(per_upstream, within) || is_used_up(per_upstream_day, DAY))
    }
}

/// The part of a server's limit that is not reserved. Of 4 it is 2, so that one login of somebody who is known cannot use up
/// the rest.
fn for_strangers(limit: usize) -> usize {
    (limit - limit / 2).max(1)
}

/// Failed logins of the reserved part that one login name, or one network, may have.
fn for_one(limit: usize) -> usize {
    (limit / 8).max(1)
}
