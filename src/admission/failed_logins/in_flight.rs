//! Logins in flight, which count as failed ones until they end.

use std::collections::HashMap;

use crate::admission::key::AdmissionKey;

/// Logins under way by account and mail server. As many as there are connections, since none outlives its login.
#[derive(Debug, Default)]
pub(super) struct LoginsInFlight(pub(super) HashMap<AdmissionKey, usize>);

impl LoginsInFlight {
    pub(super) fn count(&self, key: AdmissionKey) -> usize {
        self.0.get(&key).copied().unwrap_or_default()
    }

    pub(super) fn begin(&mut self, key: AdmissionKey) {
        let count = self.0.entry(key).or_default();
        *count += 1;
    }

    pub(super) fn end(&mut self, key: AdmissionKey) {
        // Never zero: the last one removes it.
        let Some(count) = self.0.get_mut(&key) else { return };
        *count -= 1;
        if *count == 0 {
            self.0.remove(&key);
        }
    }
}
