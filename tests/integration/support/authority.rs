//! An OAuth authority as Microsoft's: the device authorization grant (RFC 8628), and access tokens that a Dovecot with
//! [`Setup::Mechanisms`](super::dovecot::Setup::Mechanisms) believes.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::rustls::ServerConfig;

use super::dovecot::TOKEN_KEY;
use super::notify::MaybeTls;

/// Time for which an access token holds, in seconds. Less than ten minutes before its end email-oauth2-proxy fetches another:
/// so at each login.
const EXPIRES_IN: u64 = 599;

/// A running authority for one account. It ends with the test's runtime.
pub(crate) struct TokenAuthority {
    /// Its port, on loopback, with TLS.
    pub(crate) port: u16,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    user: String,
    /// Device codes so far; the newest is the number.
    codes: usize,
    /// Device codes whose user code somebody entered.
    entered: Vec<usize>,
    /// Access that was allowed and not withdrawn: the number of its refresh token.
    allowed: Option<usize>,
    refreshed: usize,
    out_of_order: bool,
}

impl TokenAuthority {
    /// Starts it.
    pub(crate) async fn start(user: &str, tls: Arc<ServerConfig>) -> Self {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let shared = Arc::new(Mutex::new(Shared {
            user: user.to_owned(),
            codes: 0,
            entered: Vec::new(),
            allowed: None,
            refreshed: 0,
            out_of_order: false,
        }));
        let app = Router::new()
            .route("/devicecode", get(device_code))
            .route("/token", post(token))
            .with_state(Arc::clone(&shared));
        let listener = MaybeTls { tcp, tls: Some(tls.into()) };
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { port, shared }
    }

    /// The user code that was given out last, as its page wants it.
    pub(crate) fn newest_code(&self) -> Option<String> {
        let codes = self.shared.lock().unwrap().codes;
        (codes > 0).then(|| user_code(codes))
    }

    /// A person logs in at the authority and enters the user code.
    pub(crate) fn enter(&self, code: &str) {
        let mut shared = self.shared.lock().unwrap();
        let number = (1..=shared.codes).find(|number| user_code(*number) == code);
        shared.entered.push(number.unwrap_or_else(|| panic!("no such code: {code}")));
    }

    /// The authority answers nobody properly, or does again.
    pub(crate) fn set_out_of_order(&self, is_out_of_order: bool) {
        self.shared.lock().unwrap().out_of_order = is_out_of_order;
    }

    /// Ends the access that was allowed.
    pub(crate) fn withdraw(&self) {
        self.shared.lock().unwrap().allowed = None;
    }

    /// Counts the access tokens fetched with a refresh token.
    pub(crate) fn refreshed(&self) -> usize {
        self.shared.lock().unwrap().refreshed
    }
}

fn user_code(number: usize) -> String {
    format!("CODE{number:05}")
}

type Answer = (StatusCode, String);

async fn device_code(State(shared): State<Arc<Mutex<Shared>>>) -> Answer {
    let mut shared = shared.lock().unwrap();
    shared.codes += 1;
    let answer = json!({
        "device_code": shared.codes.to_string(), "user_code": user_code(shared.codes),
        "verification_uri": "https://authority.test/device", "expires_in": 900, "interval": 1,
    });
    (StatusCode::OK, answer.to_string())
}

async fn token(State(shared): State<Arc<Mutex<Shared>>>, form: String) -> Answer {
    let mut shared = shared.lock().unwrap();
    if shared.out_of_order {
        return (StatusCode::SERVICE_UNAVAILABLE, json!({"error": "server_error"}).to_string());
    }
    let form: HashMap<&str, &str> =
        form.split('&').filter_map(|pair| pair.split_once('=')).collect();
    assert_eq!(form.get("client_id"), Some(&"YOUR-CLIENT-ID"), "{form:?}");
    if let Some(number) = form.get("device_code") {
        let number = number.parse().unwrap();
        if !shared.entered.contains(&number) {
            return refusal("authorization_pending");
        }
        shared.allowed = Some(number);
    } else if shared.allowed.map(|number| number.to_string()).as_deref()
        == form.get("refresh_token").copied()
    {
        shared.refreshed += 1;
    } else {
        return refusal("invalid_grant");
    }
    let answer = json!({
        "access_token": access_token(&shared.user), "token_type": "Bearer", "expires_in": EXPIRES_IN,
        "refresh_token": shared.allowed.unwrap_or_default().to_string(),
    });
    (StatusCode::OK, answer.to_string())
}

fn refusal(error: &str) -> Answer {
    (StatusCode::BAD_REQUEST, json!({ "error": error }).to_string())
}

/// A JSON Web Token (RFC 7519).
fn access_token(user: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let head = json!({"alg": "HS256", "typ": "JWT"}).to_string();
    let claims = json!({"sub": user, "email": user, "iat": now - 5, "exp": now + EXPIRES_IN});
    let signed = format!("{}.{}", part(head.as_bytes()), part(claims.to_string().as_bytes()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, TOKEN_KEY.as_bytes());
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", part(signature.as_ref()))
}
