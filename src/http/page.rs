//! Parameters of paged lists.

use crate::domain::ParseError;
use crate::http::error::ApiError;
use crate::http::extract::Params;

/// The `limit` parameter, or the default; refuses a value over the maximum.
pub fn limit(query: &Params, (default, most): (u32, u32)) -> Result<u32, ApiError> {
    let Some(text) = query.optional("limit", 10)? else {
        return Ok(default);
    };
    let limit = text.parse().ok().filter(|limit| (1..=most).contains(limit));
    limit.ok_or_else(|| ApiError::invalid_field("limit", format!("must be a number from 1 to {most}")))
}

/// The `cursor` parameter: the `next_cursor` of the previous page.
pub fn cursor<T>(query: &Params, parse: fn(&str) -> Result<T, ParseError>) -> Result<Option<T>, ApiError> {
    let text = query.optional("cursor", 512)?;
    text.map(parse).transpose().map_err(|_| ApiError::invalid_field("cursor", "is not a cursor of this list"))
}

/// Parses a numeric cursor.
pub fn number(text: &str) -> Result<i64, ParseError> {
    text.parse().map_err(|_| ParseError("a cursor of this list is a number"))
}
