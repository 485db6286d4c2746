//! The phones: yours, a real core that is set up by the login code, and a friend's.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use super::internet::Internet;
use crate::support::core::{Core, Version};

/// The value of the event at which two contacts have verified each other.
const DONE: u64 = 1000;

/// An app with one account.
pub(crate) struct Phone {
    core: Core,
    account: u64,
}

impl Phone {
    /// Scans the login code in a fresh app that gets pushes. A core trusts Mozilla's list of authorities, which a test cannot
    /// join, and keys that it has verified before: those of the two servers.
    pub(crate) async fn scan(code: &str, imap: &Path, smtp: &Path) -> Self {
        let mut core = Core::start(Version::CurrentWithToken).await;
        let account = core.add_empty_account().await;
        let keys = [("push.example.org", key_of(imap)), ("smtp.example.org", key_of(smtp))];
        core.verify_before(account, &keys).await;
        let scanned = core.call("check_qr", json!([account, code])).await;
        assert_eq!(scanned["kind"], "login", "{scanned}");
        core.call("add_transport_from_qr", json!([account, code])).await;
        let mut phone = Self { core, account };
        phone.foreground().await;
        phone
    }

    /// A friend's phone, whose account is at the provider, without deltapush.
    pub(crate) async fn of_friend(internet: &Internet) -> Self {
        let mut core = Core::start(Version::Current).await;
        let Internet { dovecot, submission, .. } = internet;
        let user = dovecot.user_of("friend@example.org".to_owned());
        let account = core.add_account(&user, dovecot.imaps, submission.port).await;
        let mut phone = Self { core, account };
        phone.foreground().await;
        phone
    }

    /// Opens the app.
    pub(crate) async fn foreground(&mut self) {
        self.core.call("start_io_for_all_accounts", json!([])).await;
        self.core.event(self.account, "ImapInboxIdle").await;
    }

    /// Puts the app into the background, as a phone's system does.
    pub(crate) async fn background(&mut self) {
        self.core.call("stop_io_for_all_accounts", json!([])).await;
    }

    /// The fetch that a push makes the phone's system start.
    pub(crate) async fn fetch_in_background(&mut self) {
        self.core.call("background_fetch", json!([15.0])).await;
    }

    /// The text of the next message.
    pub(crate) async fn read(&mut self) -> String {
        self.core.incoming(self.account).await.1
    }

    /// Scans the QR code that the other app shows; returns the chat with its owner.
    pub(crate) async fn befriend(&mut self, other: &mut Self) -> Value {
        let code =
            other.core.call("get_chat_securejoin_qr_code", json!([other.account, null])).await;
        let chat = self.core.call("secure_join", json!([self.account, code])).await;
        while self.core.event(self.account, "SecurejoinJoinerProgress").await["progress"] != DONE {}
        chat
    }

    /// Writes into a chat.
    pub(crate) async fn write(&mut self, chat: &Value, text: &str) {
        self.core.call("misc_send_text_message", json!([self.account, chat, text])).await;
    }
}

/// The hash of the public key in a certificate, as a core remembers it.
fn key_of(certificate: &Path) -> String {
    let certificate = CertificateDer::from_pem_file(certificate).unwrap();
    let key = crate::support::tls::public_key(&certificate);
    BASE64_STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &key))
}
