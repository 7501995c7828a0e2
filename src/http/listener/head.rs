//! Checks the head of a request before hyper parses it. hyper accepts input that a strict parser rejects: bare line
//! feeds, a missing `Host`, two framings in one message. This module refuses every head that two parsers could
//! interpret differently (RFC 9112 §11.2; security.md H5, H9).

use std::borrow::Cow;

use http::Uri;
use memchr::{memchr, memmem};

use crate::http::error::ProblemCode;

/// Largest head, from the request line to the empty line, in bytes.
pub(super) const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Longest origin in bytes: a scheme, a host name of 253 bytes (RFC 1035 §2.3.4) and a port.
const MAX_ORIGIN_BYTES: usize = 320;
/// Maximum number of header fields.
const MAX_FIELDS: usize = 64;
/// Longest request target, in bytes.
const MAX_TARGET_BYTES: usize = 2 * 1024;
/// Longest method, in bytes; the longest registered one has 17.
const MAX_METHOD_BYTES: usize = 32;

/// Framing of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// By `Content-Length`; 0 without a body.
    Length(u64),
    /// By chunks.
    Chunked,
}

/// Finds the end of a head that arrives in pieces; scans each byte once.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    /// Start of the current line.
    line_start: usize,
    /// Bytes already scanned.
    scanned: usize,
    /// Whether the request line of an incomplete head was checked.
    has_checked_first_line: bool,
}

impl HeadScan {
    /// Whether no line is complete yet.
    pub(super) const fn is_at_first_line(&self) -> bool {
        self.line_start == 0
    }

    /// The length of the head in `bytes`, if its end has arrived. `bytes` starts with the bytes of the previous call.
    /// An incomplete head is refused at the first byte that cannot belong to a request, so a client that uses another
    /// protocol gets an answer at once.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProblemCode> {
        let fresh = self.scanned.min(bytes.len());
        while let Some(offset) = memchr(b'\n', &bytes[self.scanned..]) {
            let feed = self.scanned + offset;
            let line = &bytes[self.line_start..feed];
            if line.last() != Some(&b'\r') {
                return Err(ProblemCode::InvalidRequest);
            }
            self.scanned = feed + 1;
            let is_empty = line.len() == 1 && self.line_start > 0;
            self.line_start = feed + 1;
            if is_empty {
                return if feed < MAX_HEAD_BYTES { Ok(Some(feed + 1)) } else { Err(ProblemCode::HeadersTooLarge) };
            }
        }
        self.scanned = bytes.len();
        match bytes.len() >= MAX_HEAD_BYTES {
            true if self.line_start == 0 => Err(ProblemCode::UriTooLong),
            true => Err(ProblemCode::HeadersTooLarge),
            false => self.check_incomplete(bytes, fresh).map(|()| None),
        }
    }

    /// Checks an incomplete head. The bytes from `fresh` on are new.
    fn check_incomplete(&mut self, bytes: &[u8], fresh: usize) -> Result<(), ProblemCode> {
        let is_possible = |byte: &u8| is_value_byte(*byte) || matches!(byte, b'\r' | b'\n');
        if !bytes[fresh..].iter().all(is_possible) {
            return Err(ProblemCode::InvalidRequest);
        }
        match memchr(b'\n', bytes) {
            _ if self.has_checked_first_line => Ok(()),
            Some(feed) => {
                self.has_checked_first_line = true;
                request_line(&bytes[..feed.saturating_sub(1)]).map(drop)
            }
            None => beginning_of_request_line(bytes.strip_suffix(b"\r").unwrap_or(bytes)),
        }
    }
}

/// Checks a complete head, including the empty line at its end.
pub(super) fn screen(head: &[u8]) -> Result<Framing, ProblemCode> {
    let mut lines = Lines(head);
    let version = request_line(lines.next().unwrap_or_default())?;
    let mut fields = Fields::default();
    for line in lines.take_while(|line| !line.is_empty()) {
        fields.read(line)?;
    }
    fields.framing(version)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

/// `method SP request-target SP HTTP-version` (RFC 9112 §3), with single spaces.
fn request_line(line: &[u8]) -> Result<Version, ProblemCode> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let (method, target, version) = match (parts.next(), parts.next(), parts.next()) {
        (Some(method), Some(target), Some(version)) => (method, target, version),
        _ => return Err(ProblemCode::InvalidRequest),
    };
    if method.len() > MAX_METHOD_BYTES || !is_token(method) {
        return Err(ProblemCode::InvalidRequest);
    }
    if target.len() > MAX_TARGET_BYTES {
        return Err(ProblemCode::UriTooLong);
    }
    if !is_target(target) {
        return Err(ProblemCode::InvalidRequest);
    }
    match version {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        _ if is_version(version) => Err(ProblemCode::HttpVersionNotSupported),
        _ => Err(ProblemCode::InvalidRequest),
    }
}

/// Whether a request line can begin with these bytes.
fn beginning_of_request_line(bytes: &[u8]) -> Result<(), ProblemCode> {
    let (method, rest) = bytes.split_at(memchr(b' ', bytes).unwrap_or(bytes.len()));
    let is_method = method.len() <= MAX_METHOD_BYTES && method.iter().all(|byte| IS_TCHAR[usize::from(*byte)]);
    let is_rest = rest.iter().all(|byte| *byte == b' ' || byte.is_ascii_graphic());
    let has_method = !method.is_empty() || rest.is_empty();
    if is_method && is_rest && has_method { Ok(()) } else { Err(ProblemCode::InvalidRequest) }
}

/// Whether hyper accepts this target. hyper answers a target that it refuses by itself, without a request id, a body or
/// a log line. Bytes beyond ASCII and fragments are refused; hyper would cut a fragment off (RFC 9112 §3.2).
fn is_target(target: &[u8]) -> bool {
    if target.first() != Some(&b'/') {
        // Absolute form, authority form and `*` are rare, so parsing the URI here may cost more.
        return target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#') && Uri::try_from(target).is_ok();
    }
    let (path, query) = target.split_at(memchr(b'?', target).unwrap_or(target.len()));
    let is_path_byte = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'<' | b'>' | b'`');
    let is_query_byte = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'<' | b'>' | b'"');
    path.iter().all(is_path_byte) && query.iter().all(is_query_byte)
}

/// The path of a refused head, as far as it can be recognized. It selects the error format of the answer.
pub(super) fn path_of(head: &[u8]) -> Cow<'_, str> {
    let line = &head[..memchr(b'\n', head).unwrap_or(head.len())];
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let target = words.nth(1).unwrap_or_default();
    let path = match memmem::find(target, b"://") {
        Some(end) if target.first() != Some(&b'/') => {
            let rest = &target[end + 3..];
            &rest[memchr(b'/', rest).unwrap_or(rest.len())..]
        }
        _ => target,
    };
    String::from_utf8_lossy(&path[..memchr(b'?', path).unwrap_or(path.len())])
}

/// The first `Origin` of a refused head. A browser reveals the status to the page only if the answer names its origin.
pub(super) fn origin_of(head: &[u8]) -> Option<&[u8]> {
    let fields = head.split(|byte| *byte == b'\n').skip(1);
    let mut origins = fields.filter_map(|line| {
        let (name, value) = line.split_at(memchr(b':', line)?);
        name.eq_ignore_ascii_case(b"origin").then(|| value[1..].trim_ascii())
    });
    origins.next().filter(|origin| origin.len() <= MAX_ORIGIN_BYTES && origin.iter().all(u8::is_ascii_graphic))
}

/// Header fields that decide on framing.
#[derive(Default)]
struct Fields {
    count: usize,
    hosts: usize,
    length: Option<u64>,
    is_chunked: bool,
}

impl Fields {
    /// Reads one field line: a name, directly followed by a colon, and a value without control characters. A
    /// continuation line is refused.
    fn read(&mut self, line: &[u8]) -> Result<(), ProblemCode> {
        self.count += 1;
        if self.count > MAX_FIELDS {
            return Err(ProblemCode::HeadersTooLarge);
        }
        let colon = memchr(b':', line).ok_or(ProblemCode::InvalidRequest)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        // Without an early exit, so that the compiler can vectorize the loop.
        let is_valid = value.iter().fold(true, |is_valid, byte| is_valid & is_value_byte(*byte));
        if !is_token(name) || !is_valid {
            return Err(ProblemCode::InvalidRequest);
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.hosts += 1,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = content_length(trim(value)).ok_or(ProblemCode::InvalidRequest)?;
                if self.length.replace(length).is_some() {
                    return Err(ProblemCode::InvalidRequest);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.is_chunked || !trim(value).eq_ignore_ascii_case(b"chunked") {
                    return Err(ProblemCode::InvalidRequest);
                }
                self.is_chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// Exactly one framing (RFC 9112 §6.3), and exactly one `Host` in HTTP/1.1 (§3.2). The value of `Host` is not
    /// checked.
    fn framing(self, version: Version) -> Result<Framing, ProblemCode> {
        let has_host = self.hosts == 1 || (self.hosts == 0 && version == Version::Http10);
        match (self.is_chunked, self.length) {
            _ if !has_host => Err(ProblemCode::InvalidRequest),
            (true, None) if version == Version::Http11 => Ok(Framing::Chunked),
            (true, _) => Err(ProblemCode::InvalidRequest),
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

/// The lines of a head without their line ends, which are known to be CRLF.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let feed = memchr(b'\n', self.0)?;
        let line = &self.0[..feed.saturating_sub(1)];
        self.0 = &self.0[feed + 1..];
        Some(line)
    }
}

/// Only digits: no sign, no list, no space. At most 18 of them, so that no arithmetic overflows.
fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 {
        return None;
    }
    value.iter().try_fold(0_u64, |length, byte| byte.is_ascii_digit().then(|| length * 10 + u64::from(byte - b'0')))
}

/// `HTTP/`, a digit, a dot and a digit (RFC 9112 §2.3).
fn is_version(text: &[u8]) -> bool {
    matches!(text, [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'])
}

/// `1*tchar` (RFC 9110 §5.6.2).
fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| IS_TCHAR[usize::from(*byte)])
}

/// Table of `tchar` bytes. Every byte of every field name is checked.
const IS_TCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};

/// `field-vchar / SP / HTAB / obs-text` (RFC 9110 §5.5).
const fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7F)
}

fn trim(value: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    match (value.iter().position(is_text), value.iter().rposition(is_text)) {
        (Some(first), Some(last)) => &value[first..=last],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn screen_whole(head: &[u8]) -> Result<Framing, ProblemCode> {
        match HeadScan::default().advance(head)? {
            Some(length) => screen(&head[..length]),
            None => panic!("no end in {head:?}"),
        }
    }

    fn screen_fields(fields: &str) -> Result<Framing, ProblemCode> {
        screen_whole(format!("POST /v1/login HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes())
    }

    const BAD: Result<Framing, ProblemCode> = Err(ProblemCode::InvalidRequest);

    #[test]
    fn h9_one_framing_header_is_accepted_and_two_are_refused() {
        assert_eq!(screen_fields(""), Ok(Framing::Length(0)));
        assert_eq!(screen_fields("Content-Length: 7\r\n"), Ok(Framing::Length(7)));
        assert_eq!(screen_fields("content-length:\t 007 \r\n"), Ok(Framing::Length(7)));
        assert_eq!(screen_fields("Transfer-Encoding: Chunked\r\n"), Ok(Framing::Chunked));
        for fields in [
            "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 7\r\n",
            "Content-Length: 7\r\nContent-Length: 8\r\n",
            "Content-Length: 7\r\nContent-Length: 7\r\n",
            "Content-Length: 7, 7\r\n",
            "Content-Length: +7\r\n",
            "Content-Length: -7\r\n",
            "Content-Length: 0x7\r\n",
            "Content-Length: 7 7\r\n",
            "Content-Length:\r\n",
            "Content-Length: 9999999999999999999\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding:\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
        ] {
            assert_eq!(screen_fields(fields), BAD, "{fields:?}");
        }
        assert_eq!(screen_whole(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), BAD);
    }

    #[test]
    fn h9_ambiguous_header_lines_are_refused() {
        for fields in [
            "X: a\r\n folded\r\n",
            "X: a\r\n\tfolded\r\n",
            " X: a\r\n",
            "X : a\r\n",
            "X\t: a\r\n",
            ": a\r\n",
            "X\r\n",
            "X: a\rY: b\r\n",
            "X: a\0b\r\n",
            "X\0: a\r\n",
            "X: \x7f\r\n",
            "X(: a\r\n",
            "\u{e9}: a\r\n",
        ] {
            assert_eq!(screen_fields(fields), BAD, "{fields:?}");
        }
        assert_eq!(screen_fields("X: \u{e9}\r\nEmpty:\r\n"), Ok(Framing::Length(0)));
    }

    #[test]
    fn h9_a_bare_line_feed_is_refused_at_every_position() {
        for head in [
            &b"GET / HTTP/1.1\nHost: a\n\n"[..],
            b"GET / HTTP/1.1\r\nHost: a\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\n",
            b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert_eq!(HeadScan::default().advance(head), Err(ProblemCode::InvalidRequest), "{head:?}");
        }
    }

    #[test]
    fn h9_bytes_that_begin_no_request_are_refused_before_a_line_is_complete() {
        for bytes in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
            b"\0\0\0\0",
            b"\x80\x2e\x01",
            b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n",
            b"EHLO client.example\r\n",
            b"\xef\xbb\xbfGET / HTTP/1.1",
            b" GET /",
            b"THIS-METHOD-IS-LONGER-THAN-ANY-METHOD",
            b"GET /\x7f",
            b"GET / HTTP/1.1\r\nHost: a\0",
        ] {
            assert_eq!(HeadScan::default().advance(bytes), Err(ProblemCode::InvalidRequest), "{bytes:?}");
        }
    }

    #[test]
    fn h9_http_1_1_names_one_host_and_http_1_0_may_name_none() {
        assert_eq!(screen_whole(b"GET / HTTP/1.0\r\n\r\n"), Ok(Framing::Length(0)));
        assert_eq!(screen_whole(b"GET / HTTP/1.1\r\nhost:\r\n\r\n"), Ok(Framing::Length(0)));
        assert_eq!(screen_whole(b"GET / HTTP/1.1\r\n\r\n"), BAD);
        assert_eq!(screen_whole(b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), BAD);
        assert_eq!(screen_whole(b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"), BAD);
    }

    #[test]
    fn h9_request_lines_are_strict() {
        for line in [
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "GET /",
            "GET",
            "G(T / HTTP/1.1",
            "GET / http/1.1",
            "GET /a b HTTP/1.1",
            "GET /#x HTTP/1.1",
            "GET /\u{e9} HTTP/1.1",
            "GET /v1/<x> HTTP/1.1",
            "GET /v1/`x HTTP/1.1",
            "GET /?x=\"y\" HTTP/1.1",
            "GET /?<x> HTTP/1.1",
            "GET ?x HTTP/1.1",
            "GET a/b HTTP/1.1",
            "GET http:///x HTTP/1.1",
            "CONNECT a:1:2 HTTP/1.1",
            "GET / HTTP/1.1x",
            "GET\t/\tHTTP/1.1",
            "GET / HTTP/1",
        ] {
            assert_eq!(screen_whole(format!("{line}\r\nHost: a\r\n\r\n").as_bytes()), BAD, "{line:?}");
        }
        for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/1.2", "HTTP/3.1"] {
            let head = format!("GET / {version}\r\nHost: a\r\n\r\n");
            assert_eq!(screen_whole(head.as_bytes()), Err(ProblemCode::HttpVersionNotSupported), "{version}");
        }
    }

    #[test]
    fn h5_limits_are_exact() {
        let target = |length: usize| {
            screen_whole(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(length - 1)).as_bytes())
        };
        assert_eq!(target(MAX_TARGET_BYTES), Ok(Framing::Length(0)));
        assert_eq!(target(MAX_TARGET_BYTES + 1), Err(ProblemCode::UriTooLong));

        assert!(screen_fields(&"X: a\r\n".repeat(MAX_FIELDS - 1)).is_ok());
        assert_eq!(screen_fields(&"X: a\r\n".repeat(MAX_FIELDS)), Err(ProblemCode::HeadersTooLarge));

        let head = |length: usize| {
            let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(length - frame)).into_bytes()
        };
        assert_eq!(screen_whole(&head(MAX_HEAD_BYTES)), Ok(Framing::Length(0)));
        assert_eq!(screen_whole(&head(MAX_HEAD_BYTES + 1)), Err(ProblemCode::HeadersTooLarge));
        let endless = [&b"GET /"[..], &vec![b'a'; MAX_HEAD_BYTES]].concat();
        assert_eq!(HeadScan::default().advance(&endless), Err(ProblemCode::UriTooLong));
    }

    /// Whether hyper passes this head to the service and does not answer it by itself.
    fn reaches_a_service(head: &[u8]) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let was_called = Arc::new(AtomicBool::new(false));
            let (mut client, server) = tokio::io::duplex(64 * 1024);
            client.write_all(head).await.unwrap();
            client.shutdown().await.unwrap();
            let called = Arc::clone(&was_called);
            let service = service_fn(move |_| {
                called.store(true, Ordering::Relaxed);
                std::future::ready(Ok::<_, Infallible>(http::Response::new(String::new())))
            });
            let _ = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(server), service).await;
            was_called.load(Ordering::Relaxed)
        })
    }

    fn agrees_with_the_library(head: &[u8]) -> bool {
        screen_whole(head).is_err() || reaches_a_service(head)
    }

    #[test]
    fn h8_each_byte_of_a_target_is_refused_here_or_parsed_by_hyper() {
        for byte in 0..=u8::MAX {
            for (before, after) in [
                ("/", ""),
                ("", ""),
                ("", "x"),
                ("/a", "b"),
                ("/?", ""),
                ("/a?b", "c"),
                ("http://a", "b/"),
                ("http://a/", "b"),
                ("http://a/?", "b"),
                ("h", "://a/"),
                ("a:8", ""),
            ] {
                for method in ["GET", "CONNECT", "OPTIONS"] {
                    let target = [before.as_bytes(), &[byte], after.as_bytes()].concat();
                    let head = [method.as_bytes(), b" ", &target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
                    let text = String::from_utf8_lossy(&head).into_owned();
                    if byte != b'\n' {
                        assert!(agrees_with_the_library(&head), "{text:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_path_of_a_refused_head_is_found_in_every_form_of_target() {
        for (head, path) in [
            ("GET /v1/verify/a?b=/c HTTP/1.1\r\nHost", "/v1/verify/a"),
            ("GET  /v1/verify HTTP/1.1", "/v1/verify"),
            ("GET /v1/verify\n", "/v1/verify"),
            ("GET http://a/v1/verify?x HTTP/1.1\r\n", "/v1/verify"),
            ("GET /x?http://a/v1/verify HTTP/1.1\r\n", "/x"),
            ("GET http://a", ""),
            ("GET /v1/verify/aaaaaaaaaaaa", "/v1/verify/aaaaaaaaaaaa"),
            ("GET", ""),
            ("", ""),
        ] {
            assert_eq!(path_of(head.as_bytes()), path, "{head:?}");
        }
    }

    #[test]
    fn h11_the_origin_of_a_refused_head_is_found_and_has_no_line_break() {
        for (head, origin) in [
            (&b"GET / HTTP/1.1\r\nHost: a\r\norigin:https://a \r\nX: y"[..], Some(&b"https://a"[..])),
            (b"GET / HTTP/1.1\nORIGIN: https://a\nOrigin: https://b\n", Some(b"https://a")),
            (b"GET / HTTP/1.1\r\nOrigin: https://a\rX: y\r\n", None),
            (b"GET / HTTP/1.1\r\nOrigin: a b\r\n", None),
            (b"Origin: https://a\r\n", None),
            (b"GET / HTTP/1.1\r\nX-Origin: https://a\r\n: x\r\nOrigin", None),
            (b"", None),
        ] {
            assert_eq!(origin_of(head), origin, "{head:?}");
        }
        let long = [b"GET / HTTP/1.1\r\nOrigin: ", &b"a".repeat(MAX_ORIGIN_BYTES + 1)[..]].concat();
        assert_eq!(origin_of(&long), None);
    }

    proptest! {
        #[test]
        fn h8_hyper_parses_every_head_that_is_accepted_here(
            method in "[!-~]{1,3}|GET|OPTIONS|CONNECT",
            start in "/|/[ -~]{0,8}[?]|[*]|[a-z+]{1,5}://|[a-z]{0,3}|http://[!-~]{0,12}/",
            rest in "[!-~]{0,16}",
            version in "1|0",
            fields in proptest::collection::vec("[!-~]{1,8}:[\t -~\u{80}-\u{ff}]{0,12}", 0..4),
            framing in "|Content-Length: [0-9]{1,18}|Transfer-Encoding: chunked|Expect: 100-continue|Connection: [a-z]{1,9}",
        ) {
            let fields: String = fields.iter().chain([&framing].into_iter().filter(|one| !one.is_empty()))
                .map(|field| format!("{field}\r\n")).collect();
            let head = format!("{method} {start}{rest} HTTP/1.{version}\r\nHost: a\r\n{fields}\r\n");
            prop_assert!(agrees_with_the_library(head.as_bytes()), "{:?}", head);
        }

        #[test]
        fn h9_the_verdict_does_not_depend_on_how_the_bytes_are_split(bytes: Vec<u8>, cut in 0_usize..200) {
            let verdict = |advanced: Result<Option<usize>, ProblemCode>| match advanced {
                Ok(Some(length)) => screen(&bytes[..length]).is_ok().then_some(Some(length)),
                other => other.ok(),
            };
            let whole = HeadScan::default().advance(&bytes);
            let mut scan = HeadScan::default();
            let first = scan.advance(&bytes[..cut.min(bytes.len())]);
            let pieces = if first == Ok(None) { scan.advance(&bytes) } else { first };
            prop_assert_eq!(verdict(whole), verdict(pieces));
        }

        #[test]
        fn h9_no_beginning_of_a_valid_head_is_refused(cut: usize) {
            let head = b"POST /v1/login?a=%20b HTTP/1.1\r\nHost: a\r\nX: \xe9\t.\r\n\r\n";
            let mut scan = HeadScan::default();
            prop_assert_eq!(scan.advance(&head[..cut % head.len()]), Ok(None));
            prop_assert_eq!(scan.advance(head), Ok(Some(head.len())));
        }

        #[test]
        fn h9_screening_never_panics(head in "[A-Z/ :\r\nHhost1.0aT\t,-]{0,80}") {
            let _ = screen(head.as_bytes());
        }
    }
}
