//! The page, as a browser shows it: on a phone and on a desk, light and dark, with scripts and without.

use std::collections::HashSet;

use super::super::support::accessibility::pictures;
use super::super::support::browser::{Browser, Look};
use super::scene;

#[tokio::test(flavor = "multi_thread")]
async fn page_is_readable_everywhere_and_follows_what_happens() {
    let (mut scene, admin) = scene("admin-page", |_| ()).await;
    scene.register("secret-token").await;
    let mut browser = Browser::start();
    let overview = admin.url_with_password("/");

    // Live: nothing is loaded anew, and yet it changes.
    let shown = browser.open(&overview, Look { width: 1280, scheme: "light", script: true });
    assert!(
        shown.html.contains(&scene.user) && shown.html.contains("All is well"),
        "{}",
        shown.html
    );
    assert!(
        shown.html.contains("none since the start") && shown.html.contains("no push yet"),
        "{}",
        shown.html
    );
    browser.wait_for(">live<");
    scene.deliver_news().await;
    scene.expect_pushes(&["secret-token"]).await;
    let html = browser.wait_for("after the message");
    assert!(html.contains("accepted <time") && html.contains("1 message to be pushed"), "{html}");
    assert!(html.contains("class=\"main\"") && !html.contains("secret-token"), "{html}");

    let mut sizes = HashSet::new();
    for (width, device) in [(390, "phone"), (1280, "desk")] {
        for scheme in ["light", "dark"] {
            let shown = browser.open(&overview, Look { width, scheme, script: true });
            assert_eq!(shown.complaints, Vec::<serde_json::Value>::new());
            assert!(shown.width <= f64::from(width), "wider than a {device}: {}", shown.width);
            browser.wait_for(">live<");
            let size =
                browser.shoot(&pictures().join(format!("overview-{device}-{scheme}.png")), 0);
            assert!(size > 5_000 && sizes.insert(size), "{device} {scheme}: {size} bytes");
        }
    }

    // Without a script it is the same, and loads itself anew now and then.
    let shown = browser.open(&overview, Look { width: 390, scheme: "light", script: false });
    assert!(
        shown.html.contains("after the message") && shown.html.contains("<rect"),
        "{}",
        shown.html
    );
    assert!(
        shown.html.contains("http-equiv=\"refresh\"") && !shown.html.contains(">live<"),
        "{}",
        shown.html
    );
    let found = browser.open(
        &admin.url_with_password("/?q=nobody"),
        Look { width: 390, scheme: "light", script: false },
    );
    assert!(
        found.html.contains("No account matches") && !found.html.contains(&scene.user),
        "{}",
        found.html
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn account_has_a_page_with_its_history() {
    let (mut scene, admin) = scene("admin-account", |_| ()).await;
    scene.register("secret-token").await;
    scene.deliver_news().await;
    scene.expect_pushes(&["secret-token"]).await;
    let (_, overview) = admin.get_with_password("/").await;
    let link = overview
        .split("href=\"/account?")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .replace("&amp;", "&");
    let mut browser = Browser::start();
    for (width, device) in [(390, "phone"), (1280, "desk")] {
        let url = admin.url_with_password(&format!("/account?{link}"));
        let shown = browser.open(&url, Look { width, scheme: "light", script: true });
        assert!(
            shown.html.contains(&scene.user) && shown.html.contains("to be pushed"),
            "{}",
            shown.html
        );
        assert!(shown.width <= f64::from(width), "wider than a {device}: {}", shown.width);
        assert!(shown.complaints.is_empty(), "{:?}", shown.complaints);
        browser.shoot(&pictures().join(format!("account-{device}.png")), 0);
    }
    assert_eq!(admin.get_with_password("/account?name=nobody&server=x").await.0, 404);
}
