//! A stand-in for systemd: runs the command of the installed unit, as its user, with its capabilities and its folder for the
//! state. The unit's other restrictions are left out.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::namespace::run;
use super::vps::Vps;

const UNIT: &str = "/etc/systemd/system/deltapush.service";

/// The service. It ends with the test.
pub(super) struct Service {
    child: Option<Child>,
    log: PathBuf,
}

impl Service {
    /// A service that has not been started; its output will be in the file `log`.
    pub(super) fn new(log: PathBuf) -> Self {
        Self { child: None, log }
    }

    /// `systemctl start`.
    pub(super) fn start(&mut self, vps: &Vps) {
        let unit = fs::read_to_string(UNIT).expect("the page installs the unit");
        let value = |key: &str| {
            let line = unit.lines().find_map(|line| line.strip_prefix(&format!("{key}=")));
            line.unwrap_or_else(|| panic!("{UNIT} has no {key}"))
        };
        let (user, group) = (value("User"), value("Group"));
        let state = format!("/var/lib/{}", value("StateDirectory"));
        let mode = value("StateDirectoryMode");
        run("install", &["-d", "-m", mode, "-o", user, "-g", group, &state]);
        let capability = value("AmbientCapabilities").strip_prefix("CAP_").unwrap().to_lowercase();
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = vps.program("setpriv");
        command.arg(format!("--reuid={user}")).arg(format!("--regid={group}")).arg("--init-groups");
        for set in ["inh-caps", "ambient-caps", "bounding-set"] {
            command.arg(format!("--{set}=-all,+{capability}"));
        }
        let line = format!("umask {}; exec {}", value("UMask"), value("ExecStart"));
        command.args(["--no-new-privs", "bash", "-c", &line]).current_dir("/");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// `systemctl restart`.
    pub(super) fn restart(&mut self, vps: &Vps) {
        let mut child = self.child.take().expect("the service was started");
        run("kill", &["-TERM", &child.id().to_string()]);
        let deadline = Instant::now() + Duration::from_secs(30);
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the service does not end\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(child.wait().unwrap().success(), "{}", self.log());
        self.start(vps);
    }

    /// The log so far.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only if it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the service's log\n{}---", self.log());
        }
    }
}
