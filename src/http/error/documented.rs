//! Error responses in the API document, shared by all operations.

use std::collections::BTreeMap;

use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

/// A problem (RFC 9457) with a stable `code`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Problem::render` writes")]
pub struct ProblemBody {
    /// URN of the problem.
    r#type: String,
    /// Text that is the same for every occurrence.
    title: String,
    /// HTTP status of the answer.
    status: u16,
    /// Explanation of this occurrence.
    detail: Option<String>,
    /// Stable code for programs.
    code: String,
    /// Value of the answer's `X-Request-Id`.
    request_id: String,
    /// Errors of single fields.
    errors: Option<Vec<FieldProblem>>,
}

/// Error of one field.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Problem::render` writes")]
pub struct FieldProblem {
    /// Path of the field.
    field: String,
    /// Explanation for the caller.
    detail: String,
}

/// Errors of reading a body: 400, 408, 413, 415; and 500.
pub struct BodyProblems;

/// Errors of every endpoint with a bearer token: 400, 401, 500 and 503.
pub struct BearerProblems;

/// Errors of every administrative endpoint: 400, 401, 403, 500 and 503.
pub struct AdminProblems;

/// Errors of the revocation feed: 400, 401, 403, 429, 500 and 503.
pub struct FeedProblems;

type Responses = BTreeMap<String, RefOr<Response>>;

/// The error that every endpoint can answer.
const INTERNAL: (&str, &str) =
    ("500", "`internal`: a fault of the service; the log contains its cause with the request id");

/// A transaction can commit although its result was lost or arrived too late.
const UNAVAILABLE: &str = "`temporarily_unavailable`: the service cannot answer now. A requested change may have been made; \
                           check before repeating it";

impl IntoResponses for FeedProblems {
    fn responses() -> Responses {
        problems(&[
            ("400", "`invalid_request`"),
            ("401", "`invalid_client`"),
            ("403", "`unauthorized_client`: the client's setting `feed` is `none`"),
            ("429", "`too_many_attempts`: too many failed authentications"),
            INTERNAL,
            ("503", "`temporarily_unavailable`: the replica has not started; `busy`: too many readers"),
        ])
    }
}

impl IntoResponses for BodyProblems {
    fn responses() -> Responses {
        problems(&[
            ("400", "The request is not valid"),
            ("408", "The body did not arrive in time"),
            ("413", "The body is too large"),
            ("415", "The content type is not supported"),
            INTERNAL,
        ])
    }
}

impl IntoResponses for BearerProblems {
    fn responses() -> Responses {
        problems(&[
            ("400", "The Authorization header is repeated, or the query is malformed"),
            ("401", "The access token is missing or not valid"),
            INTERNAL,
            ("503", UNAVAILABLE),
        ])
    }
}

impl IntoResponses for AdminProblems {
    fn responses() -> Responses {
        let mut all = BearerProblems::responses();
        all.extend(problems(&[("403", "The token does not allow administration")]));
        all
    }
}

fn problems(list: &[(&str, &str)]) -> Responses {
    list.iter().map(|(status, text)| ((*status).to_owned(), RefOr::T(problem(text)))).collect()
}

fn problem(text: &str) -> Response {
    let schema = Ref::from_schema_name("ProblemBody");
    ResponseBuilder::new()
        .description(text)
        .content("application/problem+json", ContentBuilder::new().schema(Some(schema)).build())
        .build()
}
