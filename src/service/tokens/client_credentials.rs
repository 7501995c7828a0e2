//! The client credentials grant (RFC 6749 §4.4). It does not use the database.

use crate::domain::{Audience, Grant, ScopeSet};
use crate::service::tokens::granted::{Granted, scope_of_client};
use crate::service::{Caller, Failure, IssuedTokens, Tokens};

/// Why no token was issued.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// The client did not authenticate, or its settings do not allow this grant.
    #[error("the client is not allowed to use this grant")]
    ClientNotAllowed,
    #[error("the scope is not allowed")]
    InvalidScope,
    /// RFC 8707 §2: `invalid_target`.
    #[error("the audience is not allowed")]
    InvalidAudience,
    /// The service failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Tokens {
    /// Issues a token whose subject is `caller`.
    pub fn client_credentials(
        &self,
        caller: &Caller,
        scope: Option<ScopeSet>,
        audience: &[Audience],
    ) -> Result<IssuedTokens, GrantError> {
        let client = &*caller.client;
        if !caller.authenticated || !client.settings.grants.allow(Grant::ClientCredentials) {
            return Err(GrantError::ClientNotAllowed);
        }
        let allowed = scope_of_client(client);
        let scope = scope.unwrap_or_else(|| allowed.clone());
        if !scope.is_subset_of(&allowed) {
            return Err(GrantError::InvalidScope);
        }
        let audience = self.audience_for(client, audience).ok_or(GrantError::InvalidAudience)?;
        Ok(self.client_token(client, Granted { scope, audience, narrowing: String::new() })?)
    }
}
