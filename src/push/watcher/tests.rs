//! Watches and the state: mailboxes that are gone, a full disk, and the last words of a connection that breaks.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::testing::*;
use crate::push::idle::InheritedState;
use crate::push::kept::{OfferedSession, WatchAbilities};
use crate::push::watch_status::WatchState;
use crate::store::{Generation, StoreSettings, full_disk};
use crate::tls::stream::Stream;
use crate::trace::Tracer;

const HOUR: Duration = Duration::from_secs(3600);

/// Clients have waited in INBOX and, last, in DeltaChat.
async fn wait_in_both(watching: &Watching) {
    for mailbox in ["INBOX", "DeltaChat"] {
        watching.registry.client_idles(&watching.account, mailbox).await.unwrap();
    }
}

/// A mailbox that is gone is forgotten when no client has waited in it for a week, and is not tried again after that.
async fn is_forgotten(server: &MailboxServer, watching: &Watching) {
    until("it is left out, and the other watched", || {
        watching.is_left_out("DeltaChat") && watching.known().watch.is_watching()
    })
    .await;
    let tries = || server.count("EXAMINE \"DeltaChat\"");
    // Its client may be on a journey, and the mailbox may come back.
    let before = tries();
    for _ in 0..15 {
        later(8 * HOUR).await;
    }
    assert!(
        watching.known().mailboxes().iter().any(|mailbox| mailbox == "DeltaChat"),
        "forgotten within the week"
    );
    in_steps("it is tried again now and then", HOUR, || tries() > before).await;
    in_steps("it is forgotten", 8 * HOUR, || watching.known().mailboxes() == ["INBOX"]).await;
    until("the status does not name it any more", || !watching.is_left_out("DeltaChat")).await;
    in_steps("the watch goes on", HOUR, || watching.known().watch.is_watching()).await;
    let after = tries();
    for _ in 0..12 {
        later(8 * HOUR).await;
    }
    assert_eq!(
        (tries(), watching.known().mailboxes()),
        (after, vec!["INBOX".into()]),
        "it came back"
    );
    assert!(!watching.is_left_out("DeltaChat"));
}

#[tokio::test]
async fn mailbox_that_is_gone_is_forgotten_and_does_not_come_back() {
    for capabilities in ["IDLE", "IDLE NOTIFY"] {
        let server = MailboxServer::start(capabilities, &["INBOX"]).await;
        let watching = Watching::start(&server, StoreSettings::memory);
        watching.register().await;
        wait_in_both(&watching).await;
        is_forgotten(&server, &watching).await;
        // A client that waits in it again is a reason to watch it.
        let before = server.count("EXAMINE \"DeltaChat\"");
        watching.registry.client_idles(&watching.account, "DeltaChat").await.unwrap();
        in_steps("it is tried for the client", HOUR / 60, || {
            server.count("EXAMINE \"DeltaChat\"") > before
        })
        .await;
    }
}

/// The time since a mailbox cannot be opened goes on when the watch begins again, for another mailbox or a login.
#[tokio::test]
async fn restarted_watch_knows_which_mailbox_is_left_out() {
    let server = MailboxServer::start("IDLE NOTIFY", &["INBOX"]).await;
    let watching = Watching::start(&server, StoreSettings::memory);
    watching.register().await;
    wait_in_both(&watching).await;
    let since =
        || watching.known().watch.status().and_then(|entry| Some(entry.left_out.first()?.since));
    until("it is left out", || since().is_some()).await;
    let before = since();
    let tries = server.count("EXAMINE \"DeltaChat\"");
    assert!(watching.registry.rewatch(&watching.account));
    until("it is tried again", || server.count("EXAMINE \"DeltaChat\"") > tries).await;
    until("the other is watched", || watching.known().watch.is_watching()).await;
    assert_eq!(since(), before);
}

fn offered(watching: &Watching, stream: Stream, notify: bool) -> OfferedSession {
    OfferedSession {
        account: watching.account.clone(),
        stream,
        trace: Tracer::default().watch(&watching.account),
        abilities: WatchAbilities { idle: true, notify },
        inherited: InheritedState::default(),
        since: Instant::now(),
        ticket: None,
    }
}

#[tokio::test]
async fn kept_session_forgets_a_mailbox_that_is_gone() {
    for notify in [false, true] {
        let server = MailboxServer::start("IDLE NOTIFY", &["INBOX"]).await;
        let watching = Watching::start(&server, StoreSettings::none);
        watching.register().await;
        wait_in_both(&watching).await;
        // A session that the clock cuts off is not made again: another client leaves one.
        let clients = async {
            loop {
                if watching.known().kept.is_empty() {
                    let session = Stream::Plain(server.session().await);
                    watching.kept.offer(offered(&watching, session, notify));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = is_forgotten(&server, &watching) => {}
            () = clients => {}
        }
    }
}

/// In doubt it is a push, once for the account; when there is room again, nobody waits for the end of a back-off.
#[tokio::test]
async fn watch_is_woken_when_the_full_disk_has_room_again() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let mut watching = Watching::start(&server, StoreSettings::memory);
    watching.register().await;
    let account = watching.account.clone();
    let watch = watching.known();
    until("INBOX is watched", || watch.watch.is_watching()).await;
    full_disk::fill(watching.registry.store()).await;
    assert!(!watching.registry.try_writing().await, "the disk is full");

    server.deliver();
    let mut posted = Vec::new();
    until("the message is pushed from memory", || {
        posted.extend(watching.posted());
        !posted.is_empty()
    })
    .await;
    // A failed write does not matter here.
    drop(watching.registry.announced(&token(), Generation::default()).await);
    let wait = || match watch.watch.status()?.state {
        WatchState::Interrupted { reason, next } => {
            Some((reason, next.saturating_duration_since(Instant::now())))
        }
        _ => None,
    };
    for looks in 1.. {
        until("the message was found, and could not be noted", || {
            server.count("UID FETCH") >= looks && wait().is_some_and(|(_, wait)| !wait.is_zero())
        })
        .await;
        let (reason, wait) = wait().unwrap();
        assert!(looks < 50 && reason.contains("the disk is full"), "{reason}: {wait:?}");
        if wait > Duration::from_secs(100) {
            break;
        }
        later(wait).await;
    }
    posted.extend(watching.posted());
    assert_eq!(posted, [token()], "each message once");

    // Not before: that it was tried to write is no reason.
    let looks = server.count("UID FETCH");
    later(Duration::from_secs(50)).await;
    assert_eq!(server.count("UID FETCH"), looks);
    full_disk::make_room(watching.registry.store()).await;
    assert!(watching.registry.try_writing().await);
    until("the watch is back", || watch.watch.is_watching()).await;
    let positions = watching.registry.positions(&account).await.unwrap();
    assert_eq!(positions[0].1.uid_next, 6, "it is written at last");
    assert_eq!(watching.posted(), [], "it was pushed before");
    server.deliver();
    until("the next one is pushed", || watching.posted() == [token()]).await;
}

/// The server's words before the connection broke count, also if the break is noticed by writing.
#[tokio::test]
async fn words_that_were_not_read_when_writing_failed_are_the_reason() {
    for (words, reason) in [
        (
            "* BYE [ALERT] Enable IMAP access\r\n",
            "said \"Enable IMAP access\"; then: it closed the session",
        ),
        ("* BYE down for an hour\r\n", "the mail server closed the session: down for an hour"),
        (
            "* NO [ALERT] the disk is gone\r\n",
            "said \"the disk is gone\"; then: the connection to the mail server broke",
        ),
        ("", "the connection to the mail server broke"),
    ] {
        let server = MailboxServer::start("IDLE", &["INBOX"]).await;
        let watching = Watching::start(&server, StoreSettings::none);
        watching.register().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        peer.write_all(words.as_bytes()).await.unwrap();
        peer.set_zero_linger().unwrap();
        drop(peer);
        // The reset has arrived when the session is taken over.
        until("the connection broke", || {
            stream.take_error().is_ok_and(|error| error.is_some()) || words.is_empty()
        })
        .await;
        watching.kept.offer(offered(&watching, Stream::Plain(stream), false));
        let shown = || match watching.known().watch.status()?.state {
            WatchState::AwaitingDevice { reason } => Some(reason),
            _ => None,
        };
        // The account may have been there when the watches began, which is a reason of its own.
        until(reason, || shown().is_some_and(|shown| shown.contains(reason))).await;
    }
}
