//! Several mailboxes are to be watched, and one of them cannot be opened: the others are watched, and the status names the one.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::providers::ProviderScene;
use super::support::client::Client;
use super::support::poll;

const GREETING: &str = "
    S: * OK [CAPABILITY IMAP4rev1 SASL-IR IDLE AUTH=PLAIN] ready
    LOGIN
";

fn login(capabilities: &str) -> String {
    format!("{GREETING}S: <tag> OK [CAPABILITY IMAP4rev1 {capabilities}] in\n")
}

/// A mailbox without a new message is opened by the command `number`; with one more message if `exists` is 5.
fn opened(number: u32, mailbox: &str, exists: u32) -> String {
    format!(
        "C: w{number} EXAMINE \"{mailbox}\"
        S: * {exists} EXISTS
        S: * OK [UIDVALIDITY 7]
        S: * OK [UIDNEXT {}]
        S: w{number} OK
        ",
        exists + 6
    )
}

fn gone(number: u32, mailbox: &str) -> String {
    format!("C: w{number} EXAMINE \"{mailbox}\"\nS: w{number} NO [NONEXISTENT] no such mailbox\n")
}

/// In the IDLE with this number a message comes, and is fetched.
fn news(number: u32) -> String {
    format!(
        r"C: w{number} IDLE
        S: + idling
        REACHED
        GATE
        S: * 5 EXISTS
        C: DONE
        S: w{number} OK
        C~ w{} UID FETCH 10:* (
        S= * 5 FETCH (UID 10 FLAGS () BODY[HEADER.FIELDS (FROM)]<0> {{2}}\r\n\r\n)\r\n
        S: w{} OK
        C: w{} IDLE
        S: + idling
        REACHED
        EOF",
        number + 1,
        number + 1,
        number + 2
    )
}

/// The client waits in two mailboxes, one after the other.
fn client(login: &str, mailboxes: [&str; 2]) -> String {
    let waits = |number: u32, mailbox: &str| {
        format!(
            "C: c{number} SELECT {mailbox}
            S: c{number} OK [READ-WRITE] done
            C: c{} IDLE
            S: + idling
            ",
            number + 1
        )
    };
    let [one, two] = mailboxes;
    format!("{login}GATE\n{}C: DONE\nS: c4 OK\n{}", waits(3, one), waits(5, two))
}

/// Waits in two mailboxes, one after the other; in the second once what follows from the first has `REACHED` its end.
async fn wait_in(scene: &mut ProviderScene, mailboxes: [&str; 2], reached: bool) {
    scene.upstream.open_gate();
    for (number, mailbox) in [(3, mailboxes[0]), (5, mailboxes[1])] {
        let selected = scene.client.command(&format!("c{number} SELECT {mailbox}")).await;
        assert!(selected.result.starts_with("OK"), "{selected:?}");
        scene.client.send(&format!("c{} IDLE", number + 1)).await;
        scene.client.expect("+ idling").await;
        if number == 3 {
            if reached {
                scene.upstream.reached().await;
            }
            scene.client.send("DONE").await;
            scene.client.until_tagged("c4").await;
        }
    }
}

/// In how many mailboxes deltapush knows that clients wait.
fn noted(directory: &Path) -> u32 {
    let state = directory.join("state/state.sqlite");
    let state = Connection::open_with_flags(state, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    state.query_row("SELECT count(*) FROM idled", [], |row| row.get(0)).unwrap()
}

/// So many sessions have come to a rest. A message in INBOX wakes the device, and the status shows that the other mailbox is left out and INBOX watched.
async fn inbox_is_watched(mut scene: ProviderScene, gone: &str, sessions: usize) {
    for _ in 0..sessions {
        scene.upstream.reached().await;
    }
    let not_watched =
        format!("mailbox \"{gone}\" is not watched: it cannot be opened (no such mailbox)");
    let status = || scene.deltapush.status();
    let shown = poll(Duration::from_secs(40), || {
        let status = status();
        status.contains(&not_watched) && status.contains("watch    watching")
    });
    assert!(shown.await, "{}", status());
    scene.upstream.open_gate();
    let posted = scene.notify.wait_for(1, Duration::from_secs(40)).await;
    assert_eq!(posted[0].token, "openpgp:alice");
    scene.upstream.reached().await;
    assert_eq!(scene.deltapush.log().matches(&not_watched).count(), 1, "said once");
    scene.end().await;
}

/// The session that a client left behind, without a password to make others with. With IDLE alone one mailbox is watched: the
/// latest, or the next one that can be opened.
#[tokio::test]
async fn kept_session_watches_the_mailboxes_that_can_be_opened() {
    let (idle, both) = (login("IDLE"), login("IDLE NOTIFY"));
    // The first mailbox in NOTIFY stays open, and is visited last.
    let all = |visits: String, next: u32| {
        format!(
            r"{visits}C~ w{next} NOTIFY SET (SELECTED (
            S: w{next} OK
            C: w{} IDLE
            S: + idling
            REACHED
            GATE
            S: * 5 EXISTS
            S= * 5 FETCH (UID 10 FLAGS () BODY[HEADER.FIELDS (FROM)]<0> {{2}}\r\n\r\n)\r\n
            REACHED
            EOF",
            next + 1
        )
    };
    let inbox = |number| opened(number, "INBOX", 4);
    for (login, mailboxes, gone, watch) in [
        (&idle, ["INBOX", "DeltaChat"], "DeltaChat", gone(1, "DeltaChat") + &inbox(2) + &news(3)),
        (
            &both,
            ["INBOX", "DeltaChat"],
            "DeltaChat",
            all(inbox(1) + &gone(2, "DeltaChat") + &inbox(3), 4),
        ),
        (&both, ["Work", "INBOX"], "Work", all(gone(1, "Work") + &inbox(2), 3)),
    ] {
        let dialogue = format!("{}C: DONE\nS: c6 OK\n{watch}", client(login, mailboxes));
        let mut scene =
            ProviderScene::begin_with(&[&dialogue], |options| options.credentials = "none").await;
        wait_in(&mut scene, mailboxes, false).await;
        let noted = poll(Duration::from_secs(40), || noted(scene.deltapush.dir()) == 2);
        assert!(noted.await, "where the client waits was not noted");
        // The client is gone, and its session goes on.
        scene.client = Client::plain(scene.deltapush.plain).await;
        inbox_is_watched(scene, gone, 1).await;
    }
}

/// A server without NOTIFY has one session for each mailbox: the end of one ends no other.
#[tokio::test]
async fn session_per_mailbox_watches_those_that_can_be_opened() {
    let idle = login("IDLE");
    let inbox = |then: &str| format!("{idle}{}{then}", opened(1, "INBOX", 4));
    let (before, watched) = (inbox("C: w2 IDLE\nS: + idling\nREACHED\nEOF"), inbox(&news(2)));
    let refused = |mailbox| format!("{idle}{}REACHED\nEOF", gone(1, mailbox));
    // If it is the only one, INBOX is watched in its place.
    let alone = format!(
        "{idle}{}{}C: w3 IDLE\nS: + idling\nREACHED\nEOF",
        gone(1, "Work"),
        opened(2, "INBOX", 4)
    );
    for (mailboxes, gone, sessions) in [
        (
            ["INBOX", "DeltaChat"],
            "DeltaChat",
            vec![before.clone(), refused("DeltaChat"), watched.clone()],
        ),
        (["Work", "INBOX"], "Work", vec![before, alone, watched, refused("Work")]),
    ] {
        let client = format!("{}EOF", client(&idle, mailboxes));
        let dialogues: Vec<&str> =
            [&client].into_iter().chain(&sessions).map(String::as_str).collect();
        let mut scene = ProviderScene::begin(&dialogues).await;
        scene.upstream.reached().await;
        wait_in(&mut scene, mailboxes, gone == "Work").await;
        inbox_is_watched(scene, gone, 2).await;
    }
}
