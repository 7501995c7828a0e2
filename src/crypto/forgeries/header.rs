//! Forged headers, and tokens of other kinds.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::json;

use super::{Forge, claims, forge};
use crate::crypto::fixtures::{ISSUER, NOW, all_keys, eddsa_key, es256_key, keys_of};
use crate::crypto::{JwsRefusal, SeededRandom, SigningKey, TokenRefusal, verify_access_token};
use crate::domain::{Algorithm, Kid, TokenType};

#[test]
fn t1_no_other_algorithm_name_or_spelling_is_accepted_with_any_signature() {
    const NAMES: [&str; 13] = [
        "none", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
        "EdDSA",
    ];
    let spellings = |name: &str| {
        let alternating: String = name
            .char_indices()
            .map(|(at, c)| if at % 2 == 0 { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() })
            .collect();
        let plain = [name.to_owned(), name.to_lowercase(), name.to_uppercase(), alternating];
        let padded = [format!(" {name}"), format!("{name} "), format!("{name}\0"), format!("{name}\u{200b}")];
        plain.into_iter().chain(padded).collect::<Vec<_>>()
    };
    let mut cases = 0;
    for key in all_keys() {
        let forge = Forge::new(key);
        let own = forge.key.algorithm().as_str();
        let public = serde_json::to_vec(&forge.key.public()).unwrap();
        for (name, spelling) in NAMES.iter().flat_map(|name| spellings(name).into_iter().map(move |text| (name, text)))
        {
            let signed = forge.sign_header(&forge.header_with("alg", json!(spelling)));
            let unsigned = &signed[..=signed.rfind('.').unwrap()];
            // Algorithm confusion: the public key used as an HMAC secret.
            let mac =
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &public), unsigned.trim_end_matches('.').as_bytes());
            let shapes = [
                signed.clone(),
                unsigned.to_owned(),
                format!("{unsigned}{}", URL_SAFE_NO_PAD.encode([0; 64])),
                format!("{unsigned}{}", URL_SAFE_NO_PAD.encode(mac)),
            ];
            for (shape, token) in shapes.iter().enumerate() {
                let is_valid = *name == own && spelling == own && shape == 0;
                assert_eq!(forge.verify(token).is_ok(), is_valid, "{own} key, {spelling:?}, shape {shape}");
                cases += 1;
            }
        }
        for name in ["Ed25519", "ESP256", ""] {
            assert!(forge.verify(&forge.sign_header(&forge.header_with("alg", json!(name)))).is_err());
        }
        for odd in [json!(null), json!(7), json!([own]), json!({ "alg": own })] {
            assert!(forge.verify(&forge.sign_header(&forge.header_with("alg", odd))).is_err());
        }
    }
    assert_eq!(cases, 4 * 13 * 8 * 4);
}

#[test]
fn t1_a_key_does_not_verify_a_signature_of_another_algorithm_whatever_the_header_says() {
    let (eddsa, es256) = (eddsa_key(), es256_key());
    let keys = keys_of(&[&eddsa, &es256]);
    for (signer, named) in [(&eddsa, &es256), (&es256, &eddsa)] {
        for alg in [signer.algorithm(), named.algorithm()] {
            let header = json!({"alg": alg.as_str(), "kid": named.kid().as_str(), "typ": "at+jwt"}).to_string();
            let token = signer.sign_parts(header.as_bytes(), claims().to_string().as_bytes()).unwrap();
            assert!(verify_access_token(&token, &keys, ISSUER, NOW).is_err());
        }
    }
}

#[test]
fn t2_typ_is_compared_as_a_media_type() {
    let forge = forge();
    let accepted = [
        ("at+jwt", TokenType::AtJwt),
        ("AT+JWT", TokenType::AtJwt),
        ("At+Jwt", TokenType::AtJwt),
        ("application/at+jwt", TokenType::AtJwt),
        ("Application/AT+JWT", TokenType::AtJwt),
        ("JWT", TokenType::Jwt),
        ("jwt", TokenType::Jwt),
        ("application/jwt", TokenType::Jwt),
    ];
    for (typ, token_type) in accepted {
        let verified = forge.verify(&forge.sign_header(&forge.header_with("typ", json!(typ)))).unwrap();
        assert_eq!(verified.token_type, token_type, "{typ}");
    }
    let refused = [
        "",
        " at+jwt",
        "at+jwt ",
        "at+jwt;v=1",
        "at-jwt",
        "atjwt",
        "text/at+jwt",
        "application/application/at+jwt",
        "application/",
        "rt+jwt",
        "id+jwt",
        "dpop+jwt",
        "secevent+jwt",
        "logout+jwt",
        "JWS",
        "JOSE",
        "JWE",
        "token-introspection+jwt",
        "client-authentication+jwt",
    ];
    for typ in refused {
        let result = forge.verify(&forge.sign_header(&forge.header_with("typ", json!(typ))));
        assert_eq!(result, Err(TokenRefusal::WrongType), "{typ:?}");
    }
    for odd in [json!(null), json!(1), json!(["at+jwt"]), json!({})] {
        assert!(forge.verify(&forge.sign_header(&forge.header_with("typ", odd))).is_err());
    }
    let mut untyped = forge.header();
    untyped.as_object_mut().unwrap().remove("typ");
    assert_eq!(forge.verify(&forge.sign_header(&untyped.to_string())), Err(TokenRefusal::WrongType));
}

#[test]
fn t3_every_form_of_crit_is_refused_although_the_signature_is_valid() {
    let forge = forge();
    let shapes = [
        json!([]),
        json!(["b64"]),
        json!(["exp"]),
        json!(["alg"]),
        json!(["x-unknown"]),
        json!(["b64", "b64"]),
        json!([1]),
        json!("b64"),
        json!(null),
        json!(false),
        json!({}),
        json!(0),
    ];
    for crit in shapes {
        let result = forge.verify(&forge.sign_header(&forge.header_with("crit", crit.clone())));
        assert_eq!(result, Err(JwsRefusal::ForbiddenParameter("crit").into()), "{crit}");
    }
}

#[test]
fn t4_keys_and_locations_of_keys_in_the_header_are_refused_and_x5t_is_ignored() {
    let forge = forge();
    let jwk = serde_json::to_value(forge.key.public()).unwrap();
    let hostile = json!("https://attacker.example/keys");
    for name in ["jwk", "jku", "x5u", "x5c", "b64", "enc", "zip"] {
        for value in [jwk.clone(), hostile.clone(), json!([]), json!(null), json!(true)] {
            let result = forge.verify(&forge.sign_header(&forge.header_with(name, value)));
            assert_eq!(result, Err(JwsRefusal::ForbiddenParameter(name).into()), "{name}");
        }
    }
    forge.verify(&forge.sign_header(&forge.header_with("x5t", json!("AAAA")))).unwrap();
    // The attacker's own key under our kid: the header does not choose the key.
    let attacker = SigningKey::generate(Algorithm::EdDsa, &SeededRandom::new(66)).unwrap();
    let token = attacker.sign_parts(forge.header().to_string().as_bytes(), claims().to_string().as_bytes()).unwrap();
    assert_eq!(forge.verify(&token), Err(JwsRefusal::BadSignature.into()));
}

#[test]
fn t5_kid_is_required_bounded_and_compared_exactly() {
    let forge = forge();
    let own = forge.key.kid().as_str().to_owned();
    let unusable = [json!(""), json!("a".repeat(65)), json!("../../etc/passwd"), json!("' OR 1=1 --"), json!("é")];
    for kid in unusable {
        let result = forge.verify(&forge.sign_header(&forge.header_with("kid", kid.clone())));
        assert_eq!(result, Err(TokenRefusal::NoKid), "{kid}");
    }
    for odd in [json!(null), json!(0), json!([own]), json!({})] {
        assert!(forge.verify(&forge.sign_header(&forge.header_with("kid", odd))).is_err());
    }
    for near in [own.to_uppercase(), own[1..].to_owned(), format!("{own}-"), "unknown".to_owned()] {
        let result = forge.verify(&forge.sign_header(&forge.header_with("kid", json!(near))));
        assert_eq!(result, Err(TokenRefusal::UnknownKey(Kid::parse(&near).unwrap())));
    }
    let mut nameless = forge.header();
    nameless.as_object_mut().unwrap().remove("kid");
    assert_eq!(forge.verify(&forge.sign_header(&nameless.to_string())), Err(TokenRefusal::NoKid));
}

#[test]
fn t16_an_introspection_response_as_jwt_is_not_an_access_token() {
    let forge = forge();
    let answer = json!({"iss": ISSUER, "aud": "api", "iat": NOW.seconds(), "token_introspection": claims()});
    let token = forge.key.sign_jwt("token-introspection+jwt", &answer).unwrap();
    assert_eq!(forge.verify(&token), Err(TokenRefusal::WrongType));
    // Even with the right `typ` it lacks the top-level claims of an access token.
    assert!(forge.verify(&forge.key.sign_jwt("at+jwt", &answer).unwrap()).is_err());
}
