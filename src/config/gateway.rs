//! What gateways and browsers need.

use url::Url;

use super::raw::Raw;
use super::reader::Reader;
use super::value::{Fault, Value};

/// The names that oauth2-proxy made customary.
const HEADER_PREFIX: &str = "X-Auth-Request-";

/// Forward-auth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardAuth {
    /// Prefix of the headers that carry the subject, such as `X-Auth-Request-` of `X-Auth-Request-User`.
    pub header_prefix: String,
    /// Whether a CORS preflight request passes without a token, since browsers send none with it.
    pub allow_preflight: bool,
}

impl ForwardAuth {
    pub(super) fn load(read: &mut Reader<'_>) -> Self {
        read.section("Gateways and browsers");
        Self {
            header_prefix: read
                .setting(
                    "forward_auth.header_prefix",
                    HeaderPrefix(HEADER_PREFIX.to_owned()),
                    "Prefix of the headers that name the subject in a forward-auth answer.",
                )
                .0,
            allow_preflight: read.setting(
                "forward_auth.allow_preflight",
                false,
                "Whether forward-auth lets a CORS preflight request pass without a token, since browsers send none with it.",
            ),
        }
    }
}

/// Browsers of other origins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Origins whose pages may call what people and public clients use; never reflected from a request.
    pub allowed_origins: Vec<String>,
}

impl Cors {
    pub(super) fn load(read: &mut Reader<'_>) -> Self {
        let origins: Vec<WebOrigin> = read.setting(
            "cors.allowed_origins",
            Vec::new(),
            "Origins whose pages may call login, refresh, logout, `/v1/me`, `/oauth2/token` and `/oauth2/revoke`, such as \
             `https://app.example.com`, or `capacitor://localhost` for an app. Introspection and forward-auth are for servers and \
             stay closed to pages. The JWKS and the metadata are open to every origin.",
        );
        Self { allowed_origins: origins.into_iter().map(|origin| origin.0).collect() }
    }
}

struct HeaderPrefix(String);

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

struct WebOrigin(String);

impl Value for WebOrigin {
    const FORM: &'static str = "write origins such as \"https://app.example.com\" or \"capacitor://localhost\", as a browser sends \
                                them: lower case, without a path, a default port or *";

    fn read(raw: &Raw) -> Result<Self, Fault> {
        let text = raw.text().ok_or(Fault::Form)?;
        let url = Url::parse(text).map_err(|_| Fault::Form)?;
        let is_origin = match url.scheme() {
            // Browsers send `null` for a page of these, which would be every such page.
            "about" | "blob" | "data" | "file" | "javascript" => false,
            "https" | "http" => !text.contains('*') && url.origin().ascii_serialization() == text,
            // The origin that an app's web view or a browser's extension sends is its scheme and host as they are written.
            scheme => text.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")).is_some_and(is_host_and_port),
        };
        if is_origin { Ok(Self(text.to_owned())) } else { Err(Fault::Form) }
    }

    fn show(&self) -> String {
        self.0.clone()
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
    fn h11_an_origin_is_one_origin_and_never_all() {
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
    fn a_header_prefix_can_only_begin_a_header_name() {
        let read = |text: &str| HeaderPrefix::read(&Raw::Text(text.to_owned())).is_ok();
        assert!(read("X-Auth-Request-") && read("Remote-"));
        for bad in ["", "-", "X-Auth", "X Auth-", "X-\r\nSet-Cookie: a-", "9-"] {
            assert!(!read(bad), "{bad:?}");
        }
    }
}
