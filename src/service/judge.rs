//! The one function that says whether an access token is active. Introspection, batch introspection, forward-auth and
//! every endpoint that takes a bearer token go through it (security.md section 6: every rule lives in one place).
//!
//! It reads memory only. A token is verified once; the judgement is kept, keyed by SHA-256 of the token, and every later
//! request re-checks time, and the revocation maps if the view has moved since.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::Semaphore;

use crate::clock::{Clock, ClockDoubt};
use crate::crypto::{self, ClaimsRefusal, JwsRefusal, TokenRefusal, VerifiedToken};
use crate::domain::{AccessClaims, RevocationKind, Subject, Timestamp, TokenType};
use crate::follower::Follower;
use crate::keyring::{Keyring, Reload};
use crate::view::{Freshness, TokenMarks, View};

/// Judges access tokens.
pub struct Judge {
    view: Arc<View>,
    keyring: Arc<Keyring>,
    clock: Arc<dyn Clock>,
    issuer: String,
    default_type: TokenType,
    /// Asked only for a token that is ahead of the view.
    follower: Arc<Follower>,
    /// One for each of [`MOST_WAITING`].
    may_wait: Semaphore,
    judged: quick_cache::sync::Cache<[u8; 32], Arc<JudgedToken>, WeighByBytes>,
}

/// How much older than it is a token may look: `iat` counts whole seconds, and replicas' clocks differ by less than one.
const ISSUE_SKEW: Duration = Duration::from_secs(2);

/// At most so many requests wait for a look at the feed because of a key that nobody here knows: each takes some kilobytes
/// for up to three seconds, and whoever makes such tokens up must not take the memory.
const MOST_WAITING: usize = 1024;

/// What is known of a token.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It is good at this instant.
    Active(Arc<JudgedToken>),
    /// It was judged, and it is not.
    Inactive(Inactivity),
    /// The replica cannot judge now: 503, never `active: false` (design.md §2, promise 4).
    CannotJudge(Doubt),
}

/// Why a token is not active: for the operator's log, never for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Inactivity {
    /// It is not an access token of ours, or it is expired.
    #[error("{0}")]
    Refused(TokenRefusal),
    /// It, or something that it hangs on, was revoked.
    #[error("revoked, by its {}", .0.as_str())]
    Revoked(RevocationKind),
    /// Its client was deleted or disabled. With the time at which the token was issued.
    #[error("its client is disabled or gone")]
    ClientGone(Timestamp),
    /// Its key is no longer published, or it claims to be issued after its key stopped signing (security.md K10).
    #[error("its key is no longer published, or was not signing when the token says that it was issued")]
    KeyGone,
    /// None of its audiences is known here (security.md T7). With the time at which the token was issued.
    #[error("none of its audiences is known here")]
    UnknownAudience(Timestamp),
    /// Its `typ` is not one that its client is configured for (security.md T2). With the time at which the token was issued.
    #[error("its `typ` is not the one that its client is configured for")]
    WrongType(Timestamp),
}

impl Inactivity {
    /// Whether a key of ours refused the signature.
    pub(super) const fn is_forgery(&self) -> bool {
        matches!(self, Self::Refused(TokenRefusal::Jws(JwsRefusal::BadSignature)))
    }
}

/// Why a replica cannot judge, in words for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// The view was not loaded yet.
    #[error("the revocations are not loaded yet")]
    Loading,
    /// The view is older than `revocation.max_lag`, or the clock was stepped.
    #[error("what it knows of revocations is older than revocation.max_lag, or the clock was stepped")]
    StaleView,
    /// The time is not known.
    #[error("{0}")]
    Clock(ClockDoubt),
    /// The token names a key that this replica does not know, and the keys cannot be read now.
    #[error("the token names a key that it does not know, and the keys cannot be read")]
    KeysUnreadable,
    /// The token may be of a key that was made just now, and as many as may wait for that already do.
    #[error("the token names a key that it does not know, and too many such requests are waiting")]
    TooManyWaiting,
    /// The token is newer than the view, which does not know its client as the token does, and the feed cannot be read now.
    #[error("the token is newer than what it knows, and the changes since then cannot be read")]
    BehindToken,
    /// The row of the key that signed the token cannot be read.
    #[error("the key that signed the token is stored and cannot be used here")]
    UnreadableKey,
    /// The row of a client that the answer depends on cannot be read.
    #[error("the row of a client that this depends on cannot be read")]
    UnreadableClient,
    /// Nobody whom this replica knows is calling, which another may know, and the feed cannot be read now.
    #[error("the caller is unknown to it, and the changes of clients cannot be read")]
    BehindCaller,
}

/// A verified token and what a later request needs of it without verifying again.
#[derive(Debug)]
pub struct JudgedToken {
    /// The checked claims.
    pub claims: AccessClaims,
    marks: TokenMarks,
    token_type: TokenType,
    /// Generation of the view under which the token was last found good.
    good_under: AtomicU64,
    introspection: OnceLock<Bytes>,
    forward_auth: OnceLock<HeaderMap>,
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
        let good_under = AtomicU64::new(0);
        Self { claims, marks, token_type, good_under, introspection: OnceLock::new(), forward_auth: OnceLock::new() }
    }

    /// The introspection answer, written once per token.
    pub fn introspection(&self, write: impl FnOnce(&AccessClaims) -> Bytes) -> &Bytes {
        self.introspection.get_or_init(|| write(&self.claims))
    }

    /// The headers of the forward-auth answer, written once per token.
    pub fn forward_auth(&self, write: impl FnOnce(&AccessClaims) -> HeaderMap) -> &HeaderMap {
        self.forward_auth.get_or_init(|| write(&self.claims))
    }
}

/// What became of a token's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// It was verified before, and remembered.
    Remembered,
    /// It was verified for this judgement.
    Verified,
    /// The token is not an access token of this installation.
    Foreign,
}

/// A verdict, and whether the token had been verified before.
#[derive(Debug, Clone)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// What became of the signature.
    pub signature: Signature,
    /// The instant at which the verdict holds.
    pub at: Timestamp,
    /// [`Clock::elapsed`] when the view was found fresh enough for it, or too old.
    pub proven_at: Duration,
}

/// When tokens came: whatever is read later knows the keys and clients of those that are good.
#[derive(Debug, Clone, Copy)]
struct Came {
    /// [`Keyring::reloads`].
    reloads: u64,
    /// [`Follower::looks`].
    looks: u64,
}

/// Bounds the cache of verified tokens by the bytes that they hold.
#[derive(Debug, Clone)]
struct WeighByBytes;

impl quick_cache::Weighter<[u8; 32], Arc<JudgedToken>> for WeighByBytes {
    fn weight(&self, _: &[u8; 32], token: &Arc<JudgedToken>) -> u64 {
        // The struct, the claims' own allocations, and the two renderings, which repeat about the same text.
        let claims = &token.claims;
        let audience: usize = claims.audience.iter().map(|audience| audience.as_str().len() + 32).sum();
        let scope: usize = claims.scope.iter().map(|scope| scope.len() + 32).sum();
        let roles: usize =
            claims.login.iter().flat_map(|login| &login.roles).map(|role| role.as_str().len() + 32).sum();
        (size_of::<JudgedToken>() + 2048 + 3 * (audience + scope + roles)) as u64
    }
}

/// What a verified token of the usual size takes in memory; the cache is sized in these.
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
    /// A judge for tokens of `issuer`; remembers `cache_entries` verified tokens of the usual size, and fewer large ones.
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

    /// Judges a token as it stands now. Waits only for what a good token may be ahead of this replica with: a key that it
    /// has not met, or, for a token of ours that was issued just now, a client that it does not know as the token does. Such a
    /// token is not called inactive before the database was read.
    pub async fn judge(&self, token: &str) -> Judgement {
        let judgement = self.judge_from_memory(token);
        if !self.wants_news(&judgement) {
            return judgement;
        }
        // What is rare waits on the heap: the future of the usual case stays small.
        Box::pin(self.judge_with_news(token, judgement, self.came())).await
    }

    /// Judges tokens of one request, up to the first that cannot be judged. Those that are active are so when the last
    /// one was judged, and they wait together for keys and changes that any of them is ahead with.
    ///
    /// Between two signature checks other requests have their turn. `charge` is called with each judgement and ends the batch
    /// by an error.
    pub async fn judge_all<E>(
        &self,
        tokens: &[&str],
        mut charge: impl FnMut(&Judgement) -> Result<(), E>,
    ) -> Result<Vec<Judgement>, E> {
        let came = self.came();
        let generation = self.view.generation();
        let mut has_paused = false;
        let mut judgements = Vec::with_capacity(tokens.len());
        for token in tokens {
            let mut judgement = self.judge_from_memory(token);
            if self.wants_news(&judgement) {
                judgement = Box::pin(self.judge_with_news(token, judgement, came)).await;
                has_paused = true;
            }
            charge(&judgement)?;
            if judgement.signature != Signature::Remembered {
                tokio::task::yield_now().await;
                has_paused = true;
            }
            let is_in_doubt = matches!(judgement.verdict, Verdict::CannotJudge(_));
            judgements.push(judgement);
            if is_in_doubt {
                // The answer to all of them is that: the others need not wait.
                return Ok(judgements);
            }
        }
        if has_paused || self.view.generation() != generation || self.doubt().is_some() {
            for (token, judgement) in tokens.iter().zip(&mut judgements) {
                if matches!(judgement.verdict, Verdict::Active(_)) {
                    let signature = judgement.signature;
                    *judgement = Judgement { signature, ..self.judge_from_memory(token) };
                }
            }
        }
        Ok(judgements)
    }

    fn came(&self) -> Came {
        Came { reloads: self.keyring.reloads(), looks: self.follower.looks() }
    }

    /// Whether a token is inactive only as far as this replica knows.
    fn wants_news(&self, judgement: &Judgement) -> bool {
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

    /// Reads what the token may be ahead with, and judges it again: its key may be new here, and then its client. Each is
    /// read once, after the token arrived, so that what is not found then does not exist.
    async fn judge_with_news(&self, token: &str, mut judgement: Judgement, came: Came) -> Judgement {
        let (mut has_read_keys, mut has_read_feed) = (false, false);
        while self.wants_news(&judgement) {
            let read = match &judgement.verdict {
                Verdict::Inactive(Inactivity::Refused(TokenRefusal::UnknownKey(kid))) => {
                    if std::mem::replace(&mut has_read_keys, true) {
                        break;
                    }
                    match self.keyring.reload_for(kid, came.reloads).await {
                        Reload::Found => Ok(()),
                        Reload::Absent => break,
                        Reload::JustAsked if !self.may_be_of_a_new_key(token, judgement.at) => break,
                        Reload::JustAsked => self.next_look(came).await,
                        Reload::Failed => Err(Doubt::KeysUnreadable),
                    }
                }
                _ => {
                    if std::mem::replace(&mut has_read_feed, true) {
                        break;
                    }
                    self.follower.catch_up_since(came.looks).await.map_err(|_| Doubt::BehindToken)
                }
            };
            judgement = match read {
                Ok(()) => self.judge_from_memory(token),
                Err(doubt) => return Judgement { verdict: Verdict::CannotJudge(doubt), ..judgement },
            };
        }
        judgement
    }

    /// Waits for a look that is made anyway: whoever makes up kids has spent the reload that security.md K4 allows, and
    /// must not have spent the verdict on good tokens with it.
    async fn next_look(&self, came: Came) -> Result<(), Doubt> {
        let _bounded = self.may_wait.try_acquire().map_err(|_| Doubt::TooManyWaiting)?;
        self.follower.next_look_since(came.looks).await.map_err(|_| Doubt::KeysUnreadable)
    }

    /// Whether a token whose key is unknown may be of one that was made after what the view is proven to know. The repeated
    /// answer to a refresh is as old as the first one, and may bear a key that is newer: to wait for those as well would
    /// make everybody who changes the `kid` of a token wait for the longest retry window, and it takes a withdrawn key, a
    /// lost answer and a flood of made-up kids in the same half second to miss one.
    fn may_be_of_a_new_key(&self, token: &str, now: Timestamp) -> bool {
        crypto::unverified_issue_time(token, &self.issuer, now)
            .is_some_and(|issued_at| self.may_be_ahead(issued_at, now))
    }

    /// Whether a token may have been issued after what the view is proven to know.
    fn may_be_ahead(&self, issued_at: Timestamp, now: Timestamp) -> bool {
        issued_at.plus(ISSUE_SKEW) >= now.minus(self.view.age(&*self.clock))
    }

    /// How many verified tokens are kept.
    pub fn cached(&self) -> usize {
        self.judged.len()
    }

    /// Whether a verdict may be given now.
    pub fn doubt(&self) -> Option<Doubt> {
        self.doubt_at(self.clock.now(), self.clock.elapsed())
    }

    /// The same, of clocks that were just read.
    pub fn doubt_at(&self, now: Timestamp, elapsed: Duration) -> Option<Doubt> {
        match self.view.freshness_at(&*self.clock, now, elapsed) {
            Freshness::Fresh => None,
            Freshness::Stale => Some(Doubt::StaleView),
            Freshness::TimeUnknown(doubt) => Some(Doubt::Clock(doubt)),
            Freshness::Empty => Some(Doubt::Loading),
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
            // Freshness is asked for last, and counts only if nothing was applied since the maps were read: a sync that
            // ended in between vouches for entries that this verdict has not seen.
            let proven_at = self.clock.elapsed();
            let doubt = self.doubt_at(now, proven_at);
            if self.view.generation() != generation {
                continue;
            }
            if let Some(doubt) = doubt {
                return Judgement { verdict: Verdict::CannotJudge(doubt), signature, at: now, proven_at };
            }
            match (&verdict, &cached) {
                (Verdict::Active(judged), None) => self.judged.insert(digest, Arc::clone(judged)),
                // It is revoked or expired: the memory is for tokens that are used.
                (Verdict::Inactive(_), Some(_)) => drop(self.judged.remove(&digest)),
                _ => {}
            }
            return Judgement { verdict, signature, at: now, proven_at };
        }
    }

    fn verify(&self, token: &str, generation: u64, now: Timestamp) -> (Verdict, Signature) {
        let keys = self.keyring.keys();
        match crypto::verify_access_token(token, &**keys, &self.issuer, now) {
            Ok(token) => (self.standing(&Arc::new(JudgedToken::new(token)), generation, now), Signature::Verified),
            Err(TokenRefusal::UnknownKey(kid)) if keys.is_unreadable(&kid) => {
                (Verdict::CannotJudge(Doubt::UnreadableKey), Signature::Foreign)
            }
            Err(refusal) => {
                // Claims are read after the signature was found good.
                let is_ours = matches!(refusal, TokenRefusal::Claims(_));
                let signature = if is_ours { Signature::Verified } else { Signature::Foreign };
                (Verdict::Inactive(Inactivity::Refused(refusal)), signature)
            }
        }
    }

    /// Drops a token that was revoked from the memory of verified tokens.
    pub fn forget(&self, token: &str) {
        self.judged.remove(&crypto::sha256(token.as_bytes()));
    }

    /// Drops expired tokens from the memory of verified tokens.
    pub fn sweep(&self, now: Timestamp) {
        self.judged.retain(|_, judged| now < judged.claims.expires_at);
    }

    /// What remains to be checked of a token whose signature and claims are good: time, and everything that can change.
    fn standing(&self, judged: &Arc<JudgedToken>, generation: u64, now: Timestamp) -> Verdict {
        if now >= judged.claims.expires_at {
            return Verdict::Inactive(Inactivity::Refused(TokenRefusal::Claims(ClaimsRefusal::Expired)));
        }
        if judged.good_under.load(Ordering::Acquire) == generation {
            return Verdict::Active(Arc::clone(judged));
        }
        match self.objection(judged, now) {
            Some(inactivity) => match self.unreadable(judged, &inactivity) {
                Some(doubt) => Verdict::CannotJudge(doubt),
                None => Verdict::Inactive(inactivity),
            },
            None => {
                judged.good_under.store(generation, Ordering::Release);
                Verdict::Active(Arc::clone(judged))
            }
        }
    }

    /// The row that cannot be read and makes an objection doubtful (security.md D18).
    fn unreadable(&self, judged: &JudgedToken, objection: &Inactivity) -> Option<Doubt> {
        let client = || self.view.is_unreadable_client(judged.claims.client.as_str());
        match objection {
            Inactivity::KeyGone if self.keyring.keys().is_unreadable(&judged.marks.kid) => Some(Doubt::UnreadableKey),
            Inactivity::ClientGone(_) if client() => Some(Doubt::UnreadableClient),
            Inactivity::UnknownAudience(_) if self.view.has_unreadable_clients() => Some(Doubt::UnreadableClient),
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
