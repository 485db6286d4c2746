//! Referrals (RFC 2221, RFC 2193): a response code that names another server. A client that follows it leaves deltapush, and
//! gets no push for what arrives there. The code goes, the words stay.

use super::Session;
use crate::machine::Actions;
use crate::parser::response;

impl Session {
    /// Hands a complete status response on, without a referral.
    pub(super) fn hand_on(&mut self, line: &[u8], out: &mut impl Actions<Session>) {
        match response::without_referral(line) {
            Some(changed) => self.hand_on_changed(line, &changed, out),
            None => self.hand_on_unchanged(line, out),
        }
    }
}
