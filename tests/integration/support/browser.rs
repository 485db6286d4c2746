//! A headless Chromium, driven through a script in Python.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use super::python;

/// A browser with a profile of its own. It ends with the test.
pub(crate) struct Browser {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// Display settings for a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// In CSS pixels; below 600 it is a phone.
    pub(crate) width: u32,
    /// `light` or `dark`.
    pub(crate) scheme: &'static str,
    /// True if scripts run.
    pub(crate) script: bool,
}

/// A page as the browser has it.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Current content.
    pub(crate) html: String,
    /// Width, in CSS pixels.
    pub(crate) width: f64,
    /// Complaints of the browser: scripts that fail, and what the page's own policy forbids.
    pub(crate) complaints: Vec<Value>,
}

/// The findings of axe-core, one line for each rule and element.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Accessibility {
    pub(crate) violations: Vec<String>,
    /// Undecided: a person has to look.
    pub(crate) incomplete: Vec<String>,
    /// The rules that some element keeps.
    pub(crate) passed: Vec<String>,
}

/// A rule of axe-core that finds no fault: it lists hidden elements, and tests check them when they are shown.
const RULES_WITHOUT_FAULTS: [&str; 1] = ["hidden-content"];

impl Browser {
    /// A browser for pages that have certificates of their own: it verifies none.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// A browser that verifies certificates as a person's does.
    pub(crate) fn start_strict() -> Self {
        Self::start_with(&["--strict"])
    }

    fn start_with(flags: &[&str]) -> Self {
        let found =
            std::process::Command::new("sh").args(["-c", "command -v chromium"]).output().unwrap();
        assert!(
            found.status.success(),
            "chromium is missing: run scripts/test once, it installs it"
        );
        let mut command = python::script("browser.py");
        command.args(flags).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (requests, answers) =
            (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut browser = Self { child, requests, answers };
        assert_eq!(browser.read()["ready"], true);
        browser
    }

    /// Loads a page.
    pub(crate) fn open(&mut self, url: &str, look: Look) -> Shown {
        let shown = self.load(url, look);
        assert!(shown["error"].is_null(), "{url} cannot be loaded: {shown}");
        Shown {
            html: shown["html"].as_str().unwrap().to_owned(),
            width: shown["width"].as_f64().unwrap(),
            complaints: shown["complaints"].as_array().unwrap().clone(),
        }
    }

    /// The error of a page that must not load.
    pub(crate) fn refusal(&mut self, url: &str, look: Look) -> String {
        let shown = self.load(url, look);
        shown["error"].as_str().unwrap_or_else(|| panic!("{url} is loaded: {shown}")).to_owned()
    }

    fn load(&mut self, url: &str, Look { width, scheme, script }: Look) -> Value {
        self.call(
            json!({ "do": "open", "url": url, "width": width, "scheme": scheme, "script": script }),
        )
    }

    /// Waits until the page has `text` in it, and fails if that does not come. Returns the page as it is then.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let shown = self.call(json!({ "do": "wait", "text": text }));
        assert_eq!(
            shown["found"],
            true,
            "{text:?} does not come: {}",
            shown["html"].as_str().unwrap()
        );
        assert_eq!(shown["complaints"], json!([]));
        shown["html"].as_str().unwrap().to_owned()
    }

    /// Makes a picture (PNG) of the page, or of its first `height` pixels; returns its size in bytes.
    pub(crate) fn shoot(&mut self, path: &Path, height: u32) -> u64 {
        self.call(json!({ "do": "shoot", "path": path, "height": height }))["bytes"]
            .as_u64()
            .unwrap()
    }

    /// Returns a script's result, or that of its promise.
    pub(crate) fn run(&mut self, script: &str) -> Value {
        self.call(json!({ "do": "run", "script": script }))["returned"].clone()
    }

    /// Waits until a piece of script returns true, and fails if that does not come.
    pub(crate) fn wait_until(&mut self, script: &str) {
        let came = self.call(json!({ "do": "until", "script": script }));
        assert_eq!(came["came"], true, "{script}: {came:#}");
    }

    /// Types into the field that a CSS selector finds, in place of what stands there.
    pub(crate) fn fill(&mut self, selector: &str, text: &str) {
        self.call(json!({ "do": "type", "selector": selector, "text": text }));
    }

    /// Clicks on an element.
    pub(crate) fn click(&mut self, selector: &str) {
        self.call(json!({ "do": "click", "selector": selector }));
    }

    /// From now on the browser's questions for a password are cancelled.
    pub(crate) fn cancel_logins(&mut self) {
        self.call(json!({ "do": "cancel_logins" }));
    }

    /// Problems of accessibility that axe-core finds in the page as it is now.
    pub(crate) fn accessibility(&mut self) -> Accessibility {
        let found = self.call(json!({ "do": "axe", "off": RULES_WITHOUT_FAULTS }));
        serde_json::from_value(found).unwrap()
    }

    /// The addresses of all that was asked for over the network, allowed or not, since this was last asked. Fails if the page has
    /// been complained of.
    pub(crate) fn requests(&mut self) -> Vec<String> {
        let asked = self.call(json!({ "do": "asked" }));
        assert_eq!(asked["complaints"], json!([]));
        asked["asked"]
            .as_array()
            .unwrap()
            .iter()
            .map(|url| url.as_str().unwrap().to_owned())
            .collect()
    }

    fn call(&mut self, request: Value) -> Value {
        writeln!(self.requests.as_mut().unwrap(), "{request}").unwrap();
        self.read()
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("the browser's script says {line:?}: {error}"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // At the end of its input the script ends the browser, and itself.
        self.requests = None;
        let _ = self.child.wait();
    }
}
