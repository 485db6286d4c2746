//! Places of one limit, first come, first served, of which each node has its part.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A number of places that may change.
#[derive(Debug)]
pub(super) struct Places {
    /// Of all nodes together.
    limit: usize,
    free: Arc<Semaphore>,
    size: Mutex<Size>,
}

#[derive(Debug)]
struct Size {
    /// The places of this node.
    places: usize,
    /// Places that are taken, and vanish when they are left.
    surplus: usize,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    permit: Option<OwnedSemaphorePermit>,
    places: Arc<Places>,
}

impl Places {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        let size = Mutex::new(Size { places: limit, surplus: 0 });
        Arc::new(Self { limit, free: Arc::new(Semaphore::new(limit)), size })
    }

    /// So many nodes share the limit. Each has one place at least, unless there is none at all. What remains in a division is for
    /// all of them or for none, as `rounds_up` has it.
    pub(super) fn share(&self, nodes: u32, rounds_up: bool) {
        let nodes = usize::try_from(nodes).unwrap_or(usize::MAX).max(1);
        let part = if rounds_up { self.limit.div_ceil(nodes) } else { self.limit / nodes };
        let wanted = part.max(1.min(self.limit));
        let mut size = self.size();
        if wanted < size.places {
            let vanish = size.places - wanted;
            size.surplus += vanish - self.free.forget_permits(vanish);
        } else {
            let more = wanted - size.places;
            let stay = more.min(size.surplus);
            size.surplus -= stay;
            self.free.add_permits(more - stay);
        }
        size.places = wanted;
    }

    /// Waits for a place.
    pub(super) async fn enter(self: &Arc<Self>) -> Place {
        loop {
            // It is never closed, so that there is an end to this.
            if let Ok(permit) = Arc::clone(&self.free).acquire_owned().await {
                return Place { permit: Some(permit), places: Arc::clone(self) };
            }
        }
    }

    fn size(&self) -> MutexGuard<'_, Size> {
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut size = self.places.size();
        if size.surplus > 0
            && let Some(permit) = self.permit.take()
        {
            size.surplus -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn shares_grow_and_shrink_whoever_is_there() {
        let places = Places::new(6);
        let enter = || places.enter().now_or_never();
        let mut there: Vec<Place> = std::iter::from_fn(enter).collect();
        assert_eq!(there.len(), 6);
        places.share(3, false);
        there.truncate(3);
        assert!(enter().is_none(), "three are there, and two may be");
        places.share(2, false);
        assert!(enter().is_none(), "three are there, and may be");
        there.truncate(2);
        there.extend(enter());
        assert_eq!(there.len(), 3);
        assert!(enter().is_none());
        places.share(1, false);
        there.extend(std::iter::from_fn(enter).take(3).collect::<Vec<_>>());
        places.share(100, false);
        there.clear();
        let one = enter().unwrap();
        assert!(enter().is_none());
        drop(one);
        places.share(4, false);
        let one = [enter(), enter()];
        assert!(one[0].is_some() && one[1].is_none(), "6 of 4 nodes, rounded down");
        drop(one);
        places.share(4, true);
        let two = [enter(), enter(), enter()];
        assert!(two[1].is_some() && two[2].is_none(), "rounded up");
        assert!(Places::new(0).enter().now_or_never().is_none());
    }
}
