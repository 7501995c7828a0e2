//! A TCP proxy that can stop forwarding, as a cut cable does: no byte, no reset, no end of stream. It counts the round
//! trips of PostgreSQL's protocol.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The round trips over one connection to PostgreSQL.
#[derive(Default)]
struct Trips {
    count: AtomicU64,
    /// The connection of the change feed or of notifications.
    is_of_feed: AtomicBool,
    /// The prepared statements, each with the object ids of its parameter types.
    prepared: Mutex<Vec<(String, Vec<u32>)>>,
}

pub struct Proxy {
    pub address: SocketAddr,
    is_cut: watch::Sender<bool>,
    last_words: Arc<Mutex<Option<&'static str>>>,
    swallowed: Arc<Mutex<Option<&'static str>>>,
    connections: Arc<Mutex<Vec<Arc<Trips>>>>,
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
        let connections = Arc::<Mutex<Vec<Arc<Trips>>>>::default();
        let registry = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (cut, target) = (cut.clone(), Arc::clone(&target));
                let (cutter, words, swallow) = (cutter.clone(), Arc::clone(&words), Arc::clone(&swallow));
                let trips = Arc::<Trips>::default();
                registry.lock().unwrap().push(Arc::clone(&trips));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(&*target).await else { return };
                    let (client_reads, client_writes) = client.into_split();
                    let (server_reads, server_writes) = server.into_split();
                    let noted = Arc::clone(&trips);
                    let mut requests = Messages { head: Vec::new(), body: Vec::new(), body_left: 0, is_started: false };
                    let note_feed = move |request: &[u8]| {
                        let prepared =
                            requests.take(request, b'P').iter().map(|body| statement(body)).collect::<Vec<_>>();
                        noted.prepared.lock().unwrap().extend(prepared);
                        let says = |words: &str| request.windows(words.len()).any(|part| part == words.as_bytes());
                        if says("pg_snapshot_xmin") || says("LISTEN") || says("NOTIFY") {
                            noted.is_of_feed.store(true, Ordering::Relaxed);
                        }
                    };
                    tokio::spawn(pass_on(client_reads, server_writes, cut.clone(), |_| true, note_feed));
                    let mut answers = Messages { head: Vec::new(), body: Vec::new(), body_left: 0, is_started: true };
                    let passes = |answer: &[u8]| !takes(&swallow, answer);
                    let cut_after = move |answer: &[u8]| {
                        // The server ends each round trip with `ReadyForQuery`.
                        trips.count.fetch_add(answers.take(answer, b'Z').len() as u64, Ordering::Relaxed);
                        if takes(&words, answer) {
                            cutter.send_replace(true);
                        }
                    };
                    pass_on(server_reads, client_writes, cut, passes, cut_after).await;
                });
            }
        });
        Self { address, is_cut, last_words, swallowed, connections, accepting }
    }

    /// Round trips so far over the connections of requests. The connections must not use TLS.
    pub fn round_trips(&self) -> u64 {
        let connections = self.connections.lock().unwrap();
        let of_requests = connections.iter().filter(|trips| !trips.is_of_feed.load(Ordering::Relaxed));
        of_requests.map(|trips| trips.count.load(Ordering::Relaxed)).sum()
    }

    /// The statements that were prepared so far, over all connections.
    pub fn prepared(&self) -> Vec<(String, Vec<u32>)> {
        let connections = self.connections.lock().unwrap();
        connections.iter().flat_map(|trips| trips.prepared.lock().unwrap().clone()).collect()
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

/// Messages of PostgreSQL's protocol: a type, a length that includes itself, and a body. The client's first message has
/// no type.
struct Messages {
    head: Vec<u8>,
    body: Vec<u8>,
    body_left: usize,
    is_started: bool,
}

impl Messages {
    /// The bodies of the messages of one type that end in the next bytes.
    fn take(&mut self, bytes: &[u8], wanted: u8) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        for byte in bytes {
            if self.body_left > 0 {
                self.body.push(*byte);
                self.body_left -= 1;
            } else {
                if self.head.is_empty() && !self.is_started {
                    self.is_started = true;
                    self.head.push(0);
                }
                self.head.push(*byte);
                let Some(length) = self.head.get(1..5) else { continue };
                self.body_left = u32::from_be_bytes(length.try_into().unwrap()) as usize - 4;
            }
            if self.body_left == 0 && self.head.len() == 5 {
                let (head, body) = (std::mem::take(&mut self.head), std::mem::take(&mut self.body));
                found.extend((head[0] == wanted).then_some(body));
            }
        }
        found
    }
}

/// The text and the parameter types of a `Parse` message.
fn statement(body: &[u8]) -> (String, Vec<u32>) {
    let mut parts = body.splitn(3, |byte| *byte == 0);
    let (text, types) = (parts.nth(1).unwrap(), parts.next().unwrap());
    let types = types[2..].chunks(4).map(|oid| u32::from_be_bytes(oid.try_into().unwrap())).collect();
    (String::from_utf8(text.to_vec()).unwrap(), types)
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
    mut and_then: impl FnMut(&[u8]),
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
