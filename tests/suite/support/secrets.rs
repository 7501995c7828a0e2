//! Security.md S1, over the whole suite. Three places are searched for every secret that was used during a test:
//! the process's log at TRACE, the log of the service under test, and its database. The search covers every encoding in
//! which a secret could leak.
//!
//! A test needs no code for it: [`super::app::TestApp`] registers the secrets that pass through it, and searches when
//! it is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write as _};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Shorter texts occur by chance.
const SHORTEST: usize = 16;
/// The searched length of a long secret: a match of this length is not a coincidence.
const NEEDLE: usize = 32;
/// The maximum number of secrets that one watch searches for: a race makes thousands of the same kind.
const MOST_SECRETS: usize = 1500;

/// Watches the log from its creation until its search.
pub struct Watch {
    ledger: &'static Ledger,
    number: u64,
}

/// The log and the secrets in use.
#[derive(Default)]
pub struct Ledger(Mutex<Kept>);

/// The log and the secrets of the process since the oldest watch began.
#[derive(Default)]
struct Kept {
    next_watch: u64,
    /// The lengths of the log and of the secrets when each watch began.
    watches: BTreeMap<u64, (u64, u64)>,
    targets: BTreeSet<String>,
    log: Vec<u8>,
    log_begins_at: u64,
    secrets: Vec<String>,
    secrets_begin_at: u64,
}

/// The recorder of the process.
static LEDGER: LazyLock<&'static Ledger> = LazyLock::new(|| {
    let ledger: &'static Ledger = Box::leak(Box::default());
    // A subscriber that was installed earlier remains in use; the services' own logs are still searched.
    let _ = tracing_subscriber::registry().with(Everything(ledger)).try_init();
    ledger
});

/// The crates and modules whose events were seen since the oldest watch began.
pub fn targets() -> BTreeSet<String> {
    LEDGER.kept().targets.clone()
}

/// Records that `secret` is in use from now on.
pub fn used(secret: &str) {
    LEDGER.used(secret);
}

impl Ledger {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self, secret: &str) {
        let mut kept = self.kept();
        if secret.len() >= SHORTEST && !kept.watches.is_empty() {
            kept.secrets.push(secret.to_owned());
        }
    }
}

impl Watch {
    /// Begins a watch.
    pub fn begin() -> Self {
        Self::on(*LEDGER)
    }

    fn on(ledger: &'static Ledger) -> Self {
        let mut kept = ledger.kept();
        let number = kept.next_watch;
        kept.next_watch += 1;
        let place = (kept.log_begins_at + kept.log.len() as u64, kept.secrets_begin_at + kept.secrets.len() as u64);
        kept.watches.insert(number, place);
        drop(kept);
        Self { ledger, number }
    }

    /// The process's log since this watch began, including that of concurrent tests.
    pub fn log(&self) -> String {
        let kept = self.ledger.kept();
        let (from, _) = kept.watches[&self.number];
        String::from_utf8_lossy(&kept.log[(from - kept.log_begins_at) as usize..]).into_owned()
    }

    /// Ends the watch and describes each secret found in the process's log or in `others` (text by name).
    pub fn search(self, others: &[(&str, &[u8])]) -> Vec<String> {
        let (log, secrets) = {
            let kept = self.ledger.kept();
            let (log_from, secrets_from) = kept.watches[&self.number];
            let log = kept.log[(log_from - kept.log_begins_at) as usize..].to_vec();
            let secrets: BTreeSet<String> =
                kept.secrets[(secrets_from - kept.secrets_begin_at) as usize..].iter().cloned().collect();
            (log, secrets)
        };
        let needles: Vec<(String, Vec<u8>)> =
            secrets.iter().take(MOST_SECRETS).flat_map(|secret| spellings(secret)).collect();
        let automaton = AhoCorasick::new(needles.iter().map(|(_, needle)| needle)).unwrap();
        let mut found = Vec::new();
        for (name, haystack) in [("the log of the process", log.as_slice())].iter().chain(others) {
            found.extend(automaton.find_iter(haystack).map(|hit| {
                let around = hit.start().saturating_sub(200)..(hit.end() + 60).min(haystack.len());
                let around = String::from_utf8_lossy(&haystack[around]).into_owned();
                format!("{name} holds a secret, {}: {around}", needles[hit.pattern().as_usize()].0)
            }));
        }
        found
    }
}

impl Drop for Watch {
    /// Discards the records that no other watch needs.
    fn drop(&mut self) {
        let mut kept = self.ledger.kept();
        kept.watches.remove(&self.number);
        let (log, secrets) = match kept.watches.values().next() {
            Some(oldest) => *oldest,
            None => (kept.log_begins_at + kept.log.len() as u64, kept.secrets_begin_at + kept.secrets.len() as u64),
        };
        let (logged, used) = (log - kept.log_begins_at, secrets - kept.secrets_begin_at);
        kept.log.drain(..logged as usize);
        kept.secrets.drain(..used as usize);
        (kept.log_begins_at, kept.secrets_begin_at) = (log, secrets);
    }
}

/// The search patterns for one secret, each with the name of its encoding: plain, hexadecimal, base64 at any offset,
/// URL-encoded, and the decimal numbers of its bytes. If the secret is base64, its decoded bytes get the same patterns.
fn spellings(secret: &str) -> Vec<(String, Vec<u8>)> {
    let core = core_of(secret);
    let mut all = spellings_of_bytes(core.as_bytes());
    all.push(("as it is".to_owned(), core.as_bytes()[..core.len().min(2 * NEEDLE)].to_vec()));
    let url: String = url::form_urlencoded::byte_serialize(core.as_bytes()).collect();
    all.push(("encoded for a form".to_owned(), url.clone().into_bytes()));
    all.push(("encoded for a URL".to_owned(), url.replace('+', "%20").into_bytes()));
    let whole = core.trim_end_matches('=').as_bytes();
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        if let Ok(bytes) = engine.decode(&whole[..whole.len() / 4 * 4]) {
            all.extend(
                spellings_of_bytes(&bytes).into_iter().map(|(what, needle)| (format!("decoded, {what}"), needle)),
            );
        }
    }
    all.retain(|(_, needle)| needle.len() >= SHORTEST);
    all
}

/// The confidential part of a secret: the signature of a signed token, or the end of a refresh token with its family
/// secret and MAC.
fn core_of(secret: &str) -> &str {
    match secret.rsplit_once('.') {
        Some((head, signature)) if head.contains('.') && signature.len() >= NEEDLE => signature,
        _ if secret.starts_with("cs_rt_") => &secret[secret.len() - NEEDLE.min(secret.len())..],
        _ => secret,
    }
}

fn spellings_of_bytes(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let bytes = &bytes[..bytes.len().min(NEEDLE)];
    let hex = bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let numbers: Vec<String> = bytes.iter().take(12).map(ToString::to_string).collect();
    let mut all = vec![
        ("in hexadecimal".to_owned(), hex.to_uppercase().into_bytes()),
        ("in hexadecimal".to_owned(), hex.into_bytes()),
        ("as numbers".to_owned(), numbers.join(", ").into_bytes()),
    ];
    for shift in 0..3 {
        let shifted = [&vec![0; shift], bytes].concat();
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let text = engine.encode(&shifted);
            // The characters at both ends depend on the bytes next to the secret.
            let inner = (shift * 8).div_ceil(6)..shifted.len() * 8 / 6;
            all.push(("in base64".to_owned(), text.as_bytes()[inner].to_vec()));
        }
    }
    all
}

/// Keeps every event and span of the process, with all fields, while any watch is open.
struct Everything(&'static Ledger);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

/// The crate or module of an event.
struct Target(String);

impl Visit for Target {
    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "log.target" {
            value.clone_into(&mut self.0);
        }
    }
}

impl Text {
    fn keep(mut self, ledger: &Ledger) {
        self.0.push('\n');
        let mut kept = ledger.kept();
        if !kept.watches.is_empty() {
            kept.log.extend_from_slice(self.0.as_bytes());
        }
    }
}

impl<S: Subscriber> Layer<S> for Everything {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        let mut text = Text(attributes.metadata().name().to_owned());
        attributes.record(&mut text);
        text.keep(self.0);
    }

    fn on_record(&self, _: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut text = Text(String::new());
        values.record(&mut text);
        text.keep(self.0);
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // Crates that log with `log` name themselves in a field.
        let mut target = Target(event.metadata().target().to_owned());
        event.record(&mut target);
        let mut text = Text(target.0.clone());
        event.record(&mut text);
        text.keep(self.0);
        self.0.kept().targets.insert(target.0);
    }
}

#[test]
fn s1_a_leaked_secret_is_detected_in_every_encoding() {
    let ledger: &'static Ledger = Box::leak(Box::default());
    let secret = "cs_rt_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8wMTIzNDU2Nzg5";
    let bytes = URL_SAFE_NO_PAD.decode(&secret[secret.len() - 32..]).unwrap();
    let password = "correct horse battery staple 7";
    let beside = |text: &str| STANDARD_NO_PAD.encode(format!("user:{text}!"));
    for leak in [
        secret.to_owned(),
        format!("token={}", &secret[20..]),
        format!("{bytes:?}"),
        bytes.iter().map(|byte| format!("{byte:02X}")).collect(),
        beside(secret),
        URL_SAFE_NO_PAD.encode(secret),
        password.to_owned(),
        "password=correct+horse+battery+staple+7".to_owned(),
        "correct%20horse%20battery%20staple%207".to_owned(),
        beside(password),
        format!("{:?}", password.as_bytes()),
    ] {
        let watch = Watch::on(ledger);
        ledger.used(secret);
        ledger.used(password);
        assert!(!watch.search(&[("a file", leak.as_bytes())]).is_empty(), "{leak}");
    }
    let watch = Watch::on(ledger);
    ledger.used(secret);
    assert_eq!(watch.search(&[("a file", &secret.as_bytes()[..40])]), [""; 0], "session and generation are no secrets");
}

#[test]
fn s1_a_leak_at_any_log_level_is_detected() {
    let ledger: &'static Ledger = Box::leak(Box::default());
    let secret = "a password that no other test has";
    tracing::subscriber::with_default(tracing_subscriber::registry().with(Everything(ledger)), || {
        let watch = Watch::on(ledger);
        ledger.used(secret);
        tracing::trace!(form = ?("user", "ada"), "a careful line");
        assert_eq!(watch.search(&[]), [""; 0]);
        let watch = Watch::on(ledger);
        ledger.used(secret);
        tracing::trace!(form = ?("password", secret), "a careless line");
        assert_eq!(watch.search(&[]).len(), 1);
    });
}
