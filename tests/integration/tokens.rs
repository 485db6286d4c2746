//! Accounts whose provider takes access tokens alone: the configuration of docs/recipes.md with email-oauth2-proxy, a Dovecot
//! that believes its tokens, and a real core.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::support::authority::TokenAuthority;
use super::support::client::{Client, quoted};
use super::support::core::{Core, Submission, Version};
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{self, Dovecot, PASSWORD, Setup};
use super::support::emailproxy::{EmailProxy, SECTION, Servers};
use super::support::notify::NotifyServer;
use super::support::{poll, python, recipe};

const PATIENCE: Duration = Duration::from_secs(40);

/// An account behind email-oauth2-proxy behind deltapush, and nobody has allowed access yet.
struct TokenScene {
    dovecot: &'static Dovecot,
    user: String,
    authority: TokenAuthority,
    proxy: EmailProxy,
    deltapush: Deltapush,
    notify: NotifyServer,
    _submission: Submission,
}

impl TokenScene {
    async fn start(name: &str) -> Self {
        let dovecot = dovecot::shared(Setup::Mechanisms);
        let user = dovecot.user(name);
        let authority = TokenAuthority::start(&user, dovecot.authority.server_config()).await;
        let submission = Submission::start_for_tokens(dovecot).await;
        let proxy = EmailProxy::start(&Servers {
            user: &user,
            dovecot,
            smtp: submission.port,
            authority: authority.port,
        });
        let notify = NotifyServer::start().await;
        let routes = recipe::replaced(
            &recipe::routes(SECTION),
            &[
                ("alice@outlook.com", &user),
                (":2993", &format!(":{}", proxy.imap)),
                ("push.example.org:465", &format!("localhost:{}", proxy.smtp)),
            ],
        );
        let deltapush = Deltapush::start(&Options {
            routes: Some(routes),
            notify_url: notify.url.clone(),
            // A login that waits for a person is given up sooner than after half a minute.
            more: "limits:\n  upstream_time: 4s\n".to_owned(),
            trace: true,
            ..Options::plain(0)
        });
        Self { dovecot, user, authority, proxy, deltapush, notify, _submission: submission }
    }

    /// Types the page's command, and enters the code that the log shows meanwhile.
    async fn allow_access(&self) {
        let commands = recipe::block(SECTION, "sh", "curl --user");
        let command = commands.lines().find(|line| line.starts_with("curl")).unwrap();
        let port = format!(":{}/", self.proxy.imap);
        let command =
            recipe::replaced(command, &[("alice@outlook.com", &self.user), (":2993/", &port)]);
        let typing = type_in_terminal(&command, &[("password", PASSWORD)]);
        let entering = async {
            self.proxy.logs("Visit https://authority.test/device and use code CODE00001", 1).await;
            self.authority.enter("CODE00001");
        };
        let (output, ()) = tokio::join!(typing, entering);
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && shown.contains("INBOX"), "{output:?}");
    }

    async fn log_in(&self, password: &str) -> String {
        let mut client = Client::plain(self.deltapush.plain).await;
        client.expect_prefix("* OK").await;
        client.command(&format!("c1 LOGIN {} {}", self.user, quoted(password))).await.result
    }

    async fn status_has(&self, words: &str) {
        let shown = poll(PATIENCE, || self.deltapush.status().contains(words)).await;
        assert!(shown, "no {words:?}: {}", self.deltapush.status());
    }

    /// Delivers mail and expects the push for it, the `n`th in all.
    async fn is_woken(&mut self, n: usize) {
        self.dovecot.deliver_news(&self.user, "are you there?").await;
        let posted = self.notify.wait_for(n, PATIENCE).await;
        assert!(posted[n - 1].token.starts_with("openpgp:"), "{posted:?}");
    }
}

async fn type_in_terminal(command: &str, answers: &[(&str, &str)]) -> Output {
    let mut terminal = python::script("terminal.py");
    terminal.args(command.split(' ')).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = tokio::process::Command::from(terminal).kill_on_drop(true).spawn().unwrap();
    child.stdin.take().unwrap().write_all(json!(answers).to_string().as_bytes()).await.unwrap();
    child.wait_with_output().await.unwrap()
}

#[tokio::test]
async fn core_without_tokens_is_pushed_by_a_provider_that_takes_nothing_else() {
    let mut scene = TokenScene::start("tokens").await;
    scene.allow_access().await;
    let mut core = Core::start(Version::CurrentWithToken).await;
    let account = core.add_account(&scene.user, scene.deltapush.imaps, scene.proxy.smtp).await;
    let submission = Submission::start(scene.dovecot).await;
    let friend = scene.dovecot.user("tokens-friend");
    let mut other = Core::start(Version::Current).await;
    let friends = other.add_account(&friend, scene.dovecot.imaps, submission.port).await;
    for core in [&mut core, &mut other] {
        core.call("start_io_for_all_accounts", json!([])).await;
    }
    other.event(friends, "ImapInboxIdle").await;
    let card = other.vcard(friends).await;
    core.write_to(account, card, "sent with a token").await;
    assert_eq!(other.incoming(friends).await.1, "sent with a token");

    scene.dovecot.wait_for_watch(&scene.user, 1).await;
    core.kill().await;
    scene.is_woken(1).await;
    // The watch logs in with the password, and each login fetches a token.
    assert!(scene.authority.refreshed() >= 2, "{}", scene.proxy.log());
    let password_was_stored = [Path::new("tokens"), Path::new("log")]
        .iter()
        .any(|file| scene.proxy.read(file).contains(PASSWORD));
    assert!(!password_was_stored, "email-oauth2-proxy writes passwords down");
}

#[tokio::test]
async fn watch_outlives_an_authority_that_is_out_of_order_and_a_wrong_password() {
    let mut scene = TokenScene::start("tokens-outage").await;
    scene.allow_access().await;
    let mut phone = Client::tls(scene.deltapush.imaps, &scene.deltapush.certificate()).await;
    phone.log_in(&scene.user).await;
    let set = phone.command("c2 SETMETADATA INBOX (/private/devicetoken \"openpgp:phone\")").await;
    assert!(set.result.starts_with("OK"), "{set:?}");
    drop(phone);
    scene.dovecot.wait_for_watch(&scene.user, 1).await;

    scene.authority.set_out_of_order(true);
    scene.deltapush.restart();
    scene.status_has("internet connection").await;
    assert!(scene.log_in(PASSWORD).await.contains("internet connection"));
    scene.authority.set_out_of_order(false);
    scene.dovecot.wait_for_watch(&scene.user, 2).await;
    scene.is_woken(1).await;

    let refused = scene.log_in("guessed").await;
    assert!(refused.starts_with("NO") && refused.contains("incorrect"), "{refused}");
    assert_eq!(scene.authority.newest_code().as_deref(), Some("CODE00001"), "access was lost");
    assert!(scene.log_in(PASSWORD).await.starts_with("OK"), "{}", scene.proxy.log());
    scene.is_woken(2).await;
}

#[tokio::test]
async fn watch_waits_for_the_person_when_access_was_withdrawn() {
    let mut scene = TokenScene::start("tokens-withdrawn").await;
    scene.allow_access().await;
    let mut phone = Client::tls(scene.deltapush.imaps, &scene.deltapush.certificate()).await;
    phone.log_in(&scene.user).await;
    phone.command("c2 SETMETADATA INBOX (/private/devicetoken \"openpgp:phone\")").await;
    drop(phone);
    scene.dovecot.wait_for_watch(&scene.user, 1).await;

    scene.authority.withdraw();
    scene.deltapush.restart();
    scene.proxy.logs("use code CODE00002", 1).await;
    scene.status_has("the mail server did not answer within 4s").await;
    // Each try has a code of its own, and the newest is the one that a person sees last.
    let newest = scene.authority.newest_code().unwrap();
    scene.proxy.logs(&format!("use code {newest}"), 1).await;
    scene.authority.enter(&newest);
    scene.status_has("watch    watching").await;
    scene.is_woken(1).await;
}
