//! Content negotiation by `Accept` (RFC 9110 §12.5.1).

use http::HeaderMap;
use http::header::ACCEPT;

/// Whether `Accept` lists the media type `named` explicitly, with at least the weight of the `usual` one. A tie selects
/// `named`, because only a caller that knows it lists it.
pub fn prefers(headers: &HeaderMap, named: &str, usual: &str) -> bool {
    let weight = ranges(headers).filter(|(range, _)| range.eq_ignore_ascii_case(named)).map(|(_, weight)| weight).max();
    weight.is_some_and(|weight| weight > 0 && weight >= weight_of(headers, usual))
}

/// Whether `Accept` lists the media type `named` explicitly, as a browser lists HTML.
pub fn names(headers: &HeaderMap, named: &str) -> bool {
    ranges(headers).any(|(range, weight)| weight > 0 && range.eq_ignore_ascii_case(named))
}

/// The weight of a media type in thousandths: that of the most specific range that matches it, and 0 if none does.
fn weight_of(headers: &HeaderMap, media_type: &str) -> u16 {
    let family = media_type.split('/').next().unwrap_or_default();
    let precision = |range: &str| match range.strip_suffix("/*") {
        _ if range.eq_ignore_ascii_case(media_type) => Some(2),
        Some(prefix) if prefix.eq_ignore_ascii_case(family) => Some(1),
        Some("*") => Some(0),
        _ => None,
    };
    let covering = ranges(headers).filter_map(|(range, weight)| Some((precision(range)?, weight)));
    covering.max().map_or(0, |(_, weight)| weight)
}

/// Every range with its weight. A range with an invalid weight is skipped.
fn ranges(headers: &HeaderMap) -> impl Iterator<Item = (&str, u16)> {
    let lines = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next()?;
        let weight = parts.filter_map(|parameter| parameter.split_once('=')).find_map(|(name, value)| {
            let is_weight = name.trim_end().eq_ignore_ascii_case("q");
            is_weight.then(|| value.trim_start())
        });
        Some((name, weight.map_or(Some(1000), thousandths)?))
    })
}

/// `qvalue`: 0 to 1 with at most three digits (RFC 9110 §12.4.2).
fn thousandths(weight: &str) -> Option<u16> {
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction = format!("{fraction:0<3}").parse().ok()?;
    match (whole, fraction) {
        ("0", thousandths) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn is_preferred(lines: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT, HeaderValue::from_str(line).unwrap());
        }
        prefers(&headers, "application/jwt", "application/json")
    }

    #[test]
    fn h1_the_weight_decides_and_a_tie_selects_the_named_type() {
        for (accept, expected) in [
            ("application/jwt", true),
            ("Application/JWT; q=0.001", true),
            ("application/jwt;q=0", false),
            ("application/jwt; Q=0.000", false),
            ("application/jwt, application/json", true),
            ("application/json, application/jwt;q=0.5", false),
            ("application/jwt;q=0.5, application/json;q=0.5", true),
            ("application/jwt;q=0.5, application/json;q=0.501", false),
            ("application/jwt;q=0.9, */*;q=0.8", true),
            ("application/jwt;q=0.5, */*", false),
            ("application/jwt;q=0.5, application/*;q=0.6, */*;q=0.1", false),
            ("application/jwt;q=0.5, application/json;q=0.4, application/*, */*", true),
            ("application/jwt;q=0.5, application/json;q=0, */*", true),
            ("application/jwt, text/html;q=0.1", true),
            ("*/*", false),
            ("application/*", false),
            ("", false),
        ] {
            assert_eq!(is_preferred(&[accept]), expected, "{accept}");
        }
        assert!(!is_preferred(&["application/jwt;q=0.5", "application/json"]), "weights of several lines are compared");
        assert!(!is_preferred(&[]));
    }

    #[test]
    fn h1_a_range_with_an_invalid_weight_is_skipped() {
        for weight in ["", "x", "2", "1.001", "-0", "0.1234", ".5", "1e0", "NaN", "+1", "00", "0.+1", "0. 1"] {
            assert!(!is_preferred(&[&format!("application/jwt;q={weight}")]), "{weight}");
            let json = format!("application/jwt;q=0.1, application/json;q={weight}");
            assert!(is_preferred(&[&json]), "{weight}");
        }
        for weight in ["1", "1.", "1.0", "1.000", "0.1", "0.01", "0.001"] {
            assert!(is_preferred(&[&format!("application/jwt;q={weight}")]), "{weight}");
        }
    }

    proptest! {
        #[test]
        fn h1_any_header_is_read_without_panic(line in "[ -~]{0,60}") {
            let _ = is_preferred(&[&line]);
        }
    }
}
