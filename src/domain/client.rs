//! OAuth clients: applications, resource servers and gateways (RFC 6749 §2).

use std::time::Duration;

use super::{Algorithm, Audience, ClientId, ScopeSet, Timestamp, TokenType};

texts! {
    /// Whether a client can keep a secret (RFC 6749 §2.1).
    ClientKind else "a client type is `confidential` or `public`" {
        /// Authenticates with a secret or a key.
        Confidential = "confidential",
        /// Sends its id only: a mobile or browser app.
        Public = "public",
    }
}

texts! {
    /// How a client may obtain tokens.
    Grant else "a grant is one of client_credentials, refresh_token, password_login" {
        /// RFC 6749 §4.4; confidential clients only.
        ClientCredentials = "client_credentials",
        /// RFC 6749 §6.
        RefreshToken = "refresh_token",
        /// The first-party login endpoint `/v1/login`; not an OAuth grant (RFC 9700 §2.4).
        PasswordLogin = "password_login",
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants(Vec<Grant>);

impl Grants {
    /// A set of grants; order and repetition are ignored.
    pub fn new(grants: impl IntoIterator<Item = Grant>) -> Self {
        let mut grants: Vec<_> = grants.into_iter().collect();
        grants.sort_unstable();
        grants.dedup();
        Self(grants)
    }

    /// Whether the client may use `grant`.
    pub fn allow(&self, grant: Grant) -> bool {
        self.0.contains(&grant)
    }

    pub fn iter(&self) -> impl Iterator<Item = Grant> + '_ {
        self.0.iter().copied()
    }
}

texts! {
    /// The tokens that a client may introspect (security.md I2).
    #[derive(Default)]
    IntrospectRight else "an introspection right is `own`, `any` or `none`" {
        /// Tokens issued to it, and tokens for one of its audiences.
        #[default]
        Own = "own",
        /// Every access token; for gateways.
        Any = "any",
        /// No token.
        None = "none",
    }
}

texts! {
    /// The part of the revocation feed that a client may read.
    #[derive(Default)]
    FeedRight else "a feed right is `none`, `revocations` or `edge`" {
        /// Nothing.
        #[default]
        None = "none",
        /// Revocations and the state of clients, to judge tokens offline.
        Revocations = "revocations",
        /// Also what authenticates callers of introspection: their rights, secret digests and public keys.
        Edge = "edge",
    }
}

/// SHA-256 of a client secret. Secrets have 256 random bits, so a plain digest cannot be brute-forced (security.md
/// S5).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretDigest(pub [u8; 32]);

impl std::fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretDigest(hidden)")
    }
}

/// A client secret as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSecret {
    pub digest: SecretDigest,
    /// When it stops being accepted; unset for the newest secret.
    pub expires_at: Option<Timestamp>,
}

/// The attributes of a client that an administrator sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    pub kind: ClientKind,
    /// A name for people; at most 256 bytes, may be empty.
    pub display_name: String,
    pub grants: Grants,
    /// Resource servers that this client represents (it may introspect their tokens), and the audience of its own
    /// tokens. If empty: the service's default audience.
    pub audiences: Vec<Audience>,
    /// Scopes that it may request. A request without `scope` gets all of them.
    pub scopes: ScopeSet,
    pub introspect: IntrospectRight,
    /// Lifetime of its access tokens; unset: the service's default.
    pub access_ttl: Option<Duration>,
    /// Algorithm of its access tokens; unset: the service's default.
    pub algorithm: Option<Algorithm>,
    /// `typ` of its access tokens; unset: the service's default.
    pub token_type: Option<TokenType>,
    /// Public keys for `private_key_jwt` (RFC 7523 §2.2) as a JWK set in JSON; unset: secrets only.
    pub jwks: Option<String>,
    pub feed: FeedRight,
}

impl ClientSettings {
    /// A client without grants, audiences or scopes.
    pub fn new(kind: ClientKind) -> Self {
        Self {
            kind,
            display_name: String::new(),
            grants: Grants::default(),
            audiences: Vec::new(),
            scopes: ScopeSet::default(),
            introspect: IntrospectRight::default(),
            access_ttl: None,
            algorithm: None,
            token_type: None,
            jwks: None,
            feed: FeedRight::default(),
        }
    }
}

/// A client as replicas hold it in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    pub id: ClientId,
    /// Set by an administrator.
    pub settings: ClientSettings,
    /// None for a public client; up to two during a rotation.
    pub secrets: Vec<StoredSecret>,
    /// Raised to make every older token of this client inactive.
    pub epoch: u32,
    /// Every request of a disabled client is refused.
    pub disabled: bool,
    pub created_at: Timestamp,
}

impl Client {
    /// Whether `audience` is one of the client's own resource servers.
    pub fn owns(&self, audience: &Audience) -> bool {
        self.settings.audiences.contains(audience)
    }
}
