//! Reads a complete request body, up to a limit.

use std::error::Error;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body::Body;
use http_body_util::BodyExt;

use crate::http::listener::RequestBodyError;

/// `Retry-After` when the memory limit of unfinished bodies is reached. Unfinished bodies end within seconds.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);
pub(super) const CROWDED: &str = "unfinished request bodies take too much memory";

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyError {
    /// The body exceeds the limit of the endpoint.
    TooLarge,
    /// The body did not arrive in time.
    TimedOut,
    /// The connection broke, or the framing is invalid.
    Unreadable,
    /// The limit on the memory of unfinished bodies is reached.
    Crowded,
}

/// Reads the complete `body`. A declared length over `limit` is refused before anything is read. A body that arrives in
/// one piece is not copied.
pub(super) async fn read<B>(mut body: B, limit: usize) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Error + 'static,
{
    if body.size_hint().lower() > limit as u64 {
        return Err(BodyError::TooLarge);
    }
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| unreadable(&error))?.into_data() else { continue };
        if first.len() + joined.len() + data.len() > limit {
            return Err(BodyError::TooLarge);
        }
        if first.is_empty() && joined.is_empty() {
            first = data;
        } else {
            joined.extend_from_slice(&std::mem::take(&mut first));
            joined.extend_from_slice(&data);
        }
    }
    Ok(if joined.is_empty() { first } else { joined.freeze() })
}

/// Whether the headers declare exactly one content type, `expected` (compared without case, RFC 9110 §8.3.1), in UTF-8
/// and without compression.
pub(super) fn has_content_type(headers: &HeaderMap, expected: &str) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else { return false };
    let Ok(text) = only.to_str() else { return false };
    let mut parts = text.split(';').map(str::trim);
    let names_it = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case(expected));
    let is_utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim_end().eq_ignore_ascii_case("charset") => {
            let value = value.trim_matches(['"', ' ']);
            value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8")
        }
        _ => true,
    });
    let is_plain = headers.get_all(CONTENT_ENCODING).iter().all(|coding| coding.as_bytes() == b"identity");
    names_it && is_utf8 && is_plain
}

/// Distinguishes a slow body (the listener reports a timeout), a body without memory, and a broken connection.
fn unreadable(error: &(dyn Error + 'static)) -> BodyError {
    let mut next = Some(error);
    while let Some(error) = next {
        if matches!(error.downcast_ref(), Some(RequestBodyError::Crowded)) {
            return BodyError::Crowded;
        }
        if error.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::TimedOut) {
            return BodyError::TimedOut;
        }
        next = error.source();
    }
    BodyError::Unreadable
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::stream;
    use http::HeaderValue;

    use super::*;

    fn chunked(chunks: &[&'static str]) -> Body {
        let frames: Vec<_> = chunks.iter().map(|chunk| Ok::<_, std::io::Error>(Bytes::from(*chunk))).collect();
        Body::from_stream(stream::iter(frames))
    }

    #[tokio::test]
    async fn h5_the_limit_of_a_body_does_not_depend_on_its_chunks() {
        assert_eq!(read(chunked(&["abc", "", "de", "f"]), 6).await, Ok(Bytes::from("abcdef")));
        assert_eq!(read(chunked(&["abc", "def", "g"]), 6).await, Err(BodyError::TooLarge));
        assert_eq!(read(Body::from("abcdefg"), 6).await, Err(BodyError::TooLarge));
        assert_eq!(read(Body::from("abcdef"), 6).await, Ok(Bytes::from("abcdef")));
        assert_eq!(read(Body::empty(), 6).await, Ok(Bytes::new()));
    }

    #[tokio::test]
    async fn h6_a_late_body_and_a_broken_one_are_distinguished() {
        for (kind, expected) in [
            (std::io::ErrorKind::TimedOut, BodyError::TimedOut),
            (std::io::ErrorKind::ConnectionReset, BodyError::Unreadable),
        ] {
            let frames = [Ok(Bytes::from("a")), Err(std::io::Error::from(kind))];
            assert_eq!(read(Body::from_stream(stream::iter(frames)), 6).await, Err(expected));
        }
    }

    #[test]
    fn h1_content_types_are_compared_without_case_and_with_their_charset() {
        let is_form = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_TYPE, HeaderValue::from_static(value));
            }
            has_content_type(&headers, "application/x-www-form-urlencoded")
        };
        for good in [
            "application/x-www-form-urlencoded",
            "Application/X-WWW-Form-Urlencoded",
            "application/x-www-form-urlencoded;charset=UTF-8",
            "application/x-www-form-urlencoded ; charset=\"utf-8\"",
            "application/x-www-form-urlencoded; boundary=x",
            "application/x-www-form-urlencoded;",
        ] {
            assert!(is_form(&[good]), "{good}");
        }
        for bad in ["application/json", "application/x-www-form-urlencodedx", "", "text/plain"] {
            assert!(!is_form(&[bad]), "{bad}");
        }
        assert!(!is_form(&["application/x-www-form-urlencoded; charset=latin1"]));
        assert!(!is_form(&[]) && !is_form(&["application/x-www-form-urlencoded", "application/json"]));
    }
}
