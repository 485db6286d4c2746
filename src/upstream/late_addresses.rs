//! Addresses that did not answer lately, so that they are tried last: RFC 8305 section 4 lets past attempts count. Without this, a
//! server whose IPv6 address leads nowhere would cost every login a quarter of a second.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Time for which an address is tried last (RFC 6555 section 4.2 says some ten minutes).
const MEMORY: Duration = Duration::from_secs(10 * 60);
/// Addresses that are remembered. The oldest goes first.
const MAX_ADDRESSES: usize = 256;

/// The addresses, the oldest first.
#[derive(Debug, Default)]
pub struct LateAddresses(Mutex<VecDeque<(SocketAddr, Instant)>>);

impl LateAddresses {
    /// Moves addresses that did not answer lately behind the others. The order is otherwise kept.
    pub(super) fn sort(&self, candidates: &mut [SocketAddr]) {
        let mut late = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        late.retain(|(_, since)| since.elapsed() < MEMORY);
        if !late.is_empty() {
            candidates
                .sort_by_key(|candidate| late.iter().any(|(address, _)| address == candidate));
        }
    }

    /// Remembers that one of them could be used, and those before it could not, or not in time.
    pub(super) fn used(&self, used: SocketAddr, before: &[SocketAddr]) {
        let mut late = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        late.retain(|(address, _)| *address != used);
        for address in before {
            if !late.iter().any(|(known, _)| known == address) {
                if late.len() >= MAX_ADDRESSES {
                    late.pop_front();
                }
                late.push_back((*address, Instant::now()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(last: impl IntoIterator<Item = u8>) -> Vec<SocketAddr> {
        last.into_iter().map(|last| SocketAddr::from(([192, 0, 2, last], 993))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn late_address_is_tried_last_for_ten_minutes() {
        let late = LateAddresses::default();
        let mut candidates = addresses([1, 2, 3]);
        late.used(candidates[1], &addresses([1]));
        late.sort(&mut candidates);
        assert_eq!(candidates, addresses([2, 3, 1]));
        // Used again at half time: the first failure counts, so that it gets its chance.
        tokio::time::advance(MEMORY / 2).await;
        late.used(candidates[0], &addresses([1]));
        tokio::time::advance(MEMORY / 2).await;
        let mut candidates = addresses([1, 2, 3]);
        late.sort(&mut candidates);
        assert_eq!(candidates, addresses([1, 2, 3]));
    }

    #[tokio::test(start_paused = true)]
    async fn address_that_answers_is_forgotten_and_memory_is_bounded() {
        let late = LateAddresses::default();
        late.used(addresses([2])[0], &addresses([1, 3]));
        late.used(addresses([1])[0], &[]);
        let mut candidates = addresses([1, 2, 3]);
        late.sort(&mut candidates);
        assert_eq!(candidates, addresses([1, 2, 3]));
        let many: Vec<_> =
            (0..2000_u16).map(|port| SocketAddr::from(([192, 0, 2, 9], port))).collect();
        late.used(addresses([1])[0], &many);
        assert_eq!(late.0.lock().unwrap().len(), MAX_ADDRESSES);
    }
}
