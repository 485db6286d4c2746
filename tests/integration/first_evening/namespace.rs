//! Namespaces of a test's own: it runs once more in another process, with a network, mounts and processes that nobody else
//! has. The files that the page changes are private there.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The variable with the folder that the process outside has made for the one inside.
const FOLDER: &str = "DELTAPUSH_NAMESPACE";
/// The file there with the mount namespace of the process outside.
const OUTSIDE: &str = "outside";
/// The time after which the process inside is killed, in seconds.
const TIME_LIMIT: &str = "300";

/// Runs a test of this program inside, and expects it to pass.
pub(crate) fn run_inside(test: &str) {
    let folder = tempfile::Builder::new().prefix("deltapush-namespace-").tempdir().unwrap();
    fs::write(folder.path().join(OUTSIDE), mount_namespace()).unwrap();
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", TIME_LIMIT, "unshare"]);
    if !rustix::process::geteuid().is_root() {
        // Users besides this one take newuidmap, of the Debian package uidmap.
        command.args(["--map-root-user", "--map-auto"]);
    }
    // Killed with the process outside, and all others that it has started with it.
    command.args(["--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]);
    command.arg(env::current_exe().unwrap()).args([
        test,
        "--exact",
        "--include-ignored",
        "--nocapture",
    ]);
    let output = command.env(FOLDER, folder.path()).output().unwrap();
    let [text, error] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    // Shown if the test fails.
    eprintln!("--- inside\n{text}\n{error}---");
    // Without the test's name the program would pass with no test.
    let has_passed = output.status.success() && text.contains("test result: ok. 1 passed");
    assert!(
        has_passed,
        "the test inside has not passed: {}; namespaces take root, or newuidmap and a kernel that lets users have them",
        output.status
    );
}

/// The folder for the process inside; `None` outside.
pub(crate) fn folder() -> Option<PathBuf> {
    let folder = PathBuf::from(env::var_os(FOLDER)?);
    let outside = fs::read_to_string(folder.join(OUTSIDE)).unwrap();
    assert_ne!(outside, mount_namespace(), "{FOLDER} is for the process inside only");
    Some(folder)
}

fn mount_namespace() -> String {
    fs::read_link("/proc/self/ns/mnt").unwrap().display().to_string()
}

/// Makes private what the page's commands write: /etc, and what they add to other folders, whose files can be read. The machine
/// looks like one that systemd has started. `folder` is hidden by a file system that ends with the namespace.
pub(crate) fn make_files_private(folder: &Path) {
    run("mount", &["-t", "tmpfs", "-o", "mode=755", "tmpfs", path(folder)]);
    let etc = folder.join("etc");
    fs::create_dir(&etc).unwrap();
    // Fails for files that this user may not read. A layer above them would not be enough: the page's commands change files.
    let _ = Command::new("cp").args(["-a", "/etc/.", path(&etc)]).output().unwrap();
    fs::create_dir_all(etc.join("systemd/system")).unwrap();
    run("mount", &["--bind", path(&etc), "/etc"]);
    for (number, covered) in ["/usr/local/bin", "/var/lib"].into_iter().enumerate() {
        let [upper, work] = ["upper", "work"].map(|name| folder.join(format!("{name}{number}")));
        for folder in [&upper, &work] {
            fs::create_dir(folder).unwrap();
        }
        let layers =
            format!("lowerdir={covered},upperdir={},workdir={}", path(&upper), path(&work));
        run("mount", &["-t", "overlay", "-o", &layers, "overlay", covered]);
    }
    // As where systemd runs: sd_booted(3).
    run("mount", &["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"]);
    fs::create_dir_all("/run/systemd/system").unwrap();
}

/// Runs a program, which must succeed.
#[track_caller]
pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; run scripts/test once"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
