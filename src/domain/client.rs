//! OAuth clients: applications, resource servers and gateways (RFC 6749 §2).

use std::time::Duration;

use super::{Algorithm, Audience, ClientId, ParseError, ScopeSet, Timestamp, TokenType};

/// Whether a client can keep a secret (RFC 6749 §2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientKind {
    /// Authenticates itself with a secret or a key.
    Confidential,
    /// Names itself only: an app or a browser.
    Public,
}

impl ClientKind {
    /// Reads `confidential` or `public`.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        match text {
            "confidential" => Ok(Self::Confidential),
            "public" => Ok(Self::Public),
            _ => Err(ParseError("a client type is `confidential` or `public`")),
        }
    }

    /// The name in rows and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confidential => "confidential",
            Self::Public => "public",
        }
    }
}

/// A way in which a client may obtain tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grant {
    /// RFC 6749 §4.4; confidential clients only.
    ClientCredentials,
    /// RFC 6749 §6.
    RefreshToken,
    /// The first-party login endpoint `/v1/login`; not an OAuth grant (RFC 9700 §2.4).
    PasswordLogin,
}

impl Grant {
    /// Every grant.
    pub const ALL: [Self; 3] = [Self::ClientCredentials, Self::RefreshToken, Self::PasswordLogin];

    /// Reads a grant's name.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|grant| grant.as_str() == text)
            .ok_or(ParseError("a grant is one of client_credentials, refresh_token, password_login"))
    }

    /// The name in rows, answers and figures.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::RefreshToken => "refresh_token",
            Self::PasswordLogin => "password_login",
        }
    }
}

/// The grants of a client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants(Vec<Grant>);

impl Grants {
    /// A set of grants; order and repetition do not matter.
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

    /// The grants, in order.
    pub fn iter(&self) -> impl Iterator<Item = Grant> + '_ {
        self.0.iter().copied()
    }
}

/// Whose tokens a client may introspect (security.md I2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IntrospectRight {
    /// Tokens issued to it, and tokens with one of its audiences.
    #[default]
    Own,
    /// Every access token: a gateway.
    Any,
    /// None.
    None,
}

impl IntrospectRight {
    /// Reads `own`, `any` or `none`.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        match text {
            "own" => Ok(Self::Own),
            "any" => Ok(Self::Any),
            "none" => Ok(Self::None),
            _ => Err(ParseError("an introspection right is `own`, `any` or `none`")),
        }
    }

    /// The name in rows and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Any => "any",
            Self::None => "none",
        }
    }
}

/// SHA-256 of a client secret. Secrets are generated with 256 bits, so a plain digest cannot be searched (security.md S5).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretDigest(pub [u8; 32]);

impl std::fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretDigest(hidden)")
    }
}

/// A client secret as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSecret {
    /// Digest of the secret.
    pub digest: SecretDigest,
    /// When it stops being accepted; none for the newest.
    pub expires_at: Option<Timestamp>,
}

/// What an operator chooses for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// Confidential or public.
    pub kind: ClientKind,
    /// A name for people; may be empty, at most 256 bytes.
    pub display_name: String,
    /// Ways to obtain tokens.
    pub grants: Grants,
    /// Resource servers that this client is (whose tokens it may introspect) and that its tokens are for. Empty: the
    /// service's default audience.
    pub audiences: Vec<Audience>,
    /// Scopes that it may ask for, and gets when it asks for none.
    pub scopes: ScopeSet,
    /// Whose tokens it may introspect.
    pub introspect: IntrospectRight,
    /// Life of its access tokens; none: the service's default.
    pub access_ttl: Option<Duration>,
    /// Algorithm of its access tokens; none: the service's default.
    pub algorithm: Option<Algorithm>,
    /// `typ` of its access tokens; none: the service's default.
    pub token_type: Option<TokenType>,
    /// Public keys for `private_key_jwt` (RFC 7523 §2.2) as a JWK set in JSON; none: secrets only.
    pub jwks: Option<String>,
}

impl ClientSettings {
    /// A client that may do nothing yet.
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
        }
    }
}

/// A client as every replica holds it in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its id.
    pub id: ClientId,
    /// What the operator chose.
    pub settings: ClientSettings,
    /// Its secrets: none for a public client, up to two while one is being replaced.
    pub secrets: Vec<StoredSecret>,
    /// Bumped to make every older token of this client inactive.
    pub epoch: u32,
    /// A disabled client can do nothing.
    pub disabled: bool,
    /// When it was created.
    pub created_at: Timestamp,
}

impl Client {
    /// Whether `audience` is one of the client's own resource servers.
    pub fn owns(&self, audience: &Audience) -> bool {
        self.settings.audiences.contains(audience)
    }
}
