//! A real browser: Chromium without a window, driven by WebDriver.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::certs::trusting_nobody;
use super::ports::{free_port, wait_for_port};

/// What WebDriver calls an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window. It ends with the test.
pub(crate) struct Browser {
    client: reqwest::Client,
    session: String,
    _driver: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser that takes any certificate, and knows no name but `localhost`.
    pub(crate) async fn start() -> Self {
        for program in ["chromium", "chromedriver"] {
            let folders = std::env::var_os("PATH").unwrap();
            let is_there = std::env::split_paths(&folders).any(|folder| folder.join(program).exists());
            assert!(
                is_there,
                "{program} is missing: install Debian's chromium and chromium-driver, or run scripts/test"
            );
        }
        let port = free_port();
        let mut driver = Command::new("chromedriver");
        driver.arg(format!("--port={port}")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let driver = driver.kill_on_drop(true).spawn().unwrap();
        assert!(wait_for_port(port, Duration::from_secs(20)), "chromedriver does not start");
        let profile = tempfile::Builder::new().prefix("deltapush-browser-").tempdir().unwrap();
        let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).no_proxy();
        // Its driver speaks plain HTTP, on loopback.
        let client = client.tls_backend_preconfigured(trusting_nobody()).build().unwrap();
        let arguments = [
            "--headless=new",
            // The tests may run as root, and show nothing but our own page.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--disable-background-networking",
            // A window in which a code has room.
            "--window-size=900,1400",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "acceptInsecureCerts": true,
            "goog:chromeOptions": {"args": arguments, "binary": "/usr/bin/chromium"},
            "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"},
        }}});
        let base = format!("http://127.0.0.1:{port}/session");
        let made = post(&client, &base, wanted).await;
        let session = format!("{base}/{}", made["sessionId"].as_str().unwrap());
        Self { client, session, _driver: driver, _profile: profile }
    }

    /// Goes to a page, and waits until it is there.
    pub(crate) async fn open(&self, url: &str) {
        self.post("url", json!({"url": url})).await;
    }

    /// Types into the element that a CSS selector finds, as a person does, in place of what stands there.
    pub(crate) async fn fill(&self, selector: &str, text: &str) {
        let element = self.find(selector).await;
        self.post(&format!("element/{element}/clear"), json!({})).await;
        self.post(&format!("element/{element}/value"), json!({"text": text})).await;
    }

    /// Clicks on an element.
    pub(crate) async fn click(&self, selector: &str) {
        let element = self.find(selector).await;
        self.post(&format!("element/{element}/click"), json!({})).await;
    }

    /// What a piece of script returns.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.post("execute/sync", json!({"script": script, "args": []})).await
    }

    /// Waits until a piece of script returns true.
    pub(crate) async fn wait_until(&self, script: &str) {
        for _ in 0..200 {
            if self.run(script).await == json!(true) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it never came to this: {script}\n{:#?}", self.log("browser").await);
    }

    /// What an element looks like, as PNG.
    pub(crate) async fn picture(&self, selector: &str) -> Vec<u8> {
        let element = self.find(selector).await;
        let answer = self.client.get(format!("{}/element/{element}/screenshot", self.session)).send().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        BASE64_STANDARD.decode(answer["value"].as_str().unwrap()).unwrap()
    }

    /// Keeps a picture of the whole window.
    pub(crate) async fn keep_screenshot(&self, file: &Path) {
        let answer = self.client.get(format!("{}/screenshot", self.session)).send().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        std::fs::write(file, BASE64_STANDARD.decode(answer["value"].as_str().unwrap()).unwrap()).unwrap();
    }

    /// Complaints of the page, since this was last asked.
    pub(crate) async fn complaints(&self) -> Vec<Value> {
        self.log("browser").await
    }

    /// The addresses of all that was asked for over the network, since this was last asked.
    pub(crate) async fn requests(&self) -> Vec<String> {
        let entries = self.log("performance").await;
        let told =
            entries.iter().map(|entry| serde_json::from_str::<Value>(entry["message"].as_str().unwrap()).unwrap());
        told.filter(|told| told["message"]["method"] == "Network.requestWillBeSent")
            .map(|told| told["message"]["params"]["request"]["url"].as_str().unwrap().to_owned())
            // The browser's own pages and pictures, such as the empty one that it begins with, cross no network.
            .filter(|url| !["data:", "chrome:", "about:"].iter().any(|own| url.starts_with(own)))
            .collect()
    }

    /// Ends the browser.
    pub(crate) async fn close(self) {
        self.client.delete(&self.session).send().await.unwrap();
    }

    async fn log(&self, kind: &str) -> Vec<Value> {
        self.post("se/log", json!({"type": kind})).await.as_array().unwrap().clone()
    }

    async fn find(&self, selector: &str) -> String {
        let found = self.post("element", json!({"using": "css selector", "value": selector})).await;
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    async fn post(&self, what: &str, body: Value) -> Value {
        post(&self.client, &format!("{}/{what}", self.session), body).await
    }
}

async fn post(client: &reqwest::Client, url: &str, body: Value) -> Value {
    let answer =
        client.post(url).header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
    let is_right = answer.status().is_success();
    let text = String::from_utf8(answer.bytes().await.unwrap().to_vec()).unwrap();
    assert!(is_right, "{url} {body}: {text}");
    serde_json::from_str::<Value>(&text).unwrap()["value"].clone()
}
