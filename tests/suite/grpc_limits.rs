//! The HTTP/2 listener: bounds on the memory, time and work that one peer can cause (security.md H10), and shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use countersign::http::listener::{ListenSettings, Listener, Protocol, Shutdown, TlsIdentity};
use countersign::http::middleware::RequestContext;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::Code;

use crate::support::app::TestApp;
use crate::support::database::{Engine, TestDatabase};
use crate::support::envoy::{Envoy, question};
use crate::support::{edge, write_private};

const PATIENCE: Duration = Duration::from_secs(10);
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Types of frames (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
/// A header block that is complete.
const END_HEADERS: u8 = 4;
/// A request without a body.
const END_STREAM: u8 = 1;
/// `POST http://a/`, by the static table of RFC 7541.
const POST_ROOT: &[u8] = &[0x83, 0x86, 0x84, 0x41, 0x01, b'a'];
/// Error codes (RFC 9113 §7).
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM or GOAWAY frame.
    fn reason(&self) -> Option<u32> {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap()))
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

async fn next<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Frame> {
    let mut head = [0; 9];
    timeout(PATIENCE, stream.read_exact(&mut head)).await.expect("a frame, or the end").ok()?;
    let length = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap();
    let mut payload = vec![0; length];
    timeout(PATIENCE, stream.read_exact(&mut payload)).await.expect("the rest of a frame").ok()?;
    let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
    Some(Frame { kind: head[3], flags: head[4], stream, payload })
}

/// All bytes until the connection ends.
async fn rest<S: AsyncRead + Unpin>(stream: &mut S) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(frame) = next(stream).await {
        frames.push(frame);
    }
    frames
}

fn reasons(frames: &[Frame], kind: u8) -> Vec<u32> {
    frames.iter().filter(|frame| frame.kind == kind).filter_map(Frame::reason).collect()
}

/// A listener with one route, which answers when `gate` permits it.
struct Server {
    address: SocketAddr,
    shutdown: Shutdown,
    /// One permit for each request that has reached the route.
    arrived: Arc<Semaphore>,
    gate: Arc<Semaphore>,
    running: JoinHandle<()>,
}

fn start(settings: ListenSettings) -> Server {
    start_listener(Listener::bind(settings, "127.0.0.1:0".parse().unwrap()).unwrap().with_http2())
}

fn start_listener(listener: Listener) -> Server {
    let gate = Arc::new(Semaphore::new(0));
    let arrived = Arc::new(Semaphore::new(0));
    let (waiting, arriving) = (Arc::clone(&gate), Arc::clone(&arrived));
    let answer = move |context: RequestContext| {
        let (waiting, arriving) = (Arc::clone(&waiting), Arc::clone(&arriving));
        async move {
            arriving.add_permits(1);
            drop(waiting.acquire().await.unwrap());
            format!("tls: {}", context.tls)
        }
    };
    let (address, shutdown) = (listener.address(), Shutdown::new(PATIENCE));
    let running =
        tokio::spawn(listener.serve(edge::unobserved(Router::new().route("/", post(answer))), shutdown.clone()));
    Server { address, shutdown, arrived, gate, running }
}

/// A connection after the first exchange of settings.
async fn connect(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    greet(&mut stream).await;
    stream
}

async fn greet<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    assert_eq!(next(stream).await.expect("settings").kind, SETTINGS);
}

/// Sends a request on its own connection, and returns the body of the answer.
async fn ask(address: SocketAddr) -> String {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post("http://a/").body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    let answer = timeout(PATIENCE, sender.send_request(request)).await.expect("an answer").unwrap();
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn h6_a_silent_connection_is_closed_and_delays_no_other() {
    let settings = ListenSettings {
        head: Duration::from_millis(200),
        write: Duration::from_millis(200),
        ..ListenSettings::default()
    };
    let server = start(settings);
    server.gate.add_permits(1);
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(&PREFACE[..10]).await.unwrap();
    let mut polite = connect(server.address).await;
    assert_eq!(ask(server.address).await, "tls: false");
    for stream in [&mut silent, &mut half] {
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends");
    }
    assert!(rest(&mut polite).await.iter().any(|frame| frame.kind == GOAWAY), "it is told");
}

#[tokio::test]
async fn h10_http_1_is_refused_on_the_grpc_listener() {
    let server = start(ListenSettings::default());
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends");
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test]
async fn h10_a_connection_has_at_most_128_concurrent_streams() {
    let server = start(ListenSettings::default());
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    let settings = next(&mut stream).await.unwrap();
    let limit = settings.payload.chunks(6).find(|pair| pair[..2] == [0, 3]).expect("SETTINGS_MAX_CONCURRENT_STREAMS");
    assert_eq!(limit[2..], 128_u32.to_be_bytes());
    let opened: Vec<u8> = (0..129).flat_map(|number| frame(HEADERS, END_HEADERS, 2 * number + 1, POST_ROOT)).collect();
    stream.write_all(&opened).await.unwrap();
    loop {
        let frame = next(&mut stream).await.expect("a reset");
        if frame.kind == RST_STREAM {
            assert_eq!((frame.stream, frame.reason()), (257, Some(REFUSED_STREAM)));
            break;
        }
    }
}

#[tokio::test]
async fn h10_a_rapid_reset_closes_the_connection() {
    let server = start(ListenSettings::default());
    let mut stream = connect(server.address).await;
    let reset = |number: u32| {
        let id = 2 * number + 1;
        [frame(HEADERS, END_HEADERS, id, POST_ROOT), frame(RST_STREAM, 0, id, &8_u32.to_be_bytes())].concat()
    };
    let flood: Vec<u8> = (0..5000).flat_map(reset).collect();
    let (mut reader, mut writer) = stream.split();
    let (frames, _) = tokio::join!(rest(&mut reader), writer.write_all(&flood));
    assert_eq!(reasons(&frames, GOAWAY), [ENHANCE_YOUR_CALM]);
    server.gate.add_permits(1);
    assert_eq!(ask(server.address).await, "tls: false", "and nobody else notices");
}

#[tokio::test]
async fn h10_an_endless_header_block_closes_the_connection() {
    let server = start(ListenSettings::default());
    let mut stream = connect(server.address).await;
    let mut flood = frame(HEADERS, 0, 1, POST_ROOT);
    // A field that is not indexed, of 1000 bytes: `x: aaaa…`.
    let field = [&[0x00, 0x01, b'x', 0x7f, 0xe9, 0x06][..], &[b'a'; 1000]].concat();
    for _ in 0..2000 {
        flood.extend(frame(CONTINUATION, 0, 1, &field));
    }
    let (mut reader, mut writer) = stream.split();
    let (frames, _) = tokio::join!(rest(&mut reader), writer.write_all(&flood));
    assert!(frames.iter().all(|frame| frame.kind != HEADERS), "no answer: {frames:?}");
}

#[tokio::test]
async fn h5_a_header_block_above_16_kib_is_refused() {
    let server = start(ListenSettings::default());
    server.gate.add_permits(2);
    let mut stream = connect(server.address).await;
    let field = [&[0x00, 0x01, b'x', 0x7f, 0xe9, 0x06][..], &[b'a'; 1000]].concat();
    let block = |fields: usize| [POST_ROOT, &field.repeat(fields)].concat();
    let big = block(17);
    stream.write_all(&frame(HEADERS, END_STREAM, 1, &big[..16_000])).await.unwrap();
    stream.write_all(&frame(CONTINUATION, END_HEADERS, 1, &big[16_000..])).await.unwrap();
    stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &block(14))).await.unwrap();
    let mut answers = [None; 2];
    while answers.contains(&None) {
        let frame = next(&mut stream).await.expect("two answers");
        if frame.kind == HEADERS || frame.kind == RST_STREAM {
            let answer = &mut answers[if frame.stream == 1 { 0 } else { 1 }];
            // Status 200 is the one byte 0x88 of the static table (RFC 7541). Status 431 has no entry there.
            answer.get_or_insert(frame.kind == HEADERS && frame.payload[0] == 0x88);
        }
    }
    assert_eq!(answers, [Some(false), Some(true)]);
}

#[tokio::test]
async fn h10_a_frame_above_16_kib_closes_the_connection() {
    let server = start(ListenSettings::default());
    let mut stream = connect(server.address).await;
    stream.write_all(&frame(HEADERS, END_HEADERS, 1, POST_ROOT)).await.unwrap();
    let _ = stream.write_all(&frame(DATA, 0, 1, &[0; 16 * 1024 + 1])).await;
    let frames = rest(&mut stream).await;
    assert_eq!(reasons(&frames, GOAWAY), [6], "FRAME_SIZE_ERROR");
}

#[tokio::test]
async fn h10_a_flood_of_pings_and_settings_does_not_grow_memory() {
    let server = start(ListenSettings { write: Duration::from_millis(300), ..ListenSettings::default() });
    // A write stalls only when the socket buffers of both ends are full. The client's buffer is therefore small.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    greet(&mut stream).await;
    // Each requires an answer, and none is read.
    let pair = [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[])].concat();
    let flood = pair.repeat(64 * 1024);
    let ended = timeout(6 * PATIENCE, async { while stream.write_all(&flood).await.is_ok() {} }).await;
    assert!(ended.is_ok(), "the connection ends, or it would take bytes for ever");
}

#[tokio::test]
async fn h15_shutdown_finishes_requests_in_flight_and_closes_every_connection() {
    let server = start(ListenSettings::default());
    let mut idle = connect(server.address).await;
    let asked = tokio::spawn(ask(server.address));
    timeout(PATIENCE, server.arrived.acquire()).await.expect("it is in flight").unwrap().forget();
    server.shutdown.announced.cancel();
    while next(&mut idle).await.expect("an idle connection is told to leave").kind != GOAWAY {}
    drop(idle);
    let late = tokio::spawn(ask(server.address));
    server.gate.add_permits(2);
    assert_eq!(timeout(PATIENCE, asked).await.expect("in time").unwrap(), "tls: false");
    assert_eq!(timeout(PATIENCE, late).await.expect("in time").unwrap(), "tls: false", "while it may still be reached");
    server.shutdown.stopped.cancel();
    timeout(PATIENCE, server.running).await.expect("every connection is over").unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn over_tls_only_h2_is_negotiated() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    write_private(&key, &made.signing_key.serialize_pem());
    std::fs::write(&cert, made.cert.pem()).unwrap();
    let identity = TlsIdentity::load_for(Protocol::Http2, cert, key).unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let server = start_listener(Listener::bind(ListenSettings::default(), address).unwrap().with_tls(identity));
    let connect = async |alpn: &[u8]| {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(server.address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
    };
    assert!(connect(b"http/1.1").await.is_err());
    let mut stream = connect(b"h2").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    greet(&mut stream).await;
    server.gate.add_permits(1);
    stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, POST_ROOT)).await.unwrap();
    loop {
        let frame = next(&mut stream).await.expect("an answer");
        if frame.kind == DATA && !frame.payload.is_empty() {
            assert_eq!(frame.payload, b"tls: true");
            break;
        }
    }
}

#[tokio::test]
async fn h5_a_message_above_96_kib_and_an_unknown_method_are_refused() {
    let settings = "[grpc]\nlisten = \"127.0.0.1:0\"\n";
    let app = TestApp::start_with(TestDatabase::fresh(Engine::Sqlite).await, settings).await;
    let envoy = Envoy::connect(app.grpc.unwrap()).await;
    let of_size = |bytes: usize| question("GET", &[("cookie", &"x".repeat(bytes))], &[]);
    assert_eq!(envoy.ask(CHECK, of_size(90 * 1024)).await.unwrap().status, 401, "the largest that Envoy takes fits");
    assert_eq!(envoy.ask(CHECK, of_size(96 * 1024)).await.unwrap_err().code(), Code::OutOfRange);
    let none = envoy.ask("/envoy.service.auth.v2.Authorization/Check", question("GET", &[], &[])).await;
    assert_eq!(none.unwrap_err().code(), Code::Unimplemented);
    assert_eq!(envoy.check(&[], &[]).await.status, 401, "the connection goes on");
}

#[tokio::test]
async fn h15_shutdown_completes_although_envoy_holds_a_connection() {
    let settings = "[grpc]\nlisten = \"127.0.0.1:0\"\n";
    let app = TestApp::start_with(TestDatabase::fresh(Engine::Sqlite).await, settings).await;
    let envoy = Envoy::connect(app.grpc.unwrap()).await;
    assert_eq!(envoy.check(&[], &[]).await.status, 401);
    timeout(PATIENCE, app.stop()).await.expect("no drain has to be waited out");
}

#[tokio::test]
async fn h10_a_flood_of_frames_without_a_request_closes_only_its_own_connection() {
    let server = start(ListenSettings::default());
    server.gate.add_permits(Semaphore::MAX_PERMITS);
    for (kind, payload) in [(PING, &[0; 8][..]), (SETTINGS, &[]), (DATA, &[]), (200, &[])] {
        let mut stream = connect(server.address).await;
        let flood = frame(kind, 0, 0, payload).repeat(2000);
        let (mut reader, mut writer) = stream.split();
        let flooding = async {
            // Fails when the connection ends in the middle.
            let _ = writer.write_all(&flood).await;
        };
        let (frames, ()) =
            timeout(PATIENCE, async { tokio::join!(rest(&mut reader), flooding) }).await.expect("the end");
        assert!(frames.len() < 2000, "{kind}: {}", frames.len());
    }
    assert_eq!(ask(server.address).await, "tls: false");
}

#[tokio::test]
async fn h18_near_the_limit_an_idle_connection_is_evicted() {
    let settings =
        ListenSettings { max_connections: 2, write: Duration::from_millis(300), ..ListenSettings::default() };
    let server = start(settings);
    server.gate.add_permits(1);
    let mut idle = connect(server.address).await;
    assert_eq!(ask(server.address).await, "tls: false");
    let frames = timeout(PATIENCE, rest(&mut idle)).await.expect("the end");
    assert!(frames.iter().any(|frame| frame.kind == GOAWAY), "{frames:?}");
}
