//! Checks that serde_json does not make: repeated member names in maps, deep nesting, U+0000 in strings.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Maximum nesting; no request body of the API needs more than 3.
const MAX_DEPTH: usize = 16;

/// Why a document is refused before it is deserialized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonFault {
    /// The text is not exactly one JSON document (RFC 8259).
    Malformed,
    /// The nesting exceeds [`MAX_DEPTH`].
    TooDeep,
    /// A member name occurs twice in one object, compared after unescaping.
    RepeatedName,
    /// U+0000 in a name or string, which PostgreSQL cannot store (security.md D11).
    Nul,
}

/// Checks the whole document in one pass without keeping values.
pub(super) fn check(text: &str) -> Result<(), JsonFault> {
    let fault = Cell::new(JsonFault::Malformed);
    let mut reader = serde_json::Deserializer::from_str(text);
    Node { depth: 0, fault: &fault }.deserialize(&mut reader).map_err(|_| fault.get())?;
    reader.end().map_err(|_| JsonFault::Malformed)
}

#[derive(Clone, Copy)]
struct Node<'a> {
    depth: usize,
    fault: &'a Cell<JsonFault>,
}

impl Node<'_> {
    fn refuse<E: serde::de::Error>(self, fault: JsonFault) -> E {
        self.fault.set(fault);
        E::custom("refused")
    }

    fn child<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(self.refuse(JsonFault::TooDeep));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    /// Text without an escape. serde_json refuses unescaped control characters, so it contains no NUL.
    fn visit_borrowed_str<E>(self, _: &'de str) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        if text.contains('\0') { Err(self.refuse(JsonFault::Nul)) } else { Ok(()) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let child = self.child()?;
        while items.next_element_seed(child)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let child = self.child()?;
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            child.visit_str(&name)?;
            if !names.insert(name) {
                return Err(self.refuse(JsonFault::RepeatedName));
            }
            members.next_value_seed(child)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t10_repeated_names_are_found_at_any_depth_and_after_unescaping() {
        for text in [r#"{"a":1,"a":2}"#, r#"[{"x":{"a":1,"b":2,"\u0061":3}}]"#] {
            assert_eq!(check(text), Err(JsonFault::RepeatedName), "{text}");
        }
        assert_eq!(check(r#"[{"a":1},{"a":2},{"b":{"a":3}}]"#), Ok(()));
    }

    #[test]
    fn t12_depth_and_nul_are_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check(&nested(MAX_DEPTH)), Ok(()));
        assert_eq!(check(&nested(MAX_DEPTH + 1)), Err(JsonFault::TooDeep));
        assert_eq!(check(&"[".repeat(100_000)), Err(JsonFault::TooDeep));
        for text in [r#""\u0000""#, r#"{"\u0000":1}"#, r#"[["a\u0000b"]]"#] {
            assert_eq!(check(text), Err(JsonFault::Nul), "{text}");
        }
    }
}
