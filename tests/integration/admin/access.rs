//! Access control.

use super::super::support::deltapush::{Deltapush, Options};
use super::super::support::poll;
use super::super::support::ports::ReservedPort;
use super::super::support::scene::PATIENCE;
use super::super::support::tls::trusting;
use super::{Admin, alone, scene};

#[tokio::test]
async fn without_the_password_nothing_of_anybody_is_seen() {
    let (scene, admin) = scene("admin-access", |_| ()).await;
    scene.register("secret-token").await;
    let name = scene.user.split('@').next().unwrap();
    for path in ["/", "/account", "/live", "/other"] {
        let (status, text) = admin.get(path).await;
        assert_eq!(status, 401, "{path}");
        assert!(!text.contains(name), "{text}");
    }
    for path in ["/healthz", "/readyz", "/metrics", "/style.css", "/live.js", "/icon.svg"] {
        let (status, text) = admin.get(path).await;
        assert_eq!(status, 200, "{path}: {text}");
        assert!(!text.contains(name) && !text.contains(&admin.password), "{text}");
    }
    let (status, page) = admin.get_with_password("/").await;
    assert_eq!(status, 200);
    assert!(page.contains(&scene.user) && page.contains("watching"), "{page}");
    assert!(!page.contains("secret-token"), "{page}");
    assert!(!scene.deltapush.log().contains(&admin.password));
}

#[tokio::test]
async fn guesses_have_to_wait_and_are_told() {
    let (deltapush, admin) = alone();
    let client = reqwest::Client::new();
    let status = async |password: &str| {
        let request = client.get(admin.url("/")).bearer_auth(password);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(status("a wrong password").await, 401);
    // Right or wrong, no password is looked at for a second.
    let early = client.get(admin.url("/")).bearer_auth(&admin.password).send().await.unwrap();
    assert_eq!(early.status().as_u16(), 429);
    assert!(early.headers().contains_key("retry-after"));
    let mut last = 429;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while last == 429 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        last = status(&admin.password).await;
    }
    assert_eq!(last, 200);
    assert!(
        poll(PATIENCE, || deltapush
            .log()
            .contains("wrong password for the web page from 127.0.0.1"))
        .await
    );
    assert!(!deltapush.log().contains("a wrong password\""), "{}", deltapush.log());
}

#[tokio::test]
async fn browser_that_was_led_here_by_another_name_sees_nothing() {
    let (_deltapush, admin) = alone();
    let client = reqwest::Client::new();
    for (host, status) in [
        ("evil.example", 421),
        ("localhost.evil.example:80", 421),
        ("localhost", 200),
        ("127.0.0.1:1", 200),
    ] {
        for path in ["/", "/metrics"] {
            let request = client
                .get(admin.url(path))
                .header("host", host)
                .basic_auth("", Some(&admin.password));
            assert_eq!(request.send().await.unwrap().status().as_u16(), status, "{host} {path}");
        }
    }
    let answer = client.post(admin.url("/")).body("x").send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["allow"]),
        (405, &"GET, HEAD".parse().unwrap())
    );
    let answer =
        client.head(admin.url("/")).basic_auth("", Some(&admin.password)).send().await.unwrap();
    let policy = answer.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert!(answer.headers().get("access-control-allow-origin").is_none());
}

#[tokio::test]
async fn elsewhere_than_on_loopback_there_is_tls_and_metrics_want_the_password() {
    let reserved = ReservedPort::new();
    let port = reserved.number();
    let more = format!("admin:\n  address: 0.0.0.0:{port}\n");
    let deltapush = Deltapush::start(&Options { more, ..Options::plain(9) });
    let admin = Admin::of(&deltapush, reserved);
    assert!(reqwest::get(admin.url("/healthz")).await.is_err(), "no TLS, no answer");
    let tls = trusting(&deltapush.certificate(), &[b"http/1.1"]);
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
    let url = |path: &str| format!("https://localhost:{port}{path}");
    assert_eq!(client.get(url("/healthz")).send().await.unwrap().status().as_u16(), 200);
    assert_eq!(client.get(url("/metrics")).send().await.unwrap().status().as_u16(), 401);
    let answer = client.get(url("/metrics")).bearer_auth(&admin.password).send().await.unwrap();
    assert!(answer.text().await.unwrap().contains("\ndeltapush_build_info{"));
}
