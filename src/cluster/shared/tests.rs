//! Nodes that show the same, over a real PostgreSQL.

use std::fs;

use super::*;
use crate::ownership::Epoch;
use crate::store::postgres_testing::Database;
use crate::tls::acme::challenges::ProofContent;
use tempfile::TempDir;
use tokio_rustls::rustls::server::ProducesTickets;

struct Node {
    shared: Shared,
    ownership: Ownership,
    challenges: Challenges,
    folder: TempDir,
}

impl Node {
    /// A node with these files in its folder of certificates.
    async fn new(database: &Database, id: i64, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        let (ownership, challenges) = (Ownership::of_node(), Challenges::default());
        let settings = database.settings("seal.key");
        let opened = Store::open_postgres(&settings, ownership.clone(), id, |_| {}).await;
        let store = opened.unwrap().0;
        let shared =
            Shared::open(store, ownership.clone(), folder.path(), challenges.clone()).await;
        Self { shared: shared.unwrap(), ownership, challenges, folder }
    }

    fn file(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.folder.path().join(name)).ok()
    }
}

#[tokio::test]
async fn node_shows_the_certificates_of_the_others() {
    let database = Database::new();
    let one = Node::new(&database, 1, &[("a.key.pem", "key"), ("a.cert.pem", "old")]).await;
    one.shared.synchronize(true).await.unwrap();
    let two = Node::new(&database, 2, &[("a.key.pem", "other"), ("mine.pem", "mine")]).await;
    assert_eq!(two.file("a.key.pem").as_deref(), Some("key"));
    assert_eq!(two.file("a.key.pem.replaced").as_deref(), Some("other"));
    assert_eq!(two.file("a.cert.pem").as_deref(), Some("old"));
    fs::write(two.folder.path().join("a.cert.pem"), "renewed").unwrap();
    two.shared.synchronize(false).await.unwrap();
    one.shared.synchronize(true).await.unwrap();
    assert_eq!(one.file("a.cert.pem").as_deref(), Some("renewed"));
    assert_eq!(one.file("mine.pem"), None, "the operator's own");
    // Both renew at once: the first counts, for both.
    fs::write(one.folder.path().join("a.cert.pem"), "first").unwrap();
    fs::write(two.folder.path().join("a.cert.pem"), "second").unwrap();
    one.shared.synchronize(false).await.unwrap();
    two.shared.synchronize(false).await.unwrap();
    assert_eq!(two.file("a.cert.pem").as_deref(), Some("first"));
    let stored = database.sql("SELECT encode(value, 'escape') FROM shared");
    for secret in ["key", "first"] {
        assert!(!stored.contains(secret), "sealed: {stored}");
    }
}

#[tokio::test]
async fn ticket_is_good_at_each_node() {
    let database = Database::new();
    let (one, two) = tokio::join!(Node::new(&database, 1, &[]), Node::new(&database, 2, &[]));
    let ticket = one.shared.tickets().encrypt(b"session").unwrap();
    // A node that was faster has made the keys of both.
    two.shared.synchronize(true).await.unwrap();
    assert_eq!(two.shared.tickets().decrypt(&ticket).as_deref(), Some(&b"session"[..]));
}

#[tokio::test]
async fn one_node_orders_and_each_shows_the_proof() {
    let database = Database::new();
    let (one, two) = (Node::new(&database, 1, &[]).await, Node::new(&database, 2, &[]).await);
    assert!(!one.shared.may_order() && !two.shared.may_order());
    one.ownership.grant(Slot::all().next().unwrap(), Epoch(2));
    assert!(one.shared.may_order() && !two.shared.may_order());
    let proof =
        ProofContent::Http { token: "token".to_owned(), authorization: "token.key".to_owned() };
    one.shared.publish(vec![proof]).await;
    two.shared.synchronize(true).await.unwrap();
    assert_eq!(two.challenges.answer_http("token").as_deref(), Some("token.key"));
    one.shared.publish(vec![]).await;
    two.shared.synchronize(true).await.unwrap();
    assert_eq!(two.challenges.answer_http("token"), None);
    // After the death of the one that ordered, the next.
    two.shared.publish(vec![]).await;
    one.shared.publish(vec![]).await;
}

#[tokio::test]
async fn file_that_cannot_be_written_holds_up_nothing_else() {
    let database = Database::new();
    let (one, two) = (Node::new(&database, 1, &[]).await, Node::new(&database, 2, &[]).await);
    fs::create_dir(two.folder.path().join("a.cert.pem")).unwrap();
    fs::write(one.folder.path().join("a.cert.pem"), "new").unwrap();
    one.shared.synchronize(false).await.unwrap();
    let proof =
        ProofContent::Http { token: "token".to_owned(), authorization: "token.key".to_owned() };
    one.shared.publish(vec![proof]).await;
    fs::write(two.folder.path().join("b.cert.pem"), "another").unwrap();
    let refused = two.shared.synchronize(true).await;
    assert!(matches!(refused, Err(SharedError::File(_))), "{refused:?}");
    assert_eq!(two.challenges.answer_http("token").as_deref(), Some("token.key"));
    one.shared.synchronize(true).await.unwrap();
    assert_eq!(one.file("b.cert.pem").as_deref(), Some("another"));
}
