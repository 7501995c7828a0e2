//! Checks the head of a request before hyper parses it. hyper accepts input that a strict parser rejects: bare line
//! feeds, a missing `Host`, two framings in one message. This module refuses every head that two parsers could
//! interpret differently (RFC 9112 §11.2; security.md H5, H9).

use std::borrow::Cow;
use std::mem::MaybeUninit;

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
        if !bytes[fresh..].iter().all(|byte| is_value_byte(*byte) || matches!(byte, b'\r' | b'\n')) {
            return Err(ProblemCode::InvalidRequest);
        }
        if self.has_checked_first_line {
            return Ok(());
        }
        let feed = memchr(b'\n', bytes);
        self.has_checked_first_line = feed.is_some();
        parse(&bytes[..feed.map_or(bytes.len(), |feed| feed + 1)], &mut [], |_| ())
    }
}

/// Checks a complete head, including the empty line at its end.
pub(super) fn screen(head: &[u8]) -> Result<Framing, ProblemCode> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    parse(head, &mut fields, framing)?
}

/// Parses a head, or a part of one, with the parser that hyper uses, and adds limits. The line ends are known to be CRLF.
fn parse<'f, 'a, T>(
    head: &'a [u8],
    fields: &'f mut [MaybeUninit<httparse::Header<'a>>],
    read: impl FnOnce(&httparse::Request<'f, 'a>) -> T,
) -> Result<T, ProblemCode> {
    if memchr(b' ', head).unwrap_or(head.len()) > MAX_METHOD_BYTES {
        return Err(ProblemCode::InvalidRequest);
    }
    let mut request = httparse::Request::new(&mut []);
    request.parse_with_uninit_headers(head, fields).map_err(|error| match error {
        httparse::Error::TooManyHeaders => ProblemCode::HeadersTooLarge,
        httparse::Error::Version if has_version(head) => ProblemCode::HttpVersionNotSupported,
        _ => ProblemCode::InvalidRequest,
    })?;
    match request.path {
        Some(target) if target.len() > MAX_TARGET_BYTES => Err(ProblemCode::UriTooLong),
        Some(target) if !is_target(target.as_bytes()) => Err(ProblemCode::InvalidRequest),
        _ => Ok(read(&request)),
    }
}

/// Exactly one framing (RFC 9112 §6.3), and exactly one `Host` in HTTP/1.1 (§3.2). The value of `Host` is not checked.
fn framing(request: &httparse::Request<'_, '_>) -> Result<Framing, ProblemCode> {
    let (mut hosts, mut length, mut is_chunked) = (0, None, false);
    for field in request.headers.iter() {
        let is_valid = match field.name.len() {
            4 if field.name.eq_ignore_ascii_case("host") => {
                hosts += 1;
                true
            }
            14 if field.name.eq_ignore_ascii_case("content-length") => {
                content_length(field.value).is_some_and(|value| length.replace(value).is_none())
            }
            17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                !std::mem::replace(&mut is_chunked, true) && field.value.eq_ignore_ascii_case(b"chunked")
            }
            _ => true,
        };
        if !is_valid {
            return Err(ProblemCode::InvalidRequest);
        }
    }
    let is_http11 = request.version.ok_or(ProblemCode::InvalidRequest)? == 1;
    match (is_chunked, length) {
        _ if hosts != 1 && (hosts > 1 || is_http11) => Err(ProblemCode::InvalidRequest),
        (true, None) if is_http11 => Ok(Framing::Chunked),
        (true, _) => Err(ProblemCode::InvalidRequest),
        (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
    }
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

/// Only digits: no sign, no list, no space. At most 18 of them, so that no arithmetic overflows.
fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 {
        return None;
    }
    value.iter().try_fold(0_u64, |length, byte| byte.is_ascii_digit().then(|| length * 10 + u64::from(byte - b'0')))
}

/// Whether the third part of the request line is `HTTP/`, a digit, a dot and a digit (RFC 9112 §2.3).
fn has_version(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let version = line.splitn(3, |byte| *byte == b' ').nth(2);
    matches!(version, Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']))
}

/// `field-vchar / SP / HTAB / obs-text` (RFC 9110 §5.5).
const fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7F)
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
