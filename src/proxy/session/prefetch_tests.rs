//! Dialogues of apps that look at headers and fetch some of the messages: what is learned from them, in any chunking.

use std::time::Instant;

use super::testing::Unheard;
use super::*;
use crate::machine::script::Player;
use crate::proxy::session_log::{self, LoggedSession, SessionLog};
use crate::store::FetchLesson;

/// FETCH of new messages by an app: a core that selects encrypted ones by `CONTENT-TYPE` and `SECURE-JOIN`, and one before
/// it.
const CURRENT: &str = "(UID RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE X-MICROSOFT-ORIGINAL-MESSAGE-ID FROM CONTENT-TYPE \
                       SECURE-JOIN CHAT-VERSION CHAT-IS-POST-MESSAGE AUTOCRYPT-SETUP-MESSAGE)])";
const OLD: &str = "(UID INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE X-MICROSOFT-ORIGINAL-MESSAGE-ID FROM \
                   IN-REPLY-TO REFERENCES CHAT-VERSION AUTO-SUBMITTED AUTOCRYPT-SETUP-MESSAGE)])";
/// FETCH of a mail program.
const MAIL_PROGRAM: &str =
    "(UID FLAGS RFC822.SIZE BODY.PEEK[HEADER.FIELDS (FROM TO SUBJECT CONTENT-TYPE MESSAGE-ID)])";

const REGISTER: &str = "C: T1 SETMETADATA INBOX (/private/devicetoken \"openpgp:x\")";

/// The lessons so far.
struct Learned {
    lessons: Vec<String>,
    background_fetches: usize,
}

impl From<SessionLog> for Learned {
    fn from(log: SessionLog) -> Self {
        let told = |lesson| match lesson {
            FetchLesson::FetchedUnencrypted => "fetched".into(),
            FetchLesson::LeftUnencrypted(senders) => format!("left {}", senders.join(" ")),
        };
        let lessons = log.lessons.into_iter().map(told).collect();
        Self { lessons, background_fetches: log.background_fetches }
    }
}

/// Plays lines of both peers in pieces of `step` bytes.
fn played(script: &str, step: usize) -> Learned {
    let settings = SessionSettings {
        entries: vec![("/shared/vendor/deltachat/maxsmtprecipients".into(), "50".into())],
        ..session_log::settings()
    };
    let upstream = UpstreamTraits { id: true, ..UpstreamTraits::default() };
    let it = LoggedSession::new(Session::new(Arc::new(settings), upstream));
    let mut player = Player::new(Unheard(it), Instant::now()).in_pieces(step);
    player.play(script);
    player.end().0.0.log.into()
}

/// The lessons, which are the same in any chunking.
fn lessons(script: &str) -> Vec<String> {
    let learned = played(script, usize::MAX).lessons;
    for step in [1, 2, 3, 7, 64] {
        assert_eq!(played(script, step).lessons, learned, "in chunks of {step} bytes:\n{script}");
    }
    learned
}

fn headers(uid: u32, size: u32, fields: &str) -> String {
    format!(
        "S: * {uid} FETCH (UID {uid} RFC822.SIZE {size} BODY[HEADER.FIELDS (FROM CONTENT-TYPE SECURE-JOIN)] {{{fields}||}})\n"
    )
}

/// An app that has seen a plain message of each of these senders, from UID 1 on.
fn prefetched(items: &str, senders: &[&str]) -> String {
    let mut script = format!(
        "{REGISTER}\nC: A1 SELECT INBOX\nS: * 3 EXISTS\nS: A1 OK done\nC: A2 UID FETCH 1:500 {items}\n"
    );
    for (uid, sender) in (1..).zip(senders) {
        script.push_str(&headers(uid, 900, &format!("From: {sender}")));
    }
    script + "S: A2 OK done\n"
}

#[test]
fn unencrypted_messages_without_a_fetch_are_left_once_the_app_waits() {
    let script = prefetched(CURRENT, &["bob@b.org", "Eve <EVE@b.org>"]);
    assert!(lessons(&script).is_empty(), "the app may fetch them next");
    assert_eq!(
        lessons(&format!("{script}C: A3 IDLE\nS: + idling\n")),
        ["left bob@b.org eve@b.org"]
    );
    assert_eq!(
        lessons(&format!(
            "{script}C: A3 NOOP\nS: A3 OK done\nC: A4 IDLE\nS: + idling\nC: DONE\nS: A4 OK\nC: A5 IDLE\n"
        )),
        ["left bob@b.org eve@b.org"]
    );
}

#[test]
fn fetched_messages_are_fetched() {
    let script = prefetched(CURRENT, &["bob@b.org", "eve@b.org"]);
    for set in ["1:2", "2", "1:*", "7,1", "2:1"] {
        let script = format!("{script}C: A3 UID FETCH {set} (FLAGS BODY.PEEK[])\nS: A3 OK done\n");
        assert_eq!(lessons(&script), ["fetched"], "{set}");
    }
    // Another one is not fetched, which may be because its sender is blocked.
    let script =
        format!("{script}C: A3 UID FETCH 2 (FLAGS BODY.PEEK[])\nS: A3 OK done\nC: A4 IDLE\n");
    assert_eq!(lessons(&script), ["fetched", "left bob@b.org"]);
    let partial = format!(
        "{}C: A3 UID FETCH 1 (FLAGS RFC822.SIZE BODY.PEEK[HEADER])\n",
        prefetched(CURRENT, &["bob@b.org"])
    );
    assert_eq!(lessons(&partial), ["fetched"], "a part of it is wanted");
}

#[test]
fn encrypted_messages_teach_nothing() {
    let mut script =
        format!("{REGISTER}\nC: A1 SELECT INBOX\nS: A1 OK done\nC: A2 UID FETCH 1:500 {CURRENT}\n");
    script += &headers(1, 900, "From: bob@b.org|Content-Type: multipart/encrypted; a=b");
    script += &headers(2, 900, "From: bob@b.org|Secure-Join: vc-request");
    script += &headers(3, 900, "From: MAILER-DAEMON@b.org");
    script += &headers(4, 900, "Subject: from nobody");
    script += "S: A2 OK done\nC: A3 UID FETCH 1:3 (FLAGS BODY.PEEK[])\nS: A3 OK done\nC: A4 IDLE\n";
    assert!(lessons(&script).is_empty());
}

#[test]
fn app_that_may_still_fetch_teaches_nothing() {
    let script = prefetched(CURRENT, &["bob@b.org"]);
    for (doubt, then) in [
        ("it hangs up", ""),
        ("it logs out", "C: A3 LOGOUT\nS: A3 OK done\n"),
        (
            "something is deleted",
            "C: A3 UID STORE 1 +FLAGS (\\Deleted)\nS: A3 OK done\nC: A4 IDLE\n",
        ),
        ("it is moved", "C: A3 UID MOVE 1 DeltaChat\nS: A3 OK done\nC: A4 IDLE\n"),
        ("another mailbox", "C: A3 SELECT Spam\nS: A3 OK done\nC: A4 IDLE\n"),
        ("by number", "C: A3 FETCH 1 BODY[]\nS: A3 OK done\nC: A4 IDLE\n"),
        ("an append", "C: A3 APPEND Sent {x}\nS: + go\nS: A3 OK done\n"),
    ] {
        assert!(
            lessons(&format!("{script}{}", then.replace("APPEND Sent {x}", "CHECK"))).is_empty(),
            "{doubt}"
        );
    }
    // The headers have not come, or not all.
    let begun =
        format!("{REGISTER}\nC: A1 SELECT INBOX\nS: A1 OK done\nC: A2 UID FETCH 1:500 {CURRENT}\n");
    let one = headers(1, 900, "From: bob@b.org");
    assert!(lessons(&format!("{begun}{one}C: A3 IDLE\n")).is_empty(), "the command has not ended");
    assert!(
        lessons(&format!("{begun}{one}S: A2 NO it broke\nC: A3 IDLE\n")).is_empty(),
        "the command has failed"
    );
    let large = headers(1, 200_000, "From: bob@b.org");
    assert!(
        lessons(&format!("{begun}{large}S: A2 OK done\nC: A3 IDLE\n")).is_empty(),
        "too large, perhaps"
    );
}

#[test]
fn only_apps_with_a_token_teach() {
    let without_token =
        prefetched(CURRENT, &["bob@b.org"]).replace(REGISTER, "C: T1 NOOP\nS: T1 OK done");
    assert!(lessons(&format!("{without_token}C: A3 IDLE\n")).is_empty());
    let mail_program = prefetched(MAIL_PROGRAM, &["bob@b.org"]);
    assert!(lessons(&format!("{mail_program}C: A3 IDLE\n")).is_empty());
    assert!(
        lessons(&format!("{mail_program}C: A3 UID FETCH 1 BODY[]\nS: A3 OK done\nC: A4 IDLE\n"))
            .is_empty()
    );
}

#[test]
fn old_core_fetches_unencrypted_messages() {
    let script = format!("{}C: A3 IDLE\n", prefetched(OLD, &["bob@b.org"]));
    assert_eq!(lessons(&script), ["fetched"]);
}

#[test]
fn memory_of_the_schedule_is_bounded() {
    let senders: Vec<String> = (0..500).map(|number| format!("bob{number}@b.org")).collect();
    let senders: Vec<&str> = senders.iter().map(String::as_str).collect();
    let script = format!("{}C: A3 IDLE\n", prefetched(CURRENT, &senders));
    let learned = played(&script, usize::MAX).lessons;
    assert_eq!(learned[0].split(' ').count(), 65, "{learned:?}");
}

#[test]
fn background_fetch_asks_for_no_metadata() {
    let id = "C: A1 ID (\"name\" \"Delta Chat\")\nS: A1 OK done\n";
    let select = "C: A2 SELECT INBOX\nS: * 3 EXISTS\nS: A2 OK done\n";
    let asks = "C: A0 GETMETADATA \"\" (/shared/comment)\n";
    let fetch = format!("C: A3 UID FETCH 3:500 {CURRENT}\nS: A3 OK done\n");
    let count = |script: &str| {
        let found = played(script, usize::MAX).background_fetches;
        assert_eq!(
            played(&script.replace(&fetch, ""), 1).background_fetches,
            played(&script.replace(&fetch, ""), 9).background_fetches
        );
        found
    };
    assert_eq!(count(&format!("{id}{select}")), 1);
    assert_eq!(count(&format!("{id}{select}{fetch}")), 1);
    assert_eq!(count(&format!("{select}{fetch}")), 1, "a server without ID");
    assert_eq!(count(&format!("{id}{asks}{select}{fetch}")), 0, "the app is in the foreground");
    assert_eq!(count(&format!("{id}{REGISTER}\n{select}{fetch}")), 0);
    assert_eq!(count(&format!("{id}C: A2 SELECT INBOX\nS: A2 NO none\n")), 0);
    assert_eq!(count(&select.replace("SELECT", "EXAMINE")), 0, "any client");
    let mail_program = "C: A1 ID (\"name\" \"Mutt\")\nS: A1 OK done\n";
    assert_eq!(count(&format!("{mail_program}{select}C: A3 UID FETCH 1 {MAIL_PROGRAM}\n")), 0);
}

proptest::proptest! {
    /// Any dialogue in any chunks teaches the same.
    #[test]
    fn any_chunking_teaches_the_same(
        senders in proptest::collection::vec("[a-c]{1,3}@b\\.org", 0..6),
        fetched in 1..8u32,
        step in 1..40usize,
    ) {
        let senders: Vec<&str> = senders.iter().map(String::as_str).collect();
        let script = prefetched(CURRENT, &senders);
        let script = format!("{script}C: A3 UID FETCH {fetched} (FLAGS BODY.PEEK[])\nS: A3 OK done\nC: A4 IDLE\n");
        let learned = played(&script, usize::MAX).lessons;
        proptest::prop_assert_eq!(&played(&script, step).lessons, &learned);
        let is_fetched = usize::try_from(fetched).unwrap() <= senders.len();
        proptest::prop_assert_eq!(learned.iter().any(|lesson| lesson == "fetched"), is_fetched);
    }
}
