//! Strict JSON for JOSE (security.md T10, T12): UTF-8 without BOM, exactly one object, bounded depth and width. No
//! object has two members of the same name after unescaping, at any depth, whether the member is known or not.
//!
//! serde_json alone keeps the last of two members, or rejects only duplicates that a struct names. So a first pass
//! checks the form and builds nothing; a second pass reads the type.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Maximum depth of nested containers. A JWK set needs three.
const MAX_DEPTH: u8 = 12;
/// Maximum number of members of an object. Our documents have fewer than twenty.
const MAX_MEMBERS: usize = 64;

/// Why a document is refused. May contain a position, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonRefusal {
    #[error("not UTF-8")]
    NotUtf8,
    /// Not one JSON object, or it breaks a rule of this module.
    #[error("not a JSON object without duplicate members: {0}")]
    NotStrict(String),
    /// A member is missing or has the wrong type.
    #[error("{0}")]
    WrongShape(String),
}

/// Reads one JSON object into `T`, which may borrow from `json`.
pub(super) fn from_slice<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, JsonRefusal> {
    let text = std::str::from_utf8(json).map_err(|_| JsonRefusal::NotUtf8)?;
    let mut walk = serde_json::Deserializer::from_str(text);
    Object { depth: 1 }.deserialize(&mut walk).map_err(|error| JsonRefusal::NotStrict(describe(&error)))?;
    // This second pass also rejects text after the object.
    serde_json::from_str(text).map_err(|error| JsonRefusal::WrongShape(describe(&error)))
}

/// For `#[serde(default, deserialize_with = "present")]` on an `Option`: the member may be absent but not `null`.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Position and kind of an error, without the value: serde's messages quote unexpected strings.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let value_free = !text.contains("invalid type: string") && !text.contains("invalid value");
    if value_free { text } else { format!("wrong type at line {} column {}", error.line(), error.column()) }
}

/// The top level: exactly one object.
struct Object {
    depth: u8,
}

/// A value below the top level.
struct Any {
    depth: u8,
}

impl<'de> DeserializeSeed<'de> for Object {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> DeserializeSeed<'de> for Any {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Object {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        walk_members(map, self.depth)
    }
}

impl<'de> Visitor<'de> for Any {
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

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let depth = deeper(self.depth)?;
        while items.next_element_seed(Self { depth })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        walk_members(map, deeper(self.depth)?)
    }
}

fn deeper<E: serde::de::Error>(depth: u8) -> Result<u8, E> {
    if depth < MAX_DEPTH { Ok(depth + 1) } else { Err(E::custom("nested too deeply")) }
}

fn walk_members<'de, A: MapAccess<'de>>(mut map: A, depth: u8) -> Result<(), A::Error> {
    let mut names: Vec<Cow<'de, str>> = Vec::new();
    while let Some(MemberName(name)) = map.next_key()? {
        if names.contains(&name) {
            return Err(A::Error::custom("a member appears twice"));
        }
        if names.len() == MAX_MEMBERS {
            return Err(A::Error::custom("too many members"));
        }
        names.push(name);
        map.next_value_seed(Any { depth })?;
    }
    Ok(())
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

    fn read(text: &str) -> Result<Sample, JsonRefusal> {
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
