//! The claims of an access token (RFC 9068 §2.2).

use super::{Audience, ClientId, IdText, Jti, ParseError, Role, ScopeSet, SessionId, Timestamp, UserId};

/// The `sub` of a token (RFC 9068 §2.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// The user who logged in.
    User(UserId),
    /// A client acting for itself (`client_credentials`).
    Client(ClientId),
}

impl Subject {
    /// Reads a `sub` claim. No text is both a user id and a client id (security.md T17).
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.starts_with("usr_") {
            UserId::parse(text).map(Self::User)
        } else {
            ClientId::parse(text).map(Self::Client)
        }
    }

    /// The value of `sub`.
    pub fn text(&self) -> IdText<'_> {
        match self {
            Self::User(id) => id.text(),
            Self::Client(id) => IdText::Borrowed(id.as_str()),
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(id) => id.fmt(f),
            Self::Client(id) => id.fmt(f),
        }
    }
}

/// The checked claims of an access token. Times are whole seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessClaims {
    /// `iss`: the configured issuer, compared byte for byte.
    pub issuer: String,
    pub subject: Subject,
    /// `aud`: at least one.
    pub audience: Vec<Audience>,
    /// `exp`: the token is inactive at and after this instant.
    pub expires_at: Timestamp,
    pub issued_at: Timestamp,
    pub not_before: Timestamp,
    pub jti: Jti,
    pub client: ClientId,
    /// `scope`; omitted from the token when empty.
    pub scope: ScopeSet,
    /// Set for tokens of a user, unset for `client_credentials`.
    pub login: Option<LoginClaims>,
    /// `uep`: the user's epoch when the token was issued; omitted when 0.
    pub user_epoch: u32,
    /// `cep`: the client's epoch when the token was issued; omitted when 0.
    pub client_epoch: u32,
    /// `iep`: the installation's epoch when the token was issued; omitted when 0.
    pub installation_epoch: u32,
}

/// The claims that only a user's token carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginClaims {
    pub session: SessionId,
    /// `auth_time`: when the user authenticated.
    pub authenticated_at: Timestamp,
    /// `amr` (RFC 8176), such as `pwd`.
    pub methods: Vec<String>,
    /// `roles` (RFC 9068 §2.2.3.1).
    pub roles: Vec<Role>,
    /// `preferred_username`: in the token so that introspection returns it without reading the database.
    pub username: String,
}

texts! {
    /// The `typ` header of access tokens.
    #[derive(Default)]
    TokenType else "a token type is `at+jwt` or `JWT`" {
        /// `at+jwt` (RFC 9068 §2.1).
        #[default]
        AtJwt = "at+jwt",
        /// `JWT`, for verifiers that reject the registered type.
        Jwt = "JWT",
    }
}

impl TokenType {
    /// Whether a token's `typ` is of this type. Media types are compared without case, and `application/` may be
    /// omitted (RFC 7515 §4.1.9, security.md T2).
    pub fn admits(self, typ: &str) -> bool {
        let bare = match typ.get(.."application/".len()) {
            Some(prefix) if prefix.eq_ignore_ascii_case("application/") => &typ["application/".len()..],
            _ => typ,
        };
        bare.eq_ignore_ascii_case(self.as_str())
    }
}
