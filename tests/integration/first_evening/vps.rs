//! The VPS, on a link to the test's network, in which commands are typed: a network namespace in which this machine's programs run,
//! or a Debian with its own systemd.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::json;

use super::namespace::run;
use crate::support::{poll, python};

/// As in a shell of root's.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("LC_ALL", "C.UTF-8"),
    ("TERM", "xterm"),
];

/// The machine, and the folder in which its shell is.
pub(crate) struct Vps {
    /// The process with which the machine ends.
    holder: Child,
    /// Arguments for nsenter.
    entrance: Vec<String>,
    /// Its files, as this process sees them.
    root: PathBuf,
    folder: PathBuf,
}

impl Vps {
    /// Starts a namespace with these addresses, on a link whose other end has the addresses `internet`.
    pub(crate) async fn start(folder: &Path, own: &[String], internet: &[String]) -> Self {
        let mut command = Command::new("unshare");
        let holder = command.args(["--net", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
        let pid = holder.id().to_string();
        let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let is_apart = || network(&pid).is_some_and(|its| Some(its) != network("self"));
        assert!(poll(Duration::from_secs(10), is_apart).await, "no network namespace");
        let entrance = vec![format!("--net=/proc/{pid}/ns/net")];
        let vps = Self { holder, entrance, root: "/".into(), folder: folder.to_owned() };
        vps.connect(&pid, own, internet);
        vps
    }

    /// Boots the Debian in the folder `root`, with a network as in [`start`](Self::start). The shell is in /root.
    pub(super) async fn boot(root: &Path, own: &[String], internet: &[String]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/boot-root");
        let note = root.with_extension("pid");
        let _ = fs::remove_file(&note);
        let holder = Command::new(script).arg(root).stdin(Stdio::null()).spawn().unwrap();
        let mut vps =
            Self { holder, entrance: Vec::new(), root: root.to_owned(), folder: "/root".into() };
        assert!(poll(Duration::from_secs(90), || note.exists()).await, "systemd does not start");
        let pid = fs::read_to_string(note).unwrap().trim().to_owned();
        vps.entrance = vec![format!("--target={pid}"), "--all".to_owned()];
        vps.connect(&pid, own, internet);
        vps
    }

    /// Links the network of a process to the test's.
    fn connect(&self, pid: &str, own: &[String], internet: &[String]) {
        run(
            "ip",
            &["link", "add", "internet", "type", "veth", "peer", "name", "eth0", "netns", pid],
        );
        run("sh", &["-c", &set_up("internet", internet)]);
        self.expect(&set_up("eth0", own));
    }

    /// A file of the machine, as this process sees it.
    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.root.join(file.trim_start_matches('/'))
    }

    /// Gives the machine the test's DNS server and certificate authorities, which this process has in its /etc.
    pub(super) fn takes_names_and_authorities(&self) {
        if self.root == Path::new("/") {
            return;
        }
        for file in [
            "/etc/resolv.conf",
            "/etc/hosts",
            "/etc/nsswitch.conf",
            "/etc/ssl/certs/ca-certificates.crt",
        ] {
            // A link may lead elsewhere. A file that is missing need not be removed.
            let _ = fs::remove_file(self.path(file));
            fs::copy(file, self.path(file)).unwrap();
        }
    }

    /// A program on this machine.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(&self.entrance).arg(name).env_clear().envs(ENVIRONMENT);
        command
    }

    fn shell(&self, line: &str) -> Command {
        let mut command = self.program("bash");
        command.args(["-c", r#"cd "$0" && eval "$1""#]).arg(&self.folder).arg(line);
        command.stdin(Stdio::null());
        command
    }

    /// Goes to a folder, as `cd` does.
    pub(crate) fn change_folder(&mut self, folder: &str) {
        self.folder = self.folder.join(folder);
        let seen = self.path(&self.folder.to_string_lossy());
        assert!(seen.is_dir(), "{}", seen.display());
    }

    /// Types a command that must succeed, and returns its output, which is shown if the test fails.
    #[track_caller]
    pub(crate) fn expect(&self, line: &str) -> String {
        show(self.output_of(line))
    }

    /// The same for a command that is repeated: its output is not shown.
    #[track_caller]
    pub(crate) fn output_of(&self, line: &str) -> String {
        let output = self.shell(line).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        text_of(&output)
    }

    /// Types a command that must end with this exit code, and returns its output, which is shown if the test fails.
    #[track_caller]
    pub(super) fn expect_failure(&self, line: &str, code: i32) -> String {
        let output = self.shell(line).output().unwrap();
        let shown = show(text_of(&output));
        assert_eq!(output.status.code(), Some(code), "{line}: {shown}");
        shown
    }

    /// Types a command that goes on while other things happen.
    pub(crate) fn begin(&self, line: &str) -> Child {
        self.shell(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Types a command on a terminal, and an answer to each of its questions. Returns what the terminal shows, without colours.
    pub(crate) fn converse(&self, line: &str, answers: &[(&str, &str)]) -> String {
        let mut command = python::script("terminal.py");
        command.arg("nsenter").args(self.shell(line).get_args());
        command.env_clear().envs(ENVIRONMENT);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        write!(child.stdin.take().unwrap(), "{}", json!(answers)).unwrap();
        let output = child.wait_with_output().unwrap();
        let shown = without_colours(&text_of(&output));
        assert!(output.status.success(), "{line}: {}\n{shown}", output.status);
        show(shown)
    }
}

impl Drop for Vps {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let journal = self.shell("journalctl --unit deltapush --no-pager").output();
            let journal = journal.map(|output| text_of(&output)).unwrap_or_default();
            eprintln!("--- the journal of the service\n{journal}---");
        }
        // Not killed: a Debian's control groups are removed at its end. Both fail only if it has ended already.
        let _ = Command::new("kill").arg(self.holder.id().to_string()).status();
        let _ = self.holder.wait();
    }
}

/// The commands that give a network device its addresses.
fn set_up(device: &str, addresses: &[String]) -> String {
    // Duplicates of IPv6 addresses are not looked for, so that they can be used at once.
    let add = |address: &String| {
        let nodad = if address.contains(':') { " nodad" } else { "" };
        format!("ip address add {address} dev {device}{nodad} && ")
    };
    let added: String = addresses.iter().map(add).collect();
    format!("{added}ip link set lo up && ip link set {device} up")
}

/// Adds an output to the test's own.
pub(crate) fn show(output: String) -> String {
    eprint!("{output}");
    output
}

/// Output and errors.
pub(crate) fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// The text without the sequences that change colours: ESC, `[`, parameters, `m`.
fn without_colours(text: &str) -> String {
    let mut pieces = text.split("\u{1b}[");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces
        .fold(first, |shown, piece| shown + piece.split_once('m').map_or(piece, |(_, after)| after))
}
