//! A family behind one address that mistypes its passwords: nobody is locked out at a mail server of their own, for which
//! `init` writes wider limits, and a household that is limited does not limit others.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::attack::found_by_fail2ban;
use crate::setup;
use crate::support::client::{Client, quoted};
use crate::support::deltapush::{Deltapush, Options};
use crate::support::dovecot::{self, Dovecot, PASSWORD, Setup};

/// The address of the household, and another one.
const HOME: Ipv4Addr = Ipv4Addr::new(127, 0, 20, 1);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 30, 1);

/// Delays that do not slow the test down; the limits stay.
const QUICK: &str = "    delay: 10ms\n    longest_delay: 50ms\n";

/// The limits that `init` writes for this mail server, which has an address of this machine.
fn limits_of_init(dovecot: &Dovecot, user: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let upstream = format!("imaps://localhost:{}", dovecot.imaps);
    let ca = dovecot.authority.ca.to_str().unwrap();
    let options = ["--ca", ca, "--hostname", "localhost", "--smtp", "smtps://smtp.lab.test"];
    let arguments = [&["init", user, "--upstream", &upstream][..], &options].concat();
    let made = setup::deltapush(folder.path(), &arguments, "");
    assert!(made.status.success(), "{}", setup::text(&made.stderr));
    let written = fs::read_to_string(folder.path().join("config.yaml")).unwrap();
    let (_, rest) = written.split_once("\nlimits:\n").expect("init writes limits");
    let (section, _) = rest.split_once("\n\n").unwrap();
    assert!(section.contains("    per_upstream: 100\n    per_upstream_day: 1000"), "{written}");
    format!("limits:\n{section}\n")
}

/// People with accounts at one mail server behind one deltapush.
struct Family {
    deltapush: Deltapush,
    people: [String; 3],
}

impl Family {
    fn start(name: &str, limits: impl FnOnce(&Dovecot, &str) -> String) -> Self {
        let dovecot = dovecot::shared(Setup::Vanilla);
        let people = ["mum", "dad", "child"].map(|who| dovecot.user(&format!("{name}-{who}")));
        let more = limits(dovecot, &people[0]) + QUICK;
        Self { deltapush: Deltapush::start(&Options { more, ..Options::dovecot(dovecot) }), people }
    }

    /// The answer to a login from this address.
    async fn login(&self, address: Ipv4Addr, user: &str, password: &str) -> String {
        let mut client = Client::plain_from(address, self.deltapush.plain).await;
        client.expect_prefix("* OK").await;
        client.command(&format!("c1 LOGIN {user} {}", quoted(password))).await.result
    }

    /// Two people at home mistype their passwords twice each, differently.
    async fn mistype(&self) {
        for user in &self.people[..2] {
            for password in ["seasme", "sesaem"] {
                let answer = self.login(HOME, user, password).await;
                assert!(answer.starts_with("NO [AUTHENTICATIONFAILED]"), "{answer}");
            }
        }
    }

    async fn expect_in(&self, address: Ipv4Addr, user: &str) {
        let answer = self.login(address, user, PASSWORD).await;
        assert!(answer.starts_with("OK"), "{user} from {address}: {answer}\n{}", self.log());
    }

    /// Expects a login from home with the right password to be refused for a limit, in these words and with the time.
    async fn expect_refusal(&self, user: &str, words: &str) {
        let answer = self.login(HOME, user, PASSWORD).await;
        assert_eq!(answer, format!("NO [UNAVAILABLE] {words} Try again in 10 minutes."));
    }

    /// Expects fail2ban to find the logins that failed, and none that was refused for a limit.
    fn expect_found(&self, failed: usize) {
        let found = found_by_fail2ban(&self.log(), self.deltapush.dir());
        assert_eq!(found, vec![HOME.to_string(); failed], "{}", self.log());
    }

    fn log(&self) -> String {
        self.deltapush.log()
    }
}

#[tokio::test]
async fn family_with_a_mail_server_of_its_own_does_not_lock_itself_out() {
    let family = Family::start("own-server", limits_of_init);
    family.mistype().await;
    let began = Instant::now();
    family.expect_in(HOME, &family.people[2]).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for user in &family.people[..2] {
        family.expect_in(HOME, user).await;
    }
    assert!(!family.log().contains("login not tried"), "{}", family.log());
}

#[tokio::test]
async fn family_at_a_provider_is_told_the_limit_and_the_time() {
    let family = Family::start("provider", |_, _| "limits:\n  failed_logins:\n".to_owned());
    family.mistype().await;
    let child = &family.people[2];
    family.expect_refusal(child, "Too many wrong passwords at this mail server.").await;
    let line = format!(
        "login not tried from {HOME}: limit per_upstream is reached for 10 minutes, user \"{child}\""
    );
    assert!(family.log().contains(&line), "no {line:?} in {}", family.log());
    family.expect_found(4);
}

#[tokio::test]
async fn household_at_its_limit_does_not_limit_others() {
    let family = Family::start("household", limits_of_init);
    let [mum, dad, child] = &family.people;
    family.expect_in(HOME, mum).await;
    // As many as `per_address`, at accounts with no more than `per_account` each.
    for number in 0..10 {
        let user = format!("stranger{}@lab.test", number % 5);
        let answer = family.login(HOME, &user, &format!("guess{number}")).await;
        assert!(answer.starts_with("NO [AUTHENTICATIONFAILED]"), "{number}: {answer}");
    }
    family.expect_refusal(dad, "Too many wrong passwords from this network.").await;
    family.expect_found(10);
    family.expect_in(ELSEWHERE, child).await;
    // Her password has been right at home before.
    family.expect_in(HOME, mum).await;
}
