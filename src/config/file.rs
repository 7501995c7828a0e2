//! The TOML file, flattened to dotted names.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};
use super::raw::{Raw, Written};

/// The values of the file by dotted name, and its syntax errors. An error names the line but never quotes it, because the
/// line may contain a secret.
pub(super) fn read(name: &str, text: &str) -> (BTreeMap<String, Written>, Vec<ConfigError>) {
    let file = File { name: name.into(), line_ends: text.match_indices('\n').map(|(at, _)| at).collect() };
    let (table, mut errors) = DeTable::parse_recoverable(text);
    let offset = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
    errors.sort_by_key(offset);
    let errors = errors.iter().map(|error| ConfigError {
        setting: String::new(),
        origin: file.origin(offset(error)),
        problem: format!("is not TOML ({})", error.message()),
        remedy: "correct the line; strings need double quotes".to_owned(),
    });
    let mut values = BTreeMap::new();
    file.flatten("", table.get_ref(), &mut values);
    (values, errors.collect())
}

struct File {
    name: Arc<str>,
    line_ends: Vec<usize>,
}

impl File {
    fn origin(&self, offset: usize) -> Origin {
        Origin::File(Arc::clone(&self.name), self.line_ends.partition_point(|end| *end < offset) + 1)
    }

    /// The recursion is bounded: the parser rejects tables nested deeper than 80.
    fn flatten(&self, prefix: &str, table: &DeTable<'_>, values: &mut BTreeMap<String, Written>) {
        for (key, value) in table {
            let name =
                if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
            match value.get_ref() {
                DeValue::Table(inner) if !inner.is_empty() => self.flatten(&name, inner, values),
                leaf => {
                    values.insert(name, Written { raw: raw(leaf), origin: self.origin(key.span().start) });
                }
            }
        }
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(integer) => {
            i64::from_str_radix(integer.as_str(), integer.radix()).map_or(Raw::Other("a huge integer"), Raw::Integer)
        }
        DeValue::Boolean(bool) => Raw::Bool(*bool),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Table(table) if table.is_empty() => Raw::EmptyTable,
        DeValue::Table(_) => Raw::Other("a table"),
        DeValue::Float(_) => Raw::Other("a number with a fraction"),
        DeValue::Datetime(_) => Raw::Other("a date"),
    }
}
