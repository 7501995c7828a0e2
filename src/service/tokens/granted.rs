//! Scope and audience of tokens: what was requested, limited to what the client and the user may have now.
//!
//! Every issued token uses these rules. A scope or audience removed from a client is therefore missing in its next token
//! (security.md R9).

use crate::domain::{Audience, Client, Role, ScopeSet, Session};
use crate::service::{ADMIN_SCOPE, Tokens};

/// Scope and audience of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Granted {
    /// May be empty.
    pub(crate) scope: ScopeSet,
    /// At least one.
    pub(crate) audience: Vec<Audience>,
    /// How a refresh narrowed scope and audience; empty if it did not. The `jti` is derived from it, so that tokens with
    /// different content have different `jti` for revocations and caches.
    pub(crate) narrowing: String,
}

/// The scope and audience that a refresh requests. The default is everything that was granted at login.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Narrowing {
    /// RFC 6749 §6.
    pub scope: Option<ScopeSet>,
    /// RFC 8707 §2.2.
    pub audience: Vec<Audience>,
}

impl Narrowing {
    /// Whether the refresh requests everything.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// A text that is unique for the scope and the `granted` audiences. Scopes and audiences contain no line feed.
    fn text(&self, granted: &[Audience]) -> String {
        let scope = self.scope.as_ref().map(|scope| format!("scope\n{scope}\n"));
        let granted = granted.iter().filter(|_| !self.audience.is_empty());
        scope.into_iter().chain(granted.map(|audience| format!("audience\n{audience}\n"))).collect()
    }
}

/// Why a session gets no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotGranted {
    /// The requested scope exceeds what was granted at login (RFC 6749 §6).
    WiderScope,
    /// A requested audience does not belong to the session, or not to the client any more.
    OtherAudience,
    /// The client has lost all audiences of the session.
    NoAudience,
}

impl Tokens {
    /// The audiences of a client's tokens: those in `asked`, or `None` if the client does not have all of them. If `asked` is
    /// empty, all audiences of the client. A client without audiences has the default audience. It can also request the
    /// issuer, so that its users can reach the account and administration API if `tokens.default_audience` differs from it.
    pub(crate) fn audience_for(&self, client: &Client, asked: &[Audience]) -> Option<Vec<Audience>> {
        let default = &self.settings.default_audience;
        let issuer = Audience::parse(&self.issuer).ok().filter(|issuer| !asked.is_empty() && issuer != default);
        match client.settings.audiences.as_slice() {
            [] => narrowed([default].into_iter().chain(&issuer), asked),
            own => narrowed(own.iter(), asked),
        }
    }

    /// Scope and audience of a session's tokens now. They never exceed what was granted at login, nor what the client has.
    pub(crate) fn granted_now(
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

/// The items of `all` that are in `asked`, in the order of `all`. `None` if `asked` contains another item.
fn narrowed<'a>(all: impl Iterator<Item = &'a Audience>, asked: &[Audience]) -> Option<Vec<Audience>> {
    let all: Vec<_> = all.cloned().collect();
    if asked.is_empty() {
        return Some(all);
    }
    let has_each = asked.iter().all(|audience| all.contains(audience));
    has_each.then(|| all.into_iter().filter(|audience| asked.contains(audience)).collect())
}

/// The scope of tokens whose subject is the client. It excludes the administration scope, which requires a user with the
/// role.
pub(crate) fn scope_of_client(client: &Client) -> ScopeSet {
    client.settings.scopes.filter(|word| word != ADMIN_SCOPE)
}

/// The part of `scope` that a user's tokens may have. The client must have each scope. The administration scope also needs
/// the role of the same name: a client that has this scope must not make all its users administrators.
pub(crate) fn scope_of_user(client: &Client, roles: &[Role], scope: &ScopeSet) -> ScopeSet {
    let is_administrator = roles.iter().any(|role| role.as_str() == ADMIN_SCOPE);
    scope.filter(|word| client.settings.scopes.contains(word) && (is_administrator || word != ADMIN_SCOPE))
}
