//! A session after login, as a machine: bytes from either peer and time in, bytes for either peer and requests out. It knows
//! no socket, no clock and no runtime; [`relay`](super::relay) drives it. [`SessionInput`] and [`SessionAction`] are its contract.
//!
//! From the client, the first bytes of a command decide whether it is relayed, untouched and streaming, or gathered and
//! answered here (`intercept`). From the upstream, only a line that can carry a capability list, and the answers to commands
//! in which deltapush has a part, are held until their end; everything else is handed on as it comes. deltapush's own lines
//! enter the stream only between two responses.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

mod contract;
#[cfg(test)]
mod extension_tests;
mod from_client;
mod from_upstream;
mod id;
mod intercept;
mod keepalive;
mod keeping;
mod metadata;
#[cfg(test)]
mod metadata_tests;
mod patience;
mod pending;
mod prefetch;
#[cfg(test)]
mod prefetch_tests;
#[cfg(test)]
mod property_tests;
mod referral;
mod run;
mod selection;
#[cfg(test)]
mod shaping_tests;
mod shown;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod visit;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::machine::Actions;
use crate::parser::capability::{self, Added};
use crate::parser::command::Verb;
use crate::parser::framer::Framer;
use crate::parser::response;
use crate::policy::{JmapAccess, Native};
pub use crate::push::kept::observer::ObservedEvent;
use crate::trace::{Mark, Speaker, Transcript};

pub use contract::{
    AccountQuestion, Backlog, DrainStep, Request, RequestOutcome, SessionAction, SessionEnd,
    SessionInput, UsedInput,
};
pub use keeping::ChangedState;
use keeping::KeepingState;
use patience::Wait;
use pending::{Pending, PendingReply};
use prefetch::PrefetchObserver;
use selection::Selection;
use visit::Visit;

/// Commands in which deltapush has a part and whose end has not come. More wait until these are answered.
const MAX_PENDING: usize = 32;

/// Most bytes of deltapush's own to the client before it reads the client's next bytes.
const MAX_SAID: usize = 64 * 1024;

/// Most bytes of deltapush's own queued for the client before it stops taking commands.
const MAX_OWN: usize = 64 * 1024;

/// Shared by all sessions of a process.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// The server's own entries (RFC 5464, mailbox `""`), by full name; the upstream's value wins.
    pub entries: Vec<(String, String)>,
    /// True if `/shared/comment` says how push is for the account ([`AccountQuestion::PushStatus`]), behind whatever comment there is.
    pub push_status: bool,
    /// The holder of the tokens where the upstream pushes by itself.
    pub native: Native,
    /// Longest silence to an idling client before a keepalive; `None` leaves keepalives to the upstream.
    pub keepalive: Option<Duration>,
    /// True if clients may learn of JMAP.
    pub jmapaccess: JmapAccess,
    /// Time limit of the client for a command that deltapush holds.
    pub command_time: Duration,
    /// The longest command that is gathered, in bytes.
    pub max_command: usize,
    /// The longest response that is held, in bytes.
    pub max_response: usize,
}

/// The known traits of the upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UpstreamTraits {
    /// It has METADATA or METADATA-SERVER.
    pub metadata: bool,
    /// It has ID.
    pub id: bool,
    /// It pushes by itself: it has XDELTAPUSH, or answered `maxsmtprecipients`.
    pub pushes: bool,
}

impl UpstreamTraits {
    /// Takes in a capability list.
    pub fn learn<'a>(&mut self, capabilities: impl Iterator<Item = &'a [u8]>) {
        (self.metadata, self.id) = (false, false);
        for name in capabilities {
            self.id |= name.eq_ignore_ascii_case(b"ID");
            self.metadata |= name.eq_ignore_ascii_case(b"METADATA")
                || name.eq_ignore_ascii_case(b"METADATA-SERVER");
            self.pushes |= name.eq_ignore_ascii_case(b"XDELTAPUSH");
        }
    }
}

/// One client's session with its upstream, from the end of the login on. Without `Debug`: what it holds may be a token.
pub struct Session {
    settings: Arc<SessionSettings>,
    upstream: UpstreamTraits,
    client: ClientSide,
    server: UpstreamSide,
    selection: Selection,
    /// The additional state of a session that may be kept. Boxed: elsewhere there is none.
    keeping: Option<Box<KeepingState>>,
    /// Observes the messages that the app fetches, once it has handed over a token. Boxed: most sessions have none.
    prefetches: Option<Box<PrefetchObserver>>,
    visit: Visit,
    /// Commands whose answers from upstream concern deltapush, oldest first.
    pending: VecDeque<Pending>,
    /// The replies to the client for each request in progress.
    requests: VecDeque<PendingReply>,
    /// Own lines to send as soon as no response is in progress, response by response.
    own: Vec<Vec<u8>>,
    /// Bytes of its own since the client's last bytes came.
    said: usize,
    /// True if the client's next bytes belong to those before: a question of deltapush's own stood between them.
    is_resumed: bool,
    compression: CompressionState,
    /// deltapush has ended it: nothing is handed on but the rest of the response that is under way.
    closed: bool,
    /// Somebody follows its trace.
    traced: bool,
    /// The queues of the driver.
    backlog: Backlog,
    /// The wait for a peer's word that ends.
    wait: Option<Wait>,
}

/// The state of compression between client and deltapush (RFC 4978).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CompressionState {
    Off,
    /// The client asked for it; the OK waits for a response's end.
    Accepted,
    On,
}

/// The direction from client to upstream.
struct ClientSide {
    framer: Framer,
    state: ClientState,
    /// Commands that have begun.
    begun: u32,
    /// The command under way.
    verb: Verb,
    /// Its tag.
    tag: Vec<u8>,
    /// True if followers of the session may see its arguments.
    shows_arguments: bool,
    /// The upstream has ended it, and the client has not.
    is_answered: bool,
    /// The held bytes: its head until that is known, all of it if it is gathered.
    held: Vec<u8>,
    /// Ends of synchronizing literals' announcements in `held`.
    cuts: Vec<usize>,
}

/// The meaning of the client's next bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientState {
    /// The head of a command.
    Head,
    /// More of a command that is relayed.
    Relaying,
    /// Nothing yet: a synchronizing literal of so many bytes was announced. If the upstream answers `+` they are next,
    /// if it ends the command they never come.
    AwaitingLiteral(u64),
    /// Nothing yet: a literal of so many bytes follows in any case, for which deltapush has asked the upstream. With `+` it is
    /// relayed. If the upstream ends the command, it is data of no command.
    AwaitingAgreement(u64),
    /// Nothing yet: IDLE was sent, and the upstream says whether it is idling.
    AwaitingContinuation,
    /// DONE, which ends IDLE.
    Continuing,
    /// More of a command that deltapush answers.
    Gathering,
    /// More of such a command that went over its limit.
    Discarding,
    /// Nothing yet: a gathered command is on its way upstream, piece by piece.
    Replaying,
    /// Nothing yet: the driver was asked something about the account for a gathered command.
    AwaitingAccount,
}

/// The direction from upstream to client.
struct UpstreamSide {
    framer: Framer,
    state: UpstreamState,
    /// The held bytes of a response.
    held: Vec<u8>,
    /// An EXISTS went by, and the client has not asked for messages since.
    has_news: bool,
    /// A BYE went by: the connection's end needs no further words.
    said_bye: bool,
}

/// The meaning of the upstream's next bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UpstreamState {
    /// The head of a response.
    Head,
    /// More of a response that is handed on.
    Passing(Shape),
    /// More of a response that is held until its end.
    Holding(Shape, Held),
    /// More of a line that the client does not get: the `+` that a replayed command waits for.
    Dropping,
}

/// The possible content of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    /// Literals where a line announces them.
    literals: bool,
    /// Secrets: not for the transcript.
    secret: bool,
}

/// Why a response is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// It may have a capability list.
    Capabilities,
    /// It may have a referral.
    Referral,
    /// It may be a keepalive.
    Ok,
    /// It may have the position of the mailbox that is being opened.
    MailboxCode,
    /// It answers a `GETMETADATA`.
    Metadata,
    /// It ends a command that is [`Pending`].
    End,
}

impl Session {
    /// The session reads the positions of mailboxes that the client opens.
    #[must_use]
    pub fn reading_positions(mut self) -> Self {
        self.selection.read_positions();
        self
    }

    /// A session of which the login just succeeded.
    #[must_use]
    pub fn new(settings: Arc<SessionSettings>, upstream: UpstreamTraits) -> Self {
        Self {
            settings,
            upstream,
            client: ClientSide {
                framer: Framer::new(),
                state: ClientState::Head,
                begun: 0,
                verb: Verb::Other,
                tag: Vec::new(),
                shows_arguments: false,
                is_answered: false,
                held: Vec::new(),
                cuts: Vec::new(),
            },
            server: UpstreamSide {
                framer: Framer::new(),
                state: UpstreamState::Head,
                held: Vec::new(),
                has_news: false,
                said_bye: false,
            },
            selection: Selection::default(),
            keeping: None,
            prefetches: None,
            visit: Visit::default(),
            pending: VecDeque::new(),
            requests: VecDeque::new(),
            own: Vec::new(),
            said: 0,
            is_resumed: false,
            compression: CompressionState::Off,
            closed: false,
            traced: false,
            backlog: Backlog::default(),
            wait: None,
        }
    }

    /// Reports if the client's next bytes would be read. They have to wait while an answer from the upstream decides
    /// their meaning.
    #[must_use]
    pub fn takes_client_input(&self) -> bool {
        use ClientState::{
            AwaitingAccount, AwaitingAgreement, AwaitingContinuation, AwaitingLiteral, Replaying,
        };
        let is_awaiting = matches!(
            self.client.state,
            AwaitingAccount
                | AwaitingAgreement(_)
                | AwaitingContinuation
                | AwaitingLiteral(_)
                | Replaying
        );
        !is_awaiting
            && self.pending.len() < MAX_PENDING
            // Commands that follow a token may ask for it.
            && self.requests.is_empty()
            && (self.own.is_empty() || self.own.iter().map(Vec::len).sum::<usize>() < MAX_OWN)
            && self.compression != CompressionState::Accepted
            && !self.closed
            && !self.waits_for_logout()
    }

    /// Bytes of commands and responses that are held: within the limits, whatever the peers send.
    #[must_use]
    pub fn held(&self) -> usize {
        let keeping = self.keeping.as_ref().map_or(0, |keeping| keeping.held());
        let prefetches = self.prefetches.as_ref().map_or(0, |observer| observer.held());
        let held = [
            self.client.held.len(),
            self.server.held.len(),
            self.selection.held(),
            keeping,
            prefetches,
        ];
        held.into_iter().fold(0, usize::saturating_add)
    }

    /// Reports if the client said LOGOUT, and the upstream BYE. Of a session that may be kept, the end of the relay tells.
    #[must_use]
    pub fn has_logged_out(&self) -> bool {
        self.keeping.is_none() && self.server.said_bye && self.client.verb == Verb::Logout
    }

    fn waits_for_logout(&self) -> bool {
        self.keeping.as_ref().is_some_and(|keeping| keeping.awaits_logout())
    }

    /// Reports if deltapush, not the upstream, has the tokens.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        !self.upstream.pushes || self.settings.native == Native::Takeover
    }

    /// The additions to capability lists.
    #[must_use]
    pub fn added(&self) -> Added {
        Added { push: self.has_tokens(), compress: self.compression != CompressionState::On }
    }

    /// A whole line as the client gets it; `None` if it stays as it is.
    #[must_use]
    pub fn rewrite(&self, line: &[u8]) -> Option<Vec<u8>> {
        capability::rewrite(line, self.added(), self.settings.jmapaccess)
            .or_else(|| response::without_referral(line))
    }

    /// Reports if deltapush has ended it, with a last line.
    #[must_use]
    #[inline]
    pub fn is_over(&self) -> bool {
        self.closed && !self.is_within_response()
    }

    /// Reports if a response has begun and not ended: no own line may be sent now.
    fn is_within_response(&self) -> bool {
        self.server.state != UpstreamState::Head || !self.server.held.is_empty()
    }

    /// Says one response to the client, as soon as no response is under way.
    fn send_own(&mut self, out: &mut impl Actions<Session>, response: &[u8]) {
        if self.closed {
            return;
        }
        self.said = self.said.saturating_add(response.len());
        if self.is_within_response() {
            self.own.push(response.to_vec());
        } else {
            self.send_own_now(out, response);
        }
    }

    fn send_own_now(&mut self, out: &mut impl Actions<Session>, lines: &[u8]) {
        out.push(SessionAction::ToClient(lines));
        if let Some(mut transcript) = self.transcript(out) {
            transcript.response(Speaker::ToClient, Mark::Own, lines);
        }
    }

    /// Says what had to wait for a response's end.
    fn send_waiting(&mut self, out: &mut impl Actions<Session>) {
        for response in std::mem::take(&mut self.own) {
            self.send_own_now(out, &response);
        }
        // Its OK was the last of them: no command was taken since.
        if self.compression == CompressionState::Accepted {
            self.compress(out);
        }
    }
}
