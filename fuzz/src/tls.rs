//! `stream::TlsStream` against a peer of plain rustls: what arrives is the beginning of what was said, all of it if nothing broke;
//! what was changed on the way is a fault and never data; what is held is bounded, and nothing when all is said.
//!
//! Keys are random. Nothing depends on them, and every message has the same length each time: no session is resumed, and
//! the certificate's key is of Ed25519, the signatures of which do not vary in length.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};

use deltapush::crypto;
use deltapush::tls::stream::{Hello, TlsStream};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::client::{ClientConfig, ClientConnection, Resumption};
use tokio_rustls::rustls::crypto::aws_lc_rs::kx_group::X25519;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::{ServerConfig, ServerConnection};
use tokio_rustls::rustls::{Connection, RootCertStore, version};

use super::events::{self, events};

/// Limit of the memory of a connection: a message or records not complete, what was decrypted, what waits, each in a vector
/// that grew.
const MAX_HELD: usize = 400 * 1024;

/// rustls takes no more requests for new keys without data between them.
const MAX_KEYS: usize = 32;

/// Bytes of a long output: more than is sealed at once.
const MUCH: usize = 70_000;

struct Configs {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    /// With small records.
    small_client: Arc<ClientConfig>,
    small_server: Arc<ServerConfig>,
}

fn configs(is_new: bool) -> &'static Configs {
    static CONFIGS: OnceLock<[Configs; 2]> = OnceLock::new();
    let [old, new] = CONFIGS.get_or_init(|| {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        let mut params = CertificateParams::new(["a.example".to_owned()]).expect("a name");
        params.serial_number = Some(vec![1].into());
        let certificate = params.self_signed(&key).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).expect("a root");
        // The quickest one: how keys are agreed on is not the matter here.
        let mut provider = (*crypto::provider()).clone();
        provider.kx_groups = vec![X25519];
        let provider = Arc::new(provider);
        [&version::TLS12, &version::TLS13].map(|version| {
            let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[version])
                .expect("a version")
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            client.resumption = Resumption::disabled();
            let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[version])
                .expect("a version")
                .with_no_client_auth()
                .with_single_cert(
                    vec![certificate.der().clone()],
                    PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
                )
                .expect("a pair");
            let (mut small_client, mut small_server) = (client.clone(), server.clone());
            small_client.max_fragment_size = Some(64);
            small_server.max_fragment_size = Some(64);
            Configs {
                client: Arc::new(client),
                server: Arc::new(server),
                small_client: Arc::new(small_client),
                small_server: Arc::new(small_server),
            }
        })
    });
    if is_new { new } else { old }
}

/// The wire between both.
struct Wire {
    /// Sent by the peer, and not here yet.
    under_way: VecDeque<u8>,
    arrived: VecDeque<u8>,
    /// Bytes that are read at once, at most.
    step: usize,
    /// No more arrives.
    is_cut: bool,
    sent: Vec<u8>,
    /// Bytes that are still taken.
    room: usize,
}

impl Wire {
    fn arrive(&mut self, count: usize) {
        if self.is_cut {
            return self.under_way.clear();
        }
        let count = count.min(self.under_way.len());
        self.arrived.extend(self.under_way.drain(..count));
    }
}

#[derive(Clone)]
struct Pipe(Rc<RefCell<Wire>>);

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        let count = wire.step.min(buf.remaining()).min(wire.arrived.len());
        if count == 0 {
            return if wire.is_cut { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        for byte in wire.arrived.drain(..count) {
            buf.put_slice(&[byte]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.0.borrow_mut();
        let count = wire.room.min(buf.len());
        if count == 0 {
            return Poll::Pending;
        }
        wire.room -= count;
        wire.sent.extend_from_slice(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The peer, and what it knows.
struct Peer {
    tls: Connection,
    said: Vec<u8>,
    heard: Vec<u8>,
    has_closed: bool,
    saw_end: bool,
    fault: bool,
}

impl Peer {
    /// Takes all that was sent to it, and sends what it has to say.
    fn go_on(&mut self, wire: &mut Wire) {
        let sent = std::mem::take(&mut wire.sent);
        let mut sent = sent.as_slice();
        while !sent.is_empty() && !self.fault && !self.saw_end {
            self.tls.read_tls(&mut sent).expect("there is room");
            match self.tls.process_new_packets() {
                Ok(state) => self.saw_end = state.peer_has_closed(),
                Err(_) => self.fault = true,
            }
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = self.tls.reader().read(&mut buffer) {
                self.heard.extend_from_slice(&buffer[..read]);
            }
        }
        self.send(wire);
    }

    fn send(&mut self, wire: &mut Wire) {
        let mut said = vec![];
        while self.tls.wants_write() {
            self.tls.write_tls(&mut said).expect("memory");
        }
        wire.under_way.extend(said);
    }

    fn write(&mut self, mut said: &[u8], wire: &mut Wire) {
        while !said.is_empty() && !self.has_closed && !self.fault {
            // As much as rustls takes at once.
            let count = self.tls.writer().write(said).expect("memory");
            assert!(count > 0, "there is room");
            self.said.extend_from_slice(&said[..count]);
            said = &said[count..];
            self.send(wire);
        }
    }
}

pub(crate) fn check(data: &[u8]) {
    let (settings, script) = events::settings(data);
    let setting = |bit: u8| settings & (1 << bit) != 0;
    let configs = configs(setting(1));
    let wire = Wire {
        under_way: VecDeque::new(),
        arrived: VecDeque::new(),
        step: [1, 7, 100, usize::MAX][usize::from(settings >> 3 & 3)],
        is_cut: false,
        sent: vec![],
        room: usize::MAX,
    };
    let pipe = Pipe(Rc::new(RefCell::new(wire)));
    if setting(7) {
        return no_handshake(&pipe, configs, setting(0), script);
    }
    let change = script
        .first_chunk()
        .filter(|_| setting(5))
        .map(|bytes| usize::from(u16::from_be_bytes(*bytes)));
    let name = ServerName::try_from("a.example").expect("a name");
    let tls = if setting(0) {
        let config = if setting(2) { &configs.small_client } else { &configs.client };
        Connection::from(ClientConnection::new(Arc::clone(config), name.clone()).expect("a client"))
    } else {
        let config = if setting(2) { &configs.small_server } else { &configs.server };
        Connection::from(ServerConnection::new(Arc::clone(config)).expect("a server"))
    };
    let mut peer =
        Peer { tls, said: vec![], heard: vec![], has_closed: false, saw_end: false, fault: false };
    let ours = if setting(0) {
        let config = Arc::clone(&configs.server);
        let ours = async { Hello::receive(pipe.clone()).await?.answer(config).await };
        handshake(ours, &pipe, &mut peer, change)
    } else {
        handshake(
            TlsStream::connect(Arc::clone(&configs.client), name, pipe.clone()),
            &pipe,
            &mut peer,
            change,
        )
    };
    match ours {
        Some(Ok(tls)) => {
            let (said, heard, woken) = (vec![], vec![], Arc::default());
            Dialogue {
                pipe,
                tls,
                peer,
                said,
                heard,
                end: None,
                is_doubtful: change.is_some(),
                keys: 0,
                woken,
            }
            .play(script)
        }
        _ => assert!(change.is_some() && peer.heard.is_empty(), "a handshake fails"),
    }
}

/// Until it is done, or both wait; one byte of what the peer says may be changed.
fn handshake<F: Future>(
    ours: F,
    pipe: &Pipe,
    peer: &mut Peer,
    mut change: Option<usize>,
) -> Option<F::Output> {
    let mut ours = pin!(ours);
    for _ in 0..20 {
        let mut wire = pipe.0.borrow_mut();
        peer.go_on(&mut wire);
        if let Some(at) = change {
            let len = wire.under_way.len();
            if let Some(byte) = wire.under_way.get_mut(at) {
                *byte ^= 0x41;
                change = None;
            } else {
                change = Some(at - len);
            }
        }
        wire.arrive(usize::MAX);
        drop(wire);
        if let Poll::Ready(done) = ours.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(done);
        }
    }
    None
}

/// Bytes that are no TLS, or in no order.
fn no_handshake(pipe: &Pipe, configs: &Configs, is_server: bool, said: &[u8]) {
    pipe.0.borrow_mut().arrived.extend(said);
    pipe.0.borrow_mut().is_cut = true;
    let mut cx = Context::from_waker(Waker::noop());
    let polled = if is_server {
        let config = Arc::clone(&configs.server);
        pin!(async { Hello::receive(pipe.clone()).await?.answer(config).await }).poll(&mut cx)
    } else {
        let name = ServerName::try_from("a.example").expect("a name");
        pin!(TlsStream::connect(Arc::clone(&configs.client), name, pipe.clone())).poll(&mut cx)
    };
    assert!(matches!(polled, Poll::Ready(Err(_))), "nobody is there");
}

/// Notes if the stream wants to be asked again although nothing arrives.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Both sides, past the handshake.
struct Dialogue {
    pipe: Pipe,
    tls: TlsStream<Pipe>,
    peer: Peer,
    said: Vec<u8>,
    heard: Vec<u8>,
    /// The end of reading.
    end: Option<Result<(), ErrorKind>>,
    /// The peer's bytes were changed, or are no TLS, or ask too much.
    is_doubtful: bool,
    keys: usize,
    woken: Arc<Woken>,
}

impl Dialogue {
    /// `w`, `W`: we say this, or much of it; `f`: we flush; `p`, `P`: so does the peer; `k`: it takes new keys; `c`, `C`: we or it
    /// end; `r`, `R`: we read once, or all; `a`: of what is under way so much arrives, `A`: all; `b`, `B`: the socket takes so much
    /// more, or anything; `x`: what was sent last is changed; `i`: something else comes; `e`: the line is cut.
    fn play(mut self, script: &[u8]) {
        let mut has_closed = false;
        // The end of the handshake.
        self.peer.go_on(&mut self.pipe.0.borrow_mut());
        for (kind, said) in events(script) {
            match kind {
                b'w' => self.write(said, has_closed),
                b'W' => self.write(&much(said), has_closed),
                b'f' => drop(self.poll(|tls, cx| tls.poll_flush(cx))),
                // rustls asserts, in debug builds, that it never has to complain after its last word: not both.
                b'x' | b'i' if has_closed => {}
                b'c' if self.is_doubtful => {}
                b'c' => {
                    has_closed = true;
                    drop(self.poll(|tls, cx| tls.poll_shutdown(cx)));
                }
                b'r' => drop(self.read(said.len() * 64 + 1)),
                b'R' => self.read_all(said.len() * 64 + 1),
                kind => self.peer_does(kind, said),
            }
            self.peer.go_on(&mut self.pipe.0.borrow_mut());
            self.check();
        }
        self.finish(has_closed);
    }

    fn peer_does(&mut self, kind: u8, said: &[u8]) {
        let mut wire = self.pipe.0.borrow_mut();
        match kind {
            b'p' => self.peer.write(said, &mut wire),
            b'P' => self.peer.write(&much(said), &mut wire),
            b'k' if !self.peer.has_closed && self.peer.tls.refresh_traffic_keys().is_ok() => {
                self.keys += 1;
                self.is_doubtful |= self.keys > MAX_KEYS;
            }
            b'C' => {
                self.peer.has_closed = true;
                self.peer.tls.send_close_notify();
            }
            b'a' => wire.arrive(said.len() * 16 + 1),
            b'A' => wire.arrive(usize::MAX),
            b'b' => wire.room = said.len() * 16,
            b'B' => wire.room = usize::MAX,
            b'x' => {
                if let Some(last) = wire.under_way.back_mut() {
                    *last ^= 1;
                    self.is_doubtful = true;
                }
            }
            b'i' => {
                wire.under_way.extend(said);
                self.is_doubtful = true;
            }
            b'e' => {
                wire.under_way.clear();
                wire.is_cut = true;
            }
            _ => {}
        }
    }

    fn poll<T>(
        &mut self,
        poll: impl FnOnce(Pin<&mut TlsStream<Pipe>>, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let waker = Waker::from(Arc::clone(&self.woken));
        poll(Pin::new(&mut self.tls), &mut Context::from_waker(&waker))
    }

    fn write(&mut self, mut said: &[u8], has_closed: bool) {
        while !said.is_empty() {
            match self.poll(|tls, cx| tls.poll_write(cx, said)) {
                Poll::Ready(Ok(count)) => {
                    assert!(count > 0 && !has_closed, "it gets on");
                    self.said.extend_from_slice(&said[..count]);
                    said = &said[count..];
                }
                Poll::Ready(Err(error)) => {
                    assert!(has_closed || self.is_doubtful, "a write fails: {error}");
                    return;
                }
                Poll::Pending => {
                    return assert!(self.pipe.0.borrow().room == 0, "it waits for nothing");
                }
            }
        }
    }

    /// Reads once; whether something was read, or may be.
    fn read(&mut self, room: usize) -> bool {
        let mut buffer = vec![0; room];
        let mut buffer = ReadBuf::new(&mut buffer);
        let polled = self.poll(|tls, cx| tls.poll_read(cx, &mut buffer));
        let read = buffer.filled();
        assert!(
            read.is_empty() || (self.end.is_none() && matches!(polled, Poll::Ready(Ok(())))),
            "data after the end"
        );
        self.heard.extend_from_slice(read);
        match polled {
            Poll::Ready(Ok(())) if !read.is_empty() => return true,
            Poll::Ready(done) => {
                let end = done.map_err(|error| error.kind());
                assert!(self.end.is_none_or(|before| before == end), "the end is not what it was");
                self.end = Some(end);
            }
            Poll::Pending => {
                let goes_on = self.woken.0.swap(false, Ordering::Relaxed);
                assert!(
                    goes_on || self.pipe.0.borrow().arrived.is_empty(),
                    "it waits for what is there"
                );
                return goes_on;
            }
        }
        false
    }

    fn read_all(&mut self, room: usize) {
        while self.read(room) {}
    }

    fn check(&self) {
        assert!(self.peer.said.starts_with(&self.heard), "we hear what was not said");
        assert!(self.said.starts_with(&self.peer.heard), "the peer hears what was not said");
        assert!(self.tls.held() <= MAX_HELD, "{} bytes are held", self.tls.held());
        assert!(!self.peer.fault || self.is_doubtful, "the peer finds fault");
        match self.end {
            Some(Ok(())) => {
                assert!(self.peer.has_closed && self.heard == self.peer.said, "an end too soon")
            }
            Some(Err(ErrorKind::UnexpectedEof)) => {
                assert!(self.pipe.0.borrow().is_cut, "no one has hung up")
            }
            Some(Err(kind)) => {
                assert!(kind == ErrorKind::InvalidData && self.is_doubtful, "{kind}")
            }
            None => {}
        }
    }

    /// All that waits is sent and read; then both sides end.
    fn finish(mut self, has_closed: bool) {
        self.pipe.0.borrow_mut().room = usize::MAX;
        assert!(self.poll(|tls, cx| tls.poll_flush(cx)).is_ready());
        self.peer.go_on(&mut self.pipe.0.borrow_mut());
        let is_cut = self.pipe.0.borrow().is_cut;
        self.pipe.0.borrow_mut().arrive(usize::MAX);
        self.read_all(4096);
        self.check();
        if self.is_doubtful {
            return;
        }
        assert!(self.peer.heard == self.said, "what was flushed is there");
        assert!(is_cut || self.heard == self.peer.said, "what was said is heard");
        if !is_cut {
            assert!(self.tls.held() == 0, "{} bytes are held for nothing", self.tls.held());
        }
        if !has_closed {
            self.write(b"farewell", false);
        }
        assert!(matches!(self.poll(|tls, cx| tls.poll_shutdown(cx)), Poll::Ready(Ok(()))));
        if !std::mem::replace(&mut self.peer.has_closed, true) {
            self.peer.tls.send_close_notify();
        }
        self.peer.go_on(&mut self.pipe.0.borrow_mut());
        assert!(self.peer.saw_end && self.peer.heard == self.said, "the peer sees the end");
        self.pipe.0.borrow_mut().arrive(usize::MAX);
        self.read_all(4096);
        assert!(self.end.is_some(), "an end is seen");
        self.check();
    }
}

fn much(said: &[u8]) -> Vec<u8> {
    said.iter().copied().cycle().take(MUCH).collect()
}
