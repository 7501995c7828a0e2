//! The headers in which proxies report the client's address: `X-Forwarded-For` and `Forwarded` (RFC 7239).

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

/// The hops of `X-Forwarded-For` from right to left; `None` without the header. A hop that is not an address is `None`.
pub(super) fn x_forwarded_for(headers: &HeaderMap) -> Option<impl Iterator<Item = Option<IpAddr>>> {
    let lines = headers.get_all("x-forwarded-for");
    lines.iter().next()?;
    Some(lines.iter().rev().flat_map(|line| {
        // A line that is not ASCII counts as one malformed hop.
        line.to_str().unwrap_or("?").rsplit(',').map(|hop| address(hop.trim_matches([' ', '\t'])))
    }))
}

/// The `for` of each element of `Forwarded`, from right to left; `None` as in [`x_forwarded_for`].
pub(super) fn forwarded(headers: &HeaderMap) -> Option<impl Iterator<Item = Option<IpAddr>>> {
    let lines = headers.get_all("forwarded");
    lines.iter().next()?;
    Some(lines.iter().rev().flat_map(|line| {
        let mut hops = elements(line.to_str().unwrap_or("?"));
        hops.reverse();
        hops
    }))
}

/// `address`, `address:port`, `[v6]` or `[v6]:port`; no names, no zones.
fn address(text: &str) -> Option<IpAddr> {
    if let Some(bracketed) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return bracketed.parse().ok().filter(IpAddr::is_ipv6);
    }
    let with_port = || text.parse::<SocketAddr>().ok().filter(|_| !text.contains('%'));
    text.parse().ok().or_else(|| with_port().map(|socket| socket.ip()))
}

/// The address of each `forwarded-element` (RFC 7239 §4), from left to right. An element must have exactly one `for`.
fn elements(line: &str) -> Vec<Option<IpAddr>> {
    split_unquoted(line, ',').into_iter().map(|element| only_for(element?)).collect()
}

fn only_for(element: &str) -> Option<IpAddr> {
    let mut node_address = None;
    for pair in split_unquoted(element, ';') {
        let (name, value) = pair?.split_once('=')?;
        if name.trim_matches([' ', '\t']).eq_ignore_ascii_case("for") {
            let node = unquote(value.trim_matches([' ', '\t']));
            if node_address.replace(address(&node)?).is_some() {
                return None;
            }
        }
    }
    node_address
}

fn unquote(value: &str) -> Cow<'_, str> {
    match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => Cow::Owned(inner.replace('\\', "")),
        None => Cow::Borrowed(value),
    }
}

/// Splits at separators outside quoted strings. A part with an open quote is `None`.
fn split_unquoted(text: &str, separator: char) -> Vec<Option<&str>> {
    let mut parts = Vec::new();
    let (mut start, mut in_quotes, mut is_escaped) = (0, false, false);
    for (index, character) in text.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if in_quotes => is_escaped = true,
            '"' => in_quotes = !in_quotes,
            _ if character == separator && !in_quotes => {
                parts.push(text.get(start..index));
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(start..).filter(|_| !in_quotes));
    parts
}
