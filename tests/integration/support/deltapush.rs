//! The program under test: the real binary with a configuration and a folder of its own.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::dovecot::Dovecot;
use super::poll;
use super::ports::{ReservedPort, wait_for_port};
use super::small_disk::SmallDisk;

/// Configuration of a test; the rest is the same for all.
pub(crate) struct Options {
    /// The URL of the account's own server.
    pub(crate) upstream: String,
    /// The logins that go there.
    pub(crate) domain: String,
    /// The routes as YAML, in place of the one of `domain`, `upstream` and `ca`.
    pub(crate) routes: Option<String>,
    /// Authority of the upstream's certificate; none for a plain upstream.
    pub(crate) ca: Option<PathBuf>,
    /// `push.notify_url`.
    pub(crate) notify_url: String,
    /// `push.ca`.
    pub(crate) notify_ca: Option<PathBuf>,
    /// `push.native`.
    pub(crate) native: &'static str,
    /// `push.coalesce`.
    pub(crate) coalesce: &'static str,
    /// `push.idle_renewal`.
    pub(crate) idle_renewal: &'static str,
    /// Further keys of `push`, as YAML.
    pub(crate) push: &'static str,
    /// `storage.credentials`.
    pub(crate) credentials: &'static str,
    /// Further keys of `storage`, as YAML.
    pub(crate) storage: String,
    /// `hostname`.
    pub(crate) hostname: &'static str,
    /// Further keys of `certificate`, as YAML.
    pub(crate) certificate: String,
    /// Further keys of the listener with TLS from the first byte, as YAML.
    pub(crate) listener: &'static str,
    /// `log.format`.
    pub(crate) log_format: &'static str,
    /// Further top-level keys, as YAML.
    pub(crate) more: String,
    /// True to run with `--trace`.
    pub(crate) trace: bool,
    /// The size of a disk of its own for the state. Commands that ask a running deltapush do not find its socket there.
    pub(crate) disk: Option<&'static str>,
}

impl Options {
    /// A plain upstream on loopback.
    pub(crate) fn plain(port: u16) -> Self {
        Self {
            upstream: format!("imap+plain://127.0.0.1:{port}"),
            domain: "*".to_owned(),
            routes: None,
            ca: None,
            // Nobody listens there: a test that expects notifications names its own server.
            notify_url: "http://127.0.0.1:9/notify".to_owned(),
            notify_ca: None,
            native: "passthrough",
            coalesce: "300ms",
            idle_renewal: "9m",
            push: "",
            credentials: "sealed",
            storage: String::new(),
            hostname: "localhost",
            certificate: String::new(),
            listener: "",
            log_format: "text",
            more: String::new(),
            trace: false,
            disk: None,
        }
    }

    /// A Dovecot, over TLS.
    pub(crate) fn dovecot(dovecot: &Dovecot) -> Self {
        Self {
            upstream: format!("imaps://localhost:{}", dovecot.imaps),
            ca: Some(dovecot.authority.ca.clone()),
            ..Self::plain(0)
        }
    }
}

/// A running deltapush. It ends with the test, and shows its log if the test fails.
pub(crate) struct Deltapush {
    /// Port with TLS from the first byte.
    pub(crate) imaps: u16,
    /// Port with STARTTLS.
    pub(crate) starttls: u16,
    /// Port in plain text.
    pub(crate) plain: u16,
    /// The ports stay its own while it does not run.
    _reserved: [ReservedPort; 3],
    dir: tempfile::TempDir,
    trace: bool,
    disk: Option<SmallDisk>,
    child: Child,
    output: Output,
}

/// The program's output so far, over all its restarts. In files without names: what it has written can be read at once.
struct Output {
    stdout: File,
    stderr: File,
}

impl Output {
    fn new() -> Self {
        Self { stdout: tempfile::tempfile().unwrap(), stderr: tempfile::tempfile().unwrap() }
    }
}

impl Deltapush {
    /// Starts the program and waits until it accepts connections.
    pub(crate) fn start(options: &Options) -> Self {
        Self::start_on(ReservedPort::new(), options)
    }

    /// The same, with TLS from the first byte on a port that the test knows already.
    pub(crate) fn start_on(imaps: ReservedPort, options: &Options) -> Self {
        let dir = tempfile::Builder::new().prefix("deltapush-test-").tempdir().unwrap();
        let reserved = [imaps, ReservedPort::new(), ReservedPort::new()];
        let [imaps, starttls, plain] = reserved.each_ref().map(ReservedPort::number);
        fs::write(dir.path().join("config.yaml"), configuration(options, imaps, starttls, plain))
            .unwrap();
        let output = Output::new();
        let disk = options.disk.map(|size| SmallDisk::mount(&dir.path().join("state"), size));
        let child = spawn(dir.path(), options.trace, disk.as_ref(), &output);
        let mut deltapush = Self {
            imaps,
            starttls,
            plain,
            _reserved: reserved,
            dir,
            trace: options.trace,
            disk,
            child,
            output,
        };
        deltapush.wait_until_ready();
        deltapush
    }

    /// Changes the configuration's file and lets the program read it again.
    pub(crate) fn reconfigure(&self, change: impl FnOnce(&str) -> String) {
        let path = self.dir.path().join("config.yaml");
        let before = fs::read_to_string(&path).unwrap();
        let after = change(&before);
        assert_ne!(before, after, "nothing to change was found");
        fs::write(&path, after).unwrap();
        self.signal("HUP");
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent =
            Command::new("sh").args(["-c", r#"kill -"$0" "$1""#, name, &pid]).status().unwrap();
        assert!(sent.success(), "deltapush had ended before SIG{name}");
    }

    /// Ends the program as an operator does, and starts it again on the same folder and ports.
    pub(crate) fn restart(&mut self) {
        self.terminate();
        self.start_again();
    }

    /// SIGTERM, and the exit status; fails if the program does not end by itself.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ends()
    }

    /// Its exit status; fails if the program does not end by itself.
    pub(crate) fn ends(&mut self) -> ExitStatus {
        // Other nodes take over for 20 s, and a database that is away takes its time.
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("deltapush does not end after SIGTERM\n{}", self.log());
    }

    /// SIGKILL: no last words.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts the program after [`terminate`](Self::terminate) or [`kill`](Self::kill).
    pub(crate) fn start_again(&mut self) {
        self.spawn_again();
        self.wait_until_ready();
    }

    /// The same where the database may be away: as systemd does, it starts the program again that ends for a reason that may
    /// pass.
    pub(crate) fn start_at_last(&mut self) {
        const EX_TEMPFAIL: i32 = 75;
        self.spawn_again();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !wait_for_port(self.imaps, Duration::from_millis(200)) {
            let ended = self.child.try_wait().unwrap();
            assert!(
                Instant::now() < deadline
                    && ended.is_none_or(|ended| ended.code() == Some(EX_TEMPFAIL)),
                "it does not start (ended: {ended:?})"
            );
            if ended.is_some() {
                std::thread::sleep(Duration::from_millis(300));
                self.spawn_again();
            }
        }
        self.wait_until_ready();
    }

    fn spawn_again(&mut self) {
        self.child = spawn(self.dir.path(), self.trace, self.disk.as_ref(), &self.output);
    }

    /// The PEM file of the self-signed certificate that clients are to trust.
    pub(crate) fn certificate(&self) -> PathBuf {
        let folder = self.dir.path().join("certs");
        fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "pem"))
            .find(|path| {
                fs::read_to_string(path).is_ok_and(|text| text.contains("BEGIN CERTIFICATE"))
            })
            .unwrap_or_else(|| panic!("no certificate in {}", folder.display()))
    }

    /// The number of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns its memory use, in KiB.
    pub(crate) fn memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        resident.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The disk of its state, if it has one of its own.
    pub(crate) fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().expect("`disk` is not among the options")
    }

    /// The folder with its configuration and state.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the output of `deltapush status`.
    pub(crate) fn status(&self) -> String {
        let config = self.dir.path().join("config.yaml");
        let output = Command::new(env!("CARGO_BIN_EXE_deltapush"))
            .arg("--config")
            .arg(config)
            .arg("status")
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Another command of the program's, on the same configuration, and how it ended. Nobody is there to be asked.
    pub(crate) fn asked(&self, arguments: &[&str]) -> std::process::Output {
        self.asking(arguments).wait_with_output().unwrap()
    }

    /// The same, under way.
    pub(crate) fn asking(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_deltapush"));
        command.arg("--config").arg(self.dir.path().join("config.yaml")).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The output of `deltapush account USER --json`; none for an account that it does not know.
    pub(crate) fn account(&self, user: &str) -> Option<serde_json::Value> {
        let output = self.asked(&["account", user, "--json"]);
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Waits until the history of an account has `count` events with these words and none of its pushes is outstanding: what
    /// is not posted by then is not posted for these events. A message is judged before it is stored and announced.
    pub(crate) async fn decides(&self, user: &str, words: &str, count: usize) {
        let mut last = None;
        let decided = poll(Duration::from_secs(40), || {
            last = self.account(user);
            let Some(report) = &last else { return false };
            let devices = report["account"]["devices"].as_array().unwrap();
            report["happened"].to_string().matches(words).count() >= count
                && devices.iter().all(|device| device["pending"] == false)
        });
        let decided = decided.await;
        assert!(decided, "not {count} times {words:?}, or a push is outstanding: {last:#?}");
    }

    /// The output of `deltapush check --login`, with its error.
    pub(crate) fn check_login(&self, login: &str) -> String {
        let config = self.dir.path().join("config.yaml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_deltapush"));
        let output =
            command.arg("--config").arg(config).args(["check", "--login", login]).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        text_of(&self.output.stderr)
    }

    /// The trace so far.
    pub(crate) fn trace(&self) -> String {
        text_of(&self.output.stdout)
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(40);
        for port in [self.imaps, self.starttls, self.plain] {
            while !wait_for_port(port, Duration::from_millis(200)) {
                let ended = self.child.try_wait().unwrap();
                let late = Instant::now() > deadline;
                assert!(
                    ended.is_none() && !late,
                    "nobody answers on port {port} (ended: {ended:?})\n{}",
                    self.log()
                );
            }
        }
        // The control socket comes with the ports, perhaps a moment later. A test may put the state elsewhere.
        let control = self.dir.path().join("state/control.sock");
        let deadline = Instant::now() + Duration::from_secs(2);
        while self.dir.path().join("state").is_dir()
            && !control.exists()
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Deltapush {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let mut report = format!("--- deltapush's log\n{}", self.log());
            if self.trace {
                write!(report, "--- its trace\n{}", self.trace()).unwrap();
            }
            eprintln!("{report}---");
        }
    }
}

fn spawn(dir: &Path, trace: bool, disk: Option<&SmallDisk>, output: &Output) -> Child {
    const PROGRAM: &str = env!("CARGO_BIN_EXE_deltapush");
    let mut command = disk.map_or_else(|| Command::new(PROGRAM), |disk| disk.command(PROGRAM));
    command.arg("--config").arg(dir.join("config.yaml"));
    if trace {
        command.arg("--trace");
    }
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|file| file.try_clone().unwrap());
    command.arg("run").stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().unwrap()
}

fn text_of(file: &File) -> String {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn configuration(options: &Options, imaps: u16, starttls: u16, plain: u16) -> String {
    let Options {
        upstream,
        domain,
        routes,
        ca,
        notify_url,
        notify_ca,
        native,
        coalesce,
        idle_renewal,
        push,
        credentials,
        storage,
        hostname,
        certificate,
        listener,
        log_format,
        more,
        trace: _,
        disk: _,
    } = options;
    // A path is a string of its own in YAML: JSON's quoting is valid there.
    let ca = ca
        .as_ref()
        .map(|path| format!("\n    ca: {}", serde_json::json!(path)))
        .unwrap_or_default();
    let notify_ca = notify_ca
        .as_ref()
        .map(|path| format!("\n  ca: {}", serde_json::json!(path)))
        .unwrap_or_default();
    // One address for all tests would be in use by another of them.
    let admin = if more.lines().any(|line| line.starts_with("admin:")) {
        ""
    } else {
        "admin: { address: off }"
    };
    let one = format!("  - domain: \"{domain}\"\n    upstream: {upstream}{ca}");
    let routes = routes.as_ref().unwrap_or(&one);
    format!(
        r#"
hostname: {hostname}
listeners:
  - address: 127.0.0.1:{imaps}
    tls: implicit
    {listener}
  - address: 127.0.0.1:{starttls}
    tls: starttls
  - address: 127.0.0.1:{plain}
    tls: none
certificate:
  directory: certs
  {certificate}
routes:
{routes}
push:
  notify_url: {notify_url}{notify_ca}
  native: {native}
  coalesce: {coalesce}
  idle_renewal: {idle_renewal}
  {push}
storage:
  directory: state
  credentials: {credentials}
  {storage}
log:
  level: info,deltapush=debug
  format: {log_format}
{admin}
{more}
"#
    )
}
