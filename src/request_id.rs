//! The id of a request in its answer, in problem bodies and in every log line.
//!
//! Events logged during a request carry its id. A `tracing` span would do the same, but cost each introspection several
//! allocations. A task-local costs a copy at each poll.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

tokio::task_local! {
    static CURRENT: RequestId;
}

/// `X-Request-Id`, of requests and answers.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request id: 1 to 128 of `A-Z a-z 0-9 . _ -`, so that a header, a log line and a JSON string need no escapes.
#[derive(Clone)]
pub struct RequestId(Text);

/// A generated id needs no allocation. Every request without an id gets one.
#[derive(Clone)]
enum Text {
    Generated([u8; 32]),
    Callers(HeaderValue),
}

impl RequestId {
    /// The caller's id, if there is exactly one and it is well-formed.
    pub fn of_caller(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(X_REQUEST_ID).iter();
        let value = values.next()?;
        let is_valid = (1..=128).contains(&value.len()) && value.as_bytes().iter().copied().all(is_id_byte);
        (is_valid && values.next().is_none()).then(|| Self(Text::Callers(value.clone())))
    }

    /// An id of 128 bits in hexadecimal.
    pub fn from_random(bits: [u8; 16]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(bits) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        Self(Text::Generated(text))
    }

    /// The id of the current task's request.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// Calls `work` as part of this request.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), work)
    }

    /// Makes `work`, which runs on another task, part of the current request.
    pub async fn continued<T>(current: Option<Self>, work: impl Future<Output = T>) -> T {
        match current {
            Some(id) => CURRENT.scope(id, work).await,
            None => work.await,
        }
    }

    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Generated(text) => std::str::from_utf8(text).unwrap_or_default(),
            Text::Callers(value) => value.to_str().unwrap_or_default(),
        }
    }

    /// The value of the header.
    pub fn header_value(&self) -> HeaderValue {
        match &self.0 {
            Text::Generated(text) => HeaderValue::from_bytes(text).unwrap_or(HeaderValue::from_static("-")),
            Text::Callers(value) => value.clone(),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_caller(values: &[&[u8]]) -> Option<String> {
        let headers = values.iter().map(|value| (X_REQUEST_ID, HeaderValue::from_bytes(value).unwrap())).collect();
        RequestId::of_caller(&headers).map(|id| id.to_string())
    }

    #[test]
    fn s3_only_a_well_formed_id_of_the_caller_is_kept() {
        assert_eq!(of_caller(&[b"Req-1_a.b"]), Some("Req-1_a.b".into()));
        assert_eq!(of_caller(&[&[b'a'; 128]]).map(|id| id.len()), Some(128));
        for bad in [&b""[..], &[b'a'; 129], b"a b", b"a\"b", b"a\tb", b"<script>", b"\xe9", b"a,b", b"a:b"] {
            assert_eq!(of_caller(&[bad]), None, "{bad:?}");
        }
        assert_eq!(of_caller(&[b"a", b"a"]), None);
        assert_eq!(of_caller(&[]), None);
    }

    #[test]
    fn a_generated_id_contains_all_of_its_bits() {
        assert_eq!(RequestId::from_random([0xAF; 16]).as_str(), "af".repeat(16));
        assert_eq!(RequestId::from_random([0x01; 16]).as_str(), "01".repeat(16));
    }
}
