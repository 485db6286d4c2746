//! The command line: flags, configuration, logging, runtime, exit code.

mod cli;
mod exit_code;
#[cfg(test)]
mod manual_tests;

use std::alloc::System;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use deltapush::activation::Sockets;
use deltapush::commands::check::route::RouteQuestion;
use deltapush::config::{Config, Environment, LogFormat};
use deltapush::http::admin::password::Password;
use deltapush::logging::LogHandle;
use deltapush::reload::Reloader;
use deltapush::store::Place;
use deltapush::tls;
use deltapush::tls::certs::identity::CertificateSummary;
use deltapush::tls::certs::{CertificateSet, CertificateSettings};
use deltapush::tls::client::ClientConfigs;
use deltapush::tls::server::ServerTlsError;
use deltapush::{RunError, Server, commands};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};
use zeroizing_alloc::ZeroAlloc;

use cli::{Cli, MainCommand, StateCommand, StatePlace};
use exit_code::{EX_USAGE, error_text, exit_code};

/// Memory is wiped when it is given back: libraries leave copies of passwords and tokens in what they free (TLS records,
/// vectors that grew). See "Wiping" in docs/threat-model.md.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

/// Polls of tasks between two checks of the sockets. With the runtime's default of 61, busy sessions delay each step
/// of a login by 61 of their polls.
const EVENT_INTERVAL: u32 = 8;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => return answer_usage(&answer),
    };
    if let Err(error) = cli.check() {
        return answer_usage(&error);
    }
    let outcome = match &cli.command {
        None | Some(MainCommand::Run(_)) => load(&cli).and_then(|config| run(&cli, config)),
        Some(MainCommand::Check { login: None, .. }) => {
            load(&cli).and_then(|config| check(&config))
        }
        Some(MainCommand::Check { login: Some(login), listener, host, connect }) => {
            let question = RouteQuestion {
                login,
                listener: listener.as_deref(),
                host: host.as_deref(),
                connect: *connect,
            };
            load(&cli).and_then(|config| check_login(&config, &question))
        }
        Some(MainCommand::Doctor(options)) => {
            load(&cli).and_then(|config| doctor(&cli, &config, options))
        }
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
        Some(MainCommand::News(asked)) => {
            commands::news::run(asked, cli.config.is_some(), || load(&cli))
        }
        Some(MainCommand::Trace(asked)) => trace(&cli, asked),
        Some(MainCommand::State(command)) => load(&cli).and_then(|config| state(&config, command)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nobody to tell if standard error is gone; the exit code still says it.
            let _ = writeln!(io::stderr(), "{}", error_text(&error));
            match &cli.command {
                Some(MainCommand::News(asked)) if asked.never_fail => ExitCode::SUCCESS,
                _ => ExitCode::from(exit_code(&error)),
            }
        }
    }
}

/// `--help` and `--version` are answers, not mistakes.
fn answer_usage(answer: &clap::Error) -> ExitCode {
    // There is nobody to tell if the terminal has gone.
    let _ = answer.print();
    if answer.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS }
}

fn load(cli: &Cli) -> anyhow::Result<Config> {
    let file = config_file(cli);
    let mut config = Config::find(file.as_deref(), &Environment::read())?;
    match cli.trace() {
        None => {}
        Some(stdout) if stdout == Path::new("-") => config.live.trace.print = true,
        Some(folder) => {
            folder.clone_into(&mut config.live.trace.files.get_or_insert_default().directory)
        }
    }
    Ok(config)
}

/// The configuration: the given one, or the service's if the current folder has none; `None` for the usual one. `run` never takes the
/// service's by itself: as root, its files would become root's.
fn config_file(cli: &Cli) -> Option<PathBuf> {
    let serves = matches!(cli.command, None | Some(MainCommand::Run(_)));
    let has_other = Path::new(Config::DEFAULT_FILE).exists() || !Environment::read().is_empty();
    match &cli.config {
        Some(file) => Some(file.clone()),
        None if serves || has_other => None,
        None => commands::service_config(),
    }
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
        let mut sockets = Sockets::from_env();
        let server = Server::prepare(config).await?;
        let server = server.counting_log(log.limit().clone()).taking_sockets(&mut sockets);
        let listeners = deltapush::bind(server.config(), sockets).await?;
        tokio::spawn(log.clone().report_left_out());
        tokio::spawn(follow(hangup, cli.clone(), log, server.reloader()));
        let shutdown = async {
            shutdown.await;
            notify_systemd(&[NotifyState::Stopping]);
        };
        let ready = || notify_systemd(&[NotifyState::Ready]);
        Ok(server.run(listeners, ready, shutdown).await?)
    })
}

/// Reads the configuration again at each SIGHUP.
async fn follow(mut hangup: Signal, cli: Cli, log: LogHandle, reloader: Reloader) {
    while hangup.recv().await.is_some() {
        let now = NotifyState::monotonic_usec_now();
        notify_systemd(
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
                    "the new configuration is not valid, deltapush keeps the previous one: {}",
                    error_text(&error)
                )
            }
            Err(_) => error!("reading the configuration panicked, which is a bug in deltapush"),
        }
        notify_systemd(&[NotifyState::Ready]);
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
fn notify_systemd(state: &[NotifyState<'_>]) {
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

/// Reads the files that the configuration names.
fn check_files(config: &Config) -> anyhow::Result<(CertificateSummary, Vec<CertificateSummary>)> {
    let certificates = CertificateSet::check(&CertificateSettings::from(&config.live))
        .map_err(|error| RunError::from(ServerTlsError::from(error)))?;
    ClientConfigs::new(&config.live.routes).map_err(RunError::from)?;
    Password::check(&config.startup).map_err(RunError::from)?;
    tls::client::https_roots(config.startup.push.ca.as_ref()).map_err(RunError::from)?;
    Ok(certificates)
}

fn check(config: &Config) -> anyhow::Result<()> {
    let (certificate, more) = check_files(config)?;
    let mut text = Vec::new();
    let obstacles = commands::check::run(&mut text, config, &certificate, &more)?;
    commands::print(&String::from_utf8_lossy(&text))?;
    Ok(obstacles?)
}

fn check_login(config: &Config, question: &RouteQuestion<'_>) -> anyhow::Result<()> {
    let mut text = Vec::new();
    let refusal = small_runtime()?.block_on(commands::check::route::run(
        &mut text,
        &config.live,
        question,
    ))?;
    commands::print(&String::from_utf8_lossy(&text))?;
    Ok(refusal?)
}

fn doctor(
    cli: &Cli,
    config: &Config,
    options: &commands::doctor::DoctorOptions,
) -> anyhow::Result<()> {
    check_files(config)?;
    let file = config_file(cli).unwrap_or_else(|| Config::DEFAULT_FILE.into());
    small_runtime()?.block_on(commands::doctor::run(config, &file, options))
}

fn init(cli: &Cli, options: &commands::init::InitOptions) -> anyhow::Result<()> {
    let file = cli.config.clone().unwrap_or_else(commands::init::usual_file);
    Environment::read().exclude(&file)?;
    Ok(small_runtime()?.block_on(commands::init::run(options, &file))?)
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
    // For the person at the terminal.
    LogHandle::start(LogFormat::Text, &config.live.log_level)?;
    let said = match command {
        StateCommand::Check => commands::state::check(&config.startup.storage),
        StateCommand::Backup { file } => commands::state::backup(&config.startup.storage, file),
        StateCommand::Move { to, undo } => {
            let target = match to {
                StatePlace::Postgres => Place::Database,
                StatePlace::Sqlite => Place::File,
            };
            if *undo {
                commands::state::undo_move(config, target)
            } else {
                commands::state::move_to(config, target)
            }
        }
        StateCommand::RotateKey { new_key_file } => {
            commands::state::rotate_key(&config.startup.storage, new_key_file.as_deref())
        }
    }?;
    commands::print(&format!("{said}\n"))
}

#[cfg(test)]
mod tests {
    use deltapush::config;

    use exit_code::{EX_CONFIG, EX_IOERR, EX_OSERR};

    use super::*;

    #[test]
    fn faults_in_files_are_configuration_errors() {
        let missing = Path::new("/nonexistent/config.yaml");
        let error = anyhow::Error::from(Config::load(missing).unwrap_err());
        assert_eq!(exit_code(&error), EX_CONFIG);
        assert_eq!(
            error_text(&error).matches("there is no such file").count(),
            1,
            "{}",
            error_text(&error)
        );

        let mut config = Config::default();
        config.live.certificate.chain = Some(missing.to_owned().into());
        config.live.certificate.key = Some(missing.to_owned().into());
        let error = check(&config).unwrap_err();
        assert_eq!(exit_code(&error), EX_CONFIG);
        assert_eq!(
            error_text(&error).matches("there is no such file").count(),
            1,
            "{}",
            error_text(&error)
        );

        let missing = config::Storage { directory: "/nonexistent".into(), ..Default::default() };
        let error = anyhow::Error::from(commands::state::check(&missing).unwrap_err());
        assert_eq!(exit_code(&error), EX_IOERR);

        let error = anyhow::anyhow!("no threads").context("cannot start the runtime");
        assert_eq!(exit_code(&error), EX_OSERR);
        assert_eq!(error_text(&error), "cannot start the runtime: no threads");
    }
}
