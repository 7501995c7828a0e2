//! A strict parser of `application/x-www-form-urlencoded` (WHATWG URL §5.1), for form bodies and query strings.

use bytes::Bytes;
use memchr::{memchr, memchr_iter, memchr2};
use zeroize::Zeroizing;

use crate::http::error::ApiError;

/// Maximum number of parameters. No request of the API has more, and it bounds the search for repeated names.
const MAX_PARAMETERS: usize = 64;

/// The only name that may occur more than once (RFC 8707 §2).
const REPEATABLE: &str = "resource";

/// Decoded parameters of a form or a query string. They can contain secrets, so there is no `Debug`.
pub struct Params(Vec<(Text, Text)>);

/// A name or value. One without escapes, such as a token, is not copied. A decoded one is zeroed on drop.
enum Text {
    Raw(Bytes),
    Decoded(Zeroizing<String>),
}

impl Text {
    fn as_str(&self) -> &str {
        match self {
            Self::Raw(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
            Self::Decoded(text) => text,
        }
    }
}

impl Params {
    /// Parses parameters. A name that occurs twice is an error (RFC 6749 §3.2), except `resource`.
    pub fn parse(encoded: &Bytes) -> Result<Self, ApiError> {
        let refused = |detail, description| Err(ApiError::invalid_field("query", detail).description(description));
        let malformed = || refused("is malformed", "the form is malformed");
        // Ampersands and equals signs are ASCII: if the whole text is valid UTF-8, each piece is too.
        if memchr(0, encoded).is_some() || std::str::from_utf8(encoded).is_err() {
            return malformed();
        }
        let text = |part: &[u8]| match memchr2(b'%', b'+', part) {
            None => Some(Text::Raw(encoded.slice_ref(part))),
            Some(_) => decode(part).map(Text::Decoded),
        };
        let mut entries: Vec<(Text, Text)> = Vec::with_capacity(4);
        for pair in pairs(encoded).filter(|pair| !pair.is_empty()) {
            if entries.len() == MAX_PARAMETERS {
                return refused("contains too many parameters", "there are too many parameters");
            }
            let (name, value) = split_pair(pair);
            let (Some(name), Some(value)) = (text(name), text(value)) else {
                return malformed();
            };
            if name.as_str() != REPEATABLE && entries.iter().any(|(earlier, _)| earlier.as_str() == name.as_str()) {
                return refused("contains a parameter twice", "a parameter is repeated");
            }
            entries.push((name, value));
        }
        Ok(Self(entries))
    }

    /// Refuses every parameter that is not one of `known`.
    pub fn only(self, known: &[&str]) -> Result<Self, ApiError> {
        if self.0.iter().all(|(name, _)| known.contains(&name.as_str())) {
            Ok(self)
        } else {
            Err(ApiError::invalid_field("query", "has a parameter that this endpoint does not know"))
        }
    }

    /// The value of a parameter of at most `max_bytes` bytes. `None` if it is absent or empty (RFC 6749 §3.2).
    pub fn optional(&self, name: &'static str, max_bytes: usize) -> Result<Option<&str>, ApiError> {
        self.values(name, max_bytes).next().transpose()
    }

    /// The values of a repeatable parameter. Empty values are skipped.
    pub fn all(&self, name: &'static str, max_bytes: usize) -> Result<Vec<&str>, ApiError> {
        self.values(name, max_bytes).collect()
    }

    /// The value of a parameter that must be present and not empty.
    pub fn required(&self, name: &'static str, max_bytes: usize) -> Result<&str, ApiError> {
        let missing = || ApiError::invalid_form(format!("the parameter `{name}` is missing"));
        self.optional(name, max_bytes)?.ok_or_else(missing)
    }

    fn values(&self, name: &'static str, max_bytes: usize) -> impl Iterator<Item = Result<&str, ApiError>> {
        let named = self.0.iter().filter(move |(key, _)| key.as_str() == name).map(|(_, value)| value.as_str());
        named.filter(|value| !value.is_empty()).map(move |value| {
            let too_long = || ApiError::invalid_field(name, "is too long");
            let fits = (value.len() <= max_bytes).then_some(value);
            fits.ok_or_else(|| too_long().description(format!("the parameter `{name}` is too long")))
        })
    }
}

/// Splits at ampersands.
pub(super) fn pairs(encoded: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    memchr_iter(b'&', encoded).chain([encoded.len()]).map(move |end| {
        let pair = &encoded[start..end];
        start = end + 1;
        pair
    })
}

/// Splits a pair at its first `=`. Without one, the value is empty.
pub(super) fn split_pair(pair: &[u8]) -> (&[u8], &[u8]) {
    match memchr(b'=', pair) {
        Some(equals) => (&pair[..equals], &pair[equals + 1..]),
        None => (pair, &[]),
    }
}

/// Decodes one name or value; `None` if its percent-encoding or UTF-8 is invalid, or it contains a NUL.
pub(super) fn decode(encoded: &[u8]) -> Option<Zeroizing<String>> {
    // The decoded text is never longer, so the buffers do not reallocate and leave copies.
    let mut decoded = Zeroizing::new(String::with_capacity(encoded.len()));
    let mut bytes = Zeroizing::new(Vec::with_capacity(encoded.len()));
    let mut rest = encoded;
    while let Some(at) = memchr2(b'%', b'+', rest) {
        bytes.extend_from_slice(&rest[..at]);
        if rest[at] == b'+' {
            bytes.push(b' ');
            rest = &rest[at + 1..];
        } else {
            let digit = |offset: usize| rest.get(at + offset).and_then(|byte| hex_value(*byte));
            bytes.push(digit(1)? << 4 | digit(2)?);
            rest = &rest[at + 3..];
        }
    }
    bytes.extend_from_slice(rest);
    decoded.push_str(std::str::from_utf8(&bytes).ok()?);
    (!decoded.contains('\0')).then_some(decoded)
}

const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: impl AsRef<[u8]>) -> Result<Params, &'static str> {
        Params::parse(&Bytes::copy_from_slice(text.as_ref())).map_err(|error| match &*error.content().oauth.1 {
            "the form is malformed" => "malformed",
            "a parameter is repeated" => "repeated",
            "there are too many parameters" => "too many",
            _ => "another error",
        })
    }

    fn find<'a>(params: &'a Params, name: &'static str) -> Option<&'a str> {
        params.optional(name, usize::MAX).ok().unwrap()
    }

    fn encode(text: &str) -> String {
        url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
    }

    proptest! {
        #[test]
        fn h1_parse_never_panics(body: Vec<u8>) {
            let _ = parse(body);
        }

        #[test]
        fn h1_parse_never_panics_on_text_similar_to_a_form(body in "[a-c=&%+0-9f\u{e9}]{0,60}") {
            let _ = parse(body);
        }

        #[test]
        fn h1_decoding_undoes_encoding(name in "[^\0]{1,20}", value in "[^\0]{1,40}") {
            let body = format!("first=1&{}={}&last=2", encode(&name), encode(&value));
            match parse(body) {
                Ok(params) => {
                    let found = params.0.iter().find(|(key, _)| key.as_str() == name);
                    prop_assert_eq!(found.map(|(_, value)| value.as_str()), Some(value.as_str()));
                }
                Err(error) => prop_assert!(error == "repeated" && (name == "first" || name == "last")),
            }
            let decoded = decode(encode(&value).as_bytes());
            prop_assert_eq!(decoded.as_deref(), Some(&value));
        }

        #[test]
        fn h1_a_repeated_name_is_refused_in_every_spelling(name in "[a-z]{1,8}", spelled_out: bool, empty: bool) {
            prop_assume!(name != REPEATABLE);
            let twin = if spelled_out {
                name.bytes().map(|byte| format!("%{byte:02x}")).collect()
            } else {
                name.clone()
            };
            let value = if empty { "" } else { "1" };
            let body = format!("{name}=1&other=2&{twin}={value}");
            prop_assert_eq!(parse(body).err(), Some("repeated"));
        }
    }

    #[test]
    fn h1_bad_encodings_and_nul_are_refused_and_not_repaired() {
        for bad in ["a=%", "a=%4", "a=%zz", "a=%+1", "%g0=1", "a=%ff", "a=%c3&%a9=1", "a=%00", "%00=1", "a=\0"] {
            assert_eq!(parse(bad).err(), Some("malformed"), "{bad:?}");
        }
        assert_eq!(parse(b"a=\xff").err(), Some("malformed"));
    }

    #[test]
    fn only_resource_may_be_repeated() {
        let params = parse("resource=a&x=1&res%6furce=b&resource=").unwrap();
        assert_eq!(params.all("resource", 1).ok().unwrap(), ["a", "b"]);
        assert_eq!(find(&params, "resource"), Some("a"));
        assert_eq!(parse("resource=a&audience=a&audience=a").err(), Some("repeated"));
    }

    #[test]
    fn empty_is_omitted_and_the_first_equals_sign_splits() {
        let params = parse("&&a=&b&c=x=y&d=1+2%2B3&").unwrap();
        assert_eq!((find(&params, "a"), find(&params, "b"), find(&params, "missing")), (None, None, None));
        assert_eq!((find(&params, "c"), find(&params, "d")), (Some("x=y"), Some("1 2+3")));
    }

    #[test]
    fn h5_the_number_of_parameters_is_bounded() {
        let body = |count: usize| (0..count).map(|n| format!("p{n}=1")).collect::<Vec<_>>().join("&");
        assert!(parse(body(MAX_PARAMETERS)).is_ok());
        assert_eq!(parse(body(MAX_PARAMETERS + 1)).err(), Some("too many"));
    }

    #[test]
    fn the_length_of_a_parameter_is_limited_per_call() {
        let form = parse("token=12345").unwrap();
        assert_eq!(form.required("token", 5).ok(), Some("12345"));
        assert!(form.required("token", 4).is_err() && form.optional("token", 4).is_err());
        assert_eq!(form.optional("scope", 4).ok(), Some(None));
        assert!(form.required("scope", 4).is_err());
    }
}
