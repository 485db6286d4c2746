//! A DNS server of a test's own, over UDP on loopback. It knows what it was told and denies all else.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, SRV};
use hickory_proto::rr::{Name, RData, Record};
use tokio::net::UdpSocket;

/// How long an answer holds, in seconds.
const TTL: u32 = 1;

/// The server. It ends with the test's runtime.
pub(crate) struct DnsServer {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    zone: Arc<Mutex<Vec<Record>>>,
    questions: Arc<AtomicUsize>,
}

impl DnsServer {
    /// Starts it on a port of its own.
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let (zone, questions) =
            (Arc::<Mutex<Vec<Record>>>::default(), Arc::<AtomicUsize>::default());
        let (known, asked) = (Arc::clone(&zone), Arc::clone(&questions));
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                asked.fetch_add(1, Ordering::SeqCst);
                let answer = answer(&buffer[..length], &known.lock().unwrap());
                socket.send_to(&answer, peer).await.unwrap();
            }
        });
        Self { address, zone, questions }
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

    /// How often it was asked.
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
