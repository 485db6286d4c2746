//! Answers of the hook: a status and a short JSON object.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{ALLOW, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};

use super::body::ReadProblem;
use super::formats::BodyProblem;
use super::tokens::TokenProblem;
use crate::http::response::{self, Body};
use crate::push::server_news::{NewsError, NewsOutcome};
use crate::telemetry::NewsRefusal;

/// The methods of the hook: Dovecot's OX driver has PUT, all others POST.
pub(super) const METHODS: &str = "POST, PUT";

/// The wait for a sender whose news is too much, or cannot be stored now.
const WAIT: Duration = Duration::from_secs(1);

const JSON: &str = "application/json";

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The key of the text.
    key: &'static str,
    pub(super) text: String,
    /// The time after which a repetition makes sense.
    wait: Option<Duration>,
    /// The reason of a refusal, for the metrics.
    pub(super) refusal: Option<NewsRefusal>,
}

impl Answer {
    /// News was taken; none, if there was nothing for deltapush in it.
    pub(super) fn taken(outcome: Option<NewsOutcome>) -> Self {
        let text = outcome.map_or("ignored", NewsOutcome::as_str).to_owned();
        Self { status: StatusCode::OK, key: "outcome", text, wait: None, refusal: None }
    }

    pub(super) fn refused(status: StatusCode, refusal: NewsRefusal, text: impl ToString) -> Self {
        let text = text.to_string();
        Self { status, key: "error", text, wait: None, refusal: Some(refusal) }
    }

    /// The time is over before all was stored.
    pub(super) fn too_slow() -> Self {
        let text = "the news could not be stored in time; send it again";
        Self::refused(StatusCode::SERVICE_UNAVAILABLE, NewsRefusal::State, text).after(WAIT)
    }

    /// deltapush ends before it has the whole request.
    pub(super) fn ending() -> Self {
        let text = "deltapush is restarting; send it again";
        Self::refused(StatusCode::SERVICE_UNAVAILABLE, NewsRefusal::State, text).after(WAIT)
    }

    /// Too many requests are in progress.
    pub(super) fn busy() -> Self {
        let text = "too many requests at once; send it again in a second";
        Self::refused(StatusCode::TOO_MANY_REQUESTS, NewsRefusal::Rate, text).after(WAIT)
    }

    fn after(self, wait: Duration) -> Self {
        Self { wait: Some(wait), ..self }
    }

    pub(super) fn into_response(self) -> hyper::Response<Body> {
        let body = serde_json::json!({ self.key: self.text });
        let mut response = response::whole(JSON, format!("{body}\n"));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(wait) = self.wait {
            let seconds = wait.as_secs().max(1);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        match self.status {
            StatusCode::UNAUTHORIZED => {
                let challenge = HeaderValue::from_static("Bearer realm=\"deltapush\"");
                headers.insert(WWW_AUTHENTICATE, challenge);
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, HeaderValue::from_static(METHODS));
            }
            _ => {}
        }
        response::secure(headers, response::CLOSED);
        response
    }
}

impl From<TokenProblem> for Answer {
    fn from(problem: TokenProblem) -> Self {
        let refusal = NewsRefusal::Token;
        match problem {
            TokenProblem::Missing => Self::refused(
                StatusCode::UNAUTHORIZED,
                refusal,
                "the request needs a token: send `Authorization: Bearer TOKEN`, or the token as password",
            ),
            TokenProblem::Wrong { .. } => Self::refused(
                StatusCode::UNAUTHORIZED,
                refusal,
                "the token is not one of `news.tokens` in the configuration of deltapush",
            ),
            TokenProblem::TooSoon(wait) => Self::refused(
                StatusCode::TOO_MANY_REQUESTS,
                refusal,
                "several wrong tokens came from this address: wait a moment",
            )
            .after(wait + Duration::from_secs(1)),
        }
    }
}

impl From<ReadProblem> for Answer {
    fn from(problem: ReadProblem) -> Self {
        let status = match problem {
            ReadProblem::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            ReadProblem::TooSlow => StatusCode::REQUEST_TIMEOUT,
            ReadProblem::Broken => StatusCode::BAD_REQUEST,
        };
        Self::refused(status, NewsRefusal::Body, problem)
    }
}

impl From<BodyProblem> for Answer {
    fn from(problem: BodyProblem) -> Self {
        let status = match problem {
            BodyProblem::TooMany => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::refused(status, NewsRefusal::Body, problem)
    }
}

impl From<NewsError> for Answer {
    fn from(error: NewsError) -> Self {
        match &error {
            NewsError::Invalid(_) => {
                Self::refused(StatusCode::BAD_REQUEST, NewsRefusal::Body, error)
            }
            NewsError::Ambiguous => {
                Self::refused(StatusCode::BAD_REQUEST, NewsRefusal::Account, error)
            }
            NewsError::NotConfigured | NewsError::OutOfScope => {
                Self::refused(StatusCode::FORBIDDEN, NewsRefusal::Account, error)
            }
            NewsError::TooMany => {
                Self::refused(StatusCode::TOO_MANY_REQUESTS, NewsRefusal::Rate, error).after(WAIT)
            }
            // The cause is the operator's business: the log has it.
            NewsError::Store(_) => Self::refused(
                StatusCode::SERVICE_UNAVAILABLE,
                NewsRefusal::State,
                "the state of deltapush cannot be written; send it again",
            )
            .after(WAIT),
        }
    }
}

/// Of two answers to messages of one body, the one that is given, then the other. First are those after which a repetition helps, then
/// successes, of these the one that did most. A refusal that stays is last: the mail server would repeat all messages of the body, in vain.
pub(super) fn ordered(one: Answer, other: Answer) -> (Answer, Answer) {
    if other.rank() > one.rank() { (other, one) } else { (one, other) }
}

impl Answer {
    fn rank(&self) -> (u8, u8) {
        let kind = match self.status {
            StatusCode::BAD_REQUEST => 0,
            StatusCode::FORBIDDEN => 1,
            StatusCode::OK => 2,
            StatusCode::TOO_MANY_REQUESTS => 3,
            _ => 4,
        };
        let order = [
            NewsOutcome::NoDevice,
            NewsOutcome::OtherMailbox,
            NewsOutcome::Known,
            NewsOutcome::Skipped(""),
            NewsOutcome::Announced,
        ];
        let effect = order.iter().zip(1..).find(|(outcome, _)| outcome.as_str() == self.text);
        (kind, effect.map_or(0, |(_, rank)| rank))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_is_asked_for_only_where_it_helps_and_of_successes_the_one_that_did_most_counts() {
        let taken = |outcome| Answer::taken(Some(outcome));
        let of = |answers: Vec<Answer>| {
            let answer = answers.into_iter().reduce(|one, other| ordered(one, other).0).unwrap();
            (answer.status.as_u16(), answer.text)
        };
        let (known, announced) = (NewsOutcome::Known, NewsOutcome::Announced);
        assert_eq!(
            of(vec![taken(known), taken(announced), taken(NewsOutcome::NoDevice)]).1,
            "announced"
        );
        let refused = || Answer::from(NewsError::OutOfScope);
        assert_eq!(of(vec![refused(), taken(announced), refused(), taken(known)]).1, "announced");
        assert_eq!(of(vec![NewsError::Invalid("x").into(), refused()]).0, 403);
        assert_eq!(of(vec![NewsError::TooMany.into(), refused()]).0, 429);
        assert_eq!(of(vec![refused(), NewsError::Invalid("x").into(), Answer::too_slow()]).0, 503);
        assert_eq!(of(vec![Answer::taken(None)]).1, "ignored");
    }

    #[test]
    fn answer_is_json_with_a_wait_where_a_repetition_helps() {
        let response = Answer::from(NewsError::TooMany).into_response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()[RETRY_AFTER]),
            (429, &HeaderValue::from_static("1"))
        );
        assert_eq!(response.headers()["content-type"], JSON);
        let response =
            Answer::from(TokenProblem::TooSoon(Duration::from_millis(1500))).into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        let response = Answer::from(TokenProblem::Missing).into_response();
        assert!(
            response.headers().contains_key(WWW_AUTHENTICATE)
                && !response.headers().contains_key(RETRY_AFTER)
        );
    }
}
