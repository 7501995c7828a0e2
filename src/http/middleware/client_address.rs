//! The client's address (security.md L7).

use std::fmt;
use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

use super::forwarded;

/// The address of a client: the socket's peer, or the address that a trusted proxy reports. Never IPv4-mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddress(IpAddr);

impl ClientAddress {
    /// Converts an address to its canonical form.
    pub fn new(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }

    pub const fn ip(self) -> IpAddr {
        self.0
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The proxies whose forwarding headers are trusted.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self(networks.into_iter().collect())
    }

    /// The client's address: the peer, unless it is a trusted proxy. Otherwise the rightmost hop of `X-Forwarded-For`
    /// or `Forwarded` that is not a trusted proxy. A missing or malformed hop before that selects the peer. A proxy
    /// sets one of the two headers and may forward the client's other one. If both are present, they must agree.
    pub fn resolve(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        let peer = ClientAddress::new(peer);
        if !self.trusts(peer) {
            return peer;
        }
        let legacy = forwarded::x_forwarded_for(headers).map(|hops| self.rightmost_untrusted(hops));
        let standard = forwarded::forwarded(headers).map(|hops| self.rightmost_untrusted(hops));
        match (legacy, standard) {
            (Some(only), None) | (None, Some(only)) => only,
            (Some(legacy), Some(standard)) if legacy == standard => legacy,
            _ => None,
        }
        .unwrap_or(peer)
    }

    /// `hops` are in order from right to left.
    fn rightmost_untrusted(&self, mut hops: impl Iterator<Item = Option<IpAddr>>) -> Option<ClientAddress> {
        loop {
            let hop = ClientAddress::new(hops.next()??);
            if !self.trusts(hop) {
                return Some(hop);
            }
        }
    }

    /// Whether this is a trusted proxy.
    pub fn trusts(&self, address: ClientAddress) -> bool {
        self.0.iter().any(|network| network.contains(&address.ip()))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn resolve(peer: &str, lines: &[(&str, &str)]) -> String {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        let headers = lines
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap()))
            .collect();
        TrustedProxies::new(trusted).resolve(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn l7_x_forwarded_for_is_read_in_every_form() {
        for (value, expected) in [
            ("192.0.2.7", "192.0.2.7"),
            (" 192.0.2.7 ", "192.0.2.7"),
            ("192.0.2.7:4711", "192.0.2.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:443", "2001:db8::7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("198.51.100.1, 192.0.2.7", "192.0.2.7"),
            ("198.51.100.1,192.0.2.7,10.1.1.1", "192.0.2.7"),
            ("192.0.2.7, 10.1.1.1, fd00::1", "192.0.2.7"),
            ("unknown, 192.0.2.7", "192.0.2.7"),
            (", 192.0.2.7", "192.0.2.7"),
            // A malformed hop selects the peer.
            ("192.0.2.7,", PROXY),
            ("192.0.2.7, unknown", PROXY),
            ("192.0.2.7, garbage, 10.1.1.1", PROXY),
            ("", PROXY),
            (",", PROXY),
            ("10.1.1.1", PROXY),
            ("10.1.1.1, 10.2.2.2", PROXY),
            ("192.0.2.7:port", PROXY),
            ("192.0.2.7:99999", PROXY),
            ("192.0.2.07", PROXY),
            ("192.0.2", PROXY),
            ("3221225991", PROXY),
            ("0x7f.1", PROXY),
            ("[2001:db8::7", PROXY),
            ("2001:db8::7]", PROXY),
            ("fe80::1%eth0", PROXY),
            ("client.example", PROXY),
            ("\"192.0.2.7\"", PROXY),
            ("192.0.2.7;192.0.2.8", PROXY),
            ("192.0.2.7 192.0.2.8", PROXY),
        ] {
            assert_eq!(resolve(PROXY, &[("x-forwarded-for", value)]), expected, "{value:?}");
        }
    }

    #[test]
    fn l7_forwarded_is_read_in_every_form() {
        for (value, expected) in [
            ("for=192.0.2.7", "192.0.2.7"),
            ("For=192.0.2.7;proto=https;by=10.0.0.1", "192.0.2.7"),
            ("proto=https; FOR=192.0.2.7", "192.0.2.7"),
            ("for=\"192.0.2.7:4711\"", "192.0.2.7"),
            ("for=\"[2001:db8::7]:4711\"", "2001:db8::7"),
            ("for=\"[2001:db8::7]\"", "2001:db8::7"),
            ("for=198.51.100.1, for=192.0.2.7, for=10.9.9.9", "192.0.2.7"),
            ("host=\"a,for=1.1.1.1\";for=192.0.2.7", "192.0.2.7"),
            ("for=\"\\192.0.2.7\"", "192.0.2.7"),
            // A malformed element selects the peer.
            ("for=unknown", PROXY),
            ("for=_hidden", PROXY),
            ("for=192.0.2.7, for=_gazonk", PROXY),
            ("proto=https", PROXY),
            ("for=192.0.2.7, proto=https", PROXY),
            ("for=192.0.2.7;for=192.0.2.8", PROXY),
            ("for=\"192.0.2.7", PROXY),
            ("for", PROXY),
            ("", PROXY),
            ("192.0.2.7", PROXY),
        ] {
            assert_eq!(resolve(PROXY, &[("forwarded", value)]), expected, "{value:?}");
        }
    }

    #[test]
    fn l7_headers_of_an_untrusted_peer_are_ignored() {
        let lines = [("x-forwarded-for", "192.0.2.7"), ("forwarded", "for=192.0.2.7")];
        assert_eq!(resolve("203.0.113.9", &lines), "203.0.113.9");
        assert_eq!(resolve("::ffff:203.0.113.9", &lines), "203.0.113.9");
        assert_eq!(resolve("::ffff:10.0.0.1", &lines), "192.0.2.7", "a mapped proxy is that proxy");
        assert_eq!(resolve("fd12::1", &lines), "192.0.2.7");
        assert_eq!(resolve(PROXY, &[]), PROXY);
        let none = TrustedProxies::default().resolve(PROXY.parse().unwrap(), &HeaderMap::new());
        assert_eq!(none.to_string(), PROXY);
    }

    #[test]
    fn l7_several_lines_are_one_list_and_two_headers_must_agree() {
        let line = |value| ("x-forwarded-for", value);
        assert_eq!(resolve(PROXY, &[line("198.51.100.1"), line("192.0.2.7, 10.1.1.1"), line("10.2.2.2")]), "192.0.2.7");
        assert_eq!(resolve(PROXY, &[line("192.0.2.7"), ("forwarded", "for=192.0.2.7")]), "192.0.2.7");
        for spoofed in ["for=198.51.100.1", "for=unknown", "nonsense"] {
            assert_eq!(resolve(PROXY, &[line("192.0.2.7"), ("forwarded", spoofed)]), PROXY, "{spoofed}");
        }
    }

    proptest! {
        #[test]
        fn l7_no_header_panics_or_changes_the_address_of_an_untrusted_peer(
            legacy in "[0-9a-f:.,\\[\\]\" for=;\\\\-]{0,60}", standard in "[0-9a-f:.,\\[\\]\" for=;\\\\-]{0,60}",
        ) {
            let lines = [("x-forwarded-for", legacy.as_str()), ("forwarded", standard.as_str())];
            let _ = resolve(PROXY, &lines);
            prop_assert_eq!(resolve("203.0.113.9", &lines), "203.0.113.9");
        }
    }
}
