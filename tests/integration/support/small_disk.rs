//! A disk that a test can fill: a tmpfs in a mount namespace of its own, which takes root's right to make one.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// Mounts the disk, and keeps the namespace until standard input ends.
const HOLDER: &str = r#"mkdir -p "$0" && mount -t tmpfs -o "size=$1,mode=700" none "$0" && echo mounted && exec cat"#;

/// The disk. It is gone when this is dropped, or the test process ends.
pub(crate) struct SmallDisk {
    holder: Child,
    /// Its folder, as processes outside of the namespace reach it.
    folder: PathBuf,
    _held: ChildStdin,
}

impl SmallDisk {
    /// Mounts a disk of this size (as in tmpfs(5)) at a folder, for the programs of [`command`](Self::command) alone.
    pub(crate) fn mount(folder: &Path, size: &str) -> Self {
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", HOLDER])
            .arg(folder)
            .arg(size)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let held = holder.stdin.take().unwrap();
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(holder.stdout.take().unwrap()), &mut line)
            .unwrap();
        assert_eq!(line, "mounted\n", "a disk of its own takes root");
        let root = format!("/proc/{}/root", holder.id());
        let folder = Path::new(&root).join(folder.strip_prefix("/").unwrap());
        Self { holder, folder, _held: held }
    }

    /// A program that sees the disk.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.holder.id());
        command.arg(namespace).arg("--").arg(program);
        command
    }

    /// Leaves no room on it.
    pub(crate) fn fill(&self) {
        let mut ballast = fs::File::create(self.ballast()).unwrap();
        let mut piece = vec![0; 64 * 1024];
        while !piece.is_empty() {
            if ballast.write_all(&piece).is_err() {
                piece.truncate(piece.len() / 2);
            }
        }
    }

    /// Makes room again.
    pub(crate) fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline && matches!(self.holder.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
