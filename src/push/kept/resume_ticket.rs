//! The ticket that resumes a kept session: a client that logs in with the same password over the same route gets it.

use std::net::IpAddr;

use super::password_hash::PasswordHash;
use crate::upstream::capabilities::Capabilities;
use crate::upstream::login_machine::LoggedIn;
use crate::upstream::route::Target;

/// The login of a kept session, without its password.
pub(in crate::push) struct ResumeTicket {
    /// Recognizes its password.
    pub(super) hash: PasswordHash,
    target: Target,
    /// The address, or network, that the server got as that of the client, if it got one.
    client: Option<IpAddr>,
    answer: Vec<u8>,
    untagged: Vec<u8>,
    /// In one string, because there is one for each session.
    capabilities: String,
    pushes: bool,
}

impl ResumeTicket {
    /// The ticket of a session that was logged in so. `client`: the address of its client, to the precision in which clients are
    /// told apart.
    pub(super) fn new(
        hash: PasswordHash,
        target: &Target,
        client: IpAddr,
        logged_in: &LoggedIn,
    ) -> Self {
        Self {
            hash,
            target: target.clone(),
            client: announced(target, client),
            answer: logged_in.answer.clone(),
            untagged: logged_in.untagged.clone(),
            capabilities: logged_in.capabilities.iter().collect::<Vec<_>>().join(" "),
            pushes: logged_in.pushes,
        }
    }

    /// Reports if a login from there to that target would lead to the same session, but for its password.
    pub(super) fn fits(&self, target: &Target, client: IpAddr) -> bool {
        self.target == *target && self.client == announced(target, client)
    }

    /// The result of the login.
    pub(super) fn logged_in(&self) -> LoggedIn {
        LoggedIn {
            answer: self.answer.clone(),
            untagged: self.untagged.clone(),
            capabilities: Capabilities::from_names(self.capabilities.split(' ').map(str::as_bytes)),
            pushes: self.pushes,
        }
    }
}

/// The client's address, if the target's server gets it.
fn announced(target: &Target, client: IpAddr) -> Option<IpAddr> {
    (target.terms.originating_ip || target.terms.proxy_protocol.is_some()).then_some(client)
}
