//! Query strings: strict for the REST API, lenient for forward-auth.

use axum::extract::FromRequestParts;
use bytes::Bytes;
use http::request::Parts;
use zeroize::Zeroizing;

use super::params::{Params, decode, pairs, split_pair};
use crate::http::error::ApiError;

/// The query parameters of a REST request: none repeated, none malformed. The endpoint checks the names with
/// [`Params::only`].
pub struct QueryParams(pub Params);

impl<S: Sync> FromRequestParts<S> for QueryParams {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        Params::parse(&Bytes::copy_from_slice(query.as_bytes())).map(Self)
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
            let is_plain = memchr::memchr2(b'%', b'+', key).is_none();
            let is_named = || {
                if is_plain { key == name.as_bytes() } else { decode(key).is_some_and(|key| *key == name) }
            };
            (!value.is_empty() && is_named()).then(|| decode(value))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(query: &str) -> Result<Params, ApiError> {
        Params::parse(&Bytes::copy_from_slice(query.as_bytes()))
    }

    #[test]
    fn h2_rest_queries_are_strict() {
        assert!(parse("limit=1&limit=2").is_err() && parse("limit=%zz").is_err());
        let query = parse("limit=10&cursor=").ok().unwrap().only(&["limit", "cursor"]).ok().unwrap();
        assert_eq!(query.optional("limit", 4).ok(), Some(Some("10")));
        assert_eq!(query.optional("cursor", 4).ok(), Some(None));
        assert!(query.optional("limit", 1).is_err());
        assert!(parse("limit=10&admin=true").ok().unwrap().only(&["limit"]).is_err());
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
            let _ = parse(&query);
        }
    }
}
