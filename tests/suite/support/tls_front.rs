//! TLS in front of a PostgreSQL server that has none, with a certificate of the test's choice.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub struct TlsFront {
    pub address: SocketAddr,
    accepting: tokio::task::JoinHandle<()>,
}

/// Presents its certificate without checking it.
#[derive(Debug)]
struct Blindly(Arc<CertifiedKey>);

impl ResolvesServerCert for Blindly {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl TlsFront {
    /// Answers the request for TLS with `certificate`; forwards everything else to `target`, also without TLS.
    pub async fn to(target: String, certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = provider.key_provider.load_private_key(key).unwrap();
        let resolver = Blindly(Arc::new(CertifiedKey::new(vec![certificate], key)));
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_cert_resolver(Arc::new(resolver));
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (acceptor, target) = (acceptor.clone(), target.clone());
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(target).await?;
                    let mut head = [0; 8];
                    client.read_exact(&mut head).await?;
                    // SSLRequest; anything else is the start of a connection without TLS.
                    if head[4..] == 80_877_103_u32.to_be_bytes() {
                        client.write_all(b"S").await?;
                        let mut client = acceptor.accept(client).await?;
                        tokio::io::copy_bidirectional(&mut client, &mut server).await
                    } else {
                        server.write_all(&head).await?;
                        tokio::io::copy_bidirectional(&mut client, &mut server).await
                    }
                });
            }
        });
        Self { address, accepting }
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
