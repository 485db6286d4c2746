//! Docker and Podman on the VPS, with their files and sockets in a folder of the test's own.

use std::env;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::first_evening::vps::Vps;
use crate::support::poll;

/// The archive of the image for this machine.
const IMAGE: &str = "DELTAPUSH_IMAGE";
/// The folder with Debian's packages of Docker, unpacked.
const DOCKER: &str = "DELTAPUSH_DOCKER";

/// A Debian with mail servers and a load balancer, as a tar.
const SERVERS: &str = "DELTAPUSH_SERVERS";

/// The daemon. It ends with the namespace, and its containers with it.
pub(super) struct Docker {
    _daemon: Child,
    log: PathBuf,
    data: PathBuf,
}

fn given(variable: &str) -> PathBuf {
    let path =
        env::var_os(variable).unwrap_or_else(|| panic!("{variable}: run scripts/test-image"));
    fs::canonicalize(path).unwrap()
}

/// The name of the image's archive in the release.
pub(super) fn archive() -> String {
    format!("deltapush-{}-image-amd64.tar", env!("CARGO_PKG_VERSION"))
}

/// Puts the release's archive into a folder.
pub(super) fn take_archive(folder: &Path) {
    symlink(given(IMAGE), folder.join(archive())).unwrap();
}

/// Makes an image `servers` of a Debian.
pub(super) fn import_servers(vps: &Vps) {
    let tar = given(SERVERS);
    vps.expect(&format!("docker import {} servers", tar.display()));
}

impl Docker {
    /// Starts the daemon, and makes `docker` a command of the VPS.
    pub(super) async fn start(vps: &Vps, folder: &Path) -> Self {
        let programs = given(DOCKER).join("usr");
        let plugins = folder.join("docker-config/cli-plugins");
        fs::create_dir_all(&plugins).unwrap();
        symlink(
            programs.join("libexec/docker/cli-plugins/docker-compose"),
            plugins.join("docker-compose"),
        )
        .unwrap();
        let [programs_bin, programs_sbin] = ["bin", "sbin"].map(|name| programs.join(name));
        command(
            "docker",
            &format!(
                "DOCKER_CONFIG={} exec {} \"$@\"",
                folder.join("docker-config").display(),
                programs_bin.join("docker").display()
            ),
        );
        let (log, data) = (folder.join("dockerd.log"), folder.join("docker"));
        let path = format!(
            "PATH={}:{}:/usr/sbin:/usr/bin:/sbin:/bin",
            programs_bin.display(),
            programs_sbin.display()
        );
        let mut daemon = vps.program("env");
        daemon.arg(path).arg("dockerd").arg("--data-root").arg(&data);
        daemon.arg("--exec-root").arg(folder.join("docker-exec"));
        let output = File::create(&log).unwrap();
        daemon.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let docker = Self { _daemon: daemon.spawn().unwrap(), log, data };
        let is_up = || vps.begin("docker info").wait_with_output().unwrap().status.success();
        assert!(poll(Duration::from_secs(40), is_up).await, "no Docker");
        docker
    }

    /// The files of a volume.
    pub(super) fn volume(&self, name: &str) -> PathBuf {
        self.data.join("volumes").join(name).join("_data")
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- Docker's log\n{}---", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// Limits that any machine has, and the network program that is installed with Debian 12's Podman.
const PODMAN: &str = "[containers]
default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]
[network]
network_backend = \"netavark\"
";

/// Makes `podman` a command that has its files in the folder. No systemd runs here, which it would ask for control groups.
pub(super) fn make_podman(folder: &Path) {
    fs::create_dir_all("/etc/containers").unwrap();
    fs::write("/etc/containers/containers.conf", PODMAN).unwrap();
    let [root, run] = ["podman", "podman-run"].map(|name| folder.join(name).display().to_string());
    let options = "--runtime runc --cgroup-manager cgroupfs";
    let line = format!("exec /usr/bin/podman --root {root} --runroot {run} {options} \"$@\"");
    command("podman", &line);
}

/// A command of the VPS: a line of a shell script.
fn command(name: &str, line: &str) {
    let path = Path::new("/usr/local/bin").join(name);
    fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
}
