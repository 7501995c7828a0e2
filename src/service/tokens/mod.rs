//! Issues tokens: the access token of a client, and the pair of a session's generation.

pub(crate) mod client_credentials;
pub(crate) mod granted;

use std::time::Duration;

use crate::crypto::{RefreshCodec, RefreshToken};
use crate::domain::{
    AccessClaims, Client, Jti, LoginClaims, ScopeSet, SecretText, Session, SessionId, Subject, Timestamp,
};
use crate::replica::Replica;
use crate::service::tokens::granted::Granted;
use crate::service::{Failure, Settings};
use crate::store::SessionDetail;

/// The tokens of a token response. `Debug` hides them.
pub struct IssuedTokens {
    /// In JWS compact serialization.
    pub access_token: SecretText,
    /// Remaining lifetime of the access token.
    pub expires_in: Duration,
    /// `None` if the tokens do not belong to a session.
    pub refresh: Option<IssuedRefresh>,
    pub scope: ScopeSet,
    pub subject: Subject,
}

/// The refresh token of a token response.
pub struct IssuedRefresh {
    pub token: SecretText,
    /// Remaining lifetime.
    pub expires_in: Duration,
    pub session: SessionId,
}

impl std::fmt::Debug for IssuedTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IssuedTokens(hidden, subject: {})", self.subject)
    }
}

/// Issues tokens.
pub struct Tokens {
    pub(crate) replica: Replica,
    pub(crate) issuer: String,
    pub(crate) refresh_codec: RefreshCodec,
    pub(crate) settings: Settings,
}

impl Tokens {
    /// The pair of a session's current generation. It depends only on the session, the keys and the settings. A retry on any
    /// replica therefore gets the same refresh token, and an access token with the same `jti`, `iat` and `exp`.
    pub(crate) fn tokens_of_generation(
        &self,
        detail: &SessionDetail,
        token: &RefreshToken,
        client: &Client,
        granted: Granted,
    ) -> Result<IssuedTokens, Failure> {
        let now = self.replica.clock.now();
        let session = &detail.session;
        let claims = self.claims_of_session(detail, token, client, granted);
        let ends_at = session.idle_expires_at.min(session.absolute_expires_at);
        Ok(IssuedTokens {
            access_token: self.sign(&claims, client, now)?,
            expires_in: claims.expires_at.since(now.floor_to_second()),
            refresh: Some(IssuedRefresh {
                token: self.refresh_codec.mint(token),
                expires_in: ends_at.floor_to_second().since(now.floor_to_second()),
                session: session.id,
            }),
            scope: claims.scope,
            subject: claims.subject,
        })
    }

    /// An access token whose subject is the client itself (RFC 6749 §4.4).
    pub(crate) fn client_token(&self, client: &Client, granted: Granted) -> Result<IssuedTokens, Failure> {
        let now = self.replica.clock.now();
        let issued_at = now.floor_to_second();
        let claims = AccessClaims {
            issuer: self.issuer.clone(),
            subject: Subject::Client(client.id.clone()),
            audience: granted.audience,
            expires_at: issued_at.plus(self.access_ttl(client)),
            issued_at,
            not_before: issued_at,
            jti: Jti::from_bytes(self.replica.random.bytes()),
            client: client.id.clone(),
            scope: granted.scope,
            login: None,
            user_epoch: 0,
            client_epoch: client.epoch,
            installation_epoch: self.replica.view.installation_epoch(),
        };
        Ok(IssuedTokens {
            access_token: self.sign(&claims, client, now)?,
            expires_in: claims.expires_at.since(now.floor_to_second()),
            refresh: None,
            scope: claims.scope,
            subject: claims.subject,
        })
    }

    fn claims_of_session(
        &self,
        detail: &SessionDetail,
        token: &RefreshToken,
        client: &Client,
        granted: Granted,
    ) -> AccessClaims {
        let session = &detail.session;
        let issued_at = session.rotated_at.floor_to_second();
        AccessClaims {
            issuer: self.issuer.clone(),
            subject: Subject::User(session.user),
            audience: granted.audience,
            expires_at: self.access_expires_at(session, client),
            issued_at,
            not_before: issued_at,
            jti: token.access_jti(&granted.narrowing),
            client: session.client.clone(),
            scope: granted.scope,
            login: Some(LoginClaims {
                session: session.id,
                authenticated_at: session.authenticated_at.floor_to_second(),
                methods: detail.methods.clone(),
                roles: detail.roles.clone(),
                username: detail.username.to_string(),
            }),
            user_epoch: session.user_epoch,
            client_epoch: session.client_epoch,
            installation_epoch: session.installation_epoch,
        }
    }

    fn sign(&self, claims: &AccessClaims, client: &Client, now: Timestamp) -> Result<SecretText, Failure> {
        let algorithm = client.settings.algorithm.unwrap_or(self.settings.algorithm);
        let token_type = client.settings.token_type.unwrap_or(self.settings.token_type);
        let keys = self.replica.keyring.keys();
        let key = keys.signer(algorithm, now).ok_or_else(|| Failure::no_signing_key(algorithm))?;
        key.signing.sign_access_token(claims, token_type).map_err(Failure::internal)
    }

    /// When the access token of a session's current generation expires.
    pub(crate) fn access_expires_at(&self, session: &Session, client: &Client) -> Timestamp {
        session.rotated_at.floor_to_second().plus(self.access_ttl(client))
    }

    fn access_ttl(&self, client: &Client) -> Duration {
        client.settings.access_ttl.unwrap_or(self.settings.access_ttl)
    }
}
