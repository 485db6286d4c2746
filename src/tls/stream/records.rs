//! TLS records in memory: rustls with the buffers of its caller, so that an idle connection owns none.
//!
//! Received bytes that were not used belong to the caller, and must come again, unchanged, in front of the bytes that
//! follow: rustls remembers the positions of a message's pieces. After an error no method may be called. Nothing here reads
//! or writes a socket.

use std::sync::Arc;

use tokio_rustls::rustls::client::{ClientConfig, UnbufferedClientConnection};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::server::{ServerConfig, UnbufferedServerConnection};
use tokio_rustls::rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus,
};
use tokio_rustls::rustls::{CommonState, Error};

/// One side of a TLS connection.
pub(super) enum Records {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// The state of a connection once all received whole records are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsState {
    /// In the handshake, which needs more of the peer.
    Handshaking,
    /// Both sides may speak.
    Established,
    /// The peer says no more; we still may.
    PeerClosed,
}

/// The bytes to send.
enum Say<'a> {
    Nothing,
    /// These bytes, sealed into that buffer.
    Data(&'a [u8], &'a mut [u8]),
    /// That nothing more comes.
    Close,
}

/// The outcome of one step.
enum RecordStep {
    /// Something; there may be more.
    Done,
    /// Nothing: the handshake needs more of the peer.
    Blocked,
    /// The peer's last word was heard.
    PeerClosed,
    /// Nothing more was to be done, and what was to be said is said: in so many bytes.
    Said(usize),
    /// Both sides have said their last word.
    Closed,
}

impl Records {
    pub(super) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, Error> {
        UnbufferedClientConnection::new(config, name).map(Self::Client)
    }

    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        UnbufferedServerConnection::new(config).map(Self::Server)
    }

    /// The state that does not depend on the side, such as the negotiated protocol.
    pub(super) fn common(&self) -> &CommonState {
        match self {
            Self::Client(client) => client,
            Self::Server(server) => server,
        }
    }

    /// Uses received bytes, and returns how many of them are used up. Their content goes to `received`; rustls's own answers
    /// are appended to `outgoing`. It is decrypted in place, so `incoming` is for the caller to wipe.
    ///
    /// # Errors
    /// If the peer breaks the protocol, or may not be trusted. The alert for it is in `outgoing`.
    pub(super) fn receive(
        &mut self,
        incoming: &mut [u8],
        received: &mut dyn FnMut(&[u8]),
        outgoing: &mut Vec<u8>,
    ) -> (usize, Result<TlsState, Error>) {
        let mut used = 0_usize;
        let mut standing = TlsState::Established;
        loop {
            let rest = incoming.get_mut(used..).unwrap_or_default();
            let (discard, step) = self.step(rest, received, outgoing, &mut Say::Nothing);
            used = used.saturating_add(discard);
            match step {
                Ok(RecordStep::Done) => {}
                Ok(RecordStep::PeerClosed) => standing = TlsState::PeerClosed,
                Ok(RecordStep::Said(_)) if !self.common().is_handshaking() => {
                    return (used, Ok(standing));
                }
                Ok(RecordStep::Said(_) | RecordStep::Blocked) => {
                    return (used, Ok(TlsState::Handshaking));
                }
                Ok(RecordStep::Closed) => return (used, Ok(TlsState::PeerClosed)),
                Err(error) => {
                    // As long as rustls has something to say about it, it looks at nothing else.
                    while self.common().wants_write() {
                        let rest = incoming.get_mut(used..).unwrap_or_default();
                        if let (_, Err(_)) = self.step(rest, received, outgoing, &mut Say::Nothing)
                        {
                            break;
                        }
                    }
                    return (used, Err(error));
                }
            }
        }
    }

    /// Seals `plain` into `sealed`, and returns how long that is. Messages that rustls sends before it are appended to
    /// `outgoing`. `incoming` is what [`receive`](Self::receive) has left.
    ///
    /// # Errors
    /// If nothing can be said any more.
    pub(super) fn seal(
        &mut self,
        incoming: &mut [u8],
        plain: &[u8],
        sealed: &mut [u8],
        outgoing: &mut Vec<u8>,
    ) -> Result<usize, Error> {
        self.send(incoming, Say::Data(plain, sealed), outgoing)
    }

    /// Appends to `outgoing` that nothing more comes from us. `incoming` is what [`receive`](Self::receive) has left.
    pub(super) fn close(
        &mut self,
        incoming: &mut [u8],
        outgoing: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.send(incoming, Say::Close, outgoing).map(|_| ())
    }

    fn send(
        &mut self,
        incoming: &mut [u8],
        mut say: Say<'_>,
        outgoing: &mut Vec<u8>,
    ) -> Result<usize, Error> {
        let mut surplus = false;
        loop {
            let (discard, step) = self.step(incoming, &mut |_| surplus = true, outgoing, &mut say);
            if surplus || discard > 0 {
                return Err(Error::General("more was received than was used".into()));
            }
            match step? {
                RecordStep::Said(len) => return Ok(len),
                RecordStep::Done | RecordStep::PeerClosed => {}
                RecordStep::Blocked | RecordStep::Closed => {
                    return Err(Error::HandshakeNotComplete);
                }
            }
        }
    }

    fn step(
        &mut self,
        incoming: &mut [u8],
        received: &mut dyn FnMut(&[u8]),
        outgoing: &mut Vec<u8>,
        say: &mut Say<'_>,
    ) -> (usize, Result<RecordStep, Error>) {
        match self {
            Self::Client(client) => {
                step(client.process_tls_records(incoming), received, outgoing, say)
            }
            Self::Server(server) => {
                step(server.process_tls_records(incoming), received, outgoing, say)
            }
        }
    }
}

/// Does what rustls wants next.
fn step<D>(
    status: UnbufferedStatus<'_, '_, D>,
    received: &mut dyn FnMut(&[u8]),
    outgoing: &mut Vec<u8>,
    say: &mut Say<'_>,
) -> (usize, Result<RecordStep, Error>) {
    let mut discard = status.discard;
    let done = match status.state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard = discard.saturating_add(record.discard);
                    received(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(RecordStep::Done),
            }
        },
        Ok(ConnectionState::EncodeTlsData(data)) => {
            encode(data, outgoing).map(|()| RecordStep::Done)
        }
        Ok(ConnectionState::TransmitTlsData(transmit)) => {
            // It is in `outgoing`, and goes before all that comes after it.
            transmit.done();
            Ok(RecordStep::Done)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(RecordStep::Blocked),
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            let said = match say {
                Say::Nothing => Ok(0),
                Say::Data(plain, sealed) => traffic.encrypt(plain, sealed),
                Say::Close => {
                    append(outgoing, |room| traffic.queue_close_notify(room), needed_to_encrypt)
                }
            };
            said.map(RecordStep::Said).map_err(|error| Error::General(error.to_string()))
        }
        Ok(ConnectionState::PeerClosed) => Ok(RecordStep::PeerClosed),
        Ok(ConnectionState::Closed) => Ok(RecordStep::Closed),
        // Early data is not asked for, and never taken.
        Ok(state) => Err(Error::General(format!("unexpected state: {state:?}"))),
        Err(error) => Err(error),
    };
    (discard, done)
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, outgoing: &mut Vec<u8>) -> Result<(), Error> {
    let needed = |error: &EncodeError| match error {
        EncodeError::InsufficientSize(size) => Some(size.required_size),
        EncodeError::AlreadyEncoded => None,
    };
    append(outgoing, |room| data.encode(room), needed)
        .map(|_| ())
        .map_err(|error| Error::General(error.to_string()))
}

fn needed_to_encrypt(error: &EncryptError) -> Option<usize> {
    match error {
        EncryptError::InsufficientSize(size) => Some(size.required_size),
        EncryptError::EncryptExhausted => None,
    }
}

/// Appends what `write` writes. Asked without room, it says how much it needs.
fn append<E>(
    outgoing: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
    needed: impl Fn(&E) -> Option<usize>,
) -> Result<usize, E> {
    let start = outgoing.len();
    let mut written = write(&mut []);
    if let Err(error) = &written
        && let Some(size) = needed(error)
    {
        outgoing.resize(start.saturating_add(size), 0);
        written = write(outgoing.get_mut(start..).unwrap_or_default());
    }
    outgoing.truncate(start.saturating_add(*written.as_ref().unwrap_or(&0)));
    written
}
