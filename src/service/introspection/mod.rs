//! Introspection (RFC 7662): whether a token is active, and whether the verdict is visible to the caller.

pub(crate) mod denials;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::value::RawValue;

use crate::domain::{AccessClaims, Client, IntrospectRight, Session, SessionState, Timestamp};
use crate::replica::Replica;
use crate::service::judge::{JudgedToken, Judgement, Signature, Unavailable, Verdict};
use crate::service::{ClientFailures, Denials, Failure, Judge, Tokens};

/// Concurrent lookups of refresh tokens per request, so that one request does not take all connections of the replica.
const LOOKUPS_AT_ONCE: usize = 4;

/// The result of an introspection. `Inactive` has no reason (RFC 7662 §2.2).
#[derive(Debug)]
pub enum Introspection {
    /// An active access token that is visible to the caller.
    Access(Arc<JudgedToken>),
    /// The current refresh token of a session of the caller.
    Refresh(Session),
    /// Any other text.
    Inactive,
    /// In a batch: the verdict depends on a stored row that cannot be read. The other tokens are judged (security.md D18).
    Undecided,
}

/// The result of an introspection, and the instant at which it was true.
#[derive(Debug)]
pub struct Introspected {
    pub result: Introspection,
    /// The instant at which the result was true.
    pub at: Timestamp,
    /// [`crate::clock::Clock::elapsed`] when the freshness of the view was checked.
    pub checked_at: Duration,
    pub signature: Signature,
    /// Whether the verdict is not visible to the caller. Only for the log (security.md I2, S4).
    pub is_hidden: bool,
}

/// Why introspection failed.
#[derive(Debug, thiserror::Error)]
pub enum IntrospectionError {
    /// The replica gives no verdict now.
    #[error("no verdict available: {0}")]
    Unavailable(Unavailable),
    /// The client sent too many forged tokens from this address.
    #[error("too many tokens had a signature that is not valid")]
    TooManyForged {
        /// Time until the next one is accepted.
        retry_after: Duration,
    },
    /// The database, which a refresh token needs, failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Answers introspection.
pub struct Introspections {
    pub(crate) replica: Replica,
    pub(crate) judge: Arc<Judge>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) client_failures: Arc<ClientFailures>,
    pub(crate) denials: Denials,
}

impl Introspections {
    /// Judges `token` for `caller`. `token_type_hint` is not needed, because the two kinds of token differ in their form
    /// (RFC 7662 §2.1, security.md I5).
    pub async fn introspect(&self, caller: &Client, token: &str) -> Result<Introspected, IntrospectionError> {
        if caller.settings.introspect == IntrospectRight::None {
            return self.hidden(caller);
        }
        if crate::crypto::looks_like_refresh_token(token) {
            // Boxed to keep the future of the common case small.
            let mut introspected = Box::pin(self.introspect_refresh(caller, token)).await?;
            introspected.checked_at = self.replica.clock.elapsed();
            return Ok(introspected);
        }
        let judgement = self.judge.judge(token).await;
        self.shown(caller, judgement)
    }

    /// Judges the tokens of one request from `address`, and returns the time that each took. Refresh tokens are looked up
    /// first, because they wait for the database. Access tokens are judged after that, from memory.
    ///
    /// Each invalid signature counts as a failed authentication of the client, because a batch can cause 256 signature
    /// checks. A batch without invalid signatures is accepted regardless of earlier failures.
    pub async fn introspect_all(
        &self,
        caller: &Client,
        tokens: &[&str],
        address: IpAddr,
    ) -> Result<Vec<(Introspected, Duration)>, IntrospectionError> {
        if caller.settings.introspect == IntrospectRight::None {
            return tokens.iter().map(|_| self.hidden(caller).map(|hidden| (hidden, Duration::ZERO))).collect();
        }
        let charge = |judgement: &Judgement| {
            let counted = match &judgement.verdict {
                Verdict::Inactive(reason) if reason.is_forgery() => {
                    self.client_failures.count(caller.id.as_str(), address, self.replica.clock.elapsed())
                }
                _ => Ok(()),
            };
            counted.map_err(|retry_after| IntrospectionError::TooManyForged { retry_after })
        };
        let (refresh, access): (Vec<usize>, Vec<usize>) =
            (0..tokens.len()).partition(|index| crate::crypto::looks_like_refresh_token(tokens[*index]));
        let mut found = Vec::with_capacity(tokens.len());
        for some in refresh.chunks(LOOKUPS_AT_ONCE) {
            let started = self.replica.clock.elapsed();
            let looked_up = try_join_all(some.iter().map(async |index| {
                let judged = self.introspect_refresh(caller, tokens[*index]).await;
                self.undecided_alone(judged)
            }));
            let looked_up = looked_up.await?;
            let took = self.replica.clock.elapsed().saturating_sub(started);
            found.extend(some.iter().copied().zip(looked_up).map(|(index, introspected)| (index, introspected, took)));
        }
        let mut started = self.replica.clock.elapsed();
        let chosen: Vec<&str> = access.iter().map(|index| tokens[*index]).collect();
        for (index, judgement) in access.into_iter().zip(self.judge.judge_all(&chosen, charge).await?) {
            let took = judgement.checked_at.saturating_sub(started);
            started = started.max(judgement.checked_at);
            found.push((index, self.undecided_alone(self.shown(caller, judgement))?, took));
        }
        self.end_what_has_ended(&mut found)?;
        found.sort_unstable_by_key(|(index, ..)| *index);
        Ok(found.into_iter().map(|(_, introspected, took)| (introspected, took)).collect())
    }

    /// Confines an unreadable row to the tokens of a batch that depend on it.
    fn undecided_alone(
        &self,
        judged: Result<Introspected, IntrospectionError>,
    ) -> Result<Introspected, IntrospectionError> {
        let is_of_row = match &judged {
            Err(IntrospectionError::Unavailable(reason)) => reason.is_of_row(),
            Err(IntrospectionError::Failed(Failure::UnreadableRow(error))) => {
                tracing::error!(%error, "a row on which a refresh token depends cannot be read");
                true
            }
            _ => false,
        };
        if !is_of_row {
            return judged;
        }
        Ok(Introspected {
            result: Introspection::Undecided,
            at: self.replica.clock.now(),
            checked_at: self.replica.clock.elapsed(),
            signature: Signature::Foreign,
            is_hidden: false,
        })
    }

    /// The result for a client without the right to introspect. No token is verified for it.
    fn hidden(&self, caller: &Client) -> Result<Introspected, IntrospectionError> {
        if let Some(reason) = self.judge.unavailable() {
            return Err(IntrospectionError::Unavailable(reason));
        }
        self.denials.count(&caller.id, 1);
        let (at, checked_at) = (self.replica.clock.now(), self.replica.clock.elapsed());
        Ok(Introspected {
            result: Introspection::Inactive,
            at,
            checked_at,
            signature: Signature::Foreign,
            is_hidden: true,
        })
    }

    /// Makes refresh tokens inactive whose session has ended since it was read.
    fn end_what_has_ended(&self, found: &mut [(usize, Introspected, Duration)]) -> Result<(), IntrospectionError> {
        let now = self.replica.clock.now();
        let mut is_unavailable = false;
        for (_, introspected, _) in found {
            if let Introspection::Refresh(session) = &introspected.result {
                is_unavailable = true;
                if self.replica.view.has_ended(session, now) || session.has_expired(now) {
                    introspected.result = Introspection::Inactive;
                }
            }
        }
        match self.judge.unavailable() {
            Some(reason) if is_unavailable => Err(IntrospectionError::Unavailable(reason)),
            _ => Ok(()),
        }
    }

    /// The part of a judgement that is visible to the caller.
    fn shown(&self, caller: &Client, judgement: Judgement) -> Result<Introspected, IntrospectionError> {
        let mut is_hidden = false;
        let result = match judgement.verdict {
            Verdict::Active(token) if may_see(caller, &token.claims) => Introspection::Access(token),
            Verdict::Active(token) => {
                tracing::info!(caller = %caller.id, jti = %token.claims.jti, "introspection denied: the token is not visible to the client");
                self.denials.count(&caller.id, 1);
                is_hidden = true;
                Introspection::Inactive
            }
            Verdict::Inactive(reason) => {
                tracing::debug!(caller = %caller.id, %reason, "inactive token");
                Introspection::Inactive
            }
            Verdict::Unavailable(reason) => return Err(IntrospectionError::Unavailable(reason)),
        };
        let Judgement { signature, at, checked_at, .. } = judgement;
        Ok(Introspected { result, at, checked_at, signature, is_hidden })
    }

    /// The introspection response as a JWT for the caller (RFC 9701 §5). The claims are nested, and the JWT has its own `typ`
    /// and no `sub` and `exp`, so that it can never be used as an access token.
    pub fn sign_introspection(&self, caller: &Client, answer: &RawValue, at: Timestamp) -> Result<String, Failure> {
        #[derive(serde::Serialize)]
        struct Claims<'a> {
            iss: &'a str,
            aud: &'a str,
            iat: i64,
            token_introspection: &'a RawValue,
        }
        let algorithm = caller.settings.algorithm.unwrap_or(self.tokens.settings.algorithm);
        let keys = self.replica.keyring.keys();
        let key = keys.signer(algorithm, at).ok_or_else(|| Failure::no_signing_key(algorithm))?;
        let claims = Claims {
            iss: &self.tokens.issuer,
            aud: caller.id.as_str(),
            iat: at.seconds(),
            token_introspection: answer,
        };
        key.signing.sign_jwt("token-introspection+jwt", &claims).map_err(Failure::internal)
    }

    /// A refresh token is visible only to its own client (security.md I6). It is looked up in the database, not in the view.
    async fn introspect_refresh(&self, caller: &Client, token: &str) -> Result<Introspected, IntrospectionError> {
        if let Some(reason) = self.judge.unavailable() {
            return Err(IntrospectionError::Unavailable(reason));
        }
        let at = self.replica.clock.now();
        let checked_at = self.replica.clock.elapsed();
        let inactive = Introspected {
            result: Introspection::Inactive,
            at,
            checked_at,
            signature: Signature::Foreign,
            is_hidden: false,
        };
        let Ok(token) = self.tokens.refresh_codec.read(token) else {
            return Ok(inactive);
        };
        let family = token.family.digest().0;
        let found = self.replica.store.sessions().matching(token.session, family).await.map_err(Failure::from)?;
        let Some(found) = found.filter(|found| found.is_current) else {
            return Ok(inactive);
        };
        let session = found.detail.session;
        let is_live = session.state == SessionState::Live && !session.has_expired(at);
        if session.generation != token.generation || !is_live {
            return Ok(inactive);
        }
        if caller.id != session.client {
            tracing::info!(caller = %caller.id, %session.id, "introspection denied: the refresh token is not visible to the client");
            self.denials.count(&caller.id, 1);
            return Ok(Introspected { is_hidden: true, ..inactive });
        }
        Ok(Introspected { result: Introspection::Refresh(session), ..inactive })
    }
}

/// Whether a token is visible to the caller (security.md I2): the client's own tokens, tokens for its audiences, or all tokens
/// for a gateway.
pub fn may_see(caller: &Client, claims: &AccessClaims) -> bool {
    match caller.settings.introspect {
        IntrospectRight::Any => true,
        IntrospectRight::None => false,
        IntrospectRight::Own => {
            claims.client == caller.id || claims.audience.iter().any(|audience| caller.owns(audience))
        }
    }
}
