//! The admin listener of the real binary: who gets in, metrics as Prometheus reads them, health, and the page in a browser.

mod access;
mod accessibility;
pub(crate) mod dashboard;
mod health;
mod metrics;
mod page;

use std::fs;
use std::time::Duration;

use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::Setup;
use super::support::ports::{ReservedPort, wait_for_port};
use super::support::scene::DovecotScene;

/// A deltapush with an admin listener.
struct Admin {
    port: ReservedPort,
    password: String,
}

/// The configuration of one on this port.
fn wanted(port: &ReservedPort) -> String {
    format!("admin:\n  address: 127.0.0.1:{}\n", port.number())
}

impl Admin {
    fn of(deltapush: &Deltapush, port: ReservedPort) -> Self {
        assert!(wait_for_port(port.number(), Duration::from_secs(40)), "{}", deltapush.log());
        // reqwest takes the process's default.
        let _ = deltapush::crypto::provider();
        let password = fs::read_to_string(deltapush.dir().join("state/admin.password")).unwrap();
        Self { port, password: password.trim().to_owned() }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port.number())
    }

    /// The address for a browser, with the password in it.
    fn url_with_password(&self, path: &str) -> String {
        format!("http://admin:{}@127.0.0.1:{}{path}", self.password, self.port.number())
    }

    /// Fetches a path without a password: status and text.
    async fn get(&self, path: &str) -> (u16, String) {
        let answer = reqwest::get(self.url(path)).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// And with it.
    async fn get_with_password(&self, path: &str) -> (u16, String) {
        let request =
            reqwest::Client::new().get(self.url(path)).basic_auth("admin", Some(&self.password));
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

/// A deltapush without an upstream.
fn alone() -> (Deltapush, Admin) {
    let port = ReservedPort::new();
    let deltapush = Deltapush::start(&Options { more: wanted(&port), ..Options::plain(9) });
    let admin = Admin::of(&deltapush, port);
    (deltapush, admin)
}

/// One with an account in Dovecot and a notification server.
async fn scene(name: &str, change: impl FnOnce(&mut Options)) -> (DovecotScene, Admin) {
    let port = ReservedPort::new();
    let scene = DovecotScene::with(Setup::Vanilla, name, |options| {
        options.more = wanted(&port);
        change(options);
    })
    .await;
    let admin = Admin::of(&scene.deltapush, port);
    (scene, admin)
}
