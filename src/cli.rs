//! The arguments of the command line.

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use deltapush::commands;

/// An IMAP proxy that brings push notifications to Delta Chat on any mail server.
///
/// Delta Chat connects to deltapush in place of its mail server; deltapush passes everything on to that server, takes the push
/// token that Delta Chat hands over, watches the mailbox with IDLE, and notifies the phone when mail arrives.
#[derive(Parser, Clone)]
#[command(version, max_term_width = 100, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Configuration file [default: config.yaml in the current folder; except for `run`, else that of the service,
    /// /etc/deltapush/config.yaml]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    trace: TraceFlag,
    #[command(subcommand)]
    pub(crate) command: Option<MainCommand>,
}

/// The flag of `run`, which may stand before it, too.
#[derive(Args, Clone)]
pub(crate) struct TraceFlag {
    /// Print the protocol of every session on standard output, or write it to files per account in a folder;
    /// passwords and tokens are masked, literals (message bodies) are shown as their size
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    trace: Option<PathBuf>,
}

impl Cli {
    /// The folder of the flag `--trace`, `-` for standard output; `None` without the flag.
    pub(crate) fn trace(&self) -> Option<&Path> {
        let after = match &self.command {
            Some(MainCommand::Run(flag)) => flag.trace.as_deref(),
            _ => None,
        };
        after.or(self.trace.trace.as_deref())
    }

    /// Checks a combination that clap does not know: `--trace` before another command than `run`.
    pub(crate) fn check(&self) -> Result<(), clap::Error> {
        match (&self.trace.trace, &self.command) {
            (None, _) | (_, None | Some(MainCommand::Run(_))) => Ok(()),
            _ => Err(Self::command().error(
                ErrorKind::ArgumentConflict,
                "--trace belongs to `deltapush run`; to follow a running deltapush, use `deltapush trace`",
            )),
        }
    }
}

#[derive(Subcommand, Clone)]
pub(crate) enum MainCommand {
    /// Serve until SIGTERM or SIGINT (Ctrl-C); this is the default
    Run(TraceFlag),
    /// Check the configuration, the files that it names, ports and folders; print the resulting setup, change nothing
    Check {
        /// Show the route of this login, its mail server and the login name used there
        #[arg(long, value_name = "LOGIN")]
        login: Option<String>,
        /// With --login: assume a client of this listener (name or address)
        #[arg(long, value_name = "LISTENER", requires = "login")]
        listener: Option<String>,
        /// With --login: assume a client that requests this name in TLS (SNI)
        #[arg(long, value_name = "NAME", requires = "login")]
        host: Option<String>,
        /// With --login: connect to its mail server, and show what it can do; nobody logs in
        #[arg(long, requires = "login")]
        connect: bool,
    },
    /// Check everything that a push needs: service, DNS name, ports, certificate, mail servers, notification server,
    /// clock, accounts; print what helps
    Doctor(commands::doctor::DoctorOptions),
    /// Create a configuration for a mail address: find its server, read its capabilities, choose ports and
    /// certificate; then start the service and print the login code
    Init(commands::init::InitOptions),
    /// Print the login code that sets up Delta Chat in one scan; asks for the password and does not store it
    Qr(commands::qr::QrOptions),
    /// Show the status of the running server and its accounts
    Status(commands::status::StatusArguments),
    /// Show the recent history of an account, from the new message to the device's connection; or erase the
    /// account, or restart its watch
    Account(commands::account::AccountArguments),
    /// Wake an account's devices once and wait until they connect
    PushTest(commands::push_test::PushTestArguments),
    /// Tell deltapush of the new message on standard input, as pipes of a mail server do; for routes with `news: server` or
    /// `news: both`
    News(commands::news::NewsArguments),
    /// Follow the protocol of running sessions until Ctrl-C
    #[command(args_conflicts_with_subcommands = true)]
    Trace(commands::trace::TraceTask),
    /// Check, copy, move or re-seal the stored state: accounts, tokens, sealed passwords
    #[command(subcommand)]
    State(StateCommand),
}

#[derive(Subcommand, Clone)]
pub(crate) enum StateCommand {
    /// Check that the state is valid and that the key opens it; change nothing
    Check,
    /// Copy the state into a new file, also while deltapush runs; the copy does not contain the key
    Backup {
        /// New file, which must not exist yet
        file: PathBuf,
    },
    /// Move the state from the file in `storage.directory` into the database of `storage.postgres`, for several nodes; or back
    ///
    /// Both places are in the configuration. deltapush must not be running, on any machine. The new place must be empty:
    /// states are not merged. All rows are copied and compared; then the old place is marked, so that deltapush does not
    /// start with it. If anything fails, the state stays where it was: run the command again. The key does not move: machines
    /// that use the database need a copy of it. The certificates in `certificate.directory` move along.
    Move {
        /// New place of the state
        #[arg(long, value_name = "PLACE")]
        to: StatePlace,
        /// Take back an earlier move to this place: use the old place again as it was then, without later changes
        #[arg(long)]
        undo: bool,
    },
    /// Seal all passwords with a new key; deltapush must not be running, on any machine
    RotateKey {
        /// File with the new key, 32 bytes in base64; required if the key comes from systemd or the environment
        #[arg(long, value_name = "FILE")]
        new_key_file: Option<PathBuf>,
    },
}

/// A place of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatePlace {
    /// The database of `storage.postgres`
    Postgres,
    /// The file in `storage.directory`; remove `storage.postgres` from the configuration afterwards
    Sqlite,
}

const AFTER_HELP: &str = "\
Examples:
  deltapush init you@example.org          create a configuration for this address
  deltapush qr you@example.org            print the login code for Delta Chat
  deltapush                               serve with ./config.yaml
  deltapush doctor                        check everything, show what helps
  deltapush check                         check the configuration
  deltapush check --login you@example.org --connect
                                          show the route of a login, try its server
  deltapush status                        show watches, pushes and problems
  deltapush account you@example.org       show why a message was late
  deltapush push-test you@example.org     test whether a push wakes the phone
  deltapush news you@example.org <message
                                          tell of a message, as a mail server does
  deltapush trace --account you@example.org
                                          follow the protocol of an account
  deltapush state backup /backup/state.sqlite
                                          copy the state, also of a running server

Exit codes:
   0  success
  64  wrong usage of the command line
  65  the input is not a trace file; the news makes no sense
  69  no running deltapush answers, or it refused the request; no mail server
      was found or reached; the service did not start
  70  a bug in deltapush
  71  a call to the operating system failed, for example opening a port
  74  the state cannot be opened or is damaged, or its key does not fit
  75  not now: no device connected, the mailbox is not watched; at the start,
      the disk is full or another deltapush uses the state; for `news`, no
      deltapush accepts it now
  77  the socket for news cannot be opened
  78  the configuration, or a file that it names, is not valid or cannot be
      used; it refuses the login that `check --login` names; the route takes
      no news";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_may_stand_before_and_after_the_command() {
        for line in [["deltapush", "--trace", "run"], ["deltapush", "run", "--trace"]] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert!(
                cli.trace() == Some(Path::new("-"))
                    && matches!(cli.command, Some(MainCommand::Run(_)))
                    && cli.check().is_ok()
            );
        }
        assert!(Cli::try_parse_from(["deltapush", "check", "--trace"]).is_err());
        let other = Cli::try_parse_from(["deltapush", "--trace", "check"]).unwrap();
        assert!(other.check().is_err_and(|error| error.to_string().contains("deltapush trace")));
        assert!(Cli::try_parse_from(["deltapush"]).unwrap().command.is_none());
        assert!(Cli::try_parse_from(["deltapush", "chekc"]).is_err_and(|error| error.use_stderr()));
    }
}
