//! `private_key_jwt`: a client authenticates with a JWT that it signed (RFC 7523 §2.2 and §3, RFC 7521 §4.2).
//!
//! Form, header and signature are checked as for access tokens; the keys and the required claims differ. The caller
//! must accept each `jti` only once, until [`Assertion::expires_at`].

use std::time::Duration;

use serde::Deserialize;

use super::claims::{AudienceClaim, ClaimsRefusal, Dates, NumericDate};
use super::jwk_set::PublicKeySet;
use super::jws::{JwsRefusal, UnverifiedJws};
use crate::domain::{ClientId, Jti, Timestamp};
use crate::json::{self, present};

/// Maximum time from now to `exp`. Libraries use one to ten minutes; a used `jti` is stored that long.
pub const MAX_ASSERTION_LIFE: Duration = Duration::from_secs(10 * 60);

/// Accepted `typ` values besides an absent one: `JWT`, and the explicit type of RFC 7523's revision.
const TYPES: [&str; 2] = ["jwt", "client-authentication+jwt"];

/// An assertion with an unverified signature. It only names the client, and can be verified with the client's keys.
#[derive(Debug)]
pub struct UnverifiedAssertion<'a> {
    jws: UnverifiedJws<'a>,
    client: ClientId,
}

/// A verified assertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// Must be accepted only once.
    pub jti: Jti,
    /// The `jti` must be stored until this instant.
    pub expires_at: Timestamp,
}

/// Why an assertion is refused. For operators; the caller gets `invalid_client`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssertionRefusal {
    /// Form, header or signature.
    #[error(transparent)]
    Jws(#[from] JwsRefusal),
    /// `kid` is not one of the client's keys, or it is missing although the client has several keys.
    #[error("the assertion's `kid` is not a key of the client; it may be missing only if the client has one key")]
    UnknownKey,
    /// `typ` is of another kind of token.
    #[error("the assertion's `typ` is that of another kind of token")]
    WrongType,
    #[error("`iss` and `sub` of the assertion are not both the client's id")]
    WrongClient,
    /// An audience is not this service.
    #[error("the assertion's `aud` must contain only the issuer or the token endpoint of this service")]
    WrongAudience,
    #[error(transparent)]
    Claims(#[from] ClaimsRefusal),
}

impl<'a> UnverifiedAssertion<'a> {
    /// Reads the header, and `sub` as the only claim.
    pub fn parse(jwt: &'a str) -> Result<Self, AssertionRefusal> {
        #[derive(Deserialize)]
        struct Subject {
            sub: String,
        }
        let jws = UnverifiedJws::parse_jwt(jwt)?;
        let payload = jws.unverified_payload()?;
        let subject: Subject = json::from_slice(&payload).map_err(ClaimsRefusal::Json)?;
        let client = ClientId::parse(&subject.sub).map_err(|_| AssertionRefusal::WrongClient)?;
        Ok(Self { jws, client })
    }

    /// The client in `sub`, unverified.
    pub const fn client(&self) -> &ClientId {
        &self.client
    }

    /// Verifies the assertion with the client's keys. `audiences` are the accepted names of this service: its issuer
    /// and the URL of its token endpoint.
    pub fn verify(
        self,
        keys: &PublicKeySet,
        audiences: &[&str],
        now: Timestamp,
    ) -> Result<Assertion, AssertionRefusal> {
        let key = match self.jws.kid() {
            Some(kid) => keys.by_kid(kid),
            None => keys.only(),
        };
        let verified = self.jws.verify(key.ok_or(AssertionRefusal::UnknownKey)?)?;
        if !verified.typ.as_deref().is_none_or(is_assertion_type) {
            return Err(AssertionRefusal::WrongType);
        }
        let claims: RawAssertion = json::from_slice(&verified.payload).map_err(ClaimsRefusal::Json)?;
        claims.checked(&self.client, audiences, now)
    }
}

fn is_assertion_type(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    TYPES.contains(&typ.strip_prefix("application/").unwrap_or(&typ))
}

#[derive(Deserialize)]
struct RawAssertion {
    iss: String,
    aud: AudienceClaim,
    exp: NumericDate,
    #[serde(default, deserialize_with = "present")]
    iat: Option<NumericDate>,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<NumericDate>,
    jti: String,
}

impl RawAssertion {
    fn checked(self, client: &ClientId, audiences: &[&str], now: Timestamp) -> Result<Assertion, AssertionRefusal> {
        // `sub` is the client: it was read from the same bytes.
        if self.iss != client.as_str() {
            return Err(AssertionRefusal::WrongClient);
        }
        // All audiences must match: another audience could send the assertion on to this service.
        if !self.aud.0.iter().all(|audience| audiences.contains(&audience.as_str())) {
            return Err(AssertionRefusal::WrongAudience);
        }
        let expires_at = self.exp.0;
        // `iat` and `nbf` are optional (RFC 7523 §3). Without `iat`, the earliest acceptable instant is used, so that
        // `exp` is never further ahead than the maximum lifetime.
        let issued_at = self.iat.map_or(expires_at.minus(MAX_ASSERTION_LIFE), |NumericDate(at)| at);
        let not_before = self.nbf.map_or(issued_at, |NumericDate(at)| at);
        Dates { expires_at, issued_at, not_before }.check(now, MAX_ASSERTION_LIFE)?;
        let jti = Jti::parse(&self.jti)
            .map_err(|_| ClaimsRefusal::Claim("jti", "is not 1 to 128 visible ASCII characters"))?;
        Ok(Assertion { jti, expires_at })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::crypto::SigningKey;
    use crate::crypto::fixtures::{ISSUER, NOW, eddsa_key, es256_key, user_claims};
    use crate::crypto::jwk::jwks_json;
    use crate::domain::TokenType;

    const ENDPOINT: &str = "https://auth.example.com/oauth2/token";

    fn client() -> ClientId {
        ClientId::parse("batch").unwrap()
    }

    fn set_of(keys: &[&SigningKey]) -> PublicKeySet {
        let keys: Vec<_> = keys.iter().map(|key| key.public()).collect();
        PublicKeySet::parse(&jwks_json(&keys)).unwrap()
    }

    fn claims() -> Value {
        let now = NOW.seconds();
        json!({"iss": "batch", "sub": "batch", "aud": ENDPOINT, "exp": now + 60, "iat": now, "jti": "assertion-1"})
    }

    fn verify(claims: &Value) -> Result<Assertion, AssertionRefusal> {
        let key = es256_key();
        verify_token(&key.sign_jwt("JWT", claims).unwrap(), &set_of(&[&key]))
    }

    fn verify_token(token: &str, keys: &PublicKeySet) -> Result<Assertion, AssertionRefusal> {
        UnverifiedAssertion::parse(token)?.verify(keys, &[ISSUER, ENDPOINT], NOW)
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = claims();
        claims[name] = value;
        claims
    }

    #[test]
    fn a_valid_assertion_authenticates_the_client_and_returns_its_jti() {
        let expected = Assertion {
            jti: Jti::parse("assertion-1").unwrap(),
            expires_at: Timestamp::from_seconds(NOW.seconds() + 60),
        };
        for aud in [json!(ENDPOINT), json!(ISSUER), json!([ISSUER]), json!([ISSUER, ENDPOINT])] {
            assert_eq!(verify(&with("aud", aud)), Ok(expected.clone()));
        }
        let mut minimal = claims();
        minimal.as_object_mut().unwrap().remove("iat");
        assert_eq!(verify(&minimal), Ok(expected));
    }

    #[test]
    fn iss_and_sub_must_be_the_client() {
        for name in ["iss", "sub"] {
            for value in [json!("other"), json!("Batch"), json!(""), json!(["batch"]), json!(null), json!(1)] {
                assert!(verify(&with(name, value.clone())).is_err(), "{name} {value}");
            }
        }
        assert_eq!(verify(&with("sub", json!("other"))), Err(AssertionRefusal::WrongClient));
    }

    #[test]
    fn an_assertion_with_another_audience_is_refused() {
        let foreign = "https://other.example/token";
        for aud in [json!(foreign), json!([ISSUER, foreign]), json!(format!("{ISSUER}/"))] {
            assert_eq!(verify(&with("aud", aud)), Err(AssertionRefusal::WrongAudience));
        }
        for aud in [json!([]), json!(""), json!(null), json!(7)] {
            assert!(verify(&with("aud", aud)).is_err());
        }
    }

    #[test]
    fn t8_its_lifetime_is_bounded_to_the_second() {
        let now = NOW.seconds();
        let is_accepted = |exp: i64, iat: Option<i64>| {
            let mut claims = with("exp", json!(exp));
            match iat {
                Some(iat) => claims["iat"] = json!(iat),
                None => drop(claims.as_object_mut().unwrap().remove("iat")),
            }
            verify(&claims).is_ok()
        };
        assert!(is_accepted(now + 1, Some(now)) && !is_accepted(now, Some(now - 1)));
        assert!(is_accepted(now + 600, Some(now)) && !is_accepted(now + 601, Some(now)));
        assert!(is_accepted(now + 605, Some(now + 5)) && !is_accepted(now + 606, Some(now + 6)));
        assert!(is_accepted(now + 600, None) && is_accepted(now + 605, None) && !is_accepted(now + 606, None));
        assert!(!is_accepted(now + 60, Some(now + 6)));
        for name in ["exp", "jti"] {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(name);
            assert!(verify(&claims).is_err(), "{name} absent");
        }
        assert!(verify(&with("nbf", json!(now + 6))).is_err() && verify(&with("nbf", json!(now + 5))).is_ok());
        assert!(verify(&with("exp", json!(now as f64 + 60.0))).is_err());
        assert!(verify(&with("jti", json!(""))).is_err());
    }

    #[test]
    fn the_key_belongs_to_the_client_and_a_kid_is_required_if_there_are_several() {
        let (mine, other) = (es256_key(), eddsa_key());
        let token = mine.sign_jwt("JWT", &claims()).unwrap();
        assert_eq!(verify_token(&token, &set_of(&[&other])), Err(AssertionRefusal::UnknownKey));
        assert!(verify_token(&token, &set_of(&[&other, &mine])).is_ok());
        let nameless = mine.sign_parts(b"{\"alg\":\"ES256\"}", claims().to_string().as_bytes()).unwrap();
        assert!(verify_token(&nameless, &set_of(&[&mine])).is_ok());
        assert_eq!(verify_token(&nameless, &set_of(&[&mine, &other])), Err(AssertionRefusal::UnknownKey));
        assert!(verify_token(&nameless, &set_of(&[&other])).is_err());
    }

    #[test]
    fn t16_other_kinds_of_tokens_are_no_assertions() {
        let key = es256_key();
        for typ in ["JWT", "jwt", "client-authentication+jwt", "application/client-authentication+jwt"] {
            assert!(verify_token(&key.sign_jwt(typ, &claims()).unwrap(), &set_of(&[&key])).is_ok(), "{typ}");
        }
        for typ in ["at+jwt", "application/at+jwt", "token-introspection+jwt", "dpop+jwt", ""] {
            let token = key.sign_jwt(typ, &claims()).unwrap();
            assert_eq!(verify_token(&token, &set_of(&[&key])), Err(AssertionRefusal::WrongType), "{typ}");
        }
        let access = key.sign_access_token(&user_claims(), TokenType::Jwt).unwrap();
        assert!(verify_token(access.expose(), &set_of(&[&key])).is_err());
    }

    #[test]
    fn t3_t10_an_assertion_is_read_as_strictly_as_an_access_token() {
        let key = es256_key();
        let sign = |header: &str, payload: &str| key.sign_parts(header.as_bytes(), payload.as_bytes()).unwrap();
        let payload = claims().to_string();
        let twice = payload.replacen('{', "{\"x\":1,\"\\u0078\":2,", 1);
        for (header, payload) in [
            (r#"{"alg":"ES256","crit":[]}"#, &payload),
            (r#"{"alg":"none"}"#, &payload),
            (r#"{"alg":"ES256","alg":"ES256"}"#, &payload),
            (r#"{"alg":"ES256","jwk":{}}"#, &payload),
            (r#"{"alg":"ES256"}"#, &twice),
        ] {
            assert!(verify_token(&sign(header, payload), &set_of(&[&key])).is_err(), "{header}");
        }
    }

    #[test]
    fn an_unverified_assertion_names_the_client_and_nothing_else() {
        let token = es256_key().sign_jwt("JWT", &claims()).unwrap();
        assert_eq!(UnverifiedAssertion::parse(&token).unwrap().client(), &client());
        assert!(UnverifiedAssertion::parse("a.b.c").is_err());
    }
}
