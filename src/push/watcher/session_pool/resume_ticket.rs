//! The ticket that resumes a kept session: a client that logs in with the same password over the same route gets it.

use std::net::IpAddr;

use crate::password_hash::PasswordHash;
use crate::upstream::capabilities::Capabilities;
use crate::upstream::login_machine::LoggedIn;
use crate::upstream::route::Target;

/// The known facts of a session's login.
pub struct ResumeTicket {
    /// Recognizes its password.
    pub hash: PasswordHash,
    target: Target,
    /// The address that the server was told the session is for, or its network, if it was told one.
    client: Option<IpAddr>,
    answer: Vec<u8>,
    untagged: Vec<u8>,
    /// In one string, because there is one for each session.
    capabilities: String,
    pushes: bool,
}

impl ResumeTicket {
    /// A ticket for a session that was logged in so. `client`: where its client is, to the precision in which clients are told
    /// apart.
    #[must_use]
    pub fn new(hash: PasswordHash, target: &Target, client: IpAddr, logged_in: &LoggedIn) -> Self {
        Self {
            hash,
            target: target.clone(),
            client: told(target, client),
            answer: logged_in.answer.clone(),
            untagged: logged_in.untagged.clone(),
            capabilities: logged_in.capabilities.iter().collect::<Vec<_>>().join(" "),
            pushes: logged_in.pushes,
        }
    }

    /// Reports if a login from there to that target would lead to the same session, but for its password.
    #[must_use]
    pub fn fits(&self, target: &Target, client: IpAddr) -> bool {
        self.target == *target && self.client == told(target, client)
    }

    /// The result of the login.
    #[must_use]
    pub fn logged_in(&self) -> LoggedIn {
        LoggedIn {
            answer: self.answer.clone(),
            untagged: self.untagged.clone(),
            capabilities: Capabilities::from_names(self.capabilities.split(' ').map(str::as_bytes)),
            pushes: self.pushes,
        }
    }
}

/// The client's address as a server is told it.
fn told(target: &Target, client: IpAddr) -> Option<IpAddr> {
    (target.terms.originating_ip || target.terms.proxy_protocol.is_some()).then_some(client)
}
