//! A load generator without coordinated omission. Latency counts from the moment at which a request was due, not from the
//! moment at which a connection was free to send it.
//!
//! Arguments: `ADDRESS PLAN SECONDS CONNECTIONS [RATE]`. The plan is a JSON file (see [`Class`]). With a rate, requests are due
//! at even intervals, independent of the server. Without a rate, every connection sends its next request as soon as it has
//! read an answer, and latency counts from there. The first fifth of the time is not counted. Prints one JSON object;
//! latencies are in microseconds.
#![expect(
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a tool that measures time and prints what it found; what it cannot start with, it cannot measure"
)]

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

/// A kind of request.
#[derive(Deserialize)]
struct Class {
    name: String,
    /// Share of the requests, relative to the sum of all weights.
    weight: usize,
    path: String,
    /// Lines, `Name: value`.
    headers: Vec<String>,
    /// Request bodies, sent in turn. In a class with `before`: the first token of each chain.
    bodies: Vec<String>,
    /// The body is `before`, a token, and `after`. The `refresh_token` of the answer replaces the token.
    before: Option<String>,
    #[serde(default)]
    after: String,
    /// Statuses besides 200 that do not count as failures.
    #[serde(default)]
    allowed: Vec<u16>,
    /// Text that the body of a 200 must contain; a 200 without it counts as a failure.
    #[serde(default)]
    contains: String,
}

/// The state of a class during a run.
struct Running {
    class: Class,
    next: AtomicUsize,
    tokens: Mutex<VecDeque<String>>,
}

/// The results of one connection.
#[derive(Default)]
struct Seen {
    micros: Vec<Vec<u32>>,
    failures: Vec<BTreeMap<String, u64>>,
}

struct Clock {
    start: Instant,
    counted_from: Duration,
    end: Duration,
    /// Interval between two requests; `None` sends without a pause.
    distance: Option<Duration>,
    tickets: AtomicUsize,
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let mut next = |what: &str| arguments.next().unwrap_or_else(|| panic_usage(what));
    let (address, plan) = (next("an address"), next("a plan"));
    let seconds: f64 = next("seconds").parse().expect("seconds are a number");
    let connections: usize = next("connections").parse().expect("connections are a number");
    let rate: Option<f64> = arguments.next().map(|rate| rate.parse().expect("the rate is a number"));
    let plan = std::fs::read_to_string(plan).expect("the plan is readable");
    let classes: Vec<Class> = serde_json::from_str(&plan).expect("the plan is a list of classes");
    let order = Arc::new(order(&classes));
    let classes: Arc<Vec<Running>> = Arc::new(classes.into_iter().map(Running::new).collect());
    let end = Duration::from_secs_f64(seconds);
    let clock = Arc::new(Clock {
        start: Instant::now(),
        counted_from: end / 5,
        end,
        distance: rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
        tickets: AtomicUsize::new(0),
    });
    let workers: Vec<_> = (0..connections)
        .map(|_| {
            let (address, classes, order, clock) =
                (address.clone(), Arc::clone(&classes), Arc::clone(&order), Arc::clone(&clock));
            std::thread::spawn(move || work(&address, &classes, &order, &clock))
        })
        .collect();
    let seen: Vec<Seen> =
        workers.into_iter().map(|worker| worker.join().expect("a connection's thread ends")).collect();
    let measured = (clock.end - clock.counted_from).as_secs_f64();
    let report: serde_json::Map<String, Value> = classes
        .iter()
        .enumerate()
        .map(|(index, running)| (running.class.name.clone(), summary(index, &seen, measured)))
        .collect();
    println!("{}", Value::Object(report));
}

#[expect(clippy::panic, reason = "the usage of a tool")]
fn panic_usage(what: &str) -> String {
    panic!("{what} is missing: ADDRESS PLAN SECONDS CONNECTIONS [RATE]")
}

/// Orders the classes so that each has its share of any part of the sequence.
fn order(classes: &[Class]) -> Vec<usize> {
    let total: usize = classes.iter().map(|class| class.weight).sum();
    let mut owed = vec![0_usize; classes.len()];
    (0..total)
        .map(|_| {
            for (owed, class) in owed.iter_mut().zip(classes) {
                *owed += class.weight;
            }
            let most = (0..owed.len()).max_by_key(|index| owed[*index]).unwrap_or(0);
            owed[most] = owed[most].saturating_sub(total);
            most
        })
        .collect()
}

impl Running {
    fn new(class: Class) -> Self {
        let tokens = class.bodies.iter().filter(|_| class.before.is_some()).cloned().collect();
        Self { class, next: AtomicUsize::new(0), tokens: Mutex::new(tokens) }
    }

    /// The body of the next request and its token; `None` when every chain is in use.
    fn body(&self) -> Option<(String, Option<String>)> {
        let class = &self.class;
        match &class.before {
            Some(before) => {
                let token = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).pop_front()?;
                Some((format!("{before}{token}{}", class.after), Some(token)))
            }
            None => {
                let next = self.next.fetch_add(1, Ordering::Relaxed) % class.bodies.len();
                class.bodies.get(next).map(|body| (body.clone(), None))
            }
        }
    }

    /// The result of one request.
    fn ask(&self, line: &mut Line) -> Result<(), String> {
        let (body, token) = self.body().ok_or("no chain was free")?;
        let answered = line.ask(&self.class, &body);
        let mut next = token;
        let outcome = match answered {
            Ok((200, text)) => {
                if !String::from_utf8_lossy(&text).contains(&self.class.contains) {
                    return Err(format!("200 without {}", self.class.contains));
                }
                if next.is_some() {
                    let answer: Value = serde_json::from_slice(&text).map_err(|_| "no JSON")?;
                    next = answer["refresh_token"].as_str().map(str::to_owned);
                }
                Ok(())
            }
            Ok((status, _)) if self.class.allowed.contains(&status) => Ok(()),
            Ok((status, _)) => Err(status.to_string()),
            Err(error) => {
                line.stream = None;
                Err(error.kind().to_string())
            }
        };
        if let Some(token) = next {
            self.tokens.lock().unwrap_or_else(PoisonError::into_inner).push_back(token);
        }
        outcome
    }
}

fn work(address: &str, classes: &[Running], order: &[usize], clock: &Clock) -> Seen {
    // The default timer slack adds 50 µs to every latency.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let mut line = Line { address: address.to_owned(), stream: None, buffer: Vec::new() };
    let mut seen = Seen { micros: vec![Vec::new(); classes.len()], failures: vec![BTreeMap::new(); classes.len()] };
    loop {
        let ticket = clock.tickets.fetch_add(1, Ordering::Relaxed);
        let due = match clock.distance {
            Some(distance) => distance.mul_f64(ticket as f64),
            None => clock.start.elapsed(),
        };
        if due >= clock.end {
            return seen;
        }
        std::thread::sleep(due.saturating_sub(clock.start.elapsed()));
        let index = order[ticket % order.len()];
        let outcome = classes[index].ask(&mut line);
        let took = clock.start.elapsed().saturating_sub(due);
        if due < clock.counted_from {
            continue;
        }
        match outcome {
            Ok(()) => seen.micros[index].push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX)),
            Err(reason) => *seen.failures[index].entry(reason).or_default() += 1,
        }
    }
}

/// One connection.
struct Line {
    address: String,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Line {
    fn ask(&mut self, class: &Class, body: &str) -> io::Result<(u16, Vec<u8>)> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(Duration::from_secs(30)))?;
                self.stream.insert(stream)
            }
        };
        let mut request = format!("POST {} HTTP/1.1\r\nHost: {}\r\n", class.path, self.address);
        for header in &class.headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(request.as_bytes())?;
        self.buffer.clear();
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            receive(stream, &mut self.buffer)?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
        let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize =
            length.map_or(Ok(0), |length| length.trim().parse()).map_err(|_| io::ErrorKind::InvalidData)?;
        while self.buffer.len() < end + length {
            receive(stream, &mut self.buffer)?;
        }
        if head.contains("connection: close") {
            self.stream = None;
        }
        Ok((status, self.buffer[end..end + length].to_vec()))
    }
}

fn receive(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut part = [0; 16 * 1024];
    let count = stream.read(&mut part)?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    buffer.extend_from_slice(&part[..count]);
    Ok(())
}

fn summary(index: usize, seen: &[Seen], seconds: f64) -> Value {
    let mut micros: Vec<u32> = seen.iter().flat_map(|seen| seen.micros[index].iter().copied()).collect();
    micros.sort_unstable();
    let mut failures: BTreeMap<&str, u64> = BTreeMap::new();
    for (reason, count) in seen.iter().flat_map(|seen| &seen.failures[index]) {
        *failures.entry(reason).or_default() += count;
    }
    // The latency that this share of the requests did not exceed.
    let at = |share: f64| {
        let rank = (micros.len() as f64 * share).ceil() as usize;
        micros.get(rank.saturating_sub(1)).copied()
    };
    json!({
        "answered": micros.len(), "per_second": micros.len() as f64 / seconds, "failures": failures,
        "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": micros.last(),
    })
}
