//! A DNS server of a test's own, on loopback over UDP, and over TCP for Pebble. It knows what it was told and denies all else.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, SRV};
use hickory_proto::rr::{Name, RData, Record};

/// Lifetime of an answer, in seconds.
const TTL: u32 = 1;

/// The server. It has a thread of its own: a test that waits for a program to start does not keep that program waiting.
pub(crate) struct DnsServer {
    /// Its address.
    pub(crate) address: SocketAddr,
    zone: Arc<Mutex<Vec<Record>>>,
    questions: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl DnsServer {
    /// Starts it on a port of its own.
    pub(crate) fn start() -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// Starts it on this address of the machine.
    pub(crate) fn start_at(address: SocketAddr) -> Self {
        let (socket, listener) = bind(address);
        let address = socket.local_addr().unwrap();
        let (zone, questions) =
            (Arc::<Mutex<Vec<Record>>>::default(), Arc::<AtomicUsize>::default());
        let over = Arc::<AtomicBool>::default();
        let (known, ended) = (Arc::clone(&zone), Arc::clone(&over));
        thread::spawn(move || serve_tcp(&listener, &known, &ended));
        let (known, asked, ended) = (Arc::clone(&zone), Arc::clone(&questions), Arc::clone(&over));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let (length, peer) = socket.recv_from(&mut buffer).unwrap();
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                asked.fetch_add(1, Ordering::SeqCst);
                let answer = answer(&buffer[..length], &known.lock().unwrap());
                // Fails where the program that asked has ended.
                let _ = socket.send_to(&answer, peer);
            }
        });
        Self { address, zone, questions, over }
    }

    /// Adds an address.
    pub(crate) fn address(&self, name: &str, address: &str) {
        let data = match address.parse().unwrap() {
            std::net::IpAddr::V4(address) => RData::A(A(address)),
            std::net::IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        };
        self.add(name, data);
    }

    /// Adds a service record; the target is a whole name, or `.`.
    pub(crate) fn service(&self, name: &str, priority: u16, target: &str, port: u16) {
        let target = Name::from_ascii(target).unwrap();
        self.add(name, RData::SRV(SRV::new(priority, 0, port, target)));
    }

    /// Forgets all that it was told.
    pub(crate) fn clear(&self) {
        self.zone.lock().unwrap().clear();
    }

    /// Counts the questions.
    pub(crate) fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }

    /// The configuration that lets deltapush ask it.
    pub(crate) fn yaml(&self) -> String {
        format!("dns:\n  server: {}\n", self.address)
    }

    fn add(&self, name: &str, data: RData) {
        let name = Name::from_ascii(format!("{name}.")).unwrap();
        self.zone.lock().unwrap().push(Record::from_rdata(name, TTL, data));
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // The threads see it when something arrives.
        let waker = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
        let _ = waker.and_then(|waker| waker.send_to(&[], self.address));
        let _ = TcpStream::connect(self.address);
    }
}

/// The same port of both kinds: on port 0, one that is free for both.
fn bind(address: SocketAddr) -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let socket = UdpSocket::bind(address).unwrap();
        match TcpListener::bind(socket.local_addr().unwrap()) {
            Ok(listener) => return (socket, listener),
            Err(error) => assert_eq!(address.port(), 0, "{address}: {error}"),
        }
    }
    panic!("no port is free for UDP and TCP");
}

/// One connection after the other: each asks and leaves.
fn serve_tcp(listener: &TcpListener, zone: &Mutex<Vec<Record>>, over: &AtomicBool) {
    while let Ok((mut stream, _)) = listener.accept() {
        if over.load(Ordering::SeqCst) {
            return;
        }
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // Fails where the program that asks has ended, or has asked enough.
        let mut length = [0; 2];
        while stream.read_exact(&mut length).is_ok() {
            let mut question = vec![0; u16::from_be_bytes(length).into()];
            if stream.read_exact(&mut question).is_err() {
                break;
            }
            let answer = answer(&question, &zone.lock().unwrap());
            let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
            if stream.write_all(&[&length, &answer[..]].concat()).is_err() {
                break;
            }
        }
    }
}

fn answer(question: &[u8], zone: &[Record]) -> Vec<u8> {
    let question = Message::from_vec(question).unwrap();
    let query = question.queries[0].clone();
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    let of_name = |record: &&Record| record.name.to_lowercase() == query.name.to_lowercase();
    let found =
        zone.iter().filter(of_name).filter(|record| record.record_type() == query.query_type);
    answer.add_answers(found.cloned());
    if !zone.iter().any(|record| of_name(&record)) {
        answer.metadata.response_code = ResponseCode::NXDomain;
    }
    answer.add_query(query);
    answer.to_vec().unwrap()
}
