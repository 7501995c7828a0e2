//! The claims of access tokens in JSON: [`AccessClaims`] is written to it, and read from it with checks.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::claims::{AudienceClaim, ClaimsRefusal, Dates, NumericDate};
use crate::domain::{
    AccessClaims, Audience, ClientId, Jti, LoginClaims, ParseError, Role, ScopeSet, SessionId, Subject, Timestamp,
};
use crate::json::{self, present};

/// Maximum lifetime of an access token, independent of the settings.
pub const MAX_ACCESS_TOKEN_LIFE: Duration = Duration::from_secs(60 * 60);

/// The claims as JSON (RFC 9068 §2.2, design.md section 4). Empty claims are omitted. Authlib refuses them, and RFC
/// 6749 §3.3 has no empty scope.
#[derive(Serialize)]
pub(super) struct AccessClaimsJson<'a> {
    iss: &'a str,
    sub: String,
    aud: OneOrMany<'a>,
    exp: i64,
    iat: i64,
    nbf: i64,
    jti: &'a str,
    client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(flatten)]
    login: Option<LoginJson<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    uep: u32,
    #[serde(skip_serializing_if = "is_zero")]
    cep: u32,
    #[serde(skip_serializing_if = "is_zero")]
    iep: u32,
}

#[derive(Serialize)]
struct LoginJson<'a> {
    sid: String,
    auth_time: i64,
    amr: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    roles: Vec<&'a str>,
    preferred_username: &'a str,
}

/// RFC 7519 §4.1.3: a single audience may be a plain string, which most verifiers expect.
#[derive(Serialize)]
#[serde(untagged)]
enum OneOrMany<'a> {
    One(&'a str),
    Many(Vec<&'a str>),
}

impl<'a> From<&'a AccessClaims> for AccessClaimsJson<'a> {
    fn from(claims: &'a AccessClaims) -> Self {
        Self {
            iss: &claims.issuer,
            sub: claims.subject.to_string(),
            aud: match claims.audience.as_slice() {
                [one] => OneOrMany::One(one.as_str()),
                many => OneOrMany::Many(many.iter().map(Audience::as_str).collect()),
            },
            exp: claims.expires_at.seconds(),
            iat: claims.issued_at.seconds(),
            nbf: claims.not_before.seconds(),
            jti: claims.jti.as_str(),
            client_id: claims.client.as_str(),
            scope: (!claims.scope.is_empty()).then(|| claims.scope.to_string()),
            login: claims.login.as_ref().map(|login| LoginJson {
                sid: login.session.to_string(),
                auth_time: login.authenticated_at.seconds(),
                amr: &login.methods,
                roles: login.roles.iter().map(Role::as_str).collect(),
                preferred_username: &login.username,
            }),
            uep: claims.user_epoch,
            cep: claims.client_epoch,
            iep: claims.installation_epoch,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Reads the payload of a token with a verified signature, and makes every check that does not depend on state.
pub(super) fn read(payload: &[u8], issuer: &str, now: Timestamp) -> Result<AccessClaims, ClaimsRefusal> {
    let raw: RawClaims = json::from_slice(payload).map_err(ClaimsRefusal::Json)?;
    if raw.iss != issuer {
        return Err(ClaimsRefusal::WrongIssuer);
    }
    let dates = Dates {
        expires_at: raw.exp.0,
        issued_at: raw.iat.0,
        not_before: raw.nbf.map_or(raw.iat.0, |NumericDate(not_before)| not_before),
    };
    dates.check(now, MAX_ACCESS_TOKEN_LIFE)?;
    raw.checked(dates)
}

/// The claims with their JSON types. `null` is not the same as an absent claim; unknown claims are ignored.
#[derive(Deserialize)]
struct RawClaims {
    iss: String,
    sub: String,
    aud: AudienceClaim,
    exp: NumericDate,
    iat: NumericDate,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<NumericDate>,
    jti: String,
    client_id: String,
    #[serde(default, deserialize_with = "present")]
    scope: Option<String>,
    #[serde(default, deserialize_with = "present")]
    sid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    auth_time: Option<NumericDate>,
    #[serde(default, deserialize_with = "present")]
    amr: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    roles: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    preferred_username: Option<String>,
    #[serde(default)]
    uep: u32,
    #[serde(default)]
    cep: u32,
    #[serde(default)]
    iep: u32,
}

impl RawClaims {
    fn checked(self, dates: Dates) -> Result<AccessClaims, ClaimsRefusal> {
        let subject = Subject::parse(&self.sub).map_err(malformed("sub"))?;
        let client = ClientId::parse(&self.client_id).map_err(malformed("client_id"))?;
        let login = match (self.sid, self.auth_time, self.amr, self.preferred_username) {
            (Some(sid), Some(auth_time), Some(methods), Some(username)) => Some(LoginClaims {
                session: SessionId::parse(&sid).map_err(malformed("sid"))?,
                authenticated_at: auth_time.0,
                methods,
                roles: parse_all(&self.roles.unwrap_or_default(), Role::parse).map_err(malformed("roles"))?,
                username,
            }),
            (None, None, None, None) if self.roles.is_none() => None,
            _ => return Err(ClaimsRefusal::Claim("sid", "is not present together with the other claims of a login")),
        };
        match (&subject, &login) {
            (Subject::User(_), None) => return Err(ClaimsRefusal::Claim("sid", "is missing although `sub` is a user")),
            (Subject::Client(_), Some(_)) => {
                return Err(ClaimsRefusal::Claim("sid", "is present although `sub` is a client"));
            }
            (Subject::Client(id), None) if *id != client => {
                return Err(ClaimsRefusal::Claim("sub", "is a client other than `client_id`"));
            }
            _ => {}
        }
        Ok(AccessClaims {
            issuer: self.iss,
            subject,
            audience: parse_all(&self.aud.0, Audience::parse).map_err(malformed("aud"))?,
            expires_at: dates.expires_at,
            issued_at: dates.issued_at,
            not_before: dates.not_before,
            jti: Jti::parse(&self.jti).map_err(malformed("jti"))?,
            client,
            scope: ScopeSet::parse(self.scope.as_deref().unwrap_or_default()).map_err(malformed("scope"))?,
            login,
            user_epoch: self.uep,
            client_epoch: self.cep,
            installation_epoch: self.iep,
        })
    }
}

fn malformed(claim: &'static str) -> impl Fn(ParseError) -> ClaimsRefusal {
    move |ParseError(rule)| ClaimsRefusal::Claim(claim, rule)
}

fn parse_all<T>(texts: &[String], parse: fn(&str) -> Result<T, ParseError>) -> Result<Vec<T>, ParseError> {
    texts.iter().map(|text| parse(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::fixtures::{ISSUER, NOW, client_claims, user_claims};

    fn json(claims: &AccessClaims) -> String {
        serde_json::to_string(&AccessClaimsJson::from(claims)).unwrap()
    }

    fn pretty(claims: &AccessClaims) -> String {
        serde_json::to_string_pretty(&AccessClaimsJson::from(claims)).unwrap()
    }

    #[test]
    fn the_claims_of_a_users_token_are_exactly_these() {
        insta::assert_snapshot!(pretty(&user_claims()), @r#"
        {
          "iss": "https://auth.example.com",
          "sub": "usr_AQEBAQEBAQEBAQEBAQEBAQ",
          "aud": "https://api.example.com",
          "exp": 1800000300,
          "iat": 1800000000,
          "nbf": 1800000000,
          "jti": "AgICAgICAgICAgICAgICAg",
          "client_id": "web",
          "scope": "read write",
          "sid": "ses_AwMDAwMDAwMDAwMDAwMDAw",
          "auth_time": 1800000000,
          "amr": [
            "pwd"
          ],
          "roles": [
            "admin"
          ],
          "preferred_username": "alice",
          "uep": 4
        }
        "#);
    }

    #[test]
    fn the_claims_of_a_clients_token_are_exactly_these() {
        insta::assert_snapshot!(pretty(&client_claims()), @r#"
        {
          "iss": "https://auth.example.com",
          "sub": "batch",
          "aud": [
            "a",
            "b"
          ],
          "exp": 1800000300,
          "iat": 1800000000,
          "nbf": 1800000000,
          "jti": "AgICAgICAgICAgICAgICAg",
          "client_id": "batch",
          "cep": 9,
          "iep": 7
        }
        "#);
    }

    #[test]
    fn claims_round_trip() {
        for claims in [user_claims(), client_claims()] {
            assert_eq!(read(json(&claims).as_bytes(), ISSUER, NOW), Ok(claims));
        }
    }
}
