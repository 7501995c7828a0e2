//! Access tokens, sessions and their refresh.

use std::time::Duration;

use super::issuer::Issuer;
use super::reader::Reader;
use crate::domain::{Algorithm, Audience, TokenType};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// How long an offline verifier goes on believing a revoked token: minutes, not hours. Shorter multiplies refreshes.
const ACCESS_TTL: Duration = Duration::from_secs(5 * 60);
/// Shorter would be eaten up by the clock differences of verifiers; longer would outlive what revocations are kept for.
const ACCESS_TTL_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(30)..=HOUR;
/// Signs twenty times faster than RSA, and its keys are made here rather than imported.
const ALGORITHM: Algorithm = Algorithm::Es256;

/// A user who was away on holiday logs in again; one who was not stays logged in.
const IDLE_TTL: Duration = Duration::from_secs(14 * 86_400);
/// A stolen device is out after a season, whatever it does.
const ABSOLUTE_TTL: Duration = Duration::from_secs(90 * 86_400);
/// Far above the devices of one person; bounds what a looping script leaves behind (security.md R12).
const MAX_PER_USER: u32 = 100;

/// Long enough for one retry by every mobile network stack that we know of, too short to be of use with a stolen token
/// (security.md R4).
const RETRY_WINDOW: Duration = Duration::from_secs(10);

/// Access tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Lifetime, unless the client has its own.
    pub access_ttl: Duration,
    /// Signature algorithm, unless the client has its own.
    pub algorithm: Algorithm,
    /// `typ` of the header, unless the client has its own.
    pub token_type: TokenType,
    /// `aud` of tokens for clients that name none: the issuer, unless set.
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
                "Lifetime of an access token, and so the time for which an offline verifier believes a revoked one. Clients \
                 can have their own.",
            ),
            algorithm: read.setting(
                "tokens.algorithm",
                ALGORITHM,
                "`ES256`, `EdDSA`, `RS256` or `PS256`. RSA keys must be imported. Clients can have their own: AWS HTTP APIs \
                 and lua-resty-openidc take RSA only.",
            ),
            token_type: read.setting(
                "tokens.type",
                TokenType::AtJwt,
                "`typ` of the header: `at+jwt` (RFC 9068), or `JWT` for verifiers that refuse it, such as Spring's default \
                 decoder. Clients can have their own.",
            ),
            default_audience: read
                .optional("tokens.default_audience", "the issuer", "`aud` of tokens for clients that name none.")
                .unwrap_or_else(|| issuer.as_audience()),
        }
    }
}

/// Sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sessions {
    /// A session ends when it was not refreshed for so long.
    pub idle_ttl: Duration,
    /// A session ends so long after the login, whatever happens.
    pub absolute_ttl: Duration,
    /// Live sessions of one user; a further login ends the oldest.
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
                "A session ends when it was not refreshed for so long.",
            ),
            absolute_ttl: read.within(
                "sessions.absolute_ttl",
                ABSOLUTE_TTL,
                MINUTE..=3650 * DAY,
                "A session ends so long after the login, whatever happens.",
            ),
            max_per_user: read.within(
                "sessions.max_per_user",
                MAX_PER_USER,
                1..=10_000,
                "Live sessions of one user; a further login ends the oldest.",
            ),
        };
        let is_reachable = sessions.idle_ttl <= sessions.absolute_ttl;
        let names = ["sessions.idle_ttl", "sessions.absolute_ttl"];
        read.rule(&names, is_reachable, "is longer than sessions.absolute_ttl", "shorten it, or lengthen the other");
        sessions
    }
}

/// Rotation of refresh tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refresh {
    /// How long after it was superseded a refresh token returns the current pair; 0 turns retries off.
    pub retry_window: Duration,
}

impl Refresh {
    pub(super) fn load(read: &mut Reader<'_>) -> Self {
        Self {
            retry_window: read.within(
                "refresh.retry_window",
                RETRY_WINDOW,
                Duration::ZERO..=60 * SECOND,
                "How long after it was superseded a refresh token returns the session's current pair: for lost answers, and for \
                 browser tabs with copies of one token. 0 makes every second use theft.",
            ),
        }
    }
}
