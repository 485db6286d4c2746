//! A client before its login: commands in, answers and events out.

use super::*;

const ALLOWED: Allowance =
    Allowance { command: 2000, commands: 100, wrong: 10, logins: 5, login_name: 320 };
use crate::credentials::Mechanism;
use crate::secret::Secret;

/// What came of `input`, in one piece and byte by byte: the answers, and the event with its credentials.
fn take(protection: Protection, input: &str) -> (String, Option<PreauthEvent>) {
    let run = |chunks: Vec<&[u8]>| {
        let mut machine = NotAuthenticated::new(protection, ALLOWED);
        let mut out = vec![];
        for mut chunk in chunks {
            if let Some(event) = machine.take(&mut chunk, &mut out, None) {
                return (String::from_utf8(out).unwrap(), Some(event));
            }
        }
        (String::from_utf8(out).unwrap(), None)
    };
    let whole = run(vec![input.as_bytes()]);
    assert_eq!(run(input.as_bytes().chunks(1).collect()), whole);
    whole
}

fn login(tag: &str, user: &str, password: &str) -> Option<PreauthEvent> {
    Some(PreauthEvent::Login { tag: tag.into(), credentials: Credentials::new(user, password) })
}

#[test]
fn login_in_all_forms() {
    assert_eq!(take(Protection::Tls, "a LOGIN u p\r\n"), (String::new(), login("a", "u", "p")));
    assert_eq!(
        take(Protection::Tls, "a1 LOGIN {1}\r\nu {6}\r\np\r\nw\"x\r\n"),
        ("+ OK\r\n+ OK\r\n".into(), login("a1", "u", "p\r\nw\"x"))
    );
    assert_eq!(
        take(Protection::None, "a LOGIN \"u\" {2+}\r\np}\r\n"),
        (String::new(), login("a", "u", "p}"))
    );
    assert_eq!(
        take(Protection::Tls, "a AUTHENTICATE PLAIN AHUAcA==\r\n"),
        (String::new(), login("a", "u", "p"))
    );
    assert_eq!(
        take(Protection::Tls, "a authenticate plain\r\nAHUAcA==\r\n"),
        ("+ \r\n".into(), login("a", "u", "p"))
    );
}

#[test]
fn exchange_can_be_cancelled_and_gone_on_after() {
    let (out, event) =
        take(Protection::Tls, "a AUTHENTICATE PLAIN\r\n*\r\nb NOOP\r\nc LOGIN u p\r\n");
    assert_eq!(out, "+ \r\na BAD The login was cancelled.\r\nb OK NOOP completed\r\n");
    assert_eq!(event, login("c", "u", "p"));
}

#[test]
fn before_tls_no_password_is_taken() {
    let (out, event) = take(
        Protection::StartTls,
        "a LOGIN u p\r\nb AUTHENTICATE PLAIN AHUAcA==\r\nc STARTTLS\r\nd NOOP\r\n",
    );
    let refused =
        "NO [PRIVACYREQUIRED] This connection is not encrypted. Choose STARTTLS in the settings.";
    assert_eq!(out, format!("a {refused}\r\nb {refused}\r\nc OK begin TLS now\r\n"));
    assert_eq!(event, Some(PreauthEvent::StartTls));
    assert!(
        String::from_utf8(NotAuthenticated::new(Protection::StartTls, ALLOWED).greeting())
            .unwrap()
            .contains("LOGINDISABLED")
    );
}

#[test]
fn commands_before_the_login_are_answered() {
    let (out, event) = take(
        Protection::Tls,
        "a CAPABILITY\r\nb ID NIL\r\nc STARTTLS\r\nd SELECT x\r\ne LOGOUT\r\nf NOOP\r\n",
    );
    assert_eq!(
        out,
        "* CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID AUTH=PLAIN AUTH=LOGIN AUTH=XOAUTH2 AUTH=OAUTHBEARER\r\na OK CAPABILITY completed\r\n\
         * ID (\"name\" \"deltapush\")\r\nb OK ID completed\r\nc BAD STARTTLS is not available here.\r\n\
         d BAD This command is unknown, or it needs a login first.\r\n* BYE Logging out.\r\ne OK LOGOUT completed\r\n"
    );
    assert_eq!(event, Some(PreauthEvent::Close));
}

#[test]
fn bad_input_has_an_answer_and_an_end() {
    let (out, _) = take(
        Protection::Tls,
        "\r\n\0\r\na LOGIN u\r\nb AUTHENTICATE X\r\nc AUTHENTICATE PLAIN %\r\n",
    );
    assert_eq!(
        out.lines().filter(|line| line.contains("BAD") || line.contains("NO ")).count(),
        5,
        "{out}"
    );
    let (out, event) = take(Protection::Tls, &"x\r\n".repeat(50));
    assert_eq!(
        (out.lines().count(), event),
        (ALLOWED.wrong as usize + 1, Some(PreauthEvent::Close))
    );
    assert!(out.ends_with(
        "* BYE Too many commands came without a login. Check the server settings in your app.\r\n"
    ));
    let (out, event) = take(Protection::Tls, &"x NOOP\r\n".repeat(500));
    assert_eq!(
        (out.lines().count(), event),
        (ALLOWED.commands as usize + 1, Some(PreauthEvent::Close))
    );
}

#[test]
fn command_that_is_too_long_is_refused_and_not_held() {
    let (out, event) = take(Protection::Tls, "b LOGIN {5000}\r\nc LOGIN u {1900}\r\nd NOOP\r\n");
    assert_eq!((out.as_str(), event), ("b NO [TOOBIG] The literal is too long.\r\n+ OK\r\n", None));
    let long = "x".repeat(5000);
    for input in [
        long.as_str(),
        &format!("a {long}\r\n"),
        "c LOGIN {5000+}\r\n",
        "c LOGIN {4294967295+}\r\n",
    ] {
        let (out, event) = take(Protection::Tls, input);
        assert_eq!(
            (out.as_str(), event),
            ("* BYE [TOOBIG] The command is too long.\r\n", Some(PreauthEvent::Close)),
            "{input}"
        );
    }
}

fn encoded(message: &str) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(message)
}

#[test]
fn every_mechanism_with_and_without_initial_response() {
    let token = || Credentials::bearer("u@v.w", "t");
    let scram = |mechanism| Credentials::exchange(mechanism, "u", "n,,n=u,r=x");
    for (name, message, credentials) in [
        ("PLAIN", "\0u\0p", Credentials::new("u", "p")),
        ("XOAUTH2", "user=u@v.w\x01auth=Bearer t\x01\x01", token()),
        ("OAUTHBEARER", "n,a=u@v.w,\x01auth=Bearer t\x01\x01", token()),
        ("SCRAM-SHA-1", "n,,n=u,r=x", scram(Mechanism::ScramSha1)),
        ("SCRAM-SHA-256", "n,,n=u,r=x", scram(Mechanism::ScramSha256)),
    ] {
        let message = encoded(message);
        let event =
            || Some(PreauthEvent::Login { tag: b"a".to_vec(), credentials: credentials.clone() });
        let with = take(Protection::Tls, &format!("a AUTHENTICATE {name} {message}\r\n"));
        assert_eq!(with, (String::new(), event()), "{name}");
        let without = take(
            Protection::Tls,
            &format!("a authenticate {}\r\n{message}\r\n", name.to_lowercase()),
        );
        assert_eq!(without, ("+ \r\n".into(), event()), "{name}");
    }
    let (user, password) = (encoded("u"), encoded("p\r\n{5}"));
    let prompts = "+ VXNlcm5hbWU6\r\n+ UGFzc3dvcmQ6\r\n";
    assert_eq!(
        take(Protection::Tls, &format!("a AUTHENTICATE LOGIN\r\n{user}\r\n{password}\r\n")),
        (prompts.into(), login("a", "u", "p\r\n{5}"))
    );
    assert_eq!(
        take(Protection::Tls, &format!("a AUTHENTICATE LOGIN {user}\r\n{password}\r\n")),
        ("+ UGFzc3dvcmQ6\r\n".into(), login("a", "u", "p\r\n{5}"))
    );
}

#[test]
fn every_exchange_can_be_cancelled_at_every_step() {
    for (_, name) in Mechanism::ALL {
        let (out, event) =
            take(Protection::Tls, &format!("a AUTHENTICATE {name}\r\n*\r\nb NOOP\r\n"));
        assert!(
            out.ends_with("\r\na BAD The login was cancelled.\r\nb OK NOOP completed\r\n")
                && event.is_none(),
            "{name}: {out}"
        );
        let (out, _) = take(Protection::Tls, &format!("a AUTHENTICATE {name}\r\n%\r\n"));
        assert!(
            out.ends_with("a BAD [CLIENTBUG] The login data is not valid base64.\r\n"),
            "{name}: {out}"
        );
        // An empty initial response is a message, and of none of these.
        let (out, event) = take(Protection::Tls, &format!("a AUTHENTICATE {name} =\r\nb NOOP\r\n"));
        assert!(
            out.starts_with("a BAD ") && out.lines().count() == 2 && event.is_none(),
            "{name}: {out}"
        );
    }
    let (out, _) =
        take(Protection::Tls, &format!("a AUTHENTICATE LOGIN {}\r\n*\r\n", encoded("u")));
    assert_eq!(out, "+ UGFzc3dvcmQ6\r\na BAD The login was cancelled.\r\n");
}

#[test]
fn mechanism_that_cannot_be_relayed_is_refused() {
    for (name, message, expected) in [
        ("EXTERNAL", "u", "a NO [CANNOT] This way to log in"),
        ("ANONYMOUS", "u", "a NO [CANNOT] This way to log in"),
        ("SCRAM-SHA-256-PLUS", "p=tls-exporter,,n=u,r=x", "a NO [CANNOT] This way to log in"),
        ("SCRAM-SHA-256", "p=tls-exporter,,n=u,r=x", "a NO [CANNOT] A login here cannot be bound"),
        (
            "PLAIN",
            "\0u\r\nx LOGIN v w\0p",
            "a BAD [CLIENTBUG] The login data is not a valid PLAIN message",
        ),
        ("PLAIN", "\0u\0p\0q", "a BAD [CLIENTBUG] The login data is not a valid PLAIN message"),
        ("LOGIN", "u\r\nv", "a BAD [CLIENTBUG] The login data is not a valid user name."),
        (
            "OAUTHBEARER",
            "n,,\x01auth=Bearer t\x01\x01",
            "a BAD [CLIENTBUG] The login data is not a valid OAUTHBEARER message",
        ),
    ] {
        let (out, event) =
            take(Protection::Tls, &format!("a AUTHENTICATE {name} {}\r\n", encoded(message)));
        assert!(out.starts_with(expected) && event.is_none(), "{name}: {out}");
        assert!(!out.to_lowercase().contains("authentication"), "{out}");
    }
    let nul = format!("a AUTHENTICATE LOGIN {}\r\n{}\r\n", encoded("u"), encoded("p\0q"));
    assert!(take(Protection::Tls, &nul).0.ends_with(
        "a BAD [CLIENTBUG] The password has a NUL character in it, which is not allowed.\r\n"
    ));
    for command in
        ["a LOGIN {4+}\r\nu\r\nv p\r\n", "a LOGIN u {3+}\r\np\0q\r\n", "a LOGIN {3+}\r\nu\0v p\r\n"]
    {
        let (out, event) = take(Protection::Tls, command);
        assert_eq!(
            (out.as_str(), event),
            ("a BAD [CLIENTBUG] LOGIN needs a user name and a password.\r\n", None),
            "{command:?}"
        );
    }
}

#[test]
fn scram_is_offered_only_where_it_is_wanted() {
    let greeting = |protection, offers| {
        String::from_utf8(
            NotAuthenticated::new(protection, ALLOWED).offering_scram(offers).greeting(),
        )
        .unwrap()
    };
    assert!(
        greeting(Protection::Tls, true)
            .contains("AUTH=OAUTHBEARER AUTH=SCRAM-SHA-1 AUTH=SCRAM-SHA-256]")
    );
    assert!(!greeting(Protection::Tls, false).contains("SCRAM"));
    assert!(!greeting(Protection::StartTls, true).contains("AUTH="));
}

#[test]
fn answer_to_the_upstream_is_read_as_one() {
    let mut machine = NotAuthenticated::new(Protection::Tls, ALLOWED);
    let mut answered = |line: &str| {
        machine.expect_response();
        let mut out = vec![];
        let event = machine.take(&mut line.as_bytes(), &mut out, None);
        assert!(out.is_empty());
        event
    };
    assert_eq!(
        answered("eA==\r\n"),
        Some(PreauthEvent::Response(SaslLine::Response(Secret::new(b"x".to_vec()))))
    );
    assert_eq!(
        answered("\r\n"),
        Some(PreauthEvent::Response(SaslLine::Response(Secret::new(vec![]))))
    );
    assert_eq!(answered("*\r\n"), Some(PreauthEvent::Response(SaslLine::Cancelled)));
    assert_eq!(answered("a NOOP\r\n"), Some(PreauthEvent::Response(SaslLine::Malformed)));
}

#[test]
fn transcript_has_no_password() {
    let (shown, mut recorder) = crate::trace::testing::Shown::begin();
    for input in [
        "a LOGIN sesame sesame\r\n",
        "b LOGIN {6+}\r\nsesame {6+}\r\nsesame\r\n",
        "c AUTHENTICATE PLAIN sesame==\r\n",
        "d AUTHENTICATE PLAIN\r\nsesame\r\n",
        "sesame\r\n",
        "f AUTHENTICATE LOGIN\r\nsesa\r\nsesame==\r\n",
        "g AUTHENTICATE XOAUTH2 sesame==\r\n",
        "h AUTHENTICATE OAUTHBEARER\r\nsesame==\r\n",
        "i AUTHENTICATE SCRAM-SHA-256\r\nsesame==\r\n",
        "e LOGIM sesame sesame\r\n",
    ] {
        let mut machine = NotAuthenticated::new(Protection::Tls, ALLOWED);
        machine.take(&mut input.as_bytes(), &mut vec![], Some(recorder.transcript().unwrap()));
    }
    drop(recorder);
    let shown = shown.text();
    assert!(shown.contains("C: a LOGIN<") && !shown.contains("sesame"), "{shown}");
}

#[test]
fn client_id_fields_are_kept() {
    let said = |mut input: &[u8]| {
        let (mut machine, mut out) = (
            NotAuthenticated::new(Protection::Tls, Allowance { command: 99_000, ..ALLOWED }),
            vec![],
        );
        machine.take(&mut input, &mut out, None);
        (machine.client_id().map(<[_]>::to_vec), String::from_utf8(out).unwrap())
    };
    let field = (b"name".to_vec(), Some(b"x".to_vec()));
    assert_eq!(said(b"a ID (\"name\" \"x\")\r\n").0, Some(vec![field.clone()]));
    assert_eq!(said(b"a ID (\"name\" {1}\r\nx)\r\n").0, Some(vec![field]));
    assert_eq!(said(b"a ID NIL\r\n").0, Some(vec![]));
    assert_eq!(said(b"a NOOP\r\n").0, None);
    let long = format!("a ID (\"name\" \"{}\")\r\n", "x".repeat(1025));
    for wrong in [&b"a ID\r\n"[..], b"a ID (\"name\")\r\n", long.as_bytes()] {
        let (fields, out) = said(wrong);
        assert!(
            fields.is_none() && out.starts_with("a BAD [CLIENTBUG] ID needs NIL or a list"),
            "{out}"
        );
    }
}

#[test]
fn names_over_the_limit_are_refused_by_every_mechanism() {
    use base64::Engine as _;
    let encoded = |text: String| base64::prelude::BASE64_STANDARD.encode(text);
    let commands = |name: &str, other: &str| {
        [
            format!("a LOGIN {name} x\r\n"),
            format!("a LOGIN {{{}+}}\r\n{name} x\r\n", name.len()),
            format!("a AUTHENTICATE PLAIN {}\r\n", encoded(format!("\0{name}\0x"))),
            format!("a AUTHENTICATE PLAIN {}\r\n", encoded(format!("{name}\0{other}\0x"))),
            format!("a AUTHENTICATE LOGIN {}\r\n{}\r\n", encoded(name.into()), encoded("x".into())),
            format!(
                "a AUTHENTICATE XOAUTH2 {}\r\n",
                encoded(format!("user={name}\x01auth=Bearer t\x01\x01"))
            ),
            format!(
                "a AUTHENTICATE OAUTHBEARER {}\r\n",
                encoded(format!("n,a={name},\x01auth=Bearer t\x01\x01"))
            ),
            format!("a AUTHENTICATE SCRAM-SHA-1 {}\r\n", encoded(format!("n,,n={name},r=x"))),
            format!(
                "a AUTHENTICATE SCRAM-SHA-256 {}\r\n",
                encoded(format!("n,a={name},n={other},r=x"))
            ),
        ]
    };
    let (longest, too_long) = ("x".repeat(320), "x".repeat(321));
    for (name, is_taken) in [(longest, true), (too_long, false)] {
        for command in commands(&name, "bob") {
            let mut machine = NotAuthenticated::new(Protection::Tls, ALLOWED);
            let (mut out, mut input) = (Vec::new(), command.as_bytes());
            let event = machine.take(&mut input, &mut out, None);
            let out = String::from_utf8(out).unwrap();
            assert_eq!(
                matches!(event, Some(PreauthEvent::Login { .. })),
                is_taken,
                "{command} {out}"
            );
            assert_eq!(
                out.contains("a NO [CANNOT] This login name is too long. It may have 320 bytes."),
                !is_taken,
                "{out}"
            );
        }
    }
    let mut machine = NotAuthenticated::new(Protection::Tls, ALLOWED);
    let (mut out, many) = (Vec::new(), commands(&"x".repeat(400), "bob")[0].repeat(10));
    assert_eq!(
        machine.take(&mut many.as_bytes(), &mut out, None),
        Some(PreauthEvent::Close),
        "each is a wrong command"
    );
}

#[test]
fn command_before_the_login_is_bounded_however_long_others_may_be() {
    let allowance = Allowance { command: 64 * 1024, ..ALLOWED };
    let mut machine = NotAuthenticated::new(Protection::Tls, allowance);
    let mut out = Vec::new();
    for _ in 0..MAX_COMMAND / 1024 {
        assert_eq!(machine.take(&mut &[b'a'; 1024][..], &mut out, None), None);
    }
    assert_eq!(
        (machine.held.capacity(), machine.take(&mut &b"a"[..], &mut out, None)),
        (MAX_COMMAND, Some(PreauthEvent::Close))
    );
    assert!(machine.held.capacity() == MAX_COMMAND && out.starts_with(b"* BYE [TOOBIG]"));
}
