//! The reader of JSON that others wrote: request bodies, JOSE headers and claims, JWK sets (security.md H1, T10, T12). A
//! document is UTF-8 without BOM and exactly one object, of bounded depth and width, without U+0000. No object has two
//! members of the same name after unescaping, at any depth, whether the member is known or not.
//!
//! serde_json alone keeps the last of two members, or rejects only duplicates that a struct names. So a first pass checks
//! the form and builds nothing; a second pass reads the type.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_path_to_error::{Path, Segment};

/// Maximum depth of nested containers. A JWK set needs three.
const MAX_DEPTH: u8 = 12;
/// Maximum number of members of an object. Our documents have fewer than twenty.
const MAX_MEMBERS: usize = 64;

/// Why a document is refused. Contains no value of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("not UTF-8")]
    NotUtf8,
    /// Not exactly one document (RFC 8259).
    #[error("not one JSON document")]
    Malformed,
    #[error("nested too deeply")]
    TooDeep,
    #[error("an object has too many members")]
    TooWide,
    /// Compared after unescaping.
    #[error("an object has two members of the same name")]
    RepeatedName,
    /// PostgreSQL cannot store it (security.md D11).
    #[error("a string contains U+0000")]
    Nul,
    #[error("not an object")]
    NotAnObject,
    #[error("{}{problem}", .member.as_ref().map_or_else(String::new, |member| format!("`{member}` ")))]
    Member {
        /// Path of the member, such as `tokens[3]`. `None` for the whole document, and for unusual names.
        member: Option<String>,
        problem: &'static str,
    },
}

/// Reads one JSON object into `T`, which may borrow from `json`.
pub fn from_slice<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, JsonError> {
    let text = std::str::from_utf8(json).map_err(|_| JsonError::NotUtf8)?;
    let fault = Cell::new(None);
    let mut reader = serde_json::Deserializer::from_str(text);
    let checked = Check { depth: 0, fault: &fault }.deserialize(&mut reader).and_then(|()| reader.end());
    checked.map_err(|_| fault.take().unwrap_or(JsonError::Malformed))?;
    if !is_object(json) {
        return Err(JsonError::NotAnObject);
    }
    serde_json::from_str(text).or_else(|_| {
        let reader = &mut serde_json::Deserializer::from_str(text);
        serde_path_to_error::deserialize(reader).map_err(|error| member_at_fault(error.path(), error.inner()))
    })
}

/// [`from_slice`] in one pass instead of two, for a large document and a flat `T`: its members hold no objects, and it
/// denies unknown fields. For such a `T`, serde_json alone makes all checks except the one for U+0000.
pub fn from_flat_slice<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, JsonError> {
    let may_be_strict = is_object(json) && memchr::memmem::find(json, br"\u0000").is_none();
    match may_be_strict.then(|| serde_json::from_slice(json)) {
        Some(Ok(value)) => Ok(value),
        _ => from_slice(json),
    }
}

/// For `#[serde(default, deserialize_with = "present")]` on an `Option`: distinguishes an absent member from `null`, which `T`
/// may accept or refuse.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Whether a document is an object. serde would also accept an array of the fields in declaration order.
fn is_object(document: &[u8]) -> bool {
    document.iter().find(|byte| !b" \t\r\n".contains(byte)) == Some(&b'{')
}

/// serde's own message is not used, because it quotes the input.
fn member_at_fault(path: &Path, error: &serde_json::Error) -> JsonError {
    let message = error.to_string();
    let missing = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    let problem = match missing {
        Some(_) => "is missing",
        None if message.starts_with("unknown field `") => "is not a field of this request",
        None => "has the wrong type or a value that is not allowed",
    };
    JsonError::Member { member: name_of(path, missing), problem }
}

/// The path as text, if every name in it is one that a field of this program could have. Other names are not repeated.
fn name_of(path: &Path, missing: Option<&str>) -> Option<String> {
    let is_ordinary =
        |name: &str| name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let mut name = String::new();
    let missing = missing.map(|key| Segment::Map { key: key.to_owned() });
    for segment in path.iter().chain(&missing) {
        match segment {
            Segment::Seq { index } => name += &format!("[{index}]"),
            Segment::Map { key } if is_ordinary(key) => {
                name += if name.is_empty() { "" } else { "." };
                name += key;
            }
            _ => return None,
        }
    }
    Some(name).filter(|name| !name.is_empty())
}

/// Checks a value without keeping it.
#[derive(Clone, Copy)]
struct Check<'a> {
    depth: u8,
    fault: &'a Cell<Option<JsonError>>,
}

impl Check<'_> {
    fn refuse<E: Error>(self, fault: JsonError) -> E {
        self.fault.set(Some(fault));
        E::custom("refused")
    }

    fn child<E: Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(self.refuse(JsonError::TooDeep));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Check<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    /// Text without an escape. serde_json refuses unescaped control characters, so it contains no NUL.
    fn visit_borrowed_str<E>(self, _: &'de str) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if text.contains('\0') { Err(self.refuse(JsonError::Nul)) } else { Ok(()) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let child = self.child()?;
        while items.next_element_seed(child)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let child = self.child()?;
        let mut names: Vec<Cow<'de, str>> = Vec::new();
        while let Some(MemberName(name)) = members.next_key()? {
            self.visit_str(&name)?;
            if names.contains(&name) {
                return Err(self.refuse(JsonError::RepeatedName));
            }
            if names.len() == MAX_MEMBERS {
                return Err(self.refuse(JsonError::TooWide));
            }
            names.push(name);
            members.next_value_seed(child)?;
        }
        Ok(())
    }
}

/// The name of a member after unescaping; borrowed if nothing was escaped.
#[derive(Deserialize)]
#[serde(transparent)]
struct MemberName<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Sample {
        name: String,
        #[serde(default, deserialize_with = "present")]
        count: Option<u64>,
    }

    fn read(text: &str) -> Result<Sample, JsonError> {
        from_slice(text.as_bytes())
    }

    #[test]
    fn known_members_are_read_and_unknown_ones_ignored() {
        let expected = Sample { name: "a/b".to_owned(), count: Some(2) };
        assert_eq!(read(r#"{"name":"a\/b","other":[{"name":1}],"count":2}"#), Ok(expected));
    }

    #[test]
    fn t6_absent_and_null_are_different() {
        assert_eq!(read(r#"{"name":"x"}"#).unwrap().count, None);
        assert!(read(r#"{"name":"x","count":null}"#).is_err());
    }

    #[test]
    fn t10_t12_depth_and_width_are_bounded_at_their_limits() {
        let nested = |depth: usize| format!("{{\"x\":{}0{}}}", "[".repeat(depth), "]".repeat(depth));
        let inside = usize::from(MAX_DEPTH) - 1;
        assert!(from_slice::<Value>(nested(inside).as_bytes()).is_ok());
        assert!(from_slice::<Value>(nested(inside + 1).as_bytes()).is_err());
        assert!(from_slice::<Value>(nested(1_000_000).as_bytes()).is_err());
        let wide = |width: usize| {
            let members: Vec<_> = (0..width).map(|index| format!("\"m{index}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert!(from_slice::<Value>(wide(MAX_MEMBERS).as_bytes()).is_ok());
        assert!(from_slice::<Value>(wide(MAX_MEMBERS + 1).as_bytes()).is_err());
    }

    #[test]
    fn t10_t12_repeated_names_depth_and_nul_have_their_own_errors() {
        for (text, expected) in [
            (r#"{"a":1,"a":2}"#.to_owned(), JsonError::RepeatedName),
            (r#"[{"x":{"a":1,"b":2,"\u0061":3}}]"#.to_owned(), JsonError::RepeatedName),
            ("[".repeat(100_000), JsonError::TooDeep),
            (r#""\u0000""#.to_owned(), JsonError::Nul),
            (r#"{"\u0000":1}"#.to_owned(), JsonError::Nul),
            (r#"[["a\u0000b"]]"#.to_owned(), JsonError::Nul),
            ("[1]".to_owned(), JsonError::NotAnObject),
            ("NaN".to_owned(), JsonError::Malformed),
        ] {
            assert_eq!(from_slice::<Value>(text.as_bytes()), Err(expected), "{}", &text[..text.len().min(40)]);
        }
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Flat {
        names: Vec<String>,
    }

    fn both_ways(document: &[u8]) -> [Result<Flat, JsonError>; 2] {
        [from_slice(document), from_flat_slice(document)]
    }

    #[test]
    fn h1_one_pass_and_two_agree_on_a_flat_document() {
        for body in [
            r#"{"names":["a","\u0041"]}"#,
            r#"{"names":[]}"#,
            r#"{"names":["a\u0000"]}"#,
            r#"{"names":["a"],"names":["b"]}"#,
            r#"{"names":["a"],"n\u0061mes":["b"]}"#,
            r#"{"names":["a"],"x":1}"#,
            r#"{"names":["a"]} x"#,
            r#"{"names":[["a"]]}"#,
            r#"[["a"]]"#,
            r#"{"names":["\ud800"]}"#,
            "{\"names\":[\"\u{1}\"]}",
            "\u{feff}{\"names\":[]}",
        ] {
            let [two, one] = both_ways(body.as_bytes());
            assert_eq!(two, one, "{body}");
        }
        assert!(both_ways(b"{\"names\":[\"\xff\"]}").iter().all(Result::is_err));
    }

    #[test]
    fn s1_a_refusal_does_not_repeat_the_input() {
        for text in [r#"{"name":["hunter2"]}"#, r#"{"name":"n","count":"hunter2"}"#, r#"{"hunter2":1,"hunter2":2}"#] {
            let refusal = read(text).unwrap_err();
            assert!(!refusal.to_string().contains("hunter2"), "{refusal}");
        }
    }

    /// JSON with few member names, so that duplicates are frequent, at all depths.
    fn any_json() -> impl Strategy<Value = String> {
        let leaf =
            prop_oneof![Just("1"), Just("\"s\""), Just("null"), Just("false"), Just("-0.5")].prop_map(str::to_owned);
        let value = leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
                members(inner),
            ]
        });
        members(value)
    }

    fn members(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
        prop::collection::vec(("[a-f]", any::<bool>(), value), 0..4).prop_map(|members| {
            let written = members.into_iter().map(|(name, escaped, value)| {
                let code = u32::from(name.chars().next().unwrap_or_default());
                if escaped { format!("\"\\u{code:04x}\":{value}") } else { format!("\"{name}\":{value}") }
            });
            format!("{{{}}}", written.collect::<Vec<_>>().join(","))
        })
    }

    /// Whether no object names a member twice. Found by comparing with what serde_json keeps.
    fn has_unique_names(text: &str) -> bool {
        fn count(value: &Value) -> usize {
            match value {
                Value::Array(items) => items.iter().map(count).sum(),
                Value::Object(members) => members.len() + members.values().map(count).sum::<usize>(),
                _ => 0,
            }
        }
        serde_json::from_str::<Value>(text).is_ok_and(|value| count(&value) == text.matches(':').count())
    }

    proptest! {
        #[test]
        fn t10_exactly_the_documents_without_duplicates_are_read(text in any_json()) {
            prop_assert_eq!(from_slice::<Value>(text.as_bytes()).is_ok(), has_unique_names(&text), "{}", text);
        }

        #[test]
        fn t20_no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = from_slice::<Value>(&bytes);
        }
    }
}
