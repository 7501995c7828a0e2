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
            "Origins, such as `https://app.example.com`, whose pages may call login, refresh, logout and `/v1/me`, and \
             `/oauth2/token` and `/oauth2/revoke`. Introspection and forward-auth are for servers and stay closed to pages; \
             the JWKS and the metadata are open to every origin.",
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
    const FORM: &'static str = "write origins such as \"https://app.example.com\", without a path and without *";

    fn read(raw: &Raw) -> Result<Self, Fault> {
        let text = raw.text().ok_or(Fault::Form)?;
        let url = Url::parse(text).map_err(|_| Fault::Form)?;
        let is_origin = url.has_host()
            && !text.contains('*')
            && url.origin().is_tuple()
            && url.origin().ascii_serialization() == text;
        let is_web = matches!(url.scheme(), "https" | "http");
        if is_web && is_origin { Ok(Self(text.to_owned())) } else { Err(Fault::Form) }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h11_an_origin_is_one_origin_and_never_all() {
        let read = |text: &str| WebOrigin::read(&Raw::Text(text.to_owned())).is_ok();
        assert!(read("https://app.example.com") && read("http://localhost:5173"));
        for bad in ["*", "null", "https://*", "https://app.example.com/", "app.example.com", "file:///x", "https://A.b"]
        {
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
