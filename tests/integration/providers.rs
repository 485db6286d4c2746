//! Behaviour of real mail servers to a session that waits, as dialogues: each provider's peculiarity, what becomes of
//! the watch, and what the person hears. The peculiarities are collected from public issue threads and client settings, and
//! none was tried live; the lines around them, greetings and capability lists too, are made up. Slow cases are in the
//! virtual time of `src/push/idle/tests.rs`.

use std::fmt::Display;
use std::time::Duration;

use super::support::client::Client;
use super::support::deltapush::{Deltapush, Options};
use super::support::notify::NotifyServer;
use super::support::poll;
use super::support::scripted::Scripted;

/// A login that has no peculiarity.
pub(super) const PLAIN: &str = "
    S: * OK [CAPABILITY IMAP4rev1 SASL-IR IDLE AUTH=PLAIN] ready
    LOGIN
    S: <tag> OK [CAPABILITY IMAP4rev1 IDLE] in
";

/// A mailbox that has no peculiarity, with UID 10 to come.
pub(super) const EXAMINE: &str = r#"
    C: w1 EXAMINE "INBOX"
    S: * 4 EXISTS
    S: * OK [UIDVALIDITY 7] ok
    S: * OK [UIDNEXT 10] ok
    S: w1 OK [READ-ONLY] done
"#;

pub(super) const IDLE: &str = "
    C: w2 IDLE
    S: + idling
";

/// Dialogue of the client's connection after its login.
pub(super) const CLIENT: &str = "EOF";

/// UID 10 is fetched by `tag`.
pub(super) fn fetch(tag: &str) -> String {
    format!(
        r"
        C~ {tag} UID FETCH 10:* (
        S= * 5 FETCH (UID 10 FLAGS () BODY[HEADER.FIELDS (FROM)]<0> {{2}}\r\n\r\n)\r\n
        S: {tag} OK
        "
    )
}

/// In IDLE UID 10 arrives, is fetched, and IDLE goes on.
pub(super) fn news() -> String {
    format!(
        "
        S: * 5 EXISTS
        C: DONE
        S: w2 OK
        {}
        C: w4 IDLE
        S: + idling
        REACHED
        EOF
        ",
        fetch("w3")
    )
}

/// A session that finds what came while nobody watched.
pub(super) fn catch_up(login: &str) -> String {
    format!(
        r#"{login}
        C: w1 EXAMINE "INBOX"
        S: * 5 EXISTS
        S: * OK [UIDVALIDITY 7] ok
        S: * OK [UIDNEXT 11] ok
        S: w1 OK [READ-ONLY] done
        {}
        C: w3 IDLE
        S: + idling
        REACHED
        EOF
        "#,
        fetch("w2")
    )
}

/// A client with a token, and all that is around it.
pub(super) struct ProviderScene {
    pub(super) upstream: Scripted,
    pub(super) notify: NotifyServer,
    pub(super) deltapush: Deltapush,
    pub(super) client: Client,
}

impl ProviderScene {
    /// The first dialogue is the client's. It logs in there and hands its token over; the others are as they come.
    pub(super) async fn begin(dialogues: &[&str]) -> Self {
        Self::begin_with(dialogues, |_| ()).await
    }

    /// The same with another configuration.
    pub(super) async fn begin_with(dialogues: &[&str], change: impl FnOnce(&mut Options)) -> Self {
        let upstream = Scripted::start(dialogues).await;
        let notify = NotifyServer::start().await;
        let mut options =
            Options { notify_url: notify.url.clone(), ..Options::plain(upstream.port) };
        change(&mut options);
        let deltapush = Deltapush::start(&options);
        let mut client = Client::plain(deltapush.plain).await;
        client.expect_prefix("* OK").await;
        let reply = client.command("c1 LOGIN alice@lab.test sesame").await;
        assert!(reply.result.starts_with("OK"), "{reply:?}");
        let set =
            client.command("c2 SETMETADATA INBOX (/private/devicetoken \"openpgp:alice\")").await;
        assert!(set.result.starts_with("OK"), "{set:?}");
        Self { upstream, notify, deltapush, client }
    }

    /// The client's login and the watch's sessions begin with the same words.
    async fn watched(login: &str, sessions: &[&str]) -> Self {
        let client = format!("{login}{CLIENT}");
        let sessions: Vec<String> =
            sessions.iter().map(|session| format!("{login}{session}")).collect();
        let dialogues: Vec<&str> =
            [&client].into_iter().chain(&sessions).map(String::as_str).collect();
        Self::begin(&dialogues).await
    }

    /// A push arrives, and the watch waits again.
    pub(super) async fn gets_pushed(mut self) -> Self {
        let posted = self.notify.wait_for(1, Duration::from_secs(40)).await;
        assert_eq!(posted[0].token, "openpgp:alice");
        self.upstream.reached().await;
        self
    }

    /// Waits for these words in the log.
    pub(super) async fn logs(self, words: &str) -> Self {
        let said = poll(Duration::from_secs(40), || self.deltapush.log().contains(words)).await;
        assert!(said, "not said: {words:?}");
        self
    }

    /// No further session soon, whether it will come in minutes or not at all.
    pub(super) async fn stays_away(self) -> Self {
        let before = self.upstream.connections();
        let mut last = None;
        let is_away = poll(Duration::from_secs(40), || {
            last = self.deltapush.account("alice@lab.test");
            let watch = last.as_ref().map(|report| &report["account"]["watch"]);
            watch.is_some_and(|watch| match watch["state"].as_str() {
                Some("ended" | "unusable" | "waiting-for-login") => true,
                Some("interrupted") => is_in_minutes(&watch["next"]),
                _ => false,
            })
        });
        assert!(is_away.await, "it comes back soon: {last:#?}");
        assert_eq!(self.upstream.connections(), before, "it came back");
        self
    }

    /// It will come back by itself.
    pub(super) fn goes_on(self) -> Self {
        let log = self.deltapush.log();
        assert!(
            !log.contains("until the client logs in again"),
            "taken for a wrong password, or for good"
        );
        self
    }

    /// Every dialogue was played to its end, and nothing was said besides.
    pub(super) async fn end(self) {
        let Self { upstream, deltapush, client, .. } = self;
        drop((client, deltapush));
        upstream.finish().await;
    }
}

/// True for a time in a report that is so far away that a test does not live to see it.
fn is_in_minutes(time: &serde_json::Value) -> bool {
    let time: jiff::Timestamp = time.as_str().unwrap().parse().unwrap();
    time.duration_since(jiff::Timestamp::now()) > jiff::SignedDuration::from_secs(30)
}

/// One session, from EXAMINE to the push.
async fn is_watched(login: &str) {
    let session = format!("{EXAMINE}{IDLE}{}", news());
    ProviderScene::watched(login, &[&session]).await.gets_pushed().await.goes_on().end().await;
}

/// A first session that ends in its way, and a second one that finds what came meanwhile.
async fn comes_back(login: &str, session: &str, words: &str) {
    let (client, first) = (format!("{login}{CLIENT}"), format!("{login}{session}"));
    let scene = ProviderScene::begin(&[&client, &first, &catch_up(login)]).await;
    scene.gets_pushed().await.logs(words).await.goes_on().end().await;
}

/// A session whose end leads to a pause of minutes.
async fn pauses(session: impl AsRef<str>, words: impl Display) {
    let scene = ProviderScene::begin(&[&format!("{PLAIN}{CLIENT}"), session.as_ref()]).await;
    scene
        .logs(&format!("account not watched: {words}"))
        .await
        .stays_away()
        .await
        .goes_on()
        .end()
        .await;
}

/// A login that is refused for a moment, after which all is well.
async fn is_asked_again_soon(answer: &str) {
    let watch = format!("{PLAIN}{EXAMINE}{IDLE}{}", news());
    let scene =
        ProviderScene::begin(&[&format!("{PLAIN}{CLIENT}"), &refused(answer), &watch]).await;
    scene.gets_pushed().await.goes_on().end().await;
}

/// A login of the watch's that is refused.
fn refused(answer: &str) -> String {
    format!(
        "
        S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready
        LOGIN
        S: <tag> {answer}
        EOF
        "
    )
}

const GMAIL: &str = "
    S: * OK Gimap ready for requests from 192.0.2.1
    CAPS IMAP4rev1 UNSELECT IDLE NAMESPACE QUOTA ID XLIST CHILDREN SASL-IR AUTH=XOAUTH2 AUTH=PLAIN
    LOGIN
    S: * CAPABILITY IMAP4rev1 UNSELECT IDLE COMPRESS=DEFLATE ENABLE MOVE CONDSTORE UTF8=ACCEPT
    S: <tag> OK alice@lab.test authenticated (Success)
";

#[tokio::test]
async fn gmail_tells_its_capabilities_untagged() {
    is_watched(GMAIL).await;
}

#[tokio::test]
async fn gmail_has_too_few_sessions() {
    let answer = "NO [ALERT] Too many simultaneous connections. (Failure)";
    pauses(refused(answer), format!("the mail server refused the login: {answer}")).await;
}

const OUTLOOK: &str = "
    S: * OK The Microsoft Exchange IMAP4 service is ready.
    C: dp1 CAPABILITY
    S: * CAPABILITY IMAP4 IMAP4rev1 AUTH=PLAIN SASL-IR UIDPLUS ID UNSELECT CHILDREN IDLE NAMESPACE LITERAL+
    S: dp1 OK done
    LOGIN
    S: <tag> OK AUTHENTICATE completed.
    C: dp3 CAPABILITY
    S: * CAPABILITY IMAP4 IMAP4rev1 UIDPLUS ID UNSELECT CHILDREN IDLE NAMESPACE LITERAL+
    S: dp3 OK done
";

/// Exchange's answer to who deltapush is; the account has ID.
const OUTLOOK_ID: &str = r#"
    C~ dp4 ID ("name" "deltapush" "version" "
    S: * ID ("name" "Microsoft.Exchange.Imap4.Imap4Server" "version" "15.20")
    S: dp4 OK ID completed
"#;

fn outlook(session: &str) -> (String, String) {
    (format!("{OUTLOOK}{CLIENT}"), format!("{OUTLOOK}{OUTLOOK_ID}{session}"))
}

#[tokio::test]
async fn outlook_tells_news_before_the_continuation() {
    let session = format!(
        "{EXAMINE}
        C: w2 IDLE
        S: * 5 EXISTS
        S: + IDLE accepted, awaiting DONE command.
        C: DONE
        S: w2 OK IDLE completed.
        {}
        C: w4 IDLE
        S: + IDLE accepted, awaiting DONE command.
        REACHED
        EOF",
        fetch("w3")
    );
    let (client, watch) = outlook(&session);
    ProviderScene::begin(&[&client, &watch]).await.gets_pushed().await.goes_on().end().await;
}

#[tokio::test]
async fn outlook_closes_with_a_number() {
    let bye = format!("{EXAMINE}{IDLE}S: * BYE Connection is closed. 13\nCLOSE");
    let (client, first) = outlook(&bye);
    let second = catch_up(&format!("{OUTLOOK}{OUTLOOK_ID}"));
    let scene = ProviderScene::begin(&[&client, &first, &second]).await;
    scene
        .gets_pushed()
        .await
        .logs("closed the session: Connection is closed. 13")
        .await
        .goes_on()
        .end()
        .await;
}

#[tokio::test]
async fn outlook_is_authenticated_but_not_connected() {
    const WORDS: &str = "User is authenticated but not connected.";
    let at_examine = format!("{PLAIN}C: w1 EXAMINE \"INBOX\"\nS: w1 BAD {WORDS}\nEOF");
    let at_idle = format!("{PLAIN}{EXAMINE}C: w2 IDLE\nS: w2 BAD {WORDS}\nEOF");
    let at_login = format!("BAD {WORDS}");
    tokio::join!(
        pauses(at_examine, format!("the mailbox cannot be opened: {WORDS}")),
        pauses(at_idle, format!("the mail server refused IDLE: {WORDS}")),
        is_asked_again_soon(&at_login),
    );
}

/// Too many commands or logins of one account in a time.
#[tokio::test]
async fn outlook_throttles() {
    let answer = "BAD Request is throttled. Suggested Backoff Time: 59995 milliseconds";
    pauses(refused(answer), format!("the mail server refused the login: {answer}")).await;
}

#[tokio::test]
async fn yahoo_limits_rates() {
    tokio::join!(
        pauses(
            refused("NO [LIMIT] Rate limit hit"),
            "the mail server refused the login: NO [LIMIT] Rate limit hit"
        ),
        pauses(
            refused("NO Rate limit exceeded, wait"),
            "the mail server refused the login: NO Rate limit exceeded"
        ),
    );
}

#[tokio::test]
async fn icloud_and_fastmail_say_bye_and_ok_without_a_word() {
    let login = "
        S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN]
        LOGIN
        S: <tag> OK
        C: dp2 CAPABILITY
        S: * CAPABILITY IMAP4rev1 IDLE
        S: dp2 OK
    ";
    let session = r#"
        C: w1 EXAMINE "INBOX"
        S: * 4 EXISTS
        S: * OK [UIDVALIDITY 7]
        S: * OK [UIDNEXT 10]
        S: w1 OK
        C: w2 IDLE
        S: +
        S: * BYE
        CLOSE
    "#;
    comes_back(login, session, "the mail server closed the session").await;
}

#[tokio::test]
async fn gmx_refuses_to_hear_who_asks() {
    let login = "
        S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR AUTH=PLAIN IDLE] IMAP server ready
        LOGIN
        S: <tag> OK [CAPABILITY IMAP4rev1 ID IDLE] LOGIN completed
    ";
    let watch =
        format!("{login}C~ dp2 ID (\"name\" \"deltapush\" \nS: dp2 BAD expected something else\n");
    let session = format!("{watch}{EXAMINE}{IDLE}{}", news());
    ProviderScene::begin(&[&format!("{login}{CLIENT}"), &session])
        .await
        .gets_pushed()
        .await
        .goes_on()
        .end()
        .await;
}

/// iCloud's and WEB.DE's user is the local part, and WEB.DE sorts strangers into a folder of their own. The mailbox that the
/// client waits in is the one that is watched.
#[tokio::test]
async fn webde_has_users_without_a_domain_and_a_folder_for_strangers() {
    let login = r#"
        S: * OK [CAPABILITY IMAP4rev1 IDLE] ready
        C: dp1 LOGIN "alice" "sesame"
        S: dp1 OK [CAPABILITY IMAP4rev1 IDLE] in
    "#;
    let client = format!(
        "{login}
        GATE
        C: c3 SELECT Unbekannt
        S: c3 OK [READ-WRITE] done
        C: c4 IDLE
        S: + idling
        EOF"
    );
    let (inbox, strangers) =
        (format!("{login}{EXAMINE}{IDLE}EOF"), EXAMINE.replace("INBOX", "Unbekannt"));
    let strangers = format!("{login}{strangers}{IDLE}{}", news());
    let upstream = Scripted::start(&[&client, &inbox, &strangers]).await;
    let notify = NotifyServer::start().await;
    let deltapush = Deltapush::start(&Options {
        notify_url: notify.url.clone(),
        ..Options::plain(upstream.port)
    });
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    assert!(client.command("c1 LOGIN alice sesame").await.result.starts_with("OK"));
    client.command("c2 SETMETADATA INBOX (/private/devicetoken \"openpgp:alice\")").await;
    let scene =
        ProviderScene { upstream, notify, deltapush, client }.logs("watching account=alice").await;
    scene.upstream.open_gate();
    let mut scene = scene;
    assert!(scene.client.command("c3 SELECT Unbekannt").await.result.starts_with("OK"));
    scene.client.send("c4 IDLE").await;
    scene.client.expect("+ idling").await;
    scene.gets_pushed().await.goes_on().end().await;
}

#[tokio::test]
async fn ionos_and_tonline_have_little() {
    let ionos = "
        S: * OK [CAPABILITY IMAP4rev1 CHILDREN ENABLE LIST-EXTENDED LIST-STATUS LITERAL- MOVE IDLE AUTH=PLAIN SASL-IR] hi
        LOGIN
        S: <tag> OK [CAPABILITY IMAP4rev1 LITERAL- ENABLE LIST-STATUS MOVE IDLE] in
    ";
    let tonline = "
        S: * OK IMAP4rev1 server ready
        C: dp1 CAPABILITY
        S: * CAPABILITY IMAP4rev1 IDLE AUTH=PLAIN
        S: dp1 OK done
        LOGIN
        S: <tag> OK LOGIN completed
        C: dp3 CAPABILITY
        S: * CAPABILITY IMAP4rev1 IDLE
        S: dp3 OK done
    ";
    tokio::join!(is_watched(ionos), is_watched(tonline));
}

/// Posteo, mailbox.org, Fastmail, mox: NOTIFY brings headers with the news, keepalives are no news.
#[tokio::test]
async fn posteo_keeps_alive_and_notifies() {
    let login = "
        S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] Dovecot ready.
        LOGIN
        S: <tag> OK [CAPABILITY IMAP4rev1 IDLE NOTIFY] Logged in
    ";
    let session = format!(
        r"{EXAMINE}
        C~ w2 NOTIFY SET (SELECTED (MessageNew (UID FLAGS BODY.PEEK[HEADER.FIELDS (
        S: w2 OK NOTIFY completed
        C: w3 IDLE
        S: + idling
        S: * OK Still here
        S: * OK Still here
        S: * 5 EXISTS
        S= * 5 FETCH (UID 10 FLAGS () BODY[HEADER.FIELDS (FROM)]<0> {{2}}\r\n\r\n)\r\n
        S: * OK Still here
        REACHED
        EOF"
    );
    ProviderScene::watched(login, &[&session]).await.gets_pushed().await.goes_on().end().await;
}

/// Every device behind one address counts together: the watch leaves its session to the person's second device.
#[tokio::test]
async fn posteo_counts_sessions_by_address_and_the_watch_gives_way() {
    let limit = "NO [LIMIT] Maximum number of connections from user+IP exceeded (mail_max_userip_connections=10)";
    let client = format!("{PLAIN}{CLIENT}");
    let watch = format!("{PLAIN}{EXAMINE}{IDLE}EOF");
    let works = format!("{PLAIN}C: c2 NOOP\nS: c2 OK\nEOF");
    let scene = ProviderScene::begin(&[&client, &watch, &refused(limit), &works]).await;
    let scene = scene.logs("watching account=alice@lab.test").await;
    let mut second = Client::plain(scene.deltapush.plain).await;
    second.expect_prefix("* OK").await;
    let reply = second.command("c1 LOGIN alice@lab.test sesame").await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    assert_eq!(second.command("c2 NOOP").await.result, "OK");
    let scene =
        scene.logs("account not watched: the mail server allows no more sessions, and the account's own client").await;
    let scene = scene.stays_away().await.goes_on();
    drop(second);
    scene.end().await;
}

#[tokio::test]
async fn without_a_watch_to_give_way_the_client_hears_the_servers_own_words() {
    let limit = "NO [LIMIT] Maximum number of connections from user+IP exceeded (mail_max_userip_connections=10)";
    let upstream = Scripted::start(&[&refused(limit)]).await;
    let deltapush = Deltapush::start(&Options::plain(upstream.port));
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    assert_eq!(client.command("c1 LOGIN alice@lab.test sesame").await.result, limit);
    drop(client);
    upstream.finish().await;
}

/// mailbox.org limits logins per time, for all clients of the account.
#[tokio::test]
async fn mailbox_org_limits_logins() {
    let answer = "NO [LIMIT] Too many logins";
    pauses(refused(answer), format!("the mail server refused the login: {answer}")).await;
}

/// 163, 126 and 188 open no mailbox for whom they do not know.
#[tokio::test]
async fn netease_wants_to_know_who_asks_before_it_opens_a_mailbox() {
    let login = "
        S: * OK Coremail System IMap Server Ready(163com)
        C: dp1 CAPABILITY
        S: * CAPABILITY IMAP4rev1 XLIST SPECIAL-USE ID LITERAL+ STARTTLS UIDPLUS IDLE SASL-IR AUTH=PLAIN
        S: dp1 OK done
        LOGIN
        S: <tag> OK LOGIN completed
        C: dp3 CAPABILITY
        S: * CAPABILITY IMAP4rev1 XLIST SPECIAL-USE ID LITERAL+ UIDPLUS IDLE
        S: dp3 OK done
    ";
    let watch = format!(
        "{login}
        C~ dp4 ID (\"name\" \"deltapush\" \"version\" \"
        S: * ID (\"name\" \"Coremail Imap\" \"vendor\" \"Mailtech\")
        S: dp4 OK ID completed
        {EXAMINE}{IDLE}{}",
        news()
    );
    ProviderScene::begin(&[&format!("{login}{CLIENT}"), &watch])
        .await
        .gets_pushed()
        .await
        .goes_on()
        .end()
        .await;
}

#[tokio::test]
async fn unsafe_configuration_is_warned_about() {
    let unsafe_login =
        format!("{PLAIN}C: w1 EXAMINE \"INBOX\"\nS: w1 NO EXAMINE Unsafe Login.\nEOF");
    pauses(&unsafe_login, "the mailbox cannot be opened: EXAMINE Unsafe Login.").await;
}

/// mail.ru: no IDLE, which is said and not made up for by polling. The next login leads to one more look.
#[tokio::test]
async fn mailru_cannot_be_watched() {
    const WORDS: &str = "the mail server does not support IDLE, and deltapush does not poll";
    let without = "
        S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] Welcome
        LOGIN
        S: <tag> OK [CAPABILITY IMAP4rev1 ID XLIST UIDPLUS] Authentication successful
    ";
    // ID comes only with the login, so that deltapush says it for the client too.
    let id = "C~ dp2 ID (\nS: dp2 OK\nEOF";
    let (client, watch) = (format!("{without}{id}"), format!("{without}{id}"));
    let advertised =
        format!("{PLAIN}{EXAMINE}C: w2 IDLE\nS: w2 BAD [CLIENTBUG] Unknown command\nEOF");
    tokio::join!(
        async {
            let scene = ProviderScene::begin(&[&client, &watch, &client, &watch]).await;
            let scene = scene
                .logs(&format!(
                    "{WORDS}: IDLE is not among its capabilities; account not watched until"
                ))
                .await;
            let scene = scene.stays_away().await;
            let mut again = Client::plain(scene.deltapush.plain).await;
            again.expect_prefix("* OK").await;
            assert!(again.command("c1 LOGIN alice@lab.test sesame").await.result.starts_with("OK"));
            let upstream = &scene.upstream;
            assert!(
                poll(Duration::from_secs(40), || upstream.connections() == 4).await,
                "not looked at again"
            );
            drop(again);
            scene.stays_away().await.end().await;
        },
        async {
            let scene = ProviderScene::begin(&[&format!("{PLAIN}{CLIENT}"), &advertised]).await;
            let scene = scene
                .logs(&format!(
                    "{WORDS}: Unknown command; account not watched until the client logs in"
                ))
                .await;
            scene.stays_away().await.end().await;
        },
    );
}

#[tokio::test]
async fn yandex_hangs_up_at_random() {
    let session = format!("{EXAMINE}{IDLE}CLOSE");
    comes_back(PLAIN, &session, "the mail server closed the session: without a reason").await;
}

/// o2.pl has ID before the login, where it does not work.
#[tokio::test]
async fn o2_has_id_before_the_login_that_works_after_it() {
    let login = "
        S: * OK [CAPABILITY IMAP4rev1 ID IDLE SASL-IR AUTH=PLAIN] ready
        LOGIN
        S: <tag> OK in
        C: dp2 CAPABILITY
        S: * CAPABILITY IMAP4rev1 ID IDLE
        S: dp2 OK done
    ";
    let watch = format!("{login}C~ dp3 ID (\"name\" \"deltapush\" \nS: * ID NIL\nS: dp3 OK done\n");
    let session = format!("{watch}{EXAMINE}{IDLE}{}", news());
    ProviderScene::begin(&[&format!("{login}{CLIENT}"), &session])
        .await
        .gets_pushed()
        .await
        .goes_on()
        .end()
        .await;
}

/// Purelymail says BYE to an ID that it did not offer: whatever came instead of EXAMINE would fail the dialogue.
#[tokio::test]
async fn purelymail_offers_no_id_and_gets_none() {
    is_watched(PLAIN).await;
}

#[tokio::test]
async fn smartermail_tells_its_capabilities_inside_the_login() {
    let login = "
        S: * OK IMAP4rev1 SmarterMail
        CAPS IMAP4rev1 AUTH=CRAM-MD5 UIDPLUS QUOTA XLIST CHILDREN IDLE
        LOGIN
        S: * CAPABILITY IMAP4rev1 UIDPLUS QUOTA XLIST CHILDREN IDLE
        S: <tag> OK LOGIN completed
    ";
    is_watched(login).await;
}

/// Stalwart bans an address after failures, and the proxy's is the one it sees: a refused password is tried once. The
/// client's login with the new one goes on with the watch.
#[tokio::test]
async fn stalwart_bans_so_a_refused_password_is_tried_once() {
    let works = |password: &str| {
        format!(
            "S: * OK [CAPABILITY IMAP4rev1 IDLE] Stalwart
            C: dp1 LOGIN \"alice@lab.test\" \"{password}\"
            S: dp1 OK [CAPABILITY IMAP4rev1 IDLE] in\n"
        )
    };
    let changed = "
        S: * OK [CAPABILITY IMAP4rev1 IDLE] Stalwart
        C: dp1 LOGIN \"alice@lab.test\" \"sesame\"
        S: dp1 NO [AUTHENTICATIONFAILED] Authentication failed
        EOF";
    let client = format!("{}{CLIENT}", works("sesame"));
    // Watched until the password is changed, which ends all sessions.
    let first = format!("{}{EXAMINE}{IDLE}S: * BYE password changed\nCLOSE", works("sesame"));
    let (again, second) = (format!("{}{CLIENT}", works("new")), catch_up(&works("new")));
    let scene = ProviderScene::begin(&[&client, &first, changed, &again, &second]).await;
    let words = "the mail server refused the login: NO [AUTHENTICATIONFAILED] Authentication failed; account not watched until";
    let scene = scene.logs(words).await.stays_away().await;
    assert_eq!(scene.upstream.connections(), 3);
    let mut anew = Client::plain(scene.deltapush.plain).await;
    anew.expect_prefix("* OK").await;
    let reply = anew.command("c1 LOGIN alice@lab.test new").await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    let scene = scene.gets_pushed().await;
    drop(anew);
    scene.end().await;
}

/// The client hears a refused password as its server said it.
#[tokio::test]
async fn refused_password_is_the_servers_word() {
    let answer = "NO [AUTHENTICATIONFAILED] Authentication failed";
    let upstream = Scripted::start(&[&refused(answer)]).await;
    let deltapush = Deltapush::start(&Options::plain(upstream.port));
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    assert_eq!(client.command("c1 LOGIN alice@lab.test sesame").await.result, answer);
    drop(client);
    upstream.finish().await;
}

#[tokio::test]
async fn codes_about_the_moment_are_no_wrong_password() {
    let answers = [
        "NO [OVERQUOTA] Account exceeded command or bandwidth limits. (Failure)",
        "NO [THROTTLED] Throttled (Failure)",
    ];
    for pair in answers.chunks(2) {
        let pause = |answer: &'static str| async move {
            pauses(refused(answer), format!("the mail server refused the login: {answer}")).await;
        };
        tokio::join!(pause(pair[0]), pause(pair[1]));
    }
}

#[tokio::test]
async fn server_that_is_out_of_order_for_a_moment_is_asked_again_soon() {
    tokio::join!(
        is_asked_again_soon("NO [INUSE] Mailbox is locked"),
        is_asked_again_soon("NO [UNAVAILABLE] Temporary authentication failure. [mail:2026]")
    );
}

#[tokio::test]
async fn codes_about_the_account_end_the_watch_until_the_client_logs_in() {
    let ends = |answer: &'static str| async move {
        let scene = ProviderScene::begin(&[&format!("{PLAIN}{CLIENT}"), &refused(answer)]).await;
        let words = format!(
            "the mail server refused the login: {answer}; account not watched until the client logs in again"
        );
        scene.logs(&words).await.stays_away().await.end().await;
    };
    tokio::join!(
        ends("NO [AUTHORIZATIONFAILED] No such mailbox"),
        ends("NO [EXPIRED] That password has expired")
    );
}

/// A session that lives as long as an access token: an hour. The next one logs in anew, which a password always can.
#[tokio::test]
async fn outlook_ends_a_session_with_its_token() {
    let session =
        format!("{EXAMINE}{IDLE}S: * BYE Session invalidated - AccessTokenExpired\nCLOSE");
    comes_back(PLAIN, &session, "closed the session: Session invalidated - AccessTokenExpired")
        .await;
}

/// Yahoo and AOL: many capabilities that the watch has no use for.
#[tokio::test]
async fn yahoo_has_much_that_is_not_used() {
    let login = "
        S: * OK [CAPABILITY IMAP4rev1 ID NAMESPACE UIDPLUS LITERAL+ CHILDREN UNSELECT XSENDER X-NETSCAPE XSERVERINFO OBJECTID SASL-IR AUTH=PLAIN AUTH=XOAUTH2] IMAP4rev1 Hello
        LOGIN
        S: * CAPABILITY IMAP4rev1 NAMESPACE UIDPLUS LITERAL+ CHILDREN UNSELECT IDLE MOVE PARTIAL UIDONLY OBJECTID
        S: <tag> OK AUTHENTICATE completed
    ";
    is_watched(login).await;
}

/// mox: NOTIFY and much else, and nothing of ID before the login.
#[tokio::test]
async fn mox_notifies() {
    let login = "
        S: * OK [CAPABILITY IMAP4rev2 IMAP4rev1 ENABLE LITERAL+ IDLE SASL-IR BINARY UNSELECT UIDPLUS AUTH=SCRAM-SHA-256 AUTH=PLAIN] mox imap
        LOGIN
        S: <tag> OK [CAPABILITY IMAP4rev2 IMAP4rev1 IDLE METADATA NOTIFY CONDSTORE QRESYNC UIDONLY PREVIEW] done
    ";
    let session = format!(
        r"{EXAMINE}
        C~ w2 NOTIFY SET (SELECTED (MessageNew (UID FLAGS BODY.PEEK[HEADER.FIELDS (
        S: w2 OK done
        C: w3 IDLE
        S: + waiting
        S: * 5 EXISTS
        S= * 5 FETCH (UID 10 BODY[HEADER.FIELDS (From Auto-Submitted Message-Id Content-Type Secure-Join)]<0> {{2}}\r\n\r\n FLAGS ())\r\n
        REACHED
        EOF"
    );
    // It keeps metadata, and is asked for a value that deltapush would otherwise answer by itself.
    let client = format!(
        "{login}
        C~ dp2 GETMETADATA \"\" (
        S: dp2 OK done
        {CLIENT}"
    );
    ProviderScene::begin(&[&client, &format!("{login}{session}")])
        .await
        .gets_pushed()
        .await
        .goes_on()
        .end()
        .await;
}

/// mox: 30 connections of an address, and 50 failed logins in a day, after which it greets no more.
#[tokio::test]
async fn mox_counts_connections_by_address() {
    let full = "too many open connections from your ip or network";
    let failed = "too many auth failures";
    let pause = |words: &'static str| {
        let session = format!("S: * BYE {words}\nCLOSE");
        pauses(session, format!("the mail server closed the connection: {words}"))
    };
    tokio::join!(pause(full), pause(failed));
}

/// Stalwart: 16 sessions, and no word during IDLE.
#[tokio::test]
async fn stalwart_has_too_few_sessions() {
    let answer = "NO [LIMIT] Too many concurrent IMAP connections.";
    pauses(refused(answer), format!("the mail server refused the login: {answer}")).await;
}

/// DavMail pads numbers with spaces.
#[tokio::test]
async fn davmail_pads_its_numbers() {
    let session = format!(
        r#"
        C: w1 EXAMINE "INBOX"
        S: *    4 EXISTS
        S: * OK [UIDVALIDITY  1713632002544] ok
        S: *  OK [UIDNEXT   10] ok
        S: w1  OK [READ-ONLY] done
        {IDLE}
        S: *    5 EXISTS
        C: DONE
        S:  w2 OK
        C~ w3 UID FETCH 10:* (
        S= *   5  FETCH (  UID 10  FLAGS ()  BODY[HEADER.FIELDS (FROM)]<0> {{2}}\r\n\r\n)\r\n
        S: w3  OK
        C: w4 IDLE
        S: +
        REACHED
        EOF
        "#
    );
    ProviderScene::watched(PLAIN, &[&session]).await.gets_pushed().await.end().await;
}

/// The position moves although no UID was given: the next look asks for the next message only.
#[tokio::test]
async fn answer_without_a_uid_is_announced_once() {
    let session = format!(
        r"
        {EXAMINE}
        {IDLE}
        S: * 5 EXISTS
        C: DONE
        S: w2 OK
        C~ w3 UID FETCH 10:* (
        S= * 5 FETCH (FLAGS () BODY[HEADER.FIELDS (FROM)]<0> {{2}}\r\n\r\n)\r\n
        S: w3 OK
        C: w4 IDLE
        S: + idling
        S: * 6 EXISTS
        C: DONE
        S: w4 OK
        C~ w5 FETCH 6:* (
        S= * 6 FETCH (FLAGS () BODY[HEADER.FIELDS (FROM)]<0> {{2}}\r\n\r\n)\r\n
        S: w5 OK
        C: w6 IDLE
        S: + idling
        REACHED
        EOF
        "
    );
    let scene = ProviderScene::watched(PLAIN, &[&session]).await.gets_pushed().await;
    let scene = scene
        .logs("the responses of the mail server are incomplete: it sends no UID of a message")
        .await;
    assert_eq!(
        scene.deltapush.log().matches("responses of the mail server are incomplete").count(),
        1
    );
    scene.end().await;
}

/// A client has waited in DeltaChat, which is gone: INBOX is watched, with and without NOTIFY.
#[tokio::test]
async fn deleted_mailbox_does_not_stop_inbox() {
    let opened = EXAMINE.replace("w1", "w2");
    let refused = "C: w1 EXAMINE \"DeltaChat\"\nS: w1 NO [NONEXISTENT] no such mailbox";
    let with_idle = format!(
        "{refused}{opened}
        C: w3 IDLE
        S: + idling
        S: * 5 EXISTS
        C: DONE
        S: w3 OK
        {}
        C: w5 IDLE
        S: + idling
        REACHED
        EOF",
        fetch("w4")
    );
    let with_notify = format!(
        r"{refused}{opened}
        C~ w3 NOTIFY SET (SELECTED (
        S: w3 OK
        C: w4 IDLE
        S: + idling
        S: * 5 EXISTS
        S= * 5 FETCH (UID 10 FLAGS () BODY[HEADER.FIELDS (FROM)]<0> {{2}}\r\n\r\n)\r\n
        REACHED
        EOF"
    );
    tokio::join!(
        inbox_is_watched("", "w2 IDLE", &with_idle),
        inbox_is_watched(" NOTIFY", "", &with_notify)
    );
}

async fn inbox_is_watched(notify: &str, idle: &str, session: &str) {
    let login = format!(
        "
        S: * OK [CAPABILITY IMAP4rev1 SASL-IR IDLE AUTH=PLAIN] ready
        LOGIN
        S: <tag> OK [CAPABILITY IMAP4rev1 IDLE{notify}] in
        "
    );
    let client = format!(
        "{login}
        GATE
        C: c3 SELECT DeltaChat
        S: c3 OK [READ-WRITE] done
        C: c4 IDLE
        S: + idling
        EOF"
    );
    let set =
        if idle.is_empty() { "C~ w2 NOTIFY SET (\nS: w2 OK\nC: w3 IDLE" } else { "C: w2 IDLE" };
    let before = format!("{login}{EXAMINE}{set}\nS: + idling\nEOF");
    let mut scene = ProviderScene::begin(&[&client, &before, &format!("{login}{session}")]).await;
    scene = scene.logs("watching account=alice").await;
    scene.upstream.open_gate();
    assert!(scene.client.command("c3 SELECT DeltaChat").await.result.starts_with("OK"));
    scene.client.send("c4 IDLE").await;
    scene.client.expect("+ idling").await;
    let scene = scene.gets_pushed().await.logs("mailbox \"DeltaChat\" is not watched").await;
    scene.goes_on().end().await;
}
