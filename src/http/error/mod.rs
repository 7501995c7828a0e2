//! HTTP error answers. OAuth endpoints answer RFC 6749 objects, the REST API answers RFC 9457 problems, and
//! forward-auth answers only statuses that gateways understand.

mod api_error;
mod catalogue;
mod challenge;
mod content;
mod documented;
mod shape;

pub use api_error::ApiError;
pub use catalogue::ProblemCode;
pub use challenge::Challenge;
pub(crate) use content::ErrorContent;
pub use content::{Cause, FieldError};
pub use documented::{AdminProblems, BearerProblems, BodyProblems, FeedProblems, ProblemBody};
pub use shape::ErrorShape;
