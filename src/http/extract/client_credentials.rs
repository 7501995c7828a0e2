//! Client authentication in a request (RFC 6749 §2.3): at most one method per request.

use http::HeaderMap;

use super::authorization::{Authorization, AuthorizationFault, IdAndSecret, authorization, names_bearer};
use super::form::FormParams;
use crate::domain::SecretText;
use crate::http::error::{OAuthDescription, OAuthError};

/// Maximum length of a client id in bytes; no longer id exists.
const MAX_CLIENT_ID_BYTES: usize = 256;
/// Maximum length of a client secret in bytes.
const MAX_SECRET_BYTES: usize = 1024;
/// Maximum length of a client assertion in bytes, as of every JWS (security.md T9).
const MAX_ASSERTION_BYTES: usize = 4096;
/// The only supported `client_assertion_type` (RFC 7523 §2.2).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Credentials of a client that are not checked yet.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientCredentialsInput {
    /// `client_secret_basic` or `client_secret_post`. Basic can yield two candidates: raw and form-decoded.
    Secret(Vec<IdAndSecret>),
    /// `private_key_jwt` (RFC 7523 §2.2).
    Assertion {
        /// The signed assertion.
        assertion: SecretText,
        /// The `client_id` parameter; if present, it must equal the assertion's subject.
        client_id: Option<String>,
    },
    /// A client id without credentials: a public client, or a confidential one that fails to authenticate.
    IdOnly(String),
    /// No client id and no credentials.
    Absent,
}

/// The parameters of a body for client authentication.
#[derive(Clone, Copy, Default)]
pub struct BodyCredentials<'a> {
    pub client_id: Option<&'a str>,
    pub client_secret: Option<&'a str>,
    pub assertion_type: Option<&'a str>,
    pub assertion: Option<&'a str>,
}

impl<'a> BodyCredentials<'a> {
    /// Whether all parameters are absent.
    pub const fn is_empty(&self) -> bool {
        let Self { client_id, client_secret, assertion_type, assertion } = self;
        client_id.is_none() && client_secret.is_none() && assertion_type.is_none() && assertion.is_none()
    }

    /// Reads the parameters from a form.
    pub fn of_form(form: &'a FormParams) -> Result<Self, OAuthError> {
        Ok(Self {
            client_id: form.optional("client_id", MAX_CLIENT_ID_BYTES)?,
            client_secret: form.optional("client_secret", MAX_SECRET_BYTES)?,
            assertion_type: form.optional("client_assertion_type", JWT_BEARER.len())?,
            assertion: form.optional("client_assertion", MAX_ASSERTION_BYTES)?,
        })
    }
}

impl ClientCredentialsInput {
    /// Combines header and body. Basic and post together are accepted if they are equal, because lua-resty-openidc
    /// sends both. Any other combination is `invalid_request`. A malformed header is `invalid_client` with 401, because
    /// RFC 6749 §5.2 requires it for a client that used the header. A bearer token is ignored: it authenticates a user,
    /// and HTTP libraries of pages add one to every request.
    pub fn gather(headers: &HeaderMap, body: BodyCredentials<'_>) -> Result<Self, OAuthError> {
        let several = || OAuthError::invalid_request(OAuthDescription::SeveralAuthentications);
        let basic = match authorization(headers) {
            _ if names_bearer(headers) => None,
            Ok(None) => None,
            Ok(Some(Authorization::Basic(candidates))) => Some(candidates),
            Ok(Some(_)) | Err(AuthorizationFault::Malformed) => return Err(OAuthError::invalid_client()),
            Err(AuthorizationFault::Repeated) => {
                return Err(OAuthError::invalid_request(OAuthDescription::RepeatedAuthorization));
            }
        };
        match (basic, body.assertion) {
            (Some(_), Some(_)) => Err(several()),
            (None, Some(_)) if body.client_secret.is_some() => Err(several()),
            (None, Some(assertion)) => Self::assertion(assertion, body),
            (_, None) if body.assertion_type.is_some() => {
                Err(OAuthError::invalid_request(OAuthDescription::Missing("client_assertion")))
            }
            (Some(candidates), None) => Self::basic(candidates, body).ok_or_else(several),
            (None, None) => match (body.client_id, body.client_secret) {
                (Some(id), Some(secret)) => {
                    Ok(Self::Secret(vec![IdAndSecret { id: id.to_owned(), secret: SecretText::new(secret) }]))
                }
                (Some(id), None) => Ok(Self::IdOnly(id.to_owned())),
                (None, Some(_)) => Err(OAuthError::invalid_request(OAuthDescription::Missing("client_id"))),
                (None, None) => Ok(Self::Absent),
            },
        }
    }

    fn assertion(assertion: &str, body: BodyCredentials<'_>) -> Result<Self, OAuthError> {
        match body.assertion_type {
            Some(JWT_BEARER) => Ok(Self::Assertion {
                assertion: SecretText::new(assertion),
                client_id: body.client_id.map(str::to_owned),
            }),
            Some(_) => Err(OAuthError::invalid_request(OAuthDescription::Malformed("client_assertion_type"))),
            None => Err(OAuthError::invalid_request(OAuthDescription::Missing("client_assertion_type"))),
        }
    }

    /// Keeps the candidates of the header that agree with the body; `None` if none does.
    fn basic(mut candidates: Vec<IdAndSecret>, body: BodyCredentials<'_>) -> Option<Self> {
        candidates.retain(|pair| {
            body.client_id.is_none_or(|id| id == pair.id)
                && body.client_secret.is_none_or(|secret| secret == pair.secret.expose())
        });
        // Some libraries send `id:` with an empty secret for a public client.
        match candidates.as_slice() {
            [] => None,
            [only] if only.secret.expose().is_empty() => Some(Self::IdOnly(only.id.clone())),
            _ => Some(Self::Secret(candidates)),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use http::HeaderValue;
    use http::header::AUTHORIZATION;

    use super::*;

    fn gather(basic: Option<&str>, form: &str) -> Result<ClientCredentialsInput, u16> {
        let headers: HeaderMap = basic
            .map(|pair| format!("Basic {}", STANDARD.encode(pair)))
            .map(|value| (AUTHORIZATION, HeaderValue::try_from(value).unwrap()))
            .into_iter()
            .collect();
        let form = FormParams::parse(form.to_owned().into()).ok().unwrap();
        let body = BodyCredentials::of_form(&form).map_err(|error| error.into_response().status().as_u16())?;
        ClientCredentialsInput::gather(&headers, body).map_err(|error| error.into_response().status().as_u16())
    }

    fn secret(pairs: &[(&str, &str)]) -> Result<ClientCredentialsInput, u16> {
        let pair = |(id, secret): &(&str, &str)| IdAndSecret { id: (*id).into(), secret: SecretText::new(*secret) };
        Ok(ClientCredentialsInput::Secret(pairs.iter().map(pair).collect()))
    }

    #[test]
    fn each_method_alone_is_accepted() {
        assert_eq!(gather(Some("gw:s"), "token=t"), secret(&[("gw", "s")]));
        assert_eq!(gather(None, "client_id=gw&client_secret=s"), secret(&[("gw", "s")]));
        assert_eq!(gather(None, "client_id=app"), Ok(ClientCredentialsInput::IdOnly("app".into())));
        assert_eq!(gather(Some("app:"), ""), Ok(ClientCredentialsInput::IdOnly("app".into())));
        assert_eq!(gather(None, "token=t"), Ok(ClientCredentialsInput::Absent));
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
        let expected = ClientCredentialsInput::Assertion { assertion: SecretText::new("a.b.c"), client_id: None };
        assert_eq!(gather(None, &form), Ok(expected));
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
            let error = ClientCredentialsInput::gather(&headers, BodyCredentials::default()).err()?;
            Some(error.into_response().status().as_u16())
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
