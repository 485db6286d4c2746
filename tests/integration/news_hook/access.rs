//! Access: tokens, TLS, and an address that is taken.

use deltapush::config::NewsToken;

use super::super::support::certs::client_config;
use super::*;

/// A token, and its line in the configuration.
fn token(more: &str) -> (String, String) {
    let (token, hash) = NewsToken::make().unwrap();
    let token = String::from_utf8(token.expose().to_vec()).unwrap();
    (token, format!("    - hash: {hash}\n{more}"))
}

#[tokio::test]
async fn only_holders_of_a_token_are_heard_and_wrong_ones_have_to_wait() {
    let ((right, line), (other, other_line)) =
        (token(""), token("      logins: [elsewhere.test]\n"));
    let mut scene = HookScene::with(&format!("  tokens:\n{line}{other_line}")).await;
    assert_eq!(answered(scene.post(own(10))).await.0, 401);
    assert_eq!(answered(scene.post(own(10)).bearer_auth("wrong-token")).await.0, 401);
    let early = scene.post(own(10)).bearer_auth("wrong-token").send().await.unwrap();
    assert_eq!(early.status().as_u16(), 429);
    assert!(early.headers().contains_key("retry-after"));
    // A wrong token at the same address locks no mail server out.
    let (status, outcome) = answered(scene.post(own(10)).bearer_auth(&right)).await;
    assert_eq!((status, outcome.as_str()), (200, "announced"));
    let basic = scene.post(own(11)).basic_auth("dovecot", Some(&right));
    assert_eq!(answered(basic).await.0, 200);
    let (status, text) = answered(scene.post(own(12)).bearer_auth(&other)).await;
    assert!(status == 403 && text.contains("not for this account"), "{status} {text}");
    scene.expect_pushes(2).await;
    let log = scene.deltapush.log();
    assert!(log.contains("wrong token for the news hook from 127.0.0.1"), "{log}");
    assert!([&right, &other, "wrong-token"].iter().all(|secret| !log.contains(*secret)), "{log}");
}

#[tokio::test]
async fn token_crosses_the_network_in_tls_with_the_certificate_that_clients_see() {
    let (right, line) = token("");
    let mut scene = HookScene::with(&format!("  tls: true\n  tokens:\n{line}")).await;
    let config = (*client_config(&scene.deltapush.certificate())).clone();
    let client = reqwest::Client::builder().tls_backend_preconfigured(config).build().unwrap();
    let url = format!("https://localhost:{}/v1/news", scene.port.number());
    let request = |uid| client.post(&url).body(own(uid)).bearer_auth(&right);
    // Over one connection.
    for uid in 10..20 {
        assert_eq!(answered(request(uid)).await.0, 200);
    }
    assert!(scene.post(own(20)).bearer_auth(&right).send().await.is_err());
    scene.notify.wait_for(1, Duration::from_secs(40)).await;
}

#[tokio::test]
async fn address_that_is_taken_costs_no_mail_and_is_tried_again() {
    let mut scene = HookScene::new().await;
    scene.deltapush.terminate();
    let taken = std::net::TcpListener::bind(("127.0.0.1", scene.port.number())).unwrap();
    scene.deltapush.start_again();
    let said = || scene.deltapush.log().contains("no news of mail servers yet: cannot listen on");
    assert!(super::super::support::poll(Duration::from_secs(40), said).await);
    drop(taken);
    assert!(wait_for_port(scene.port.number(), Duration::from_secs(40)));
    assert_eq!(scene.tell(10).await.1, "announced");
}
