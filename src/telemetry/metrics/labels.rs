//! Labels with a fixed set of values, and counters that are found by index instead of by hashing label texts.

use std::marker::PhantomData;

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, Result};

use crate::domain::{Grant, RefreshRefusal, RevocationKind, texts};
use crate::telemetry::CacheUse;

/// The prefix of every metric of the service.
pub(super) const PREFIX: &str = "countersign";

/// A label with a fixed set of values.
pub trait Label: Copy + PartialEq + 'static {
    /// Every value, in the order of [`Label::index`].
    const VALUES: &'static [Self];

    /// The text of the value.
    fn text(self) -> &'static str;

    /// The value's index in [`Label::VALUES`].
    fn index(self) -> usize {
        Self::VALUES.iter().position(|value| *value == self).unwrap_or(0)
    }
}

texts! {
    /// The type of an item of the revocation feed.
    FeedItemType {
        Token = "token",
        Session = "session",
        Subject = "subject",
        Client = "client",
        Key = "key",
        All = "all",
        Keys = "keys",
        Caller = "caller",
    }
}

texts! {
    /// How an introspection ended.
    IntrospectionResult {
        /// The token is active.
        Active = "active",
        /// The token is inactive, or inactive for this caller.
        Inactive = "inactive",
        /// The caller did not authenticate itself, or the request was malformed.
        Refused = "refused",
        /// This replica cannot judge tokens now.
        Unavailable = "unavailable",
    }
}

texts! {
    /// How a login ended.
    LoginResult {
        /// A session began.
        Success = "success",
        /// Unknown user, wrong password or disabled account.
        InvalidCredentials = "invalid_credentials",
        /// A limit was reached.
        TooManyAttempts = "too_many_attempts",
        /// The queue for password hashes was full.
        Busy = "busy",
        /// The database was unavailable.
        Unavailable = "unavailable",
    }
}

texts! {
    /// How a refresh ended.
    RefreshResult {
        /// The client received a new pair of tokens.
        Rotated = "rotated",
        /// The client received the same pair again, because the first answer was lost.
        Retried = "retried",
        /// The refresh token was an old one, so the session was ended.
        Reused = "reused",
        /// The session had expired.
        Expired = "expired",
        /// The session was ended before.
        Ended = "ended",
        /// The text is no refresh token of this service.
        Forged = "forged",
        /// The session does not exist.
        Unknown = "unknown",
        /// The token belongs to another client.
        ForeignClient = "foreign_client",
        /// The user or the client was disabled, deleted or revoked.
        Revoked = "revoked",
        /// The database was unavailable.
        Unavailable = "unavailable",
    }
}

impl From<RefreshRefusal> for RefreshResult {
    fn from(refusal: RefreshRefusal) -> Self {
        match refusal {
            RefreshRefusal::Forged => Self::Forged,
            RefreshRefusal::Unknown => Self::Unknown,
            RefreshRefusal::ForeignClient => Self::ForeignClient,
            RefreshRefusal::Expired => Self::Expired,
            RefreshRefusal::Ended => Self::Ended,
            RefreshRefusal::Revoked => Self::Revoked,
            RefreshRefusal::Reused => Self::Reused,
        }
    }
}

texts! {
    /// The limit that refused an attempt (security.md L1).
    Limit {
        /// The limit of the address.
        Address = "address",
        /// The limit of the account.
        Account = "account",
        /// The limit of the address at the account.
        Pair = "pair",
        /// The limit of the client.
        Client = "client",
    }
}

texts! {
    /// A listener.
    ListenerName {
        /// The public listener.
        Public = "public",
        /// The operations listener.
        Operations = "operations",
        /// The gRPC listener.
        Grpc = "grpc",
    }
}

/// Whether a look-up was answered from memory, if there was a look-up.
impl Label for Option<CacheUse> {
    const VALUES: &'static [Self] = &[Some(CacheUse::Hit), Some(CacheUse::Miss), None];

    fn text(self) -> &'static str {
        self.map_or("none", CacheUse::as_str)
    }
}

macro_rules! labels {
    ($($Name:ty)*) => {$(
        impl Label for $Name {
            const VALUES: &'static [Self] = &Self::ALL;

            fn text(self) -> &'static str {
                self.as_str()
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    )*};
}

labels! { FeedItemType Grant IntrospectionResult Limit ListenerName LoginResult RefreshResult RevocationKind }

/// One metric per value of a label. All exist from the start, so that the first event is visible as an increase.
pub struct Family<L, M> {
    children: Vec<M>,
    label: PhantomData<fn(L)>,
}

impl<L: Label> Family<L, IntCounter> {
    pub(super) fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> Result<Self> {
        let family = register(registry, IntCounterVec::new(options(name, help), &[label])?)?;
        let children = L::VALUES.iter().map(|value| family.with_label_values(&[value.text()])).collect();
        Ok(Self { children, label: PhantomData })
    }

    /// Counts one event.
    pub fn count(&self, value: L) {
        self.of(value).inc();
    }
}

impl<L: Label> Family<L, IntGauge> {
    pub(super) fn gauges(registry: &Registry, name: &str, help: &str, label: &str) -> Result<Self> {
        let family = register(registry, IntGaugeVec::new(options(name, help), &[label])?)?;
        let children = L::VALUES.iter().map(|value| family.with_label_values(&[value.text()])).collect();
        Ok(Self { children, label: PhantomData })
    }
}

impl<L: Label, M> Family<L, M> {
    /// The metric of one value.
    pub fn of(&self, value: L) -> &M {
        &self.children[value.index()]
    }
}

/// One counter per pair of values.
pub struct Grid<A, B> {
    children: Vec<IntCounter>,
    labels: PhantomData<fn(A, B)>,
}

impl<A: Label, B: Label> Grid<A, B> {
    pub(super) fn counters(registry: &Registry, name: &str, help: &str, labels: [&str; 2]) -> Result<Self> {
        let family = register(registry, IntCounterVec::new(options(name, help), &labels)?)?;
        let pairs = A::VALUES.iter().flat_map(|a| B::VALUES.iter().map(|b| [a.text(), b.text()]));
        let children = pairs.map(|pair| family.with_label_values(&pair)).collect();
        Ok(Self { children, labels: PhantomData })
    }

    /// Counts one event.
    pub fn count(&self, a: A, b: B) {
        self.children[a.index() * B::VALUES.len() + b.index()].inc();
    }
}

pub(super) fn options(name: &str, help: &str) -> Opts {
    Opts::new(format!("{PREFIX}_{name}"), help)
}

pub(super) fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
