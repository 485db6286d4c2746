//! A real PostgreSQL of one's own: Debian's package as `scripts/servers` unpacks it, run from a temporary folder.
//!
//! TLS with a certificate of the test's own authority, passwords by SCRAM, a socket beside the loopback port; a standby that
//! follows by streaming replication. A server is ended by its guard, whatever ends the test.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::certs::Authority;
use super::guarded::Guarded;
use super::ports::{ReservedPort, wait_for_port};
use super::server::unpacked;

/// The database user of deltapush, and its database.
pub(crate) const USER: &str = "deltapush";
/// The password of all users.
pub(crate) const PASSWORD: &str = "postgres-sesame";

/// PostgreSQL's own superuser; of standbys, too.
const SUPERUSER: &str = "postgres";
/// PostgreSQL refuses to run as root: every Debian has this user.
const SYSTEM_USER: &str = "mail";
/// The replication slot of the standby.
const SLOT: &str = "standby";
/// Time limit for what is a matter of moments.
const PATIENCE: Duration = Duration::from_secs(40);

/// Settings beyond the defaults. Durability of what is written is tested as it is; the machine's disk is not.
const SETTINGS: &str = "
fsync = on
wal_level = replica
hot_standby = on
max_connections = 60
shared_buffers = 16MB
max_wal_senders = 4
max_replication_slots = 4
wal_receiver_timeout = 5s
wal_retrieve_retry_interval = 200ms
log_line_prefix = '%m [%p] %q%u@%d %a '
ssl = on
dynamic_shared_memory_type = mmap
";

/// A running PostgreSQL.
pub(crate) struct Postgres {
    /// Port on 127.0.0.1.
    pub(crate) port: u16,
    /// The authority that issued the server's certificate.
    pub(crate) authority: Authority,
    /// The port stays its own while it does not run.
    _reserved: ReservedPort,
    running: Guarded,
    dir: tempfile::TempDir,
}

impl Postgres {
    /// Starts an empty server with the user and the database of deltapush, and waits until it takes connections.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// The same, with further lines of its configuration, such as `synchronous_commit = off`.
    pub(crate) fn start_with(settings: &str) -> Self {
        let dir = folder();
        let password = dir.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        own(dir.path());
        let mut initdb = program(dir.path(), "initdb");
        initdb.args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"]);
        initdb.arg(format!("--username={SUPERUSER}")).arg("--pwfile").arg(&password);
        succeed(initdb.arg("--pgdata").arg(data(dir.path())));
        let authority = Authority::new(dir.path());
        let postgres = Self::run_on(dir, authority, settings);
        postgres.sql("postgres", &format!("CREATE USER {USER} PASSWORD '{PASSWORD}'"));
        postgres.sql("postgres", &format!("CREATE DATABASE {USER} OWNER {USER}"));
        postgres
    }

    /// A standby of this server, which follows it from now on. With `synchronous`, a commit here is acknowledged only once the
    /// standby has it on disk.
    pub(crate) fn standby(&self, synchronous: bool) -> Self {
        let dir = folder();
        own(dir.path());
        let mut copy = program(dir.path(), "pg_basebackup");
        copy.args(["--checkpoint=fast", "--no-sync", "--write-recovery-conf", "--create-slot"]);
        copy.arg(format!("--slot={SLOT}")).arg("--pgdata").arg(data(dir.path()));
        copy.arg("--dbname").arg(format!("{} application_name={SLOT}", self.connection("")));
        succeed(&mut copy);
        let authority = self.authority.copied_to(dir.path());
        let standby = Self::run_on(dir, authority, "");
        if synchronous {
            self.sql("postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = '{SLOT}'"));
            self.sql("postgres", "SELECT pg_reload_conf()");
        }
        let state = if synchronous { "sync" } else { "async" };
        let question = format!(
            "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = '{state}'"
        );
        until("the standby follows", || self.sql("postgres", &question) == "1");
        standby
    }

    /// The configuration of `storage.postgres` for this server behind another port, such as that of a network of the test's
    /// own: TLS, verified.
    pub(crate) fn section(&self, port: u16) -> String {
        self.section_of(&[port])
    }

    /// The same, with several servers: this one and its standby.
    pub(crate) fn section_of(&self, ports: &[u16]) -> String {
        let hosts: Vec<_> = ports.iter().map(|port| format!("localhost:{port}")).collect();
        let url = format!("postgresql://{USER}@{}/{USER}?sslmode=verify-full", hosts.join(","));
        let (ca, password) = (self.authority.ca.display(), self.password_file());
        format!("{{url: \"{url}\", ca: {ca}, password_file: {}}}", password.display())
    }

    /// The file with the password, for the user of the tests.
    pub(crate) fn password_file(&self) -> PathBuf {
        let path = self.dir.path().join("password-of-deltapush");
        fs::write(&path, format!("{PASSWORD}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// The folder of its socket.
    pub(crate) fn socket(&self) -> &Path {
        self.dir.path()
    }

    /// Runs SQL as the superuser, and returns the rows, with `|` between columns.
    pub(crate) fn sql(&self, database: &str, statement: &str) -> String {
        let output = self.try_sql(database, statement);
        assert!(output.status.success(), "{statement}: {output:?}\n{}", self.log());
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// The same, where the server may be away.
    pub(crate) fn try_sql(&self, database: &str, statement: &str) -> Output {
        let mut psql = program(self.dir.path(), "psql");
        psql.args(["--no-psqlrc", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"]);
        psql.args(["--dbname", &self.connection(database), "--command", statement]);
        psql.stdin(Stdio::null()).output().unwrap()
    }

    /// Copies the database of deltapush into the empty one of another server, by these lines: commands for a backup, run here, and
    /// for its restoration, run there.
    pub(crate) fn restore_to(&self, other: &Self, lines: &str) {
        for line in lines.lines() {
            let mut words = line.split_whitespace();
            let name = words.next().unwrap();
            let server = if name == "pg_restore" { other } else { self };
            let mut command = program(other.dir.path(), name);
            // The file is in the folder in which both run.
            command.args(words.map(|word| match word {
                "--dbname=deltapush" => format!("--dbname={}", server.connection(USER)),
                word => word.to_owned(),
            }));
            succeed(&mut command);
        }
    }

    /// Ends it as an operator does: sessions are ended, all is written.
    pub(crate) fn stop(&mut self) {
        self.signal("INT");
        until("the server ends", || !self.is_running());
        self.running.stop();
    }

    /// Ends it at once, as a power failure does.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        // Its other processes notice that the first one is gone.
        until("the server is gone", || !self.is_running());
        self.running.stop();
    }

    /// Starts it after [`stop`](Self::stop) or [`kill`](Self::kill), on the same folder and port.
    pub(crate) fn start_again(&mut self) {
        self.running = run(self.dir.path());
        self.wait_until_ready();
    }

    /// Lets a standby receive nothing any more: it falls behind.
    pub(crate) fn stop_following(&self) {
        self.sql("postgres", "ALTER SYSTEM SET primary_conninfo = ''");
        self.sql("postgres", "SELECT pg_reload_conf()");
        until("the standby receives nothing", || {
            self.sql("postgres", "SELECT count(*) FROM pg_stat_wal_receiver") == "0"
        });
    }

    /// Lets a standby take writes from now on.
    pub(crate) fn promote(&self) {
        assert_eq!(self.sql("postgres", "SELECT pg_promote(true, 30)"), "t", "{}", self.log());
    }

    /// The server's log.
    pub(crate) fn log(&self) -> String {
        let log = fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn run_on(dir: tempfile::TempDir, authority: Authority, settings: &str) -> Self {
        let reserved = ReservedPort::new();
        let port = reserved.number();
        configure(dir.path(), port, &authority, settings);
        own(dir.path());
        let running = run(dir.path());
        let postgres = Self { port, authority, _reserved: reserved, running, dir };
        postgres.wait_until_ready();
        postgres
    }

    fn connection(&self, database: &str) -> String {
        let (socket, port) = (self.dir.path().display(), self.port);
        let database = if database.is_empty() { "" } else { &format!(" dbname={database}") };
        format!(
            "host={socket} port={port} user={SUPERUSER} password={PASSWORD} connect_timeout=10{database}"
        )
    }

    fn signal(&self, name: &str) {
        let pid = self.pid().expect("the server runs").to_string();
        let sent = Command::new("sh").args(["-c", r#"kill -"$0" "$1""#, name, &pid]).status();
        assert!(sent.unwrap().success(), "SIG{name}");
    }

    /// The number of its first process, while it runs.
    fn pid(&self) -> Option<u32> {
        let file = fs::read_to_string(data(self.dir.path()).join("postmaster.pid")).ok()?;
        file.lines().next()?.parse().ok()
    }

    /// The numbers of its processes: their folder is that of the data.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let data = data(self.dir.path());
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let own = processes.filter(|process| {
            fs::read_link(process.path().join("cwd")).is_ok_and(|folder| folder == data)
        });
        own.filter_map(|process| process.file_name().to_str()?.parse().ok()).collect()
    }

    fn is_running(&self) -> bool {
        !self.processes().is_empty()
    }

    fn wait_until_ready(&self) {
        assert!(wait_for_port(self.port, PATIENCE), "PostgreSQL does not start:\n{}", self.log());
        until("the server takes questions", || {
            self.try_sql("postgres", "SELECT 1").status.success()
        });
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Not to wait for its clients.
        if self.is_running() && self.pid().is_some() {
            self.signal("QUIT");
        }
        if std::thread::panicking() {
            eprintln!("--- PostgreSQL's log\n{}---", self.log());
        }
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("deltapush-postgres-").tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(data(dir.path())).unwrap();
    fs::set_permissions(data(dir.path()), fs::Permissions::from_mode(0o700)).unwrap();
    dir
}

fn data(dir: &Path) -> PathBuf {
    dir.join("data")
}

fn configure(dir: &Path, port: u16, authority: &Authority, settings: &str) {
    let (at, cert, key) =
        (dir.display(), authority.leaf_cert.display(), authority.leaf_key.display());
    fs::set_permissions(&authority.leaf_key, fs::Permissions::from_mode(0o600)).unwrap();
    let place = format!(
        "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{at}'\n\
         ssl_cert_file = '{cert}'\nssl_key_file = '{key}'\n"
    );
    fs::write(data(dir).join("postgresql.conf"), format!("{place}{SETTINGS}{settings}\n")).unwrap();
    // Without TLS only at the socket.
    let access = "local all all scram-sha-256\nlocal replication all scram-sha-256\n\
                  hostssl all all 127.0.0.1/32 scram-sha-256\n";
    fs::write(data(dir).join("pg_hba.conf"), access).unwrap();
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    output.stdout.trim_ascii() == b"0"
}

/// Hands the files to the user that PostgreSQL runs as.
fn own(dir: &Path) {
    if is_root() {
        let owner = format!("{SYSTEM_USER}:{SYSTEM_USER}");
        let owned = Command::new("chown").args(["-R", &owner]).arg(dir).status().unwrap();
        assert!(owned.success(), "chown");
    }
}

fn bin() -> PathBuf {
    unpacked("postgres").join("usr/lib/postgresql/15/bin")
}

/// The words before a program that give it its user.
fn as_user() -> &'static [&'static str] {
    if is_root() {
        &["setpriv", "--reuid", SYSTEM_USER, "--regid", SYSTEM_USER, "--clear-groups"]
    } else {
        &["env"]
    }
}

fn program(dir: &Path, name: &str) -> Command {
    let words = as_user();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(bin().join(name)).current_dir(dir);
    command.env("LD_LIBRARY_PATH", unpacked("postgres").join("libraries"));
    command.env("HOME", dir).stdin(Stdio::null());
    command
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn run(dir: &Path) -> Guarded {
    let (words, bin, libraries) =
        (as_user().join(" "), bin(), unpacked("postgres").join("libraries"));
    let script = format!(
        r#"export LD_LIBRARY_PATH="{}"
        exec {words} "{}/postgres" -D "$PWD/data""#,
        libraries.display(),
        bin.display()
    );
    Guarded::start(&script, dir)
}
