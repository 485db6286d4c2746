//! The command line: flags, configuration, logging, runtime, exit code.

use std::alloc::System;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use deltapush::activation::Sockets;
use deltapush::admin::control::AskError;
use deltapush::commands::trace::TraceError;
use deltapush::commands::{CommandError, Fault, Unfulfilled};
use deltapush::config::{Config, ConfigError, LogFormat};
use deltapush::http::admin::password::Password;
use deltapush::logging::{LogError, LogHandle};
use deltapush::reload::Reloader;
use deltapush::store::{CredentialStorage, OpenError, StoreSettings};
use deltapush::tls;
use deltapush::tls::certs::identity::{CertificateOrigin, CertificateSummary};
use deltapush::tls::certs::{CertificateSet, CertificateSettings};
use deltapush::tls::client::ClientConfigs;
use deltapush::tls::server::ServerTlsError;
use deltapush::{RunError, Server, commands};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};
use zeroizing_alloc::ZeroAlloc;

/// Memory is wiped when it is given back: libraries leave copies of passwords and tokens in what they free (TLS records,
/// vectors that grew). See docs/security.md.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

/// Polls of tasks between two checks of the sockets. With the runtime's default of 61, busy sessions delay each step
/// of a login by 61 of their polls.
const EVENT_INTERVAL: u32 = 8;

// From sysexits.h, which systemd shows by name.
const EX_USAGE: u8 = 64;
const EX_DATAERR: u8 = 65;
const EX_UNAVAILABLE: u8 = 69;
const EX_SOFTWARE: u8 = 70;
const EX_OSERR: u8 = 71;
const EX_IOERR: u8 = 74;
const EX_TEMPFAIL: u8 = 75;
const EX_CONFIG: u8 = 78;

/// An IMAP proxy that brings push notifications to Delta Chat on any mail server.
///
/// Delta Chat connects to deltapush in place of its mail server; deltapush passes everything on to that server, takes the push
/// token that Delta Chat hands over, watches the mailbox with IDLE, and notifies the phone when mail arrives.
#[derive(Parser, Clone)]
#[command(version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    /// Configuration file [default: config.yaml in the current folder]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Print the protocol of every session on standard output, or write it to files per account in a folder;
    /// passwords and tokens are masked, literals (message bodies) are shown as their size
    #[arg(long, global = true, value_name = "FOLDER", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    trace: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<MainCommand>,
}

#[derive(Subcommand, Clone)]
enum MainCommand {
    /// Serve until SIGTERM or SIGINT (Ctrl-C); this is the default
    Run,
    /// Check the configuration and the files that it names, print the resulting setup, change nothing
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
    },
    /// Create a configuration for a mail address: find its server, read its capabilities, choose ports and certificate
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
    /// Follow the protocol of running sessions until Ctrl-C
    #[command(args_conflicts_with_subcommands = true)]
    Trace(commands::trace::TraceTask),
    /// Check, copy or re-seal the stored state: accounts, tokens, sealed passwords
    #[command(subcommand)]
    State(StateCommand),
}

#[derive(Subcommand, Clone)]
enum StateCommand {
    /// Check that the state is valid and that the key opens it; change nothing
    Check,
    /// Copy the state into a new file, also while deltapush runs; the copy does not contain the key
    Backup {
        /// New file, which must not exist yet
        file: PathBuf,
    },
    /// Seal all passwords with a new key; deltapush must not be running
    RotateKey {
        /// File with the new key, 32 bytes in base64; required if the key comes from systemd or the environment
        #[arg(long, value_name = "FILE")]
        new_key_file: Option<PathBuf>,
    },
}

const AFTER_HELP: &str = "\
Examples:
  deltapush init you@example.org                  create a configuration for this address
  deltapush qr you@example.org                    print the login code for Delta Chat
  deltapush                                       serve with ./config.yaml
  deltapush check --config /etc/deltapush.yaml    check a configuration
  deltapush check --login alice@example.org       show the route of a login
  deltapush status                                show watches, pushes and problems
  deltapush account alice@example.org             show why a message was late
  deltapush push-test alice@example.org           test whether a push wakes her phone
  deltapush trace --account alice@example.org     follow the protocol between her client and server
  deltapush state backup /backup/state.sqlite     copy the state, also while deltapush runs

Exit codes:
   0  success
  64  wrong usage of the command line
  65  the input is not a trace file
  69  no running deltapush answers, or it refused the request; no mail server was found
  70  a bug in deltapush
  71  a call to the operating system failed, for example opening a port
  74  the state cannot be opened or is damaged, or its key does not fit
  75  the requested action did not succeed: no device connected, the mailbox is not watched
  78  the configuration or a file that it names is not valid";

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => return answer_usage(&answer),
    };
    let outcome = match &cli.command {
        None | Some(MainCommand::Run) => load(&cli).and_then(|config| run(&cli, config)),
        Some(MainCommand::Check { login: None, .. }) => {
            load(&cli).and_then(|config| check(&config))
        }
        Some(MainCommand::Check { login: Some(login), listener, host }) => load(&cli)
            .and_then(|config| check_login(&config, login, listener.as_deref(), host.as_deref())),
        Some(MainCommand::Init(options)) => init(&cli, options),
        Some(MainCommand::Qr(options)) => load(&cli).and_then(|config| qr(&config, options)),
        Some(MainCommand::Status(asked)) => {
            load(&cli).and_then(|config| commands::status::run(&config, asked))
        }
        Some(MainCommand::Account(asked)) => {
            load(&cli).and_then(|config| commands::account::run(&config, asked))
        }
        Some(MainCommand::PushTest(asked)) => {
            load(&cli).and_then(|config| commands::push_test::run(&config, asked))
        }
        Some(MainCommand::Trace(asked)) => trace(&cli, asked),
        Some(MainCommand::State(command)) => load(&cli).and_then(|config| state(&config, command)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nobody to tell if standard error is gone; the exit code still says it.
            let _ = writeln!(io::stderr(), "{}", told(&error));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// `--help` and `--version` are answers, not mistakes.
fn answer_usage(answer: &clap::Error) -> ExitCode {
    // There is nobody to tell if the terminal has gone.
    let _ = answer.print();
    if answer.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS }
}

/// Formats an error: deltapush's own contain their causes; others are printed as a chain.
fn told(error: &anyhow::Error) -> String {
    let own = error.is::<ConfigError>()
        || error.is::<RunError>()
        || error.is::<OpenError>()
        || error.is::<AskError>()
        || error.is::<CommandError>()
        || error.is::<LogError>()
        || error.is::<TraceError>();
    if own { error.to_string() } else { format!("{error:#}") }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<RunError>() {
        Some(RunError::Certificate(_) | RunError::Trust(_) | RunError::Password(_)) => EX_CONFIG,
        Some(RunError::State(_)) => EX_IOERR,
        Some(RunError::Internal(_)) => EX_SOFTWARE,
        Some(
            RunError::Listen { .. } | RunError::Notifier(_) | RunError::Random | RunError::Trace(_),
        ) => EX_OSERR,
        None if error.is::<CommandError>() => error.downcast_ref().map_or(EX_OSERR, exit_code_of),
        None if error.is::<ConfigError>() => EX_CONFIG,
        None if error.is::<OpenError>() => EX_IOERR,
        None if error.is::<AskError>() => EX_UNAVAILABLE,
        None if error.is::<LogError>() => EX_CONFIG,
        None if error.is::<Unfulfilled>() => EX_TEMPFAIL,
        None if matches!(error.downcast_ref(), Some(TraceError::Ask(_) | TraceError::Ended)) => {
            EX_UNAVAILABLE
        }
        None if matches!(
            error.downcast_ref(),
            Some(TraceError::Malformed { .. } | TraceError::TooLong(_))
        ) =>
        {
            EX_DATAERR
        }
        None => EX_OSERR,
    }
}

fn exit_code_of(refusal: &CommandError) -> u8 {
    match refusal.fault {
        Fault::Usage => EX_USAGE,
        Fault::Configuration => EX_CONFIG,
        Fault::Unavailable => EX_UNAVAILABLE,
        Fault::System => EX_OSERR,
    }
}

fn load(cli: &Cli) -> anyhow::Result<Config> {
    let mut config =
        Config::load(cli.config.as_deref().unwrap_or(Path::new(Config::DEFAULT_FILE)))?;
    match cli.trace.as_deref() {
        None => {}
        Some(stdout) if stdout == Path::new("-") => config.live.trace.print = true,
        Some(folder) => {
            folder.clone_into(&mut config.live.trace.files.get_or_insert_default().directory)
        }
    }
    Ok(config)
}

fn run(cli: &Cli, config: Config) -> anyhow::Result<()> {
    let log = LogHandle::start(config.startup.log_format, &config.live.log_level)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .build();
    runtime.context("cannot start the runtime")?.block_on(async {
        let shutdown = shutdown().context("cannot listen for signals")?;
        let hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
        let server = Server::prepare(config)?.counting_log(log.limit().clone());
        let listeners = deltapush::bind(server.config(), Sockets::from_env()).await?;
        tell_systemd(&[NotifyState::Ready]);
        tokio::spawn(log.clone().tell_what_was_left_out());
        tokio::spawn(follow(hangup, cli.clone(), log, server.reloader()));
        let shutdown = async {
            shutdown.await;
            tell_systemd(&[NotifyState::Stopping]);
        };
        Ok(server.run(listeners, shutdown).await?)
    })
}

/// Reads the configuration again at each SIGHUP.
async fn follow(mut hangup: Signal, cli: Cli, log: LogHandle, reloader: Reloader) {
    while hangup.recv().await.is_some() {
        let now = NotifyState::monotonic_usec_now();
        tell_systemd(
            &[Some(NotifyState::Reloading), now.ok()].into_iter().flatten().collect::<Vec<_>>(),
        );
        let read = {
            let cli = cli.clone();
            tokio::task::spawn_blocking(move || load(&cli)).await
        };
        match read {
            Ok(Ok(config)) => follow_one(config, &log, &reloader).await,
            Ok(Err(error)) => {
                warn!(
                    "the new configuration is not valid, deltapush keeps the previous one:\n{}",
                    told(&error)
                )
            }
            Err(_) => error!("reading the configuration panicked, which is a bug in deltapush"),
        }
        tell_systemd(&[NotifyState::Ready]);
    }
}

async fn follow_one(config: Config, log: &LogHandle, reloader: &Reloader) {
    let wanted = config.live.log_level.clone();
    if let Err(error) = reloader.apply(config).await {
        return warn!(
            "the new configuration is not valid, deltapush keeps the previous one: {error}"
        );
    }
    if !log.set_level(&wanted) {
        error!("cannot set the log level {wanted}, which is a bug in deltapush");
    }
}

/// Does nothing where systemd did not start this process and ask for it.
fn tell_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        info!("cannot report the state to systemd: {error}");
    }
}

fn trace(cli: &Cli, asked: &commands::trace::TraceTask) -> anyhow::Result<()> {
    if asked.follows() {
        return Ok(commands::trace::follow(asked, &load(cli)?.startup.storage.directory)?);
    }
    Ok(commands::trace::work_on_file(asked)?)
}

/// Resolves at the first SIGTERM or SIGINT.
fn shutdown() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn check(config: &Config) -> anyhow::Result<()> {
    let (certificate, more) = CertificateSet::check(&CertificateSettings::from(&config.live))
        .map_err(|error| RunError::from(ServerTlsError::from(error)))?;
    ClientConfigs::new(&config.live.routes).map_err(RunError::from)?;
    Password::check(&config.startup).map_err(RunError::from)?;
    tls::client::https_roots(config.startup.push.ca.as_ref()).map_err(RunError::from)?;
    describe(&mut io::stdout().lock(), config, &certificate, &more).context("cannot print")
}

fn check_login(
    config: &Config,
    login: &str,
    listener: Option<&str>,
    host: Option<&str>,
) -> anyhow::Result<()> {
    let said = small_runtime()?
        .block_on(commands::route::where_to(&config.live, login, listener, host))
        .map_err(RunError::from)?;
    write!(io::stdout(), "{said}").context("cannot print")
}

fn init(cli: &Cli, options: &commands::init::InitOptions) -> anyhow::Result<()> {
    let file = cli.config.as_deref().unwrap_or(Path::new(Config::DEFAULT_FILE));
    Ok(small_runtime()?.block_on(commands::init::run(options, file))?)
}

fn qr(config: &Config, options: &commands::qr::QrOptions) -> anyhow::Result<()> {
    Ok(small_runtime()?.block_on(commands::qr::run(&config.live, options))?)
}

fn small_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

fn state(config: &Config, command: &StateCommand) -> anyhow::Result<()> {
    // For whoever types the command.
    LogHandle::start(LogFormat::Text, &config.live.log_level)?;
    let said = match command {
        StateCommand::Check => commands::state::check(&config.startup.storage),
        StateCommand::Backup { file } => commands::state::backup(&config.startup.storage, file),
        StateCommand::RotateKey { new_key_file } => {
            commands::state::rotate_key(&config.startup.storage, new_key_file.as_deref())
        }
    }?;
    writeln!(io::stdout(), "{said}").context("cannot print")
}

fn describe(
    out: &mut impl Write,
    config: &Config,
    certificate: &CertificateSummary,
    more: &[CertificateSummary],
) -> io::Result<()> {
    writeln!(out, "The configuration is valid. deltapush would run as follows.")?;
    for listener in &config.live.listeners {
        let insecure = if listener.insecure { ", insecure" } else { "" };
        let web = if listener.web { ", web" } else { "" };
        let announced = if listener.proxy_protocol.is_empty() { "" } else { ", PROXY protocol" };
        writeln!(
            out,
            "listen       {} (TLS: {}{insecure}{web}{announced})",
            listener.address, listener.tls
        )?;
    }
    writeln!(out, "certificate  {}, for {}", about(certificate), config.live.hostname)?;
    if !certificate.names_host {
        writeln!(
            out,
            "             WARNING: it is not valid for {}: clients will refuse it",
            config.live.hostname
        )?;
    }
    if certificate.not_after.is_some_and(|end| end < jiff::Timestamp::now()) {
        writeln!(out, "             WARNING: it has expired: clients will refuse it")?;
    }
    for further in more {
        writeln!(out, "             {}, for the names in it", about(further))?;
    }
    if let Some(acme) = &config.live.certificate.acme {
        let names = acme.names_or(&config.live.hostname).join(", ");
        writeln!(out, "             by ACME from {}, for {names}", acme.directory)?;
    }
    commands::route::describe(out, &config.live)?;
    writeln!(out, "push         {}", config.startup.push.notify_url)?;
    match &config.startup.admin.address {
        Some(address) => {
            let scheme = if config.startup.admin.has_tls() { "https" } else { "http" };
            writeln!(out, "admin        {scheme}://{}/", **address)?;
        }
        None => writeln!(out, "admin        off")?,
    }
    writeln!(out, "state        {}", config.startup.storage.directory.display())?;
    if config.live.trace.print {
        writeln!(out, "trace        printed")?;
    }
    if let Some(files) = &config.live.trace.files {
        writeln!(out, "trace        written to {}", files.directory.display())?;
    }
    match StoreSettings::new(&config.startup.storage).credentials {
        CredentialStorage::Sealed(key) => {
            writeln!(out, "passwords    sealed with the key in {key}")
        }
        CredentialStorage::Memory => writeln!(out, "passwords    in memory only"),
        CredentialStorage::None => {
            writeln!(out, "passwords    not stored: kept client sessions watch the mailboxes")
        }
    }
}

fn about(certificate: &CertificateSummary) -> String {
    let path = certificate.path.display();
    let until = certificate
        .not_after
        .map(|end| format!(", valid until {}", end.strftime("%Y-%m-%d")))
        .unwrap_or_default();
    match certificate.origin {
        CertificateOrigin::Files | CertificateOrigin::Issued => format!("{path}{until}"),
        CertificateOrigin::Kept => format!("{path}, self-signed{until}"),
        CertificateOrigin::Renewed => {
            format!("{path}, self-signed, will be renewed with the existing key")
        }
        CertificateOrigin::Made => format!("{path}, self-signed, will be created at the start"),
    }
}

#[cfg(test)]
mod tests {
    use deltapush::config;

    use super::*;

    #[test]
    fn command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_may_stand_before_and_after_the_command() {
        for line in [["deltapush", "--trace", "check"], ["deltapush", "check", "--trace"]] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert!(
                cli.trace == Some("-".into())
                    && matches!(cli.command, Some(MainCommand::Check { .. }))
            );
        }
        assert!(Cli::try_parse_from(["deltapush"]).unwrap().command.is_none());
        assert!(Cli::try_parse_from(["deltapush", "chekc"]).is_err_and(|error| error.use_stderr()));
    }

    #[test]
    fn check_says_what_would_run() {
        let config = Config::default();
        let path = "certs/localhost.cert.pem".into();
        let certificate = CertificateSummary {
            origin: CertificateOrigin::Made,
            path,
            not_after: None,
            names_host: false,
        };
        let mut out = Vec::new();
        describe(&mut out, &config, &certificate, &[]).unwrap();
        let out = String::from_utf8(out).unwrap();
        for line in [
            "listen       127.0.0.1:1993 (TLS: implicit)\n",
            "certificate  certs/localhost.cert.pem, self-signed, will be created at the start, for localhost\n",
            "WARNING: it is not valid for localhost",
            "route        * to imaps://imap.{domain}:993 (CA: webpki)\n",
            "push         https://notifications.delta.chat/notify\n",
            "state        state\n",
            "passwords    sealed with the key in state/seal.key\n",
        ] {
            assert!(out.contains(line), "{out}");
        }
    }

    #[test]
    fn faults_in_files_are_configuration_errors() {
        let missing = Path::new("/nonexistent/config.yaml");
        let error = anyhow::Error::from(Config::load(missing).unwrap_err());
        assert_eq!(exit_code(&error), EX_CONFIG);
        assert_eq!(told(&error).matches("No such file").count(), 1, "{}", told(&error));

        let mut config = Config::default();
        config.live.certificate.chain = Some(missing.to_owned().into());
        config.live.certificate.key = Some(missing.to_owned().into());
        let error = check(&config).unwrap_err();
        assert_eq!(exit_code(&error), EX_CONFIG);
        assert_eq!(told(&error).matches("No such file").count(), 1, "{}", told(&error));

        let missing = config::Storage { directory: "/nonexistent".into(), ..Default::default() };
        let error = anyhow::Error::from(commands::state::check(&missing).unwrap_err());
        assert_eq!(exit_code(&error), EX_IOERR);

        let error = anyhow::anyhow!("no threads").context("cannot start the runtime");
        assert_eq!(exit_code(&error), EX_OSERR);
        assert_eq!(told(&error), "cannot start the runtime: no threads");
    }
}
