//! Settings of access tokens, sessions and refresh.

use std::time::Duration;

use super::issuer::Issuer;
use super::reader::Reader;
use super::section::section;
use crate::domain::{Algorithm, Audience, TokenType};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// An offline verifier accepts a revoked token for at most this time. A shorter time means more refreshes.
const ACCESS_TTL: Duration = Duration::from_secs(5 * 60);
/// A shorter time is within the clock skew of verifiers. A longer one exceeds the retention of revocations.
const ACCESS_TTL_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(30)..=HOUR;
/// Signs twenty times faster than RSA, and the service can generate its keys.
const ALGORITHM: Algorithm = Algorithm::Es256;

/// Users who return within two weeks stay logged in.
const IDLE_TTL: Duration = Duration::from_secs(14 * 86_400);
/// Bounds the use of a stolen device to three months.
const ABSOLUTE_TTL: Duration = Duration::from_secs(90 * 86_400);
/// Far more than one person's devices. Bounds the sessions that a script creates in a loop (security.md R12).
const MAX_PER_USER: u32 = 100;

/// Long enough for one retry by common mobile network stacks, and short enough to limit the use of a stolen token
/// (security.md R4).
const RETRY_WINDOW: Duration = Duration::from_secs(10);

section! {
    Tokens(read, issuer: &Issuer) in ["tokens"] as "Tokens" {
        /// Lifetime of an access token. An offline verifier accepts a revoked token for at most this time. A client can
        /// override it.
        access_ttl: Duration = ACCESS_TTL, in ACCESS_TTL_RANGE;
        /// `ES256`, `EdDSA`, `RS256` or `PS256`. RSA keys must be imported. A client can override it: AWS HTTP APIs and
        /// lua-resty-openidc accept only RSA.
        algorithm: Algorithm = ALGORITHM;
        /// The `typ` header: `at+jwt` (RFC 9068), or `JWT` for verifiers that reject `at+jwt`, such as Spring's default
        /// decoder. A client can override it.
        token_type as "type": TokenType = TokenType::AtJwt;
        /// `aud` of tokens for clients without an audience. The default is the issuer.
        default_audience: Audience, load read
            .optional("tokens.default_audience", "the issuer", "`aud` of tokens for clients without an audience.")
            .unwrap_or_else(|| issuer.as_audience());
    }
}

section! {
    Sessions(read) in ["sessions"] as "Sessions" {
        /// A session ends this long after its last refresh.
        idle_ttl: Duration = IDLE_TTL, in MINUTE..=400 * DAY;
        /// A session ends this long after the login, even if it is refreshed.
        absolute_ttl: Duration = ABSOLUTE_TTL, in MINUTE..=3650 * DAY;
        /// Maximum number of live sessions of one user. A further login ends the oldest session.
        max_per_user: u32 = MAX_PER_USER, in 1..=10_000;
    }
}

impl Sessions {
    pub(super) fn check(&self, read: &mut Reader<'_>) {
        read.rule(
            &["sessions.idle_ttl", "sessions.absolute_ttl"],
            self.idle_ttl <= self.absolute_ttl,
            "is longer than sessions.absolute_ttl",
            "lower it, or raise sessions.absolute_ttl",
        );
    }
}

section! {
    Refresh(read) in ["refresh"] {
        /// How long a superseded refresh token gets the session's current pair, in case a response was lost or several
        /// browser tabs hold copies of one token. With 0, every second use of a refresh token ends the session.
        retry_window: Duration = RETRY_WINDOW, in Duration::ZERO..=60 * SECOND;
    }
}
