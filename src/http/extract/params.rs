//! `application/x-www-form-urlencoded` (WHATWG URL §5.1), read strictly: form bodies and query strings.

use std::ops::Range;

use memchr::{memchr, memchr_iter, memchr2};
use zeroize::Zeroizing;

/// More parameters than any request of the contract has; bounds the look for repeated names.
const MAX_PARAMETERS: usize = 64;

/// Why a text is not a list of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ParamsError {
    /// Bad percent-encoding, bad UTF-8 or a NUL.
    Malformed,
    /// A name occurs twice (RFC 6749 §3.2).
    Repeated,
    /// More than [`MAX_PARAMETERS`].
    TooMany,
}

/// Decoded parameters. They can hold secrets: no `Debug`, wiped when dropped.
pub(super) struct Params {
    /// All names and values, decoded, each followed by a separator.
    text: Zeroizing<String>,
    entries: Vec<Entry>,
}

struct Entry {
    name: Range<usize>,
    value: Range<usize>,
}

impl Params {
    /// Reads parameters; a name that occurs twice is an error, whatever its values are.
    pub(super) fn parse(encoded: &[u8]) -> Result<Self, ParamsError> {
        let mut decoded = Zeroizing::new(Vec::with_capacity(encoded.len() + 2));
        let mut entries = Vec::with_capacity(4);
        for pair in pairs(encoded).filter(|pair| !pair.is_empty()) {
            if entries.len() == MAX_PARAMETERS {
                return Err(ParamsError::TooMany);
            }
            let (name, value) = split_pair(pair);
            let name = decode_onto(&mut decoded, name, b'=')?;
            let value = decode_onto(&mut decoded, value, b'&')?;
            entries.push(Entry { name, value });
        }
        if memchr(0, &decoded).is_some() {
            return Err(ParamsError::Malformed);
        }
        // The separators are ASCII, so a sequence that is valid as a whole is valid in each of its pieces.
        let text = String::from_utf8(std::mem::take(&mut *decoded)).map_err(|error| {
            drop(Zeroizing::new(error.into_bytes()));
            ParamsError::Malformed
        })?;
        let params = Self { text: Zeroizing::new(text), entries };
        if params.has_repeated_name() { Err(ParamsError::Repeated) } else { Ok(params) }
    }

    /// The value of a parameter; an empty one counts as omitted (RFC 6749 §3.2).
    pub(super) fn find(&self, name: &str) -> Option<&str> {
        let entry = self.entries.iter().find(|entry| self.slice(&entry.name) == name)?;
        Some(self.slice(&entry.value)).filter(|value| !value.is_empty())
    }

    /// The names, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| self.slice(&entry.name))
    }

    fn slice(&self, range: &Range<usize>) -> &str {
        self.text.get(range.clone()).unwrap_or_default()
    }

    fn has_repeated_name(&self) -> bool {
        self.names().enumerate().any(|(index, name)| self.names().take(index).any(|earlier| earlier == name))
    }
}

/// The pieces between ampersands.
pub(super) fn pairs(encoded: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    memchr_iter(b'&', encoded).chain([encoded.len()]).map(move |end| {
        let pair = &encoded[start..end];
        start = end + 1;
        pair
    })
}

/// A pair at its first `=`; without one, the value is empty.
pub(super) fn split_pair(pair: &[u8]) -> (&[u8], &[u8]) {
    match memchr(b'=', pair) {
        Some(equals) => (&pair[..equals], &pair[equals + 1..]),
        None => (pair, &[]),
    }
}

/// Decodes one name or value; none when its percent-encoding or UTF-8 is not valid, or it holds a NUL.
pub(super) fn decode(encoded: &[u8]) -> Option<Zeroizing<String>> {
    let mut decoded = Zeroizing::new(Vec::with_capacity(encoded.len() + 1));
    let range = decode_onto(&mut decoded, encoded, b'&').ok()?;
    let text = std::str::from_utf8(decoded.get(range)?).ok()?;
    (!text.contains('\0')).then(|| Zeroizing::new(text.to_owned()))
}

/// Appends what `encoded` stands for, and a separator; returns where it is.
fn decode_onto(decoded: &mut Vec<u8>, encoded: &[u8], separator: u8) -> Result<Range<usize>, ParamsError> {
    let start = decoded.len();
    let mut rest = encoded;
    while let Some(at) = memchr2(b'%', b'+', rest) {
        decoded.extend_from_slice(&rest[..at]);
        if rest[at] == b'+' {
            decoded.push(b' ');
            rest = &rest[at + 1..];
        } else {
            let digit = |offset: usize| rest.get(at + offset).and_then(|byte| hex_value(*byte));
            let (Some(high), Some(low)) = (digit(1), digit(2)) else { return Err(ParamsError::Malformed) };
            decoded.push(high << 4 | low);
            rest = &rest[at + 3..];
        }
    }
    decoded.extend_from_slice(rest);
    let end = decoded.len();
    decoded.push(separator);
    Ok(start..end)
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
            let _ = Params::parse(&body);
        }

        #[test]
        fn h1_parse_never_panics_on_what_looks_like_a_form(body in "[a-c=&%+0-9f\u{e9}]{0,60}") {
            let _ = Params::parse(body.as_bytes());
        }

        #[test]
        fn h1_decoding_undoes_encoding(name in "[^\0]{1,20}", value in "[^\0]{1,40}") {
            let body = format!("first=1&{}={}&last=2", encode(&name), encode(&value));
            match Params::parse(body.as_bytes()) {
                Ok(params) => prop_assert_eq!(params.find(&name), Some(value.as_str())),
                Err(error) => prop_assert!(error == ParamsError::Repeated && (name == "first" || name == "last")),
            }
            let decoded = decode(encode(&value).as_bytes());
            prop_assert_eq!(decoded.as_deref(), Some(&value));
        }

        #[test]
        fn h1_a_repeated_name_is_refused_in_every_spelling(name in "[a-z]{1,8}", spelled_out: bool, empty: bool) {
            let twin = if spelled_out {
                name.bytes().map(|byte| format!("%{byte:02x}")).collect()
            } else {
                name.clone()
            };
            let value = if empty { "" } else { "1" };
            let body = format!("{name}=1&other=2&{twin}={value}");
            prop_assert_eq!(Params::parse(body.as_bytes()).err(), Some(ParamsError::Repeated));
        }
    }

    #[test]
    fn h1_bad_encodings_and_nul_are_refused_and_not_repaired() {
        for bad in ["a=%", "a=%4", "a=%zz", "a=%+1", "%g0=1", "a=%ff", "a=%c3&%a9=1", "a=%00", "%00=1", "a=\0"] {
            assert_eq!(Params::parse(bad.as_bytes()).err(), Some(ParamsError::Malformed), "{bad:?}");
        }
        assert_eq!(Params::parse(b"a=\xff").err(), Some(ParamsError::Malformed));
    }

    #[test]
    fn empty_is_omitted_and_the_first_equals_sign_splits() {
        let params = Params::parse(b"&&a=&b&c=x=y&d=1+2%2B3&").ok().unwrap();
        assert_eq!((params.find("a"), params.find("b"), params.find("missing")), (None, None, None));
        assert_eq!((params.find("c"), params.find("d")), (Some("x=y"), Some("1 2+3")));
    }

    #[test]
    fn h5_the_number_of_parameters_is_bounded() {
        let body = |count: usize| (0..count).map(|n| format!("p{n}=1")).collect::<Vec<_>>().join("&");
        assert!(Params::parse(body(MAX_PARAMETERS).as_bytes()).is_ok());
        assert_eq!(Params::parse(body(MAX_PARAMETERS + 1).as_bytes()).err(), Some(ParamsError::TooMany));
    }
}
