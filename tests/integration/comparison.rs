//! The same script, directly and through deltapush, on fresh and equal mailboxes: what the server says is the same byte for
//! byte, but for the lines that docs/deltapush-own-lines.md lists as deltapush's own.
//!
//! Two servers' mailboxes are never quite equal: a third run, direct as the first, shows that nothing is smoothed over but what
//! differs between two direct runs as well.

use std::time::Duration;

use super::support::client::{Client, sasl_plain};
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{self, Dovecot, PASSWORD, Setup};
use super::support::server::RealServer;
use super::support::smoothing::without_time;

/// Capabilities that are removed after the login, as the documentation says.
const STRIPPED: [&str; 7] = [
    "STARTTLS",
    "COMPRESS=DEFLATE",
    "UNAUTHENTICATE",
    "LOGINDISABLED",
    "LOGIN-REFERRALS",
    "MAILBOX-REFERRALS",
    "JMAPACCESS",
];

/// Capabilities that are added.
const ADDED: [&str; 3] = ["METADATA", "XDELTAPUSH", "COMPRESS=DEFLATE"];

/// A server that can be compared: with an account's name it must do everything that the script wants.
pub(crate) trait Compared {
    /// A connection to it over TLS that has not said anything.
    async fn direct(&self) -> Client;
    /// Returns the options to reach it.
    fn options(&self) -> Options;
    /// A fresh account whose password is [`PASSWORD`].
    fn account(&self, name: &str) -> String;
    /// Returns deltapush's login, since Cyrus's capabilities depend on it: the command, and what goes after the `+`.
    fn login(&self, account: &str) -> [String; 2] {
        ["AUTHENTICATE PLAIN".to_owned(), sasl_plain(account, PASSWORD)]
    }
    /// Reports if it takes literals that do not wait (RFC 7888). If not, the steps with them are left out.
    fn takes_literal_plus(&self) -> bool {
        true
    }
    /// Reports if IDLE tells news within seconds. If not, its steps are left out.
    fn tells_news_at_once(&self) -> bool {
        true
    }
    /// Returns the prefix of mailbox names.
    fn prefix(&self) -> &'static str {
        ""
    }
    /// Delivers a message.
    async fn deliver(&self, account: &str, message: &str);
}

impl Compared for &Dovecot {
    async fn direct(&self) -> Client {
        Client::tls(self.imaps, &self.authority.ca).await
    }
    fn options(&self) -> Options {
        Options::dovecot(self)
    }
    fn account(&self, name: &str) -> String {
        self.user(name)
    }
    async fn deliver(&self, account: &str, message: &str) {
        Dovecot::deliver(self, "bob@elsewhere.test", account, message).await;
    }
}

impl Compared for RealServer {
    async fn direct(&self) -> Client {
        self.connect().await
    }
    fn options(&self) -> Options {
        RealServer::options(self)
    }
    fn account(&self, name: &str) -> String {
        self.user(name)
    }
    fn login(&self, account: &str) -> [String; 2] {
        match self {
            Self::Courier(_) => {
                [format!("LOGIN {account} {{{}}}", PASSWORD.len()), PASSWORD.to_owned()]
            }
            Self::Dovecot(_) | Self::Cyrus(_) => {
                ["AUTHENTICATE PLAIN".to_owned(), sasl_plain(account, PASSWORD)]
            }
        }
    }
    fn takes_literal_plus(&self) -> bool {
        !matches!(self, Self::Courier(_))
    }
    fn tells_news_at_once(&self) -> bool {
        matches!(self, Self::Dovecot(_))
    }
    fn prefix(&self) -> &'static str {
        "INBOX."
    }
    async fn deliver(&self, account: &str, _: &str) {
        self.deliver_news(account).await;
    }
}

/// One step of a script.
#[derive(Clone, Debug)]
enum Step {
    /// A command without its tag, with all its literals if they are of the kind that does not wait.
    Say(String),
    /// A command whose literals wait for the server's `+`: the pieces.
    Pieces(Vec<String>),
    /// IDLE until a message that is delivered meanwhile has been announced.
    Idle,
    /// Commands that are sent at once.
    Pipelined(Vec<String>),
}

const MESSAGE: &str = "From: bob@elsewhere.test\r\nTo: alice@lab.test\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= {7}\r\n\
    Message-ID: <one@elsewhere.test>\r\nDate: Mon, 01 Jun 2026 12:00:00 +0000\r\nMIME-Version: 1.0\r\n\
    Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Transfer-Encoding: quoted-printable\r\n\r\na001 OK =C3=BC\r\n* 3 EXISTS\r\n--b\r\n\
    Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\nAAECAwQ=\r\n--b--\r\n";

const SECOND: &str = "From: carol@elsewhere.test\r\nSubject: second\r\nMessage-ID: <two@elsewhere.test>\r\n\
    In-Reply-To: <one@elsewhere.test>\r\nReferences: <one@elsewhere.test>\r\nDate: Tue, 02 Jun 2026 12:00:00 +0000\r\n\r\nno\r\n";

/// Lists commands of every kind, to follow a login; `more` is what only some servers understand.
fn script(more: &[&str], prefix: &str) -> Vec<Step> {
    let named = |command: &str| {
        let command = command.replace("\"Fold er\"", &format!("\"{prefix}Fold er\""));
        command
            .replace("Fold&", &format!("{prefix}Fold&"))
            .replace(" Other", &format!(" {prefix}Other"))
    };
    let say = |command: &str| Step::Say(named(command));
    let date = "\"01-Jun-2026 12:00:00 +0000\"";
    let (first, second) = (MESSAGE.len(), SECOND.len());
    let mut steps: Vec<Step> = [
        "CAPABILITY",
        "NOOP",
        "ID (\"name\" \"Comparison\" \"version\" NIL)",
        "ID NIL",
        "NAMESPACE",
        "LIST \"\" \"\"",
        "LIST \"\" *",
        "LSUB \"\" *",
        "STATUS INBOX (MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN)",
        "CREATE \"Fold er\"",
        "CREATE {6+}\r\nOth\"er",
        "CREATE Fold&APw-r",
        "CREATE INBOX",
        "SUBSCRIBE \"Fold er\"",
        "LIST (SUBSCRIBED) \"\" (\"Fold*\" \"Oth*\") RETURN (CHILDREN STATUS (MESSAGES UIDNEXT))",
        "RENAME \"Oth\\\"er\" Other",
        "SELECT Nowhere",
        "FETCH 1 FLAGS",
        "XNONSENSE abc",
    ]
    .map(say)
    .to_vec();
    steps.extend([
        Step::Pieces(vec![format!("APPEND INBOX (\\Flagged $Work) {date} {{{first}}}"), MESSAGE.to_owned()]),
        say(&format!("APPEND INBOX (\\Seen) {date} {{{second}+}}\r\n{SECOND}")),
        say(&format!("APPEND INBOX {date} {{{first}+}}\r\n{MESSAGE} (\\Draft) {date} {{{second}+}}\r\n{SECOND}")),
        Step::Pieces(vec![
            named(&format!("APPEND \"Fold er\" {date} {{{second}}}")),
            format!("{SECOND} {date} {{{first}}}"),
            MESSAGE.to_owned(),
        ]),
        say(&format!("APPEND INBOX {date} CATENATE (TEXT {{12+}}\r\nSubject: c\r\n TEXT {{7+}}\r\n\r\n\r\nc\r\n)")),
        say(&format!("APPEND INBOX {date} ~{{{second}+}}\r\n{SECOND}")),
        Step::Pieces(vec![format!("APPEND Nowhere {{{second}}}"), SECOND.to_owned()]),
    ]);
    steps.extend(
        [
            "SELECT INBOX",
            "SEARCH ALL",
            "UID SEARCH RETURN (MIN MAX COUNT ALL SAVE) SUBJECT {6+}\r\nsecond",
            "UID FETCH $ (UID FLAGS)",
            "SEARCH CHARSET UTF-8 SUBJECT {7+}\r\nGr\u{fc}\u{df}e",
            "SORT (REVERSE DATE SUBJECT) UTF-8 ALL",
            "THREAD REFERENCES UTF-8 ALL",
            "THREAD ORDEREDSUBJECT US-ASCII ALL",
            "FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)",
            "FETCH 1:2 (BODY.PEEK[])",
            "FETCH 1 (BODY.PEEK[HEADER.FIELDS (SUBJECT FROM)] BODY.PEEK[1] BODY.PEEK[1.MIME] BODY.PEEK[2]<0.4>)",
            "FETCH 1 (BINARY.PEEK[1] BINARY.SIZE[2] BINARY.PEEK[2])",
            "UID FETCH 1 (RFC822.HEADER PREVIEW)",
            "FETCH 1 BODY[TEXT]",
            "FETCH 99 FLAGS",
            "FETCH 1 (NONSENSE)",
            "STORE 1:2 +FLAGS (\\Answered)",
            "UID STORE 1 FLAGS.SILENT (\\Seen $Own)",
            "COPY 1:2 \"Fold er\"",
            "COPY 1 Nowhere",
            "UID MOVE 2 Other",
            "STORE 1 +FLAGS (\\Deleted)",
            "UID EXPUNGE 1",
            "STORE 1 +FLAGS (\\Deleted)",
            "EXPUNGE",
            "GETQUOTAROOT INBOX",
            "GETQUOTA \"\"",
            "GETACL INBOX",
            "CHECK",
            "UNSELECT",
            "EXAMINE INBOX",
            "STORE 1 +FLAGS (\\Seen)",
            "CLOSE",
            "ENABLE QRESYNC CONDSTORE",
            "SELECT INBOX (QRESYNC (1 1 1:5))",
            "UID FETCH 1:* (FLAGS MODSEQ) (CHANGEDSINCE 1 VANISHED)",
            "UID STORE 1:* (UNCHANGEDSINCE 1) +FLAGS ($Late)",
            "UID STORE 1:* +FLAGS ($Late)",
        ]
        .map(say),
    );
    steps.extend(more.iter().copied().map(say));
    steps.push(Step::Idle);
    steps.extend(
        [
            "FETCH * (FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)] BODY.PEEK[TEXT])",
            "NOTIFY SET STATUS (SELECTED (MessageNew (UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)]) MessageExpunge)) (PERSONAL (MessageNew MessageExpunge))",
        ]
        .map(say),
    );
    steps.push(Step::Idle);
    steps.extend(
        [
            "NOTIFY NONE",
            "DELETE Other",
            "UNSUBSCRIBE \"Fold er\"",
            "LIST \"\" * RETURN (SUBSCRIBED)",
        ]
        .map(say),
    );
    steps.push(Step::Pipelined(
        ["NOOP", "STATUS INBOX (MESSAGES)", "UID FETCH * (FLAGS)", "NONSENSE"]
            .map(String::from)
            .to_vec(),
    ));
    steps.push(say("LOGOUT"));
    steps
}

/// The server's answers in each step, from that to the login on.
struct Recording {
    account: String,
    said: Vec<(String, String)>,
}

impl Recording {
    async fn new(
        server: &impl Compared,
        mut client: Client,
        account: &str,
        steps: &[Step],
    ) -> Self {
        client.expect_prefix("* OK").await;
        let mut said = vec![];
        let mut played = 0;
        let [command, answer] = server.login(account);
        client.send(&format!("a0 {command}")).await;
        client.expect_prefix("+").await;
        client.take_recorded();
        client.send(&answer).await;
        client.until_tagged("a0").await;
        said.push(("LOGIN".to_owned(), client.take_recorded()));
        for step in steps {
            played += 1;
            play(server, &mut client, account, &format!("a{played}"), step).await;
            said.push((format!("{step:?}"), client.take_recorded()));
        }
        assert_eq!(client.expect_eof().await, "");
        Self { account: account.to_owned(), said }
    }

    /// Without what differs between two accounts and two moments.
    fn smoothed(&self) -> Vec<(String, String)> {
        let smooth = |text: &str| {
            // A mailbox's mark depends on the second in which its folder was changed.
            let mut text = text
                .replace(&self.account, "ACCOUNT")
                .replace("\\UnMarked", "")
                .replace("\\Marked", "");
            for start in ["UIDVALIDITY ", "APPENDUID ", "COPYUID "] {
                text = without_number(&text, start);
            }
            // Cyrus names each session and each mailbox.
            for (start, end) in [("SESSIONID=<", '>'), ("MAILBOXID (", ')')] {
                text = without_name(&text, start, end);
            }
            without_time(&text)
        };
        self.said.iter().map(|(step, text)| (step.clone(), smooth(text))).collect()
    }
}

async fn play(server: &impl Compared, client: &mut Client, account: &str, tag: &str, step: &Step) {
    match step {
        Step::Say(command) => drop(client.command(&format!("{tag} {command}")).await),
        Step::Pieces(pieces) => {
            for (index, piece) in pieces.iter().enumerate() {
                let start = if index == 0 { format!("{tag} ") } else { String::new() };
                client.send(&format!("{start}{piece}")).await;
                if index + 1 < pieces.len() {
                    let line = client.line().await;
                    if !line.starts_with('+') {
                        // Refused, and the literal is never sent.
                        assert!(line.starts_with(&format!("{tag} NO")), "{line}");
                        return;
                    }
                }
            }
            client.until_tagged(tag).await;
        }
        Step::Idle => {
            client.send(&format!("{tag} IDLE")).await;
            while !client.response().await.starts_with('+') {}
            // News that a server holds back for a moment come together.
            tokio::time::sleep(Duration::from_millis(300)).await;
            server
                .deliver(
                    account,
                    &format!("Subject: {tag}\r\nFrom: bob@elsewhere.test\r\n\r\nnews\r\n"),
                )
                .await;
            while !client.response().await.contains(" EXISTS") {}
            tokio::time::sleep(Duration::from_millis(700)).await;
            client.send("DONE").await;
            client.until_tagged(tag).await;
        }
        Step::Pipelined(commands) => {
            let all: Vec<String> = commands
                .iter()
                .enumerate()
                .map(|(index, command)| format!("{tag}x{index} {command}\r\n"))
                .collect();
            client.send_raw(all.concat().as_bytes()).await;
            // In whatever order they end.
            let mut ended = 0;
            while ended < commands.len() {
                ended += usize::from(client.response().await.starts_with(&format!("{tag}x")));
            }
        }
    }
}

fn without_number(text: &str, start: &str) -> String {
    let mut parts = text.split(start);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |smoothed, part| {
        let rest = part.trim_start_matches(|char: char| char.is_ascii_digit());
        let number = if rest.len() < part.len() { "N" } else { "" };
        smoothed + start + number + rest
    })
}

fn without_name(text: &str, start: &str, end: char) -> String {
    let mut parts = text.split(start);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |smoothed, part| {
        let (_, rest) = part.split_once(end).unwrap_or((part, ""));
        format!("{smoothed}{start}NAME{end}{rest}")
    })
}

/// A line as deltapush's documentation says that it becomes.
fn as_documented(line: &str) -> String {
    let is_list = line.starts_with("* CAPABILITY ") || line.contains(" OK [CAPABILITY ");
    let Some((start, rest)) = line.split_once("CAPABILITY ").filter(|_| is_list) else {
        return line.to_owned();
    };
    let (list, end) = rest.split_at(rest.find([']', '\r']).unwrap());
    let names: Vec<&str> = list.split(' ').collect();
    let is_stripped = |name: &&str| {
        STRIPPED.contains(name) || name.starts_with("AUTH=") && name.ends_with("-PLUS")
    };
    let kept: Vec<&str> = names.into_iter().filter(|name| !is_stripped(name)).collect();
    let added = ADDED.into_iter().filter(|name| !kept.contains(name));
    let list: Vec<&str> = kept.iter().copied().chain(added).collect();
    format!("{start}CAPABILITY {}{end}", list.join(" "))
}

/// Returns deltapush's ID answer for a server that has none.
fn without_id(text: &str) -> String {
    let tag = text.split(' ').next().unwrap();
    format!("* ID (\"name\" \"deltapush\")\r\n{tag} OK ID completed\r\n")
}

/// Compares a server with itself, and with itself behind deltapush.
pub(crate) async fn compare(server: &impl Compared, name: &str, more: &[&str]) {
    let mut steps = script(more, server.prefix());
    steps.retain(|step| server.takes_literal_plus() || !format!("{step:?}").contains("+}"));
    steps.retain(|step| server.tells_news_at_once() || !matches!(step, Step::Idle));
    let [first, again, behind] =
        ["a", "b", "c"].map(|run| server.account(&format!("compared-{name}-{run}")));
    let deltapush = Deltapush::start(&server.options());
    let first = Recording::new(server, server.direct().await, &first, &steps).await;
    let again = Recording::new(server, server.direct().await, &again, &steps).await;
    let client = Client::tls(deltapush.imaps, &deltapush.certificate()).await;
    let behind = Recording::new(server, client, &behind, &steps).await;

    let direct = first.smoothed();
    assert!(first.said.len() > 50, "the script is short");
    same(&direct, &again.smoothed(), "a second direct run");
    let has_id = direct[0].1.contains(" ID ");
    let documented = |(step, text): &(String, String)| {
        let text = if step.starts_with("Say(\"ID ") && !has_id { &without_id(text) } else { text };
        (step.clone(), text.split_inclusive('\n').map(as_documented).collect::<String>())
    };
    let mut documented: Vec<(String, String)> = direct.iter().map(documented).collect();
    // A server that does not list in its OK what it can do is asked, and the client hears it there.
    let list = documented
        .iter()
        .find_map(|(_, text)| Some(text.strip_prefix("* CAPABILITY ")?.lines().next()?.to_owned()));
    let list = format!(" OK [CAPABILITY {}] ", list.expect("an answer to CAPABILITY"));
    for (_, text) in documented
        .iter_mut()
        .filter(|(step, text)| step == "LOGIN" && !text.contains("CAPABILITY "))
    {
        *text = text.replacen(" OK ", &list, 1);
    }
    assert_ne!(documented, direct, "not even a capability list differs");
    same(&documented, &behind.smoothed(), "through deltapush");
}

fn same(expected: &[(String, String)], got: &[(String, String)], what: &str) {
    assert_eq!(expected.len(), got.len());
    let mut differences = String::new();
    for ((step, expected), (_, got)) in
        expected.iter().zip(got).filter(|((_, expected), (_, got))| expected != got)
    {
        differences +=
            &format!("the answer to {step} differs\n--- direct\n{expected}\n--- {what}\n{got}\n");
    }
    assert!(differences.is_empty(), "{what}, {differences}");
}

#[tokio::test]
async fn dovecot_says_the_same_through_deltapush() {
    compare(&dovecot::shared(Setup::Vanilla), "vanilla", &[]).await;
}

#[tokio::test]
async fn cyrus_says_the_same_through_deltapush() {
    let more = [
        "SETMETADATA INBOX (/private/comment \"mine\")",
        "GETMETADATA INBOX /private/comment",
        "GETMETADATA (MAXSIZE 2) INBOX (/private/comment /shared/comment)",
        "GETMETADATA \"Fold er\" /private/nothing",
        "GETMETADATA nonsense",
        "LIST (RECURSIVEMATCH SUBSCRIBED) \"\" % RETURN (SPECIAL-USE MYRIGHTS (COUNT))",
        "XLIST \"\" *",
        "UID SEARCH RETURN (COUNT) FUZZY SUBJECT second",
    ];
    compare(&RealServer::cyrus(), "cyrus", &more).await;
}

#[tokio::test]
async fn courier_says_the_same_through_deltapush() {
    // Of these servers it alone has UTF8=ACCEPT (RFC 6855): it takes names and headers in UTF-8 from there on.
    let more = [
        "UNSELECT",
        "ENABLE UTF8=ACCEPT",
        "CREATE \"INBOX.Gr\u{fc}\u{df}e {5}\"",
        "LIST \"\" *",
        "SELECT \"INBOX.Gr\u{fc}\u{df}e {5}\"",
        "STATUS \"INBOX.Fold\u{fc}r\" (MESSAGES)",
        "SELECT \"Fold er\"",
        "SEARCH SUBJECT \"Gr\u{fc}\u{df}e\"",
        "FETCH 1:* (ENVELOPE BODY.PEEK[HEADER])",
    ];
    compare(&RealServer::courier(), "courier", &more).await;
}

#[tokio::test]
async fn dovecot_with_metadata_says_the_same_through_deltapush() {
    // The client's own entries are the server's business; those in which deltapush has a part are in `dovecot.rs`.
    let more = [
        "SETMETADATA INBOX (/private/comment \"mine\")",
        "SETMETADATA \"Fold er\" (/shared/comment {4+}\r\na\r\nb /private/comment NIL)",
        "GETMETADATA INBOX /private/comment",
        "GETMETADATA (MAXSIZE 2 DEPTH infinity) INBOX (/private /shared)",
        "GETMETADATA \"Fold er\" (/shared/comment /private/nothing)",
        "GETMETADATA Nowhere /private/comment",
        "GETMETADATA \"\" /shared/vendor/other",
        "GETMETADATA nonsense",
        "SETMETADATA INBOX (/wrong \"x\")",
    ];
    compare(&dovecot::shared(Setup::Metadata), "metadata", &more).await;
}
