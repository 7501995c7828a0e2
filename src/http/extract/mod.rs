//! Extractors of the endpoints: forms, JSON and credentials, one reader each. Every refusal has the error format of its
//! API.

mod accept;
mod authorization;
mod body;
mod client_credentials;
mod form;
mod json;
mod lines;
mod params;
mod query;
mod segment;

pub use accept::{names, prefers};
pub use authorization::{Authorization, only_authorization};
pub use client_credentials::{BodyCredentials, header_credentials};
pub use form::{FormParams, MAX_FORM_BYTES};
pub use json::{Json, JsonText, MAX_JSON_BYTES, OptionalJson};
pub use lines::lines;
pub use params::Params;
pub use query::{LenientQuery, QueryParams};
pub use segment::PathSegment;
