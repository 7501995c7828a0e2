//! HTTP error answers. OAuth endpoints answer RFC 6749 objects, the REST API answers RFC 9457 problems, and
//! forward-auth answers only statuses that gateways understand.

mod catalogue;
mod challenge;
mod documented;
mod failure;
mod oauth;
mod problem;
mod shape;

pub use catalogue::ProblemCode;
pub use challenge::Challenge;
pub use documented::{AdminProblems, BearerProblems, BodyProblems, ProblemBody};
pub use failure::Cause;
pub(crate) use failure::Failure;
pub use oauth::{OAuthCode, OAuthDescription, OAuthError};
pub use problem::{ApiError, FieldError};
pub use shape::ErrorShape;
