//! A TCP proxy that can stop forwarding, as a cut cable does: no byte, no reset, no end of stream.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Proxy {
    pub address: SocketAddr,
    is_cut: watch::Sender<bool>,
    last_words: Arc<Mutex<Option<&'static str>>>,
    swallowed: Arc<Mutex<Option<&'static str>>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Forwards connections on its own address to `target`.
    pub async fn to(target: String) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), target).await
    }

    /// The same on an address of the test's choice.
    pub async fn at(address: SocketAddr, target: String) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_cut, cut) = watch::channel(false);
        let target: Arc<str> = target.into();
        let last_words = Arc::<Mutex<Option<&'static str>>>::default();
        let swallowed = Arc::<Mutex<Option<&'static str>>>::default();
        let (cutter, words, swallow) = (is_cut.clone(), Arc::clone(&last_words), Arc::clone(&swallowed));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (cut, target) = (cut.clone(), Arc::clone(&target));
                let (cutter, words, swallow) = (cutter.clone(), Arc::clone(&words), Arc::clone(&swallow));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(&*target).await else { return };
                    let (client_reads, client_writes) = client.into_split();
                    let (server_reads, server_writes) = server.into_split();
                    tokio::spawn(pass_on(client_reads, server_writes, cut.clone(), |_| true, |_| ()));
                    let passes = |answer: &[u8]| !takes(&swallow, answer);
                    let cut_after = |answer: &[u8]| {
                        if takes(&words, answer) {
                            cutter.send_replace(true);
                        }
                    };
                    pass_on(server_reads, client_writes, cut, passes, cut_after).await;
                });
            }
        });
        Self { address, is_cut, last_words, swallowed, accepting }
    }

    /// From now on nothing passes, in either direction.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// The answer that contains this text is the last that passes.
    pub fn cut_after(&self, words: &'static str) {
        *self.last_words.lock().unwrap() = Some(words);
    }

    /// The next answer that contains this text does not pass: its connection is closed instead.
    pub fn swallow_answer(&self, words: &'static str) {
        *self.swallowed.lock().unwrap() = Some(words);
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

/// Whether the answer contains the words; they are then forgotten.
fn takes(words: &Mutex<Option<&'static str>>, answer: &[u8]) -> bool {
    let mut words = words.lock().unwrap();
    let is_there = |words: &str| answer.windows(words.len()).any(|part| part == words.as_bytes());
    let found = words.is_some_and(is_there);
    if found {
        *words = None;
    }
    found
}

async fn pass_on(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut cut: watch::Receiver<bool>,
    passes: impl Fn(&[u8]) -> bool,
    and_then: impl Fn(&[u8]),
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            () = async { drop(cut.wait_for(|is_cut| *is_cut).await) } => std::future::pending().await,
        };
        match read {
            Ok(length) if length > 0 && passes(&buffer[..length]) => {
                if to.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
                and_then(&buffer[..length]);
            }
            _ => return,
        }
    }
}
