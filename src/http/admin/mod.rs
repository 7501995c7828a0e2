//! `/admin/v1` on the operations listener.

pub mod audit;
pub mod clients;
pub mod keys;
pub mod revocations;
pub mod sessions;
pub mod status;
pub mod users;

pub use audit::AuditItem;
pub use clients::ClientItem;
pub use keys::KeyItem;
pub use users::UserItem;

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::http::bearer;
use crate::http::error::{ApiError, Challenge, ProblemCode};
use crate::http::middleware::{Principal, RequestContext, note_caller};
use crate::http::state::Shared;
use crate::service::{AdminError, Requester};

/// An authenticated administrator, with the actor for the audit trail. Every handler of `/admin/v1` takes one, so no
/// endpoint lacks authentication.
pub struct Administrator(pub Requester);

impl FromRequestParts<Arc<Shared>> for Administrator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, ApiError> {
        let mut from = RequestContext::from_request_parts(parts, shared).await?.requester();
        let token = bearer::token(&parts.headers)?;
        from.actor = shared.service.administration.administrator(token).await.map_err(|error| match error {
            AdminError::WrongAudience(error) => bearer::wrong_audience(&error),
            AdminError::Refused => ApiError::new(ProblemCode::InvalidToken),
            AdminError::NotAllowed => {
                let scope = crate::domain::ScopeSet::parse(crate::service::ADMIN_SCOPE).unwrap_or_default();
                ApiError::new(ProblemCode::InsufficientScope).challenge(Challenge::BearerInsufficientScope(scope))
            }
            AdminError::Unavailable(reason) => bearer::unavailable(reason),
            AdminError::Failed(failure) => failure.into(),
        })?;
        note_caller(Some(Principal::Administrator(from.actor.as_str().into())));
        Ok(Self(from))
    }
}
