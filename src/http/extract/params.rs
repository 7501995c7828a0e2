//! A strict parser of `application/x-www-form-urlencoded` (WHATWG URL §5.1), for form bodies and query strings.

use std::ops::Range;

use bytes::Bytes;
use memchr::{memchr, memchr_iter, memchr2};
use zeroize::Zeroizing;

/// Maximum number of parameters. No request of the API has more, and it bounds the search for repeated names.
const MAX_PARAMETERS: usize = 64;

/// The only name that may occur more than once (RFC 8707 §2).
const REPEATABLE: &[u8] = b"resource";

/// Why the parameters are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ParamsError {
    /// Invalid percent-encoding, invalid UTF-8 or a NUL.
    Malformed,
    /// A name other than `resource` occurs twice (RFC 6749 §3.2).
    Repeated,
    /// More than [`MAX_PARAMETERS`].
    TooMany,
}

/// Decoded parameters. They can contain secrets, so there is no `Debug`. A value without escapes, such as a token, is
/// not copied from `encoded`. Decoded values are zeroed on drop.
pub(super) struct Params {
    encoded: Bytes,
    decoded: Zeroizing<Vec<u8>>,
    entries: Vec<Entry>,
}

struct Entry {
    name: Piece,
    value: Piece,
}

/// The range of a name or value in one of the two buffers. All pieces are UTF-8.
enum Piece {
    Raw(Range<usize>),
    Decoded(Range<usize>),
}

impl Params {
    /// Parses parameters. A name that occurs twice is an error, except `resource`.
    pub(super) fn parse(encoded: Bytes) -> Result<Self, ParamsError> {
        // Ampersands and equals signs are ASCII: if the whole text is valid UTF-8, each piece is too.
        if memchr(0, &encoded).is_some() || std::str::from_utf8(&encoded).is_err() {
            return Err(ParamsError::Malformed);
        }
        let (decoded, entries) = (Zeroizing::default(), Vec::with_capacity(4));
        let mut params = Self { encoded, decoded, entries };
        let mut start = 0;
        for pair in pairs(&params.encoded.clone()) {
            let (name, value) = split_pair(pair);
            let value_start = start + pair.len() - value.len();
            if !pair.is_empty() {
                if params.entries.len() == MAX_PARAMETERS {
                    return Err(ParamsError::TooMany);
                }
                let name = params.piece(start..start + name.len())?;
                let value = params.piece(value_start..value_start + value.len())?;
                params.entries.push(Entry { name, value });
            }
            start += pair.len() + 1;
        }
        if params.has_repeated_name() { Err(ParamsError::Repeated) } else { Ok(params) }
    }

    fn piece(&mut self, range: Range<usize>) -> Result<Piece, ParamsError> {
        let encoded = self.encoded.get(range.clone()).unwrap_or_default();
        if memchr2(b'%', b'+', encoded).is_none() {
            return Ok(Piece::Raw(range));
        }
        let decoded = decode(encoded).ok_or(ParamsError::Malformed)?;
        let start = self.decoded.len();
        // Copied explicitly: a vector that grows by itself does not zero its previous allocation.
        let mut grown = Zeroizing::new(Vec::with_capacity(start + decoded.len()));
        grown.extend_from_slice(&self.decoded);
        grown.extend_from_slice(decoded.as_bytes());
        self.decoded = grown;
        Ok(Piece::Decoded(start..self.decoded.len()))
    }

    /// The value of a parameter. An empty one counts as omitted (RFC 6749 §3.2).
    pub(super) fn find(&self, name: &str) -> Option<&str> {
        self.find_all(name).next()
    }

    /// The values of a repeatable parameter. Empty values are skipped.
    pub(super) fn find_all(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.entries.iter().filter(move |entry| self.bytes(&entry.name) == name.as_bytes());
        let values = named.filter_map(|entry| std::str::from_utf8(self.bytes(&entry.value)).ok());
        values.filter(|value| !value.is_empty())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| std::str::from_utf8(self.bytes(&entry.name)).unwrap_or_default())
    }

    fn bytes(&self, piece: &Piece) -> &[u8] {
        match piece {
            Piece::Raw(range) => self.encoded.get(range.clone()),
            Piece::Decoded(range) => self.decoded.get(range.clone()),
        }
        .unwrap_or_default()
    }

    fn has_repeated_name(&self) -> bool {
        self.entries.iter().enumerate().any(|(index, entry)| {
            let name = self.bytes(&entry.name);
            name != REPEATABLE && self.entries.iter().take(index).any(|earlier| self.bytes(&earlier.name) == name)
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

    fn encode(text: &str) -> String {
        url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
    }

    proptest! {
        #[test]
        fn h1_parse_never_panics(body: Vec<u8>) {
            let _ = Params::parse(body.into());
        }

        #[test]
        fn h1_parse_never_panics_on_text_similar_to_a_form(body in "[a-c=&%+0-9f\u{e9}]{0,60}") {
            let _ = Params::parse(body.clone().into());
        }

        #[test]
        fn h1_decoding_undoes_encoding(name in "[^\0]{1,20}", value in "[^\0]{1,40}") {
            let body = format!("first=1&{}={}&last=2", encode(&name), encode(&value));
            match Params::parse(body.clone().into()) {
                Ok(params) => prop_assert_eq!(params.find(&name), Some(value.as_str())),
                Err(error) => prop_assert!(error == ParamsError::Repeated && (name == "first" || name == "last")),
            }
            let decoded = decode(encode(&value).as_bytes());
            prop_assert_eq!(decoded.as_deref(), Some(&value));
        }

        #[test]
        fn h1_a_repeated_name_is_refused_in_every_spelling(name in "[a-z]{1,8}", spelled_out: bool, empty: bool) {
            prop_assume!(name.as_bytes() != REPEATABLE);
            let twin = if spelled_out {
                name.bytes().map(|byte| format!("%{byte:02x}")).collect()
            } else {
                name.clone()
            };
            let value = if empty { "" } else { "1" };
            let body = format!("{name}=1&other=2&{twin}={value}");
            prop_assert_eq!(Params::parse(body.clone().into()).err(), Some(ParamsError::Repeated));
        }
    }

    #[test]
    fn h1_bad_encodings_and_nul_are_refused_and_not_repaired() {
        for bad in ["a=%", "a=%4", "a=%zz", "a=%+1", "%g0=1", "a=%ff", "a=%c3&%a9=1", "a=%00", "%00=1", "a=\0"] {
            assert_eq!(Params::parse(bad.into()).err(), Some(ParamsError::Malformed), "{bad:?}");
        }
        assert_eq!(Params::parse(Bytes::from_static(b"a=\xff")).err(), Some(ParamsError::Malformed));
    }

    #[test]
    fn only_resource_may_be_repeated() {
        let params = Params::parse(Bytes::from_static(b"resource=a&x=1&res%6furce=b&resource=")).ok().unwrap();
        assert_eq!(params.find_all("resource").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(params.find("resource"), Some("a"));
        assert_eq!(
            Params::parse(Bytes::from_static(b"resource=a&audience=a&audience=a")).err(),
            Some(ParamsError::Repeated)
        );
    }

    #[test]
    fn empty_is_omitted_and_the_first_equals_sign_splits() {
        let params = Params::parse(Bytes::from_static(b"&&a=&b&c=x=y&d=1+2%2B3&")).ok().unwrap();
        assert_eq!((params.find("a"), params.find("b"), params.find("missing")), (None, None, None));
        assert_eq!((params.find("c"), params.find("d")), (Some("x=y"), Some("1 2+3")));
    }

    #[test]
    fn h5_the_number_of_parameters_is_bounded() {
        let body = |count: usize| (0..count).map(|n| format!("p{n}=1")).collect::<Vec<_>>().join("&");
        assert!(Params::parse(body(MAX_PARAMETERS).into()).is_ok());
        assert_eq!(Params::parse(body(MAX_PARAMETERS + 1).into()).err(), Some(ParamsError::TooMany));
    }
}
