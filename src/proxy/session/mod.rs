//! A session after login, as a machine: bytes from either peer in, bytes for either peer and requests out. It knows no
//! socket, no clock and no runtime; [`relay`](super::relay) drives it.
//!
//! From the client, the first bytes of a command decide whether it is relayed, untouched and streaming, or gathered and
//! answered here (`intercept`). From the upstream, only a line that can carry a capability list, and the answers to
//! commands in which deltapush has a part, are held until their end; everything else is handed on as it comes. What
//! deltapush says itself enters the stream only between two responses.

#[cfg(test)]
mod extension_tests;
mod from_client;
mod from_upstream;
mod id;
mod intercept;
mod keepalive;
mod keeping;
#[cfg(test)]
mod keeping_tests;
mod prefetch;
#[cfg(test)]
mod prefetch_tests;
mod referral;
mod run;
mod selection;
#[cfg(test)]
mod shaping_tests;
#[cfg(test)]
mod tests;
mod visit;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::parser::capability::{self, Added};
use crate::parser::command::Verb;
use crate::parser::framer::Framer;
use crate::parser::response;
use crate::policy::{JmapAccess, Native};
use crate::push::registry::AccountsFull;
use crate::secret::DeviceToken;
use crate::store::FetchLesson;
use crate::trace::{Mark, Piece, Speaker, Transcript};

use intercept::Pending;
use keeping::DrainState;
pub use keeping::{ChangedState, DrainStep, ObservedEvent};
use prefetch::PrefetchObserver;
use selection::Selection;
use visit::Visit;

/// Commands in which deltapush has a part and whose end has not come. More wait until these are answered.
const MAX_PENDING: usize = 32;

/// How long a client that asked for IDLE waits for the upstream's `+` before its next line is looked at. Some servers say something
/// else instead, or nothing.
const IDLE_PATIENCE: Duration = Duration::from_secs(5);

/// How long the upstream may take to say whether it takes a literal, or to answer the oldest of many commands. Some open the
/// mailbox first, and wait for its lock.
const ANSWER_TIME: Duration = Duration::from_secs(300);

/// How long LOGOUT waits for the ends of the commands before it, where deltapush answers it.
const LOGOUT_PATIENCE: Duration = Duration::from_secs(15);

/// What deltapush may say to the client before it looks at the client's next bytes, in bytes.
const MAX_SAID: usize = 64 * 1024;

/// What deltapush may have queued for the client before it stops taking commands, in bytes.
const MAX_OWN: usize = 64 * 1024;

/// What all sessions of a process have in common.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// The server's own entries (RFC 5464, mailbox `""`), by full name; the upstream's value wins.
    pub entries: Vec<(String, String)>,
    /// Whether `/shared/comment` says how push is for the account ([`Output::push_status`]), behind whatever comment there is.
    pub push_status: bool,
    /// Who gets the tokens where the upstream pushes by itself.
    pub native: Native,
    /// How long an idling client hears nothing before it gets a keepalive; `None` leaves keepalives to the upstream.
    pub keepalive: Option<Duration>,
    /// Whether clients may learn of JMAP.
    pub jmapaccess: JmapAccess,
    /// The longest command that is gathered, in bytes.
    pub max_command: usize,
    /// The longest response that is held, in bytes.
    pub max_response: usize,
}

/// What is known of the upstream.
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

/// What a session wants done that takes time. Requests are answered in their order, through [`Session::answered`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Keep this token for the session's account.
    AddToken(DeviceToken),
    /// Forget all tokens of the session's account.
    RemoveTokens,
}

/// What came of a [`Request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestOutcome {
    /// It was done.
    Done,
    /// The state could not be written.
    Failed,
    /// It was a token of a new account, and there are too many accounts.
    Refused(AccountsFull),
}

impl From<bool> for RequestOutcome {
    fn from(done: bool) -> Self {
        if done { Self::Done } else { Self::Failed }
    }
}

/// Where a session's output goes.
pub trait Output {
    /// Bytes for the client.
    fn to_client(&mut self, bytes: &[u8]);
    /// Bytes for the upstream.
    fn to_upstream(&mut self, bytes: &[u8]);
    /// From here on, both ways, all is compressed between client and deltapush (RFC 4978): what goes
    /// [`to_client`](Self::to_client), and what of the client's bytes [`Session::from_client`] has not used. The session takes
    /// and gives it as plain as before.
    fn compress(&mut self);
    /// Something that takes time.
    fn request(&mut self, request: Request);
    /// The client idles in this mailbox: what its account's watcher has to look at.
    fn idles_in(&mut self, mailbox: &str);
    /// The client, having heard of news, asks for messages.
    fn fetches(&mut self);
    /// The client's app has fetched unencrypted messages, or has left some on the server. Only after
    /// [`AddToken`](Request::AddToken).
    fn learns(&mut self, _lesson: FetchLesson) {}
    /// The client is an app that has come for a background fetch.
    fn background_fetch(&mut self) {}
    /// The tokens that the account has now.
    fn tokens(&self) -> Vec<DeviceToken>;
    /// Something about new mail passes by. Only where sessions are kept.
    fn sees(&mut self, _glimpse: ObservedEvent<'_>) {}
    /// Whether it is worth a copy what the client fetches.
    fn looks_for_mail(&self) -> bool {
        false
    }
    /// How push is for the account at this moment: one line for its owner.
    fn push_status(&self) -> String;
    /// Where the transcript goes, if one is wanted.
    fn transcript(&mut self) -> Option<&mut dyn Transcript>;
}

/// One client's session with its upstream, from the end of the login on. Without `Debug`: what it holds may be a token.
pub struct Session {
    settings: Arc<SessionSettings>,
    upstream: UpstreamTraits,
    client: ClientSide,
    server: UpstreamSide,
    selection: Selection,
    /// Where the session may be kept. Boxed: elsewhere there is none.
    keeping: Option<Box<DrainState>>,
    /// What the app fetches, once it has handed over a token. Boxed: most sessions have none.
    prefetches: Option<Box<PrefetchObserver>>,
    visit: Visit,
    /// Commands whose answers from upstream concern deltapush, oldest first.
    pending: VecDeque<Pending>,
    /// How each request that is under way is answered to the client.
    requests: VecDeque<intercept::PendingReply>,
    /// What deltapush has to say as soon as no response is under way, response by response.
    own: Vec<Vec<u8>>,
    /// How much it has said since the client's last bytes came.
    said: usize,
    compression: CompressionState,
    /// deltapush has ended it: nothing is handed on but the rest of the response that is under way.
    closed: bool,
}

/// Whether client and deltapush compress what they say (RFC 4978).
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
    /// Whether its arguments are shown to who follows the session.
    shows_arguments: bool,
    /// The upstream has ended it, and the client has not.
    is_answered: bool,
    /// What is held of it: its head until that is known, all of it if it is gathered.
    held: Vec<u8>,
    /// Where in `held` a synchronizing literal's announcement ends.
    cuts: Vec<usize>,
}

/// What the next bytes from the client are.
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
}

/// The direction from upstream to client.
struct UpstreamSide {
    framer: Framer,
    state: UpstreamState,
    /// What is held of a response.
    held: Vec<u8>,
    /// An EXISTS went by, and the client has not asked for messages since.
    has_news: bool,
    /// A BYE went by: the connection's end needs no further words.
    said_bye: bool,
}

/// What the next bytes from the upstream are.
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

/// What may stand in a response.
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
    /// It answers a `GETMETADATA`.
    Metadata,
    /// It ends a command that is [`Pending`].
    End,
}

impl Session {
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
            compression: CompressionState::Off,
            closed: false,
        }
    }

    /// Whether the next bytes from the client would be looked at. While an answer from the upstream decides what they are,
    /// they have to wait.
    #[must_use]
    pub fn takes_client_input(&self) -> bool {
        use ClientState::{AwaitingAgreement, AwaitingContinuation, AwaitingLiteral, Replaying};
        !matches!(self.client.state, AwaitingAgreement(_) | AwaitingContinuation | AwaitingLiteral(_) | Replaying)
            && self.pending.len() < MAX_PENDING
            // What follows a token may ask for it.
            && self.requests.is_empty()
            && (self.own.is_empty() || self.own.iter().map(Vec::len).sum::<usize>() < MAX_OWN)
            && self.compression != CompressionState::Accepted
            && !self.closed
            && !self.waits_for_logout()
    }

    /// How many bytes of commands and responses are held: within the limits, whatever the peers send.
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

    /// Which command has begun of which deltapush holds what came, and the rest is for the client to send, if there is one:
    /// a number that differs from one to the next.
    #[must_use]
    pub fn holds_command(&self) -> Option<u32> {
        let under_way = match self.client.state {
            ClientState::Head => !self.client.held.is_empty(),
            ClientState::Gathering | ClientState::Discarding => true,
            _ => false,
        };
        // Its `+` may wait for the end of a response, which is for the upstream to send.
        (under_way && self.own.is_empty() && self.takes_client_input()).then_some(self.client.begun)
    }

    /// For how long the client's next bytes may wait for the upstream from when they began to, if they do, and a number that
    /// differs from one such wait to the next. After that time: [`overdue`](Self::overdue).
    #[must_use]
    pub fn patience(&self) -> Option<(u32, Duration)> {
        let patience = match self.client.state {
            ClientState::AwaitingContinuation => IDLE_PATIENCE,
            ClientState::AwaitingAgreement(_)
            | ClientState::AwaitingLiteral(_)
            | ClientState::Replaying => ANSWER_TIME,
            _ if self.waits_for_logout() => LOGOUT_PATIENCE,
            _ if self.pending.len() >= MAX_PENDING => ANSWER_TIME,
            _ => return None,
        };
        Some((self.client.begun, patience))
    }

    /// The upstream did not say in time what the client's next bytes wait for. Returns whether the session goes on all the same.
    pub fn overdue(&mut self, out: &mut impl Output) -> bool {
        if self.client.state == ClientState::AwaitingContinuation {
            self.client.state = ClientState::Continuing;
        } else if self.waits_for_logout() {
            self.say_goodbye(out);
        } else {
            return self.patience().is_none();
        }
        true
    }

    fn waits_for_logout(&self) -> bool {
        self.keeping.as_ref().is_some_and(|keeping| keeping.logout.is_some())
    }

    /// Whether deltapush, not the upstream, has the tokens.
    fn has_tokens(&self) -> bool {
        !self.upstream.pushes || self.settings.native == Native::Takeover
    }

    /// What is added to capability lists.
    #[must_use]
    pub fn added(&self) -> Added {
        Added { push: self.has_tokens(), compress: self.compression != CompressionState::On }
    }

    /// A whole line as the client shall see it; `None` if it stays as it is.
    #[must_use]
    pub fn rewrite(&self, line: &[u8]) -> Option<Vec<u8>> {
        capability::rewrite(line, self.added(), self.settings.jmapaccess)
            .or_else(|| response::without_referral(line))
    }

    /// Whether deltapush has ended it, and has said so.
    #[must_use]
    #[inline]
    pub fn is_over(&self) -> bool {
        self.closed && !self.is_within_response()
    }

    /// Whether a response has begun and not ended: nothing of deltapush's own may be said now.
    fn is_within_response(&self) -> bool {
        self.server.state != UpstreamState::Head || !self.server.held.is_empty()
    }

    /// Says one response to the client, as soon as no response is under way.
    fn say(&mut self, out: &mut impl Output, response: &[u8]) {
        if self.closed {
            return;
        }
        self.said = self.said.saturating_add(response.len());
        if self.is_within_response() {
            self.own.push(response.to_vec());
        } else {
            self.say_now(out, response);
        }
    }

    fn say_now(&mut self, out: &mut impl Output, lines: &[u8]) {
        out.to_client(lines);
        if let Some(transcript) = out.transcript() {
            transcript.response(Speaker::ToClient, Mark::Own, lines);
        }
    }

    /// Says what had to wait for a response's end.
    fn say_waiting(&mut self, out: &mut impl Output) {
        for response in std::mem::take(&mut self.own) {
            self.say_now(out, &response);
        }
        // Its OK was the last of them: no command was taken since.
        if self.compression == CompressionState::Accepted {
            self.compress(out);
        }
    }
}

/// Shows a piece of a line that is handed on, masked where it is secret.
fn show(out: &mut impl Output, speaker: Speaker, mark: Mark, bytes: &[u8], secret: bool) {
    if let Some(transcript) = out.transcript() {
        show_in(transcript, speaker, mark, bytes, secret);
    }
}

#[cold]
fn show_in(
    transcript: &mut dyn Transcript,
    speaker: Speaker,
    mark: Mark,
    bytes: &[u8],
    secret: bool,
) {
    if secret {
        show_masked(transcript, speaker, mark, bytes);
    } else {
        transcript.piece(speaker, mark, Piece::Text(bytes));
    }
}

/// Shows how long a piece of a line is, and whether it ends the line.
fn show_masked(transcript: &mut dyn Transcript, speaker: Speaker, mark: Mark, bytes: &[u8]) {
    let text = bytes.trim_ascii_end();
    transcript.piece(speaker, mark, Piece::Masked(text.len()));
    if bytes.ends_with(b"\n") {
        transcript.piece(speaker, mark, Piece::Text(b"\r\n"));
    }
}
