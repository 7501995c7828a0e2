//! What endpoints take from a request: one form reader, one JSON reader, one reader of credentials. Every refusal is in
//! the shape of the API that asked.

mod accept;
mod authorization;
mod body;
mod client_credentials;
mod form;
mod json;
mod json_path;
mod json_strict;
mod lines;
mod params;
mod query;
mod segment;

pub use accept::{names, prefers};
pub use authorization::{Authorization, AuthorizationFault, BearerToken, IdAndSecret, authorization};
pub use client_credentials::{BodyCredentials, ClientCredentialsInput};
pub use form::{FormParams, MAX_FORM_BYTES};
pub use json::{Json, JsonText, MAX_JSON_BYTES, OptionalJson};
pub use lines::lines;
pub use query::{LenientQuery, QueryParams};
pub use segment::PathSegment;
