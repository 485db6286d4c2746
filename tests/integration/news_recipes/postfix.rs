//! Postfix: a copy of each message goes to the command, which Postfix tries again while deltapush is down.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;

use super::super::support::guarded::Guarded;
use super::super::support::poll;
use super::super::support::ports::{ReservedPort, wait_for_port};
use super::super::support::scene::PATIENCE;
use super::super::support::server::unpacked;
use super::{Scene, block, delivered, replaced};

/// Nobody's number.
const MAIL_UID: u32 = 54_321;

/// Lays the unpacked packages over this system's folders, in a namespace of its own, and starts Postfix. The command and the socket
/// have their usual paths there.
const START: &str = r#"
    set -e
    exec unshare --mount --propagation private sh -e -c '
        mount -t tmpfs tmpfs over
        for folder in usr etc var; do
            mkdir over/$folder over/$folder.work
            mount -t overlay overlay -o "lowerdir=POSTFIX/$folder:/$folder,upperdir=over/$folder,workdir=over/$folder.work" /$folder
        done
        mount -t tmpfs tmpfs /run
        mkdir /run/deltapush
        mount --bind SOCKETS /run/deltapush
        : >/usr/bin/deltapush
        mount --bind PROGRAM /usr/bin/deltapush
        printf "%s\n" "postfix:x:61001:61001::/:/bin/false" >>/etc/passwd
        printf "%s\n" "postfix:x:61001:" "postdrop:x:61002:" >>/etc/group
        cp main.cf master.cf deltapush dynamicmaps.cf /etc/postfix/
        postfix set-permissions 2>/dev/null || :
        exec postfix start-fg
    '
"#;

const MAIN: &str = "compatibility_level = 3.6
queue_directory = /var/spool/postfix
data_directory = /var/lib/postfix
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
shlib_directory = /usr/lib/postfix
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.lab.test
mydestination =
virtual_mailbox_domains = lab.test
virtual_mailbox_base = MAIL
virtual_mailbox_maps = inline:{ {other@lab.test=other/} {NAME@lab.test=NAME/} }
virtual_uid_maps = static:UID
virtual_gid_maps = static:UID
alias_maps =
alias_database =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
maillog_file = /dev/stdout
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 1s
transport_retry_time = 1s
";

const MASTER: &str = "
127.0.0.1:PORT inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
smtp unix - - n - - discard
postlog unix-dgram n - n - 1 postlogd
tlsmgr unix - - n 1000? 1 tlsmgr
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
proxymap unix - - n - - proxymap
";

struct Postfix {
    port: ReservedPort,
    mail: std::path::PathBuf,
    folder: tempfile::TempDir,
    _running: Guarded,
}

impl Postfix {
    fn start(scene: &Scene) -> Self {
        let folder = tempfile::Builder::new().prefix("deltapush-postfix-").tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mail = scene.path("mail");
        for made in [&at("over"), &mail] {
            fs::create_dir(made).unwrap();
        }
        std::os::unix::fs::chown(&mail, Some(MAIL_UID), Some(MAIL_UID))
            .expect("Postfix takes root's rights: run this test as root");
        let port = ReservedPort::new();
        let main = MAIN
            .replace("NAME", scene.local_part())
            .replace("MAIL", &mail.display().to_string())
            .replace("UID", &MAIL_UID.to_string());
        fs::write(at("main.cf"), main + block("main.cf")).unwrap();
        let pipe = replaced(block("master.cf"), "example.org", "lab.test");
        let master = MASTER.replace("PORT", &port.number().to_string());
        fs::write(at("master.cf"), master + &pipe).unwrap();
        fs::write(at("deltapush"), replaced(block("regexp"), "example\\.org", "lab\\.test"))
            .unwrap();
        fs::write(at("dynamicmaps.cf"), "").unwrap();
        let script = START
            .replace("POSTFIX", &unpacked("postfix").display().to_string())
            .replace("SOCKETS", &scene.scene.deltapush.dir().display().to_string())
            .replace("PROGRAM", env!("CARGO_BIN_EXE_deltapush"));
        let running = Guarded::start(&script, folder.path());
        let postfix = Self { port, mail, folder, _running: running };
        assert!(wait_for_port(postfix.port.number(), PATIENCE), "{}", postfix.log());
        postfix
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Hands a message over by SMTP.
    fn send(&self, recipients: &[&str], message: &str) {
        let stream = TcpStream::connect(("127.0.0.1", self.port.number())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = BufReader::new(stream);
        let to = recipients.iter().map(|recipient| format!("RCPT TO:<{recipient}>"));
        let before = ["HELO test".to_owned(), "MAIL FROM:<bob@elsewhere.test>".to_owned()];
        let data = ["DATA".to_owned(), message.replace('\n', "\r\n") + "\r\n."];
        expect(&mut stream, "220");
        for line in before.into_iter().chain(to).chain(data) {
            stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
            expect(&mut stream, if line == "DATA" { "354" } else { "250" });
        }
        stream.get_mut().write_all(b"QUIT\r\n").unwrap();
    }

    async fn expect_delivered(&self, user: &str, messages: usize) {
        let maildir = self.mail.join(user);
        let all = poll(PATIENCE, || delivered(Path::new(&maildir)) == messages).await;
        assert!(all, "{}", self.log());
    }

    async fn expect_logged(&self, words: &str) {
        assert!(poll(PATIENCE, || self.log().contains(words)).await, "{words}: {}", self.log());
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- Postfix's log\n{}---", self.log());
        }
    }
}

fn expect(stream: &mut BufReader<TcpStream>, code: &str) {
    let mut answer = String::new();
    stream.read_line(&mut answer).unwrap();
    assert!(answer.starts_with(code), "{answer}");
}

#[tokio::test]
async fn postfix_tells_and_tries_again_while_deltapush_is_down() {
    let mut scene = Scene::new("recipe-postfix").await;
    let postfix = Postfix::start(&scene);
    let user = scene.scene.user.clone();
    let name = scene.local_part().to_owned();
    // Of two recipients, each has a command of its own; the other has no device.
    postfix.send(&[&user, "other@lab.test"], &scene.message("one"));
    scene.pushed(1).await;
    postfix.expect_delivered("other", 1).await;
    postfix.expect_delivered(&name, 1).await;
    postfix.expect_logged("to=<other@deltapush.invalid>").await;

    assert!(scene.scene.deltapush.terminate().success());
    postfix.send(&[&user], &scene.message("two"));
    postfix.expect_delivered(&name, 2).await;
    postfix.expect_logged("status=deferred").await;
    scene.scene.deltapush.start_again();
    scene.pushed(2).await;

    // A refusal is no bounce: the sender learns nothing of the copy.
    scene.scene.deltapush.reconfigure(|config| config.replace("news: server", "news: idle"));
    let is_idle = poll(PATIENCE, || {
        let told = scene.scene.deltapush.asked(&["news", &user, "--from", "bob@elsewhere.test"]);
        told.status.code() == Some(78)
    });
    assert!(is_idle.await, "the route still takes news");
    postfix.send(&[&user], &scene.message("three"));
    postfix.expect_delivered(&name, 3).await;
    postfix.expect_logged("status=bounced").await;
    assert!(!postfix.log().contains("sender non-delivery notification"), "{}", postfix.log());
}
