//! Crowds of connections that only want to be there, and a person who logs in beside them.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use super::support::client::Client;
use super::support::dovecot::Setup;
use super::support::poll;
use super::support::scene::DovecotScene;

/// Connections of each kind.
const EACH: u32 = 2000;

/// The person's address. The crowd is elsewhere.
const HOME: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Address of the costly clients.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Memory limit of a crowd's connection before its login, in KiB, in a build without optimization.
const COST: usize = 40;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// A byte each second.
    Dribbling,
    /// Asks, and does not read the answers.
    Deaf,
    /// Begins a TLS handshake and says no more.
    Half,
    /// Sends as much of a ClientHello as is taken.
    LargeHello,
    /// Sends as much of a command as is taken.
    LongCommand,
}

/// The connections, and who feeds them.
struct Crowd {
    silent: Vec<TcpStream>,
    dribbling: tokio::task::JoinHandle<()>,
}

impl Crowd {
    /// `EACH` of each kind, from `addresses` addresses.
    async fn gather(scene: &DovecotScene, addresses: u32) -> Self {
        // Each takes a descriptor here, and this process has other tests.
        let files = rlimit::increase_nofile_limit(u64::MAX).unwrap();
        assert!(
            files > 10_000,
            "{files} open files are allowed, the crowd needs 10,000: ulimit -n"
        );
        let (mut silent, mut dribbling) = (Vec::new(), Vec::new());
        for n in 0..EACH {
            for kind in [Kind::Dribbling, Kind::Deaf, Kind::Half] {
                let stream =
                    join(scene, Ipv4Addr::from_bits(0x7F01_0000 + n % addresses), kind).await;
                match kind {
                    Kind::Dribbling => dribbling.push(stream),
                    Kind::Deaf | Kind::Half | Kind::LargeHello | Kind::LongCommand => {
                        silent.push(stream)
                    }
                }
            }
        }
        let dribbling = tokio::spawn(async move {
            loop {
                for stream in &mut dribbling {
                    // Those that were closed are no matter.
                    let _ = stream.try_write(b"x");
                }
                sleep(Duration::from_secs(1)).await;
            }
        });
        Self { silent, dribbling }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.dribbling.abort();
    }
}

async fn join(scene: &DovecotScene, address: Ipv4Addr, kind: Kind) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    // Small, so that what is not read is soon felt by who writes it.
    socket.set_recv_buffer_size(2048).unwrap();
    socket.bind((address, 0).into()).unwrap();
    let port = if matches!(kind, Kind::Half | Kind::LargeHello) {
        scene.deltapush.imaps
    } else {
        scene.deltapush.plain
    };
    let mut stream = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await.unwrap();
    let words: &[u8] = match kind {
        Kind::Dribbling => b"",
        Kind::Deaf => &b"a CAPABILITY\r\n".repeat(90),
        Kind::LargeHello => {
            &[b"\x16\x03\x01\x40\x00\x01\x00\xff\xff\x03\x03".as_slice(), &[0; 7 * 1024]].concat()
        }
        Kind::LongCommand => &[b"a LOGIN x \"".as_slice(), &[b'y'; 16 * 1024 - 20]].concat(),
        Kind::Half => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    };
    // It may be turned away before it has said all.
    let _ = stream.write_all(words).await;
    stream
}

async fn log_in(scene: &DovecotScene) -> Client {
    let mut client =
        Client::tls_from(HOME, scene.deltapush.imaps, &scene.deltapush.certificate()).await;
    client.log_in(&scene.user).await;
    client
}

async fn serves(client: &mut Client, tag: &str) {
    let reply = client.command(&format!("{tag} NOOP")).await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
}

/// Reports if the connection is over; answers to it come before the end.
fn is_over(stream: &TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.try_read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

/// Reports if at most `count` of the silent keep their connections, a busy machine's time for goodbyes granted.
async fn shrinks_to(crowd: &mut Crowd, count: usize) -> bool {
    poll(Duration::from_secs(60), || {
        crowd.silent.retain(|stream| !is_over(stream));
        crowd.silent.len() <= count
    })
    .await
}

#[tokio::test]
async fn crowd_at_one_address_is_turned_away_at_once() {
    let scene = DovecotScene::new(Setup::Vanilla, "crowd-one").await;
    let mut before = log_in(&scene).await;
    let memory = scene.deltapush.memory();
    let mut crowd = Crowd::gather(&scene, 1).await;
    drop(log_in(&scene).await);
    serves(&mut before, "c2").await;
    let grown = scene.deltapush.memory().saturating_sub(memory);
    assert!(grown < 50 * COST + 8 * 1024, "{grown} KiB for 50 connections");
    assert!(
        shrinks_to(&mut crowd, 50).await,
        "{}: limits.before_login_per_address",
        crowd.silent.len()
    );
}

#[tokio::test]
async fn crowd_from_everywhere_pushes_out_itself() {
    // No other limit than the one for places shall end them.
    let scene = DovecotScene::with(Setup::Vanilla, "crowd-many", |options| {
        options.more =
            "limits:\n  handshake_time: 5m\n  command_time: 5m\n  login_time: 5m\n".to_owned();
    })
    .await;
    let mut before = log_in(&scene).await;
    let memory = scene.deltapush.memory();
    // While they come, and when they are there. Senders of a login are pushed out last.
    let (mut crowd, ()) = tokio::join!(Crowd::gather(&scene, 1500), async {
        for _ in 0..5 {
            drop(log_in(&scene).await);
        }
    });
    drop(log_in(&scene).await);
    serves(&mut before, "c2").await;
    let grown = scene.deltapush.memory().saturating_sub(memory);
    assert!(grown < 1000 * COST + 8 * 1024, "{grown} KiB for 1000 connections");
    assert!(shrinks_to(&mut crowd, 1000).await, "{}: limits.before_login", crowd.silent.len());
}

#[tokio::test]
async fn crowd_that_is_let_in_costs_little_and_its_time_ends() {
    let scene = DovecotScene::with(Setup::Vanilla, "crowd-held", |options| {
        options.more =
            "limits:\n  before_login: 9000\n  handshake_time: 20s\n  command_time: 20s\n  login_time: 25s\n".to_owned();
    })
    .await;
    let mut before = log_in(&scene).await;
    let memory = scene.deltapush.memory();
    let mut crowd = Crowd::gather(&scene, 1500).await;
    let mut beside = log_in(&scene).await;
    serves(&mut before, "c2").await;
    let grown = scene.deltapush.memory().saturating_sub(memory);
    eprintln!("{grown} KiB for {} connections", 3 * EACH);
    assert!(grown < 3 * EACH as usize * COST, "{grown} KiB for {} connections", 3 * EACH);
    assert!(shrinks_to(&mut crowd, 0).await, "{}: limits.login_time", crowd.silent.len());
    serves(&mut before, "c3").await;
    serves(&mut beside, "c4").await;
}

/// Measures the documented maximum of a connection before its login, where it has most.
#[tokio::test]
async fn connection_with_a_large_hello_or_a_long_command_costs_little_more() {
    const MANY: usize = 500;
    const MOST: usize = 64;
    for (kind, user) in
        [(Kind::LargeHello, "crowd-large-hello"), (Kind::LongCommand, "crowd-long-command")]
    {
        let scene = DovecotScene::with(Setup::Vanilla, user, |options| {
            options.more =
                "limits:\n  per_address: 1000\n  before_login_per_address: 1000\n".to_owned();
        })
        .await;
        drop(log_in(&scene).await);
        let memory = scene.deltapush.memory();
        let mut crowd = Vec::new();
        for _ in 0..MANY {
            crowd.push(join(&scene, ELSEWHERE, kind).await);
        }
        let grown = || scene.deltapush.memory().saturating_sub(memory);
        // All that was sent is read as soon as somebody who came last is served.
        drop(log_in(&scene).await);
        eprintln!("{} KiB for {MANY} connections", grown());
        let gone = crowd.iter().filter(|stream| is_over(stream)).count();
        assert_eq!(gone, 0, "all are held");
        assert!(grown() < MANY * MOST, "{} KiB for {MANY} connections", grown());
    }
}
