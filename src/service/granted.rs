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
    /// These audiences alone (RFC 8707 §2.2).
    pub audience: Vec<Audience>,
}

impl Narrowing {
    /// Whether nothing is asked for.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// One text for each result of a narrowing to `granted` audiences: neither scopes nor audiences hold a line feed.
    fn text(&self, granted: &[Audience]) -> String {
        let scope = self.scope.as_ref().map(|scope| format!("scope\n{scope}\n"));
        let granted = granted.iter().filter(|_| !self.audience.is_empty());
        scope.into_iter().chain(granted.map(|audience| format!("audience\n{audience}\n"))).collect()
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
    /// The audiences of a client's tokens: those of `asked`, if the client has each of them. All of the client's where nothing
    /// is asked, or the service's default where the client has none. Such a client may ask for the issuer beside the default,
    /// so that its users reach their account and the administration wherever `tokens.default_audience` is another name.
    pub(super) fn audience_for(&self, client: &Client, asked: &[Audience]) -> Option<Vec<Audience>> {
        let default = &self.settings.default_audience;
        let issuer = Audience::parse(&self.issuer).ok().filter(|issuer| !asked.is_empty() && issuer != default);
        match client.settings.audiences.as_slice() {
            [] => narrowed([default].into_iter().chain(&issuer), asked),
            own => narrowed(own.iter(), asked),
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
        let audience = narrowed(kept, &asked.audience).ok_or(NotGranted::OtherAudience)?;
        if audience.is_empty() {
            return Err(NotGranted::NoAudience);
        }
        let narrowing = asked.text(&audience);
        Ok(Granted { scope, audience, narrowing })
    }

    fn may_name(&self, client: &Client, audience: &Audience) -> bool {
        let own = &client.settings.audiences;
        if own.is_empty() {
            *audience == self.settings.default_audience || audience.as_str() == self.issuer
        } else {
            own.contains(audience)
        }
    }
}

/// Those of `all` that are asked for, in the order of `all`; none if something else is asked for.
fn narrowed<'a>(all: impl Iterator<Item = &'a Audience>, asked: &[Audience]) -> Option<Vec<Audience>> {
    let all: Vec<_> = all.cloned().collect();
    if asked.is_empty() {
        return Some(all);
    }
    let has_each = asked.iter().all(|audience| all.contains(audience));
    has_each.then(|| all.into_iter().filter(|audience| asked.contains(audience)).collect())
}

/// What a client's own tokens may carry: all of its scopes but the administration's, which needs a user with the role.
pub(super) fn scope_of_client(client: &Client) -> ScopeSet {
    client.settings.scopes.filter(|word| word != ADMIN_SCOPE)
}

/// What a user's tokens may carry of `scope`: what the client may have, and the administration only with the role of the
/// same name, because a client that may carry its scope must not make every user of it an administrator.
pub(super) fn scope_of_user(client: &Client, roles: &[Role], scope: &ScopeSet) -> ScopeSet {
    let is_administrator = roles.iter().any(|role| role.as_str() == ADMIN_SCOPE);
    scope.filter(|word| client.settings.scopes.contains(word) && (is_administrator || word != ADMIN_SCOPE))
}
