//! What tokens may say: what was asked for or granted at login, within what the client and the user may have now.
//!
//! Every token passes through here, so a right that was taken from a client is gone with its next token (security.md R9).

use crate::domain::{Audience, Client, Role, ScopeSet, Session};

use super::{ADMIN_SCOPE, Service};

/// What a token says of its use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Granted {
    /// What it is good for; may be empty.
    pub(super) scope: ScopeSet,
    /// Whom it is for; at least one.
    pub(super) audience: Vec<Audience>,
    /// What it was narrowed by; empty for all that there is. Tokens that say different things are never one to revocations
    /// and caches, so it is part of what makes their `jti`.
    pub(super) narrowing: String,
}

/// What a refresh asks for; nothing means all that was granted at login.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Narrowing {
    /// No more scope than this (RFC 6749 §6).
    pub scope: Option<ScopeSet>,
    /// This audience alone (RFC 8707 §2.2).
    pub audience: Option<Audience>,
}

impl Narrowing {
    /// Whether nothing is asked for.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// One text for each of what can be asked for: scopes hold no line feed, and neither do audiences.
    fn text(&self) -> String {
        let Self { scope, audience } = self;
        let scope = scope.as_ref().map(|scope| format!("scope\n{scope}\n"));
        let audience = audience.as_ref().map(|audience| format!("audience\n{audience}\n"));
        scope.into_iter().chain(audience).collect()
    }
}

/// Why a session yields no token now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotGranted {
    /// More scope was asked for than was granted at login (RFC 6749 §6).
    WiderScope,
    /// An audience was asked for that the session is not for, or that the client lost.
    OtherAudience,
    /// The client may not have any of the session's audiences any more.
    NoAudience,
}

impl Service {
    /// Whom a client's tokens are for: what was asked, if it is one of the client's; otherwise all of the client's, or
    /// the service's default where it has none.
    pub(super) fn audience_for(&self, client: &Client, asked: Option<Audience>) -> Option<Vec<Audience>> {
        match asked {
            Some(asked) => self.may_name(client, &asked).then(|| vec![asked]),
            None if client.settings.audiences.is_empty() => Some(vec![self.settings.default_audience.clone()]),
            None => Some(client.settings.audiences.clone()),
        }
    }

    /// What the tokens of a session may say now: narrowing only, and never an audience that the client lost.
    pub(super) fn granted_now(
        &self,
        session: &Session,
        roles: &[Role],
        client: &Client,
        asked: &Narrowing,
    ) -> Result<Granted, NotGranted> {
        if asked.scope.as_ref().is_some_and(|asked| !asked.is_subset_of(&session.scope)) {
            return Err(NotGranted::WiderScope);
        }
        let scope = scope_of_user(client, roles, asked.scope.as_ref().unwrap_or(&session.scope));
        let kept = session.audience.iter().filter(|audience| self.may_name(client, audience));
        let is_asked = |audience: &&Audience| asked.audience.as_ref().is_none_or(|asked| asked == *audience);
        let audience: Vec<_> = kept.filter(is_asked).cloned().collect();
        match (audience.is_empty(), &asked.audience) {
            (false, _) => Ok(Granted { scope, audience, narrowing: asked.text() }),
            (true, Some(_)) => Err(NotGranted::OtherAudience),
            (true, None) => Err(NotGranted::NoAudience),
        }
    }

    fn may_name(&self, client: &Client, audience: &Audience) -> bool {
        let own = &client.settings.audiences;
        if own.is_empty() { *audience == self.settings.default_audience } else { own.contains(audience) }
    }
}

/// What a user's tokens may carry of `scope`: what the client may have, and the administration only with the role of the
/// same name, because a client that may carry its scope must not make every user of it an administrator.
pub(super) fn scope_of_user(client: &Client, roles: &[Role], scope: &ScopeSet) -> ScopeSet {
    let is_administrator = roles.iter().any(|role| role.as_str() == ADMIN_SCOPE);
    scope.filter(|word| client.settings.scopes.contains(word) && (is_administrator || word != ADMIN_SCOPE))
}
