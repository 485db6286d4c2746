//! Logins with servers of every kind, as dialogues.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::methods::MAX_CHALLENGE;
use super::*;
use crate::machine::script::{Done, Player, Said, Scripted};
use crate::parser::id::Field;
use crate::secret::Secret;

/// Plays a mail server, and a client that answers challenges, in the language of [`machine::script`](crate::machine::script). A
/// client's line is not encoded. Returns the end of the login, if the script reaches it.
fn play(
    credentials: Credentials,
    security: Security,
    script: &str,
) -> Result<Option<LoggedIn>, LoginError> {
    play_for(Purpose::Client { probe: true }, credentials, security, script)
}

fn play_for(
    purpose: Purpose,
    credentials: Credentials,
    security: Security,
    script: &str,
) -> Result<Option<LoggedIn>, LoginError> {
    play_machine(LoginMachine::new(credentials, security, purpose), script)
}

fn play_machine(machine: LoginMachine, script: &str) -> Result<Option<LoggedIn>, LoginError> {
    let mut player = Player::new(machine, Instant::now());
    player.play(script);
    player.end().1.transpose()
}

impl Scripted for LoginMachine {
    type End = Result<LoggedIn, LoginError>;

    fn give(&mut self, said: Said<'_>, now: Instant, done: &mut Done<Self::End>) -> bool {
        match said {
            Said::Server(line) => self.handle(LoginInput::Response(line), now, done),
            Said::Client(line) => {
                let response = Secret::new(line.trim_ascii_end().to_vec());
                let mut sent = |action: LoginAction| {
                    if let LoginAction::Send(line) = &action {
                        assert_eq!(line.secret_from, 0, "all of it is secret");
                    }
                    Self::write(action, done);
                };
                self.handle(LoginInput::ClientResponse(&response), now, &mut sent);
            }
            Said::Event("secured") => self.handle(LoginInput::Secured, now, done),
            Said::Begin | Said::Later | Said::Event(_) => return false,
        }
        true
    }

    fn write(action: LoginAction, done: &mut Done<Self::End>) {
        match action {
            LoginAction::Send(line) => done.sent(">", &line.bytes),
            LoginAction::StartTls => done.did("TLS"),
            LoginAction::Challenge(challenge) => {
                done.sent("<", &[b"+ ", challenge.as_slice(), b"\r\n"].concat())
            }
            LoginAction::LoggedIn(logged_in) => done.ends(Ok(logged_in)),
            LoginAction::Failed(error) => done.ends(Err(error)),
        }
    }
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
    assert!(
        logged_in.capabilities.has("IDLE")
            && !logged_in.capabilities.has("SASL-IR")
            && !logged_in.pushes
    );
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
         > dp2 LOGIN \"u\" \"p\"
         S: * CAPABILITY IMAP4rev1 IDLE
         S: dp2 OK u authenticated (Success)",
    );
    let logged_in = logged_in.unwrap().unwrap();
    assert_eq!(logged_in.untagged, b"* CAPABILITY IMAP4rev1 IDLE\r\n");
    assert!(logged_in.capabilities.has("IDLE"));
}

#[test]
fn bare_server_is_asked_for_everything_and_gets_literals() {
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
    assert_eq!(
        (logged_in.answer.as_slice(), logged_in.untagged.as_slice()),
        (&b"OK done"[..], &b""[..])
    );
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
    assert_eq!(
        result,
        Err(LoginError::Refused {
            answer,
            untagged: b"* OK [ALERT] quota nearly full\r\n".to_vec()
        })
    );
}

#[test]
fn server_that_repeats_the_password_is_not_quoted() {
    for repeated in ["AHUAc2VzYW1l", "\"sesame\""] {
        let result = play(
            Credentials::new("u", "sesame"),
            Security::Tls,
            &format!(
                "S: * OK [CAPABILITY AUTH=PLAIN SASL-IR] hi
                 > dp1 AUTHENTICATE PLAIN AHUAc2VzYW1l
                 S: * OK what is {repeated}
                 S: dp1 NO what is {repeated}"
            ),
        );
        let answer = b"NO The login was refused.".to_vec();
        assert_eq!(result, Err(LoginError::Refused { answer, untagged: vec![] }));
        let result = play(
            Credentials::new("u", "sesame"),
            Security::Tls,
            &format!(
                "S: * OK [CAPABILITY AUTH=PLAIN SASL-IR] hi
                 > dp1 AUTHENTICATE PLAIN AHUAc2VzYW1l
                 S: * BYE what is {repeated}"
            ),
        );
        assert!(!result.unwrap_err().to_string().contains(repeated));
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
         (TLS)
         (secured)
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
fn server_that_pushes_by_itself_is_known() {
    let login = "S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hi
         > dp1 AUTHENTICATE PLAIN AHUAcA==
         S: dp1 OK [CAPABILITY METADATA] in
         > dp2 GETMETADATA \"\" (/shared/vendor/deltachat/maxsmtprecipients)
         ";
    let pushes = |answer: &str| {
        play(simple(), Security::Tls, &format!("{login}{answer}")).unwrap().unwrap().pushes
    };
    assert!(pushes(
        "S: * METADATA \"\" (/shared/vendor/deltachat/maxsmtprecipients \"1000\")\n S: dp2 OK"
    ));
    assert!(!pushes(
        "S: * METADATA \"\" (/shared/vendor/deltachat/maxsmtprecipients NIL)\n S: dp2 OK"
    ));
    assert!(!pushes("S: dp2 NO not today"));
}

#[test]
fn watch_says_who_it_is_after_the_login_if_it_may() {
    let watch = |script: &str| play_for(Purpose::Watch, simple(), Security::Tls, script).unwrap();
    // Advertised before the login already, as o2.pl does it; of use only after it.
    let login = "S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR AUTH=PLAIN] hi
         > dp1 AUTHENTICATE PLAIN AHUAcA==
         ";
    let id = concat!(
        "> dp2 ID (\"name\" \"deltapush\" \"version\" \"",
        env!("CARGO_PKG_VERSION"),
        "\")"
    );
    for answer in ["S: * ID NIL\n S: dp2 OK", "S: dp2 BAD what", "S: dp2 NO"] {
        let script =
            format!("{login}S: dp1 OK [CAPABILITY IMAP4rev1 ID METADATA IDLE] in\n{id}\n{answer}");
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
    assert!(matches!(
        play("S: * OK [CAPABILITY LOGINDISABLED] hi"),
        Err(LoginError::NoMechanism(_))
    ));
    let too_many = "S: * OK [CAPABILITY AUTH=PLAIN SASL-IR] hi\n > dp1 AUTHENTICATE PLAIN AHUAcA==\n S: * BYE Too many";
    assert_eq!(play(too_many), Err(LoginError::Bye("Too many".into())));
}

#[test]
fn authorization_identity_needs_plain() {
    let mut credentials = simple();
    credentials.authorization = Some("other".into());
    let result = play(credentials, Security::Tls, "S: * OK [CAPABILITY IMAP4rev1] hi");
    assert!(matches!(result, Err(LoginError::NoMechanism(_))));
}

#[test]
fn auth_login_where_nothing_else_is_left() {
    let script = "S: * OK [CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=LOGIN SASL-IR] hi
         > dp1 AUTHENTICATE LOGIN
         S: + VXNlcm5hbWU6
         > dQ==
         S: + UGFzc3dvcmQ6
         > cA0Kew==
         ";
    let credentials = Credentials::new("u", "p\r\n{");
    let script = format!("{script}S: dp1 OK [CAPABILITY IDLE] in");
    assert!(play(credentials, Security::Tls, &script).unwrap().is_some());
    let early = "S: * OK [CAPABILITY LOGINDISABLED AUTH=LOGIN] hi\n > dp1 AUTHENTICATE LOGIN\n S: dp1 OK in";
    assert!(
        matches!(play(simple(), Security::Tls, early), Err(LoginError::Protocol(_))),
        "before any credentials"
    );
}

#[test]
fn no_password_can_end_a_line() {
    // The LOGIN command, with a literal wherever quoting would not do.
    for (password, script) in [
        ("a\r\nb", "> dp1 LOGIN \"u\" {4}\n S: + go\n > a\n > b"),
        ("a\rb", "> dp1 LOGIN \"u\" {3}\n S: + go\n > a\rb"),
        ("a\"\\{5}", "> dp1 LOGIN \"u\" \"a\\\"\\\\{5}\""),
        ("{5+}", "> dp1 LOGIN \"u\" \"{5+}\""),
        ("", "> dp1 LOGIN \"u\" \"\""),
        ("gr\u{fc}n{5}", "> dp1 LOGIN \"u\" {8}\n S: + go\n > gr\u{fc}n{5}"),
    ] {
        let script =
            format!("S: * OK [CAPABILITY IMAP4rev1] hi\n {script}\n S: dp1 OK [CAPABILITY X] in");
        let logged_in = play(Credentials::new("u", password), Security::Tls, &script);
        assert!(logged_in.unwrap().is_some(), "{password:?}");
    }
    let long = "x".repeat(60_000);
    let script = format!(
        "S: * OK [CAPABILITY IMAP4rev1] hi\n > dp1 LOGIN \"u\" {{60000}}\n S: +\n > {long}\n S: dp1 OK [CAPABILITY X] in"
    );
    assert!(play(Credentials::new("u", long.as_str()), Security::Tls, &script).unwrap().is_some());
    for password in ["a\r\nb", "a\"\\{5}", "gr\u{fc}n", "{5}", &long] {
        let message = STANDARD.encode(format!("\0u\0{password}"));
        let command = if long == password {
            format!("> dp1 AUTHENTICATE PLAIN\n S: +\n > {message}")
        } else {
            format!("> dp1 AUTHENTICATE PLAIN {message}")
        };
        let script = format!(
            "S: * OK [CAPABILITY AUTH=PLAIN SASL-IR] hi\n {command}\n S: dp1 OK [CAPABILITY X] in"
        );
        assert!(play(Credentials::new("u", password), Security::Tls, &script).unwrap().is_some());
    }
}

#[test]
fn refused_token_is_explained_to_the_client_and_never_to_a_watch() {
    let token = || Credentials::bearer("u@v.w", "sesame");
    for (mechanism, message, dummy) in [
        ("XOAUTH2", "user=u@v.w\x01auth=Bearer sesame\x01\x01", ""),
        ("OAUTHBEARER", "n,a=u@v.w,\x01auth=Bearer sesame\x01\x01", "AQ=="),
    ] {
        let start = format!(
            "S: * OK [CAPABILITY AUTH={mechanism} SASL-IR] hi\n > dp1 AUTHENTICATE {mechanism} {}\n S: + eyJzIjo0MDF9\n",
            STANDARD.encode(message)
        );
        let end = format!("> {dummy}\n S: dp1 NO AUTHENTICATE failed.");
        let refused = Err(LoginError::Refused {
            answer: b"NO AUTHENTICATE failed.".to_vec(),
            untagged: vec![],
        });
        assert_eq!(
            play(token(), Security::Tls, &format!("{start} < + eyJzIjo0MDF9\n C: \x01\n {end}")),
            refused
        );
        assert_eq!(
            play_for(Purpose::Watch, token(), Security::Tls, &format!("{start} {end}")),
            refused
        );
    }
}

#[test]
fn scram_passes_through() {
    let first = "n,,n=u,r=abc";
    let credentials = || Credentials::exchange(Mechanism::ScramSha256, "u", first);
    let (server_first, server_final) =
        (STANDARD.encode("r=abcdef,s=c2FsdA==,i=4096"), STANDARD.encode("v=proof"));
    let exchange = format!(
        "S: + {server_first}
         < + {server_first}
         C: c=biws,r=abcdef,p=sesame
         > {}
         ",
        STANDARD.encode("c=biws,r=abcdef,p=sesame")
    );
    let with = format!(
        "S: * OK [CAPABILITY AUTH=SCRAM-SHA-256 SASL-IR] hi
         > dp1 AUTHENTICATE SCRAM-SHA-256 {}
         {exchange}
         S: + {server_final}
         < + {server_final}
         C:
         >
         S: dp1 OK [CAPABILITY X] in",
        STANDARD.encode(first)
    );
    assert!(play(credentials(), Security::Tls, &with).unwrap().is_some());
    let without = format!(
        "S: * OK [CAPABILITY AUTH=SCRAM-SHA-256] hi
         > dp1 AUTHENTICATE SCRAM-SHA-256
         S: +
         > {}
         {exchange}",
        STANDARD.encode(first)
    );
    assert!(
        play(credentials(), Security::Tls, &format!("{without}S: dp1 OK [CAPABILITY X] in"))
            .unwrap()
            .is_some()
    );
    // A server that repeats what the client answered is not quoted.
    let repeated = STANDARD.encode("c=biws,r=abcdef,p=sesame");
    let result =
        play(credentials(), Security::Tls, &format!("{without}S: dp1 BAD what is {repeated}"));
    assert_eq!(
        result,
        Err(LoginError::Refused {
            answer: b"NO The login was refused.".to_vec(),
            untagged: vec![]
        })
    );
    // No end of challenges, one too long, one that is none.
    let endless = format!("{without}S: + eA==\n < + eA==\n C: x\n > eA==\n S: + eA==");
    let long = format!("{without}S: + {}", "A".repeat(MAX_CHALLENGE + 4));
    for script in [endless, long, format!("{without}S: + %%")] {
        assert!(
            matches!(play(credentials(), Security::Tls, &script), Err(LoginError::Protocol(_))),
            "{script}"
        );
    }
    assert!(matches!(
        play(credentials(), Security::Tls, "S: * OK [CAPABILITY AUTH=PLAIN] hi"),
        Err(LoginError::NoMechanism(_))
    ));
}

/// Plays a client's login; `client` is what it said of itself before.
fn introduced(
    client: Option<&[(&str, &str)]>,
    extra: &[(&str, &str)],
    security: Security,
    script: &str,
) {
    let fields = |pairs: &[(&str, &str)]| -> Vec<Field> {
        pairs
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), Some(value.as_bytes().to_vec())))
            .collect()
    };
    let introduction = Introduction { client: client.map(fields), extra: fields(extra) };
    let machine = LoginMachine::new(simple(), security, Purpose::Client { probe: false })
        .introducing(introduction);
    let script = script.replace("<version>", env!("CARGO_PKG_VERSION"));
    assert!(play_machine(machine, &script).unwrap().is_some(), "{script}");
}

const CHAT: Option<&[(&str, &str)]> = Some(&[("name", "Chat")]);

#[test]
fn client_id_before_the_login_goes_where_the_server_wants_it() {
    // Before the login, whatever the server thinks of it; only once.
    for answer in ["S: * ID (\"name\" \"Dovecot\")\n S: dp1 OK", "S: * ID NIL\n S: dp1 OK"] {
        let script = format!(
            "S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR AUTH=PLAIN] hi
             > dp1 ID (\"name\" \"Chat\" \"x-via\" \"deltapush <version>\")
             {answer}
             > dp2 AUTHENTICATE PLAIN AHUAcA==
             S: dp2 OK [CAPABILITY IMAP4rev1 ID] in"
        );
        introduced(CHAT, &[], Security::Tls, &script);
    }
    // o2.pl: refused before the login, and said again after it.
    for refusal in ["BAD", "NO not yet"] {
        let script = format!(
            "S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR AUTH=PLAIN] hi
             > dp1 ID (\"name\" \"Chat\" \"x-via\" \"deltapush <version>\")
             S: dp1 {refusal}
             > dp2 AUTHENTICATE PLAIN AHUAcA==
             S: dp2 OK [CAPABILITY IMAP4rev1 ID] in
             > dp3 ID (\"name\" \"Chat\" \"x-via\" \"deltapush <version>\")
             S: dp3 NO"
        );
        introduced(CHAT, &[], Security::Tls, &script);
    }
    // After STARTTLS, not before.
    introduced(
        CHAT,
        &[],
        Security::StartTls,
        "S: * OK [CAPABILITY IMAP4rev1 ID STARTTLS] hi
         > dp1 STARTTLS
         S: dp1 OK
         (TLS)
         (secured)
         > dp2 CAPABILITY
         S: * CAPABILITY IMAP4rev1 ID AUTH=PLAIN SASL-IR
         S: dp2 OK
         > dp3 ID (\"name\" \"Chat\" \"x-via\" \"deltapush <version>\")
         S: dp3 OK
         > dp4 AUTHENTICATE PLAIN AHUAcA==
         S: dp4 OK [CAPABILITY ID] in",
    );
}

#[test]
fn where_id_comes_only_with_the_login_it_is_said_after_it() {
    for (client, name) in [
        (CHAT, "\"name\" \"Chat\" \"x-via\" \"deltapush <version>\""),
        (Some(&[][..]), "\"name\" \"deltapush\" \"version\" \"<version>\""),
        (None, "\"name\" \"deltapush\" \"version\" \"<version>\""),
    ] {
        let script = format!(
            "S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hi
             > dp1 AUTHENTICATE PLAIN AHUAcA==
             S: dp1 OK [CAPABILITY IMAP4rev1 ID] in
             > dp2 ID ({name})
             S: dp2 OK"
        );
        introduced(client, &[], Security::Tls, &script);
    }
}

#[test]
fn client_address_is_sent_only_to_servers_that_offer_to_take_it() {
    let script = "S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hi
         > dp1 AUTHENTICATE PLAIN AHUAcA==
         S: dp1 OK [CAPABILITY IMAP4rev1] in";
    introduced(CHAT, &[("x-originating-ip", "192.0.2.1")], Security::Tls, script);
    // A client that has said nothing yet speaks for itself.
    let script = "S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR AUTH=PLAIN] hi
         > dp1 AUTHENTICATE PLAIN AHUAcA==
         S: dp1 OK [CAPABILITY IMAP4rev1 ID] in";
    introduced(None, &[], Security::Tls, script);
}

#[test]
fn server_that_trusts_deltapush_learns_more_before_the_login() {
    let script = "S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR AUTH=PLAIN] hi
         > dp1 ID (\"name\" \"deltapush\" \"version\" \"<version>\" \"x-originating-ip\" \"192.0.2.1\")
         S: dp1 OK
         > dp2 AUTHENTICATE PLAIN AHUAcA==
         S: dp2 OK [CAPABILITY IMAP4rev1 ID] in";
    introduced(None, &[("x-originating-ip", "192.0.2.1")], Security::Tls, script);
    let forged = Some(&[("name", "Chat"), ("x-originating-ip", "198.51.100.1")][..]);
    let script = script.replace("deltapush\" \"version\" \"", "Chat\" \"x-via\" \"deltapush ");
    introduced(forged, &[("x-originating-ip", "192.0.2.1")], Security::Tls, &script);
}

/// The start of a dialogue with a server that lists PLAIN, and LOGIN too.
const LISTED: &str = "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] hi
    > dp1 AUTHENTICATE PLAIN AHUAcA==
    ";

#[test]
fn listed_method_that_does_not_work_is_followed_by_the_next() {
    for (what, script) in [
        (
            "163",
            "S: dp1 BAD Request not ending with <CR><LF>
            > dp2 AUTHENTICATE PLAIN
            S: dp2 BAD Parse command error
            > dp3 LOGIN \"u\" \"p\"
            S: dp3 OK [CAPABILITY IMAP4rev1] LOGIN completed",
        ),
        (
            "126: refused once the password was asked for",
            "S: dp1 BAD command error
            > dp2 AUTHENTICATE PLAIN
            S: +
            > AHUAcA==
            S: dp2 BAD command error
            > dp3 LOGIN \"u\" \"p\"
            S: dp3 OK [CAPABILITY IMAP4rev1] in",
        ),
        (
            "QQ: the mechanism works without initial response",
            "S: dp1 BAD parameter error
            > dp2 AUTHENTICATE PLAIN
            S: + 
            > AHUAcA==
            S: dp2 OK [CAPABILITY IMAP4rev1] Success login ok",
        ),
        (
            "Sina: no such mechanism",
            "S: dp1 NO Unsupported authentication mechanism
            > dp2 LOGIN \"u\" \"p\"
            S: dp2 OK [CAPABILITY IMAP4rev1] in",
        ),
        (
            "untagged, and its end late",
            "S: * BAD Request not ending with <CR><LF>
            > dp2 AUTHENTICATE PLAIN
            S: dp1 BAD Request not ending with <CR><LF>
            S: dp2 BAD what
            > dp3 LOGIN \"u\" \"p\"
            S: dp3 OK [CAPABILITY IMAP4rev1] in",
        ),
        (
            "an initial response that is overlooked",
            "S: + 
            > AHUAcA==
            S: dp1 OK [CAPABILITY IMAP4rev1] in",
        ),
    ] {
        let logged_in = play(simple(), Security::Tls, &format!("{LISTED}{script}"));
        assert!(logged_in.unwrap_or_else(|error| panic!("{what}: {error}")).is_some(), "{what}");
    }
}

#[test]
fn next_method_is_tried_where_the_password_was_not_sent_yet() {
    let script = "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN AUTH=LOGIN] hi
        > dp1 AUTHENTICATE PLAIN
        S: dp1 NO not today
        > dp2 AUTHENTICATE LOGIN
        S: + VXNlcm5hbWU6
        > dQ==
        S: dp2 NO nor that
        > dp3 LOGIN {3} \"x\"
        ";
    let script = script.replace("{3} \"x\"", "\"u\" {5}");
    let script = format!("{script}S: + go\n > gr\u{fc}n\n S: dp3 OK [CAPABILITY X] in");
    assert!(play(Credentials::new("u", "gr\u{fc}n"), Security::Tls, &script).unwrap().is_some());
    // A literal that the LOGIN command may not have.
    let script = "S: * OK [CAPABILITY IMAP4rev1 AUTH=LOGIN] hi
        > dp1 LOGIN \"u\" {5}
        S: dp1 BAD no literals here
        > dp2 AUTHENTICATE LOGIN
        S: +
        > dQ==
        S: +
        > Z3LDvG4=
        S: dp2 OK [CAPABILITY X] in";
    assert!(play(Credentials::new("u", "gr\u{fc}n"), Security::Tls, script).unwrap().is_some());
    let quotes = "S: * OK [CAPABILITY AUTH=PLAIN SASL-IR] hi
        > dp1 AUTHENTICATE PLAIN AHUAYSJiXA==
        S: dp1 BAD
        > dp2 AUTHENTICATE PLAIN
        S: dp2 BAD
        > dp3 LOGIN \"u\" \"a\\\"b\\\\\"
        S: dp3 OK [CAPABILITY X] in";
    assert!(play(Credentials::new("u", "a\"b\\"), Security::Tls, quotes).unwrap().is_some());
}

#[test]
fn password_is_judged_once() {
    for refusal in [
        "dp1 NO [AUTHENTICATIONFAILED] wrong",
        "dp1 BAD [AUTHENTICATIONFAILED] wrong",
        "dp1 NO wrong",
        "dp1 NO LOGIN failed",
        "dp1 BAD invalid credentials",
        "dp1 NO [UNAVAILABLE] later",
        "dp1 NO Too many connections",
    ] {
        let refused = play(simple(), Security::Tls, &format!("{LISTED}S: {refusal}"));
        assert!(matches!(refused, Err(LoginError::Refused { .. })), "{refusal}: {refused:?}");
    }
    let script = "S: dp1 BAD\n > dp2 AUTHENTICATE PLAIN\n S: +\n > AHUAcA==\n S: dp2 NO wrong";
    let refused = play(simple(), Security::Tls, &format!("{LISTED}{script}"));
    assert_eq!(
        refused,
        Err(LoginError::Refused { answer: b"NO wrong".to_vec(), untagged: vec![] })
    );
    // Nothing is left where LOGIN is forbidden.
    let script = "S: * OK [CAPABILITY AUTH=PLAIN LOGINDISABLED] hi
        > dp1 AUTHENTICATE PLAIN
        S: * OK [ALERT] see our page
        S: dp1 BAD no";
    let untagged = b"* OK [ALERT] see our page\r\n".to_vec();
    let refused = play(simple(), Security::Tls, script);
    assert_eq!(refused, Err(LoginError::Refused { answer: b"BAD no".to_vec(), untagged }));
}

#[test]
fn tokens_go_on_to_the_other_mechanism_and_exchanges_never_to_a_password() {
    let token = || Credentials::bearer("u", "t");
    let message = |text: &str| STANDARD.encode(text);
    let (first, second) =
        (message("user=u\x01auth=Bearer t\x01\x01"), message("n,a=u,\x01auth=Bearer t\x01\x01"));
    let listed = "S: * OK [CAPABILITY AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER SASL-IR] hi";
    let start = format!("{listed}\n > dp1 AUTHENTICATE XOAUTH2 {first}\n");
    let script = format!(
        "{start} S: dp1 BAD what
         > dp2 AUTHENTICATE XOAUTH2
         S: dp2 NO no such mechanism
         > dp3 AUTHENTICATE OAUTHBEARER {second}
         S: dp3 OK [CAPABILITY X] in"
    );
    assert!(play(token(), Security::Tls, &script).unwrap().is_some());
    // A token that was judged is not shown again.
    for judged in ["S: dp1 NO no", "S: + e30=\n < + e30=\n C: x\n > \n S: dp1 BAD no"] {
        let refused = play(token(), Security::Tls, &format!("{start} {judged}"));
        assert!(matches!(refused, Err(LoginError::Refused { .. })), "{judged}");
    }
    let scram = Credentials::exchange(Mechanism::ScramSha256, "u", "n,,n=u,r=x");
    let script = format!(
        "S: * OK [CAPABILITY AUTH=PLAIN AUTH=LOGIN AUTH=SCRAM-SHA-256 SASL-IR] hi
         > dp1 AUTHENTICATE SCRAM-SHA-256 {}
         S: dp1 BAD what
         > dp2 AUTHENTICATE SCRAM-SHA-256
         S: dp2 BAD no",
        message("n,,n=u,r=x")
    );
    let refused = play(scram, Security::Tls, &script);
    assert_eq!(refused, Err(LoginError::Refused { answer: b"BAD no".to_vec(), untagged: vec![] }));
}

#[test]
fn experience_is_used_and_falls_back() {
    let hints = || Hints { preferred: Some(LoginMethod::Login), refused: vec![] };
    let machine = || LoginMachine::new(simple(), Security::Tls, Purpose::Watch).with_hints(hints());
    let start = "S: * OK [CAPABILITY AUTH=PLAIN SASL-IR] hi\n > dp1 LOGIN \"u\" \"p\"\n";
    assert!(
        play_machine(machine(), &format!("{start} S: dp1 OK [CAPABILITY X] in")).unwrap().is_some()
    );
    let script = format!(
        "{start} S: dp1 BAD gone\n > dp2 AUTHENTICATE PLAIN AHUAcA==\n S: dp2 OK [CAPABILITY X] in"
    );
    assert!(play_machine(machine(), &script).unwrap().is_some());
    assert!(play_machine(machine(), &format!("{start} S: dp1 NO wrong")).is_err());
}

#[test]
fn complaints_are_remembered_without_secrets() {
    let player = |password| {
        let credentials = Credentials::new("u", password);
        let machine = LoginMachine::new(credentials, Security::Tls, Purpose::Watch);
        Player::new(machine, Instant::now())
    };
    let mut long = player("se\"sam");
    long.play(
        "S: * OK [CAPABILITY IMAP4rev1] hi
         > dp1 LOGIN \"u\" \"se\\\"sam\"
         S: * NO [ALERT] Please enable IMAP access",
    );
    assert_eq!(long.machine.complaint(), Some("Please enable IMAP access"));
    for echo in ["what is LOGIN \"u\" \"se\\\"sam\"", "what is LOGIN \"U\" \"SE\\\"SAM\""] {
        long.play(&format!("S: * NO {echo}"));
        assert_eq!(long.machine.complaint(), Some("Please enable IMAP access"), "{echo}");
    }
    let mut short = player("p");
    short.play(
        "S: * OK [CAPABILITY IMAP4rev1] hi
         > dp1 LOGIN \"u\" \"p\"
         S: * NO what is LOGIN \"u\" \"p\"",
    );
    assert_eq!(short.machine.complaint(), None);
}
