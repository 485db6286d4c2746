//! Logins with servers of every kind, as dialogues.

use super::*;

/// Plays a server: `S:` lines go in, `>` lines must come out; the result is what the last response led to.
fn play(credentials: Credentials, security: Security, script: &str) -> Result<Option<LoggedIn>, LoginError> {
    play_for(Purpose::Client { probe: true }, credentials, security, script)
}

fn play_for(
    purpose: Purpose,
    credentials: Credentials,
    security: Security,
    script: &str,
) -> Result<Option<LoggedIn>, LoginError> {
    let mut dialogue = Dialogue::new(credentials, security, purpose);
    let mut sent: Vec<u8> = vec![];
    let mut result = None;
    for line in script.lines().map(str::trim_start).filter(|line| !line.is_empty()) {
        let (kind, text) = line.split_once(' ').unwrap_or((line, ""));
        match kind {
            "S:" => {
                assert_eq!(String::from_utf8_lossy(&sent), "", "not expected");
                let mut step = dialogue.response(format!("{text}\r\n").as_bytes())?;
                if matches!(step, Some(Step::StartTls)) {
                    step = Some(dialogue.secured());
                }
                match step {
                    Some(Step::Send { bytes, .. }) => sent.extend_from_slice(&bytes),
                    Some(Step::LoggedIn(logged_in)) => result = Some(logged_in),
                    _ => {}
                }
            }
            ">" => {
                let expected = format!("{text}\r\n");
                let rest = sent.strip_prefix(expected.as_bytes()).map(<[u8]>::to_vec);
                sent = rest.unwrap_or_else(|| panic!("{line:?}, got {:?}", String::from_utf8_lossy(&sent)));
            }
            _ => panic!("what is {line:?}?"),
        }
    }
    assert_eq!(String::from_utf8_lossy(&sent), "", "left over");
    Ok(result)
}

fn simple() -> Credentials {
    Credentials::new("u", "p")
}

#[test]
fn dovecot() {
    let logged_in = play(
        simple(),
        Security::Tls,
        "S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] Dovecot ready.
         > dp1 AUTHENTICATE PLAIN AHUAcA==
         S: dp1 OK [CAPABILITY IMAP4rev1 IDLE] Logged in",
    );
    let logged_in = logged_in.unwrap().unwrap();
    assert_eq!(logged_in.answer, b"OK [CAPABILITY IMAP4rev1 IDLE] Logged in");
    assert!(logged_in.capabilities.has("IDLE") && !logged_in.capabilities.has("SASL-IR") && !logged_in.pushes);
}

#[test]
fn gmail_lists_capabilities_untagged_before_the_answer() {
    let logged_in = play(
        simple(),
        Security::Tls,
        "S: * OK Gimap ready
         > dp1 CAPABILITY
         S: * CAPABILITY IMAP4rev1 AUTH=PLAIN
         S: dp1 OK Thats all she wrote!
         > dp2 AUTHENTICATE PLAIN
         S: +
         > AHUAcA==
         S: * CAPABILITY IMAP4rev1 IDLE
         S: dp2 OK u authenticated (Success)",
    );
    let logged_in = logged_in.unwrap().unwrap();
    assert_eq!(logged_in.untagged, b"* CAPABILITY IMAP4rev1 IDLE\r\n");
    assert!(logged_in.capabilities.has("IDLE"));
}

#[test]
fn a_bare_server_is_asked_for_everything_and_gets_literals() {
    let logged_in = play(
        Credentials::new("gr\u{fc}n", "p\"w\u{fc}"),
        Security::Plain,
        "S: * OK
         > dp1 CAPABILITY
         S: * CAPABILITY IMAP4rev1
         S: dp1 OK
         > dp2 LOGIN {5}
         S: + go
         > gr\u{fc}n {5}
         S: +
         > p\"w\u{fc}
         S: dp2 OK
         > dp3 CAPABILITY
         S: * CAPABILITY IMAP4rev1 IDLE
         S: dp3 OK",
    );
    let logged_in = logged_in.unwrap().unwrap();
    assert_eq!((logged_in.answer.as_slice(), logged_in.untagged.as_slice()), (&b"OK done"[..], &b""[..]));
    assert!(logged_in.capabilities.has("IDLE"));
}

#[test]
fn quoted_login_where_that_is_enough() {
    let result = play(
        Credentials::new("u", "p w\"\\"),
        Security::Tls,
        "S: * OK [CAPABILITY IMAP4rev1] hi
         > dp1 LOGIN \"u\" \"p w\\\"\\\\\"
         S: * OK [ALERT] quota nearly full
         S: dp1 NO [AUTHENTICATIONFAILED] wrong",
    );
    let answer = b"NO [AUTHENTICATIONFAILED] wrong".to_vec();
    assert_eq!(result, Err(LoginError::Refused { answer, untagged: b"* OK [ALERT] quota nearly full\r\n".to_vec() }));
}

#[test]
fn a_server_that_repeats_the_password_is_not_quoted() {
    for repeated in ["AHUAc2VzYW1l", "\"sesame\""] {
        let result = play(
            Credentials::new("u", "sesame"),
            Security::Tls,
            &format!(
                "S: * OK [CAPABILITY AUTH=PLAIN SASL-IR] hi
                 > dp1 AUTHENTICATE PLAIN AHUAc2VzYW1l
                 S: * OK what is {repeated}
                 S: dp1 BAD what is {repeated}"
            ),
        );
        let answer = b"NO the login was refused".to_vec();
        assert_eq!(result, Err(LoginError::Refused { answer, untagged: vec![] }));
    }
}

#[test]
fn starttls_is_required_where_the_route_says_so() {
    let logged_in = play(
        simple(),
        Security::StartTls,
        "S: * OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] [ALERT] hi
         > dp1 STARTTLS
         S: dp1 OK go
         > dp2 CAPABILITY
         S: * CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR
         S: dp2 OK
         > dp3 AUTHENTICATE PLAIN AHUAcA==
         S: dp3 OK [CAPABILITY X] in",
    );
    assert_eq!(logged_in.unwrap().unwrap().untagged, b"");
    let none = play(simple(), Security::StartTls, "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi");
    assert_eq!(none, Err(LoginError::NoStartTls));
    let refused = "S: * OK [CAPABILITY STARTTLS] hi\n > dp1 STARTTLS\n S: dp1 BAD no";
    assert_eq!(play(simple(), Security::StartTls, refused), Err(LoginError::NoStartTls));
}

#[test]
fn a_server_that_pushes_by_itself_is_known() {
    let login = "S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hi
         > dp1 AUTHENTICATE PLAIN AHUAcA==
         S: dp1 OK [CAPABILITY METADATA] in
         > dp2 GETMETADATA \"\" (/shared/vendor/deltachat/maxsmtprecipients)
         ";
    let pushes = |answer: &str| play(simple(), Security::Tls, &format!("{login}{answer}")).unwrap().unwrap().pushes;
    assert!(pushes("S: * METADATA \"\" (/shared/vendor/deltachat/maxsmtprecipients \"1000\")\n S: dp2 OK"));
    assert!(!pushes("S: * METADATA \"\" (/shared/vendor/deltachat/maxsmtprecipients NIL)\n S: dp2 OK"));
    assert!(!pushes("S: dp2 NO not today"));
}

#[test]
fn a_watch_says_who_it_is_after_the_login_if_it_may() {
    let watch = |script: &str| play_for(Purpose::Watch, simple(), Security::Tls, script).unwrap();
    // Advertised before the login already, as o2.pl does it; of use only after it.
    let login = "S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR AUTH=PLAIN] hi
         > dp1 AUTHENTICATE PLAIN AHUAcA==
         ";
    let id = concat!("> dp2 ID (\"name\" \"deltapush\" \"version\" \"", env!("CARGO_PKG_VERSION"), "\")");
    for answer in ["S: * ID NIL\n S: dp2 OK", "S: dp2 BAD what", "S: dp2 NO"] {
        let script = format!("{login}S: dp1 OK [CAPABILITY IMAP4rev1 ID METADATA IDLE] in\n{id}\n{answer}");
        assert!(watch(&script).unwrap().capabilities.has("IDLE"), "{answer}");
    }
    // Not advertised after it: Purelymail says BYE then.
    assert!(watch(&format!("{login}S: dp1 OK [CAPABILITY IMAP4rev1 METADATA IDLE] in")).is_some());
}

#[test]
fn odd_servers_end_in_words() {
    let play = |script: &str| play(simple(), Security::Tls, script);
    assert_eq!(play("S: * BYE overloaded"), Err(LoginError::Bye("overloaded".into())));
    assert_eq!(play("S: * BYE"), Err(LoginError::Bye(String::new())));
    assert_eq!(play("S: * PREAUTH hi"), Err(LoginError::Preauth));
    assert!(matches!(play("S: + what"), Err(LoginError::Protocol(_))));
    assert!(matches!(play("S: dp1 OK"), Err(LoginError::Protocol(_))));
    assert!(matches!(play("S: * OK [CAPABILITY LOGINDISABLED] hi"), Err(LoginError::NoMechanism(_))));
    let too_many = "S: * OK [CAPABILITY AUTH=PLAIN SASL-IR] hi\n > dp1 AUTHENTICATE PLAIN AHUAcA==\n S: * BYE Too many";
    assert_eq!(play(too_many), Err(LoginError::Bye("Too many".into())));
}

#[test]
fn an_authorization_identity_needs_plain() {
    let mut credentials = simple();
    credentials.authorization = Some("other".into());
    let result = play(credentials, Security::Tls, "S: * OK [CAPABILITY IMAP4rev1] hi");
    assert!(matches!(result, Err(LoginError::NoMechanism(_))));
}

#[test]
fn who_is_behind_the_connection_is_told_before_the_login_if_there_is_id() {
    let origin = Origin { client: "192.0.2.1:5000".parse().unwrap(), connected: "198.51.100.1:993".parse().unwrap() };
    let said = |greeting: &str| {
        let purpose = Purpose::Client { probe: false };
        let mut dialogue = Dialogue::new(simple(), Security::Tls, purpose).on_behalf_of(Some(&origin));
        let mut said = String::new();
        for line in [greeting, "dp1 NO I do not care\r\n"] {
            if let Ok(Some(Step::Send { bytes, .. })) = dialogue.response(line.as_bytes()) {
                said += &String::from_utf8_lossy(&bytes);
            }
        }
        said
    };
    let id = concat!("dp1 ID (\"name\" \"deltapush\" \"version\" \"", env!("CARGO_PKG_VERSION"), "\"");
    let fields = "\"x-originating-ip\" \"192.0.2.1\" \"x-originating-port\" \"5000\" \
                  \"x-connected-ip\" \"198.51.100.1\" \"x-connected-port\" \"993\")\r\n";
    let login = "AUTHENTICATE PLAIN AHUAcA==\r\n";
    assert_eq!(said("* OK [CAPABILITY ID SASL-IR AUTH=PLAIN] hi\r\n"), format!("{id} {fields}dp2 {login}"));
    assert_eq!(said("* OK [CAPABILITY SASL-IR AUTH=PLAIN] hi\r\n"), format!("dp1 {login}"));
}
