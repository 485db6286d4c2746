//! Credentials that a mail server has refused, and how long it is not asked about the same ones again.
//!
//! A phone with an old password tries it about once a minute, without end. With every refusal that is certain the wait doubles, up
//! to four hours: some ten failed logins a day.
//!
//! A server whose user database is down refuses correct passwords too. So a refusal is certain only if the server accepted
//! anybody's login since the refusal before. Uncertain ones make the same credentials wait for at most four times as long as the
//! first does, until there are so many that no outage is as long; and no longer than the first does once the server accepts a
//! login again.

use std::time::{Duration, Instant};

use super::fair_map::{EntryOrigin, FairMap};
use super::key::CredentialDigest;
use crate::backoff::GrowingWait;

/// The longest wait, unless the first is longer.
const LONGEST: Duration = Duration::from_secs(4 * 3600);

/// Time for which refusals are counted after the last one.
const MEMORY: Duration = Duration::from_secs(24 * 3600);

/// So many uncertain refusals may be an outage, of more than four hours where the first wait is ten minutes.
const OUTAGE: u32 = 8;

/// Doublings of the wait at most meanwhile.
const OUTAGE_DOUBLINGS: u32 = 2;

/// Refusals without a reason that make nothing wait: certain ones, and uncertain ones. Such a refusal may be an outage of this
/// account alone.
const UNCLEAR_CHANCES: (u32, u32) = (2, 11);

/// Capacity of the map, as of the others of `failed_logins`.
const CAPACITY: usize = 20_000;

/// Refusals of the same credentials.
#[derive(Debug, Clone, Copy, Default)]
struct Refusals {
    certain: u32,
    uncertain: u32,
    /// The server once gave the credentials as its reason.
    is_clear: bool,
}

/// Credentials that were refused, by their digest.
#[derive(Debug)]
pub(super) struct Repeats {
    refused: FairMap<CredentialDigest, Refusals>,
    /// The first wait.
    first: Duration,
}

impl Repeats {
    pub(super) fn new(first: Duration) -> Self {
        Self { refused: FairMap::new(CAPACITY, MEMORY.max(first)), first }
    }

    pub(super) fn set_first(&mut self, first: Duration) {
        self.refused.set_lifetime(MEMORY.max(first));
        self.first = first;
    }

    /// Counts a refusal. The server last accepted a login at `accepted`; `is_clear` if it named the credentials as the reason.
    pub(super) fn refused(
        &mut self,
        digest: CredentialDigest,
        origin: EntryOrigin,
        accepted: Option<Instant>,
        is_clear: bool,
        now: Instant,
    ) {
        let before = self.refused.get(&digest, now).and_then(|_| self.refused.used(&digest));
        let is_certain =
            before.zip(accepted).is_some_and(|((before, _), accepted)| accepted > before);
        if before.is_none() {
            self.refused.remove(&digest);
        }
        let refusals = self.refused.entry(digest, origin, now, Refusals::default);
        let count = if is_certain { &mut refusals.certain } else { &mut refusals.uncertain };
        *count += 1;
        refusals.is_clear |= is_clear;
    }

    /// They were accepted.
    pub(super) fn accepted(&mut self, digest: &CredentialDigest) {
        self.refused.remove(digest);
    }

    /// Time until the server may be asked about the credentials; `None` if it may be asked now.
    pub(super) fn wait(
        &self,
        digest: &CredentialDigest,
        accepted: Option<Instant>,
        now: Instant,
    ) -> Option<Duration> {
        let refusals = self.refused.get(digest, now)?;
        let (last, _) = self.refused.used(digest)?;
        let is_well = accepted.is_some_and(|accepted| accepted > last);
        let whole = refusals.whole_wait(self.first, is_well)?;
        Some(whole.saturating_sub(now.saturating_duration_since(last)))
            .filter(|wait| !wait.is_zero())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.refused.len()
    }
}

impl Refusals {
    /// The wait after the last refusal. `is_well` if the server has accepted a login since.
    fn whole_wait(self, first: Duration, is_well: bool) -> Option<Duration> {
        let chances = if self.is_clear { (0, 0) } else { UNCLEAR_CHANCES };
        let certain = self.certain.saturating_sub(chances.0);
        let uncertain = self.uncertain.saturating_sub(chances.1);
        if (certain, uncertain) == (0, 0) {
            return None;
        }
        let doublings = match uncertain {
            _ if is_well => 0,
            ..=OUTAGE => uncertain.saturating_sub(1).min(OUTAGE_DOUBLINGS),
            _ => uncertain - OUTAGE + OUTAGE_DOUBLINGS,
        };
        let doublings = doublings.max(certain);
        Some(GrowingWait::doubling(first, LONGEST.max(first)).after(doublings))
    }
}
