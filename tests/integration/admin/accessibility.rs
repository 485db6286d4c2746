//! Accessibility of the operator's pages, in all their states.

use super::super::support::accessibility::{LOOKS, Subject, check, check_after, check_as_it_is};
use super::super::support::browser::Browser;
use super::{alone, scene};

/// Adds a notice and a badge of each kind to the page.
const ALL_COLOURS: &str = "
    const main = document.querySelector('main');
    for (const kind of ['good', 'warn', 'bad', 'busy']) {
        const [state, badge] = ['p', 'span'].map((name) => document.createElement(name));
        [state.className, badge.className] = [`state ${kind}`, `badge ${kind}`];
        state.textContent = badge.textContent = `text of kind ${kind}`;
        main.append(state, badge);
    }";

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_an_account_are_accessible() {
    let (mut scene, admin) =
        scene("admin-accessible", |options| options.credentials = "memory").await;
    scene.register("secret-token").await;
    scene.deliver_news().await;
    scene.expect_pushes(&["secret-token"]).await;
    let mut browser = Browser::start();
    let overview = &*admin.url_with_password("/");
    let text = "after the message";
    check(&mut browser, &Subject { name: "admin-overview", url: overview, text });
    let colours = Subject { name: "admin-colours", url: overview, text: "kind busy" };
    check_after(&mut browser, &colours, |browser| {
        browser.run(ALL_COLOURS);
    });
    let account = browser.run("return document.querySelector('td a').getAttribute('href')");
    for (name, path, text) in [
        ("admin-account", account.as_str().unwrap(), "Recent events"),
        ("admin-search", "/?q=nobody", "No account matches"),
        ("admin-no-account", "/account?name=nobody&server=x", "There is no account"),
    ] {
        check(&mut browser, &Subject { name, url: &admin.url_with_password(path), text });
    }
    // Without its password the account has a problem.
    scene.deltapush.restart();
    for (name, path, text) in [
        ("admin-problem", "/", "account needs attention"),
        ("admin-account-problem", account.as_str().unwrap(), "state warn"),
    ] {
        check(&mut browser, &Subject { name, url: &admin.url_with_password(path), text });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_without_account_or_password_are_accessible() {
    let (_deltapush, admin) = alone();
    let mut browser = Browser::start();
    browser.cancel_logins();
    let elsewhere = admin.url("/").replace("127.0.0.1", "evil.localhost");
    for (name, url, text) in [
        ("admin-login", &*admin.url("/"), "Log in with any user name"),
        ("admin-other-host", &elsewhere, "does not serve this page under this host name"),
        ("admin-empty", &admin.url_with_password("/"), "No device has handed over its token yet"),
        ("admin-no-page", &admin.url_with_password("/x"), "This page does not exist"),
    ] {
        check(&mut browser, &Subject { name, url, text });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn page_after_wrong_passwords_is_accessible() {
    let (_deltapush, admin) = alone();
    let mut browser = Browser::start();
    browser.cancel_logins();
    let client = reqwest::Client::new();
    let url = &*admin.url_with_password("/").replace(&admin.password, "a-wrong-password");
    let subject = Subject { name: "admin-wait", url, text: "A wrong password was given" };
    for look in LOOKS {
        // The wait ends after a while, and begins with the next wrong password.
        for _ in 0..20 {
            client.get(admin.url("/")).bearer_auth("a wrong password").send().await.unwrap();
            if browser.open(url, look).html.contains(subject.text) {
                break;
            }
        }
        check_as_it_is(&mut browser, &subject, look);
    }
}
