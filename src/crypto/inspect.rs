//! Unverified decoding of tokens, for `countersign token decode`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::jws::{JwsRefusal, MAX_TOKEN_BYTES};
use crate::json;

/// Header and claims of a token. Nothing is verified: for display only, never for a decision.
#[derive(Debug, Clone, PartialEq)]
pub struct UnverifiedToken {
    pub header: Value,
    pub claims: Value,
}

impl UnverifiedToken {
    /// Decodes header and claims, also of tokens with a header that verification refuses.
    pub fn decode(token: &str) -> Result<Self, JwsRefusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(JwsRefusal::TooLong);
        }
        let [header, claims, _] = token.split('.').collect::<Vec<_>>()[..] else {
            return Err(JwsRefusal::NotCompact);
        };
        let decode = |part: &str, name| URL_SAFE_NO_PAD.decode(part).map_err(|_| JwsRefusal::NotBase64(name));
        Ok(Self {
            header: json::from_slice(&decode(header, "header")?).map_err(JwsRefusal::Header)?,
            claims: json::from_slice(&decode(claims, "payload")?).map_err(JwsRefusal::Payload)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::fixtures::{eddsa_key, user_claims};
    use crate::domain::TokenType;

    #[test]
    fn a_token_is_decoded_whatever_key_signed_it() {
        let token = eddsa_key().sign_access_token(&user_claims(), TokenType::AtJwt).unwrap();
        let (signed, _) = token.expose().rsplit_once('.').unwrap();
        for text in [token.expose(), &format!("{signed}.")] {
            let shown = UnverifiedToken::decode(text).unwrap();
            assert_eq!(shown.header["typ"], "at+jwt");
            assert_eq!(shown.claims["client_id"], "web");
        }
        let hostile = eddsa_key().sign_parts(b"{\"alg\":\"none\",\"crit\":[]}", b"{}").unwrap();
        assert!(UnverifiedToken::decode(&hostile).is_ok());
    }

    #[test]
    fn text_that_is_no_token_is_refused() {
        for text in ["", "a.b", "a.b.c.d", "e30.e30=.", "e30.W10.", "cs_rt_AAAA"] {
            assert!(UnverifiedToken::decode(text).is_err(), "{text}");
        }
    }
}
