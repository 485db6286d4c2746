//! A real PostgreSQL for unit tests: one server for the process, on a Unix socket, and a database for each test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::schema::Schema;
use crate::config::Trust;
use crate::ownership::{Epoch, Ownership, Slot};
use crate::store::{
    Change, CredentialStorage, KeySource, OpenError, PasswordSource, PostgresSettings, Store,
    StoreSettings,
};

/// PostgreSQL refuses to run as root: every Debian has this user.
const SYSTEM_USER: &str = "nobody";
const PATIENCE: Duration = Duration::from_secs(40);

/// Runs the server until standard input ends, as it does with the process of the tests, whatever ends that.
const GUARD: &str = r#"
    "$@" >>"$0/log" 2>&1 </dev/null & server=$!
    cat >/dev/null
    kill -s QUIT "$server"; wait "$server"
    rm -rf "$0"
"#;

/// A version of deltapush, by the tables that it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// This one.
    Present,
    /// The next one, which adds a column and a table.
    Next,
    /// The one after it, which removes them.
    AfterNext,
}

impl Version {
    /// Opens the state as a node of this version.
    pub(crate) async fn open(
        self,
        settings: &StoreSettings,
        ownership: Ownership,
        node: i64,
        changed: impl Fn(Change) + Send + 'static,
    ) -> Result<Store, OpenError> {
        let schema = match self {
            Self::Present => Schema::PRESENT,
            Self::Next => Schema::of_later_version(false),
            Self::AfterNext => Schema::of_later_version(true),
        };
        let opened = Store::open_version(settings, schema, ownership, node, changed).await;
        opened.map(|(store, _)| store)
    }
}

/// The server of this process. Nobody waits for its end.
struct Server {
    folder: PathBuf,
    _guard: Child,
}

static SERVER: OnceLock<Server> = OnceLock::new();
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A database of a test's own, with a folder for its keys.
pub(crate) struct Database {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) name: String,
}

impl Database {
    pub(crate) fn new() -> Self {
        let name = format!("test{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let database = Self { directory: tempfile::tempdir().unwrap(), name };
        sql("postgres", &format!("CREATE DATABASE {}", database.name));
        database
    }

    /// The settings of a node with its key in this file of the folder.
    pub(crate) fn settings(&self, key: &str) -> StoreSettings {
        let key = KeySource::File(self.directory.path().join(key));
        StoreSettings {
            postgres: Some(self.postgres()),
            directory: self.directory.path().join("state"),
            credentials: CredentialStorage::Sealed(key),
        }
    }

    fn postgres(&self) -> PostgresSettings {
        let folder = server().folder.display().to_string().replace('/', "%2F");
        let url = format!("postgresql://deltapush@{folder}/{}", self.name).parse().unwrap();
        PostgresSettings { url, ca: Trust::System, password: PasswordSource::Nowhere }
    }

    /// Runs statements as the owner of the database. Returns what psql prints.
    pub(crate) fn sql(&self, statements: &str) -> String {
        sql(&self.name, statements)
    }

    /// Gives all slots to the node with this number, in a new epoch.
    pub(crate) fn give_all(&self, node: i64, ownership: &Ownership) {
        self.give(node, ownership, &Slot::all().collect::<Vec<_>>());
    }

    pub(crate) fn give(&self, node: i64, ownership: &Ownership, slots: &[Slot]) {
        let numbers: Vec<_> = slots.iter().map(|slot| slot.number().to_string()).collect();
        let epoch = self.sql(&format!(
            "UPDATE slots SET owner = {node}, epoch = (SELECT max(epoch) + 1 FROM slots) WHERE slot IN ({});
             SELECT max(epoch) FROM slots",
            numbers.join(",")
        ));
        let epoch = epoch.lines().last().unwrap().parse().unwrap();
        slots.iter().for_each(|slot| ownership.grant(*slot, Epoch(epoch)));
    }

    /// Nobody gets in any more, and those that are in leave.
    pub(crate) fn shut(&self) {
        sql("postgres", &format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", self.name));
        let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname";
        sql("postgres", &format!("{ended} = '{}'", self.name));
    }

    pub(crate) fn reopen(&self) {
        sql("postgres", &format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", self.name));
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Nodes of the test may still be connected.
        sql("postgres", &format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

fn server() -> &'static Server {
    SERVER.get_or_init(Server::start)
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap().keep();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        run(Command::new("chown").arg(SYSTEM_USER).arg(&folder));
        run(program("initdb")
            .args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=trust"])
            .args(["--username=deltapush", "--pgdata"])
            .arg(folder.join("data")));
        let mut postgres = program("postgres");
        postgres.arg("-D").arg(folder.join("data")).arg("-k").arg(&folder);
        for setting in
            ["listen_addresses=", "fsync=off", "max_connections=400", "shared_buffers=16MB"]
        {
            postgres.arg("-c").arg(setting);
        }
        let guard = Command::new("sh")
            .args(["-c", GUARD])
            .arg(&folder)
            .arg(postgres.get_program())
            .args(postgres.get_args())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { folder, _guard: guard };
        let deadline = Instant::now() + PATIENCE;
        while !server.psql("postgres", "SELECT 1").status.success() {
            let log = || fs::read_to_string(server.folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "PostgreSQL does not start: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn psql(&self, database: &str, statements: &str) -> std::process::Output {
        let mut psql = program("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "deltapush", "-h"]);
        psql.arg(&self.folder).args(["-d", database, "-c", statements]).output().unwrap()
    }
}

pub(super) fn sql(database: &str, statements: &str) -> String {
    let output = server().psql(database, statements);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{statements}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A program of PostgreSQL, run by a user that it accepts.
fn program(name: &str) -> Command {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join(target).join("servers/postgres");
    let places =
        [unpacked, "/".into()].map(|root| root.join("usr/lib/postgresql/15/bin").join(name));
    let place = places.iter().find(|place| place.exists());
    let place = place.unwrap_or_else(|| {
        panic!("PostgreSQL is missing at {}: run ./scripts/servers", places[0].display())
    });
    let mut command = Command::new("setpriv");
    command.args(["--reuid", SYSTEM_USER, "--regid=nogroup", "--clear-groups"]);
    command.arg(place.canonicalize().unwrap());
    command
}
