//! Limits on memory, time and connection slots of one account, address or mail server. `scripts/attack` measures the same, and
//! more, on a quiet machine.

use crate::keeping::{register, scene_with};
use crate::support::client::{Client, quoted};
use crate::support::deltapush::{Deltapush, Options};
use crate::support::dovecot::{PASSWORD, Setup};
use crate::support::poll;
use crate::support::scene::{DovecotScene, PATIENCE};
use crate::support::scripted::Scripted;

const LOGIN: &str = "
    S: * OK [CAPABILITY IMAP4rev1 SASL-IR IDLE AUTH=PLAIN] ready
    LOGIN
    S: <tag> OK [CAPABILITY IMAP4rev1 IDLE] in
";

/// Hands over a token and returns the answer.
async fn hands_over(deltapush: &Deltapush, user: &str, password: &str, token: &str) -> String {
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    let answer = client.command(&format!("c1 LOGIN {user} {}", quoted(password))).await;
    assert!(answer.result.starts_with("OK"), "{answer:?}");
    client.command(&format!("c2 SETMETADATA INBOX (/private/devicetoken \"{token}\")")).await.result
}

#[tokio::test]
async fn watch_whose_server_talks_without_news_ends_with_words_in_status_and_log() {
    let chatter = "* 4 FETCH (FLAGS (seen))\\r\\n".repeat(1000);
    let watch = format!(
        "{LOGIN}
        C: w1 EXAMINE \"INBOX\"
        S= * 4 EXISTS\\r\\n* OK [UIDVALIDITY 7] x\\r\\n* OK [UIDNEXT 10] x\\r\\nw1 OK done\\r\\n
        C: w2 IDLE
        S: + idling
        {}",
        format!("S= {chatter}\n").repeat(20)
    );
    let upstream =
        Scripted::start(&[&format!("{LOGIN}EOF"), &format!("{watch}S: * OK once more\nEOF")]).await;
    let deltapush = Deltapush::start(&Options::plain(upstream.port));
    assert!(
        hands_over(&deltapush, "alice@lab.test", "sesame", "openpgp:x").await.starts_with("OK")
    );
    const WORDS: &str = "the mail server sent more than 20000 lines without a new message";
    assert!(poll(PATIENCE, || deltapush.status().contains(WORDS)).await, "{}", deltapush.status());
    let told = deltapush
        .log()
        .lines()
        .filter(|line| line.contains("WARN") && line.contains(WORDS))
        .count();
    assert!(told > 0, "{}", deltapush.log());
}

#[tokio::test]
async fn new_account_beyond_the_limit_is_refused_with_words_and_known_ones_never_are() {
    let mut scene = DovecotScene::with(Setup::Vanilla, "accounts-1", |options| {
        options.more = "limits:\n  accounts: 2\n".to_owned();
    })
    .await;
    let users =
        [scene.user.clone(), scene.dovecot.user("accounts-2"), scene.dovecot.user("accounts-3")];
    for user in &users[..2] {
        assert!(hands_over(&scene.deltapush, user, PASSWORD, "openpgp:x").await.starts_with("OK"));
    }
    let refused = "NO [LIMIT] This server takes no more accounts. Ask its operator.";
    for _ in 0..2 {
        assert_eq!(hands_over(&scene.deltapush, &users[2], PASSWORD, "openpgp:x").await, refused);
    }
    assert!(
        hands_over(&scene.deltapush, &users[0], PASSWORD, "openpgp:new").await.starts_with("OK")
    );
    let log = scene.deltapush.log();
    assert_eq!(log.matches("new account refused").count(), 1, "{log}");
    let status = scene.deltapush.status();
    assert!(status.contains("new accounts were refused 2 times since the start"), "{status}");
    // A smaller limit, and a new start: those that are there go on.
    scene.deltapush.reconfigure(|config| config.replace("accounts: 2", "accounts: 1"));
    scene.deltapush.restart();
    assert!(
        hands_over(&scene.deltapush, &users[1], PASSWORD, "openpgp:newer").await.starts_with("OK")
    );
}

/// Each login made a hash in memory of its own, which was not given back: 19 MiB for each thread that had made one.
#[tokio::test]
async fn logins_where_sessions_are_kept_do_not_make_memory_grow() {
    let scene = scene_with(Setup::Vanilla, "hashes", |_| ()).await;
    let mut client = scene.client().await;
    register(&mut client, "openpgp:hashes").await;
    drop(client);
    drop(scene.client().await);
    let one = scene.deltapush.memory();
    for _ in 0..4 {
        let (a, b, c, d) =
            tokio::join!(scene.client(), scene.client(), scene.client(), scene.client());
        drop((a, b, c, d));
        for _ in 0..6 {
            drop(scene.client().await);
        }
    }
    let grown = scene.deltapush.memory().saturating_sub(one);
    assert!(grown < 25 * 1024, "{grown} KiB after 40 logins");
}
