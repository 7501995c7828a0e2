//! Values as they were written, before a setting gives them a type.

use super::mistake::Origin;

/// A written value. No `Debug`: it may be a secret.
#[derive(Clone)]
pub(super) enum Raw {
    /// TOML text.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML boolean.
    Bool(bool),
    /// A TOML array.
    List(Vec<Raw>),
    /// A table without members.
    EmptyTable,
    /// TOML that no setting takes: its kind, with an article.
    Other(&'static str),
    /// The text of an environment variable, which stands for any type; lists are separated by commas.
    Loose(String),
}

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Found {
    pub raw: Raw,
    pub origin: Origin,
}

impl Raw {
    /// The value as text, if it can be text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Loose(text) => Some(text.trim()),
            _ => None,
        }
    }

    /// The value as an integer, if it can be one.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(integer) => Some(*integer),
            Self::Loose(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// The value as a list, if it can be one. An empty variable is the empty list.
    pub fn list(&self) -> Option<Vec<Self>> {
        match self {
            Self::List(items) => Some(items.clone()),
            Self::Loose(text) if text.trim().is_empty() => Some(Vec::new()),
            Self::Loose(text) => Some(text.split(',').map(|item| Self::Loose(item.trim().to_owned())).collect()),
            _ => None,
        }
    }

    /// The value as it may be repeated to whoever wrote it: short, on one line.
    pub fn quoted(&self) -> String {
        const LONGEST: usize = 60;
        let text = match self {
            Self::Text(text) | Self::Loose(text) => text,
            Self::Integer(integer) => return integer.to_string(),
            Self::Bool(bool) => return bool.to_string(),
            Self::List(_) => return "a list".to_owned(),
            Self::EmptyTable => return "a section".to_owned(),
            Self::Other(kind) => return (*kind).to_owned(),
        };
        let start: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
        let more = if text.chars().nth(LONGEST).is_some() { "…" } else { "" };
        format!("\"{start}{more}\"")
    }
}
