//! The listener on raw sockets: framing, limits, slow clients, stopping (security.md H5–H10, H15, H16).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderValue;
use axum::routing::{any, get, post};
use countersign::http::extract::FormParams;
use countersign::http::listener::{CoarseInstant, ConnectionCounts, ListenSettings, Listener, Shutdown};
use countersign::http::middleware::{Cors, RequestContext, RequestObserver, RequestRecord, TrustedProxies};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::support::edge;

/// The longest wait in this file, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// An origin whose pages may read answers.
const PAGE: &str = "https://app.example";

/// Longer than any test.
const FOREVER: Duration = Duration::from_secs(3600);

/// Timeouts that are short enough for a test.
fn hasty() -> ListenSettings {
    ListenSettings {
        head: Duration::from_millis(300),
        body: Duration::from_millis(300),
        request: Duration::from_millis(500),
        idle: Duration::from_millis(900),
        write: Duration::from_millis(300),
        ..ListenSettings::default()
    }
}

/// Timeouts that no test reaches.
fn patient() -> ListenSettings {
    ListenSettings::default()
}

/// Records route and status of every finished request.
#[derive(Default)]
struct Records(Mutex<Vec<(Option<String>, u16)>>);

impl RequestObserver for Records {
    fn finished(&self, record: &RequestRecord<'_>) {
        self.0.lock().unwrap().push((record.route.map(str::to_owned), record.status));
    }
}

struct Server {
    address: SocketAddr,
    shutdown: Shutdown,
    records: Arc<Records>,
    counts: ConnectionCounts,
    task: JoinHandle<()>,
}

impl Server {
    fn start(settings: ListenSettings) -> Self {
        Self::start_draining(settings, PATIENCE)
    }

    fn start_draining(settings: ListenSettings, drain: Duration) -> Self {
        let records = Arc::new(Records::default());
        let router = Router::new()
            .route("/ok", get(|| async { "fine" }))
            .route("/address", get(|context: RequestContext| async move { context.client.to_string() }))
            .route("/length", post(|body: Bytes| async move { body.len().to_string() }))
            .route("/ignore", post(|| async { "ignored" }))
            .route(
                "/oauth2/form",
                post(|FormParams(form): FormParams| async move { form.required("token", 9).map(str::to_owned) }),
            )
            .route("/never", get(std::future::pending::<()>).post(|_: Bytes| std::future::pending::<()>()))
            .route(
                "/soon",
                get(|| async {
                    sleep(Duration::from_millis(300)).await;
                    "soon"
                }),
            )
            .route("/panic", get(async || -> &'static str { panic!("on purpose") }))
            .route("/large", get(|| async { vec![b'x'; 32 * 1024 * 1024] }))
            .route("/v1/verify", any(|| async { "judged" }));
        let cors = Cors::new(vec![HeaderValue::from_static(PAGE)]);
        let edge = edge::observed(router, Arc::<Records>::clone(&records), Some(cors));
        let listener = Listener::bind(settings, "127.0.0.1:0".parse().unwrap()).unwrap();
        let (address, counts, shutdown) = (listener.address(), listener.connection_counts(), Shutdown::new(drain));
        let task = tokio::spawn(listener.serve(edge, shutdown.clone()));
        Self { address, shutdown, records, counts, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `bytes` and returns everything up to the end of the connection.
    async fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_ref()).await.unwrap();
        read_to_end(&mut stream).await
    }

    fn statuses(&self) -> Vec<u16> {
        self.records.0.lock().unwrap().iter().map(|record| record.1).collect()
    }

    /// Whether bytes that `stream` sent wait in the kernel for the listener to read them.
    fn unread(&self, stream: &TcpStream) -> bool {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let port = |address: &str| u16::from_str_radix(address.rsplit(':').next().unwrap(), 16).unwrap();
        let (local, remote) = (self.address.port(), stream.local_addr().unwrap().port());
        let queue = sockets.lines().skip(1).find_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            (port(fields[1]) == local && port(fields[2]) == remote).then(|| fields[4].to_owned())
        });
        !queue.expect("a connection").ends_with(":00000000")
    }

    /// Waits until the statuses of finished requests are these.
    async fn has_recorded(&self, expected: &[u16]) {
        let recorded = async {
            while self.statuses() != expected {
                sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(PATIENCE, recorded).await.is_ok(), "{:?}", self.statuses());
    }
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends").unwrap();
    String::from_utf8(answer).unwrap()
}

/// Reads until `end`.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut answer = String::new();
    let mut piece = [0; 1024];
    while !answer.ends_with(end) {
        let length = timeout(PATIENCE, stream.read(&mut piece)).await.expect("an answer").unwrap();
        assert!(length > 0, "closed after {answer:?}");
        answer.push_str(std::str::from_utf8(&piece[..length]).unwrap());
    }
    answer
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test]
async fn h9_ambiguous_framing_gets_400_and_closes_the_connection() {
    let server = Server::start(patient());
    let smuggled = "GET /ok HTTP/1.1\r\nHost: smuggled\r\n\r\n";
    for head in [
        "GET /ok HTTP/1.1\n Host: a\n\n",
        "GET /ok HTTP/1.1\nHost: a\n\n",
        "GET /ok HTTP/1.1\r\nHost: a\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: a\r\n\n",
        "GET /ok HTTP/1.1\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        "GET /ok  HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
        "POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "POST /length HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let answer = server.exchange(format!("{head}{smuggled}")).await;
        assert_eq!(status(&answer), 400, "{head:?} {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{head:?} {answer:?}");
        assert_eq!(header(&answer, "connection"), Some("close"), "{head:?}");
        assert_eq!(header(&answer, "content-type"), Some("application/problem+json"), "{head:?}");
        assert_eq!(header(&answer, "x-request-id"), Some("07".repeat(16).as_str()), "{head:?}");
        assert!(answer.contains(r#""code":"invalid_request""#), "{answer}");
    }
    assert!(server.statuses().iter().all(|status| *status == 400), "every refusal is recorded, and nothing else");
}

#[tokio::test]
async fn h1_a_refused_head_of_an_oauth_endpoint_gets_an_oauth_error() {
    let server = Server::start(patient());
    let long = "x".repeat(3000);
    for (head, code, description) in [
        ("POST /oauth2/form HTTP/1.1\r\n\r\n".to_owned(), 400, "the request line or a header field is malformed"),
        (
            "POST /oauth2/form HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n".to_owned(),
            400,
            "the request line or a header field is malformed",
        ),
        (format!("POST /oauth2/form?{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414, "the request target is too long"),
        (
            format!("POST /oauth2/form HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", long.repeat(6)),
            431,
            "the request header is too large",
        ),
    ] {
        let answer = server.exchange(head.clone()).await;
        assert_eq!(status(&answer), code, "{head:?} {answer:?}");
        assert_eq!(header(&answer, "content-type"), Some("application/json"), "{head:?}");
        assert_eq!(header(&answer, "connection"), Some("close"), "{head:?}");
        let expected = format!("{{\"error\":\"invalid_request\",\"error_description\":\"{description}\"}}");
        assert!(answer.ends_with(&expected), "{answer}");
    }
}

#[tokio::test]
async fn h9_valid_requests_pass_in_every_framing() {
    let server = Server::start(patient());
    for (request, body) in [
        ("GET /ok HTTP/1.0\r\n\r\n", "fine"),
        ("GET /ok HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", "fine"),
        ("GET /ok HTTP/1.1\r\nHost: anything:1\r\nConnection: close\r\n\r\n", "fine"),
        ("\r\nGET http://elsewhere/ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "fine"),
        ("POST /length HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", "3"),
        (
            "POST /length HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "3",
        ),
        (
            "POST /oauth2/form HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n\
          Transfer-Encoding: chunked\r\n\r\n6\r\ntoken=\r\n5\r\na%2bb\r\n0\r\n\r\n",
            "a+b",
        ),
    ] {
        let answer = server.exchange(request).await;
        assert_eq!((status(&answer), answer.rsplit("\r\n\r\n").next()), (200, Some(body)), "{request:?} {answer:?}");
    }
}

#[tokio::test]
async fn h9_each_pipelined_request_is_screened() {
    let server = Server::start(patient());
    let row = "GET /ok HTTP/1.1\r\nHost: a\r\n\r\n\
         POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
         POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n\
         GET /ok HTTP/1.1\nHost: a\n\n\
         GET /ok HTTP/1.1\r\nHost: a\r\n\r\n";
    // However the bytes arrive, the first three are answered and the fourth ends the connection.
    for piece in [row.len(), 1, 7, 64] {
        let mut stream = server.connect().await;
        stream.set_nodelay(true).unwrap();
        for bytes in row.as_bytes().chunks(piece) {
            // The connection may have ended before the last pieces.
            let _ = stream.write_all(bytes).await;
        }
        let answer = read_to_end(&mut stream).await;
        let statuses: Vec<_> = answer.split("HTTP/1.1 ").skip(1).map(|one| &one[..3]).collect();
        assert_eq!(statuses, ["200", "200", "200", "400"], "in pieces of {piece}: {answer}");
    }
}

#[tokio::test]
async fn h9_a_request_with_a_chunked_body_is_the_last_one_of_its_connection() {
    let server = Server::start(patient());
    let chunks = "5;x=y\r\nhello\r\n0\r\nT: x\r\n\r\n";
    let row = format!(
        "POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}\
         GET /ok HTTP/1.1\r\nHost: a\r\n\r\n"
    );
    for piece in [row.len(), 1, 7] {
        let mut stream = server.connect().await;
        stream.set_nodelay(true).unwrap();
        for bytes in row.as_bytes().chunks(piece) {
            let _ = stream.write_all(bytes).await;
        }
        // Closing with unread bytes resets the connection. The reset may replace the end of the stream, but not the
        // answer.
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends");
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!((status(&answer), header(&answer, "connection")), (200, Some("close")), "{answer}");
        assert!(answer.ends_with("\r\n\r\n5") && answer.matches("HTTP/1.1 ").count() == 1, "{answer}");
    }
    assert_eq!(server.statuses(), [200; 3], "nothing behind it is a request");
}

#[tokio::test]
async fn h6_the_body_timeout_holds_for_a_chunked_body_whose_end_is_malformed() {
    let server = Server::start(ListenSettings { idle: FOREVER, request: FOREVER, ..hasty() });
    for end in ["0\r\n\n\r\n", "0\r\n\r", "0\n\n", "0\r\n", "0", "0\r\n \r\n\r"] {
        let request = format!(
            "POST /oauth2/form HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Transfer-Encoding: chunked\r\n\r\n7\r\ntoken=a\r\n{end}"
        );
        let answer = server.exchange(request).await;
        assert!([400, 408].contains(&status(&answer)), "{end:?} {answer}");
        assert_eq!(header(&answer, "connection"), Some("close"), "{end:?}");
    }
}

#[tokio::test]
async fn h9_another_protocol_is_refused_at_its_first_bytes() {
    let server = Server::start(ListenSettings { head: FOREVER, idle: FOREVER, ..patient() });
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"EHLO client.example\r\n",
        b"GET / HTTP/1.1\r\nHost: \0",
    ] {
        let answer = server.exchange(bytes).await;
        assert_eq!((status(&answer), header(&answer, "connection")), (400, Some("close")), "{bytes:?} {answer}");
    }
    let mut stream = server.connect().await;
    stream.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    read_until(&mut stream, "fine").await;
}

#[tokio::test]
async fn h5_a_head_above_its_limit_is_431_and_a_target_414() {
    let server = Server::start(patient());
    let get =
        |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n");
    let target = |length: usize| format!("/ok?{}", "a".repeat(length - 4));
    let fields = |count: usize| "X-Field: a\r\n".repeat(count - 2);
    let padded = |length: usize| format!("X: {}\r\n", "a".repeat(length - get("/ok", "X: \r\n").len()));
    for (request, expected) in [
        (get(&target(2048), ""), 200),
        (get(&target(2049), ""), 414),
        (get(&target(70_000), ""), 414),
        (get("/ok", &fields(64)), 200),
        (get("/ok", &fields(65)), 431),
        (get("/ok", &padded(16 * 1024)), 200),
        (get("/ok", &padded(16 * 1024 + 1)), 431),
        (get("/ok", &padded(300_000)), 431),
    ] {
        let answer = server.exchange(&request).await;
        assert_eq!(status(&answer), expected, "{} bytes: {answer}", request.len());
    }
    let answer = server.exchange("GET /ok HTTP/2.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&answer), 505);
    let answer = server.exchange("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(status(&answer), 505, "h10: HTTP/2 is not spoken");
}

#[tokio::test]
async fn h8_a_target_that_hyper_cannot_parse_is_refused_like_any_malformed_head() {
    let server = Server::start(patient());
    for target in
        ["/<x>", "/a`b", "/ok?a=\"b\"", "/ok?<", "http:///ok", "a/b", "?ok", "http://a b/", "http://a/<", "a:1:2"]
    {
        for method in ["GET", "CONNECT"] {
            let answer = server.exchange(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            assert_eq!(status(&answer), 400, "{target} {answer}");
            assert_eq!(header(&answer, "x-request-id"), Some("07".repeat(16).as_str()), "{target} {answer}");
            assert_eq!(header(&answer, "x-content-type-options"), Some("nosniff"), "{answer}");
            assert_eq!(header(&answer, "cache-control"), Some("no-store"), "{answer}");
            assert!(answer.contains(r#""code":"invalid_request""#), "{answer}");
        }
    }
    for target in ["/ok?`|{}\\^[]", "http://a/ok?b"] {
        let answer = server.exchange(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(status(&answer), 200, "{target} {answer}");
    }
}

/// Gateways understand no other answer to a malformed head.
#[tokio::test]
async fn h8_forward_auth_refuses_a_malformed_head_with_401_or_503_only() {
    let server = Server::start(ListenSettings { base_path: "/auth".into(), ..patient() });
    let long = "a".repeat(2048);
    let fields = "X-Field: a\r\n".repeat(64);
    for path in ["/v1/verify", "/v1/verify/app", "/auth/v1/verify", "http://a/v1/verify"] {
        for (head, code) in [
            (format!("GET {path}?<x> HTTP/1.1\r\nHost: a\r\n\r\n"), "invalid_request"),
            (format!("GET {path} HTTP/1.1\nHost: a\n\n"), "invalid_request"),
            (format!("GET {path} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), "invalid_request"),
            (format!("GET  {path} HTTP/1.1\r\nHost: a\r\n\r\n"), "invalid_request"),
            (format!("GET {path}?{long} HTTP/1.1\r\nHost: a\r\n\r\n"), "uri_too_long"),
            (format!("GET {path}?{}", "a".repeat(70_000)), "uri_too_long"),
            (format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), "headers_too_large"),
            (format!("GET {path} HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", long.repeat(8)), "headers_too_large"),
        ] {
            let answer = server.exchange(&head).await;
            assert_eq!(status(&answer), 401, "{head:?} {answer}");
            let challenge = "Bearer realm=\"countersign\", error=\"invalid_request\"";
            assert_eq!(header(&answer, "www-authenticate"), Some(challenge), "{head:?} {answer}");
            assert_eq!(header(&answer, "x-request-id"), Some("07".repeat(16).as_str()), "{answer}");
            assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{head:?} {answer}");
            assert!(answer.contains("\"status\":401"), "{answer}");
        }
        let answer = server.exchange(format!("GET {path} HTTP/2.0\r\nHost: a\r\n\r\n")).await;
        assert_eq!(status(&answer), 503, "{answer}");
    }
    for path in ["/v1/verifyx", "/other/v1/verify", "/ok?/v1/verify"] {
        let answer = server.exchange(format!("GET {path}{long} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(status(&answer), 414, "{path} {answer}");
    }
    let server = Server::start(hasty());
    let answer = server.exchange("GET /v1/verify HTTP/1.1\r\nHost").await;
    assert_eq!((status(&answer), header(&answer, "retry-after")), (503, Some("1")), "{answer}");
}

#[tokio::test]
async fn h5_a_body_over_the_limit_is_413_in_its_apis_format_before_it_is_sent() {
    let server = Server::start(patient());
    let head = "POST /oauth2/form HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let declared = server.exchange(format!("{head}Content-Length: 16385\r\n\r\n")).await;
    let mut stream = server.connect().await;
    let first = format!("{head}Content-Length: 100000\r\n\r\n{}", "a".repeat(50_000));
    stream.write_all(first.as_bytes()).await.unwrap();
    // Had the connection been closed with bytes unread, it would be reset by now and this write would fail.
    sleep(Duration::from_millis(100)).await;
    stream.write_all(&[b'a'; 25_000]).await.unwrap();
    sleep(Duration::from_millis(20)).await;
    stream.write_all(&[b'a'; 25_000]).await.unwrap();
    let sent = read_to_end(&mut stream).await;
    let chunks = format!("4000\r\n{}\r\n1\r\na\r\n0\r\n\r\n", "a".repeat(0x4000));
    let chunked =
        server.exchange(format!("{head}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{chunks}")).await;
    for answer in [declared, sent, chunked] {
        assert_eq!(status(&answer), 413, "{answer}");
        assert_eq!(header(&answer, "connection"), Some("close"));
        assert!(
            answer.ends_with(r#"{"error":"invalid_request","error_description":"the body is too large"}"#),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn h6_an_unfinished_head_gets_408_and_a_silent_connection_is_closed() {
    let server = Server::start(hasty());
    assert_eq!(server.exchange("").await, "");
    let answer = server.exchange("GET /ok HTTP/1.1\r\nHost").await;
    assert_eq!((status(&answer), header(&answer, "connection")), (408, Some("close")), "{answer}");

    // Sending one byte at a time does not extend the timeout.
    let mut stream = server.connect().await;
    let drip = async {
        for byte in "GET /ok HTTP/1.1\r\nX: and on".bytes() {
            if stream.write_all(&[byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(40)).await;
        }
        read_to_end(&mut stream).await
    };
    assert_eq!(status(&timeout(PATIENCE, drip).await.unwrap()), 408);
}

#[tokio::test]
async fn h6_the_idle_timeout_may_exceed_the_head_timeout() {
    let server = Server::start(ListenSettings { head: Duration::from_millis(150), ..patient() });
    let mut stream = server.connect().await;
    for _ in 0..2 {
        stream.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        read_until(&mut stream, "fine").await;
        sleep(Duration::from_millis(300)).await;
    }
    stream.write_all(b"GET /ok HT").await.unwrap();
    assert_eq!(status(&read_to_end(&mut stream).await), 408);
}

#[tokio::test]
async fn h6_a_late_first_byte_does_not_extend_the_head_timeout() {
    let server = Server::start(ListenSettings { head: Duration::from_millis(600), ..patient() });
    let mut stream = server.connect().await;
    sleep(Duration::from_millis(300)).await;
    stream.write_all(b"GET /ok HT").await.unwrap();
    sleep(Duration::from_millis(450)).await;
    let _ = stream.write_all(b"TP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&read_to_end(&mut stream).await), 408);
}

#[tokio::test]
async fn h6_a_head_that_begins_late_in_the_idle_time_has_its_full_timeout() {
    let server = Server::start(ListenSettings { idle: Duration::from_millis(500), ..patient() });
    let mut stream = server.connect().await;
    stream.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut stream, "fine").await;
    sleep(Duration::from_millis(200)).await;
    stream.write_all(b"GET /ok HT").await.unwrap();
    sleep(Duration::from_millis(500)).await;
    stream.write_all(b"TP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_until(&mut stream, "fine").await), 200);
    assert_eq!(read_to_end(&mut stream).await, "", "an idle connection ends without another word");
}

#[tokio::test]
async fn h6_a_slow_body_is_408_and_a_slow_handler_is_503() {
    let server = Server::start(hasty());
    let head = "POST /oauth2/form HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let answer = server.exchange(format!("{head}Content-Length: 10\r\n\r\ntoken")).await;
    assert_eq!((status(&answer), header(&answer, "connection")), (408, Some("close")), "{answer}");
    assert!(answer.contains(r#""error":"invalid_request""#), "{answer}");

    let answer = server.exchange("GET /never HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!((status(&answer), header(&answer, "retry-after")), (503, Some("1")), "{answer}");
    assert!(answer.contains(r#""code":"temporarily_unavailable""#));
    assert_eq!(server.statuses(), [408, 503]);
}

#[tokio::test]
async fn h6_a_client_that_does_not_read_is_disconnected() {
    let server = Server::start(hasty());
    let mut stream = server.connect().await;
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let cut = async {
        while server.statuses().is_empty() || server.counts.open() > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, cut).await.expect("the connection ends although nothing is read");
    let mut answer = Vec::new();
    // Reset or closed: both end the connection long before the body.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends");
    assert!(answer.len() < 32 * 1024 * 1024, "{} bytes", answer.len());
}

#[tokio::test]
async fn h6_h18_connections_over_the_limit_wait_until_another_is_idle() {
    let server = Server::start(ListenSettings { max_connections: 2, ..patient() });
    let busy = async || {
        let mut stream = server.connect().await;
        let expecting = "POST /length HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
        stream.write_all(expecting.as_bytes()).await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        stream
    };
    let (mut first, mut second) = (busy().await, busy().await);
    let mut third = server.connect().await;
    third.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut byte = [0];
    assert!(timeout(Duration::from_millis(200), third.read(&mut byte)).await.is_err(), "there is no place yet");
    first.write_all(b"a").await.unwrap();
    read_until(&mut first, "\r\n\r\n1").await;
    assert_eq!(status(&read_to_end(&mut third).await), 200);
    assert_eq!(read_to_end(&mut first).await, "", "the idle connection made room");
    second.write_all(b"a").await.unwrap();
    read_until(&mut second, "\r\n\r\n1").await;
}

#[tokio::test]
async fn h6_many_slow_clients_do_not_delay_other_requests() {
    let server = Server::start(ListenSettings { head: Duration::from_millis(1200), ..hasty() });
    let mut slow = Vec::new();
    for index in 0..400 {
        let mut stream = server.connect().await;
        let bytes: &[u8] = if index % 2 == 0 { b"GET /ok HT" } else { b"" };
        stream.write_all(bytes).await.unwrap();
        slow.push(stream);
    }
    for _ in 0..20 {
        let answer = server.exchange("GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert_eq!(status(&answer), 200);
    }
    for stream in &mut slow {
        let answer = read_to_end(stream).await;
        assert!(matches!(status(&answer), 0 | 408), "{answer}");
    }
}

#[tokio::test]
async fn h7_other_methods_get_405_with_allow_and_head_works_wherever_get_does() {
    let server = Server::start(patient());
    for method in ["POST", "DELETE", "TRACE", "OPTIONS", "BREW"] {
        let answer = server.exchange(format!("{method} /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        assert_eq!((status(&answer), header(&answer, "allow")), (405, Some("GET,HEAD")), "{answer}");
        assert!(answer.contains(r#""code":"method_not_allowed""#), "{answer}");
    }
    let answer = server.exchange("GET /oauth2/form HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!((status(&answer), header(&answer, "allow")), (405, Some("POST")));
    assert!(answer.contains(r#""error":"invalid_request""#), "{answer}");

    let answer = server.exchange("HEAD /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!((status(&answer), header(&answer, "content-length")), (200, Some("4")));
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");

    let answer = server.exchange("CONNECT a:80 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&answer), 404, "{answer}");
    let answer = server.exchange("GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&answer), 404);
    assert!(answer.contains(r#""code":"not_found""#), "{answer}");
    let routes: Vec<_> = server.records.0.lock().unwrap().iter().map(|record| record.0.clone()).collect();
    assert_eq!(routes.last().unwrap(), &None, "a path that nobody defined is no label");
    assert_eq!(routes[0].as_deref(), Some("/ok"));
}

#[tokio::test]
async fn h8_every_answer_has_a_request_id_and_nosniff_and_no_server_header() {
    let server = Server::start(patient());
    for target in ["/ok", "/nothing", "/panic", "/v1/verify"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine-1\r\nConnection: close\r\n\r\n");
        let answer = server.exchange(request).await;
        assert_eq!(header(&answer, "x-request-id"), Some("mine-1"), "{answer}");
        assert_eq!(header(&answer, "x-content-type-options"), Some("nosniff"), "{answer}");
        assert_eq!(header(&answer, "cache-control"), Some("no-store"), "{answer}");
        assert_eq!(header(&answer, "server"), None, "{answer}");
    }
    let answer =
        server.exchange("GET /ok HTTP/1.1\r\nHost: a\r\nX-Request-Id: <no>\r\nConnection: close\r\n\r\n").await;
    assert_eq!(header(&answer, "x-request-id"), Some("07".repeat(16).as_str()));
}

#[tokio::test]
async fn l7_the_address_of_a_client_behind_a_trusted_proxy_is_resolved() {
    let server = Server::start(patient());
    for (fields, expected) in [
        ("", "127.0.0.1"),
        ("X-Forwarded-For: 203.0.113.4, 192.0.2.7\r\n", "192.0.2.7"),
        ("X-Forwarded-For: nonsense\r\n", "127.0.0.1"),
    ] {
        let answer = server.exchange(format!("GET /address HTTP/1.0\r\n{fields}\r\n")).await;
        assert!(answer.ends_with(&format!("\r\n\r\n{expected}")), "{answer}");
    }
}

#[tokio::test]
async fn h16_a_panic_is_a_500_and_the_service_continues() {
    let server = Server::start(patient());
    let mut stream = server.connect().await;
    stream.write_all(b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let answer = read_until(&mut stream, "}").await;
    assert_eq!(status(&answer), 500);
    assert!(answer.contains(r#""code":"internal""#) && !answer.contains("on purpose"), "{answer}");
    stream.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_until(&mut stream, "fine").await), 200, "the connection lives on");
}

#[tokio::test]
async fn h11_an_allowed_origin_can_read_errors_of_listener_and_middleware() {
    let server = Server::start(hasty());
    let long = "x".repeat(20_000);
    for (expected, request) in [
        (404, "GET /nothing HTTP/1.1\r\n".to_owned()),
        (405, "PATCH /ok HTTP/1.1\r\n".to_owned()),
        (500, "GET /panic HTTP/1.1\r\n".to_owned()),
        (503, "GET /never HTTP/1.1\r\n".to_owned()),
        (431, "GET /ok HTTP/1.1\r\n".to_owned()),
        (414, format!("GET /{long} HTTP/1.1\r\n")),
        (400, "GET /ok HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n".to_owned()),
    ] {
        let long = if expected == 431 { &long } else { "" };
        for origin in [PAGE, "https://evil.example"] {
            let head = format!("{request}Host: a\r\nOrigin: {origin}\r\nX-Long: {long}\r\nConnection: close\r\n\r\n");
            let answer = server.exchange(head).await;
            assert_eq!(status(&answer), expected, "{answer}");
            let is_listed = origin == PAGE;
            // Bytes after a target that is too long are not read.
            let allowed = Some(PAGE).filter(|_| is_listed && expected != 414);
            assert_eq!(header(&answer, "access-control-allow-origin"), allowed, "{expected}");
            assert_eq!(header(&answer, "vary"), Some("origin"), "{expected}");
        }
    }
}

#[tokio::test]
async fn an_unread_body_that_has_arrived_does_not_close_the_connection() {
    let server = Server::start(patient());
    let mut stream = server.connect().await;
    for _ in 0..2 {
        stream.write_all(b"POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await.unwrap();
        assert_eq!(status(&read_until(&mut stream, "ignored").await), 200);
    }
    stream.write_all(b"POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\nhello").await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert_eq!((status(&answer), header(&answer, "connection")), (200, Some("close")), "{answer}");
}

#[tokio::test]
async fn a_half_closed_client_still_gets_its_answer() {
    let server = Server::start(ListenSettings { half_closed: FOREVER, ..patient() });
    let mut stream = server.connect().await;
    let soon = "GET /soon HTTP/1.1\r\nHost: a\r\n\r\n";
    // The second request is pipelined.
    stream.write_all(soon.repeat(2).as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let answers = read_to_end(&mut stream).await;
    assert!(answers.ends_with("soon") && answers.matches("HTTP/1.1 200").count() == 2, "{answers}");
    let post = "POST /length HTTP/1.1\r\nHost: a\r\n";
    for body in ["Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"] {
        let mut stream = server.connect().await;
        stream.write_all(format!("{post}{body}").as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(read_to_end(&mut stream).await.ends_with("\r\n\r\n3"), "{body:?}");
    }
}

#[tokio::test]
async fn p5_r10_a_request_ends_when_its_client_disconnects_and_is_logged_as_499() {
    for request in [
        "GET /never HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /never HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "POST /never HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST /never HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        // The pipelined request is not answered either.
        "GET /never HTTP/1.1\r\nHost: a\r\n\r\nGET /ok HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        for is_reset in [false, true] {
            let server = Server::start(ListenSettings { request: FOREVER, half_closed: Duration::ZERO, ..patient() });
            let mut stream = server.connect().await;
            stream.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            read_until(&mut stream, "fine").await;
            stream.write_all(request.as_bytes()).await.unwrap();
            if is_reset {
                // Waits until the request is read, because a reset discards unread bytes.
                while server.unread(&stream) {
                    sleep(Duration::from_millis(5)).await;
                }
                stream.set_zero_linger().unwrap();
            }
            drop(stream);
            server.has_recorded(&[200, 499]).await;
            let ended = async {
                while server.counts.open() > 0 {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(PATIENCE, ended).await.expect("the connection ends");
        }
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(patient());
    let mut stream = server.connect().await;
    stream.write_all(b"GET /soon HTTP/1.1\r\nHost: a\r\n\r\nGET /o").await.unwrap();
    sleep(Duration::from_millis(50)).await;
    stream.write_all(b"k HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let padding = "x".repeat(2000);
    let row = format!("GET /soon HTTP/1.1\r\nHost: a\r\nX: {padding}\r\n\r\n").repeat(20);
    stream.write_all(row.as_bytes()).await.unwrap();
    stream.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let answers = read_to_end(&mut stream).await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 23, "{answers}");
    assert!(answers.ends_with("fine"), "{answers}");
}

#[tokio::test]
async fn h19_a_connection_that_released_its_buffers_serves_the_next_requests() {
    let server = Server::start(ListenSettings { rest: Duration::ZERO, ..patient() });
    let mut stream = server.connect().await;
    for _ in 0..3 {
        stream.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\nGET /ok HTTP/1.1\r\nHo").await.unwrap();
        read_until(&mut stream, "fine").await;
        stream
            .write_all(b"st: a\r\n\r\nPOST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
            .await
            .unwrap();
        read_until(&mut stream, "\r\n\r\n3").await;
    }
    server.shutdown.announced.cancel();
    server.exchange("GET /ok HTTP/1.1\r\nHost: a\r\n\r\n").await;
    stream.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(header(&read_to_end(&mut stream).await, "connection"), Some("close"));
}

#[tokio::test]
async fn h18_connections_per_address_are_limited_except_for_a_trusted_proxy() {
    let settings = ListenSettings { max_per_address: 2, ..patient() };
    let server = Server::start(settings.clone());
    let (first, _second) = (server.connect().await, server.connect().await);
    let mut third = server.connect().await;
    assert_eq!(read_to_end(&mut third).await, "", "it is closed at once");
    assert_eq!((server.counts.open(), server.counts.refused()), (2, 1));
    drop(first);
    let again = async {
        loop {
            let mut stream = server.connect().await;
            let request = b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            let mut answer = String::new();
            if stream.write_all(request).await.is_ok()
                && stream.read_to_string(&mut answer).await.is_ok()
                && !answer.is_empty()
            {
                return answer;
            }
        }
    };
    assert_eq!(status(&timeout(PATIENCE, again).await.expect("a place is free again")), 200);

    let trusted_proxies = TrustedProxies::new(["127.0.0.0/8".parse().unwrap()]);
    let server = Server::start(ListenSettings { trusted_proxies, ..settings });
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        read_until(&mut stream, "fine").await;
        held.push(stream);
    }
    assert_eq!((server.counts.open(), server.counts.refused()), (4, 0));
}

#[tokio::test]
async fn h18_near_the_limit_the_longest_idle_connection_is_closed_for_a_new_one() {
    let server = Server::start(ListenSettings { max_connections: 4, ..patient() });
    let mut in_flight = server.connect().await;
    let expecting = "Host: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    in_flight.write_all(format!("POST /length HTTP/1.1\r\n{expecting}").as_bytes()).await.unwrap();
    read_until(&mut in_flight, "\r\n\r\n").await;
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        read_until(&mut stream, "fine").await;
        idle.push(stream);
        // Idle connections are ordered by the coarse clock, so each begins at a different reading.
        let began = CoarseInstant::now();
        while CoarseInstant::now() <= began {
            sleep(Duration::from_millis(1)).await;
        }
    }
    let answer = server.exchange("GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&answer), 200);
    assert_eq!(read_to_end(&mut idle[0]).await, "", "the older one is closed");
    assert_eq!(server.counts.evicted(), 1);
    idle[1].write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_until(&mut idle[1], "fine").await), 200);
    in_flight.write_all(b"a").await.unwrap();
    assert_eq!(status(&read_until(&mut in_flight, "\r\n\r\n1").await), 200);
}

#[tokio::test]
async fn h19_the_memory_of_unfinished_bodies_is_bounded_and_complete_ones_are_read() {
    let server = Server::start(ListenSettings { body_memory: 16 * 1024, body: FOREVER, request: FOREVER, ..patient() });
    let head = "POST /oauth2/form HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n";
    let unfinished = format!("{head}Expect: 100-continue\r\nContent-Length: 16000\r\n\r\n");
    let mut first = server.connect().await;
    first.write_all(unfinished.as_bytes()).await.unwrap();
    read_until(&mut first, "\r\n\r\n").await;
    first.write_all(&[b'a'; 12_000]).await.unwrap();
    while server.unread(&first) {
        sleep(Duration::from_millis(5)).await;
    }
    let refused = server.exchange(format!("{head}Content-Length: 16000\r\n\r\n{}", "a".repeat(12_000))).await;
    assert_eq!((status(&refused), header(&refused, "retry-after")), (503, Some("1")), "{refused}");
    let whole = server.exchange(format!("{head}Content-Length: 7\r\n\r\ntoken=a")).await;
    assert!(status(&whole) == 200 && whole.ends_with("\r\n\r\na"), "{whole}");
    drop(first);
    server.has_recorded(&[503, 200, 400]).await;
    let body = format!("token=a&x={}", "a".repeat(12_000));
    let later = server.exchange(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await;
    assert_eq!(status(&later), 200, "what an ended connection held is free again: {later}");
}

#[tokio::test]
async fn expect_continue_is_answered_before_the_body() {
    let server = Server::start(patient());
    let mut stream = server.connect().await;
    let head =
        "POST /length HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    assert!(read_to_end(&mut stream).await.ends_with("\r\n\r\n5"));
}

#[tokio::test]
async fn h15_during_the_shutdown_delay_answers_close_their_connections_and_new_ones_are_served() {
    let server = Server::start(patient());
    let mut old = server.connect().await;
    old.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(header(&read_until(&mut old, "fine").await, "connection"), None);
    server.shutdown.announced.cancel();
    // The accept loop registers it before it accepts another connection.
    let answer = server.exchange("GET /ok HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((status(&answer), header(&answer, "connection")), (200, Some("close")));
    old.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(header(&read_to_end(&mut old).await, "connection"), Some("close"));
}

#[tokio::test]
async fn h15_shutdown_finishes_requests_in_flight_and_closes_idle_connections() {
    let server = Server::start(patient());
    let mut in_flight = server.connect().await;
    in_flight.write_all(b"GET /soon HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut idle = server.connect().await;
    idle.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut idle, "fine").await;
    let mut waiting = server.connect().await;
    server.shutdown.stopped.cancel();
    waiting.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();

    let answer = read_to_end(&mut in_flight).await;
    assert_eq!((status(&answer), header(&answer, "connection")), (200, Some("close")), "{answer}");
    assert_eq!(status(&read_to_end(&mut waiting).await), 200, "a connection made before the stop is served");
    assert_eq!(read_to_end(&mut idle).await, "");
    timeout(PATIENCE, server.task).await.expect("the listener ends").unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn h15_a_request_over_the_drain_timeout_is_503_and_not_499() {
    let server = Server::start_draining(patient(), Duration::from_millis(100));
    let mut stream = server.connect().await;
    stream.write_all(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    // The first connection is accepted before this one, and so before the answer to this one.
    server.exchange("GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    server.shutdown.stopped.cancel();
    let answer = read_to_end(&mut stream).await;
    assert_eq!((status(&answer), header(&answer, "retry-after")), (503, Some("1")), "{answer}");
    assert_eq!(header(&answer, "connection"), Some("close"));
    let (task, records) = (server.task, server.records);
    timeout(PATIENCE, task).await.expect("the listener ends").unwrap();
    assert_eq!(records.0.lock().unwrap().iter().map(|record| record.1).collect::<Vec<_>>(), [200, 503]);
}

#[tokio::test]
async fn h15_a_request_that_ends_with_its_listener_is_not_logged_as_499() {
    let server = Server::start(patient());
    let mut stream = server.connect().await;
    stream.write_all(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    server.exchange("GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    server.task.abort();
    server.has_recorded(&[200, 503]).await;
}
