//! Query strings: strict for the REST API, lenient for forward-auth.

use axum::extract::FromRequestParts;
use bytes::Bytes;
use http::request::Parts;
use zeroize::Zeroizing;

use super::params::{Params, ParamsError, decode, pairs, split_pair};
use crate::http::error::ApiError;

/// The query parameters of a REST request: none repeated, none malformed. The endpoint checks the names with
/// [`QueryParams::only`].
pub struct QueryParams(Params);

impl QueryParams {
    /// Parses a query string (without the `?`).
    pub fn parse(query: &str) -> Result<Self, ApiError> {
        Params::parse(Bytes::copy_from_slice(query.as_bytes())).map(Self).map_err(|error| {
            ApiError::invalid_field(
                "query",
                match error {
                    ParamsError::Malformed => "is malformed",
                    ParamsError::Repeated => "contains a parameter twice",
                    ParamsError::TooMany => "contains too many parameters",
                },
            )
        })
    }

    /// Refuses every parameter that is not one of `known`.
    pub fn only(self, known: &[&str]) -> Result<Self, ApiError> {
        if self.0.names().all(|name| known.contains(&name)) {
            Ok(self)
        } else {
            Err(ApiError::invalid_field("query", "has a parameter that this endpoint does not know"))
        }
    }

    /// The value of a parameter of at most `max_bytes` bytes; `None` if it is absent or empty.
    pub fn optional(&self, name: &'static str, max_bytes: usize) -> Result<Option<&str>, ApiError> {
        match self.0.find(name) {
            Some(value) if value.len() > max_bytes => Err(ApiError::invalid_field(name, "is too long")),
            found => Ok(found),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for QueryParams {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

/// The query of a forward-auth request. Proxies append the query string of the original request, so parameters can be
/// repeated, malformed or unrelated. Every occurrence of a known name is applied: parameters only ever restrict access.
#[derive(Debug, Clone, Copy)]
pub struct LenientQuery<'a>(&'a str);

impl<'a> LenientQuery<'a> {
    /// Wraps a query string (without the `?`).
    pub fn new(query: Option<&'a str>) -> Self {
        Self(query.unwrap_or_default())
    }

    /// Every value of `name` in order. A value that cannot be decoded is `None`, which no token satisfies. Empty values
    /// are skipped: they count as omitted.
    pub fn values(self, name: &str) -> impl Iterator<Item = Option<Zeroizing<String>>> {
        pairs(self.0.as_bytes()).filter_map(move |pair| {
            let (key, value) = split_pair(pair);
            let is_named = || decode(key).is_some_and(|key| *key == name);
            (!value.is_empty() && is_named()).then(|| decode(value))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn h2_rest_queries_are_strict() {
        assert!(QueryParams::parse("limit=1&limit=2").is_err() && QueryParams::parse("limit=%zz").is_err());
        let query = QueryParams::parse("limit=10&cursor=").ok().unwrap().only(&["limit", "cursor"]).ok().unwrap();
        assert_eq!(query.optional("limit", 4).ok(), Some(Some("10")));
        assert_eq!(query.optional("cursor", 4).ok(), Some(None));
        assert!(query.optional("limit", 1).is_err());
        assert!(QueryParams::parse("limit=10&admin=true").ok().unwrap().only(&["limit"]).is_err());
    }

    #[test]
    fn forward_auth_reads_every_restriction_despite_appended_parameters() {
        let query = LenientQuery::new(Some("aud=api&scope=read+all&x=%zz&%&aud=other&a%75d=third&aud="));
        let audiences: Vec<_> = query.values("aud").map(|value| value.map(|text| text.to_string())).collect();
        assert_eq!(audiences, [Some("api".into()), Some("other".into()), Some("third".into())]);
        let scopes: Vec<_> = query.values("scope").flatten().map(|text| text.to_string()).collect();
        assert_eq!(scopes, ["read all"]);
        assert_eq!(LenientQuery::new(Some("aud=%ff")).values("aud").collect::<Vec<_>>(), [None]);
        assert_eq!(LenientQuery::new(None).values("aud").count(), 0);
    }

    proptest! {
        #[test]
        fn forward_auth_reads_any_query_without_panic(query in "\\PC{0,80}") {
            let _ = LenientQuery::new(Some(&query)).values("aud").count();
            let _ = QueryParams::parse(&query);
        }
    }
}
