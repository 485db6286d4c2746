//! `deltapush trace`: follows the protocol of running sessions; prints and anonymizes trace files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use crate::admin::control::{self, AskError};
use crate::admin::question::{AskedSide, AskedTrace, ControlQuestion};
use crate::file_access::explain;
use crate::printable::has_colours;
use crate::trace::export::{Export, ExportTooLong};
use crate::trace::{MalformedLine, Record, Renderer, SessionId};

/// Arguments of `deltapush trace`.
#[derive(Args, Clone)]
pub struct TraceTask {
    /// Show only sessions of accounts with this login name, including the part before the login
    #[arg(long, value_name = "NAME", conflicts_with = "session")]
    account: Option<String>,
    /// Show only this session, by its ID in trace and log: 7 (or '#7') for a client's, watch-7 for one of
    /// deltapush's own
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    /// Show only one side: between client and deltapush, or between deltapush and the mail server
    #[arg(long, value_enum)]
    side: Option<TraceSide>,
    /// Show literals too (mostly messages); never secrets
    #[arg(long)]
    literals: bool,
    /// Print JSON Lines, the input of `export`
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Option<TraceCommand>,
}

#[derive(Subcommand, Clone)]
enum TraceCommand {
    /// Print a trace file (JSON Lines) in readable form
    Show {
        /// Trace file; - for standard input
        file: PathBuf,
    },
    /// Anonymize a trace file (JSON Lines): addresses, subjects and the names of people and hosts are replaced, each
    /// by the same word everywhere
    Export {
        /// Trace file; - for standard input
        file: PathBuf,
        /// Output file, which must not exist yet; default: standard output
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

/// One side of a session.
#[derive(ValueEnum, Clone, Copy)]
enum TraceSide {
    Client,
    Upstream,
}

impl From<TraceSide> for AskedSide {
    fn from(side: TraceSide) -> Self {
        match side {
            TraceSide::Client => Self::Client,
            TraceSide::Upstream => Self::Upstream,
        }
    }
}

/// Failure to follow, read or write a trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// No running deltapush answers, or it refused.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The deltapush that was followed has ended.
    #[error("deltapush has ended, and the trace with it")]
    Ended,
    /// A file cannot be read or created.
    #[error("{}: {}", path.display(), explain(path, error))]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The input is not a trace.
    #[error("line {line}: {error}")]
    Malformed {
        /// The line.
        line: u64,
        /// The problem.
        error: MalformedLine,
    },
    /// The input is too large to be exported.
    #[error(transparent)]
    TooLong(#[from] ExportTooLong),
}

impl TraceTask {
    /// True to follow a running deltapush, which the configuration locates.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.command.is_none()
    }
}

/// Follows the deltapush that has its state in `directory`, until it ends, or the session that was asked for does.
///
/// # Errors
/// If none runs there, or there is no such session; when deltapush ends, unless one session was asked for.
pub fn follow(asked: &TraceTask, directory: &Path) -> Result<(), TraceError> {
    let question = ControlQuestion::Trace(AskedTrace {
        account: asked.account.clone(),
        session: asked.session.map(|session| session.to_string()),
        side: asked.side.map(Into::into),
        literals: asked.literals,
    });
    let mut answer = BufReader::new(control::ask(directory, &question)?);
    if io::stderr().is_terminal() {
        writeln!(io::stderr(), "following the protocol from now on; press Ctrl-C to stop")?;
    }
    let mut renderer = renderer();
    if asked.account.is_some() {
        renderer = renderer.of_one_account();
    }
    let mut out = io::stdout().lock();
    let told = each(&mut answer, |record| {
        let line = if asked.json { record.to_json() + "\n" } else { renderer.render(&record) };
        Ok(out.write_all(line.as_bytes()).and_then(|()| out.flush())?)
    });
    unless_nobody_reads(told.and_then(|()| report_end(asked.session)))
}

/// The end of the trace: with deltapush, or with the one session that was asked for.
fn report_end(session: Option<SessionId>) -> Result<(), TraceError> {
    let Some(session) = session else { return Err(TraceError::Ended) };
    if io::stderr().is_terminal() {
        writeln!(io::stderr(), "session {session} has ended")?;
    }
    Ok(())
}

/// Executes the action on a trace file.
///
/// # Errors
/// If a file cannot be read or made, or is no trace.
pub fn work_on_file(asked: &TraceTask) -> Result<(), TraceError> {
    unless_nobody_reads(match &asked.command {
        None => Ok(()),
        Some(TraceCommand::Show { file }) => show(file),
        Some(TraceCommand::Export { file, to }) => export(file, to.as_deref()),
    })
}

/// The reader may have closed the pipe, as `head` does.
fn unless_nobody_reads(done: Result<(), TraceError>) -> Result<(), TraceError> {
    match done {
        Err(TraceError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

fn show(file: &Path) -> Result<(), TraceError> {
    let (mut renderer, mut out) = (renderer(), io::stdout().lock());
    each(&mut BufReader::new(input(file)?), |record| {
        Ok(out.write_all(renderer.render(&record).as_bytes())?)
    })
}

fn renderer() -> Renderer {
    Renderer::new().colours(has_colours(&io::stdout()))
}

fn export(file: &Path, to: Option<&Path>) -> Result<(), TraceError> {
    let mut export = Export::default();
    each(&mut BufReader::new(input(file)?), |record| Ok(export.take(record)?))?;
    let mut out: Box<dyn Write> = match to {
        None => Box::new(io::stdout().lock()),
        Some(path) => {
            let made = File::options().write(true).create_new(true).open(path);
            Box::new(BufWriter::new(
                made.map_err(|error| TraceError::File { path: path.to_owned(), error })?,
            ))
        }
    };
    for record in export.finish() {
        writeln!(out, "{}", record.to_json())?;
    }
    Ok(out.flush()?)
}

fn input(file: &Path) -> Result<Box<dyn Read>, TraceError> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    let opened =
        File::open(file).map_err(|error| TraceError::File { path: file.to_owned(), error })?;
    Ok(Box::new(opened))
}

/// The longest line of a trace: literals and lines are bounded, and escaped at worst.
const MAX_LINE: u64 = 4 << 20;

fn each(
    input: &mut impl BufRead,
    mut each: impl FnMut(Record) -> Result<(), TraceError>,
) -> Result<(), TraceError> {
    let mut number: u64 = 0;
    loop {
        let mut line = Vec::new();
        if (&mut *input).take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        number += 1;
        if !line.trim_ascii().is_empty() {
            let text = String::from_utf8_lossy(&line);
            each(
                Record::from_json(text.trim())
                    .map_err(|error| TraceError::Malformed { line: number, error })?,
            )?;
        }
    }
}
