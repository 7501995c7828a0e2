//! Errors in the API document: written once, named by every operation that can answer them.

use std::collections::BTreeMap;

use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

/// A problem (RFC 9457) with a stable `code`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Problem::render` writes")]
pub struct ProblemBody {
    /// A name of the problem.
    r#type: String,
    /// The same words for every occurrence.
    title: String,
    /// The status of the answer.
    status: u16,
    /// A sentence about this occurrence.
    detail: Option<String>,
    /// Stable, for programs.
    code: String,
    /// The answer's `X-Request-Id`.
    request_id: String,
    /// What is wrong with which field.
    errors: Option<Vec<FieldProblem>>,
}

/// What is wrong with one field.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Problem::render` writes")]
pub struct FieldProblem {
    /// Its path.
    field: String,
    /// A sentence for the person who sent it.
    detail: String,
}

/// What a body can be refused for: 400, 408, 413, 415; and 500.
pub struct BodyProblems;

/// What every bearer of a token can be answered: 400, 401, 500 and 503.
pub struct BearerProblems;

/// What every administrator can be answered: 400, 401, 403, 500 and 503.
pub struct AdminProblems;

type Responses = BTreeMap<String, RefOr<Response>>;

/// What any of them can be answered.
const INTERNAL: (&str, &str) = ("500", "`internal`: a fault of ours; the log has its cause under the request id");

/// A commit whose answer was lost or came too late may stand.
const UNAVAILABLE: &str = "`temporarily_unavailable`: the service cannot answer now. A requested change may have been made; \
                           check before repeating it";

impl IntoResponses for BodyProblems {
    fn responses() -> Responses {
        problems(&[
            ("400", "The request is not valid"),
            ("408", "The body did not arrive in time"),
            ("413", "The body is too large"),
            ("415", "The content type is not the one that is read here"),
            INTERNAL,
        ])
    }
}

impl IntoResponses for BearerProblems {
    fn responses() -> Responses {
        problems(&[
            ("400", "There is more than one Authorization header, or the query is malformed"),
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
