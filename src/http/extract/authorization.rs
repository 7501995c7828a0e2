//! The `Authorization` header (RFC 9110 §11.6.2): Basic and Bearer.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use super::params;
use crate::domain::SecretText;

/// Standard Base64 (RFC 7617). Padding is optional, because some gateways are configured with a value without it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A client id and secret from a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdAndSecret {
    /// The unparsed id.
    pub id: String,
    /// The secret; may be empty.
    pub secret: SecretText,
}

/// The credentials of an `Authorization` header.
#[derive(Debug)]
pub enum Authorization<'a> {
    /// RFC 7617: the id and secret as received, then form-decoded (RFC 6749 §2.3.1) if that differs. Gateways use both
    /// forms, and an operator cannot always find out which (security.md H4).
    Basic(Vec<IdAndSecret>),
    /// RFC 6750 §2.1: a token of which only the syntax was checked.
    Bearer(BearerToken<'a>),
    /// Another scheme.
    Other,
}

/// Why an `Authorization` header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorizationFault {
    /// The header occurs twice.
    Repeated,
    /// It has no scheme, or its credentials do not follow the scheme's syntax.
    Malformed,
}

/// A bearer token borrowed from a header; its `Debug` output hides it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BearerToken<'a>(&'a str);

impl<'a> BearerToken<'a> {
    /// The token, for verification only.
    pub fn expose(self) -> &'a str {
        self.0
    }
}

impl fmt::Debug for BearerToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(hidden)")
    }
}

/// Reads the header; `None` if absent. Schemes are compared without case (RFC 9110 §11.1).
pub fn authorization(headers: &HeaderMap) -> Result<Option<Authorization<'_>>, AuthorizationFault> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(AuthorizationFault::Repeated);
    }
    let text = value.to_str().map_err(|_| AuthorizationFault::Malformed)?;
    let (scheme, rest) = text.split_once(' ').ok_or(AuthorizationFault::Malformed)?;
    let credentials = rest.trim_matches(' ');
    if scheme.eq_ignore_ascii_case("Bearer") {
        if !is_token68(credentials) {
            return Err(AuthorizationFault::Malformed);
        }
        Ok(Some(Authorization::Bearer(BearerToken(credentials))))
    } else if scheme.eq_ignore_ascii_case("Basic") {
        basic(credentials).map(|candidates| Some(Authorization::Basic(candidates)))
    } else {
        Ok(Some(Authorization::Other))
    }
}

/// Whether the only `Authorization` header has the scheme Bearer; its token may be invalid.
pub fn names_bearer(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let first = values.next().map(HeaderValue::as_bytes).filter(|_| values.next().is_none());
    let scheme = first.and_then(|value| value.split(|byte| *byte == b' ').next());
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"Bearer"))
}

fn basic(credentials: &str) -> Result<Vec<IdAndSecret>, AuthorizationFault> {
    const MALFORMED: AuthorizationFault = AuthorizationFault::Malformed;
    let bytes = Zeroizing::new(BASE64.decode(credentials).map_err(|_| MALFORMED)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| MALFORMED)?;
    if text.chars().any(char::is_control) {
        return Err(MALFORMED);
    }
    let (id, secret) = text.split_once(':').filter(|(id, _)| !id.is_empty()).ok_or(MALFORMED)?;
    let mut candidates = vec![IdAndSecret { id: id.to_owned(), secret: SecretText::new(secret) }];
    if text.contains(['%', '+'])
        && let (Some(id), Some(secret)) = (params::decode(id.as_bytes()), params::decode(secret.as_bytes()))
        && !id.is_empty()
    {
        candidates.push(IdAndSecret { id: id.to_string(), secret: SecretText::from(secret) });
    }
    Ok(candidates)
}

/// `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="` (RFC 6750 §2.1).
fn is_token68(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let is_token_byte =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/');
    !body.is_empty() && body.bytes().all(is_token_byte)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD as PADDED;
    use proptest::prelude::*;

    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_bytes(value).unwrap())).collect()
    }

    fn candidates(decoded: &[u8]) -> Option<Vec<(String, String)>> {
        let value = format!("basic {}", PADDED.encode(decoded));
        match authorization(&headers(&[value.as_bytes()])) {
            Ok(Some(Authorization::Basic(candidates))) => {
                Some(candidates.into_iter().map(|pair| (pair.id, pair.secret.expose().to_owned())).collect())
            }
            _ => None,
        }
    }

    fn pair(id: &str, secret: &str) -> (String, String) {
        (id.to_owned(), secret.to_owned())
    }

    #[test]
    fn h4_basic_is_tried_raw_and_form_decoded() {
        assert_eq!(candidates(b"gateway:s3cret"), Some(vec![pair("gateway", "s3cret")]));
        assert_eq!(candidates(b"gw:a:b:c"), Some(vec![pair("gw", "a:b:c")]), "the first colon splits");
        assert_eq!(candidates(b"gw:a%2Bb+c"), Some(vec![pair("gw", "a%2Bb+c"), pair("gw", "a+b c")]));
        assert_eq!(candidates(b"gw:100%"), Some(vec![pair("gw", "100%")]), "not a form encoding: raw only");
        assert_eq!(candidates(b"my%3Aid:x"), Some(vec![pair("my%3Aid", "x"), pair("my:id", "x")]));
        assert_eq!(candidates(b"gw:"), Some(vec![pair("gw", "")]));
        // RFC 6749 appendix B: " %&+£€".
        assert_eq!(candidates(b"gw:+%25%26%2B%C2%A3%E2%82%AC").unwrap()[1], pair("gw", " %&+\u{a3}\u{20ac}"));
    }

    #[test]
    fn h4_malformed_basic_is_refused() {
        for bad in [&b"no-colon"[..], b":secret", b"gw:\xff", b"gw:a\0b", b"gw:a\nb", b""] {
            assert_eq!(candidates(bad), None, "{bad:?}");
        }
        assert_eq!(candidates(b"gw:a%00b"), Some(vec![pair("gw", "a%00b")]), "a decoded NUL is no candidate");
        for bad in ["Basic", "Basic ", "Basic !!!", "Basic Z3c6czNjcmV0 extra", "", "Bearer", "Bearer ", "Bearer a b"] {
            assert_eq!(authorization(&headers(&[bad.as_bytes()])).err(), Some(AuthorizationFault::Malformed), "{bad}");
        }
    }

    #[test]
    fn h3_two_headers_are_refused() {
        let two = headers(&[b"Bearer a", b"Bearer a"]);
        assert_eq!(authorization(&two).err(), Some(AuthorizationFault::Repeated));
        assert!(authorization(&HeaderMap::new()).unwrap().is_none());
    }

    #[test]
    fn bearer_matches_its_scheme_without_case_and_refuses_invalid_characters() {
        for good in ["Bearer a.b.c", "bearer a.b-c_~+/==", "BEARER  abc"] {
            assert!(
                matches!(authorization(&headers(&[good.as_bytes()])), Ok(Some(Authorization::Bearer(_)))),
                "{good}"
            );
        }
        for bad in ["Bearer a,b", "Bearer \"a\"", "Bearer ==", "Bearer a=b", "Bearer\ta"] {
            assert!(authorization(&headers(&[bad.as_bytes()])).is_err(), "{bad}");
        }
        assert!(authorization(&headers(&[b"Bearer \xe9"])).is_err());
        assert!(matches!(authorization(&headers(&[b"Digest x=y"])), Ok(Some(Authorization::Other))));
    }

    #[test]
    fn s2_secrets_do_not_print() {
        let value = format!("Basic {}", PADDED.encode("gw:hunter2"));
        let headers = headers(&[value.as_bytes()]);
        assert!(!format!("{:?}", authorization(&headers)).contains("hunter2"));
        assert_eq!(format!("{:?}", BearerToken("abc")), "BearerToken(hidden)");
    }

    proptest! {
        #[test]
        fn h4_reading_never_panics(bytes in "[ -~]{0,60}", decoded: Vec<u8>) {
            let _ = authorization(&headers(&[bytes.as_bytes()]));
            let _ = candidates(&decoded);
        }
    }
}
