//! `Authorization/Check`: translates an Envoy request to forward-auth, and the answer back.

use std::collections::BTreeMap;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tonic::{Code, Response};

use super::Checks;
use super::messages::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderOption, HttpRequest, HttpResponse,
    HttpStatus, OkHttpResponse, RpcStatus,
};
use crate::http::forward_auth::{self, Demands, ForwardAuth, ForwardAuthHeaders};
use crate::http::middleware::{RequestId, X_REQUEST_ID};

/// The headers of the checked request that forward-auth reads.
const READ: [HeaderName; 4] = [AUTHORIZATION, ORIGIN, ACCESS_CONTROL_REQUEST_METHOD, X_REQUEST_ID];

/// The keys of `context_extensions` that are demands.
const DEMANDS: [&str; 3] = ["aud", "scope", "role"];
/// Characters of an unknown key that are logged.
const LOGGED_KEY_CHARS: usize = 100;

/// Checks one request. Without a verdict the answer is a refusal with 503, not a failed call. For failed calls Envoy
/// has a setting of its own, which can let the request pass.
pub(super) async fn check(checks: &Checks, request: CheckRequest) -> Response<CheckResponse> {
    let shared = &*checks.shared;
    let AttributeContext { request, context_extensions } = request.attributes.unwrap_or_default();
    let held = request.and_then(|request| request.http).unwrap_or_default();
    let method = Method::from_bytes(held.method.as_bytes()).unwrap_or_default();
    let headers = headers(&held);
    let context = Context::new(&context_extensions);
    if let Some(key) = context.unknown
        && checks.unknown_keys.is_due(shared.clock.elapsed())
    {
        let key: String = key.chars().take(LOGGED_KEY_CHARS).collect();
        tracing::error!(
            key,
            "requests refused: context_extensions of an Envoy route may have only the keys aud, scope and role"
        );
    }
    let mut decided = forward_auth::decide(shared, &method, &headers, context).await;
    decided.facts.status = Some(decided.status.as_u16());
    decided.facts.request_id = RequestId::of_caller(&headers);
    let facts = decided.facts.clone();
    let mut response = Response::new(answer(decided, &shared.settings.forward_auth));
    response.extensions_mut().insert(facts);
    response
}

fn answer(decided: ForwardAuth, names: &ForwardAuthHeaders) -> CheckResponse {
    let overwriting =
        |(name, value): (HeaderName, HeaderValue)| HeaderOption::overwriting(name.as_str(), value.as_bytes());
    let (code, response) = if decided.status.is_success() {
        let headers = decided.identity_pairs(names).into_iter().map(overwriting).collect();
        (Code::Ok, HttpResponse::Ok(OkHttpResponse { headers }))
    } else {
        let headers = decided.extra.into_iter().flatten().map(overwriting).collect();
        let status = Some(HttpStatus { code: decided.status.as_u16().into() });
        let code = match decided.status.as_u16() {
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            _ => Code::Unavailable,
        };
        (code, HttpResponse::Denied(DeniedHttpResponse { status, headers }))
    };
    CheckResponse { status: Some(RpcStatus { code: code.into() }), http_response: Some(response) }
}

/// Every occurrence of the headers in [`READ`]. An invalid value becomes an empty one.
fn headers(held: &HttpRequest) -> HeaderMap {
    let mut found = HeaderMap::new();
    let mut keep = |key: &str, value: &[u8]| {
        if let Some(name) = READ.iter().find(|name| name.as_str().eq_ignore_ascii_case(key)) {
            found.append(name.clone(), HeaderValue::from_bytes(value).unwrap_or(HeaderValue::from_static("")));
        }
    };
    held.headers.iter().for_each(|(key, value)| keep(key, value.as_bytes()));
    for header in held.header_map.iter().flat_map(|raw| &raw.headers) {
        let value = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
        keep(&header.key, value);
    }
    found
}

/// The demands of a route: `context_extensions` of Envoy's configuration, which the caller cannot change. No token
/// satisfies an empty demand or one with an unknown key, so that a typing error does not admit every token.
struct Context<'a> {
    extensions: &'a BTreeMap<String, String>,
    unknown: Option<&'a str>,
}

impl<'a> Context<'a> {
    fn new(extensions: &'a BTreeMap<String, String>) -> Self {
        let unknown = extensions.keys().map(String::as_str).find(|key| !DEMANDS.contains(key));
        Self { extensions, unknown }
    }
}

impl Demands for Context<'_> {
    fn values(&self, name: &str) -> impl Iterator<Item = Option<impl AsRef<str>>> {
        let value = self.extensions.get(name).map(|value| Some(value).filter(|value| !value.is_empty()));
        value.into_iter().chain(self.unknown.map(|_| None))
    }
}
