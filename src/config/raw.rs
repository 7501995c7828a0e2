//! Untyped values, as written in the file or the environment.

use super::error::Origin;

/// An untyped value. It does not implement `Debug` because it may be a secret.
#[derive(Clone)]
pub(super) enum Raw {
    Text(String),
    Integer(i64),
    Bool(bool),
    List(Vec<Raw>),
    EmptyTable,
    /// A TOML type that no setting accepts, as a noun with its article.
    Other(&'static str),
    /// The text of an environment variable. It can represent any type; commas separate list items.
    Loose(String),
}

/// A value and its origin.
#[derive(Clone)]
pub(super) struct Written {
    pub raw: Raw,
    pub origin: Origin,
}

impl Raw {
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Loose(text) => Some(text.trim()),
            _ => None,
        }
    }

    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(integer) => Some(*integer),
            Self::Loose(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// The value as a list. An empty environment variable is an empty list.
    pub fn list(&self) -> Option<Vec<Self>> {
        match self {
            Self::List(items) => Some(items.clone()),
            Self::Loose(text) if text.trim().is_empty() => Some(Vec::new()),
            Self::Loose(text) => Some(text.split(',').map(|item| Self::Loose(item.trim().to_owned())).collect()),
            _ => None,
        }
    }

    /// The value for an error message, shortened and on one line.
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
