//! Decides whether an access token is active. Introspection, batch introspection, forward-auth and every endpoint that takes
//! a bearer token use this module (security.md section 6: each rule exists once).
//!
//! It reads only memory. A token's signature is verified once, and the verified token is cached by the SHA-256 of its text.
//! Later requests check the time again, and the revocation maps if the view has changed.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::{Clock, ClockFault};
use crate::crypto::{self, ClaimsRefusal, JwsRefusal, TokenRefusal, VerifiedToken};
use crate::domain::{AccessClaims, RevocationKind, Subject, Timestamp, TokenType};
use crate::replica::follower::Follower;
use crate::replica::keyring::{Keyring, Reload};
use crate::replica::view::{Freshness, TokenMarks, View};

pub struct Judge {
    view: Arc<View>,
    keyring: Arc<Keyring>,
    clock: Arc<dyn Clock>,
    issuer: String,
    default_type: TokenType,
    /// Used only for a token that may be newer than the view.
    follower: Arc<Follower>,
    /// [`MOST_WAITING`] permits.
    may_wait: Semaphore,
    judged: quick_cache::sync::Cache<[u8; 32], Arc<JudgedToken>, WeighByBytes>,
}

/// Clock skew tolerated when `iat` is compared with the view age: `iat` is in whole seconds, and the clocks of replicas differ
/// by less than one second.
const ISSUE_SKEW: Duration = Duration::from_secs(2);

/// Maximum number of requests that wait for a poll because of an unknown key. Each takes some kilobytes for up to three
/// seconds, and a caller that invents key ids must not exhaust the memory.
const MOST_WAITING: usize = 1024;

/// Whether a token is active.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// Active at the time of the judgement.
    Active(Arc<JudgedToken>),
    Inactive(Inactivity),
    /// The replica gives no verdict now: 503, never `active: false` (design.md §2, promise 4).
    Unavailable(Unavailable),
}

/// Why a token is inactive. Only for the log, never for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Inactivity {
    /// The text is not an access token of this installation, or the token has expired.
    #[error("{0}")]
    Refused(TokenRefusal),
    /// The token, or its session, user, client or key, was revoked.
    #[error("revoked, by its {}", .0.as_str())]
    Revoked(RevocationKind),
    /// The client was deleted or disabled. Contains the token's `iat`.
    #[error("its client is disabled or gone")]
    ClientGone(Timestamp),
    /// The key is retired, or was not signing at the token's `iat` (security.md K10).
    #[error("its key is no longer published, or was not signing when the token says that it was issued")]
    KeyGone,
    /// None of the audiences is known (security.md T7). Contains the token's `iat`.
    #[error("none of its audiences is known here")]
    UnknownAudience(Timestamp),
    /// The client is not configured for this `typ` (security.md T2). Contains the token's `iat`.
    #[error("its `typ` is not the one that its client is configured for")]
    WrongType(Timestamp),
}

impl Inactivity {
    /// Whether the token names a known key but its signature is invalid.
    pub(super) const fn is_forgery(&self) -> bool {
        matches!(self, Self::Refused(TokenRefusal::Jws(JwsRefusal::BadSignature)))
    }
}

/// Why a replica gives no verdict. The texts are for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The view is not loaded yet.
    #[error("the revocations are not loaded yet")]
    Loading,
    #[error("the view is older than revocation.max_lag, or the clock was stepped")]
    StaleView,
    #[error("{0}")]
    Clock(ClockFault),
    #[error("the token names an unknown key, and the keys cannot be read")]
    KeysUnreadable,
    /// The token may be signed by a new key, and [`MOST_WAITING`] requests already wait for the next poll.
    #[error("the token names an unknown key, and too many such requests are waiting")]
    TooManyWaiting,
    /// The view has no matching client or audience. The token may be newer than the view, and the change feed cannot be read.
    #[error("the token may be newer than the view, and the change feed cannot be read")]
    BehindToken,
    #[error("the key that signed the token is stored and cannot be used here")]
    UnreadableKey,
    #[error("the row of a client on which the verdict depends cannot be read")]
    UnreadableClient,
    /// Another replica may know the client.
    #[error("the client is unknown, and the change feed cannot be read")]
    BehindCaller,
}

impl Unavailable {
    /// Whether only verdicts that depend on an unreadable row are missing.
    pub const fn is_of_row(&self) -> bool {
        matches!(self, Self::UnreadableKey | Self::UnreadableClient)
    }
}

/// A verified token, and the data to judge it again without verifying it again.
#[derive(Debug)]
pub struct JudgedToken {
    pub claims: AccessClaims,
    marks: TokenMarks,
    token_type: TokenType,
    /// View generation at which the token was last active.
    active_under: AtomicU64,
    /// See [`JudgedToken::derived`].
    derived: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl JudgedToken {
    fn new(token: VerifiedToken) -> Self {
        let VerifiedToken { claims, kid, token_type } = token;
        let user = match claims.subject {
            Subject::User(user) => Some((user, claims.user_epoch)),
            Subject::Client(_) => None,
        };
        let marks = TokenMarks {
            jti: crypto::id128(claims.jti.as_str()),
            session: claims.login.as_ref().map(|login| login.session),
            user,
            client: (claims.client.clone(), claims.client_epoch),
            installation: claims.installation_epoch,
            kid,
        };
        let active_under = AtomicU64::new(0);
        Self { claims, marks, token_type, active_under, derived: OnceLock::new() }
    }

    /// A value of the caller's that is kept as long as the token, such as its rendered responses. Every caller uses one `T`;
    /// `None` for another.
    pub fn derived<T: Any + Default + Send + Sync>(&self) -> Option<&T> {
        self.derived.get_or_init(|| Box::<T>::default()).downcast_ref()
    }
}

/// How a token's signature was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// The token was in the verified-token cache.
    Remembered,
    /// The signature was verified for this judgement.
    Verified,
    /// The token is not an access token of this installation.
    Foreign,
}

/// A verdict, and how it was reached.
#[derive(Debug, Clone)]
pub struct Judgement {
    pub verdict: Verdict,
    pub signature: Signature,
    /// The instant at which the verdict was true.
    pub at: Timestamp,
    /// [`Clock::elapsed`] when the freshness of the view was checked.
    pub checked_at: Duration,
}

/// Counters read when a request arrived. A later reload or sync covers the tokens of the request.
#[derive(Debug, Clone, Copy)]
struct SyncCounters {
    /// [`Keyring::reloads`].
    reloads: u64,
    /// [`Follower::syncs_begun`].
    syncs: u64,
}

/// Bounds the verified-token cache by memory.
#[derive(Debug, Clone)]
struct WeighByBytes;

impl quick_cache::Weighter<[u8; 32], Arc<JudgedToken>> for WeighByBytes {
    fn weight(&self, _: &[u8; 32], token: &Arc<JudgedToken>) -> u64 {
        // The struct, the allocations of the claims, and the two rendered responses, which contain about the same text.
        let claims = &token.claims;
        let audience: usize = claims.audience.iter().map(|audience| audience.as_str().len() + 32).sum();
        let scope: usize = claims.scope.iter().map(|scope| scope.len() + 32).sum();
        let roles: usize =
            claims.login.iter().flat_map(|login| &login.roles).map(|role| role.as_str().len() + 32).sum();
        (size_of::<JudgedToken>() + 2048 + 3 * (audience + scope + roles)) as u64
    }
}

/// Memory of a verified token of typical size.
const TYPICAL_TOKEN_BYTES: u64 = 3072;

impl std::fmt::Debug for Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Judge")
            .field("issuer", &self.issuer)
            .field("cached", &self.judged.len())
            .finish_non_exhaustive()
    }
}

impl Judge {
    /// A judge for tokens of `issuer`. It caches `cache_entries` tokens of typical size, or fewer large ones.
    pub fn new(
        view: Arc<View>,
        keyring: Arc<Keyring>,
        follower: Arc<Follower>,
        clock: Arc<dyn Clock>,
        issuer: String,
        default_type: TokenType,
        cache_entries: usize,
    ) -> Self {
        let bytes = cache_entries as u64 * TYPICAL_TOKEN_BYTES;
        let judged = quick_cache::sync::Cache::with_weighter(cache_entries, bytes, WeighByBytes);
        let may_wait = Semaphore::new(MOST_WAITING);
        Self { view, keyring, clock, issuer, default_type, follower, may_wait, judged }
    }

    /// Judges a token now. It waits for the database only if the token may be newer than the view or the key ring. That is the
    /// case if its key is unknown. It is also the case for a token issued just now whose client, audience or `typ` does not
    /// match the view. Such a token is inactive only after the database was read.
    pub async fn judge(&self, token: &str) -> Judgement {
        let judgement = self.judge_from_memory(token);
        if !self.may_lack_entries(&judgement) {
            return judgement;
        }
        // Boxed because it is rare: this keeps the future of the common case small.
        Box::pin(self.judge_after_sync(token, judgement, self.sync_counters())).await
    }

    /// Judges the tokens of one request, up to the first without a verdict. Active tokens are still active when the last one
    /// was judged. One reload or sync serves all tokens.
    ///
    /// Yields to other requests after each signature check. `charge` is called with each judgement; an error ends the batch.
    pub async fn judge_all<E>(
        &self,
        tokens: &[&str],
        mut charge: impl FnMut(&Judgement) -> Result<(), E>,
    ) -> Result<Vec<Judgement>, E> {
        let arrival = self.sync_counters();
        let generation = self.view.generation();
        let mut has_paused = false;
        let mut judgements = Vec::with_capacity(tokens.len());
        for token in tokens {
            let mut judgement = self.judge_from_memory(token);
            if self.may_lack_entries(&judgement) {
                judgement = Box::pin(self.judge_after_sync(token, judgement, arrival)).await;
                has_paused = true;
            }
            charge(&judgement)?;
            if judgement.signature != Signature::Remembered {
                tokio::task::yield_now().await;
                has_paused = true;
            }
            let is_unavailable = matches!(&judgement.verdict, Verdict::Unavailable(reason) if !reason.is_of_row());
            judgements.push(judgement);
            if is_unavailable {
                // The whole batch gets this answer, so the other tokens need not be judged.
                return Ok(judgements);
            }
        }
        if has_paused || self.view.generation() != generation || self.unavailable().is_some() {
            for (token, judgement) in tokens.iter().zip(&mut judgements) {
                if matches!(judgement.verdict, Verdict::Active(_)) {
                    // The duration of the first judgement is reported.
                    let Judgement { signature, checked_at, .. } = *judgement;
                    *judgement = Judgement { signature, checked_at, ..self.judge_from_memory(token) };
                }
            }
        }
        Ok(judgements)
    }

    fn sync_counters(&self) -> SyncCounters {
        SyncCounters { reloads: self.keyring.reloads(), syncs: self.follower.syncs_begun() }
    }

    /// Whether an inactive token could be active according to entries that this replica has not applied.
    fn may_lack_entries(&self, judgement: &Judgement) -> bool {
        match &judgement.verdict {
            Verdict::Inactive(Inactivity::Refused(TokenRefusal::UnknownKey(_))) => true,
            Verdict::Inactive(
                Inactivity::ClientGone(issued_at)
                | Inactivity::UnknownAudience(issued_at)
                | Inactivity::WrongType(issued_at),
            ) => self.may_be_ahead(*issued_at, judgement.at),
            _ => false,
        }
    }

    /// Reads new keys, or new entries of the change feed, and judges the token again. Each is read at most once and after the
    /// token arrived. A key or client that is still missing then does not exist.
    async fn judge_after_sync(&self, token: &str, mut judgement: Judgement, arrival: SyncCounters) -> Judgement {
        let (mut has_read_keys, mut has_read_feed) = (false, false);
        while self.may_lack_entries(&judgement) {
            let read = match &judgement.verdict {
                Verdict::Inactive(Inactivity::Refused(TokenRefusal::UnknownKey(kid))) => {
                    if std::mem::replace(&mut has_read_keys, true) {
                        break;
                    }
                    match self.keyring.reload_for(kid, arrival.reloads).await {
                        Reload::Found => Ok(()),
                        Reload::Absent => break,
                        Reload::RateLimited if !self.may_be_of_a_new_key(token, judgement.at) => break,
                        Reload::RateLimited => self.wait_for_next_sync(arrival).await,
                        Reload::Failed => Err(Unavailable::KeysUnreadable),
                    }
                }
                _ => {
                    if std::mem::replace(&mut has_read_feed, true) {
                        break;
                    }
                    self.follower.catch_up_since(arrival.syncs).await.map_err(|_| Unavailable::BehindToken)
                }
            };
            judgement = match read {
                Ok(()) => self.judge_from_memory(token),
                Err(reason) => return Judgement { verdict: Verdict::Unavailable(reason), ..judgement },
            };
        }
        judgement
    }

    /// Waits for the next regular poll. A caller that invents key ids can use up the reload that security.md K4 allows. Active
    /// tokens must still get a verdict.
    async fn wait_for_next_sync(&self, arrival: SyncCounters) -> Result<(), Unavailable> {
        let _bounded = self.may_wait.try_acquire().map_err(|_| Unavailable::TooManyWaiting)?;
        self.follower.wait_for_sync_after(arrival.syncs).await.map_err(|_| Unavailable::KeysUnreadable)
    }

    /// Whether a token with an unknown key may be signed by a key newer than the last sync.
    ///
    /// Known gap: the access token of a refresh retry keeps its `iat`, but may be signed by a newer key. Covering it would let
    /// every caller with an invented key id wait for the whole retry window. The gap needs a withdrawn key, a lost response and
    /// a flood of invented key ids within half a second.
    fn may_be_of_a_new_key(&self, token: &str, now: Timestamp) -> bool {
        crypto::unverified_issue_time(token, &self.issuer, now)
            .is_some_and(|issued_at| self.may_be_ahead(issued_at, now))
    }

    /// Whether a token may have been issued after the last sync.
    fn may_be_ahead(&self, issued_at: Timestamp, now: Timestamp) -> bool {
        issued_at.plus(ISSUE_SKEW) >= now.minus(self.view.age(&*self.clock))
    }

    /// Number of tokens in the verified-token cache.
    pub fn cached(&self) -> usize {
        self.judged.len()
    }

    /// Why this replica gives no verdict now; `None` if the view is fresh.
    pub fn unavailable(&self) -> Option<Unavailable> {
        self.unavailable_at(self.clock.now(), self.clock.elapsed())
    }

    /// As [`Self::unavailable`], with clocks that were just read.
    pub fn unavailable_at(&self, now: Timestamp, elapsed: Duration) -> Option<Unavailable> {
        match self.view.freshness_at(&*self.clock, now, elapsed) {
            Freshness::Fresh => None,
            Freshness::Stale => Some(Unavailable::StaleView),
            Freshness::TimeUnknown(reason) => Some(Unavailable::Clock(reason)),
            Freshness::Empty => Some(Unavailable::Loading),
        }
    }

    fn judge_from_memory(&self, token: &str) -> Judgement {
        let digest = crypto::sha256(token.as_bytes());
        let cached = self.judged.get(&digest);
        loop {
            let generation = self.view.generation();
            let now = self.clock.now();
            let (verdict, signature) = match &cached {
                Some(judged) => (self.standing(judged, generation, now), Signature::Remembered),
                None => self.verify(token, generation, now),
            };
            // Freshness is checked last, and counts only if no entry was applied since the maps were read. A sync that ended
            // in between makes the view fresh, but this verdict does not include its entries.
            let checked_at = self.clock.elapsed();
            let reason = self.unavailable_at(now, checked_at);
            if self.view.generation() != generation {
                continue;
            }
            if let Some(reason) = reason {
                return Judgement { verdict: Verdict::Unavailable(reason), signature, at: now, checked_at };
            }
            match (&verdict, &cached) {
                (Verdict::Active(judged), None) => self.judged.insert(digest, Arc::clone(judged)),
                // Revoked or expired: frees the entry for a token in use.
                (Verdict::Inactive(_), Some(_)) => drop(self.judged.remove(&digest)),
                _ => {}
            }
            return Judgement { verdict, signature, at: now, checked_at };
        }
    }

    fn verify(&self, token: &str, generation: u64, now: Timestamp) -> (Verdict, Signature) {
        let keys = self.keyring.keys();
        match crypto::verify_access_token(token, &**keys, &self.issuer, now) {
            Ok(token) => (self.standing(&Arc::new(JudgedToken::new(token)), generation, now), Signature::Verified),
            Err(TokenRefusal::UnknownKey(kid)) if keys.is_unreadable(&kid) => {
                (Verdict::Unavailable(Unavailable::UnreadableKey), Signature::Foreign)
            }
            Err(refusal) => {
                // Claims are checked only after the signature was verified.
                let is_ours = matches!(refusal, TokenRefusal::Claims(_));
                let signature = if is_ours { Signature::Verified } else { Signature::Foreign };
                (Verdict::Inactive(Inactivity::Refused(refusal)), signature)
            }
        }
    }

    /// Removes a revoked token from the verified-token cache.
    pub fn forget(&self, token: &str) {
        self.judged.remove(&crypto::sha256(token.as_bytes()));
    }

    /// Removes expired tokens from the verified-token cache.
    pub fn sweep(&self, now: Timestamp) {
        self.judged.retain(|_, judged| now < judged.claims.expires_at);
    }

    /// Judges a token whose signature and claims are valid: checks the time and everything that can change.
    fn standing(&self, judged: &Arc<JudgedToken>, generation: u64, now: Timestamp) -> Verdict {
        if now >= judged.claims.expires_at {
            return Verdict::Inactive(Inactivity::Refused(TokenRefusal::Claims(ClaimsRefusal::Expired)));
        }
        if judged.active_under.load(Ordering::Acquire) == generation {
            return Verdict::Active(Arc::clone(judged));
        }
        match self.objection(judged, now) {
            Some(inactivity) => match self.unreadable(judged, &inactivity) {
                Some(reason) => Verdict::Unavailable(reason),
                None => Verdict::Inactive(inactivity),
            },
            None => {
                judged.active_under.store(generation, Ordering::Release);
                Verdict::Active(Arc::clone(judged))
            }
        }
    }

    /// The unreadable row because of which the reason for inactivity is uncertain (security.md D18).
    fn unreadable(&self, judged: &JudgedToken, objection: &Inactivity) -> Option<Unavailable> {
        let client = || self.view.is_unreadable_client(judged.claims.client.as_str());
        match objection {
            Inactivity::KeyGone if self.keyring.keys().is_unreadable(&judged.marks.kid) => {
                Some(Unavailable::UnreadableKey)
            }
            Inactivity::ClientGone(_) if client() => Some(Unavailable::UnreadableClient),
            Inactivity::UnknownAudience(_) if self.view.has_unreadable_clients() => Some(Unavailable::UnreadableClient),
            _ => None,
        }
    }

    fn objection(&self, judged: &JudgedToken, now: Timestamp) -> Option<Inactivity> {
        if let Some(kind) = self.view.revoked(&judged.marks, now) {
            return Some(Inactivity::Revoked(kind));
        }
        if !self.keyring.keys().admits(&judged.marks.kid, judged.claims.issued_at, now) {
            return Some(Inactivity::KeyGone);
        }
        let issued_at = judged.claims.issued_at;
        let Some(client) = self.view.client(judged.claims.client.as_str()) else {
            return Some(Inactivity::ClientGone(issued_at));
        };
        if judged.claims.client_epoch < client.epoch {
            return Some(Inactivity::Revoked(RevocationKind::Client));
        }
        if client.disabled {
            return Some(Inactivity::ClientGone(issued_at));
        }
        let wanted = client.settings.token_type.unwrap_or(self.default_type);
        if judged.token_type == TokenType::Jwt && wanted != TokenType::Jwt && self.default_type != TokenType::Jwt {
            return Some(Inactivity::WrongType(issued_at));
        }
        if !judged.claims.audience.iter().any(|audience| self.view.knows(audience)) {
            return Some(Inactivity::UnknownAudience(issued_at));
        }
        None
    }
}
