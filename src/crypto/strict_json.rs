//! JSON as JOSE needs it (security.md T10, T12): UTF-8 without BOM, one object and nothing after it, bounded depth and
//! width, and no member name twice, at any depth, in known and unknown members alike, after unescaping.
//!
//! serde_json alone keeps the last of two members, or refuses only those that a struct names. So a document is walked once for
//! form, building nothing, and then read into its type.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Containers inside containers. A JWK set takes three.
const MAX_DEPTH: u8 = 12;
/// Members of one object. Ours have fewer than twenty.
const MAX_MEMBERS: usize = 64;

/// Why a document is refused. Carries a position at most, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonRefusal {
    /// Not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// Not one JSON object, or one that breaks a rule of this module.
    #[error("not a JSON object without duplicate members: {0}")]
    NotStrict(String),
    /// A member is absent or has the wrong type.
    #[error("{0}")]
    WrongShape(String),
}

/// Reads one JSON object into `T`, which may borrow from it.
pub(super) fn from_slice<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, JsonRefusal> {
    let text = std::str::from_utf8(json).map_err(|_| JsonRefusal::NotUtf8)?;
    let mut walk = serde_json::Deserializer::from_str(text);
    Object { depth: 1 }
        .deserialize(&mut walk)
        .and_then(|()| walk.end())
        .map_err(|error| JsonRefusal::NotStrict(describe(&error)))?;
    serde_json::from_str(text).map_err(|error| JsonRefusal::WrongShape(describe(&error)))
}

/// For `#[serde(default, deserialize_with = "present")]` on an `Option`: the member may be absent, but not `null`.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The position and kind of an error, without the value that caused it: serde quotes strings that it did not expect.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let value_free = !text.contains("invalid type: string") && !text.contains("invalid value");
    if value_free { text } else { format!("wrong type at line {} column {}", error.line(), error.column()) }
}

/// The top level: an object and nothing else.
struct Object {
    depth: u8,
}

/// A value below it.
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

/// A member's name as it reads after unescaping; borrowed where nothing was escaped.
#[derive(Deserialize)]
#[serde(transparent)]
struct MemberName<'a>(#[serde(borrow)] Cow<'a, str>);
