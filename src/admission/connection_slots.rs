//! The [slot table](super::slot_table) for tasks: a slot is given back when it is dropped, and a connection that has to
//! close is notified.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::Prefix;
use super::slot_table::{Id, Places, SlotLimits, SlotsFull};

/// Shared by all listeners.
#[derive(Debug, Default)]
pub struct Door(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    places: Places,
    /// Signals connections that are not logged in to close.
    evictions: HashMap<Id, CancellationToken>,
}

/// A connection's place.
#[derive(Debug)]
pub struct ConnectionSlot {
    door: Arc<Door>,
    id: Id,
    prefix: Prefix,
    /// Until the client is logged in.
    evicted: Option<CancellationToken>,
}

/// The right to a place while a login is tried.
#[derive(Debug)]
pub struct Claim {
    door: Arc<Door>,
    id: Id,
    prefix: Prefix,
}

/// A login that is tried: while this is there, others are pushed out first.
#[derive(Debug)]
pub struct Trying<'a>(&'a Claim);

impl Claim {
    /// The login is being tried from now on.
    #[must_use]
    pub fn try_login(&self, limits: &SlotLimits) -> Trying<'_> {
        self.door.inside().places.begin_try(self.id, self.prefix, limits);
        Trying(self)
    }
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        let Claim { door, id, prefix } = self.0;
        door.inside().places.end_try(*id, *prefix);
    }
}

impl Door {
    /// Takes a place for a new connection; `id` is of no other, and grows. Somebody else may have to go for it.
    ///
    /// # Errors
    /// [`SlotsFull`] if there is none.
    pub fn enter(
        self: &Arc<Self>,
        id: Id,
        address: IpAddr,
        limits: &SlotLimits,
    ) -> Result<ConnectionSlot, SlotsFull> {
        let prefix = Prefix::of(address);
        let evicted = CancellationToken::new();
        let mut inside = self.inside();
        let evicted_for_it = inside.places.enter(id, prefix, limits)?;
        if let Some(other) = evicted_for_it.and_then(|other| inside.evictions.remove(&other)) {
            other.cancel();
        }
        inside.evictions.insert(id, evicted.clone());
        drop(inside);
        Ok(ConnectionSlot { door: Arc::clone(self), id, prefix, evicted: Some(evicted) })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // A panic within would be a bug; counting goes on.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionSlot {
    /// Resolves when the connection has to go.
    pub fn evicted(&self) -> impl Future<Output = ()> + use<> {
        let evicted = self.evicted.clone();
        async move {
            match evicted {
                Some(evicted) => evicted.cancelled().await,
                None => std::future::pending().await,
            }
        }
    }

    /// For the part that tries its login.
    #[must_use]
    pub fn claim(&self) -> Claim {
        Claim { door: Arc::clone(&self.door), id: self.id, prefix: self.prefix }
    }

    /// The client is logged in: from now on it stays.
    pub fn logged_in(&mut self) {
        if self.evicted.take().is_none() {
            return;
        }
        let mut inside = self.door.inside();
        inside.evictions.remove(&self.id);
        inside.places.logged_in(self.id, self.prefix);
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut inside = self.door.inside();
        if self.evicted.is_none() {
            inside.places.leave_logged_in(self.prefix);
        } else {
            inside.evictions.remove(&self.id);
            inside.places.leave(self.id, self.prefix);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_come_back_and_who_has_to_go_hears_of_it() {
        let limits = SlotLimits {
            connections: 2,
            per_address: 2,
            before_login: 2,
            before_login_per_address: 2,
        };
        let door = Arc::new(Door::default());
        let enter = |id, last| door.enter(id, [192, 0, 2, last].into(), &limits);
        let mut first = enter(1, 1).unwrap();
        first.logged_in();
        let second = enter(2, 2).unwrap();
        let third = enter(3, 3).unwrap();
        second.evicted().await;
        drop(second);
        drop(first);
        let fourth = enter(4, 4).unwrap();
        let is_evicted = |place: &ConnectionSlot| {
            place.evicted.as_ref().is_some_and(CancellationToken::is_cancelled)
        };
        assert!(!is_evicted(&third) && !is_evicted(&fourth));
        let claim = third.claim();
        let trying = claim.try_login(&SlotLimits { before_login: 4, ..limits });
        let fifth = enter(5, 5).unwrap();
        assert!(!is_evicted(&third) && is_evicted(&fourth));
        drop(third);
        drop(trying);
        drop((fourth, fifth));
        let inside = door.inside();
        assert!(inside.evictions.is_empty());
        assert_eq!(format!("{:?}", inside.places), format!("{:?}", Places::default()));
    }
}
