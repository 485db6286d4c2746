//! A client before its login: commands in, answers and events out.

use std::time::Duration;

use super::*;
use crate::credentials::Mechanism;
use crate::machine::script::{Done, Player, Said, Scripted};
use crate::parser::sasl::SaslLine;
use crate::secret::Secret;

const ALLOWED: Allowance = Allowance {
    command: 2000,
    commands: 100,
    wrong: 10,
    logins: 5,
    login_name: 320,
    command_time: Duration::from_secs(30),
};

/// Time for the login.
const LOGIN_TIME: Duration = Duration::from_secs(60);

fn machine(protection: Protection, allowance: Allowance, now: Instant) -> NotAuthenticated {
    NotAuthenticated::new(protection, allowance, now + LOGIN_TIME)
}

/// Plays a client in the language of [`machine::script`](crate::machine::script), in whole lines and byte by byte. Returns the last
/// event: `(TLS)`, `(login TAG)`, `(response)`, `(close)`, `(late)`. `(challenge)`: the client is sent one of the upstream's;
/// `(refused TAG)`: the login was.
fn play(protection: Protection, script: &str) -> Option<PreauthEvent> {
    let now = Instant::now();
    let new = || Player::new(machine(protection, ALLOWED, now), now);
    let run = |mut player: Player<NotAuthenticated>| {
        player.play(script);
        player.end().1
    };
    let whole = run(new());
    assert_eq!(run(new().bytewise()), whole, "byte by byte");
    whole
}

impl Scripted for NotAuthenticated {
    type End = PreauthEvent;

    fn give(&mut self, said: Said<'_>, now: Instant, done: &mut Done<PreauthEvent>) -> bool {
        let refused = |tag: &str| format!("{tag} NO wrong\r\n").into_bytes();
        match said {
            Said::Begin => {}
            Said::Client(bytes) => self.handle(PreauthInput::Received(bytes), now, done),
            Said::Later => self.handle(PreauthInput::Tick, now, done),
            Said::Event("challenge") => self.handle(PreauthInput::Challenge, now, done),
            Said::Event(event) => match event.strip_prefix("refused ") {
                Some(tag) => self.handle(PreauthInput::Refused(&refused(tag)), now, done),
                None => return false,
            },
            Said::Server(_) => return false,
        }
        true
    }

    fn write(action: PreauthAction<'_>, done: &mut Done<PreauthEvent>) {
        match action {
            PreauthAction::Show(_) | PreauthAction::Used(_) => {}
            PreauthAction::Send(lines) => done.sent("<", lines),
            PreauthAction::Event(event) => {
                match &event {
                    PreauthEvent::StartTls => done.did("TLS"),
                    PreauthEvent::Login { tag, .. } => {
                        done.did(&format!("login {}", String::from_utf8_lossy(tag)))
                    }
                    PreauthEvent::Response(_) => done.did("response"),
                    PreauthEvent::Close => done.did("close"),
                    PreauthEvent::TimedOut => done.did("late"),
                }
                done.ends(event);
            }
        }
    }
}

/// The result of `input`, in one piece and byte by byte: the answers, and the event with its credentials.
fn take(protection: Protection, input: &str) -> (String, Option<PreauthEvent>) {
    let run = |chunks: Vec<&[u8]>| {
        let now = Instant::now();
        let mut machine = machine(protection, ALLOWED, now);
        let mut out = vec![];
        let mut event = None;
        for chunk in chunks {
            let turn = PreauthTurn::of(&mut machine, PreauthInput::Received(chunk), now, None);
            out.extend(turn.answer);
            event = turn.event;
            if event.is_some() {
                break;
            }
        }
        (String::from_utf8(out).unwrap(), event)
    };
    let whole = run(vec![input.as_bytes()]);
    assert_eq!(run(input.as_bytes().chunks(1).collect()), whole);
    whole
}

/// The same in one piece, for one machine.
fn turn(machine: &mut NotAuthenticated, input: &[u8]) -> PreauthTurn {
    PreauthTurn::of(machine, PreauthInput::Received(input), Instant::now(), None)
}

fn login(tag: &str, user: &str, password: &str) -> Option<PreauthEvent> {
    Some(PreauthEvent::Login { tag: tag.into(), credentials: Credentials::new(user, password) })
}

#[test]
fn login_in_all_forms() {
    let played = |script| play(Protection::Tls, script);
    assert_eq!(played("C: a LOGIN u p\n (login a)"), login("a", "u", "p"));
    assert_eq!(
        played(
            "C: a1 LOGIN {1}
             < + OK
             C: u {6}
             < + OK
             C: p
             C: w\"x
             (login a1)"
        ),
        login("a1", "u", "p\r\nw\"x")
    );
    assert_eq!(
        play(Protection::None, "C: a LOGIN \"u\" {2+}\n C: p}\n (login a)"),
        login("a", "u", "p}")
    );
    assert_eq!(played("C: a AUTHENTICATE PLAIN AHUAcA==\n (login a)"), login("a", "u", "p"));
    assert_eq!(
        played("C: a authenticate plain\n < + \n C: AHUAcA==\n (login a)"),
        login("a", "u", "p")
    );
}

#[test]
fn exchange_can_be_cancelled_and_gone_on_after() {
    let event = play(
        Protection::Tls,
        "C: a AUTHENTICATE PLAIN
         < +\u{20}
         C: *
         < a BAD The login was cancelled.
         C: b NOOP
         < b OK NOOP completed
         C: c LOGIN u p
         (login c)",
    );
    assert_eq!(event, login("c", "u", "p"));
}

#[test]
fn before_tls_no_password_is_taken() {
    let refused =
        "NO [PRIVACYREQUIRED] This connection is not encrypted. Choose STARTTLS in the settings.";
    play(
        Protection::StartTls,
        &format!(
            "C: a LOGIN u p
             < a {refused}
             C: b AUTHENTICATE PLAIN AHUAcA==
             < b {refused}
             C: c STARTTLS
             < c OK begin TLS now
             (TLS)"
        ),
    );
    assert_eq!(
        take(Protection::StartTls, "c STARTTLS\r\nd NOOP\r\n"),
        ("c OK begin TLS now\r\n".into(), Some(PreauthEvent::StartTls)),
        "what follows is not answered"
    );
    assert!(greeting(Protection::StartTls, false).contains("LOGINDISABLED"));
}

#[test]
fn commands_before_the_login_are_answered() {
    play(
        Protection::Tls,
        "C: a CAPABILITY
         < * CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID AUTH=PLAIN AUTH=LOGIN AUTH=XOAUTH2 AUTH=OAUTHBEARER
         < a OK CAPABILITY completed
         C: b ID NIL
         < * ID (\"name\" \"deltapush\")
         < b OK ID completed
         C: c STARTTLS
         < c BAD STARTTLS is not available here.
         C: d SELECT x
         < d BAD This command is unknown, or it needs a login first.
         C: e LOGOUT
         < * BYE Logging out.
         < e OK LOGOUT completed
         (close)",
    );
    let (out, _) = take(Protection::Tls, "e LOGOUT\r\nf NOOP\r\n");
    assert!(out.ends_with("e OK LOGOUT completed\r\n"), "nothing is answered after it");
}

#[test]
fn time_is_bounded() {
    let late = format!("< {}", untagged(&OwnRefusal::TookTooLong.to_string()));
    // In all, whatever the client says.
    play(
        Protection::Tls,
        &format!("(later 59s)\n C: a NOOP\n < a OK NOOP completed\n (later 1s)\n {late} (late)"),
    );
    // A command that has begun, a piece of it now and then.
    play(
        Protection::Tls,
        &format!("C: a NO\\\n (later 29s)\n C: O\\\n (later 1s)\n {late} (late)"),
    );
    // The answer to a challenge has a time of its own.
    play(
        Protection::Tls,
        &format!(
            "C: a AUTHENTICATE LOGIN
             < + VXNlcm5hbWU6
             (later 29s)
             C: dQ==
             < + UGFzc3dvcmQ6
             (later 1s)
             {late} (late)"
        ),
    );
}

#[test]
fn last_refused_login_ends_the_connection() {
    let attempt = "C: a LOGIN u p\n (login a)\n (refused a)\n < a NO wrong\n";
    let goodbye = untagged(&OwnRefusal::TooManyTries.to_string());
    let event = play(Protection::Tls, &format!("{}< {goodbye} (close)", attempt.repeat(5)));
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

fn greeting(protection: Protection, offers_scram: bool) -> String {
    let now = Instant::now();
    let mut machine = machine(protection, ALLOWED, now).offering_scram(offers_scram);
    let turn = PreauthTurn::of(&mut machine, PreauthInput::Start, now, None);
    String::from_utf8(turn.answer).unwrap()
}

#[test]
fn scram_is_offered_only_where_it_is_wanted() {
    assert!(
        greeting(Protection::Tls, true)
            .contains("AUTH=OAUTHBEARER AUTH=SCRAM-SHA-1 AUTH=SCRAM-SHA-256]")
    );
    assert!(!greeting(Protection::Tls, false).contains("SCRAM"));
    assert!(!greeting(Protection::StartTls, true).contains("AUTH="));
}

#[test]
fn answer_to_the_upstream_is_read_as_one() {
    let answered = |line: &str| {
        let script = format!("(challenge)\n C: {line}\n (response)");
        match play(Protection::Tls, &script) {
            Some(PreauthEvent::Response(line)) => line,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(answered("eA=="), SaslLine::Response(Secret::new(b"x".to_vec())));
    assert_eq!(answered(""), SaslLine::Response(Secret::new(vec![])));
    assert_eq!(answered("*"), SaslLine::Cancelled);
    assert_eq!(answered("a NOOP"), SaslLine::Malformed);
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
        let now = Instant::now();
        let mut machine = machine(Protection::Tls, ALLOWED, now);
        let input = PreauthInput::Received(input.as_bytes());
        PreauthTurn::of(&mut machine, input, now, Some(recorder.transcript().unwrap()));
    }
    drop(recorder);
    let shown = shown.text();
    assert!(shown.contains("C: a LOGIN<") && !shown.contains("sesame"), "{shown}");
}

#[test]
fn client_id_fields_are_kept() {
    let said = |input: &[u8]| {
        let allowance = Allowance { command: 99_000, ..ALLOWED };
        let mut machine = machine(Protection::Tls, allowance, Instant::now());
        let out = turn(&mut machine, input).answer;
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
            let mut machine = machine(Protection::Tls, ALLOWED, Instant::now());
            let PreauthTurn { answer, event, .. } = turn(&mut machine, command.as_bytes());
            let out = String::from_utf8(answer).unwrap();
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
    let mut machine = machine(Protection::Tls, ALLOWED, Instant::now());
    let many = commands(&"x".repeat(400), "bob")[0].repeat(10);
    assert_eq!(
        turn(&mut machine, many.as_bytes()).event,
        Some(PreauthEvent::Close),
        "each is a wrong command"
    );
}

#[test]
fn command_before_the_login_is_bounded_however_long_others_may_be() {
    let allowance = Allowance { command: 64 * 1024, ..ALLOWED };
    let mut machine = machine(Protection::Tls, allowance, Instant::now());
    for _ in 0..MAX_COMMAND / 1024 {
        assert_eq!(turn(&mut machine, &[b'a'; 1024]).event, None);
    }
    assert_eq!(machine.held.capacity(), MAX_COMMAND);
    let PreauthTurn { answer, event, .. } = turn(&mut machine, b"a");
    assert_eq!((machine.held.capacity(), event), (MAX_COMMAND, Some(PreauthEvent::Close)));
    assert!(answer.starts_with(b"* BYE [TOOBIG]"));
}
