//! Programs that people fetch, sort and keep their mail with: each does its job directly and through deltapush, on mailboxes
//! that were the same before. Afterwards they are the same again, on the server and on the disk.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::timeout;

use super::support::client::Client;
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{self, Dovecot, PASSWORD, SIMPLE_PASSWORD, Setup};
use super::support::server::unpacked;
use super::support::{poll, python};

const PATIENCE: Duration = Duration::from_secs(60);

/// The search path of programs: those that `scripts/servers` unpacks first.
fn path() -> OsString {
    let own = std::iter::once(unpacked("bin"));
    std::env::join_paths(own.chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())))
        .unwrap()
}

/// One of the two ways to the server, with a mailbox and a home of its own.
struct Way {
    dovecot: &'static Dovecot,
    port: u16,
    trusted: PathBuf,
    user: String,
    home: tempfile::TempDir,
}

impl Way {
    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        // Programs refuse passwords that others could read.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Fills this way's particulars into a program's configuration.
    fn fill(&self, text: &str) -> String {
        text.replace("PORT", &self.port.to_string())
            .replace("TRUSTED", self.trusted.to_str().unwrap())
            .replace("USER", &self.user)
            .replace("HOME", self.home.path().to_str().unwrap())
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.home.path());
        command.env_clear().env("PATH", path()).env("HOME", self.home.path());
        command.env("TERM", "xterm").env("LANG", "C.UTF-8").stdin(Stdio::null());
        command
    }

    /// Runs a program to its end; it must find that all went well.
    async fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = self.command(program, arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
        let ended = timeout(PATIENCE, child.wait_with_output()).await;
        let output = ended.unwrap_or_else(|_| panic!("{program} takes too long")).unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(
            output.status.success(),
            "{program} {}: {}",
            output.status,
            String::from_utf8_lossy(&said)
        );
    }

    async fn direct(&self) -> Client {
        let mut client = Client::plain(self.dovecot.imap).await;
        client.log_in(&self.user).await;
        client
    }

    async fn append(&self, client: &mut Client, mailbox: &str, flags: &str, subject: &str) {
        let text = message(subject);
        client.send(&format!("a1 APPEND {mailbox} ({flags}) {{{}+}}", text.len())).await;
        client.send(&text).await;
        let reply = client.until_tagged("a1").await;
        assert!(reply.result.starts_with("OK"), "{reply:?}");
    }

    /// Every message on the server: its mailbox, its flags, and its text.
    async fn on_the_server(&self) -> BTreeSet<String> {
        let mut client = self.direct().await;
        let mut found = BTreeSet::new();
        for line in client.command("l1 LIST \"\" *").await.untagged {
            let mailbox = line.rsplit(' ').next().unwrap().to_owned();
            found.insert(mailbox.clone());
            client.command(&format!("l2 EXAMINE {mailbox}")).await;
            for message in client.command("l3 FETCH 1:* (FLAGS BODY.PEEK[])").await.untagged {
                let (flags, text) = message.split_once("BODY[]").unwrap_or((&message, ""));
                let flags = flags.split_once("FLAGS").map_or("", |(_, flags)| flags);
                let flags: BTreeSet<&str> = flags
                    .split(['(', ')', ' '])
                    .filter(|flag| !flag.is_empty() && *flag != "\\Recent")
                    .collect();
                let text = text.split_once("\r\n").map_or("", |(_, text)| text);
                found.insert(format!("{mailbox} {flags:?} {}", comparable(text)));
            }
        }
        found
    }

    /// Every message in the folders below the home: its place, its flags, and its text.
    fn on_the_disk(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.home.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.file_name().unwrap() == "mbox"
                    || folder.ends_with("cur")
                    || folder.ends_with("new")
                {
                    let place =
                        folder.strip_prefix(self.home.path()).unwrap().display().to_string();
                    let name = path.file_name().unwrap().to_string_lossy().into_owned();
                    let flags = name.split_once(":2,").map_or("", |(_, flags)| flags);
                    let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
                    found.insert(format!("{place} {flags} {}", comparable(&text)));
                }
            }
        }
        found
    }

    /// The file of a message that a program put on the disk.
    fn file_of(&self, folder: &str, subject: &str) -> PathBuf {
        let needle = format!("Subject: {subject}");
        let files = ["cur", "new"]
            .into_iter()
            .flat_map(|part| fs::read_dir(self.path(folder).join(part)).unwrap());
        let mut files = files.map(|entry| entry.unwrap().path());
        files.find(|path| fs::read_to_string(path).unwrap().contains(&needle)).unwrap()
    }
}

fn message(subject: &str) -> String {
    let body = format!("grüße {subject} {{7}}\r\n").repeat(300);
    format!(
        "From: bob@elsewhere.test\r\nTo: somebody@lab.test\r\nSubject: {subject}\r\nMessage-ID: <{subject}@lab.test>\r\n\
         Date: Mon, 01 Jun 2026 12:00:00 +0000\r\n\r\n{body}"
    )
}

/// A text without what programs put in that differs from run to run.
fn comparable(text: &str) -> String {
    const OWN: [&str; 8] = [
        "X-TUID:",
        "X-OfflineIMAP",
        "Received:",
        "\t",
        "  ",
        "Delivered-To:",
        "Return-Path:",
        "Date:",
    ];
    let kept =
        |line: &&str| !OWN.iter().any(|own| line.starts_with(own)) && !line.starts_with("From ");
    text.lines()
        .filter(kept)
        .map(|line| line.trim_end_matches('\r'))
        .filter(|line| *line != ")")
        .collect::<Vec<_>>()
        .join("\n")
}

/// Does a job both ways, and compares. `local` says how many messages it leaves on the disk.
async fn same(name: &str, local: usize, job: impl AsyncFn(&Way)) {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let deltapush = Deltapush::start(&Options::dovecot(dovecot));
    let way = |side: &str, port: u16, trusted: &Path| Way {
        dovecot,
        port,
        trusted: trusted.to_owned(),
        user: dovecot.user(&format!("{name}-{side}")),
        home: tempfile::tempdir().unwrap(),
    };
    let ways = [
        way("direct", dovecot.imaps, &dovecot.authority.ca),
        way("proxy", deltapush.imaps, &deltapush.certificate()),
    ];
    let mut left = Vec::new();
    for way in &ways {
        let mut client = way.direct().await;
        client.command("c2 CREATE Family").await;
        for (mailbox, flags, subject) in [
            ("INBOX", "\\Seen", "one"),
            ("INBOX", "\\Flagged", "two"),
            ("INBOX", "", "three"),
            ("Family", "", "four"),
        ] {
            way.append(&mut client, mailbox, flags, subject).await;
        }
        drop(client);
        way.write("password", &format!("{PASSWORD}\n"));
        let before = way.on_the_server().await;
        job(way).await;
        let (server, disk) = (way.on_the_server().await, way.on_the_disk());
        assert!(server != before || !disk.is_empty(), "it did nothing");
        left.push((server, disk));
    }
    assert_eq!(left[0].1.len(), local, "{:#?}", left[0].1);
    assert_eq!(left[0], left[1]);
    assert!(
        deltapush.log().contains(&format!("account={}", ways[1].user)),
        "it did not come through deltapush"
    );
}

/// Both sides change, and are made the same.
#[tokio::test]
async fn mbsync_syncs_both_ways() {
    const RC: &str = "IMAPStore far\nHost localhost\nPort PORT\nUser USER\nPassCmd \"cat HOME/password\"\nSSLType IMAPS
SystemCertificates no\nCertificateFile TRUSTED\n\nMaildirStore near\nPath HOME/mail/\nInbox HOME/mail/INBOX
SubFolders Verbatim\n\nChannel all\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nExpunge Both\nSyncState *\n";
    same("mbsync", 5, async |way| {
        fs::create_dir(way.path("mail")).unwrap();
        way.write("mbsyncrc", &way.fill(RC));
        way.run("mbsync", &["-c", "mbsyncrc", "all"]).await;
        // On the disk one is flagged, one goes, one is new; so on the server.
        let two = way.file_of("mail/INBOX", "two");
        let cur = way.path("mail/INBOX/cur").join(two.file_name().unwrap());
        let base = cur.to_str().unwrap().split(":2,").next().unwrap().to_owned();
        fs::rename(&two, format!("{base}:2,FRS")).unwrap();
        fs::remove_file(way.file_of("mail/INBOX", "one")).unwrap();
        fs::write(way.path("mail/Family/new/1.local"), message("five").replace("\r\n", "\n"))
            .unwrap();
        let mut client = way.direct().await;
        way.append(&mut client, "Family", "\\Answered", "six").await;
        client.command("c3 SELECT INBOX").await;
        client.command("c4 STORE 3 +FLAGS (\\Flagged)").await;
        drop(client);
        way.run("mbsync", &["-c", "mbsyncrc", "all"]).await;
    })
    .await;
}

#[tokio::test]
async fn offlineimap_syncs_both_ways() {
    const RC: &str = "[general]\naccounts = a\nmetadata = HOME/meta\nui = basic\n\n[Account a]\nlocalrepository = near
remoterepository = far\n\n[Repository near]\ntype = Maildir\nlocalfolders = HOME/mail\n\n[Repository far]\ntype = IMAP
remotehost = localhost\nremoteport = PORT\nremoteuser = USER\nremotepassfile = HOME/password\nssl = yes
sslcacertfile = TRUSTED\n";
    same("offlineimap", 5, async |way| {
        way.write("offlineimaprc", &way.fill(RC));
        way.run("offlineimap", &["-o", "-c", "offlineimaprc"]).await;
        fs::remove_file(way.file_of("mail/INBOX", "one")).unwrap();
        fs::write(
            way.path("mail/Family/new/1_0.1.local,U=0,FMD5=0:2,"),
            message("five").replace("\r\n", "\n"),
        )
        .unwrap();
        let mut client = way.direct().await;
        way.append(&mut client, "Family", "\\Answered", "six").await;
        drop(client);
        way.run("offlineimap", &["-o", "-c", "offlineimaprc"]).await;
    })
    .await;
}

#[tokio::test]
async fn getmail_takes_all_away() {
    const RC: &str = "[retriever]\ntype = SimpleIMAPSSLRetriever\nserver = localhost\nport = PORT\nusername = USER
password = SIMPLE\nca_certs = TRUSTED\n\n[destination]\ntype = Maildir\npath = HOME/mail/
ROOT\n[options]\nread_all = true\ndelete = true\n";
    same("getmail", 3, async |way| {
        for part in ["mail", "mail/new", "mail/cur", "mail/tmp"] {
            fs::create_dir(way.path(part)).unwrap();
        }
        // It delivers for nobody as root.
        let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        if root {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(way.home.path(), fs::Permissions::from_mode(0o755)).unwrap();
            way.run("chown", &["-R", "mail:mail", "mail"]).await;
        }
        let rc = RC
            .replace("SIMPLE", SIMPLE_PASSWORD)
            .replace("ROOT", if root { "user = mail\n" } else { "" });
        way.write("getmailrc", &way.fill(&rc));
        let home = way.home.path().to_str().unwrap();
        way.run("getmail", &["--getmaildir", home, "--rcfile", "getmailrc"]).await;
    })
    .await;
}

#[tokio::test]
async fn imapfilter_sorts() {
    const LUA: &str = "options.timeout = 20
box = IMAP { server = 'localhost', port = PORT, ssl = 'auto', username = 'USER', password = [[PASSWORD]] }
box.INBOX:contain_subject('three'):move_messages(box.Family)\nbox.INBOX:is_flagged():mark_seen()
box.INBOX:contain_body('one'):add_flags({ '\\\\Answered', 'sorted' })\nbox:create_mailbox('Old')
box.Family:contain_from('bob'):copy_messages(box.Old)\n";
    same("imapfilter", 0, async |way| {
        way.write("rules.lua", &way.fill(&LUA.replace("PASSWORD", SIMPLE_PASSWORD)));
        way.run("imapfilter", &["-t", way.trusted.to_str().unwrap(), "-c", "rules.lua"]).await;
    })
    .await;
}

/// mutt copies two to the disk, flags what it read, deletes one, and files a copy of what it sends.
#[tokio::test]
async fn mutt_reads_deletes_and_files() {
    const RC: &str = "set imap_user=\"USER\"\nset imap_pass=\"`cat HOME/password`\"\nset certificate_file=HOME/trusted.pem
set ssl_force_tls=yes\nset spoolfile=imaps://localhost:PORT/INBOX\nset folder=imaps://localhost:PORT/\nset copy=yes
set record=imaps://localhost:PORT/Family\nset sendmail=/bin/true\nset from=me@lab.test\nset use_envelope_from=no
set delete=yes\nset quit=yes\nset confirmappend=no\nset confirmcreate=no\nset wait_key=no\nset mark_old=no\nset mbox_type=mbox
my_hdr Message-ID: <filed@lab.test>\n";
    const KEYS: &str = "push \"<tag-pattern>~s t<enter><tag-prefix><copy-message>HOME/mbox<enter><untag-pattern>~A<enter>\
        <delete-pattern>~s one<enter><sync-mailbox><quit>\"\n";
    same("mutt", 1, async |way| {
        fs::copy(&way.trusted, way.path("trusted.pem")).unwrap();
        way.write("reading", &way.fill(&format!("{RC}{KEYS}")));
        way.write("sending", &way.fill(RC));
        // It wants a terminal.
        way.run("script", &["-qec", "mutt -n -F reading", "/dev/null"]).await;
        way.run("sh", &["-c", "echo hello | mutt -n -F sending -s filed bob@elsewhere.test"]).await;
    })
    .await;
}

/// curl puts a message there, marks one, files one elsewhere, and removes one.
#[tokio::test]
async fn curl_puts_marks_files_and_removes() {
    same("curl-tool", 0, async |way| {
        way.write(
            "curlrc",
            &way.fill(&format!("user = \"USER:{SIMPLE_PASSWORD}\"\ncacert = \"TRUSTED\"\n")),
        );
        let mail = way.write("mail", &message("five"));
        let inbox = way.fill("imaps://localhost:PORT/INBOX");
        let curl = async |arguments: &[&str]| {
            let all = [
                &["--silent", "--show-error", "--fail", "--max-time", "30", "--config", "curlrc"],
                arguments,
            ];
            way.run("curl", &all.concat()).await;
        };
        curl(&["--upload-file", mail.to_str().unwrap(), &inbox]).await;
        for command in [
            "STORE 3 +FLAGS (\\Flagged $Work)",
            "COPY 2 Family",
            "STORE 1 +FLAGS (\\Deleted)",
            "EXPUNGE",
        ] {
            curl(&[&inbox, "--request", command]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn imaplib_puts_marks_and_removes() {
    let script = python::script("imap_client.py");
    let words = [script.get_program()].into_iter().chain(script.get_args());
    let words: Vec<&str> = words.map(|word| word.to_str().unwrap()).collect();
    same("imaplib-tool", 0, async |way| {
        let line = way.fill(&format!("exec {} PORT TRUSTED USER <password", words.join(" ")));
        way.run("sh", &["-c", &line]).await;
    })
    .await;
}

/// fetchmail waits in IDLE, and what is delivered meanwhile is there at once.
#[tokio::test]
async fn fetchmail_fetches_within_its_idle() {
    const RC: &str =
        "set no bouncemail\npoll localhost protocol imap service PORT timeout 120 auth password
  user \"USER\" password \"SIMPLE\" ssl sslcertck sslcertfile \"TRUSTED\" idle keep fetchall
  mda \"/bin/sh -c 'cat >>HOME/mbox; echo ========== >>HOME/mbox'\"\n";
    same("fetchmail", 1, async |way| {
        way.write("fetchmailrc", &way.fill(&RC.replace("SIMPLE", SIMPLE_PASSWORD)));
        let log = fs::File::create(way.path("log")).unwrap();
        let mut fetchmail = way
            .command("fetchmail", &["-f", "fetchmailrc", "--pidfile", "pid", "-v", "--nosyslog"]);
        fetchmail.stdout(log.try_clone().unwrap()).stderr(log);
        let mut child =
            tokio::process::Command::from(fetchmail).kill_on_drop(true).spawn().unwrap();
        let said = || fs::read_to_string(way.path("log")).unwrap_or_default();
        let idles = || way.dovecot.sessions(&way.user).concat().matches(" IDLE\r\n").count();
        assert!(poll(PATIENCE, || idles() == 1).await, "no IDLE:\n{}", said());
        way.dovecot.deliver("bob@elsewhere.test", &way.user, &message("late")).await;
        let there = || {
            fs::read_to_string(way.path("mbox")).is_ok_and(|mbox| mbox.contains("Subject: late"))
        };
        assert!(
            poll(Duration::from_secs(40), there).await,
            "it did not come within the IDLE:\n{}",
            said()
        );
        // It waits again when it has done all, flags too.
        assert!(poll(PATIENCE, || idles() == 2).await, "no second IDLE:\n{}", said());
        assert!(child.try_wait().unwrap().is_none(), "fetchmail has ended:\n{}", said());
        child.kill().await.unwrap();
    })
    .await;
}
