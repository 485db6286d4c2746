//! Against tokio-rustls at the other end, over real sockets.

use rustls::pki_types::PrivateKeyDer;
use rustls::{ProtocolVersion, RootCertStore, SupportedProtocolVersion, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::crypto;

struct Configs {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

fn configs(versions: &[&'static SupportedProtocolVersion]) -> Configs {
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], PrivateKeyDer::from(made.signing_key))
        .unwrap();
    Configs { client: Arc::new(client), server: Arc::new(server) }
}

fn name() -> ServerName<'static> {
    "a.example".try_into().unwrap()
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (near, far) = (near.unwrap(), far.unwrap().0);
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    (near, far)
}

async fn answered(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<TlsStream> {
    Hello::receive(tcp).await?.answer(config).await
}

/// We as the client.
async fn client_of(configs: &Configs) -> (TlsStream, tokio_rustls::server::TlsStream<TcpStream>) {
    let (near, far) = sockets().await;
    let acceptor = TlsAcceptor::from(Arc::clone(&configs.server));
    let (near, far) = tokio::join!(
        TlsStream::connect(Arc::clone(&configs.client), name(), near),
        acceptor.accept(far)
    );
    (near.unwrap(), far.unwrap())
}

/// We as the server.
async fn server_of(configs: &Configs) -> (TlsStream, tokio_rustls::client::TlsStream<TcpStream>) {
    let (near, far) = sockets().await;
    let connector = TlsConnector::from(Arc::clone(&configs.client));
    let (near, far) =
        tokio::join!(answered(near, Arc::clone(&configs.server)), connector.connect(name(), far));
    (near.unwrap(), far.unwrap())
}

fn bytes(len: u32) -> Vec<u8> {
    (0..len / 4).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// Writes and reads in pieces of these sizes, and flushes and ends in good order.
async fn exchange(
    ours: (impl AsyncRead + AsyncWrite + Unpin, usize),
    theirs: (impl AsyncRead + AsyncWrite + Unpin, usize),
) {
    async fn side(
        (stream, piece): (impl AsyncRead + AsyncWrite + Unpin, usize),
        said: &[u8],
        expected: &[u8],
    ) {
        let (mut read, mut write) = tokio::io::split(stream);
        let writing = async {
            for piece in said.chunks(piece) {
                write.write_all(piece).await.unwrap();
            }
            write.flush().await.unwrap();
            write.shutdown().await.unwrap();
        };
        let reading = async {
            let (mut heard, mut buffer) = (Vec::new(), vec![0; piece]);
            loop {
                match read.read(&mut buffer).await.unwrap() {
                    0 => break,
                    read => heard.extend_from_slice(&buffer[..read]),
                }
            }
            assert!(heard == expected, "{} bytes came, {} were said", heard.len(), expected.len());
        };
        tokio::join!(writing, reading);
    }
    let (up, down) = (bytes(3_000_000), bytes(2_000_000));
    tokio::join!(side(ours, &up, &down), side(theirs, &down, &up));
}

#[tokio::test]
async fn bytes_and_the_end_arrive_in_any_chunking() {
    for (version, expected) in
        [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        let configs = configs(&[version]);
        for pieces in [(700, 100_000), (64 * 1024, 5000), (200_000, 64 * 1024)] {
            let (ours, theirs) = client_of(&configs).await;
            assert_eq!(ours.agreed().protocol_version(), Some(expected));
            exchange((ours, pieces.0), (theirs, pieces.1)).await;
            let (ours, theirs) = server_of(&configs).await;
            exchange((ours, pieces.0), (theirs, pieces.1)).await;
        }
    }
}

/// Hands on byte by byte.
async fn dribble(from: TcpStream, to: TcpStream) {
    async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut buffer = vec![0; 4096];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            for byte in &buffer[..read] {
                to.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
        let _ = to.shutdown().await;
    }
    let ((read, write), (far_read, far_write)) = (from.into_split(), to.into_split());
    tokio::join!(one_way(read, far_write), one_way(far_read, write));
}

#[tokio::test]
async fn records_may_come_byte_by_byte() {
    for version in [&version::TLS12, &version::TLS13] {
        for fragment in [None, Some(50)] {
            dribbled(version, fragment).await;
        }
    }
}

/// With small records, messages of the handshake and tickets after it are spread over several.
async fn dribbled(version: &'static SupportedProtocolVersion, fragment: Option<usize>) {
    let Configs { client, server } = configs(&[version]);
    let (mut client, mut server) = (ClientConfig::clone(&client), ServerConfig::clone(&server));
    client.max_fragment_size = fragment;
    server.max_fragment_size = fragment;
    let configs = Configs { client: Arc::new(client), server: Arc::new(server) };
    let ((near, middle), (other, far)) = (sockets().await, sockets().await);
    tokio::spawn(dribble(middle, other));
    // Both ends are ours: each has to put records together.
    let (client, server) = tokio::join!(
        TlsStream::connect(Arc::clone(&configs.client), name(), near),
        answered(far, Arc::clone(&configs.server))
    );
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    // The server's first words come behind its tickets; meanwhile the client speaks.
    server.write_all(b"hello").await.unwrap();
    let said = bytes(20_000);
    let (mut heard, mut spoken) = (Vec::new(), 0);
    while heard.len() < 5 {
        let mut byte = [0];
        tokio::select! {
            biased;
            read = client.read(&mut byte) => {
                assert_eq!(read.unwrap(), 1);
                heard.push(byte[0]);
            }
            () = tokio::task::yield_now() => {
                client.write_all(b"+").await.unwrap();
                spoken += 1;
            }
        }
    }
    assert_eq!(heard, b"hello");
    client.write_all(&said).await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = Vec::new();
    server.read_to_end(&mut heard).await.unwrap();
    assert!(heard == [b"+".repeat(spoken).as_slice(), &said].concat());
    server.write_all(b"and back").await.unwrap();
    server.shutdown().await.unwrap();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"and back");
}

#[tokio::test]
async fn one_that_is_idle_owns_no_buffer() {
    let configs = configs(rustls::ALL_VERSIONS);
    let (mut ours, mut theirs) = client_of(&configs).await;
    for _ in 0..3 {
        let said = bytes(300_000);
        tokio::join!(async { theirs.write_all(&said).await.unwrap() }, async {
            ours.read_exact(&mut vec![0; 300_000]).await.unwrap();
        });
        let said = bytes(300_000);
        tokio::join!(async { ours.write_all(&said).await.unwrap() }, async {
            theirs.read_exact(&mut vec![0; 300_000]).await.unwrap();
        });
        ours.flush().await.unwrap();
        assert_eq!(ours.held(), 0);
    }
}

#[tokio::test]
async fn nothing_that_was_said_stays_in_the_threads_buffer() {
    let configs = configs(rustls::ALL_VERSIONS);
    let (mut ours, mut theirs) = server_of(&configs).await;
    theirs.write_all(b"a1 LOGIN alice sesame\r\n").await.unwrap();
    ours.read_exact(&mut [0; 23]).await.unwrap();
    SCRATCH_BUFFER
        .with_borrow(|scratch| assert!(!scratch.windows(6).any(|window| window == b"sesame")));
}

#[tokio::test]
async fn peeked_bytes_are_still_there() {
    let configs = configs(rustls::ALL_VERSIONS);
    let (mut ours, mut theirs) = server_of(&configs).await;
    let said = bytes(10_000);
    theirs.write_all(&said).await.unwrap();
    for _ in 0..2 {
        let seen = ours.peek().await.unwrap();
        assert!(!seen.is_empty() && said.starts_with(seen));
    }
    let mut heard = vec![0; 10_000];
    ours.read_exact(&mut heard).await.unwrap();
    assert!(heard == said && ours.received.capacity() == 0);
    theirs.shutdown().await.unwrap();
    assert!(ours.peek().await.unwrap().is_empty());
}

#[tokio::test]
async fn keys_may_be_renewed_by_either_side() {
    let configs = configs(&[&version::TLS13]);
    let (mut ours, mut theirs) = client_of(&configs).await;
    for _ in 0..3 {
        theirs.get_mut().1.refresh_traffic_keys().unwrap();
        theirs.write_all(b"news").await.unwrap();
        let mut heard = [0; 4];
        ours.read_exact(&mut heard).await.unwrap();
        // With this goes the answer, which asks for our keys to be renewed as well.
        ours.write_all(&heard).await.unwrap();
        theirs.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"news");
    }
}

#[tokio::test]
async fn end_without_close_notify_is_distinguished() {
    let configs = configs(rustls::ALL_VERSIONS);
    let (mut ours, theirs) = server_of(&configs).await;
    let (mut tcp, _) = theirs.into_inner();
    tcp.shutdown().await.unwrap();
    let error = ours.read(&mut [0; 10]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);

    let (mut ours, mut theirs) = server_of(&configs).await;
    theirs.shutdown().await.unwrap();
    for _ in 0..2 {
        assert_eq!(ours.read(&mut [0; 10]).await.unwrap(), 0);
    }
    // It may still be told something.
    ours.write_all(b"bye").await.unwrap();
    ours.shutdown().await.unwrap();
    let mut heard = Vec::new();
    theirs.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"bye");
}

#[tokio::test]
async fn input_that_is_no_record_ends_the_connection_with_an_alert() {
    let configs = configs(rustls::ALL_VERSIONS);
    let (mut ours, theirs) = server_of(&configs).await;
    let (mut tcp, mut tls) = theirs.into_inner();
    tcp.write_all(&[23, 3, 3, 0, 40]).await.unwrap();
    tcp.write_all(&[7; 40]).await.unwrap();
    let error = ours.read(&mut [0; 10]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(ours.read(&mut [0; 10]).await.is_err(), "it does not come back");
    drop(ours);
    let mut said = Vec::new();
    tcp.read_to_end(&mut said).await.unwrap();
    let mut said = said.as_slice();
    let heard = loop {
        assert!(tls.read_tls(&mut said).unwrap() > 0, "no alert came");
        if let Err(error) = tls.process_new_packets() {
            break error;
        }
    };
    assert_eq!(heard, rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
}

/// Writes until the socket takes no more.
async fn fill(stream: &mut (impl AsyncWrite + Unpin)) {
    let said = bytes(64 * 1024);
    // A socket that was full a moment ago may have moved on to the other end.
    for _ in 0..100 {
        while poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_write(cx, &said).is_ready()))
            .await
        {}
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn bytes_of_a_peer_that_takes_nothing_any_more_are_read() {
    let configs = configs(rustls::ALL_VERSIONS);
    let (mut ours, mut theirs) = client_of(&configs).await;
    fill(&mut ours).await;
    theirs.write_all(b"* BYE").await.unwrap();
    // With what we said unread, it resets the connection.
    drop(theirs);
    ours.tcp.ready(tokio::io::Interest::WRITABLE).await.unwrap();
    let mut heard = [0; 5];
    ours.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"* BYE");
    assert!(ours.read(&mut heard).await.is_err());
    assert!(ours.write_all(b"anybody there?").await.is_err());
}

#[derive(Default)]
struct Woken(std::sync::atomic::AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

#[tokio::test]
async fn one_that_waits_to_write_is_woken_although_another_reads() {
    let configs = configs(rustls::ALL_VERSIONS);
    let (mut ours, mut theirs) = client_of(&configs).await;
    fill(&mut ours).await;
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(Pin::new(&mut ours).poll_flush(&mut Context::from_waker(&waker)).is_pending());
    // The reader is now the one that the socket knows of.
    let reading = tokio::spawn(async move {
        let mut heard = [0; 4];
        ours.read_exact(&mut heard).await.unwrap();
        (ours, heard)
    });
    let mut buffer = vec![0; 64 * 1024];
    while !woken.0.load(std::sync::atomic::Ordering::SeqCst) {
        assert!(theirs.read(&mut buffer).await.unwrap() > 0);
    }
    theirs.write_all(b"done").await.unwrap();
    assert_eq!(&reading.await.unwrap().1, b"done");
}

#[tokio::test]
async fn after_the_last_word_nothing_can_be_said() {
    let configs = configs(rustls::ALL_VERSIONS);
    let (mut ours, mut theirs) = server_of(&configs).await;
    ours.shutdown().await.unwrap();
    assert_eq!(ours.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    theirs.write_all(b"still here").await.unwrap();
    let mut heard = [0; 10];
    ours.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still here");
}

#[tokio::test]
async fn bytes_before_a_fault_are_read_before_it() {
    for version in [&version::TLS12, &version::TLS13] {
        let configs = configs(&[version]);
        let (mut ours, theirs) = server_of(&configs).await;
        let (mut tcp, mut tls) = theirs.into_inner();
        io::Write::write_all(&mut tls.writer(), b"hello").unwrap();
        let mut said = Vec::new();
        tls.write_tls(&mut said).unwrap();
        said.extend_from_slice(&[23, 3, 3, 0, 40]);
        said.extend_from_slice(&[7; 40]);
        tcp.write_all(&said).await.unwrap();
        let mut heard = [0; 10];
        assert_eq!(ours.read(&mut heard).await.unwrap(), 5);
        assert!(heard.starts_with(b"hello"));
        for _ in 0..2 {
            let error = ours.read(&mut heard).await.unwrap_err();
            assert!(
                error.kind() == io::ErrorKind::InvalidData && error.to_string().contains("decrypt"),
                "{error}"
            );
        }
        assert!(ours.write(b"?").await.is_err());
    }
}

#[tokio::test]
async fn data_and_the_end_in_one_piece_are_both_seen_and_nothing_is_kept_of_what_follows() {
    for version in [&version::TLS12, &version::TLS13] {
        let configs = configs(&[version]);
        let (mut ours, theirs) = server_of(&configs).await;
        let (mut tcp, mut tls) = theirs.into_inner();
        io::Write::write_all(&mut tls.writer(), b"hello").unwrap();
        tls.send_close_notify();
        let mut said = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut said).unwrap();
        }
        said.extend_from_slice(&[7; 1000]);
        tcp.write_all(&said).await.unwrap();
        let mut heard = Vec::new();
        ours.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"hello");
        assert_eq!(ours.held(), 0);
    }
}

#[tokio::test]
async fn sessions_are_resumed_on_both_sides() {
    for version in [&version::TLS12, &version::TLS13] {
        let made = configs(&[version]);
        for round in 0..2 {
            let expected = if round == 0 {
                rustls::HandshakeKind::Full
            } else {
                rustls::HandshakeKind::Resumed
            };
            let (near, far) = sockets().await;
            let (client, server) = tokio::join!(
                TlsStream::connect(Arc::clone(&made.client), name(), near),
                answered(far, Arc::clone(&made.server))
            );
            let (mut client, mut server) = (client.unwrap(), server.unwrap());
            assert_eq!(client.agreed().handshake_kind(), Some(expected));
            assert_eq!(server.agreed().handshake_kind(), Some(expected));
            // Behind its tickets.
            server.write_all(b"hello").await.unwrap();
            client.read_exact(&mut [0; 5]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn floods_of_new_keys_end_with_a_fault_and_grow_nothing() {
    let configs = configs(&[&version::TLS13]);
    let (mut ours, theirs) = server_of(&configs).await;
    let (mut tcp, mut tls) = theirs.into_inner();
    let mut said = Vec::new();
    for _ in 0..40 {
        tls.refresh_traffic_keys().unwrap();
        while tls.wants_write() {
            tls.write_tls(&mut said).unwrap();
        }
    }
    tcp.write_all(&said).await.unwrap();
    let error = ours.read(&mut [0; 10]).await.unwrap_err();
    assert!(error.to_string().contains("TooManyKeyUpdateRequests"), "{error}");
    assert!(ours.outgoing.len() < 1000 && ours.incoming.is_empty());
}

#[tokio::test]
async fn new_keys_that_are_asked_for_again_and_again_pile_up_nothing() {
    let configs = configs(&[&version::TLS13]);
    let (mut ours, mut theirs) = server_of(&configs).await;
    for _ in 0..500 {
        theirs.get_mut().1.refresh_traffic_keys().unwrap();
        theirs.write_all(b"x").await.unwrap();
        ours.read_exact(&mut [0]).await.unwrap();
        assert!(ours.outgoing.is_empty(), "one answer is enough, with what is said next");
    }
    // It has room before as much as can be said at once.
    let said = bytes(64 * 1024);
    let mut heard = vec![0; said.len()];
    let (written, read) = tokio::join!(ours.write(&said), theirs.read_exact(&mut heard));
    assert_eq!(written.unwrap(), said.len());
    read.unwrap();
    assert!(heard == said);
}

#[tokio::test]
async fn nothing_is_said_after_the_last_word() {
    let configs = configs(rustls::ALL_VERSIONS);
    let (mut ours, mut theirs) = client_of(&configs).await;
    let said = bytes(64 * 1024);
    let mut len = 0;
    // Until the socket takes no more, so that the last word has to wait.
    while let Some(written) = futures_util::FutureExt::now_or_never(ours.write(&said)) {
        len += written.unwrap();
    }
    assert!(futures_util::FutureExt::now_or_never(ours.shutdown()).is_none(), "it waits");
    let reading = async {
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap();
        heard.len()
    };
    let writing = async {
        let error = ours.write(b"more").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        ours.shutdown().await.unwrap();
    };
    assert_eq!(tokio::join!(reading, writing).0, len);
}

#[tokio::test]
async fn connection_ended_with_the_handshake_leaves_nothing_behind() {
    let configs = configs(&[&version::TLS13]);
    let (mut near, far) = sockets().await;
    let mut tls = rustls::ClientConnection::new(Arc::clone(&configs.client), name()).unwrap();
    let peer = async {
        loop {
            let mut said = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut said).unwrap();
            }
            if !tls.is_handshaking() {
                tls.send_close_notify();
                tls.write_tls(&mut said).unwrap();
                said.extend_from_slice(&[7; 1000]);
                near.write_all(&said).await.unwrap();
                return near;
            }
            near.write_all(&said).await.unwrap();
            let mut heard = vec![0; 4096];
            let count = near.read(&mut heard).await.unwrap();
            tls.read_tls(&mut &heard[..count]).unwrap();
            tls.process_new_packets().unwrap();
        }
    };
    let (server, _peer) = tokio::join!(answered(far, Arc::clone(&configs.server)), peer);
    let mut server = server.unwrap();
    assert_eq!(server.incoming.capacity(), 0);
    assert_eq!(server.read(&mut [0; 10]).await.unwrap(), 0);
}

#[tokio::test]
async fn untrusted_certificate_is_reported() {
    let (ours, others) = (configs(rustls::ALL_VERSIONS), configs(rustls::ALL_VERSIONS));
    let (near, far) = sockets().await;
    let acceptor = TlsAcceptor::from(Arc::clone(&others.server));
    let (near, far) =
        tokio::join!(TlsStream::connect(ours.client, name(), near), acceptor.accept(far));
    let near = near.unwrap_err();
    assert!(
        near.kind() == io::ErrorKind::InvalidData && near.to_string().contains("certificate"),
        "{near}"
    );
    let far = far.unwrap_err().to_string();
    assert!(far.contains("received fatal alert"), "{far}");

    // And as a server, by a client.
    let (near, far) = sockets().await;
    let connector = TlsConnector::from(others.client);
    let (near, far) = tokio::join!(answered(near, ours.server), connector.connect(name(), far));
    assert!(near.unwrap_err().to_string().contains("received fatal alert"));
    far.unwrap_err();
}

#[tokio::test]
async fn input_that_is_no_hello_is_answered_with_an_alert() {
    let (near, mut far) = sockets().await;
    far.write_all(b"a1 LOGIN alice sesame\r\n").await.unwrap();
    let error = Hello::receive(near).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let mut heard = Vec::new();
    far.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard.first(), Some(&21), "an alert: {heard:?}");

    // And one that ends too soon.
    let (near, far) = sockets().await;
    drop(far);
    assert_eq!(
        Hello::receive(near).await.map(|_| ()).unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
}

#[test]
fn connection_is_small() {
    // Twice in each session. Most of it is rustls's; a quarter above what it is, because layouts are the compiler's.
    assert!(size_of::<TlsStream>() <= 1750, "{}", size_of::<TlsStream>());
}
