//! Settings of access tokens, sessions and refresh.

use std::time::Duration;

use super::issuer::Issuer;
use super::reader::Reader;
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

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// A client can override it.
    pub access_ttl: Duration,
    /// A client can override it.
    pub algorithm: Algorithm,
    /// The `typ` header; a client can override it.
    pub token_type: TokenType,
    /// `aud` of tokens for clients without an audience. The default is the issuer.
    pub default_audience: Audience,
}

impl Tokens {
    pub(super) fn load(read: &mut Reader<'_>, issuer: &Issuer) -> Self {
        read.section("Tokens");
        Self {
            access_ttl: read.within(
                "tokens.access_ttl",
                ACCESS_TTL,
                ACCESS_TTL_RANGE,
                "Lifetime of an access token. An offline verifier accepts a revoked token for at most this time. A client can \
                 override it.",
            ),
            algorithm: read.setting(
                "tokens.algorithm",
                ALGORITHM,
                "`ES256`, `EdDSA`, `RS256` or `PS256`. RSA keys must be imported. A client can override it: AWS HTTP APIs and \
                 lua-resty-openidc accept only RSA.",
            ),
            token_type: read.setting(
                "tokens.type",
                TokenType::AtJwt,
                "The `typ` header: `at+jwt` (RFC 9068), or `JWT` for verifiers that reject `at+jwt`, such as Spring's default \
                 decoder. A client can override it.",
            ),
            default_audience: read
                .optional("tokens.default_audience", "the issuer", "`aud` of tokens for clients without an audience.")
                .unwrap_or_else(|| issuer.as_audience()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sessions {
    /// Maximum time since the last refresh.
    pub idle_ttl: Duration,
    /// Maximum time since the login.
    pub absolute_ttl: Duration,
    /// A further login ends the oldest session.
    pub max_per_user: u32,
}

impl Sessions {
    pub(super) fn load(read: &mut Reader<'_>) -> Self {
        read.section("Sessions");
        let sessions = Self {
            idle_ttl: read.within(
                "sessions.idle_ttl",
                IDLE_TTL,
                MINUTE..=400 * DAY,
                "A session ends this long after its last refresh.",
            ),
            absolute_ttl: read.within(
                "sessions.absolute_ttl",
                ABSOLUTE_TTL,
                MINUTE..=3650 * DAY,
                "A session ends this long after the login, even if it is refreshed.",
            ),
            max_per_user: read.within(
                "sessions.max_per_user",
                MAX_PER_USER,
                1..=10_000,
                "Maximum number of live sessions of one user. A further login ends the oldest session.",
            ),
        };
        let is_reachable = sessions.idle_ttl <= sessions.absolute_ttl;
        let names = ["sessions.idle_ttl", "sessions.absolute_ttl"];
        read.rule(
            &names,
            is_reachable,
            "is longer than sessions.absolute_ttl",
            "lower it, or raise sessions.absolute_ttl",
        );
        sessions
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refresh {
    /// How long a superseded refresh token gets the session's current pair. Zero turns retries off.
    pub retry_window: Duration,
}

impl Refresh {
    pub(super) fn load(read: &mut Reader<'_>) -> Self {
        Self {
            retry_window: read.within(
                "refresh.retry_window",
                RETRY_WINDOW,
                Duration::ZERO..=60 * SECOND,
                "How long a superseded refresh token gets the session's current pair, in case a response was lost or several \
                 browser tabs hold copies of one token. With 0, every second use of a refresh token ends the session.",
            ),
        }
    }
}
