//! A TCP proxy that can stop passing anything on, as a cut cable does: no byte, no reset, no end.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Proxy {
    pub address: SocketAddr,
    is_cut: watch::Sender<bool>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Passes on what comes to its own address to `target`.
    pub async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_cut, cut) = watch::channel(false);
        let target: Arc<str> = target.into();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (cut, target) = (cut.clone(), Arc::clone(&target));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(&*target).await else { return };
                    let (client_reads, client_writes) = client.into_split();
                    let (server_reads, server_writes) = server.into_split();
                    tokio::spawn(pass_on(client_reads, server_writes, cut.clone()));
                    pass_on(server_reads, client_writes, cut).await;
                });
            }
        });
        Self { address, is_cut, accepting }
    }

    /// From now on nothing passes, in either direction.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// New connections pass again; those that were cut stay dead.
    pub fn mend(&self) {
        self.is_cut.send_replace(false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass_on(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut cut: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            () = async { drop(cut.wait_for(|is_cut| *is_cut).await) } => std::future::pending().await,
        };
        match read {
            Ok(length) if length > 0 => {
                if to.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
}
