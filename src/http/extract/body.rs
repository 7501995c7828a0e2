//! Reads a complete request body, up to a limit.

use std::error::Error;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::http::error::{ApiError, ProblemCode};
use crate::http::listener::RequestBodyError;

/// Reads the complete `body`. A declared length over `limit` is refused before anything is read.
pub(super) async fn read<B>(body: B, limit: usize) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    if body.size_hint().lower() > limit as u64 {
        return Err(ApiError::new(ProblemCode::PayloadTooLarge));
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => Err(unreadable(&*error)),
    }
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

/// Distinguishes a large body, a slow one (the listener reports a timeout), one without memory, and a broken connection.
fn unreadable(error: &(dyn Error + 'static)) -> ApiError {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<LengthLimitError>() {
            return ApiError::new(ProblemCode::PayloadTooLarge);
        }
        if let Some(RequestBodyError::Crowded) = error.downcast_ref() {
            return ApiError::new(ProblemCode::Busy).because("unfinished request bodies take too much memory");
        }
        if error.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::TimedOut) {
            return ApiError::new(ProblemCode::RequestTimeout);
        }
        next = error.source();
    }
    ApiError::invalid_form("the body could not be read").detail("The body could not be read.")
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

    async fn outcome(body: Body) -> Result<Bytes, ProblemCode> {
        read(body, 6).await.map_err(|error| error.code())
    }

    #[tokio::test]
    async fn h5_the_limit_of_a_body_does_not_depend_on_its_chunks() {
        assert_eq!(outcome(chunked(&["abc", "", "de", "f"])).await, Ok(Bytes::from("abcdef")));
        assert_eq!(outcome(chunked(&["abc", "def", "g"])).await, Err(ProblemCode::PayloadTooLarge));
        assert_eq!(outcome(Body::from("abcdefg")).await, Err(ProblemCode::PayloadTooLarge));
        assert_eq!(outcome(Body::from("abcdef")).await, Ok(Bytes::from("abcdef")));
        assert_eq!(outcome(Body::empty()).await, Ok(Bytes::new()));
    }

    #[tokio::test]
    async fn h6_a_late_body_and_a_broken_one_are_distinguished() {
        for (kind, expected) in [
            (std::io::ErrorKind::TimedOut, ProblemCode::RequestTimeout),
            (std::io::ErrorKind::ConnectionReset, ProblemCode::InvalidRequest),
        ] {
            let frames = [Ok(Bytes::from("a")), Err(std::io::Error::from(kind))];
            assert_eq!(outcome(Body::from_stream(stream::iter(frames))).await, Err(expected));
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
