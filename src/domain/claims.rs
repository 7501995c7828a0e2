//! What an access token says (RFC 9068 §2.2).

use super::{Audience, ClientId, IdText, Jti, ParseError, Role, ScopeSet, SessionId, Timestamp, UserId};

/// Who a token is about. A user where someone logged in, the client itself otherwise (RFC 9068 §2.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A person.
    User(UserId),
    /// A client acting for itself (`client_credentials`).
    Client(ClientId),
}

impl Subject {
    /// Reads a `sub` claim; the two namespaces cannot meet (security.md T17).
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.starts_with("usr_") {
            UserId::parse(text).map(Self::User)
        } else {
            ClientId::parse(text).map(Self::Client)
        }
    }

    /// The claim as it is written.
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

/// The claims of an access token, checked. Times are whole seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessClaims {
    /// `iss`: the configured issuer, byte for byte.
    pub issuer: String,
    /// `sub`.
    pub subject: Subject,
    /// `aud`: at least one.
    pub audience: Vec<Audience>,
    /// `exp`: the token is inactive from this instant on.
    pub expires_at: Timestamp,
    /// `iat`.
    pub issued_at: Timestamp,
    /// `nbf`.
    pub not_before: Timestamp,
    /// `jti`.
    pub jti: Jti,
    /// `client_id`.
    pub client: ClientId,
    /// `scope`; left out of the token when empty.
    pub scope: ScopeSet,
    /// Present where a user logged in.
    pub login: Option<LoginClaims>,
    /// `uep`: the user's epoch when the token was issued; left out when 0.
    pub user_epoch: u32,
    /// `cep`: the client's epoch when the token was issued; left out when 0.
    pub client_epoch: u32,
}

/// The claims that only a user's token carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginClaims {
    /// `sid`.
    pub session: SessionId,
    /// `auth_time`: when the user proved who they are.
    pub authenticated_at: Timestamp,
    /// `amr` (RFC 8176), such as `pwd`.
    pub methods: Vec<String>,
    /// `roles` (RFC 9068 §2.2.3.1).
    pub roles: Vec<Role>,
    /// `preferred_username`: carried so that introspection can name the user without asking the database.
    pub username: String,
}

/// The `typ` header of access tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenType {
    /// `at+jwt` (RFC 9068 §2.1).
    #[default]
    AtJwt,
    /// `JWT`, for verifiers that refuse the registered type.
    Jwt,
}

impl TokenType {
    /// Reads a setting.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        match text {
            "at+jwt" => Ok(Self::AtJwt),
            "JWT" => Ok(Self::Jwt),
            _ => Err(ParseError("a token type is `at+jwt` or `JWT`")),
        }
    }

    /// As it is written into the header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AtJwt => "at+jwt",
            Self::Jwt => "JWT",
        }
    }

    /// Whether a token's `typ` is of this type: media types compare without case, and `application/` may be left out
    /// (RFC 7515 §4.1.9, security.md T2).
    pub fn admits(self, typ: &str) -> bool {
        let bare = match typ.get(.."application/".len()) {
            Some(prefix) if prefix.eq_ignore_ascii_case("application/") => &typ["application/".len()..],
            _ => typ,
        };
        bare.eq_ignore_ascii_case(self.as_str())
    }
}
