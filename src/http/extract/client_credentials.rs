//! Client authentication in a request (RFC 6749 §2.3): at most one method per request.

use http::HeaderMap;

use super::authorization::{Authorization, IdAndSecret, basic};
use super::params::Params;
use crate::http::error::{ApiError, ProblemCode};
use crate::service::ClientAuth;

/// Maximum length of a client id in bytes; no longer id exists.
const MAX_CLIENT_ID_BYTES: usize = 256;
/// Maximum length of a client secret in bytes.
const MAX_SECRET_BYTES: usize = 1024;
/// Maximum length of a client assertion in bytes, as of every JWS (security.md T9).
const MAX_ASSERTION_BYTES: usize = 4096;
/// The only supported `client_assertion_type` (RFC 7523 §2.2).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The parameters of a body for client authentication.
#[derive(Clone, Copy, Default)]
pub struct BodyCredentials<'a> {
    pub client_id: Option<&'a str>,
    pub client_secret: Option<&'a str>,
    pub assertion_type: Option<&'a str>,
    pub assertion: Option<&'a str>,
}

impl<'a> BodyCredentials<'a> {
    /// Reads the parameters from a form.
    pub fn of_form(form: &'a Params) -> Result<Self, ApiError> {
        Ok(Self {
            client_id: form.optional("client_id", MAX_CLIENT_ID_BYTES)?,
            client_secret: form.optional("client_secret", MAX_SECRET_BYTES)?,
            assertion_type: form.optional("client_assertion_type", JWT_BEARER.len())?,
            assertion: form.optional("client_assertion", MAX_ASSERTION_BYTES)?,
        })
    }

    /// Whether all parameters are absent.
    pub const fn is_empty(&self) -> bool {
        let Self { client_id, client_secret, assertion_type, assertion } = self;
        client_id.is_none() && client_secret.is_none() && assertion_type.is_none() && assertion.is_none()
    }

    /// Combines the body with the candidates of the header. Both together are accepted if they are equal, because
    /// lua-resty-openidc sends both. Any other combination is `invalid_request`.
    pub fn with(self, header: Option<&'a [IdAndSecret]>) -> Result<ClientAuth<'a>, ApiError> {
        let several = || several("there is more than one client authentication");
        let missing = |name| ApiError::invalid_form(format!("the parameter `{name}` is missing"));
        match (header, self.assertion) {
            (Some(_), Some(_)) => Err(several()),
            (None, Some(_)) if self.client_secret.is_some() => Err(several()),
            (None, Some(jwt)) => match self.assertion_type {
                Some(JWT_BEARER) => Ok(ClientAuth::Assertion { client: self.client_id, jwt }),
                Some(_) => Err(ApiError::invalid_form("the parameter `client_assertion_type` is malformed")),
                None => Err(missing("client_assertion_type")),
            },
            (_, None) if self.assertion_type.is_some() => Err(missing("client_assertion")),
            (Some(candidates), None) => {
                let pairs = candidates.iter().map(|pair| (pair.id.as_str(), pair.secret.expose()));
                let agreeing: Vec<_> = pairs.filter(|pair| self.agrees_with(*pair)).collect();
                // Some libraries send `id:` with an empty secret for a public client.
                match agreeing[..] {
                    [] => Err(several()),
                    [(id, "")] => Ok(ClientAuth::Named(Some(id))),
                    _ => Ok(ClientAuth::Secret(agreeing)),
                }
            }
            (None, None) => match (self.client_id, self.client_secret) {
                (Some(id), Some(secret)) => Ok(ClientAuth::Secret(vec![(id, secret)])),
                (None, Some(_)) => Err(missing("client_id")),
                (id, None) => Ok(ClientAuth::Named(id)),
            },
        }
    }

    fn agrees_with(&self, (id, secret): (&str, &str)) -> bool {
        self.client_id.is_none_or(|own| own == id) && self.client_secret.is_none_or(|own| own == secret)
    }
}

/// The candidates of the header. A malformed header is `invalid_client` with 401, because RFC 6749 §5.2 requires it for
/// a client that used the header. A bearer token is ignored: it authenticates a user, and HTTP libraries of pages add
/// one to every request.
pub fn header_credentials(headers: &HeaderMap) -> Result<Option<Vec<IdAndSecret>>, ApiError> {
    match Authorization::of(headers) {
        Authorization::Absent | Authorization::Bearer(_) => Ok(None),
        Authorization::Basic(credentials) => match basic(credentials) {
            Some(candidates) => Ok(Some(candidates)),
            None => Err(ApiError::new(ProblemCode::InvalidClient)),
        },
        Authorization::Other => Err(ApiError::new(ProblemCode::InvalidClient)),
        Authorization::Repeated => Err(several("there is more than one Authorization header")),
    }
}

fn several(description: &'static str) -> ApiError {
    ApiError::invalid_form(description).detail("The client authenticates in more than one way.")
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use http::HeaderValue;
    use http::header::AUTHORIZATION;

    use super::*;

    /// The authentication as text, or the status of the refusal.
    fn gather(header: Option<&str>, form: &str) -> Result<String, u16> {
        let status = |error: ApiError| error.code().status().as_u16();
        let headers: HeaderMap = header
            .map(|pair| format!("Basic {}", STANDARD.encode(pair)))
            .map(|value| (AUTHORIZATION, HeaderValue::try_from(value).unwrap()))
            .into_iter()
            .collect();
        let form = Params::parse(&Bytes::copy_from_slice(form.as_bytes())).ok().unwrap();
        let candidates = header_credentials(&headers).map_err(status)?;
        let body = BodyCredentials::of_form(&form).map_err(status)?;
        Ok(match body.with(candidates.as_deref()).map_err(status)? {
            ClientAuth::Named(id) => format!("named {id:?}"),
            ClientAuth::Secret(pairs) => format!("secret {pairs:?}"),
            ClientAuth::Assertion { client, jwt } => format!("assertion {client:?} {jwt}"),
        })
    }

    fn secret(pairs: &[(&str, &str)]) -> Result<String, u16> {
        Ok(format!("secret {pairs:?}"))
    }

    fn named(id: &str) -> Result<String, u16> {
        Ok(format!("named {:?}", Some(id)))
    }

    #[test]
    fn each_method_alone_is_accepted() {
        assert_eq!(gather(Some("gw:s"), "token=t"), secret(&[("gw", "s")]));
        assert_eq!(gather(None, "client_id=gw&client_secret=s"), secret(&[("gw", "s")]));
        assert_eq!(gather(None, "client_id=app"), named("app"));
        assert_eq!(gather(Some("app:"), ""), named("app"));
        assert_eq!(gather(None, "token=t"), Ok("named None".to_owned()));
    }

    #[test]
    fn h3_basic_and_post_pass_when_they_agree_and_are_400_when_they_differ() {
        assert_eq!(gather(Some("gw:s"), "client_id=gw&client_secret=s"), secret(&[("gw", "s")]));
        assert_eq!(gather(Some("gw:s"), "client_id=gw"), secret(&[("gw", "s")]));
        assert_eq!(gather(Some("gw:a%2Bb"), "client_id=gw&client_secret=a%2Bb"), secret(&[("gw", "a+b")]));
        assert_eq!(gather(Some("gw:a%2Bb"), "client_id=gw"), secret(&[("gw", "a%2Bb"), ("gw", "a+b")]));
        for form in
            ["client_id=gw&client_secret=x", "client_id=other&client_secret=s", "client_secret=x", "client_id=x"]
        {
            assert_eq!(gather(Some("gw:s"), form), Err(400), "{form}");
        }
        assert_eq!(gather(Some("app:"), "client_id=app&client_secret=s"), Err(400));
    }

    #[test]
    fn h3_an_assertion_is_not_combined_with_another_method() {
        let form = format!("client_assertion=a.b.c&client_assertion_type={JWT_BEARER}");
        assert_eq!(gather(None, &form), Ok("assertion None a.b.c".to_owned()));
        assert_eq!(gather(Some("gw:s"), &form), Err(400));
        assert_eq!(gather(None, &format!("{form}&client_id=gw&client_secret=s")), Err(400));
        assert_eq!(gather(None, "client_assertion=a.b.c"), Err(400));
        assert_eq!(gather(None, "client_assertion=a.b.c&client_assertion_type=saml"), Err(400));
        assert_eq!(gather(None, &format!("client_assertion_type={JWT_BEARER}&client_id=gw")), Err(400));
    }

    #[test]
    fn h3_two_headers_are_400_and_a_malformed_one_is_401() {
        let status = |values: &[&'static str]| {
            let headers = values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_static(value))).collect();
            Some(header_credentials(&headers).err()?.code().status().as_u16())
        };
        assert_eq!(status(&["Basic Z3c6cw==", "Basic Z3c6cw=="]), Some(400));
        for malformed in ["Basic !", "Basic", "Bearers abc", "Digest x"] {
            assert_eq!(status(&[malformed]), Some(401), "{malformed}");
        }
        assert_eq!(status(&["Bearer a", "Basic Z3c6cw=="]), Some(400));
        for other in ["Basic Z3c6cw==", "Bearer abc", "bearer", "Bearer ", "Bearer undefined or null"] {
            assert_eq!(status(&[other]), None, "{other}");
        }
    }

    #[test]
    fn h5_credentials_have_limits() {
        assert_eq!(gather(None, &format!("client_id={}", "a".repeat(MAX_CLIENT_ID_BYTES + 1))), Err(400));
        assert_eq!(gather(None, &format!("client_id=a&client_secret={}", "a".repeat(MAX_SECRET_BYTES + 1))), Err(400));
    }
}
