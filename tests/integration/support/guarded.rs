//! A server run by a shell that outlives nobody: it ends when the test process does, whatever ends that.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a script in a process group of its own until standard input ends, then ends the group, and takes the folder away
/// unless the input was `keep`.
const GUARD: &str = r#"
    trap : INT
    cd "$1"
    setsid sh -c "$0" >>log 2>&1 </dev/null & group=$!
    said=$(cat)
    kill -- "-$group" 2>/dev/null
    for moment in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        kill -s 0 -- "-$group" 2>/dev/null || break
        sleep 0.1
    done
    kill -s KILL -- "-$group" 2>/dev/null
    # Killed processes may still be writing.
    [ "$said" = keep ] || rm -rf "$1" 2>/dev/null || { sleep 0.5; rm -rf "$1"; }
"#;

/// Time limit for a server's end: two seconds by itself, then it is killed.
const PATIENCE: Duration = Duration::from_secs(15);

/// A script under way, with what it started.
pub(crate) struct Guarded {
    guard: Child,
}

impl Guarded {
    /// Runs `script` with `dir` as its folder; what it prints goes to the file `log` there.
    pub(crate) fn start(script: &str, dir: &Path) -> Self {
        let guard = Command::new("sh")
            .args(["-c", GUARD, script])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        Self { guard: guard.unwrap() }
    }

    /// Ends the script and all that it started; the folder stays.
    pub(crate) fn stop(&mut self) {
        self.guard.stdin.as_mut().unwrap().write_all(b"keep").unwrap();
        assert!(self.end(), "the server does not end");
    }

    fn end(&mut self) -> bool {
        drop(self.guard.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if !matches!(self.guard.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.end();
    }
}
