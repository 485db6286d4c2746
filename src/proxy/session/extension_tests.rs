//! Dialogues in the syntax of extensions in which deltapush has no part: all passes byte for byte, and the session still knows
//! afterwards what is a command and what is data.

use super::testing::play;

/// A command of deltapush's own, answered where a command may stand: the session has not lost its place.
const STILL_IN_STEP: &str = "
    C: z9 UNAUTHENTICATE
    < z9 BAD This command is not available here.
";

/// Plays `C` and `S` lines that all have to pass as they are.
fn passes(script: &str) {
    let mut expected = String::new();
    for line in script.lines().map(str::trim_start).filter(|line| !line.is_empty()) {
        let (kind, text) = line.split_once(' ').unwrap_or((line, ""));
        let arrow = if kind == "C:" { '>' } else { '<' };
        expected += &format!("{line}\n{arrow} {text}\n");
    }
    play(&(expected + STILL_IN_STEP));
}

#[test]
fn all_that_can_cross_is_offered() {
    let list = "CAPABILITY IMAP4rev1 IMAP4rev2 ENABLE UTF8=ACCEPT NAMESPACE CONDSTORE QRESYNC NOTIFY BINARY CATENATE \
                MULTIAPPEND UIDONLY UIDPLUS LITERAL+ LITERAL- ESEARCH SEARCHRES LIST-EXTENDED LIST-STATUS MOVE \
                OBJECTID PARTIAL PREVIEW REPLACE SAVEDATE SORT THREAD=REFERENCES URLAUTH WITHIN ID IDLE QUOTA ACL \
                APPENDLIMIT=100 STATUS=SIZE INPROGRESS METADATA XDELTAPUSH";
    let offered = format!("{list} COMPRESS=DEFLATE");
    play(&format!("S: * {list}\n < * {offered}\n S: A1 OK [{list}] in\n < A1 OK [{offered}] in"));
}

#[test]
fn enable_and_utf8_strings_pass() {
    passes(
        "C: A1 ENABLE IMAP4rev2 UTF8=ACCEPT CONDSTORE
         S: * ENABLED IMAP4rev2 UTF8=ACCEPT
         S: A1 OK done
         C: A2 CREATE \"Grüße {5}\"
         S: * LIST () \"/\" \"Grüße\" (\"OLDNAME\" (\"Gr&APwA3w-e\"))
         S: A2 OK done
         C: A3 SELECT \"Grüße\"
         S: A3 OK [READ-WRITE] done
         C: A4 APPEND \"Grüße\" UTF8 (~{6+}
         C: Grü
         C: )
         S: A4 OK [APPENDUID 1 2] done",
    );
}

#[test]
fn namespace_and_extended_lists_pass() {
    passes(
        "C: A1 NAMESPACE
         S: * NAMESPACE ((\"\" \"/\")) ((\"~\" \"/\")) NIL
         S: A1 OK
         C: A2 LIST (SUBSCRIBED REMOTE) \"\" (\"*\" {3+}
         C: a/%) RETURN (CHILDREN STATUS (MESSAGES HIGHESTMODSEQ) SPECIAL-USE)
         S: * LIST (\\Subscribed \\HasNoChildren) \"/\" {6}
         S: a\"{5}
         S:  (CHILDINFO (SUBSCRIBED))
         S: * STATUS INBOX (MESSAGES 1)
         S: A2 OK",
    );
}

#[test]
fn qresync_and_vanished_pass() {
    passes(
        "C: A1 SELECT INBOX (QRESYNC (67890007 20050715194045000 41,43:211,214:541 (1,3 4,6)))
         S: * VANISHED (EARLIER) 41,43:116,118,120:211,214:540
         S: * 49 FETCH (UID 117 FLAGS (\\Seen) MODSEQ (90060115194045001))
         S: * OK [HIGHESTMODSEQ 90060115205545359] x
         S: A1 OK [READ-WRITE] done
         C: A2 UID FETCH 1:* (FLAGS) (CHANGEDSINCE 12345 VANISHED)
         S: * VANISHED 405
         S: A2 OK
         C: A3 UID STORE 6 (UNCHANGEDSINCE 12121230045) +FLAGS.SILENT (\\Deleted)
         S: A3 OK [MODIFIED 7,9] Conditional STORE failed",
    );
}

#[test]
fn notify_passes_and_tells_of_all_mailboxes() {
    passes(
        "C: A1 NOTIFY SET STATUS (SELECTED MessageNew (UID BODY.PEEK[HEADER.FIELDS (From)]) MessageExpunge) (SUBTREE {5}
         S: + go on
         C: Lists MessageNew)
         S: * STATUS Lists (UIDNEXT 3 MESSAGES 2)
         S: A1 OK done
         S: * 5 EXISTS
         S: * 5 FETCH (UID 9 BODY[HEADER.FIELDS (From)] {4}
         S: a\r
         S: )
         S: * OK [NOTIFICATIONOVERFLOW] too much
         C: A2 NOTIFY NONE
         S: A2 OK",
    );
}

#[test]
fn binary_literals_pass_either_way() {
    passes(
        "C: A1 APPEND x ~{4+}
         C: \0\u{1}
         C:  ~{0+}
         C:
         S: A1 OK [APPENDUID 1 2] done",
    );
    play(
        "C: A1 APPEND x ~{4}
         > A1 APPEND x ~{4}
         C: \0\u{1}
         S: + go on
         < + go on
         > \0\u{1}
         C:
         >
         S: A1 NO [UNKNOWN-CTE] no
         < A1 NO [UNKNOWN-CTE] no
         C: A2 FETCH 1 (BINARY.PEEK[1]<0.9> BINARY.SIZE[2])
         > A2 FETCH 1 (BINARY.PEEK[1]<0.9> BINARY.SIZE[2])
         S: * 1 FETCH (BINARY[1]<0> ~{8}
         < * 1 FETCH (BINARY[1]<0> ~{8}
         S: \0A2 OK
         < \0A2 OK
         S:  BINARY.SIZE[2] 5)
         <  BINARY.SIZE[2] 5)
         S: A2 OK
         < A2 OK",
    );
}

#[test]
fn catenate_with_several_parts_passes() {
    play(
        "C: A1 APPEND Drafts (\\Seen) CATENATE (URL \"/Drafts;UIDVALIDITY=3/;UID=20/;section=HEADER\" TEXT {7}
         > A1 APPEND Drafts (\\Seen) CATENATE (URL \"/Drafts;UIDVALIDITY=3/;UID=20/;section=HEADER\" TEXT {7}
         C: z UNA
         S: + go on
         < + go on
         > z UNA
         S: * OK Still here
         < * OK Still here
         C:  TEXT ~{3+}
         >  TEXT ~{3+}
         C: \0)) URL {4}
         > \0)) URL {4}
         C: /x/y)
         S: + go on
         < + go on
         > /x/y)
         S: A1 OK [APPENDUID 1 3] done
         < A1 OK [APPENDUID 1 3] done
         C: A2 UNAUTHENTICATE
         < A2 BAD This command is not available here.",
    );
    // Refused at its second literal: what follows is a command.
    play(
        "C: A1 APPEND Drafts CATENATE (TEXT {1+}
         > A1 APPEND Drafts CATENATE (TEXT {1+}
         C: x TEXT {5}
         > x TEXT {5}
         C: A2 UNAUTHENTICATE
         S: A1 NO [BADURL \"/x\"] no
         < A1 NO [BADURL \"/x\"] no
         < A2 BAD This command is not available here.",
    );
}

#[test]
fn several_messages_in_one_append_pass() {
    play(
        "C: A1 APPEND INBOX (\\Seen) \" 1-Jan-2026 00:00:00 +0000\" {5}
         > A1 APPEND INBOX (\\Seen) \" 1-Jan-2026 00:00:00 +0000\" {5}
         C: a b
         S: + go on
         < + go on
         > a b
         C:  (\\Flagged) {3+}
         >  (\\Flagged) {3+}
         C: A2  {2}
         > A2  {2}
         C: ok
         S: + go on
         < + go on
         > ok
         S: A1 OK [APPENDUID 1 1:3] done
         < A1 OK [APPENDUID 1 1:3] done
         C: A2 UNAUTHENTICATE
         < A2 BAD This command is not available here.",
    );
}

#[test]
fn uidonly_passes_and_the_selection_is_followed() {
    passes(
        "C: A1 ENABLE UIDONLY
         S: * ENABLED UIDONLY
         S: A1 OK done
         C: A2 FETCH 1 FLAGS
         S: A2 BAD [UIDREQUIRED] numbers are off
         C: A3 UID FETCH 25900:26600 (FLAGS BODY[]) (PARTIAL -1:-2)
         S: * 25996 UIDFETCH (FLAGS (\\Seen) BODY[] {9}
         S: A3 OK x
         S: )
         S: * VANISHED 25997
         S: A3 OK
         C: A4 UID REPLACE 4 Drafts {4}
         S: + go on
         C: xy
         C:
         S: A4 OK",
    );
}

#[test]
fn imap4rev2_searches_and_moves_pass() {
    passes(
        "C: A1 UID SEARCH RETURN (SAVE MIN PARTIAL 1:10) CHARSET UTF-8 SUBJECT {6+}
         C: grün\"
         S: * ESEARCH (TAG \"A1\") UID MIN 7 PARTIAL (1:10 2,4)
         S: A1 OK
         C: A2 UID MOVE $ Archive
         S: * OK [COPYUID 1 2 3] x
         S: * 3 EXPUNGE
         S: A2 OK done
         C: A3 UNSELECT
         S: A3 OK [CLOSED] done",
    );
}

#[test]
fn idle_works_after_extensions_were_used() {
    play(
        "C: A1 ENABLE QRESYNC UTF8=ACCEPT
         > A1 ENABLE QRESYNC UTF8=ACCEPT
         S: A1 OK
         < A1 OK
         C: A2 SELECT {5+}
         > A2 SELECT {5+}
         C: Chats (QRESYNC (1 2))
         > Chats (QRESYNC (1 2))
         S: * OK [CLOSED] x
         < * OK [CLOSED] x
         S: A2 OK [READ-WRITE] done
         < A2 OK [READ-WRITE] done
         C: A3 IDLE
         > A3 IDLE
         S: * VANISHED 3
         < * VANISHED 3
         S: + idling
         (idles in Chats)
         < + idling
         C: DONE
         > DONE
         S: A3 OK
         < A3 OK",
    );
}
