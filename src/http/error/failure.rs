//! What an error leaves on its response for the middleware: the code for the log line, the cause for the operator, and
//! a problem body that still lacks the request id. Turning an error into a response has no side effects.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};

use super::Challenge;
use super::problem::Problem;

/// Why a request failed, for the log alone; shared because response extensions are cloned.
#[derive(Clone)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl Cause {
    /// Keeps the error that stands behind an answer.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(error.into()))
    }
}

impl fmt::Display for Cause {
    /// The error and everything beneath it, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            write!(f, ": {error}")?;
            next = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The response extension that every error answer carries.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// The stable code of the catalogue, or the OAuth error.
    pub(crate) code: &'static str,
    /// What stands behind it.
    pub(crate) cause: Option<Cause>,
    /// The body, where it names the request id and so cannot be written yet.
    pub(crate) problem: Option<Arc<Problem>>,
}

/// The headers that both shapes of error have in common.
pub(super) fn set_headers(
    headers: &mut HeaderMap,
    content_type: &'static str,
    challenge: Option<&Challenge>,
    retry_after: Option<Duration>,
) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(challenge) = challenge {
        headers.insert(WWW_AUTHENTICATE, challenge.value());
    }
    if let Some(wait) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
}

/// `Retry-After` in whole seconds, rounded up, at least 1: an early retry would only be refused again.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l5_retry_after_never_sends_a_caller_back_too_early() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1_001)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(30)), 30);
    }

    #[test]
    fn a_cause_prints_the_whole_chain() {
        #[derive(Debug, thiserror::Error)]
        #[error("the session could not be read")]
        struct Outer(#[source] std::io::Error);
        let cause = Cause::new(Outer(std::io::Error::other("disk full")));
        assert_eq!(cause.to_string(), "the session could not be read: disk full");
    }
}
