//! `deltapush news`: the command that a mail server's pipe runs. It must end in time, and never hold up or fail a delivery.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::support::deltapush::{Deltapush, Options};

/// Nobody's number.
const OTHER: &str = "65534";
/// The user without the right to read a state, and no news of UIDs.
const AS_OTHER: [&str; 6] = ["setpriv", "--reuid", OTHER, "--regid", OTHER, "--clear-groups"];
const MESSAGE: &[u8] = b"From: bob@elsewhere.test\nSubject: hi\n\nbody\n";
/// The time for which a delivery would wait for a process that cannot end by itself.
const BOUND: Duration = Duration::from_secs(20);

/// A deltapush with a socket for news that other users can reach.
fn listening() -> Deltapush {
    let more = "news:\n  socket: news.sock\n".to_owned();
    let routes = "  - {domain: news.test, upstream: \"imap+plain://127.0.0.1:9\", news: server}\n";
    let options = Options { more, routes: Some(routes.to_owned()), ..Options::plain(9) };
    let deltapush = Deltapush::start(&options);
    fs::set_permissions(deltapush.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    deltapush
}

/// `deltapush news` with these arguments, under way; a prefix runs it.
fn start(prefix: &[&str], arguments: &[&str]) -> Child {
    // Opened as root: others need not reach its folder.
    let script = "exec 3<\"$0\"; exec \"$@\"";
    Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_deltapush")])
        .args(prefix)
        .args(["/proc/self/fd/3", "news"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs it with this on standard input, which it must take without an error of the writer.
fn tell(prefix: &[&str], arguments: &[&str], input: &[u8]) -> Output {
    let mut child = start(prefix, arguments);
    child.stdin.take().unwrap().write_all(input).expect("the writer of the message failed");
    child.wait_with_output().unwrap()
}

fn socket(folder: &Path) -> String {
    folder.join("news.sock").display().to_string()
}

#[track_caller]
fn expect(output: &Output, code: i32, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(words) && output.stdout.is_empty(), "no {words:?} in {output:?}");
    assert_eq!(words.is_empty(), text.is_empty(), "{text}");
}

#[test]
fn every_user_of_the_machine_may_tell_and_do_nothing_else() {
    let deltapush = listening();
    let socket = socket(deltapush.dir());
    let arguments = ["alice@news.test", "--socket", &socket];
    expect(&tell(&AS_OTHER, &arguments, MESSAGE), 0, "");
    expect(&tell(&[], &arguments, MESSAGE), 0, "");
    let control = deltapush.dir().join("state/control.sock").display().to_string();
    let refused = tell(&AS_OTHER, &["alice@news.test", "--socket", &control], MESSAGE);
    expect(&refused, 77, "set `news.socket`");
    expect(&tell(&[], &["alice@news.test", "--socket", &control], MESSAGE), 0, "");
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
}

#[test]
fn owner_needs_no_socket_of_its_own() {
    let mut deltapush = Deltapush::start(&Options::plain(9));
    let config = deltapush.dir().join("config.yaml").display().to_string();
    let told = tell(&[], &["alice@news.test", "--config", &config], MESSAGE);
    expect(&told, 0, "");
    let told = tell(&[], &["alice@news.test", "--uid", "0", "--config", &config], b"");
    expect(&told, 65, "positive numbers");
    let told = tell(&[], &[&"a".repeat(9000), "--config", &config], b"");
    expect(&told, 65, "too long");
    assert!(deltapush.terminate().success());
    let told = tell(&[], &["alice@news.test", "--config", &config], MESSAGE);
    expect(&told, 75, "deltapush does not run");
    let told = tell(&[], &["alice@news.test", "--never-fail", "--config", &config], MESSAGE);
    expect(&told, 0, "deltapush does not run");
}

#[test]
fn token_is_printed_with_the_line_of_its_hash() {
    let made = tell(&[], &["--make-token"], b"");
    assert!(made.status.success(), "{made:?}");
    let text = String::from_utf8(made.stdout).unwrap();
    let token = text.lines().nth(1).unwrap();
    let line = text.lines().last().unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    let hash: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(line, format!("    - hash: \"sha256:{hash}\""));
    let more = format!("news:\n  listen: 127.0.0.1:0\n  tokens:\n{line}\n");
    let deltapush = Deltapush::start(&Options { more, ..Options::plain(9) });
    assert!(!deltapush.log().contains(token));
}

#[test]
fn whole_message_is_taken() {
    let deltapush = listening();
    let socket = socket(deltapush.dir());
    let arguments = ["alice@news.test", "--socket", &socket];
    let large = [MESSAGE, &vec![b'x'; 20 << 20]].concat();
    expect(&tell(&[], &arguments, &large), 0, "");
    let long_header = [&b"A: "[..], &vec![b'x'; 1 << 20], b"\n\n", &large].concat();
    expect(&tell(&[], &arguments, &long_header), 0, "");
    expect(&tell(&[], &arguments, b""), 0, "");
    expect(&tell(&[], &arguments, b"\xff\0\xfe"), 0, "");
}

/// Waits, and fails after a time at which a delivery would have been held up.
fn ends_in_time(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(start.elapsed() < BOUND, "it does not end");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn delivery_waits_no_longer_than_the_limit() {
    let deltapush = listening();
    let socket = socket(deltapush.dir());
    let limited = ["alice@news.test", "--socket", &socket, "--timeout", "2s"];
    // Standard input that does not end, with and without the end of a header.
    let mut silent = start(&[], &limited);
    let input = silent.stdin.take().unwrap();
    assert_eq!(ends_in_time(&mut silent).code(), Some(75));
    drop(input);
    let began = Instant::now();
    let mut slow = start(&[], &limited);
    let mut input = slow.stdin.take().unwrap();
    input.write_all(MESSAGE).unwrap();
    assert_eq!(ends_in_time(&mut slow).code(), Some(0), "the news itself was accepted");
    assert!(began.elapsed() >= Duration::from_secs(2), "it did not read on");
    drop(input);

    // A deltapush that hangs.
    deltapush.signal("STOP");
    let mut hung = start(&[], &limited);
    hung.stdin.take().unwrap().write_all(MESSAGE).unwrap();
    assert_eq!(ends_in_time(&mut hung).code(), Some(75));
    let text = io::read_to_string(hung.stderr.take().unwrap()).unwrap();
    assert!(text.contains("deltapush did not answer within"), "{text}");
    let mut ignored = start(&[], &[&limited[..], &["--never-fail"]].concat());
    ignored.stdin.take().unwrap().write_all(MESSAGE).unwrap();
    assert_eq!(ends_in_time(&mut ignored).code(), Some(0));
    deltapush.signal("CONT");
    expect(&tell(&[], &limited[..3], MESSAGE), 0, "");
}

#[test]
fn deliveries_of_a_burst_are_all_told() {
    let deltapush = listening();
    let socket = socket(deltapush.dir());
    let told: Vec<Child> = (0..200)
        .map(|number| {
            let name = format!("user{number}@news.test");
            let mut child = start(&[], &[&name, "--socket", &socket, "--timeout", "30s"]);
            child.stdin.take().unwrap().write_all(MESSAGE).unwrap();
            child
        })
        .collect();
    for child in told {
        expect(&child.wait_with_output().unwrap(), 0, "");
    }
}

#[test]
fn socket_comes_back_with_a_restart() {
    let mut deltapush = listening();
    let socket = socket(deltapush.dir());
    let arguments = ["alice@news.test", "--socket", &socket];
    deltapush.kill();
    expect(&tell(&[], &arguments, MESSAGE), 75, "nothing listens");
    deltapush.start_again();
    expect(&tell(&[], &arguments, MESSAGE), 0, "");
    assert!(deltapush.terminate().success());
    assert!(!Path::new(&socket).exists(), "left behind");
}
