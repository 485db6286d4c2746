//! Accessibility of pages: axe-core with all its rules, light and dark, wide and narrow.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::browser::{Accessibility, Browser, Look};

/// The looks in which each page is checked.
pub(crate) const LOOKS: [Look; 4] = [
    Look { width: 1200, scheme: "light", script: true },
    Look { width: 1200, scheme: "dark", script: true },
    Look { width: 380, scheme: "light", script: true },
    Look { width: 380, scheme: "dark", script: true },
];

/// A page, or a state of one.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    /// The name of its pictures.
    pub(crate) name: &'a str,
    pub(crate) url: &'a str,
    /// A text of it.
    pub(crate) text: &'a str,
}

/// The folder for pictures of pages.
pub(crate) fn pictures() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Checks a page in all looks.
pub(crate) fn check(browser: &mut Browser, subject: &Subject<'_>) {
    check_after(browser, subject, |_| ());
}

/// Checks a page in all looks, in the state that `prepare` makes.
pub(crate) fn check_after(
    browser: &mut Browser,
    subject: &Subject<'_>,
    prepare: impl Fn(&mut Browser),
) {
    for look in LOOKS {
        browser.open(subject.url, look);
        prepare(browser);
        check_as_it_is(browser, subject, look);
    }
}

/// Runs axe-core. A page that updates itself may replace a part of itself meanwhile: then a rule stays undecided, and
/// another run decides it.
fn decided(browser: &mut Browser) -> Accessibility {
    let mut found = browser.accessibility();
    for _ in 0..3 {
        if found.incomplete.is_empty() {
            break;
        }
        found = browser.accessibility();
    }
    found
}

/// Checks the page that is open.
pub(crate) fn check_as_it_is(browser: &mut Browser, subject: &Subject<'_>, look: Look) {
    let place = format!("{} {look:?}", subject.name);
    browser.wait_for(subject.text);
    let picture = format!("{}-{}-{}.png", subject.name, look.width, look.scheme);
    browser.shoot(&pictures().join(picture), 0);
    let found = decided(browser);
    assert!(found.violations.is_empty(), "{place}: {:#?}", found.violations);
    assert!(found.incomplete.is_empty(), "{place}: {:#?}", found.incomplete);
    for rule in ["color-contrast-enhanced", "landmark-one-main", "page-has-heading-one"] {
        assert!(found.passed.iter().any(|passed| passed == rule), "{place}: {rule} did not run");
    }
    let form = browser.run(
        "return [document.querySelectorAll('main, [role=main]').length, \
         document.querySelector('meta[name=color-scheme]')?.content, document.documentElement.scrollWidth]",
    );
    assert_eq!((&form[0], &form[1]), (&Value::from(1), &"light dark".into()), "{place}");
    assert!(form[2].as_u64().unwrap() <= u64::from(look.width), "{place}: too wide: {form}");
}
