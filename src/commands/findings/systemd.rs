//! Commands of systemd: the units of deltapush, and its journal.

use std::path::Path;
use std::time::Duration;

use super::command::{asked, run};

/// The service.
pub(in super::super) const SERVICE: &str = "deltapush.service";

/// The configuration that the service unit names.
pub(in super::super) const SERVICE_CONFIG: &str = "/etc/deltapush/config.yaml";

/// Folders of units: the operator's own, and those of packages.
const UNIT_FOLDERS: [&str; 3] =
    ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// Time limit of a start or stop: systemd's own limit is 90 s (systemd.service(5), `TimeoutStartSec`).
const STARTED: Duration = Duration::from_secs(120);

/// Lines of the journal that are shown.
const LINES: &str = "8";

/// True if systemd is at work: sd_booted(3).
pub(in super::super) fn is_booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// True if this unit is installed.
pub(in super::super) fn has_unit(name: &str) -> bool {
    UNIT_FOLDERS.iter().any(|folder| Path::new(folder).join(name).exists())
}

/// True for the configuration of the service.
pub(in super::super) fn is_of_service(file: &Path) -> bool {
    std::path::absolute(file).is_ok_and(|file| file == Path::new(SERVICE_CONFIG))
}

/// State of the service, as systemd has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct UnitFacts {
    /// `active`, `activating`, `inactive`, `failed` …
    pub(in super::super) active: String,
    /// `enabled`, `disabled` …
    pub(in super::super) enabled: String,
    /// The exit code of the process that ran last.
    pub(in super::super) exit_code: u8,
    /// Automatic restarts since the start by hand.
    pub(in super::super) restarts: u32,
    /// Ports whose socket units are active.
    pub(in super::super) sockets: Vec<u16>,
}

impl UnitFacts {
    /// The service of the configuration in `file`; `None` if it is not the service's, or no systemd is at work.
    pub(in super::super) async fn of(file: &Path) -> Option<Self> {
        if is_booted() && is_of_service(file) { Self::look().await } else { None }
    }

    /// Asks systemd. `None` if it does not answer, or does not know the unit.
    pub(in super::super) async fn look() -> Option<Self> {
        let properties = "LoadState,ActiveState,UnitFileState,ExecMainStatus,NRestarts";
        let shown = asked("systemctl", &["show", SERVICE, "--property", properties]).await?;
        let sockets = "deltapush@*.socket";
        let list = ["list-units", "--plain", "--no-legend", "--no-pager", sockets];
        let sockets = asked("systemctl", &list).await.unwrap_or_default();
        Some(Self { sockets: ports(&sockets), ..Self::parse(&shown)? })
    }

    fn parse(shown: &str) -> Option<Self> {
        let value = |key: &str| {
            let mut lines = shown.lines().filter_map(|line| line.split_once('='));
            lines.find_map(|(name, value)| (name == key).then_some(value)).unwrap_or_default()
        };
        (value("LoadState") == "loaded").then(|| Self {
            active: value("ActiveState").to_owned(),
            enabled: value("UnitFileState").to_owned(),
            exit_code: value("ExecMainStatus").parse().unwrap_or_default(),
            restarts: value("NRestarts").parse().unwrap_or_default(),
            sockets: vec![],
        })
    }
}

/// The ports of active socket units in a list of `systemctl list-units`.
fn ports(list: &str) -> Vec<u16> {
    let port = |line: &str| {
        let mut words = line.split_whitespace();
        let port =
            words.next()?.strip_prefix("deltapush@")?.strip_suffix(".socket")?.parse().ok()?;
        (words.nth(1)? == "active").then_some(port)
    };
    list.lines().filter_map(port).collect()
}

/// Runs `systemctl` with a request that may start, stop, enable or disable units, and waits until it is done.
///
/// # Errors
/// The words of `systemctl`, or why it cannot be run.
pub(in super::super) async fn systemctl(arguments: &[&str]) -> Result<(), String> {
    let output = run("systemctl", arguments, STARTED).await;
    let output = output.map_err(|error| format!("systemctl cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().next().unwrap_or("systemctl failed").to_owned())
}

/// The last messages of deltapush in the journal, of its present or last run.
pub(in super::super) async fn last_words() -> Vec<String> {
    let arguments =
        ["--unit", SERVICE, "--lines", LINES, "--output", "cat", "--no-pager", "--quiet"];
    let text = asked("journalctl", &arguments).await.unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The version of systemd.
pub(in super::super) async fn version() -> Option<String> {
    let text = asked("systemctl", &["--version"]).await?;
    text.lines().next()?.split_whitespace().nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_read_by_name() {
        let shown = "NRestarts=3\nExecMainStatus=78\nLoadState=loaded\nActiveState=failed\nUnitFileState=enabled\n";
        let facts = UnitFacts::parse(shown).unwrap();
        assert_eq!((facts.active.as_str(), facts.enabled.as_str()), ("failed", "enabled"));
        assert_eq!((facts.exit_code, facts.restarts), (78, 3));
        assert_eq!(UnitFacts::parse("LoadState=not-found\nActiveState=inactive\n"), None);
    }

    #[test]
    fn ports_are_those_of_active_sockets() {
        let list = "deltapush@443.socket loaded active listening Port 443 of deltapush\n\
                    deltapush@993.socket loaded failed failed Port 993 of deltapush\n\
                    other.socket loaded active listening x\n";
        assert_eq!(ports(list), [443]);
    }

    #[test]
    fn service_unit_reads_the_configuration() {
        let unit = include_str!("../../../contrib/systemd/deltapush.service");
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        assert!(start.ends_with(&format!("deltapush --config {SERVICE_CONFIG}")), "{start}");
        assert!(
            is_of_service(Path::new(SERVICE_CONFIG)) && !is_of_service(Path::new("config.yaml"))
        );
    }
}
