//! Connection limits of a listener: limits per address, and the eviction of idle connections.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::task;

use super::http2::Calls;
use super::settings::ListenSettings;
use super::state::{CoarseInstant, ConnectionState};
use crate::http::middleware::ClientAddress;

/// Minimum interval between two log lines about the same condition.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// Eviction keeps one of this many places free, so that one scan of all connections serves many new ones.
const SPARE: usize = 64;

/// The open connections of a listener.
pub(super) struct Places {
    settings: Arc<ListenSettings>,
    taken: HashMap<task::Id, OpenConnection>,
    by_network: HashMap<IpAddr, usize>,
    refusals: RateLimitedLog,
    evictions: RateLimitedLog,
}

struct OpenConnection {
    connection: Occupant,
    /// `None` for a trusted proxy, which has no limit per address.
    network: Option<IpAddr>,
}

/// The accept loop's handle to a connection.
pub(super) enum Occupant {
    Http1(Arc<ConnectionState>),
    Http2(Arc<Calls>),
}

impl Occupant {
    fn idle_since(&self) -> Option<CoarseInstant> {
        match self {
            Self::Http1(state) => state.idle_since(),
            Self::Http2(calls) => calls.idle_since(),
        }
    }

    fn evict(&self) {
        match self {
            Self::Http1(state) => state.evict(),
            Self::Http2(calls) => calls.evict(),
        }
    }

    fn wake(&self) {
        if let Self::Http1(state) = self {
            state.waker.wake();
        }
    }
}

impl Places {
    pub(super) fn new(settings: Arc<ListenSettings>) -> Self {
        let (taken, by_network) = Default::default();
        Self { settings, taken, by_network, refusals: RateLimitedLog::default(), evictions: RateLimitedLog::default() }
    }

    /// Whether `peer` may have one more connection.
    pub(super) fn admits(&mut self, peer: IpAddr) -> bool {
        let Some(network) = self.network(peer) else { return true };
        let admits = self.by_network.get(&network).is_none_or(|count| *count < self.settings.max_per_address);
        if let Some(connections) = (!admits).then(|| self.refusals.count(1)).flatten() {
            let limit = self.settings.max_per_address;
            tracing::warn!(address = %network, limit, connections, "connections refused: their address has as many as it may");
        }
        admits
    }

    pub(super) fn take(&mut self, id: task::Id, peer: IpAddr, connection: Occupant) {
        let network = self.network(peer);
        if let Some(network) = network {
            *self.by_network.entry(network).or_default() += 1;
        }
        self.taken.insert(id, OpenConnection { connection, network });
    }

    pub(super) fn release(&mut self, id: task::Id) {
        let Some(network) = self.taken.remove(&id).and_then(|place| place.network) else { return };
        if let Some(count) = self.by_network.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.by_network.remove(&network);
            }
        }
    }

    /// Evicts the connections with the longest idle time if few places are left; returns how many.
    pub(super) fn evict_if_full(&mut self) -> usize {
        let spare = (self.settings.max_connections / SPARE).max(1);
        if self.taken.len() + spare < self.settings.max_connections { 0 } else { self.evict(spare) }
    }

    /// Evicts up to `count` connections.
    pub(super) fn evict(&mut self, count: usize) -> usize {
        let evictable = self.taken.values().filter(|place| place.network.is_some());
        let mut idle: Vec<_> =
            evictable.filter_map(|place| Some((place.connection.idle_since()?, &place.connection))).collect();
        if idle.len() > count {
            idle.select_nth_unstable_by_key(count, |(since, _)| *since);
            idle.truncate(count);
        }
        idle.iter().for_each(|(_, connection)| connection.evict());
        let evicted = idle.len();
        if let Some(connections) = self.evictions.count(evicted) {
            let limit = self.settings.max_connections;
            tracing::warn!(limit, connections, "idle connections closed: the listener has almost as many as it may");
        }
        evicted
    }

    /// Wakes every connection, so that it checks the progress of the shutdown.
    pub(super) fn wake_all(&self) {
        self.taken.values().for_each(|place| place.connection.wake());
    }

    /// The network whose limit applies to `peer`. For IPv6 it is the /64, because one customer usually has all of it.
    /// `None` for a trusted proxy.
    fn network(&self, peer: IpAddr) -> Option<IpAddr> {
        let address = ClientAddress::new(peer);
        if self.settings.trusted_proxies.trusts(address) {
            return None;
        }
        Some(match address.ip() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// A log line with a minimum interval; it carries the number of events since the last line.
#[derive(Default)]
struct RateLimitedLog {
    count: usize,
    next: Option<CoarseInstant>,
}

impl RateLimitedLog {
    /// Adds `count`. Returns the sum since the last line when a line is due.
    fn count(&mut self, count: usize) -> Option<usize> {
        self.count += count;
        if self.count == 0 || self.next.is_some_and(|next| !next.has_passed()) {
            return None;
        }
        self.next = Some(CoarseInstant::now() + LOG_EVERY);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use tracing::level_filters::LevelFilter;

    use super::*;
    use crate::clock::SystemClock;
    use crate::config::{Log, LogFormat, LogLevels};
    use crate::http::listener::Stage;
    use crate::telemetry::{LogSink, Logger, MemoryLog};

    #[tokio::test]
    async fn h18_refusals_and_evictions_are_logged_at_most_once_per_interval() {
        let memory = MemoryLog::default();
        let log = Log { format: LogFormat::Json, level: LogLevels::all(LevelFilter::INFO), requests: false };
        let logger = Logger::start(LogSink::Memory(memory.clone()), &log, Arc::new(SystemClock::default())).unwrap();
        let settings = Arc::new(ListenSettings { max_connections: 2, max_per_address: 1, ..ListenSettings::default() });
        let mut places = Places::new(Arc::clone(&settings));
        let (peer, id) = ("192.0.2.7".parse().unwrap(), tokio::spawn(async {}).id());
        tracing::subscriber::with_default(logger.subscriber(), || {
            assert!(places.admits(peer));
            places.take(
                id,
                peer,
                Occupant::Http1(Arc::new(ConnectionState::new(settings, Arc::new(Stage::default())))),
            );
            for _ in 0..3 {
                assert!(!places.admits(peer));
                assert_eq!(places.evict_if_full(), 1);
            }
        });
        assert!(logger.flush(LOG_EVERY));
        let text = memory.text();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("connections refused") && text.contains("\"address\":\"192.0.2.7\""), "{text}");
        assert!(text.contains("idle connections closed") && text.contains("\"limit\":2"), "{text}");
        places.release(id);
        assert!(places.admits(peer), "its place is free again");
    }

    fn network(peer: &str) -> Option<String> {
        let trusted_proxies = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        let trusted_proxies = crate::http::middleware::TrustedProxies::new(trusted_proxies);
        let settings = ListenSettings { trusted_proxies, ..ListenSettings::default() };
        Places::new(Arc::new(settings)).network(peer.parse().unwrap()).map(|network| network.to_string())
    }

    #[test]
    fn h18_an_ipv6_address_is_counted_as_its_network_and_a_trusted_proxy_not_at_all() {
        for (peer, expected) in [
            ("192.0.2.7", Some("192.0.2.7")),
            ("::ffff:192.0.2.7", Some("192.0.2.7")),
            ("2001:db8:1:2:3:4:5:6", Some("2001:db8:1:2::")),
            ("10.1.2.3", None),
            ("::ffff:10.1.2.3", None),
            ("fd00::1", None),
        ] {
            assert_eq!(network(peer).as_deref(), expected, "{peer}");
        }
    }
}
