//! Introspection (RFC 7662): may this caller see this token, and is it active?

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::value::RawValue;

use crate::domain::{AccessClaims, Client, IntrospectRight, Session, SessionState, Timestamp};

use super::judge::{Doubt, JudgedToken, Judgement, Signature, Verdict};
use super::{Failure, Service};

/// Of one request so many refresh tokens are looked up at the same time: it shall not take all connections of the replica.
const LOOKUPS_AT_ONCE: usize = 4;

/// What an introspection found out. Inactive is one thing, whatever the reason (RFC 7662 §2.2).
#[derive(Debug)]
pub enum Introspection {
    /// An access token that is good, and that the caller may see.
    Access(Arc<JudgedToken>),
    /// A refresh token of the caller's own that can be used.
    Refresh(Session),
    /// Anything else.
    Inactive,
}

/// An introspection and the instant at which it holds.
#[derive(Debug)]
pub struct Introspected {
    /// What was found.
    pub result: Introspection,
    /// When.
    pub at: Timestamp,
    /// [`crate::clock::Clock::elapsed`] when it was found.
    pub proven_at: Duration,
    /// What became of the token's signature.
    pub signature: Signature,
    /// Whether the token is good, and inactive only for this caller: for the operator's log alone (security.md I2, S4).
    pub is_hidden: bool,
}

/// Why introspection gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum CannotIntrospect {
    /// The replica cannot judge now.
    #[error("cannot judge now: {0}")]
    Doubt(Doubt),
    /// The client sent too many forged tokens from this address.
    #[error("too many tokens had a signature that is not valid")]
    TooManyForged {
        /// When the next one is accepted.
        retry_after: Duration,
    },
    /// A refresh token needs the database, and it does not answer.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Service {
    /// Judges `token` for `caller`. `token_type_hint` plays no part: the two kinds cannot be mistaken for each other, so
    /// there is no search for a hint to shorten (RFC 7662 §2.1, security.md I5).
    pub async fn introspect(&self, caller: &Client, token: &str) -> Result<Introspected, CannotIntrospect> {
        if caller.settings.introspect == IntrospectRight::None {
            return self.hidden(caller);
        }
        if crate::crypto::looks_like_refresh_token(token) {
            // On the heap: the future of the usual case stays small.
            let mut introspected = Box::pin(self.introspect_refresh(caller, token)).await?;
            introspected.proven_at = self.clock.elapsed();
            return Ok(introspected);
        }
        let judgement = self.judge.judge(token).await;
        self.shown(caller, judgement)
    }

    /// Judges the tokens of one request from `address`. Refresh tokens are looked up first, because they wait for the database;
    /// access tokens are judged after that, from memory. With the time that each took.
    ///
    /// Each signature that is not valid counts as a failed authentication of the client: a batch makes up to 256 signature
    /// checks. A batch without such a token passes, whatever was counted.
    pub async fn introspect_all(
        &self,
        caller: &Client,
        tokens: &[&str],
        address: IpAddr,
    ) -> Result<Vec<(Introspected, Duration)>, CannotIntrospect> {
        if caller.settings.introspect == IntrospectRight::None {
            return tokens.iter().map(|_| self.hidden(caller).map(|hidden| (hidden, Duration::ZERO))).collect();
        }
        let charge = |judgement: &Judgement| {
            let counted = match &judgement.verdict {
                Verdict::Inactive(reason) if reason.is_forgery() => {
                    self.client_failures.count(caller.id.as_str(), address, self.clock.elapsed())
                }
                _ => Ok(()),
            };
            counted.map_err(|retry_after| CannotIntrospect::TooManyForged { retry_after })
        };
        let (refresh, access): (Vec<usize>, Vec<usize>) =
            (0..tokens.len()).partition(|index| crate::crypto::looks_like_refresh_token(tokens[*index]));
        let mut found = Vec::with_capacity(tokens.len());
        for some in refresh.chunks(LOOKUPS_AT_ONCE) {
            let started = self.clock.elapsed();
            let looked_up =
                try_join_all(some.iter().map(|index| self.introspect_refresh(caller, tokens[*index]))).await?;
            let took = self.clock.elapsed().saturating_sub(started);
            found.extend(some.iter().copied().zip(looked_up).map(|(index, introspected)| (index, introspected, took)));
        }
        let mut started = self.clock.elapsed();
        let chosen: Vec<&str> = access.iter().map(|index| tokens[*index]).collect();
        for (index, judgement) in access.into_iter().zip(self.judge.judge_all(&chosen, charge).await?) {
            let took = judgement.proven_at.saturating_sub(started);
            started = started.max(judgement.proven_at);
            found.push((index, self.shown(caller, judgement)?, took));
        }
        self.end_what_has_ended(&mut found)?;
        found.sort_unstable_by_key(|(index, ..)| *index);
        Ok(found.into_iter().map(|(_, introspected, took)| (introspected, took)).collect())
    }

    /// The answer to a client that may introspect nothing: no token is verified for it.
    fn hidden(&self, caller: &Client) -> Result<Introspected, CannotIntrospect> {
        if let Some(doubt) = self.judge.doubt() {
            return Err(CannotIntrospect::Doubt(doubt));
        }
        self.denials.count(&caller.id, 1);
        let (at, proven_at) = (self.clock.now(), self.clock.elapsed());
        Ok(Introspected {
            result: Introspection::Inactive,
            at,
            proven_at,
            signature: Signature::Foreign,
            is_hidden: true,
        })
    }

    /// A session may have been ended since it was read.
    fn end_what_has_ended(&self, found: &mut [(usize, Introspected, Duration)]) -> Result<(), CannotIntrospect> {
        let now = self.clock.now();
        let mut is_in_doubt = false;
        for (_, introspected, _) in found {
            if let Introspection::Refresh(session) = &introspected.result {
                is_in_doubt = true;
                if self.view.has_ended(session, now) || session.has_expired(now) {
                    introspected.result = Introspection::Inactive;
                }
            }
        }
        match self.judge.doubt() {
            Some(doubt) if is_in_doubt => Err(CannotIntrospect::Doubt(doubt)),
            _ => Ok(()),
        }
    }

    /// What the caller is shown of a judgement.
    fn shown(&self, caller: &Client, judgement: Judgement) -> Result<Introspected, CannotIntrospect> {
        let mut is_hidden = false;
        let result = match judgement.verdict {
            Verdict::Active(token) if may_see(caller, &token.claims) => Introspection::Access(token),
            Verdict::Active(token) => {
                tracing::info!(caller = %caller.id, jti = %token.claims.jti, "a client may not see the token it asked about");
                self.denials.count(&caller.id, 1);
                is_hidden = true;
                Introspection::Inactive
            }
            Verdict::Inactive(reason) => {
                tracing::debug!(caller = %caller.id, %reason, "inactive token");
                Introspection::Inactive
            }
            Verdict::CannotJudge(doubt) => return Err(CannotIntrospect::Doubt(doubt)),
        };
        let Judgement { signature, at, proven_at, .. } = judgement;
        Ok(Introspected { result, at, proven_at, signature, is_hidden })
    }

    /// An introspection as a JWT for the client that asked (RFC 9701 §5): nested, with a `typ` and without `sub` and `exp`
    /// of its own, so that it can never pass for an access token.
    pub fn sign_introspection(&self, caller: &Client, answer: &RawValue, at: Timestamp) -> Result<String, Failure> {
        #[derive(serde::Serialize)]
        struct Claims<'a> {
            iss: &'a str,
            aud: &'a str,
            iat: i64,
            token_introspection: &'a RawValue,
        }
        let algorithm = caller.settings.algorithm.unwrap_or(self.settings.algorithm);
        let keys = self.keyring.keys();
        let key = keys.signer(algorithm, at).ok_or_else(|| Failure::no_signing_key(algorithm))?;
        let claims =
            Claims { iss: &self.issuer, aud: caller.id.as_str(), iat: at.seconds(), token_introspection: answer };
        key.signing.sign_jwt("token-introspection+jwt", &claims).map_err(Failure::internal)
    }

    /// Refresh tokens are seen by their own client alone (security.md I6). They live in the database, not in the view.
    async fn introspect_refresh(&self, caller: &Client, token: &str) -> Result<Introspected, CannotIntrospect> {
        if let Some(doubt) = self.judge.doubt() {
            return Err(CannotIntrospect::Doubt(doubt));
        }
        let at = self.clock.now();
        let proven_at = self.clock.elapsed();
        let inactive = Introspected {
            result: Introspection::Inactive,
            at,
            proven_at,
            signature: Signature::Foreign,
            is_hidden: false,
        };
        let Ok(token) = self.refresh_codec.read(token) else {
            return Ok(inactive);
        };
        let family = token.family.digest().0;
        let found = self.store.sessions().proven(token.session, family).await.map_err(Failure::from)?;
        let Some(found) = found.filter(|found| found.is_current) else {
            return Ok(inactive);
        };
        let session = found.detail.session;
        let is_live = session.state == SessionState::Live && !session.has_expired(at);
        if session.generation != token.generation || !is_live {
            return Ok(inactive);
        }
        if caller.id != session.client {
            tracing::info!(caller = %caller.id, %session.id, "a client may not see the refresh token it asked about");
            self.denials.count(&caller.id, 1);
            return Ok(Introspected { is_hidden: true, ..inactive });
        }
        Ok(Introspected { result: Introspection::Refresh(session), ..inactive })
    }
}

/// The caller rule (security.md I2): its own token, a token for one of its resources, or any token for a gateway.
pub fn may_see(caller: &Client, claims: &AccessClaims) -> bool {
    match caller.settings.introspect {
        IntrospectRight::Any => true,
        IntrospectRight::None => false,
        IntrospectRight::Own => {
            claims.client == caller.id || claims.audience.iter().any(|audience| caller.owns(audience))
        }
    }
}
