//! The relay over real sockets: ends, silences, peers that do not read.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::proxy::session::{SessionSettings, UpstreamTraits};
use crate::proxy::{session_log, turn};
use crate::secret::DeviceToken;
use crate::trace::Tracer;

/// An account that does what it is asked, in a moment.
struct Willing {
    requests: Arc<Mutex<Vec<Request>>>,
    /// Bytes in both directions.
    relayed: Arc<AtomicUsize>,
}

impl SessionServices for Willing {
    fn tokens(&self) -> Vec<DeviceToken> {
        Vec::new()
    }
    fn push_status(&self) -> String {
        String::new()
    }
    fn idles_in(&self, _: &str) {}
    fn fetches(&self) {}
    fn relayed(&self, _: Direction, bytes: usize) {
        self.relayed.fetch_add(bytes, Ordering::Relaxed);
    }

    fn perform(&self, request: Request) -> Performed {
        self.requests.lock().unwrap().push(request);
        Box::pin(async {
            sleep(Duration::from_millis(100)).await;
            true.into()
        })
    }
}

/// A relay under way, and the far ends of its two connections.
pub(super) struct RelayScene {
    pub(super) client: TcpStream,
    pub(super) upstream: TcpStream,
    stop: CancellationToken,
    pub(super) relay: JoinHandle<RelayEnd>,
    requests: Arc<Mutex<Vec<Request>>>,
    relayed: Arc<AtomicUsize>,
}

pub(super) async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (far, near) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (far.unwrap(), near.unwrap().0)
}

pub(super) async fn scene(idle_time: Duration) -> RelayScene {
    scene_with(idle_time, None).await
}

async fn scene_with(idle_time: Duration, keepalive: Option<Duration>) -> RelayScene {
    let ((client, near_client), (upstream, near_upstream)) = tokio::join!(pair(), pair());
    let settings =
        SessionSettings { keepalive, command_time: COMMAND_TIME, ..session_log::settings() };
    let session = Session::new(Arc::new(settings), UpstreamTraits::default());
    let (requests, relayed) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let account = Willing { requests: Arc::clone(&requests), relayed: Arc::clone(&relayed) };
    let streams = (Stream::Plain(near_client), Stream::Plain(near_upstream));
    let bounds = Bounds { buffer: 64 * 1024, idle_time };
    let trace = Tracer::default().client(1);
    let relay = Box::new(Relay::new(session, streams, account, trace, bounds));
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let beginning = Preread {
        client: vec![],
        answer: b"a OK in\r\n".to_vec(),
        upstream: b"* 1 EXISTS\r\n".to_vec(),
    };
    let relay = tokio::spawn(async move { relay.run(beginning, &stopped).await });
    let mut scene = RelayScene { client, upstream, stop, relay, requests, relayed };
    assert_eq!(read(&mut scene.client, 21).await, "a OK in\r\n* 1 EXISTS\r\n");
    scene
}

pub(super) const LONG: Duration = Duration::from_secs(1800);
const COMMAND_TIME: Duration = Duration::from_secs(30);

pub(super) async fn read(stream: &mut TcpStream, len: usize) -> String {
    let mut bytes = vec![0; len];
    within(stream.read_exact(&mut bytes)).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

pub(super) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    within(stream.read_to_string(&mut text)).await.unwrap();
    text
}

pub(super) async fn within<T>(event: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), event).await.expect("nothing happens")
}

#[tokio::test]
async fn client_that_closes_its_side_hears_the_rest() {
    let mut scene = scene(LONG).await;
    scene.client.write_all(b"b LOGOUT\r\n").await.unwrap();
    scene.client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut scene.upstream).await, "b LOGOUT\r\n");
    scene.upstream.write_all(b"* BYE\r\nb OK\r\n").await.unwrap();
    scene.upstream.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut scene.client).await, "* BYE\r\nb OK\r\n");
    assert!(matches!(within(scene.relay).await.unwrap(), RelayEnd::LoggedOut));
}

#[tokio::test]
async fn end_after_a_logout_is_no_fault_of_the_server() {
    let mut scene = scene(LONG).await;
    scene.client.write_all(b"b LOGOUT\r\n").await.unwrap();
    assert_eq!(read(&mut scene.upstream, 10).await, "b LOGOUT\r\n");
    scene.upstream.write_all(b"* BYE\r\nb OK\r\n").await.unwrap();
    drop(scene.upstream);
    assert_eq!(read_to_end(&mut scene.client).await, "* BYE\r\nb OK\r\n");
    assert!(matches!(within(scene.relay).await.unwrap(), RelayEnd::LoggedOut));
}

#[tokio::test]
async fn bytes_that_wait_for_the_server_are_sent_before_the_close() {
    let mut scene = scene(LONG).await;
    scene.client.write_all(b"b APPEND x {3}\r\nabc\r\n").await.unwrap();
    scene.client.shutdown().await.unwrap();
    assert_eq!(read(&mut scene.upstream, 16).await, "b APPEND x {3}\r\n");
    scene.upstream.write_all(b"+ go\r\n").await.unwrap();
    assert_eq!(read_to_end(&mut scene.upstream).await, "abc\r\n");
}

#[tokio::test]
async fn upstream_that_goes_is_announced() {
    let mut scene = scene(LONG).await;
    scene.upstream.write_all(b"* 2 EXISTS\r\n").await.unwrap();
    scene.upstream.shutdown().await.unwrap();
    let said = read_to_end(&mut scene.client).await;
    assert_eq!(
        said,
        "* 2 EXISTS\r\n* BYE [UNAVAILABLE] The mail server closed the connection. Your app connects again by itself.\r\n"
    );
    assert!(matches!(within(scene.relay).await.unwrap(), RelayEnd::Upstream(None)));
}

#[tokio::test]
async fn silence_ends_in_words_and_so_does_a_shutdown() {
    let mut silent = scene(Duration::from_millis(200)).await;
    assert_eq!(
        read_to_end(&mut silent.client).await,
        "* BYE Nothing was sent for too long. Your app connects again by itself.\r\n"
    );
    assert!(matches!(within(silent.relay).await.unwrap(), RelayEnd::Idle));
    let mut stopped = scene(LONG).await;
    stopped.stop.cancel();
    assert_eq!(
        read_to_end(&mut stopped.client).await,
        "* BYE [UNAVAILABLE] Deltapush is restarting. Your app connects again by itself.\r\n"
    );
    assert!(matches!(within(stopped.relay).await.unwrap(), RelayEnd::Shutdown));
}

#[tokio::test]
async fn request_is_done_and_answered() {
    let mut scene = scene(LONG).await;
    scene
        .client
        .write_all(b"b SETMETADATA INBOX (/private/devicetoken \"t\")\r\nc NOOP\r\n")
        .await
        .unwrap();
    assert_eq!(read(&mut scene.client, 28).await, "b OK SETMETADATA completed\r\n");
    assert_eq!(read(&mut scene.upstream, 8).await, "c NOOP\r\n");
    assert_eq!(scene.requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn client_that_does_not_read_is_not_read_from() {
    let scene = scene(LONG).await;
    let (_reader, mut writer) = scene.client.into_split();
    // Each line is answered by deltapush itself, and nobody reads the answers.
    let lines = "b COMPRESS X\r\n".repeat(10_000);
    let writing = async {
        for _ in 0..1000 {
            writer.write_all(lines.as_bytes()).await.unwrap();
        }
    };
    let refused = timeout(Duration::from_millis(1500), writing).await;
    assert!(refused.is_err(), "140 MB were taken");
}

#[tokio::test]
async fn upstream_that_does_not_read_still_says_its_last_words() {
    let mut scene = scene(LONG).await;
    let writing = timeout(Duration::from_millis(500), async {
        loop {
            scene.client.write_all(&[b'x'; 65536]).await.unwrap();
        }
    });
    assert!(writing.await.is_err());
    scene.upstream.write_all(b"* BYE too much\r\n").await.unwrap();
    drop(scene.upstream);
    let mut said = vec![0; 16];
    within(scene.client.read_exact(&mut said)).await.unwrap();
    assert_eq!(said, b"* BYE too much\r\n");
}

const KEEPALIVE: Duration = Duration::from_secs(290);

/// Time for which Delta Chat waits for a byte.
const PATIENCE: Duration = Duration::from_secs(300);

/// A client in IDLE.
async fn idling(idle_time: Duration, keepalive: Option<Duration>) -> RelayScene {
    let mut scene = scene_with(idle_time, keepalive).await;
    scene.client.write_all(b"b IDLE\r\n").await.unwrap();
    scene.upstream.read_exact(&mut [0; 8]).await.unwrap();
    scene.upstream.write_all(b"+ idling\r\n").await.unwrap();
    assert_eq!(receive(&mut scene.client).await, "+ idling\r\n");
    scene
}

/// The next bytes, whenever they come. Virtual time goes on in small steps, each with a moment of real time: a jump to the
/// relay's next timer would overtake what is still on its way through the system.
async fn receive(stream: &mut TcpStream) -> String {
    let mut bytes = [0; 256];
    loop {
        sleep(Duration::from_secs(1)).await;
        std::thread::sleep(Duration::from_millis(1));
        match stream.try_read(&mut bytes) {
            Ok(len) => return String::from_utf8_lossy(&bytes[..len]).into_owned(),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn done_reaches_a_server_that_never_answered_idle() {
    let mut scene = scene_with(LONG, None).await;
    scene.client.write_all(b"b IDLE\r\nDONE\r\n").await.unwrap();
    scene.upstream.read_exact(&mut [0; 8]).await.unwrap();
    scene.upstream.write_all(b"* OK idling, in other words\r\n").await.unwrap();
    let began = Instant::now();
    assert_eq!(receive(&mut scene.upstream).await, "DONE\r\n");
    assert!(began.elapsed() <= Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(receive(&mut scene.client).await, "* OK idling, in other words\r\n");
    scene.upstream.write_all(b"b OK done\r\n").await.unwrap();
    assert_eq!(receive(&mut scene.client).await, "b OK done\r\n");
}

#[tokio::test(start_paused = true)]
async fn server_that_says_nothing_of_a_literal_ends_the_session_in_words() {
    let mut scene = scene_with(LONG, None).await;
    scene.client.write_all(b"b APPEND x {4}\r\n").await.unwrap();
    scene.upstream.read_exact(&mut [0; 16]).await.unwrap();
    let began = Instant::now();
    assert_eq!(
        receive(&mut scene.client).await,
        "* BYE [UNAVAILABLE] The mail server did not answer in time. Your app connects again by itself.\r\n"
    );
    assert!(began.elapsed() <= Duration::from_secs(310), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn idling_client_hears_from_deltapush_as_often_as_it_needs() {
    let mut scene = idling(LONG, Some(KEEPALIVE)).await;
    for _ in 0..3 {
        let began = Instant::now();
        assert_eq!(receive(&mut scene.client).await, "* OK Still here\r\n");
        let pause = began.elapsed();
        assert!(pause >= KEEPALIVE - Duration::from_secs(10) && pause < PATIENCE, "{pause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn server_that_speaks_every_two_minutes_is_heard_every_five() {
    let mut scene = idling(LONG, Some(KEEPALIVE)).await;
    let (mut server, began) = (scene.upstream, Instant::now());
    let talking = tokio::spawn(async move {
        for _ in 0..10 {
            sleep(Duration::from_secs(120)).await;
            server.write_all(b"* OK Still here\r\n").await.unwrap();
        }
        server
    });
    let mut heard = 0;
    while began.elapsed() < Duration::from_secs(1100) {
        assert_eq!(receive(&mut scene.client).await, "* OK Still here\r\n");
        heard += 1;
    }
    assert_eq!(heard, 4, "in 4 times 290 s");
    // News puts the next one off.
    let mut server = talking.await.unwrap();
    server.write_all(b"* 2 EXISTS\r\n").await.unwrap();
    while receive(&mut scene.client).await != "* 2 EXISTS\r\n" {}
    let began = Instant::now();
    assert_eq!(receive(&mut scene.client).await, "* OK Still here\r\n");
    assert!(began.elapsed() >= KEEPALIVE - Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn own_lines_do_not_keep_a_dead_session_alive() {
    let mut scene = idling(Duration::from_secs(1000), Some(KEEPALIVE)).await;
    let began = Instant::now();
    for _ in 0..3 {
        assert_eq!(receive(&mut scene.client).await, "* OK Still here\r\n");
    }
    assert_eq!(
        receive(&mut scene.client).await,
        "* BYE Nothing was sent for too long. Your app connects again by itself.\r\n"
    );
    assert!(began.elapsed() < Duration::from_secs(1020), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn outside_idle_nothing_is_added() {
    let mut scene = idling(Duration::from_secs(1000), Some(KEEPALIVE)).await;
    scene.client.write_all(b"DONE\r\n").await.unwrap();
    assert_eq!(
        receive(&mut scene.client).await,
        "* BYE Nothing was sent for too long. Your app connects again by itself.\r\n"
    );
    let mut scene = idling(Duration::from_secs(1000), None).await;
    assert_eq!(
        receive(&mut scene.client).await,
        "* BYE Nothing was sent for too long. Your app connects again by itself.\r\n"
    );
}

#[tokio::test(start_paused = true)]
async fn client_that_takes_nothing_gets_no_keepalives_on_top() {
    let mut scene = idling(LONG, Some(Duration::from_secs(1))).await;
    let news = "* 1 FETCH (FLAGS (\\Seen))\r\n".repeat(200_000);
    let mut server = scene.upstream;
    let flood = tokio::spawn(async move {
        let _ = server.write_all(news.as_bytes()).await;
        server
    });
    sleep(Duration::from_secs(600)).await;
    let mut got = vec![];
    while got.len() < 5_200_000 {
        let read = scene.client.read_buf(&mut got).await.unwrap();
        assert!(read > 0);
    }
    let said = String::from_utf8_lossy(&got).matches("* OK Still here").count();
    assert!(said < 5, "{said} in 600 s in which nothing was taken");
    drop(flood);
}

#[tokio::test(start_paused = true)]
async fn keepalive_finds_out_that_the_client_is_gone() {
    let scene = idling(LONG, Some(KEEPALIVE)).await;
    let began = Instant::now();
    // Gone with unread data: the next bytes are answered by a reset.
    scene.client.set_zero_linger().unwrap();
    drop(scene.client);
    scene.relay.await.unwrap();
    assert!(began.elapsed() <= KEEPALIVE * 2, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn command_that_is_held_must_come_to_its_end() {
    for begun in ["b", "b GETMETADATA", "b GETMETADATA \"\" {9}\r\n"] {
        let mut scene = scene(LONG).await;
        scene.client.write_all(begun.as_bytes()).await.unwrap();
        let begin = Instant::now();
        let mut text = String::new();
        for _ in 0..1000 {
            let more =
                timeout(Duration::from_secs(1), scene.client.read_to_string(&mut text)).await;
            if more.is_ok() {
                break;
            }
            scene.client.write_all(b"x").await.unwrap();
        }
        assert!(
            text.ends_with(
                "* BYE A command took too long to arrive. Your app connects again by itself.\r\n"
            ),
            "{begun:?}: {text:?}"
        );
        assert!(
            begin.elapsed() >= COMMAND_TIME && begin.elapsed() < COMMAND_TIME * 2,
            "{:?}",
            begin.elapsed()
        );
        assert!(matches!(scene.relay.await.unwrap(), RelayEnd::SlowCommand));
    }
}

#[tokio::test(start_paused = true)]
async fn command_that_streams_through_and_one_after_another_may_take_their_time() {
    let mut scene = scene(LONG).await;
    // Each time the beginning of one is held, but never the same for long.
    scene.client.write_all(b"c").await.unwrap();
    for _ in 0..100 {
        scene.client.write_all(b"c NOOP\r\nc").await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    scene.client.write_all(b"c APPEND INBOX {1000+}\r\n").await.unwrap();
    for _ in 0..1000 {
        scene.client.write_all(b"x").await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    assert!(!scene.relay.is_finished());
}

#[tokio::test(start_paused = true)]
async fn command_does_not_take_too_long_while_the_server_holds_up_the_word_to_go_on() {
    let mut scene = scene(LONG).await;
    scene.upstream.write_all(b"* 1 FETCH (BODY[] {9}\r\n").await.unwrap();
    assert_eq!(receive(&mut scene.client).await, "* 1 FETCH (BODY[] {9}\r\n");
    scene.client.write_all(b"b GETMETADATA \"\" {9}\r\n").await.unwrap();
    for piece in ["abc", "def", "ghi"] {
        scene.upstream.write_all(piece.as_bytes()).await.unwrap();
        assert_eq!(receive(&mut scene.client).await, piece);
        sleep(COMMAND_TIME).await;
    }
    scene.upstream.write_all(b")\r\n").await.unwrap();
    assert_eq!(receive(&mut scene.client).await, ")\r\n+ OK\r\n");
    // Now it is the client's turn.
    sleep(COMMAND_TIME / 2).await;
    scene.client.write_all(b"/shared/x").await.unwrap();
    assert_eq!(
        receive(&mut scene.client).await,
        "* BYE A command took too long to arrive. Your app connects again by itself.\r\n"
    );
}

#[tokio::test]
async fn goodbye_is_said_behind_a_response_that_is_under_way() {
    let mut scene = scene(LONG).await;
    scene.upstream.write_all(b"* 1 FETCH (BODY[] {9}\r\nabc").await.unwrap();
    assert_eq!(read(&mut scene.client, 26).await, "* 1 FETCH (BODY[] {9}\r\nabc");
    scene.stop.cancel();
    assert!(
        timeout(Duration::from_millis(100), scene.client.read_u8()).await.is_err(),
        "within a response"
    );
    scene.upstream.write_all(b"defghi)\r\n").await.unwrap();
    assert_eq!(read_to_end(&mut scene.upstream).await, "");
    let said = read_to_end(&mut scene.client).await;
    assert_eq!(
        said,
        "defghi)\r\n* BYE [UNAVAILABLE] Deltapush is restarting. Your app connects again by itself.\r\n"
    );
    assert!(matches!(within(scene.relay).await.unwrap(), RelayEnd::Shutdown));
}

#[tokio::test(start_paused = true)]
async fn response_without_an_end_puts_off_no_goodbye_for_ever() {
    let mut scene = scene(Duration::from_secs(1000)).await;
    scene.upstream.write_all(b"* 1 FETCH (BODY[] {9}\r\n").await.unwrap();
    assert_eq!(receive(&mut scene.client).await, "* 1 FETCH (BODY[] {9}\r\n");
    assert!(matches!(
        timeout(Duration::from_secs(1100), scene.relay).await.unwrap().unwrap(),
        RelayEnd::Idle
    ));
}

#[tokio::test]
async fn requests_before_a_close_are_done_and_answered() {
    for client_closes in [true, false] {
        let mut scene = scene(LONG).await;
        scene
            .client
            .write_all(b"b SETMETADATA INBOX (/private/devicetoken \"t\")\r\n")
            .await
            .unwrap();
        if client_closes {
            scene.client.shutdown().await.unwrap();
        }
        while scene.requests.lock().unwrap().is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
        if client_closes {
            assert_eq!(read_to_end(&mut scene.upstream).await, "");
        }
        drop(scene.upstream);
        let said = read_to_end(&mut scene.client).await;
        assert!(said.starts_with("b OK SETMETADATA completed\r\n* BYE"), "{said:?}");
    }
}

/// However much one read brings, a turn handles a bounded part of it, others run in between, and nothing is lost.
#[tokio::test]
async fn turn_ends_within_the_lines_of_one_read() {
    const LINES: usize = 5000;
    let mut scene = scene(LONG).await;
    let relayed = Arc::clone(&scene.relayed);
    // Runs between two turns of the relay: each task is queued behind the other.
    let most = tokio::spawn(async move {
        let (mut before, mut most) = (relayed.load(Ordering::Relaxed), 0);
        let end = before + 2 * LINES * 8;
        poll_fn(|cx| {
            let now = relayed.load(Ordering::Relaxed);
            most = most.max(now - before);
            before = now;
            cx.waker().wake_by_ref();
            if now == end { Poll::Ready(most) } else { Poll::Pending }
        })
        .await
    });
    let (said, asked) = ("* 1 OK\r\n".repeat(LINES), "a NOOP\r\n".repeat(LINES));
    scene.upstream.write_all(said.as_bytes()).await.unwrap();
    scene.client.write_all(asked.as_bytes()).await.unwrap();
    let most = within(most).await.unwrap();
    assert!(most <= turn::MAX_PIECES * 8, "{} lines in one turn", most / 8);
    assert_eq!(read(&mut scene.client, said.len()).await, said);
    assert_eq!(read(&mut scene.upstream, asked.len()).await, asked);
}
