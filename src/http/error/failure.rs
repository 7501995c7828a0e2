//! The extension of an error response: the code for the log line, the cause for the operator, and a problem body
//! without the request id. The middleware reads it. Converting an error into a response has no side effects.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};

use super::Challenge;
use super::problem::Problem;

/// The cause of a failure, for the log only. It is shared, because response extensions are cloned.
#[derive(Clone)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl Cause {
    /// Wraps the error that caused a failure.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(error.into()))
    }
}

impl fmt::Display for Cause {
    /// The error and its sources, on one line.
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

/// Response extension of every error answer.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// The stable code of the catalogue, or the OAuth error.
    pub(crate) code: &'static str,
    pub(crate) cause: Option<Cause>,
    /// The body of a problem. The middleware writes it, because it contains the request id.
    pub(crate) problem: Option<Arc<Problem>>,
}

/// Sets the headers of both error formats.
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
    fn l5_retry_after_is_rounded_up() {
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
