//! Settings for gateways (forward-auth) and browsers (CORS).

use http::HeaderValue;
use url::Url;

use super::raw::Raw;
use super::section::section;
use super::value::{Fault, Value};

/// The prefix that oauth2-proxy uses.
const HEADER_PREFIX: &str = "X-Auth-Request-";

section! {
    ForwardAuth(read) in ["forward_auth"] as "Gateways and browsers" {
        /// Prefix of the headers that name the subject in a forward-auth response.
        header_prefix: HeaderPrefix = HeaderPrefix(HEADER_PREFIX.to_owned());
        /// Whether forward-auth accepts CORS preflight requests without a token. Browsers send none with them.
        allow_preflight: bool = false;
    }
}

section! {
    Cors(read) in ["cors"] {
        /// Origins of pages that may call login, refresh, logout, `/v1/me`, `/oauth2/token` and `/oauth2/revoke`. Examples:
        /// `https://app.example.com`, or `capacitor://localhost` for a mobile app. Pages can never call introspection and
        /// forward-auth, which are for servers. Every origin may fetch the JWKS and the metadata.
        allowed_origins: Vec<WebOrigin> = Vec::new();
    }
}

/// Begins the response headers that name the subject, such as `X-Auth-Request-` in `X-Auth-Request-User`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderPrefix(pub String);

impl Value for HeaderPrefix {
    const FORM: &'static str = "write letters, digits and -, beginning with a letter and ending with -, 40 at most";

    fn read(raw: &Raw) -> Result<Self, Fault> {
        let text = raw.text().ok_or(Fault::Form)?;
        let fits =
            text.len() <= 40 && text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.ends_with('-');
        let is_name = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if fits && is_name { Ok(Self(text.to_owned())) } else { Err(Fault::Form) }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// An `Origin` header as browsers send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin(pub HeaderValue);

impl Value for WebOrigin {
    const FORM: &'static str = "write origins such as \"https://app.example.com\" or \"capacitor://localhost\", as a browser sends \
                                them: lower case, without a path, a default port or *";

    fn read(raw: &Raw) -> Result<Self, Fault> {
        let text = raw.text().ok_or(Fault::Form)?;
        let url = Url::parse(text).map_err(|_| Fault::Form)?;
        let is_origin = match url.scheme() {
            // Browsers send the origin `null` for all pages of these schemes.
            "about" | "blob" | "data" | "file" | "javascript" => false,
            "https" | "http" => !text.contains('*') && url.origin().ascii_serialization() == text,
            // An app's web view or a browser extension sends its scheme and host unchanged.
            scheme => text.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")).is_some_and(is_host_and_port),
        };
        if is_origin { HeaderValue::from_str(text).map(Self).map_err(|_| Fault::Form) } else { Err(Fault::Form) }
    }

    fn show(&self) -> String {
        self.0.to_str().unwrap_or_default().to_owned()
    }
}

/// `host` or `host:port`, in lower case.
fn is_host_and_port(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let is_host_byte =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
    !host.is_empty()
        && host.bytes().all(is_host_byte)
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|number| number.to_string() == port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h11_an_allowed_origin_names_exactly_one_origin() {
        let read = |text: &str| WebOrigin::read(&Raw::Text(text.to_owned())).is_ok();
        for good in [
            "https://app.example.com",
            "https://app.example.com:8443",
            "http://localhost:5173",
            "capacitor://localhost",
            "ionic://localhost",
            "tauri://localhost",
            "http://tauri.localhost",
            "app://my-app:81",
            "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
        ] {
            assert!(read(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "null",
            "https://*",
            "https://*.example",
            "https://app.example.com/",
            "https://app.example.com:443",
            "https://user@app.example.com",
            "app.example.com",
            "https://A.b",
            "file:///x",
            "file://localhost",
            "data://localhost",
            "capacitor://",
            "capacitor://*",
            "capacitor://Localhost",
            "Capacitor://localhost",
            "capacitor://localhost/",
            "capacitor://localhost?x",
            "capacitor://user@localhost",
            "capacitor://localhost:080",
            "capacitor:localhost",
            "capacitor://local\nhost",
        ] {
            assert!(!read(bad), "{bad}");
        }
    }

    #[test]
    fn a_header_prefix_is_a_valid_start_of_a_header_name() {
        let read = |text: &str| HeaderPrefix::read(&Raw::Text(text.to_owned())).is_ok();
        assert!(read("X-Auth-Request-") && read("Remote-"));
        for bad in ["", "-", "X-Auth", "X Auth-", "X-\r\nSet-Cookie: a-", "9-"] {
            assert!(!read(bad), "{bad:?}");
        }
    }
}
