//! Dialogues about what deltapush changes on the way: keepalives, ID, referrals, capabilities.

use super::testing::{PLAIN, in_lines, play, play_with, session, traced};
use super::*;

#[test]
fn keepalives_of_the_server_do_not_reach_an_idling_client() {
    play(
        "S: * OK Still here
         < * OK Still here
         C: A1 IDLE
         > A1 IDLE
         S: * OK Still here
         < * OK Still here
         S: + idling
         < + idling
         S: * OK Still here
         S: * ok still here.
         S: * OK
         S: * OK [ALERT] Still here
         < * OK [ALERT] Still here
         S: * OK [UIDNEXT 5] x
         < * OK [UIDNEXT 5] x
         S: * OK Going down at noon {5}
         < * OK Going down at noon {5}
         S: * 3 EXISTS
         < * 3 EXISTS
         S: * OK [CAPABILITY IMAP4rev1] x
         < * OK [CAPABILITY IMAP4rev1 METADATA XDELTAPUSH COMPRESS=DEFLATE] x
         S: * NO Still here
         < * NO Still here
         C: DONE
         > DONE
         S: * OK Still here
         < * OK Still here
         S: A1 OK done
         < A1 OK done",
    );
}

#[test]
fn deltapush_says_that_the_connection_lives_to_an_idling_client_between_responses() {
    play(
        "(keepalive)
         C: A1 IDLE
         > A1 IDLE
         (keepalive)
         S: + idling
         < + idling
         (keepalive)
         < * OK Still here
         S: * 1 FETCH (FLAGS ()\\
         < * 1 FETCH (FLAGS ()\\
         (keepalive)
         S: )
         < )
         S: * OK Sti\\
         (keepalive)
         S: ll here
         (keepalive)
         < * OK Still here
         S: * BYE gone
         < * BYE gone
         (keepalive)
         C: DONE
         > DONE
         S: A1 OK done
         < A1 OK done
         (keepalive)",
    );
}

#[test]
fn keepalives_can_be_left_to_the_server() {
    let silent = || {
        let mut it = session(PLAIN);
        Arc::make_mut(&mut it.session.settings).keepalive = None;
        it
    };
    for mut player in [in_lines(silent()), traced(silent()).0] {
        player.play(
            "C: A1 IDLE
             > A1 IDLE
             S: + idling
             < + idling
             S: * OK Still here
             < * OK Still here
             (keepalive)",
        );
        assert_eq!(player.end().0.session.keepalive(), None);
    }
}

#[test]
fn server_hears_of_deltapush_in_the_clients_id() {
    let script = "C: A1 ID (\"name\" \"Delta Chat\")
         > A1 ID (\"name\" \"Delta Chat\" \"x-via\" \"deltapush <version>\")
         S: * ID (\"name\" \"Dovecot\")
         < * ID (\"name\" \"Dovecot\")
         S: A1 OK done
         < A1 OK done
         C: A2 id nil
         > A2 ID (\"name\" \"deltapush\" \"version\" \"<version>\")
         C: A3 ID ()
         > A3 ID (\"name\" \"deltapush\" \"version\" \"<version>\")
         C: A4 ID (\"name\" {2}
         < + OK
         C: \u{fc} \"os\" NIL \"x-originating-ip\" \"192.0.2.1\")
         > A4 ID (\"name\" {2}
         C: A5 NOOP
         S: + go on
         > \u{fc} \"os\" NIL \"x-via\" \"deltapush <version>\")
         > A5 NOOP
         S: A4 BAD no literals here
         < A4 BAD no literals here
         C: A6 ID (what
         > A6 ID (what";
    play(&script.replace("<version>", env!("CARGO_PKG_VERSION")));
}

#[test]
fn server_without_id_gets_none() {
    let without = UpstreamTraits { id: false, ..PLAIN };
    play_with(
        without,
        Native::Passthrough,
        "C: A1 ID (\"name\" \"Delta Chat\")
         < * ID (\"name\" \"deltapush\")
         < A1 OK ID completed
         S: * CAPABILITY IMAP4rev1 ID METADATA XDELTAPUSH
         < * CAPABILITY IMAP4rev1 ID METADATA XDELTAPUSH COMPRESS=DEFLATE
         C: A2 ID (what
         > A2 ID (what
         S: * CAPABILITY IMAP4rev1 METADATA XDELTAPUSH
         < * CAPABILITY IMAP4rev1 METADATA XDELTAPUSH COMPRESS=DEFLATE
         C: A3 ID NIL
         < * ID (\"name\" \"deltapush\")
         < A3 OK ID completed",
    );
}

#[test]
fn referrals_to_other_servers_stay_here() {
    play(
        "C: A1 SELECT far
         > A1 SELECT far
         S: A1 NO [REFERRAL IMAP://u@two.example/far] Remote mailbox.
         < A1 NO Remote mailbox.
         S: A2 OK [READ-WRITE] done
         < A2 OK [READ-WRITE] done
         S: * OK [referral x]
         < * OK Another server is responsible.
         S: * BYE [REFERRAL IMAP://u@two.example/] moved
         < * BYE moved",
    );
}

#[test]
fn jmap_can_be_left_to_the_server() {
    let (mut player, _) = traced(session(PLAIN));
    player.play(
        "S: * CAPABILITY IMAP4rev1 JMAPACCESS METADATA XDELTAPUSH
         < * CAPABILITY IMAP4rev1 METADATA XDELTAPUSH COMPRESS=DEFLATE",
    );
    Arc::make_mut(&mut player.machine.session.settings).jmapaccess = JmapAccess::Pass;
    player.play(
        "S: * CAPABILITY IMAP4rev1 JMAPACCESS METADATA XDELTAPUSH
         < * CAPABILITY IMAP4rev1 JMAPACCESS METADATA XDELTAPUSH COMPRESS=DEFLATE
         C: A1 GETJMAPACCESS
         > A1 GETJMAPACCESS
         S: * JMAPACCESS \"https://mail.example/jmap\"
         < * JMAPACCESS \"https://mail.example/jmap\"",
    );
    player.end();
}

#[test]
fn proxy_fields_do_not_pass_in_an_id_that_is_too_long() {
    let upstream = UpstreamTraits { id: true, ..PLAIN };
    let long = "v".repeat(1025);
    play_with(
        upstream,
        Native::Passthrough,
        &format!(
            "C: A1 ID (\"name\" \"{long}\")
             > A1 ID (\"name\" \"{long}\")
             C: A2 ID (\"X-Originating-IP\" \"192.0.2.1\" \"name\" \"{long}\")
             < A2 BAD [CLIENTBUG] ID needs NIL or a list of at most 30 fields (RFC 2971)."
        ),
    );
}
