//! Client login: admission, routing, the upstream attempt and its outcome.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout_at};
use tracing::{debug, warn};

use super::incoming_client::{IncomingClient, NoLogin};
use super::login_attempt::{AttemptError, WaitingClient};
use super::login_error_response::Refused;
use super::own_refusals::OwnRefusal;
use crate::account::AccountId;
use crate::admission::Prefix;
use crate::admission::failed_logins::{LoginLimit, LoginOutcome, Try};
use crate::admission::invented::is_invented;
use crate::admission::login_limiter::{self, DenialReason, Invented, Pass};
use crate::admission::report;
use crate::admission::report::in_words;
use crate::config::Native;
use crate::credentials::Credentials;
use crate::dns::Reach;
use crate::push::kept::{ClientLogin, KeptLogin, Resumption};
use crate::push::registry::Visit;
use crate::telemetry::LoginResult;
use crate::upstream::connect::{ConnectError, Connected};
use crate::upstream::login_machine::{LoggedIn, LoginError};
use crate::upstream::refusal::{LoginRefusal, classify, classify_bye};
use crate::upstream::route::{Asked, Target};

/// Time for a server to notice that a session was closed.
const GIVING_WAY: Duration = Duration::from_millis(500);

/// A login that succeeded.
pub(super) struct LoginSuccess {
    pub(super) account: AccountId,
    /// None where sessions are kept.
    pub(super) credentials: Option<Arc<Credentials>>,
    pub(super) upstream: Connected,
    /// Boxed: elsewhere it is empty.
    pub(super) kept: Box<KeptLogin>,
    /// The login's domain named the mail server.
    pub(super) is_open: bool,
    /// The account's route lets deltapush watch for new mail.
    pub(super) has_watch: bool,
    /// Keeps the account in memory where its watch is at another node.
    pub(super) visit: Visit,
}

/// The end of a login that did not succeed.
pub(super) enum LoginEnd {
    /// The client gets an answer, and may try again.
    Refused(Refused),
    /// The connection ends.
    Connection(NoLogin),
}

impl From<Refused> for LoginEnd {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// An admitted login, of which the mail server is asked.
struct AdmittedLogin<'a> {
    target: &'a Target,
    account: &'a AccountId,
    credentials: &'a Credentials,
    /// The server is also asked whether it pushes by itself.
    probed: bool,
}

impl IncomingClient {
    /// The server of a login that may be used here.
    fn target(&self, credentials: &Credentials) -> Result<Target, Refused> {
        let (session, peer, login) = (self.session, self.peer, credentials.owner());
        if !self.proxy.allows(&self.entrance.listener, login) {
            debug!(
                session, %peer, user = %login.escape_debug(),
                "login refused: `allow` does not contain this login name"
            );
            return Err(self.lost(credentials, &OwnRefusal::NotAllowed));
        }
        let asked = Asked {
            login,
            listener: Some(&self.entrance.listener),
            host: self.entrance.host.as_deref(),
        };
        let target = self.proxy.upstreams.routes.find(&asked).ok_or_else(|| {
            debug!(session, %peer, user = %login.escape_debug(), "login refused: no route matches this login name");
            self.lost(credentials, &OwnRefusal::NoRoute)
        })?;
        if target.reach == Reach::PublicOnly && !is_of_one_domain(credentials) {
            debug!(
                session, %peer, user = %login.escape_debug(),
                "login refused: the mailbox and the login name have different domains"
            );
            return Err(self.lost(credentials, &OwnRefusal::OtherDomain));
        }
        Ok(target)
    }

    /// The refusal of a login for which no server is asked.
    fn lost(&self, credentials: &Credentials, refusal: &OwnRefusal) -> Refused {
        let (delay, told) = self.proxy.gate.lost(Prefix::of(self.peer.ip()));
        if told {
            report::failed_login(self.peer.ip(), &credentials.user, "none", report::How::NotAsked);
        }
        Refused::own(LoginResult::NotAllowed, refusal).after(delay)
    }

    /// Asks the account's own server whether it accepts the credentials; the client may have to say more.
    pub(super) async fn try_login(
        &mut self,
        credentials: Credentials,
        mut client: WaitingClient<'_>,
    ) -> Result<LoginSuccess, LoginEnd> {
        let target = self.target(&credentials)?;
        let credentials = applied(&target, credentials)?;
        let account = AccountId::of(&credentials, &target.name());
        self.trace.tries(&account);
        let login = self.to_try(&target, &account, &credentials);
        self.refuse_invented(&login, &account, &credentials)?;
        let pass = self.pass(login, &account, &credentials).await?;
        let claim = self.entrance.claim.clone();
        let _trying = claim.as_ref().map(|claim| claim.try_login(&(&self.proxy.limits).into()));
        // After the permit, so that wrong passwords are counted here too.
        let resumption =
            self.proxy.kept.resume(self.client_login(&target, &account, &credentials)).await;
        let is_recognized = matches!(resumption, Resumption::Recognized);
        if let Resumption::Resumed(upstream, kept) = resumption {
            pass.done(LoginOutcome::Accepted);
            let (session, peer) = (self.session, self.peer);
            debug!(session, %peer, %account, upstream = %target, "logged in by resuming a kept session");
            let (upstream, kept) = (*upstream, Box::new(kept));
            let is_open = target.reach == Reach::PublicOnly;
            let has_watch = target.terms.news.has_watch();
            let visit = self.proxy.registry.visit(&account).await;
            return Ok(LoginSuccess {
                account,
                credentials: None,
                upstream,
                kept,
                is_open,
                has_watch,
                visit,
            });
        }
        let probed = self.proxy.session.native == Native::Passthrough
            && !self.proxy.probes.is_known(&target);
        let login =
            AdmittedLogin { target: &target, account: &account, credentials: &credentials, probed };
        match self.ask_mail_server(&login, &pass, &mut client, is_recognized).await {
            Ok(upstream) => Ok(self.succeeded(&login, pass, upstream).await),
            Err(error) => Err(self.failed(&login, pass, error)),
        }
    }

    /// Asks the mail server. If it allows no more sessions, the account's watch session may yield to the client.
    async fn ask_mail_server(
        &mut self,
        login: &AdmittedLogin<'_>,
        pass: &Pass,
        client: &mut WaitingClient<'_>,
        is_recognized: bool,
    ) -> Result<Connected, AttemptError> {
        let AdmittedLogin { target, account, credentials, probed } = *login;
        let attempt = self.attempt(target, credentials, probed, pass, client).await;
        // The client's answer to one challenge is no answer to another.
        // And a stranger, whom some servers tell so before they look at the password, ends nobody's watch.
        let may_yield = !client.was_asked && (pass.is_known() || is_recognized);
        let yields = may_yield
            && attempt.as_ref().is_err_and(AttemptError::is_too_many)
            && Box::pin(self.proxy.registry.yield_session(account)).await;
        if !yields {
            return attempt;
        }
        let session = self.session;
        debug!(
            session, %account,
            "the mail server allows no more sessions: the watch session yields to the client"
        );
        sleep(GIVING_WAY).await;
        self.attempt(target, credentials, probed, pass, client).await
    }

    /// Notes and answers a login that the mail server has not accepted.
    fn failed(&self, login: &AdmittedLogin<'_>, pass: Pass, error: AttemptError) -> LoginEnd {
        let AdmittedLogin { target, account, credentials, probed } = *login;
        let (session, peer) = (self.session, self.peer);
        let error = match error {
            AttemptError::Client(end) => return LoginEnd::Connection(end),
            AttemptError::Upstream(ConnectError::NoPermit) => {
                return self.turned_away(pass.turned_away(), account, credentials).into();
            }
            AttemptError::GaveUp(words) => {
                // Some servers say in a challenge that the password is wrong.
                let delay = self.count_failure(login, pass, LoginOutcome::Unclear);
                return Refused::new(LoginResult::NoMechanism, words).after(delay).into();
            }
            AttemptError::Upstream(error) => error,
        };
        if probed && error.is_timeout() {
            // Perhaps the server does not answer the question whether it pushes: it is not asked again soon.
            self.proxy.probes.remember(target, false);
        }
        debug!(session, %peer, %account, upstream = %target, "login failed: {error}");
        let outcome = outcome(&error, pass.is_sent());
        let delay = self.count_failure(login, pass, outcome);
        Refused::from_error(error).after(delay).into()
    }

    /// Counts a login that failed, with a line in the log if it counts. Returns the delay of the answer.
    fn count_failure(
        &self,
        login: &AdmittedLogin<'_>,
        pass: Pass,
        outcome: LoginOutcome,
    ) -> Duration {
        let Some(delay) = pass.done(outcome) else { return Duration::ZERO };
        let how = if outcome == LoginOutcome::Broken {
            report::How::NoAnswer
        } else {
            report::How::ByServer
        };
        let (user, upstream) = (&login.credentials.user, &login.account.upstream);
        report::failed_login(self.peer.ip(), user, upstream, how);
        delay
    }

    /// Notes a login that the mail server has accepted.
    async fn succeeded(
        &self,
        login: &AdmittedLogin<'_>,
        pass: Pass,
        mut upstream: Connected,
    ) -> LoginSuccess {
        let AdmittedLogin { target, account, credentials, probed } = *login;
        let (session, peer) = (self.session, self.peer);
        debug!(session, %peer, %account, upstream = %target, "logged in");
        if probed {
            self.proxy.probes.remember(target, upstream.logged_in.pushes);
        } else {
            upstream.logged_in.pushes |= self.proxy.probes.pushes(target);
        }
        // A relay makes an account at the first login.
        let makes_accounts =
            upstream.logged_in.pushes || upstream.logged_in.capabilities.has("XCHATMAIL");
        pass.note_server(makes_accounts);
        pass.done(LoginOutcome::Accepted);
        let visit = Box::pin(self.proxy.registry.visit(account)).await;
        let (kept, credentials) = if target.terms.news.has_watch() {
            self.keep_login(target, account, credentials, &upstream.logged_in).await
        } else {
            (KeptLogin::default(), None)
        };
        LoginSuccess {
            account: account.clone(),
            credentials,
            kept: Box::new(kept),
            upstream,
            is_open: target.reach == Reach::PublicOnly,
            has_watch: target.terms.news.has_watch(),
            visit,
        }
    }

    /// Keeps of an accepted login what the account's watch needs.
    async fn keep_login(
        &self,
        target: &Target,
        account: &AccountId,
        credentials: &Credentials,
        logged_in: &LoggedIn,
    ) -> (KeptLogin, Option<Arc<Credentials>>) {
        let session = self.session;
        if let Err(error) = self.proxy.registry.login_succeeded(account, credentials).await {
            debug!(session, %account, "cannot store the new password for the watch: {error}");
        }
        let login = self.client_login(target, account, credentials);
        let kept = self.proxy.kept.accepted(login, logged_in).await;
        (kept, self.proxy.kept.held_credentials(credentials))
    }

    /// The login as kept sessions need it.
    fn client_login<'l>(
        &self,
        target: &'l Target,
        account: &'l AccountId,
        credentials: &'l Credentials,
    ) -> ClientLogin<'l> {
        ClientLogin { target, account, credentials, client: self.prefix() }
    }

    /// The login as the guard sees it.
    fn to_try(&self, target: &Target, account: &AccountId, credentials: &Credentials) -> Try {
        let registry = &self.proxy.registry;
        let stored = registry.credentials(account);
        let login = self.proxy.gate.login(
            Prefix::of(self.peer.ip()),
            account,
            credentials,
            stored.as_deref(),
        );
        login.at_open_server(target.is_named_by_login()).registered(registry.is_known(account))
    }

    /// Refuses a login with an invented name, without asking the mail server.
    fn refuse_invented(
        &self,
        login: &Try,
        account: &AccountId,
        credentials: &Credentials,
    ) -> Result<(), Refused> {
        let Self { proxy, session, peer, .. } = self;
        if !proxy.refuses_invented || !is_invented(credentials) {
            return Ok(());
        }
        match proxy.gate.refuse_invented(login) {
            None => Ok(()),
            Some(Invented::AtOnce) => {
                debug!(
                    session, %peer, %account,
                    "login refused without asking the mail server: an invented name, as Delta Chat tries them"
                );
                Err(Refused::own(LoginResult::NotAllowed, &OwnRefusal::Invented))
            }
            Some(Invented::TooMany(refusal)) => {
                Err(self.turned_away(Some(refusal), account, credentials))
            }
        }
    }

    /// Waits until the upstream may be asked.
    async fn pass(
        &self,
        login: Try,
        account: &AccountId,
        credentials: &Credentials,
    ) -> Result<Pass, Refused> {
        let Self { proxy, session, peer, .. } = self;
        match timeout_at(self.deadline, proxy.gate.enter(login)).await {
            Ok(Ok(pass)) => Ok(pass),
            Ok(Err(refusal)) => Err(self.turned_away(Some(refusal), account, credentials)),
            Err(_) => {
                debug!(session, %peer, %account, "login not tried: other logins at its mail server took all the time");
                Err(self.turned_away(None, account, credentials))
            }
        }
    }

    /// The refusal of a login that is not tried; without a reason others only go before it.
    fn turned_away(
        &self,
        refusal: Option<login_limiter::Denial>,
        account: &AccountId,
        credentials: &Credentials,
    ) -> Refused {
        let Self { proxy, session, peer, .. } = self;
        let Some(login_limiter::Denial { delay, reason, counted }) = refusal else {
            return Refused::own(LoginResult::Limited, &OwnRefusal::OthersFirst);
        };
        debug!(session, %peer, %account, ?reason, "login refused without asking the mail server");
        let own = match reason {
            DenialReason::Repeated(wait) => OwnRefusal::Repeated(wait),
            DenialReason::Limit(blocked) => {
                if counted {
                    report::not_tried(peer.ip(), &credentials.user, &account.upstream, blocked);
                }
                if blocked.limit == LoginLimit::Upstream
                    && proxy.gate.note_strained(&account.upstream)
                {
                    warn!(
                        upstream = %account.upstream.escape_debug(),
                        "too many logins failed at this mail server: deltapush refuses logins with unknown names for {}; \
                         if the server does not ban this machine, raise limits.failed_logins.per_upstream and \
                         per_upstream_day",
                        in_words(blocked.wait)
                    );
                }
                OwnRefusal::Limit(blocked)
            }
        };
        Refused::own(LoginResult::Limited, &own).after(delay)
    }
}

/// The verdict of a failed login on its credentials, which the server has got if they were `sent`.
fn outcome(error: &ConnectError, sent: bool) -> LoginOutcome {
    match error.end() {
        ConnectError::Login(LoginError::Refused { answer, untagged }) => {
            match classify(answer, untagged) {
                LoginRefusal::Credentials => LoginOutcome::Refused,
                LoginRefusal::Unclear => LoginOutcome::Unclear,
                LoginRefusal::TooManySessions
                | LoginRefusal::Temporary
                | LoginRefusal::Throttled
                | LoginRefusal::Disabled => LoginOutcome::Nothing,
            }
        }
        _ if !sent => LoginOutcome::Nothing,
        ConnectError::Login(LoginError::Bye(words)) => match classify_bye(words) {
            LoginRefusal::Credentials | LoginRefusal::Unclear => LoginOutcome::Broken,
            LoginRefusal::TooManySessions
            | LoginRefusal::Temporary
            | LoginRefusal::Throttled
            | LoginRefusal::Disabled => LoginOutcome::Nothing,
        },
        _ => LoginOutcome::Broken,
    }
}

/// Reports if the login name is of the domain of the mailbox. With a server that the mailbox's domain names, the owner of
/// that domain could otherwise have passwords of any other domain guessed there, with a new name for the server, and so a
/// new count, whenever one is used up.
fn is_of_one_domain(credentials: &Credentials) -> bool {
    let domain = |login: &str| login.rsplit_once('@').map(|(_, domain)| domain.to_lowercase());
    domain(&credentials.user) == domain(credentials.owner())
}

/// The credentials that the server gets: the route may have another name for the login. From here on that name is the
/// account's, so that a mailbox is one account whichever way its clients come.
///
/// In an exchange the names stand where only the client can write them: the server would log in another than the account is
/// called after.
fn applied(target: &Target, given: Credentials) -> Result<Credentials, Refused> {
    let mut credentials = given.clone();
    credentials.user = target.login_for(&given.user);
    credentials.authorization = given.authorization.as_deref().map(|owner| target.login_for(owner));
    if !given.can_be_used_again() && credentials != given {
        return Err(Refused::own(LoginResult::NoMechanism, &OwnRefusal::OtherName));
    }
    Ok(credentials)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::credentials::Mechanism;
    use crate::upstream::route::Routes;

    #[test]
    fn domain_has_no_passwords_of_another_tried() {
        let login =
            |user: &str, other: &str| Credentials::new(user, "x").on_behalf_of(other.into());
        assert!(
            is_of_one_domain(&Credentials::new("alice", "x"))
                && is_of_one_domain(&login("a@B.example", "c@b.Example"))
        );
        assert!(!is_of_one_domain(&login("victim@big.example", "x@mine.example")));
        assert!(!is_of_one_domain(&login("victim", "x@mine.example")));
    }

    #[test]
    fn exchange_cannot_be_rewritten() {
        let routes = |login: &str| {
            let text = format!(
                "routes: [{{domain: example.org, upstream: \"imaps://imap.example.org\", login: \"{login}\"}}]\n"
            );
            Routes::new(&Config::parse(&text, Path::new(""), "test").unwrap().live.routes)
        };
        let tried = |login: &str, given: &Credentials| {
            let asked = Asked { login: given.owner(), listener: None, host: None };
            let target = routes(login).find(&asked).unwrap();
            applied(&target, given.clone())
                .map_err(|refused| String::from_utf8(refused.answer).unwrap())
        };
        let password = Credentials::new("alice@example.org", "sesame");
        assert_eq!(tried("local", &password).unwrap().user, "alice");
        let scram = Credentials::exchange(
            Mechanism::ScramSha256,
            "alice@example.org",
            "n,,n=alice@example.org,r=x",
        );
        assert!(tried("local", &scram).unwrap_err().starts_with("NO [CANNOT]"));
        assert_eq!(tried("{login}", &scram).unwrap(), scram);
        let boss = scram.on_behalf_of("boss@example.org".into());
        assert!(tried("local", &boss).is_err() && tried("{login}", &boss).is_ok());
    }
}
