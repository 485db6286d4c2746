//! The public page in a browser: its answers to addresses, its code, and the accessibility of all its states.

use super::support::accessibility::{LOOKS, Subject, check, check_after, check_as_it_is};
use super::support::browser::{Browser, Look};
use super::support::deltapush::{Deltapush, Options};
use super::support::tls::trusting;

const LIGHT: Look = Look { width: 900, scheme: "light", script: true };

/// A deltapush with the public page, and the address of the page.
fn start(routes: &str) -> (Deltapush, String) {
    let routes = Some(routes.to_owned());
    let deltapush =
        Deltapush::start(&Options { routes, listener: "web: true", ..Options::plain(0) });
    let page = format!("https://localhost:{}/", deltapush.imaps);
    (deltapush, page)
}

/// One that serves the domain `lab.test` alone.
fn start_for_one_domain() -> (Deltapush, String) {
    start(
        "  - domain: lab.test\n    upstream: imaps://imap.lab.test\n    smtp: smtp://smtp.lab.test\n",
    )
}

/// Types a password and makes the code.
fn make_code(browser: &mut Browser) {
    browser.wait_until("return document.getElementById('login')?.hidden === false");
    browser.fill("#password", "secret");
    browser.click("#login button");
    browser.wait_until("return !document.getElementById('code').hidden");
}

#[tokio::test]
async fn misspelled_address_gets_no_code_until_it_is_confirmed() {
    let (_deltapush, page) = start_for_one_domain();
    let mut browser = Browser::start();
    browser.open(&page, LIGHT);
    browser.fill("[name=address]", "alice@lba.test");
    browser.click("form button");
    let refused = browser.wait_for("This server does not serve alice@lba.test.");
    assert!(!refused.contains("dclogin") && !refused.contains("<table"), "{refused}");
    let is_red = "const colour = getComputedStyle(document.querySelector('p.state.bad')).color; \
                  const [red, green, blue] = colour.match(/\\d+/g).map(Number); \
                  return red > 2 * Math.max(green, blue)";
    assert_eq!(browser.run(is_red), true);

    browser.click("[name=confirmed] + button");
    browser.wait_until("return document.getElementById('login')?.hidden === false");
    let confirmed = browser.wait_for("it will probably refuse the login");
    assert!(confirmed.contains(">alice@lba.test<"), "{confirmed}");

    // The owner notices the mistake.
    browser.open(&format!("{page}?address=alice%40lba.test"), LIGHT);
    browser.fill("[name=address]", "alice@lab.test");
    browser.click("form button");
    let served = browser.wait_for(">smtp.lab.test<");
    assert!(!served.contains("does not serve"), "{served}");
    browser.requests();
}

#[tokio::test]
async fn hidden_code_leaves_no_password_in_the_page() {
    let (_deltapush, page) = start_for_one_domain();
    let mut browser = Browser::start();
    let settings = format!("{page}?address=alice%40lab.test");
    browser.open(&settings, LIGHT);
    make_code(&mut browser);
    let shown = browser.wait_for("p=secret&amp;v=1");
    assert!(shown.contains("<svg") && !shown.contains("{login}"), "{shown}");
    browser.click("#hide");
    browser.wait_until("return document.getElementById('code').hidden");
    let left =
        "return document.documentElement.outerHTML + document.getElementById('password').value";
    let text = browser.run(left);
    let text = text.as_str().unwrap();
    assert!(!text.contains("secret") && !text.contains("<svg"), "{text}");
    let focus = "return document.activeElement.id + document.getElementById('login').hidden";
    assert_eq!(browser.run(focus), "passwordfalse");
    // A page that the browser keeps for its "back" button.
    make_code(&mut browser);
    browser.run("dispatchEvent(new Event('pagehide'))");
    let text = browser.run(left);
    assert!(!text.as_str().unwrap().contains("secret"), "{text}");
    browser.requests();
}

#[tokio::test]
async fn public_page_is_accessible_in_all_states() {
    let (_deltapush, page) = start_for_one_domain();
    let mut browser = Browser::start();
    for (name, query, text) in [
        ("public-start", "", "Continue"),
        ("public-wrong", "?address=alice", "is not a mail address"),
        ("public-not-served", "?address=alice%40lba.test", "does not serve"),
        ("public-confirmed", "?address=alice%40lba.test&confirmed=yes", "probably refuse"),
        ("public-settings", "?address=alice%40lab.test", "Make the code"),
        ("public-long", &*format!("?address={}%40lab.test", "x".repeat(200)), "Make the code"),
        ("public-no-page", "x", "This page does not exist"),
        ("public-no-autoconfig", "mail/config-v1.1.xml", "No mail of this domain"),
    ] {
        check(&mut browser, &Subject { name, url: &format!("{page}{query}"), text });
    }
    let url = &*format!("{page}?address=alice%40lab.test");
    let code = Subject { name: "public-code", url, text: "Hide the code" };
    check_after(&mut browser, &code, make_code);
    let failure = Subject { name: "public-no-code", url, text: "do not fit into a code" };
    check_after(&mut browser, &failure, |browser| {
        browser.fill("#password", &"ä".repeat(1000));
        browser.click("#login button");
        browser.wait_until("return !document.getElementById('failure').hidden");
    });

    let (_deltapush, page) =
        start("  - domain: \"*\"\n    upstream: imaps://imap.{domain}\n    open: true\n");
    let url = &*format!("{page}?address=alice%40lab.test");
    check(&mut browser, &Subject { name: "public-catch-all", url, text: "serves all domains" });
}

#[tokio::test]
async fn public_page_that_limits_look_ups_is_accessible() {
    let (deltapush, page) = start_for_one_domain();
    let tls = trusting(&deltapush.certificate(), &[b"h2"]);
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
    let url = &*format!("{page}?address=alice%40lab.test");
    let subject = Subject { name: "public-limit", url, text: "Too many addresses were looked up" };
    let mut browser = Browser::start();
    for look in LOOKS {
        // One more look-up is allowed each second.
        for _ in 0..20 {
            while client.get(url).send().await.unwrap().status() != 429 {}
            if browser.open(url, look).html.contains(subject.text) {
                break;
            }
        }
        check_as_it_is(&mut browser, &subject, look);
    }
}

#[tokio::test]
async fn text_without_contrast_is_found() {
    let (_deltapush, page) = start_for_one_domain();
    let mut browser = Browser::start();
    for look in LOOKS {
        browser.open(&page, look);
        browser.run("document.querySelector('main p').style.color = '#888'");
        let found = browser.accessibility().violations;
        assert!(
            !found.is_empty() && found.iter().all(|line| line.starts_with("color-contrast")),
            "{look:?}: {found:#?}"
        );
    }
}
