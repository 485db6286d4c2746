//! The mail servers: processes of this program, each with a part of the accounts. A line of standard input is a command; at its
//! end the process ends.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use deltapush::account::AccountId;

use crate::common::server::LoadServer;
use crate::common::tls::{Authority, Order};

/// As its first argument it makes this program a mail server.
pub(crate) const COMMAND: &str = "mail-server";

/// Commands: a message comes for an account; the number of watched accounts is asked for.
const DELIVER: &str = "deliver";
const WATCHED: &str = "watched";

/// Accounts of one server at most: each has a connection, and two while it moves from one node to another.
const MOST: usize = 15_000;

/// All mail servers. The accounts are dealt to them in turn.
pub(crate) struct MailServers(Vec<MailServer>);

struct MailServer {
    port: u16,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    child: Child,
}

impl MailServers {
    /// As many as the accounts need, two at least, with the certificate of this folder.
    pub(crate) fn start(folder: &Path, accounts: usize) -> Result<Self> {
        // Files are those of connections in the main.
        let files = usize::try_from(rlimit::increase_nofile_limit(u64::MAX)?)?;
        let number = accounts.div_ceil(MOST.min(files * 3 / 4)).max(2);
        let each = accounts.div_ceil(number);
        Ok(Self((0..number).map(|_| MailServer::start(folder, each)).collect::<Result<_>>()?))
    }

    /// The account's ID in deltapush.
    pub(crate) fn account(&self, account: usize) -> AccountId {
        let (server, number) = self.place(account);
        let port = self.0[server].port;
        AccountId::new(&format!("u{number}@{}", domain(server)), &format!("localhost:{port}"))
    }

    /// The routes of the configuration.
    pub(crate) fn routes(&self, authority: &Authority) -> String {
        let ca = authority.ca.display();
        let route = |(server, MailServer { port, .. }): (usize, &MailServer)| {
            let domain = domain(server);
            format!("  - domain: {domain}\n    upstream: imaps://localhost:{port}\n    ca: {ca}\n")
        };
        self.0.iter().enumerate().map(route).collect()
    }

    /// A message comes for an account.
    pub(crate) fn deliver(&mut self, account: usize) -> Result<()> {
        let (server, number) = self.place(account);
        Ok(writeln!(self.0[server].commands, "{DELIVER} {number}")?)
    }

    /// The number of accounts that are watched.
    pub(crate) fn watched(&mut self) -> Result<usize> {
        self.0.iter_mut().map(MailServer::watched).sum()
    }

    /// The server of an account, and its number there.
    fn place(&self, account: usize) -> (usize, usize) {
        (account % self.0.len(), account / self.0.len())
    }
}

impl MailServer {
    fn start(folder: &Path, accounts: usize) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(COMMAND).arg(folder).arg(accounts.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let commands = child.stdin.take().context("no standard input")?;
        let answers = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut server = Self { port: 0, commands, answers, child };
        server.port = server.answer()?.parse()?;
        Ok(server)
    }

    fn watched(&mut self) -> Result<usize> {
        writeln!(self.commands, "{WATCHED}")?;
        Ok(self.answer()?.parse()?)
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "a mail server has ended");
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until standard input ends.
pub(crate) fn run(folder: &str, accounts: &str) -> Result<()> {
    let authority = Authority::in_folder(Path::new(folder));
    let tls = authority.acceptor(true, Order::Usual)?;
    let server = LoadServer::start(accounts.parse()?, Some(tls))?;
    let mut output = io::stdout();
    writeln!(output, "{}", server.port)?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        match line.split_once(' ').unwrap_or((&line, "")) {
            (DELIVER, account) => server.deliver(account.parse()?),
            (WATCHED, _) => writeln!(output, "{}", server.watched())?,
            _ => bail!("unknown command: {line}"),
        }
    }
    Ok(())
}

fn domain(server: usize) -> String {
    format!("server-{server}.test")
}
