//! Cursor pages: how much, and from where.

use crate::domain::ParseError;
use crate::http::error::ApiError;
use crate::http::extract::QueryParams;

/// The `limit` parameter: the default when absent, and a clear refusal beyond the maximum.
pub fn limit(query: &QueryParams, (default, most): (u32, u32)) -> Result<u32, ApiError> {
    let Some(text) = query.optional("limit", 10)? else {
        return Ok(default);
    };
    let wanted = text.parse().ok().filter(|wanted| (1..=most).contains(wanted));
    wanted.ok_or_else(|| ApiError::invalid_field("limit", format!("is a number from 1 to {most}")))
}

/// The `cursor` parameter: what the page before called `next_cursor`.
pub fn cursor<T>(query: &QueryParams, parse: fn(&str) -> Result<T, ParseError>) -> Result<Option<T>, ApiError> {
    let text = query.optional("cursor", 512)?;
    text.map(parse).transpose().map_err(|_| ApiError::invalid_field("cursor", "is not a cursor of this list"))
}

/// A cursor that is a place in a sequence.
pub fn number(text: &str) -> Result<i64, ParseError> {
    text.parse().map_err(|_| ParseError("a cursor of this list is a number"))
}
