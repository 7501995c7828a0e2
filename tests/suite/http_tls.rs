//! The TLS listener: handshakes, slow handshakes, certificates that change.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use countersign::http::listener::{ListenSettings, Listener, Shutdown, TlsIdentity};
use countersign::http::middleware::RequestContext;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::support::{edge, write_private};

const PATIENCE: Duration = Duration::from_secs(10);

fn write_identity(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    write_private(&folder.join("key.pem"), &made.signing_key.serialize_pem());
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap()
}

fn start(folder: &Path, settings: ListenSettings) -> (SocketAddr, Shutdown) {
    let identity = TlsIdentity::load(folder.join("cert.pem"), folder.join("key.pem")).unwrap();
    let listener = Listener::bind(settings, "127.0.0.1:0".parse().unwrap()).unwrap().with_tls(identity);
    let is_tls = |context: RequestContext| async move { context.tls.to_string() };
    let (address, shutdown) = (listener.address(), Shutdown::new(PATIENCE));
    tokio::spawn(listener.serve(edge::unobserved(Router::new().route("/tls", get(is_tls))), shutdown.clone()));
    (address, shutdown)
}

async fn connect(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET /tls HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let mut piece = [0; 512];
    while !answer.ends_with("true") {
        let length = timeout(PATIENCE, stream.read(&mut piece)).await.expect("an answer").unwrap();
        assert!(length > 0, "closed after {answer:?}");
        answer.push_str(std::str::from_utf8(&piece[..length]).unwrap());
    }
    answer
}

#[tokio::test]
async fn requests_over_tls_are_answered_and_marked_as_tls() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = write_identity(folder.path());
    let (address, shutdown) = start(folder.path(), ListenSettings::default());
    let mut stream = connect(address, &certificate, b"http/1.1").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    for _ in 0..2 {
        assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"));
    }
    assert!(connect(address, &certificate, b"h2").await.is_err(), "h10: HTTP/2 is not spoken");
    shutdown.stopped.cancel();
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("h15: the connection ends").unwrap();
}

#[tokio::test]
async fn h6_a_silent_handshake_times_out_and_delays_no_other_connection() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = write_identity(folder.path());
    let settings = ListenSettings { head: Duration::from_millis(300), ..ListenSettings::default() };
    let (address, _shutdown) = start(folder.path(), settings);
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
    ask(&mut connect(address, &certificate, b"http/1.1").await.unwrap()).await;
    for stream in [&mut silent, &mut half] {
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends");
    }
    // Plain text on a TLS port gets an alert or no bytes, never an HTTP answer.
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /tls HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, plain.read_to_end(&mut answer)).await.expect("the connection ends");
    assert!(!answer.starts_with(b"HTTP"));
}

#[tokio::test]
async fn a_replaced_certificate_is_used_by_new_connections_and_old_ones_stay_open() {
    let folder = tempfile::tempdir().unwrap();
    let first = write_identity(folder.path());
    let settings = ListenSettings { reload: Duration::from_millis(10), ..ListenSettings::default() };
    let (address, _shutdown) = start(folder.path(), settings);
    let mut old = connect(address, &first, b"http/1.1").await.unwrap();
    ask(&mut old).await;

    let second = write_identity(folder.path());
    timeout(PATIENCE, async {
        while connect(address, &second, b"http/1.1").await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the new certificate is taken");
    assert!(connect(address, &first, b"http/1.1").await.is_err());
    ask(&mut old).await;
}

#[tokio::test]
async fn p5_r10_a_request_over_tls_ends_when_its_client_disconnects() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = write_identity(folder.path());
    let identity = TlsIdentity::load(folder.path().join("cert.pem"), folder.path().join("key.pem")).unwrap();
    let settings = ListenSettings { half_closed: Duration::ZERO, ..ListenSettings::default() };
    let listener = Listener::bind(settings, "127.0.0.1:0".parse().unwrap()).unwrap().with_tls(identity);
    let address = listener.address();
    let (begun, dropped) = (CancellationToken::new(), CancellationToken::new());
    let (begins, drops) = (begun.clone(), dropped.clone());
    let never = move || {
        begins.cancel();
        let guard = drops.clone().drop_guard();
        async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        }
    };
    tokio::spawn(listener.serve(edge::unobserved(Router::new().route("/never", get(never))), Shutdown::new(PATIENCE)));
    let mut stream = connect(address, &certificate, b"http/1.1").await.unwrap();
    stream.write_all(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    begun.cancelled().await;
    drop(stream);
    timeout(PATIENCE, dropped.cancelled()).await.expect("the handler is dropped");
}
