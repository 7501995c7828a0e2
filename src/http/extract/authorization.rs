//! The `Authorization` header (RFC 9110 §11.6.2): Basic and Bearer.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use memchr::memchr;
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

/// The credentials of the `Authorization` header. They are secret, so there is no `Debug`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Authorization<'a> {
    /// There is no header.
    Absent,
    /// The header occurs twice.
    Repeated,
    /// RFC 7617: the encoded id and secret, see [`basic`].
    Basic(&'a str),
    /// RFC 6750 §2.1: an unverified token. `None` if it is empty or not text.
    Bearer(Option<&'a str>),
    /// Another scheme.
    Other,
}

impl<'a> Authorization<'a> {
    /// Reads the header. Schemes are compared without case (RFC 9110 §11.1).
    pub fn of(headers: &'a HeaderMap) -> Self {
        let Ok(header) = only_authorization(headers) else { return Self::Repeated };
        let Some(bytes) = header.map(HeaderValue::as_bytes) else { return Self::Absent };
        let (scheme, rest) = bytes.split_at(memchr(b' ', bytes).unwrap_or(bytes.len()));
        let credentials = std::str::from_utf8(rest).unwrap_or_default().trim_matches(' ');
        if scheme.eq_ignore_ascii_case(b"Bearer") {
            Self::Bearer(Some(credentials).filter(|token| !token.is_empty()))
        } else if scheme.eq_ignore_ascii_case(b"Basic") {
            Self::Basic(credentials)
        } else {
            Self::Other
        }
    }
}

/// The header occurs twice.
pub struct Repeated;

/// The value of the header, if there is at most one.
pub fn only_authorization(headers: &HeaderMap) -> Result<Option<&HeaderValue>, Repeated> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let first = values.next();
    if values.next().is_some() { Err(Repeated) } else { Ok(first) }
}

/// Decodes the credentials of RFC 7617: the id and secret as received, then form-decoded (RFC 6749 §2.3.1) if that
/// differs. Gateways use both forms, and an operator cannot always find out which (security.md H4).
pub fn basic(credentials: &str) -> Option<Vec<IdAndSecret>> {
    let bytes = Zeroizing::new(BASE64.decode(credentials).ok()?);
    let text = std::str::from_utf8(&bytes).ok()?;
    if text.chars().any(char::is_control) {
        return None;
    }
    let (id, secret) = text.split_once(':').filter(|(id, _)| !id.is_empty())?;
    let mut candidates = vec![IdAndSecret { id: id.to_owned(), secret: SecretText::new(secret) }];
    if text.contains(['%', '+'])
        && let (Some(id), Some(secret)) = (params::decode(id.as_bytes()), params::decode(secret.as_bytes()))
        && !id.is_empty()
    {
        candidates.push(IdAndSecret { id: id.to_string(), secret: SecretText::from(secret) });
    }
    Some(candidates)
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
        match Authorization::of(&headers(&[value.as_bytes()])) {
            Authorization::Basic(credentials) => {
                let pairs = basic(credentials)?.into_iter();
                Some(pairs.map(|pair| (pair.id, pair.secret.expose().to_owned())).collect())
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
        for bad in ["", "!!!", "Z3c6czNjcmV0 extra"] {
            assert_eq!(basic(bad), None, "{bad}");
        }
    }

    #[test]
    fn h3_two_headers_are_refused() {
        assert!(Authorization::of(&headers(&[b"Bearer a", b"Bearer a"])) == Authorization::Repeated);
        assert!(Authorization::of(&HeaderMap::new()) == Authorization::Absent);
    }

    #[test]
    fn schemes_match_without_case() {
        for (value, expected) in [
            (&b"Bearer a.b.c"[..], Authorization::Bearer(Some("a.b.c"))),
            (b"bearer a.b-c_~+/==", Authorization::Bearer(Some("a.b-c_~+/=="))),
            (b"BEARER  abc ", Authorization::Bearer(Some("abc"))),
            (b"Bearer", Authorization::Bearer(None)),
            (b"Bearer  ", Authorization::Bearer(None)),
            (b"Bearer \xe9", Authorization::Bearer(None)),
            (b"BASIC abc", Authorization::Basic("abc")),
            (b"Basic", Authorization::Basic("")),
            (b"Bearer\ta", Authorization::Other),
            (b"Digest x=y", Authorization::Other),
            (b"", Authorization::Other),
        ] {
            assert!(Authorization::of(&headers(&[value])) == expected, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn h4_reading_never_panics(bytes in "[ -~]{0,60}", decoded: Vec<u8>) {
            let _ = Authorization::of(&headers(&[bytes.as_bytes()]));
            let _ = candidates(&decoded);
        }
    }
}
