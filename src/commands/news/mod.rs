//! `deltapush news`: the mail server tells of a new message. The delivery of the message waits for it, so it takes milliseconds,
//! without a runtime, and without the configuration where the socket is in its usual place; and it never takes longer than its
//! time limit.

mod header;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;

use super::{CommandError, Fault};
use crate::admin::control::{self, AskError, NEWS_SOCKET};
use crate::admin::question::{AskedNews, NewsAnswer, NewsRefusal};
use crate::config::{Config, NewsToken};

/// The longest name of an account or a mailbox, in bytes.
const MAX_NAME: usize = 1024;

/// The longest time limit: no delivery waits longer.
const LONGEST: Duration = Duration::from_secs(60);

/// Arguments of `deltapush news`.
#[derive(Debug, Clone, Args)]
pub struct NewsArguments {
    /// The account: its user at the mail server, or one of its addresses
    #[arg(value_name = "ADDRESS", required_unless_present = "make_token")]
    address: Option<String>,
    /// Mailbox of the message, if it is not INBOX
    #[arg(long, value_name = "NAME")]
    mailbox: Option<String>,
    /// UID of the message; counts from root and the user of deltapush only
    #[arg(long)]
    uid: Option<u64>,
    /// UIDVALIDITY of the mailbox
    #[arg(long, requires = "uid")]
    uidvalidity: Option<u64>,
    /// Sender of the message, in place of a message on standard input
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// Socket of deltapush [default: /run/deltapush/news.sock, else the one of the configuration]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Time limit, at most 60s
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time_limit)]
    timeout: Duration,
    /// Exit with 0 also where the news is not accepted, so that a delivery goes on; the reason is on standard error
    #[arg(long)]
    pub never_fail: bool,
    /// Make a token for the hook; print it, and the line for `news.tokens` in the configuration
    #[arg(long, conflicts_with_all = ["address", "mailbox", "uid", "from", "socket", "never_fail"])]
    make_token: bool,
}

fn time_limit(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if !time.is_zero() && time <= LONGEST => Ok(time),
        _ => Err("write it as `2s` or `500ms`, at most `60s`".to_owned()),
    }
}

/// A step of the thread that may have to wait: for standard input, for deltapush, for the end of standard input.
enum Step {
    HeaderRead,
    Told(Result<NewsAnswer, CommandError>),
    InputEnded,
}

/// Tells the running deltapush. `load` reads the configuration where the socket is not in its usual place, or `is_config_named`.
///
/// # Errors
/// [`CommandError`] if the news is not accepted.
pub fn run(
    asked: &NewsArguments,
    is_config_named: bool,
    load: impl FnOnce() -> anyhow::Result<Config>,
) -> anyhow::Result<()> {
    if asked.make_token {
        return make_token();
    }
    let end = Instant::now() + asked.timeout;
    let names = asked.address.iter().chain(&asked.mailbox);
    let has_long_name = names.into_iter().any(|name| name.len() > MAX_NAME);
    if has_long_name {
        return Err(Fault::Data
            .because("the name of the account or the mailbox is too long")
            .into());
    }
    let socket = socket(asked, is_config_named, load)?;
    let (steps, received) = mpsc::channel();
    let news = AskedNews {
        mailbox: asked.mailbox.clone().unwrap_or_default(),
        uid: asked.uid,
        uid_validity: asked.uidvalidity,
        from: asked.from.clone(),
        ..AskedNews::of(asked.address.as_deref().unwrap_or_default())
    };
    let has_message = asked.from.is_none() && asked.uid.is_none() && !io::stdin().is_terminal();
    // It ends with the process if it takes too long.
    let work = move || work(&socket, news, has_message, &steps);
    thread::Builder::new().spawn(work).context("cannot start a thread")?;
    await_end(&received, end, asked.timeout)
}

/// Prints a token. It is stored nowhere: the configuration has its hash only.
fn make_token() -> anyhow::Result<()> {
    let (token, hash) = NewsToken::make().context("cannot make a token")?;
    super::print(&format!(
        "The token, for the mail server; it is not shown again:\n{}\n\nIts line for `news.tokens` in the configuration:\n    - \
         hash: \"{hash}\"\n",
        String::from_utf8_lossy(token.expose())
    ))
}

/// The socket: the named one, the one in the usual place, or the one of the configuration.
fn socket(
    asked: &NewsArguments,
    is_config_named: bool,
    load: impl FnOnce() -> anyhow::Result<Config>,
) -> anyhow::Result<PathBuf> {
    let usual = Path::new(NEWS_SOCKET);
    match &asked.socket {
        Some(socket) => Ok(socket.clone()),
        None if !is_config_named && usual.exists() => Ok(usual.to_owned()),
        None => match load() {
            Ok(Config { startup, .. }) => {
                Ok(startup.news.socket.unwrap_or_else(|| control::path(&startup.storage.directory)))
            }
            Err(error) if is_config_named => Err(error),
            // A pipe of the mail server finds this whenever deltapush does not run.
            Err(_) => Err(nobody_listens(usual).into()),
        },
    }
}

fn work(socket: &Path, news: AskedNews, has_message: bool, steps: &Sender<Step>) {
    let mut input = io::stdin().lock();
    let header = if has_message { header::read(&mut input) } else { Ok(vec![]) };
    // There is nobody to tell after the time limit.
    let _ = steps.send(Step::HeaderRead);
    let told = match header {
        Ok(header) => control::tell(socket, news, &header).map_err(|error| not_told(&error)),
        Err(error) => Err(Fault::System.because(format!("standard input cannot be read: {error}"))),
    };
    let _ = steps.send(Step::Told(told));
    // The program that writes the message must not fail because nobody reads it.
    if has_message {
        let _ = io::copy(&mut input, &mut io::sink());
    }
    let _ = steps.send(Step::InputEnded);
}

fn await_end(steps: &Receiver<Step>, end: Instant, limit: Duration) -> anyhow::Result<()> {
    let next = || steps.recv_timeout(end.saturating_duration_since(Instant::now())).ok();
    let late = |words: &str| {
        Fault::Later.because(format!("{words} within {}", humantime::format_duration(limit)))
    };
    let Some(Step::HeaderRead) = next() else {
        return Err(late(
            "standard input has neither the header of a message nor an end (`</dev/null` for none)",
        )
        .into());
    };
    let Some(Step::Told(told)) = next() else {
        return Err(late("deltapush did not answer").into());
    };
    // Or the time is over: then the writer fails, in place of waiting longer.
    next();
    match told? {
        NewsAnswer::Accepted(words) if io::stdout().is_terminal() => {
            super::print(&(super::printable(&words) + "\n"))
        }
        NewsAnswer::Accepted(_) => Ok(()),
        NewsAnswer::Refused { kind, words } => Err(fault(kind).because(words).into()),
    }
}

fn fault(refusal: NewsRefusal) -> Fault {
    match refusal {
        NewsRefusal::Invalid => Fault::Data,
        NewsRefusal::NotConfigured => Fault::Configuration,
        NewsRefusal::Later => Fault::Later,
    }
}

fn nobody_listens(socket: &Path) -> CommandError {
    Fault::Later.because(format!(
        "nothing listens at {}: deltapush does not run, or `news.socket` in its configuration is another path",
        socket.display()
    ))
}

fn not_told(error: &AskError) -> CommandError {
    match error {
        AskError::NotRunning { error: cause, path } => match cause.kind() {
            io::ErrorKind::PermissionDenied => Fault::Permission.because(format!(
                "{error}; for other users, set `news.socket` in the configuration"
            )),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => nobody_listens(path),
            _ => Fault::Later.because(error.to_string()),
        },
        AskError::No(words) => Fault::Later.because(words.clone()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        news: NewsArguments,
    }

    fn arguments(line: &[&str]) -> Result<NewsArguments, clap::Error> {
        Line::try_parse_from(["news", "alice"].iter().chain(line)).map(|line| line.news)
    }

    #[test]
    fn time_limit_has_a_bound() {
        assert_eq!(arguments(&[]).unwrap().timeout, Duration::from_secs(2));
        assert_eq!(arguments(&["--timeout", "60s"]).unwrap().timeout, LONGEST);
        for wrong in ["61s", "0s", "2", "soon"] {
            assert!(arguments(&["--timeout", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn named_socket_comes_before_that_of_the_configuration() {
        let configured = |text: &str| {
            let config = Config::parse(text, Path::new("/etc/deltapush"), "test").unwrap();
            move || Ok(config)
        };
        let named = arguments(&["--socket", "/tmp/s"]).unwrap();
        let unread = || -> anyhow::Result<Config> { panic!("the configuration is read") };
        assert_eq!(socket(&named, true, unread).unwrap(), Path::new("/tmp/s"));
        let asked = arguments(&[]).unwrap();
        let own = socket(&asked, true, configured("news: {socket: /run/x/news.sock}"));
        assert_eq!(own.unwrap(), Path::new("/run/x/news.sock"));
        let no_configuration = || anyhow::bail!("there is no configuration");
        let down = socket(&asked, false, no_configuration).unwrap_err();
        assert_eq!(down.downcast_ref::<CommandError>().unwrap().fault, Fault::Later);
        assert!(
            socket(&asked, true, no_configuration).unwrap_err().to_string().contains("there is no")
        );
        let control = socket(&asked, true, configured("{}"));
        assert_eq!(control.unwrap(), Path::new("/etc/deltapush/state/control.sock"));
    }

    #[test]
    fn refusals_have_the_codes_of_sysexits() {
        let not_running = |kind: io::ErrorKind| {
            not_told(&AskError::NotRunning { path: "/nonexistent/s".into(), error: kind.into() })
                .fault
        };
        assert_eq!(not_running(io::ErrorKind::PermissionDenied), Fault::Permission);
        assert_eq!(not_running(io::ErrorKind::NotFound), Fault::Later);
        assert_eq!(not_running(io::ErrorKind::UnexpectedEof), Fault::Later);
        assert_eq!(fault(NewsRefusal::Invalid), Fault::Data);
        assert_eq!(fault(NewsRefusal::NotConfigured), Fault::Configuration);
    }
}
