//! COMPRESS=DEFLATE (RFC 4978) with a client that is not ours, Python's zlib, and with a server that has it too.

use std::path::Path;

use serde_json::{Value, json};

use super::clients::run;
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{self, PASSWORD, Setup};
use super::support::python;
use super::support::scene::DovecotScene;

/// Returns the report of `compressed_client.py`, per round, for a server that follows RFC 4978.
fn expected() -> Value {
    json!({
        "login": "OK", "offered": 1, "compress": "OK", "second": ["NO", "[COMPRESSIONACTIVE]"], "noop": "OK",
        "append": "OK", "select": "OK", "same": true, "fetch": "OK", "idle": "OK",
        "logout": ["BYE", "OK"], "closed": true, "shrunk": true,
    })
}

async fn rounds(port: u16, trusted: &Path, user: &str) -> Value {
    let mut script = python::script("compressed_client.py");
    script.arg(port.to_string()).arg(trusted).arg(user);
    serde_json::from_slice(&run(script, &format!("{PASSWORD}\n")).await).unwrap()
}

fn expect_all(told: &Value) {
    for round in ["sync", "full", "partial", "byte by byte"] {
        assert_eq!(told[round], expected(), "{round}");
    }
}

#[tokio::test]
async fn client_compresses_whatever_the_server_has() {
    for (setup, user) in [(Setup::Vanilla, "compress"), (Setup::Compress, "compress-both")] {
        let dovecot = dovecot::shared(setup);
        let deltapush = Deltapush::start(&Options::dovecot(dovecot));
        let user = dovecot.user(user);
        expect_all(&rounds(deltapush.imaps, &deltapush.certificate(), &user).await);
        let said = dovecot.sessions(&user).concat();
        assert!(said.contains("b1 FETCH"), "what arrived is not compressed");
        assert!(!said.contains("COMPRESS"), "the server must not hear of it");
    }
}

#[tokio::test]
async fn client_compresses_with_the_server_itself() {
    let dovecot = dovecot::shared(Setup::Compress);
    let user = dovecot.user("compress-direct");
    expect_all(&rounds(dovecot.imaps, &dovecot.authority.ca, &user).await);
}

/// A watch waits for months and says next to nothing: it never compresses, though the server could.
#[tokio::test]
async fn watch_is_not_compressed_where_the_server_could() {
    let scene = DovecotScene::new(Setup::Compress, "compress-watch").await;
    let offered = scene.direct().await.command("c2 CAPABILITY").await.text();
    assert!(offered.contains("COMPRESS=DEFLATE"), "{offered}");
    scene.register("openpgp:compressed").await;
    assert!(!scene.dovecot.sessions(&scene.user).concat().contains("COMPRESS"));
}
