//! Namespaces of a test's own: it runs once more in another process, with a network, mounts and processes that nobody else
//! has. The files that the page changes are private there.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The variable with the folder that the process outside has made for the one inside.
const FOLDER: &str = "DELTAPUSH_NAMESPACE";
/// The file there with the mount namespace of the process outside.
const OUTSIDE: &str = "outside";
/// The time after which the process inside is killed, in seconds.
const TIME_LIMIT: &str = "300";

/// Units, scripts and mounts that this machine starts by itself.
const OWN_STARTS: [&str; 9] = [
    "etc/systemd/system",
    "etc/fstab",
    "etc/crypttab",
    "etc/init.d",
    "etc/rc2.d",
    "etc/rc3.d",
    "etc/rc4.d",
    "etc/rc5.d",
    "etc/rcS.d",
];

/// Units that would change this machine, or look for a terminal.
const MASKED: [&str; 7] = [
    "systemd-sysctl.service",
    "systemd-binfmt.service",
    "systemd-modules-load.service",
    "systemd-tmpfiles-setup.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-udevd.service",
    "getty.target",
];

/// Runs a test of this program inside, and expects it to pass.
pub(crate) fn run_inside(test: &str) {
    let folder = tempfile::Builder::new().prefix("deltapush-namespace-").tempdir().unwrap();
    fs::write(folder.path().join(OUTSIDE), mount_namespace()).unwrap();
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", TIME_LIMIT, "unshare"]);
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
        "the test inside has not passed: {}; namespaces, and a systemd in them, take root",
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

/// Makes a root that begins as a copy of this machine's, in `folder`, which is a file system of the namespace. Nothing that this
/// machine starts by itself is started there.
pub(super) fn copy_of_this_machine(folder: &Path) -> PathBuf {
    let [root, upper, work] = ["root", "upper", "work"].map(|name| folder.join(name));
    for folder in [&root, &upper, &work] {
        fs::create_dir(folder).unwrap();
    }
    let layers = format!("lowerdir=/,upperdir={},workdir={}", path(&upper), path(&work));
    run("mount", &["-t", "overlay", "-o", &layers, "overlay", path(&root)]);
    for start in OWN_STARTS {
        // Some are missing, and some are folders.
        let start = root.join(start);
        let _ = fs::remove_file(&start).or_else(|_| fs::remove_dir_all(&start));
    }
    let units = root.join("etc/systemd/system");
    fs::create_dir_all(&units).unwrap();
    for unit in MASKED {
        symlink("/dev/null", units.join(unit)).unwrap();
    }
    root
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
