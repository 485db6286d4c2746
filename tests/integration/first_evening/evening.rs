//! An evening on a VPS: the steps after the installation that people take whichever way they installed deltapush, and the output that
//! the page promises for each.

use serde_json::Value;
use tokio::task::block_in_place;

use super::internet::Internet;
use super::page::promised;
use super::phone::Phone;
use super::vps::{Vps, show, text_of};
use crate::setup;
use crate::support::dovecot::PASSWORD;
use crate::support::poll;
use crate::support::scene::PATIENCE;

pub(super) const YOU: &str = "you@example.org";
/// The certificate that deltapush shows in the end.
const CERTIFICATE: &str = "/var/lib/deltapush/certs/push.example.org.acme.pem";

/// The machine, the internet around it, and the phones.
pub(super) struct Evening {
    pub(super) vps: Vps,
    pub(super) internet: Internet,
    /// The login code that `init` shows.
    code: String,
    phone: Option<Phone>,
    /// The friend's phone, and its chat with you.
    friend: Option<(Phone, Value)>,
}

impl Evening {
    /// Starts the internet around a machine.
    pub(super) async fn start(vps: Vps) -> Self {
        let internet = Internet::start().await;
        internet.dovecot.user_of(YOU.to_owned());
        vps.takes_names_and_authorities();
        Self { vps, internet, code: String::new(), phone: None, friend: None }
    }

    /// Section 4. One thing is unlike the page: the provider's certificate is of an authority that only this machine trusts.
    pub(super) fn initializes(&mut self, command: &str) {
        let answers = [
            ("Password of you@example.org", PASSWORD),
            ("Let's Encrypt issues a certificate", "y"),
            ("Accept only logins of you@example.org?", "y"),
            (promised("Start deltapush now, and at each boot?"), ""),
        ];
        let line = format!("{command} --ca system");
        let shown = block_in_place(|| self.vps.converse(&line, &answers));
        for words in [promised("IDLE: yes"), "Created /etc/deltapush/config.yaml."] {
            assert!(shown.contains(words), "no {words:?} in {shown}");
        }
        expect_well(&shown);
        assert!(!shown.contains(PASSWORD), "{shown}");
        self.code = setup::read_terminal(&shown);
        assert!(self.code.starts_with("dclogin://you@example.org/?p="), "{}", self.code);
    }

    /// Section 5. The phone scans the code that `init` showed, and `qr` shows again.
    pub(super) async fn scans(&mut self) {
        let answers = [("Password of you@example.org", PASSWORD)];
        let shown = block_in_place(|| {
            self.vps.converse(promised("deltapush qr you@example.org"), &answers)
        });
        assert_eq!(setup::read_terminal(&shown), self.code, "`qr` shows another code");
        let certificate = self.vps.path(CERTIFICATE);
        let phone = Phone::scan(&self.code, &certificate, &self.internet.smtp).await;
        self.phone = Some(phone);
    }

    /// Section 5. `deltapush doctor` finds all well.
    pub(super) fn is_well(&self, command: &str) {
        let shown = block_in_place(|| self.vps.expect(command));
        expect_well(&shown);
        for words in ["runs since", "IDLE works", "1 account with a device, 1 watched", "clock"] {
            assert!(shown.contains(words), "no {words:?} in {shown}");
        }
    }

    /// Waits until `deltapush status` shows a watched account with a device.
    pub(super) async fn is_watched(&self, command: &str) {
        let watching = promised("watch    watching since …").trim_end_matches('…');
        let device = format!("  {} ", promised("device"));
        let mut shown = String::new();
        let is_there = poll(PATIENCE, || {
            shown = self.vps.output_of(command);
            [YOU, watching, &device].iter().all(|words| shown.contains(words))
        });
        assert!(is_there.await, "{shown}");
        show(shown);
    }

    /// Section 6. The app is in the background, and the push makes it connect.
    pub(super) async fn wakes_the_phone(&mut self, command: &str) {
        let phone = self.phone.as_mut().unwrap();
        phone.background().await;
        let before = self.internet.notify.posted().len();
        let test = self.vps.begin(command);
        self.internet.notify.wait_for(before + 1, PATIENCE).await;
        phone.fetch_in_background().await;
        let output = block_in_place(|| test.wait_with_output()).unwrap();
        let shown = show(text_of(&output));
        let first = shown.lines().next().unwrap_or_default();
        assert!(output.status.success() && first.contains(promised("accepted")), "{shown}");
    }

    /// Section 7. A friend scans your code, and writes when your app is in the background again.
    pub(super) async fn gets_a_message(&mut self, command: &str) {
        let mut friend = Phone::of_friend(&self.internet).await;
        let phone = self.phone.as_mut().unwrap();
        phone.foreground().await;
        let chat = friend.befriend(phone).await;
        phone.background().await;
        self.friend = Some((friend, chat));
        self.is_pushed("are you awake?").await;
        let history = self.vps.expect(command);
        for words in
            ["new mail", promised("POST"), promised("accepted"), "connected for a background fetch"]
        {
            assert!(history.contains(words), "no {words:?} in {history}");
        }
    }

    /// The friend writes; the push makes the phone fetch the message.
    pub(super) async fn is_pushed(&mut self, text: &str) {
        self.writes(text).await;
        self.reads(text).await;
    }

    /// The friend writes, and the notification server gets a push.
    pub(super) async fn writes(&mut self, text: &str) {
        self.has_no_push_left().await;
        let before = self.internet.notify.posted().len();
        let (friend, chat) = self.friend.as_mut().unwrap();
        friend.write(chat, text).await;
        self.internet.notify.wait_for(before + 1, PATIENCE).await;
    }

    /// The phone fetches the message.
    pub(super) async fn reads(&mut self, text: &str) {
        let phone = self.phone.as_mut().unwrap();
        phone.fetch_in_background().await;
        while phone.read().await != text {}
    }

    /// Waits until no push is outstanding for a message before.
    async fn has_no_push_left(&self) {
        let mut shown = String::new();
        let is_so = poll(PATIENCE, || {
            shown = self.vps.output_of("deltapush status --json");
            serde_json::from_str::<Value>(&shown).unwrap()["counts"]["pending"] == 0
        });
        assert!(is_so.await, "{shown}");
    }
}

/// Expects findings without a failure, and only the warning of the certificate: Pebble's authority is one that no phone knows.
#[track_caller]
pub(super) fn expect_well(shown: &str) {
    let findings = |verdict: &str| {
        let lines = shown.lines().filter(|line| line.starts_with(verdict));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(findings("fail  ").is_empty(), "{shown}");
    let warnings = findings("warn  ");
    let [warning] = warnings.as_slice() else { panic!("{shown}") };
    assert!(warning.starts_with("warn  certificate  it is for push.example.org"), "{shown}");
    for subject in ["hostname", "listen"] {
        assert!(findings("ok  ").iter().any(|line| line.contains(subject)), "{shown}");
    }
}
