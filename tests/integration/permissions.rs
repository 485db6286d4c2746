//! Commands as another user than deltapush's: each refusal names the owner, the mode, and the user to run as. Takes root's right
//! to become another user.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::support::deltapush::{Deltapush, Options};

/// A user and group without a name.
const OWNER: u32 = 61_000;
/// Nobody's number and name in Debian.
const OTHER: u32 = 65_534;

/// Runs the program as a user. It is opened before, so that the user need not reach its folder.
fn run_as(user: u32, folder: &Path, arguments: &[&str]) -> Output {
    let user = user.to_string();
    Command::new("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups", "/proc/self/fd/0"])
        .arg("--config")
        .arg(folder.join("config.yaml"))
        .args(arguments)
        .stdin(Stdio::from(File::open(env!("CARGO_BIN_EXE_deltapush")).unwrap()))
        .output()
        .unwrap()
}

fn give(path: &Path, owner: u32, mode: u32) {
    chown(path, Some(owner), Some(owner))
        .expect("these tests become other users: run them as root");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The data of a deltapush that ran once, as another user's, in a folder that everybody can enter.
fn data() -> (tempfile::TempDir, PathBuf) {
    let mut proxy = Deltapush::start(&Options::plain(9));
    assert!(proxy.terminate().success());
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["certs", "state"] {
        let to = folder.path().join(name);
        fs::create_dir(&to).unwrap();
        for entry in fs::read_dir(proxy.dir().join(name)).unwrap() {
            let from = entry.unwrap().path();
            if from.is_file() {
                let copy = to.join(from.file_name().unwrap());
                fs::copy(&from, &copy).unwrap();
                give(&copy, OWNER, 0o600);
            }
        }
        give(&to, OWNER, 0o700);
    }
    fs::copy(proxy.dir().join("config.yaml"), folder.path().join("config.yaml")).unwrap();
    give(&folder.path().join("config.yaml"), OWNER, 0o644);
    let path = folder.path().to_owned();
    (folder, path)
}

/// Runs a command that must be refused access, with this exit code, because of `what`; nothing else is advised.
#[track_caller]
fn expect_refusal(folder: &Path, arguments: &[&str], code: i32, what: &str) {
    let output = run_as(OTHER, folder, arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    for expected in [
        what,
        "Permission denied",
        "and deltapush runs as nobody",
        &format!("run it as {OWNER} (`sudo -u {OWNER} deltapush …`) or as root"),
    ] {
        assert!(text.contains(expected), "{arguments:?}: no {expected:?} in {text}");
    }
    for wrong in ["backup", "remove", "there is no", "no deltapush runs", "--config FILE"] {
        assert!(!text.contains(wrong), "{arguments:?}: {wrong:?} in {text}");
    }
}

#[test]
fn refused_access_names_owner_mode_and_user() {
    let (_guard, folder) = data();
    let closed = |name: &str| {
        format!(
            "the folder {} belongs to {OWNER} (group {OWNER}, mode 0700)",
            folder.join(name).display()
        )
    };
    expect_refusal(&folder, &["check"], 78, &closed("certs"));
    expect_refusal(&folder, &["state", "check"], 74, &closed("state"));
    expect_refusal(&folder, &["state", "backup", "/tmp/never"], 74, &closed("state"));
    expect_refusal(&folder, &["status"], 69, &closed("state"));

    // The folders are open, the files are not.
    give(&folder.join("state"), OWNER, 0o755);
    give(&folder.join("certs"), OWNER, 0o755);
    let own = format!("it belongs to {OWNER} (group {OWNER}, mode 0600)");
    expect_refusal(
        &folder,
        &["check"],
        78,
        &format!("localhost.key.pem: cannot be read: Permission denied (os error 13): {own}"),
    );
    expect_refusal(&folder, &["state", "check"], 74, &own);
    fs::write(folder.join("state/control.sock"), "").unwrap();
    give(&folder.join("state/control.sock"), OWNER, 0o600);
    expect_refusal(&folder, &["status"], 69, &own);

    give(&folder.join("config.yaml"), OWNER, 0o600);
    expect_refusal(&folder, &["check"], 78, &own);
}

#[test]
fn owner_is_let_in() {
    let (_guard, folder) = data();
    for arguments in [&["check"][..], &["state", "check"]] {
        let output = run_as(OWNER, &folder, arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn start_with_files_of_root_names_them() {
    let (_guard, folder) = data();
    for (name, code) in [
        ("state/state.sqlite", 74),
        ("state/seal.key", 74),
        ("state/lock", 74),
        ("certs/localhost.key.pem", 78),
    ] {
        give(&folder.join(name), 0, 0o600);
        let output = run_as(OWNER, &folder, &["run"]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{name}: {text}");
        assert!(
            text.contains(name)
                && text.contains("it belongs to root (group root, mode 0600)")
                && text.contains("run it as root, or give 61000 access"),
            "{name}: {text}"
        );
        give(&folder.join(name), OWNER, 0o600);
    }
}

#[test]
fn trace_folder_that_is_closed_is_named() {
    let (_guard, folder) = data();
    let path = folder.join("config.yaml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text + "\ntrace:\n  directory: /root/of-deltapush\n").unwrap();
    let output = run_as(OWNER, &folder, &["run"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("/root/of-deltapush: Permission denied"), "{text}");
    assert!(text.contains("the folder /root belongs to root"), "{text}");
}
