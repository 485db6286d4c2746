//! Keys of session tickets that several nodes share: a client resumes its TLS session at any of them (RFC 5077, RFC 8446
//! section 4.6.1).
//!
//! A key seals tickets for [`ROTATION`] and opens them for twelve hours longer; then it is gone, and with it what it has sealed.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use tokio_rustls::rustls::server::ProducesTickets;
use zeroize::Zeroizing;

use crate::reloadable::Reloadable;
use crate::secret::Secret;

/// For so long a key seals new tickets.
pub const ROTATION: Duration = Duration::from_secs(6 * 3600);
/// For so long a ticket is good.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// A key that is younger seals nothing yet: other nodes may not know it.
const SPREAD: Duration = Duration::from_secs(60);
/// Keys that are opened with at most: those of [`ROTATION`] and [`LIFETIME`], and one that was made at the same time.
const MAX_KEYS: usize = 5;

const NAME_LEN: usize = 16;
const KEY_LEN: usize = 32;
const TIME_LEN: usize = 8;
/// Length of a key's record.
const RECORD_LEN: usize = NAME_LEN + TIME_LEN + KEY_LEN;

/// The keys of one moment, the newest first.
pub struct TicketKeys(Vec<TicketKey>);

struct TicketKey {
    /// Stands before each ticket that was sealed with the key.
    name: [u8; NAME_LEN],
    /// In seconds since 1970.
    made: u64,
    key: RandomizedNonceKey,
    bytes: Zeroizing<[u8; KEY_LEN]>,
}

/// The system has no random numbers, or its cryptography fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot make a key for TLS tickets: the operating system provides no random numbers")]
pub struct NoRandom;

impl TicketKeys {
    /// The keys in `record`; what cannot be read is left out.
    #[must_use]
    pub fn read(record: &[u8]) -> Self {
        Self(record.chunks_exact(RECORD_LEN).take(MAX_KEYS).filter_map(TicketKey::read).collect())
    }

    /// The record of the keys. It is secret.
    #[must_use]
    pub fn record(&self) -> Secret {
        let mut record = Vec::with_capacity(RECORD_LEN.saturating_mul(self.0.len()));
        for key in &self.0 {
            record.extend_from_slice(&key.name);
            record.extend_from_slice(&key.made.to_be_bytes());
            record.extend_from_slice(&*key.bytes);
        }
        Secret::new(record)
    }

    /// Reports if a new key is to be made at `now`, in seconds since 1970. So it is after the clock was set back, too.
    #[must_use]
    pub fn is_due(&self, now: u64) -> bool {
        self.0.first().is_none_or(|newest| {
            newest.made > now || now.saturating_sub(newest.made) >= ROTATION.as_secs()
        })
    }

    /// These keys with a new one, and without those that are too old at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// [`NoRandom`].
    pub fn rotated(self, now: u64) -> Result<Self, NoRandom> {
        let oldest = now.saturating_sub(ROTATION.as_secs().saturating_add(LIFETIME.as_secs()));
        let known = self.0.into_iter().filter(|key| key.made >= oldest && key.made <= now);
        let mut keys = vec![TicketKey::new(now)?];
        keys.extend(known.take(MAX_KEYS.saturating_sub(1)));
        Ok(Self(keys))
    }

    /// The key that seals at `now`: the newest that all nodes know.
    fn sealing(&self, now: u64) -> Option<&TicketKey> {
        let is_known = |key: &&TicketKey| now.saturating_sub(key.made) >= SPREAD.as_secs();
        self.0.iter().find(is_known).or(self.0.last())
    }
}

impl TicketKey {
    fn new(made: u64) -> Result<Self, NoRandom> {
        let (mut name, mut bytes) = ([0; NAME_LEN], Zeroizing::new([0; KEY_LEN]));
        rand::fill(&mut name).map_err(|_| NoRandom)?;
        rand::fill(&mut *bytes).map_err(|_| NoRandom)?;
        Self::with(name, made, bytes).ok_or(NoRandom)
    }

    fn with(name: [u8; NAME_LEN], made: u64, bytes: Zeroizing<[u8; KEY_LEN]>) -> Option<Self> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, &*bytes).ok()?;
        Some(Self { name, made, key, bytes })
    }

    fn read(record: &[u8]) -> Option<Self> {
        let (name, rest) = record.split_first_chunk()?;
        let (made, bytes) = rest.split_first_chunk()?;
        Self::with(*name, u64::from_be_bytes(*made), Zeroizing::new(bytes.try_into().ok()?))
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketKeys({})", self.0.len())
    }
}

/// Seals and opens tickets with the keys of `keys`, which others replace. Without any key it issues no tickets.
#[derive(Debug, Clone)]
pub struct SharedTickets {
    keys: Reloadable<TicketKeys>,
    clock: fn() -> u64,
}

impl SharedTickets {
    /// Tickets with these keys. `clock` gives the seconds since 1970.
    #[must_use]
    pub fn new(keys: Reloadable<TicketKeys>, clock: fn() -> u64) -> Self {
        Self { keys, clock }
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &Reloadable<TicketKeys> {
        &self.keys
    }
}

impl ProducesTickets for SharedTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(LIFETIME.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.get();
        let sealing = keys.sealing((self.clock)())?;
        let mut sealed = plain.to_vec();
        let nonce =
            sealing.key.seal_in_place_append_tag(Aad::from(&sealing.name), &mut sealed).ok()?;
        Some([&sealing.name, nonce.as_ref().as_slice(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys: Arc<TicketKeys> = self.keys.get();
        let known = keys.0.iter().find(|key| key.name == *name)?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length =
            known.key.open_in_place(nonce, Aad::from(&known.name), &mut opened).ok()?.len();
        opened.truncate(length);
        Some(opened)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const START: u64 = 1_800_000_000;
    static NOW: AtomicU64 = AtomicU64::new(START);

    fn tickets(keys: TicketKeys) -> SharedTickets {
        SharedTickets::new(Reloadable::new(keys), || NOW.load(Ordering::SeqCst))
    }

    fn none() -> TicketKeys {
        TicketKeys(Vec::new())
    }

    #[test]
    fn ticket_of_one_node_is_good_at_another() {
        let keys = none().rotated(START).unwrap();
        let other = tickets(TicketKeys::read(keys.record().expose()));
        let one = tickets(keys);
        let ticket = one.encrypt(b"session").unwrap();
        assert_eq!(other.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_ne!(one.encrypt(b"session").unwrap(), ticket, "a nonce of its own");
        for place in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[place] ^= 1;
            assert_eq!(other.decrypt(&changed), None, "{place}");
            assert_eq!(other.decrypt(&ticket[..place]), None, "{place}");
        }
        assert_eq!(tickets(none()).encrypt(b"session"), None);
        assert_eq!(tickets(none().rotated(START).unwrap()).decrypt(&ticket), None, "foreign key");
    }

    #[test]
    fn keys_seal_for_hours_open_for_longer_and_go() {
        let first = none().rotated(START).unwrap();
        assert!(none().is_due(START) && !first.is_due(START + 100));
        assert!(first.is_due(START - 100), "the clock was set back");
        assert!(first.is_due(START + ROTATION.as_secs()));
        let (name, mut keys) = (first.0[0].name, first);
        for turn in 1..10_u64 {
            let now = START + turn * ROTATION.as_secs();
            keys = keys.rotated(now).unwrap();
            assert!(keys.0.len() <= MAX_KEYS);
            assert_eq!(keys.0.iter().any(|key| key.name == name), turn <= 3, "{turn}");
            let [new, old] = [&keys.0[0], &keys.0[1]];
            assert_eq!(keys.sealing(now + 10).unwrap().name, old.name, "not known everywhere");
            assert_eq!(keys.sealing(now + 60).unwrap().name, new.name);
        }
    }

    #[test]
    fn record_of_any_bytes_is_read_and_nothing_secret_is_shown() {
        let keys = none().rotated(START).unwrap().rotated(START + 1).unwrap();
        let record = keys.record();
        assert_eq!(record.expose().len(), 2 * RECORD_LEN);
        let cut = TicketKeys::read(&record.expose()[..RECORD_LEN + 7]);
        assert_eq!(cut.0.len(), 1);
        assert_eq!(TicketKeys::read(&[7; RECORD_LEN * 9]).0.len(), MAX_KEYS);
        assert_eq!(format!("{keys:?}"), "TicketKeys(2)");
    }
}
