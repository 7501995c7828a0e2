//! One line per request, written without `tracing`. Introspection takes microseconds, so its line must be as fast.

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use tracing::Level;

use super::escape::{write_json, write_text};
use crate::domain::{Timestamp, texts};

/// The target of request lines, so that `log.level` can set a separate level for them.
pub(super) const TARGET: &str = "countersign::request";

/// Routes that orchestrators and Prometheus poll.
const PROBES: [&str; 3] = ["/livez", "/readyz", "/metrics"];

texts! {
    /// Whether a look-up was answered from memory.
    CacheUse {
        /// The token's signature was in the cache.
        Hit = "hit",
        /// The token's signature was verified for this request.
        Miss = "miss",
    }
}

/// An answered request as one self-contained line. The caller and the subject are separate fields. The line never
/// contains a token, a query string or a name that a user typed.
#[derive(Debug, Clone)]
pub struct RequestLine<'a> {
    /// When the answer was ready.
    pub at: Timestamp,
    /// Request method.
    pub method: &'a str,
    /// The route's template, never the path.
    pub route: &'a str,
    /// Status of the answer.
    pub status: u16,
    /// The time from the complete header block until the answer was ready.
    pub duration: Duration,
    /// `X-Request-Id` of the answer.
    pub request_id: &'a str,
    /// The client's address, resolved through trusted proxies.
    pub client_address: IpAddr,
    /// The authenticated client.
    pub caller: Option<&'a str>,
    /// The `sub` that the request is about.
    pub subject: Option<&'a str>,
    /// Whether the token's signature was cached.
    pub cache: Option<CacheUse>,
    /// Outcome as a stable code, such as `inactive` or `invalid_credentials`.
    pub outcome: Option<&'a str>,
}

impl RequestLine<'_> {
    /// An unavailable answer is a warning. Any other server failure is an error. A caller's error is neither, and 505
    /// counts as a caller's error. Successful probes and scrapes repeat every few seconds and carry no information.
    pub(super) fn level(&self) -> Level {
        match self.status {
            503 => Level::WARN,
            505 => Level::INFO,
            500.. => Level::ERROR,
            ..400 if PROBES.contains(&self.route) => Level::DEBUG,
            _ => Level::INFO,
        }
    }

    /// Appends the line as a JSON object and a line feed.
    pub(super) fn write_json(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(b"{\"timestamp\":\"");
        let _ = write!(line, "{}", self.at);
        line.extend_from_slice(b"\",\"level\":\"");
        line.extend_from_slice(self.level().as_str().as_bytes());
        line.extend_from_slice(b"\",\"target\":\"countersign::request\",\"message\":\"request\",\"method\":");
        write_json(line, self.method);
        line.extend_from_slice(b",\"route\":");
        write_json(line, self.route);
        line.extend_from_slice(b",\"status\":");
        write_number(line, self.status.into());
        line.extend_from_slice(b",\"duration_ms\":");
        write_millis(line, self.duration);
        line.extend_from_slice(b",\"request_id\":");
        write_json(line, self.request_id);
        line.extend_from_slice(b",\"client_address\":\"");
        write_address(line, self.client_address);
        line.push(b'"');
        for (name, value) in self.optional() {
            if let Some(value) = value {
                line.extend_from_slice(b",\"");
                line.extend_from_slice(name.as_bytes());
                line.extend_from_slice(b"\":");
                write_json(line, value);
            }
        }
        line.extend_from_slice(b"}\n");
    }

    /// Appends the line in the text format.
    pub(super) fn write_text(&self, line: &mut Vec<u8>) {
        let _ = write!(line, "{}", self.at);
        let _ = write!(line, " {:5} ", self.level().as_str());
        write_text(line, self.method);
        line.push(b' ');
        write_text(line, self.route);
        line.push(b' ');
        write_number(line, self.status.into());
        line.push(b' ');
        write_millis(line, self.duration);
        line.extend_from_slice(b"ms");
        line.extend_from_slice(b" request_id=");
        write_text(line, self.request_id);
        line.extend_from_slice(b" client_address=");
        write_address(line, self.client_address);
        for (name, value) in self.optional() {
            if let Some(value) = value {
                line.push(b' ');
                line.extend_from_slice(name.as_bytes());
                line.push(b'=');
                write_text(line, value);
            }
        }
        line.push(b'\n');
    }

    fn optional(&self) -> [(&'static str, Option<&str>); 4] {
        let cache = self.cache.map(CacheUse::as_str);
        [("caller", self.caller), ("subject", self.subject), ("cache", cache), ("outcome", self.outcome)]
    }
}

fn write_number(line: &mut Vec<u8>, number: u64) {
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Milliseconds with three decimals.
fn write_millis(line: &mut Vec<u8>, duration: Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    write_number(line, micros / 1000);
    let digit = |place: u64| b'0' + u8::try_from(micros / place % 10).unwrap_or(0);
    line.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
}

fn write_address(line: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    line.push(b'.');
                }
                write_number(line, octet.into());
            }
        }
        IpAddr::V6(address) => {
            let _ = write!(line, "{address}");
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::telemetry) fn example() -> RequestLine<'static> {
        RequestLine {
            at: Timestamp::from_millis(1_767_225_600_123),
            method: "POST",
            route: "/oauth2/introspect",
            status: 200,
            duration: Duration::from_micros(1_042),
            request_id: "4bf92f3577b34da6a3ce929d0e0e4736",
            client_address: IpAddr::from([192, 0, 2, 33]),
            caller: Some("gateway"),
            subject: Some("usr_0123456789abcdef"),
            cache: Some(CacheUse::Hit),
            outcome: Some("active"),
        }
    }

    fn json(line: &RequestLine<'_>) -> String {
        let mut bytes = Vec::new();
        line.write_json(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    fn text(line: &RequestLine<'_>) -> String {
        let mut bytes = Vec::new();
        line.write_text(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_client_error_is_not_logged_as_an_error() {
        let level = |status| RequestLine { status, ..example() }.level();
        assert_eq!([200, 400, 499, 505].map(level), [Level::INFO; 4]);
        assert_eq!([500, 502].map(level), [Level::ERROR; 2]);
        assert_eq!(level(503), Level::WARN);
    }

    #[test]
    fn a_successful_probe_or_scrape_is_logged_at_debug_and_a_failed_one_as_a_failure() {
        for route in PROBES {
            let level = |status| RequestLine { route, status, ..example() }.level();
            assert_eq!([200, 404, 500, 503].map(level), [Level::DEBUG, Level::INFO, Level::ERROR, Level::WARN]);
        }
    }

    #[test]
    fn a_request_line_is_complete_in_both_formats() {
        let failed = RequestLine {
            status: 503,
            client_address: "2001:db8::7".parse().unwrap(),
            caller: None,
            subject: None,
            cache: None,
            outcome: Some("stale view"),
            ..example()
        };
        let lines = [json(&example()), text(&example()), json(&failed), text(&failed)].concat();
        insta::assert_snapshot!(lines);
    }

    proptest! {
        #[test]
        fn s3_every_request_line_is_one_line_and_parses_back(
            method in any::<String>(), id in any::<String>(), caller in any::<Option<String>>(), status in any::<u16>(),
            micros in any::<u64>(), address in any::<[u8; 16]>(),
        ) {
            let line = RequestLine {
                method: &method, request_id: &id, caller: caller.as_deref(), status,
                duration: Duration::from_micros(micros), client_address: address.into(), ..example()
            };
            let written = json(&line);
            prop_assert_eq!(written.lines().count(), 1);
            let parsed: serde_json::Value = serde_json::from_str(&written).unwrap();
            prop_assert_eq!(parsed["method"].as_str(), Some(method.as_str()));
            prop_assert_eq!(parsed["request_id"].as_str(), Some(id.as_str()));
            prop_assert_eq!(parsed["caller"].as_str(), caller.as_deref());
            prop_assert_eq!(parsed["status"].as_u64(), Some(status.into()));
            prop_assert!(parsed["duration_ms"].is_number());
            prop_assert_eq!(text(&line).lines().count(), 1);
        }
    }
}
