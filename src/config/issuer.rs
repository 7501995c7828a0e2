//! The issuer of tokens.

use std::net::SocketAddr;

use url::{Host, Url};

use super::listener::PUBLIC;
use super::raw::Raw;
use super::reader::Reader;
use super::value::{Fault, Value};
use crate::domain::Audience;

/// In bytes. The issuer is the default audience, and an audience has the same limit.
const LONGEST: usize = 256;

/// The `iss` claim and the base of every URL in metadata. Verifiers compare it byte for byte (RFC 8414 §2, RFC 9068 §4).
/// It is therefore stored exactly as configured, and must be in the canonical form of a URL parser: host in lower case, no
/// default port. It must not end with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    text: String,
    path_start: usize,
    is_safe: bool,
}

impl Issuer {
    pub(super) fn load(read: &mut Reader<'_>) -> Self {
        let has_tls = read.is_given("public.tls.cert");
        let default = Self::of_listener(read.peek("public.listen").unwrap_or(PUBLIC), has_tls);
        let issuer = read.setting(
            "issuer",
            default,
            "`iss` of every token and the base of every URL in metadata. Verifiers compare it byte for byte. It must use \
             https, unless the host is loopback or `allow_http_issuer` is set. It must not end with `/`. Its path may contain \
             letters, digits, `-._~` and percent-escapes, but no segment `.well-known`. The default is `localhost` with the \
             port of `public.listen`.",
        );
        let allow_http = read.setting(
            "allow_http_issuer",
            false,
            "Accept an http issuer whose host is not loopback. Set it only on a network where traffic cannot be intercepted.",
        );
        let remedy = "use https://, or set allow_http_issuer = true on a network where traffic cannot be intercepted";
        let is_accepted = issuer.is_safe || allow_http;
        read.rule(
            &["issuer", "allow_http_issuer"],
            is_accepted,
            "is plain http on a host that is not loopback",
            remedy,
        );
        issuer
    }

    /// The default for trying the service on one machine: `localhost` with the port of the public listener.
    fn of_listener(listen: SocketAddr, has_tls: bool) -> Self {
        let scheme = if has_tls { "https" } else { "http" };
        let text = format!("{scheme}://localhost:{}", listen.port());
        Self { path_start: text.len(), is_safe: true, text }
    }

    /// Replaces port 0, which `public.listen` uses for any free port, with the port that was bound.
    #[must_use]
    pub fn with_bound_port(self, port: u16) -> Self {
        match self.text.strip_suffix(":0") {
            Some(base) => {
                let text = format!("{base}:{port}");
                Self { path_start: text.len(), text, ..self }
            }
            None => self,
        }
    }

    /// The port of an issuer whose host is loopback. It must be the port of a listener, or of a local proxy.
    pub fn loopback_port(&self) -> Option<u16> {
        let url = Url::parse(&self.text).ok()?;
        is_loopback(&url.host()?).then(|| url.port_or_known_default()).flatten()
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path: empty, or beginning with `/`. Metadata URLs insert the well-known segment before it (RFC 8414 §3.1).
    pub fn path(&self) -> &str {
        &self.text[self.path_start..]
    }

    /// The issuer as an audience.
    #[expect(clippy::expect_used, reason = "`parse` accepts only issuers that are valid audiences")]
    pub fn as_audience(&self) -> Audience {
        Audience::parse(&self.text).expect("every issuer is an audience")
    }

    fn parse(text: &str) -> Result<Self, Fault> {
        let because = |reason: &str| Err(Fault::Because(reason.to_owned()));
        let url = Url::parse(text).map_err(|_| Fault::Form)?;
        let host = url.host().filter(|_| matches!(url.scheme(), "https" | "http")).ok_or(Fault::Form)?;
        if url.query().is_some() || url.fragment().is_some() {
            return because("has a query or a fragment");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return because("contains a user name or a password");
        }
        if text.len() > LONGEST {
            return because(&format!("is longer than {LONGEST} characters"));
        }
        let canonical = url.as_str().trim_end_matches('/');
        if canonical != text {
            return because(&format!("is not in canonical form, which is {canonical}"));
        }
        if url.path().split('/').any(|segment| segment == ".well-known") {
            return because("has the path segment .well-known, which is reserved for metadata (RFC 8414 §3.1)");
        }
        if !url.path().split('/').all(is_plain_segment) {
            return because("has a path with characters other than A-Z a-z 0-9 - . _ ~ and percent-escapes");
        }
        // URL parsers accept these characters in a host.
        if Audience::parse(text).is_err() {
            return because("contains \" or \\, which an audience must not contain");
        }
        let is_loopback = is_loopback(&host);
        let path_start = text.len() - url.path().trim_end_matches('/').len();
        Ok(Self { text: text.to_owned(), path_start, is_safe: is_loopback || url.scheme() == "https" })
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

/// Whether a segment consists of unreserved characters and percent-escapes (RFC 3986 §2.3, §2.1). The router treats `{`,
/// `*` and `:` as patterns, and proxies normalize the other delimiters differently.
fn is_plain_segment(segment: &str) -> bool {
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let is_plain = match byte {
            b'%' => {
                [bytes.next(), bytes.next()].into_iter().all(|digit| digit.is_some_and(|it| it.is_ascii_hexdigit()))
            }
            _ => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'),
        };
        if !is_plain {
            return false;
        }
    }
    true
}

impl Value for Issuer {
    const FORM: &'static str = "write a URL such as \"https://auth.example.com\", without a / at the end";

    fn read(raw: &Raw) -> Result<Self, Fault> {
        Self::parse(raw.text().ok_or(Fault::Form)?)
    }

    fn show(&self) -> String {
        self.text.clone()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_issuer_is_an_audience(text in "(https?://)?[!-~é/:@?#.]{0,300}") {
            if let Ok(issuer) = Issuer::parse(&text) {
                let audience = issuer.as_audience();
                prop_assert_eq!(audience.as_str(), issuer.as_str());
                prop_assert!(issuer.as_str().ends_with(issuer.path()));
            }
        }
    }

    #[test]
    fn h12_the_issuer_is_stored_byte_for_byte_and_must_be_canonical() {
        for good in [
            "https://auth.example.com",
            "https://example.com:8443/tenant/a",
            "https://example.com/a-b._~/%20",
            "http://[::1]:8080",
        ] {
            assert_eq!(Issuer::parse(good).unwrap().as_str(), good);
        }
        assert_eq!(Issuer::parse("https://example.com/tenant/a").unwrap().path(), "/tenant/a");
        assert_eq!(Issuer::parse("https://example.com").unwrap().path(), "");
        let bad = [
            "auth.example.com",
            "ftp://example.com",
            "https://",
            "https://example.com/",
            "https://Example.com",
            "https://example.com:443",
            "https://example.com/a/../b",
            "https://example.com?x",
            "https://example.com#x",
            "https://user:secret@example.com",
            " https://example.com",
            "http://\"",
            "https://example.com/a\\b",
            "https://example.com/:x",
            "https://example.com/*x",
            "https://example.com/{x}",
            "https://example.com/a;b",
            "https://example.com/%zz",
            "https://example.com/a%2",
            "https://example.com/.well-known/openid-configuration",
            "https://example.com/a/.well-known/oauth-authorization-server",
        ];
        for bad in bad {
            assert!(Issuer::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn port_0_of_an_issuer_is_replaced_with_the_bound_port() {
        let issuer = Issuer::of_listener("127.0.0.1:0".parse().unwrap(), false).with_bound_port(41_234);
        assert_eq!(
            (issuer.as_str(), issuer.path(), issuer.loopback_port()),
            ("http://localhost:41234", "", Some(41_234))
        );
        let named = Issuer::parse("https://auth.example.com/a").unwrap();
        assert_eq!(named.clone().with_bound_port(1), named);
        assert_eq!(named.loopback_port(), None);
        for (text, port) in [("http://localhost", 80), ("https://[::1]:8443", 8443), ("http://auth.localhost:9", 9)] {
            assert_eq!(Issuer::parse(text).unwrap().loopback_port(), Some(port), "{text}");
        }
    }

    #[test]
    fn plain_http_is_safe_only_on_loopback() {
        for (text, is_safe) in [
            ("http://localhost:8080", true),
            ("http://auth.localhost", true),
            ("http://127.1.2.3", true),
            ("http://[::1]", true),
            ("http://localhost.example.com", false),
            ("http://10.0.0.1", false),
            ("https://example.com", true),
        ] {
            assert_eq!(Issuer::parse(text).unwrap().is_safe, is_safe, "{text}");
        }
    }
}
