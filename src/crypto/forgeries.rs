//! Forgeries: tokens that differ from honest ones in one thing each, most of them validly signed, and all refused
//! (security.md group T). The names of the tests are the requirements.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use ring::hmac;
use serde_json::{Value, json};

use super::fixtures::{ISSUER, NOW, all_keys, client_claims, eddsa_key, es256_key, keys_of, user_claims};
use super::{
    ClaimsRefusal, JwsRefusal, MAX_TOKEN_BYTES, SigningKey, TokenRefusal, UnverifiedJws, VerifiedToken, VerifyingKey,
    verify_access_token,
};
use crate::domain::{Kid, Timestamp, TokenType};

/// A key, the key set that holds it, and tokens made with it.
struct Forge {
    key: SigningKey,
    keys: HashMap<Kid, VerifyingKey>,
}

impl Forge {
    fn new(key: SigningKey) -> Self {
        let keys = keys_of(&[&key]);
        Self { key, keys }
    }

    fn judge(&self, token: &str) -> Result<VerifiedToken, TokenRefusal> {
        self.judge_at(token, NOW)
    }

    fn judge_at(&self, token: &str, now: Timestamp) -> Result<VerifiedToken, TokenRefusal> {
        verify_access_token(token, &self.keys, ISSUER, now)
    }

    fn header(&self) -> Value {
        json!({"alg": self.key.algorithm().as_str(), "kid": self.key.kid().as_str(), "typ": "at+jwt"})
    }

    /// The honest header with one member changed or added.
    fn header_with(&self, name: &str, value: Value) -> String {
        let mut header = self.header();
        header[name] = value;
        header.to_string()
    }

    fn sign(&self, header: &str, payload: &str) -> String {
        self.key.sign_parts(header.as_bytes(), payload.as_bytes()).unwrap()
    }

    fn sign_header(&self, header: &str) -> String {
        self.sign(header, &claims().to_string())
    }

    fn sign_claims(&self, payload: &str) -> String {
        self.sign(&self.header().to_string(), payload)
    }

    fn judge_claims(&self, payload: &Value) -> Result<VerifiedToken, TokenRefusal> {
        self.judge(&self.sign_claims(&payload.to_string()))
    }
}

/// The honest claims as JSON.
fn claims() -> Value {
    let token = eddsa_key().sign_access_token(&user_claims(), TokenType::AtJwt).unwrap();
    let payload = token.expose().split('.').nth(1).unwrap().to_owned();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn claims_without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name).unwrap();
    claims
}

fn forge() -> Forge {
    Forge::new(eddsa_key())
}

/// `{"a":1}` as text with `member` put in at the front, so that duplicates and odd spellings can be written.
fn with_member(object: &Value, member: &str) -> String {
    format!("{{{member},{}", &object.to_string()[1..])
}

#[test]
fn the_honest_token_passes_so_that_a_refusal_below_means_something() {
    for key in all_keys() {
        let forge = Forge::new(key);
        forge.judge(&forge.sign_header(&forge.header().to_string())).unwrap();
    }
}

#[test]
fn t1_no_other_algorithm_name_and_no_other_spelling_passes_in_any_signature_shape() {
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
    let mut judged = 0;
    for key in all_keys() {
        let forge = Forge::new(key);
        let own = forge.key.algorithm().as_str();
        let public = serde_json::to_vec(&forge.key.public()).unwrap();
        for (name, spelling) in NAMES.iter().flat_map(|name| spellings(name).into_iter().map(move |text| (name, text)))
        {
            let signed = forge.sign_header(&forge.header_with("alg", json!(spelling)));
            let unsigned = &signed[..=signed.rfind('.').unwrap()];
            // The classic confusion: the public key taken for a shared secret.
            let mac =
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &public), unsigned.trim_end_matches('.').as_bytes());
            let shapes = [
                signed.clone(),
                unsigned.to_owned(),
                format!("{unsigned}{}", URL_SAFE_NO_PAD.encode([0; 64])),
                format!("{unsigned}{}", URL_SAFE_NO_PAD.encode(mac)),
            ];
            for (shape, token) in shapes.iter().enumerate() {
                let is_honest = *name == own && spelling == own && shape == 0;
                assert_eq!(forge.judge(token).is_ok(), is_honest, "{own} key, {spelling:?}, shape {shape}");
                judged += 1;
            }
        }
        for name in ["Ed25519", "ESP256", ""] {
            assert!(forge.judge(&forge.sign_header(&forge.header_with("alg", json!(name)))).is_err());
        }
        for odd in [json!(null), json!(7), json!([own]), json!({ "alg": own })] {
            assert!(forge.judge(&forge.sign_header(&forge.header_with("alg", odd))).is_err());
        }
    }
    assert_eq!(judged, 4 * 13 * 8 * 4);
}

#[test]
fn t1_a_key_of_another_algorithm_does_not_verify_although_the_header_fits_it() {
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
fn t2_twenty_spellings_of_typ_are_judged_as_media_types() {
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
        let verified = forge.judge(&forge.sign_header(&forge.header_with("typ", json!(typ)))).unwrap();
        assert_eq!(verified.token_type, token_type, "{typ}");
    }
    let refused = [
        "",
        " at+jwt",
        "at+jwt ",
        "at+jwt;v=1",
        "at-jwt",
        "atjwt",
        "at+jwt\0",
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
        let judged = forge.judge(&forge.sign_header(&forge.header_with("typ", json!(typ))));
        assert_eq!(judged, Err(TokenRefusal::WrongType), "{typ:?}");
    }
    for odd in [json!(null), json!(1), json!(["at+jwt"]), json!({})] {
        assert!(forge.judge(&forge.sign_header(&forge.header_with("typ", odd))).is_err());
    }
    let mut untyped = forge.header();
    untyped.as_object_mut().unwrap().remove("typ");
    assert_eq!(forge.judge(&forge.sign_header(&untyped.to_string())), Err(TokenRefusal::WrongType));
}

#[test]
fn t3_every_shape_of_crit_is_refused_although_validly_signed() {
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
        let judged = forge.judge(&forge.sign_header(&forge.header_with("crit", crit.clone())));
        assert_eq!(judged, Err(JwsRefusal::ForbiddenParameter("crit").into()), "{crit}");
    }
}

#[test]
fn t4_keys_and_places_of_keys_in_the_header_are_refused_and_x5t_selects_nothing() {
    let forge = forge();
    let jwk = serde_json::to_value(forge.key.public()).unwrap();
    let hostile = json!("https://attacker.example/keys");
    for name in ["jwk", "jku", "x5u", "x5c", "b64", "enc", "zip"] {
        for value in [jwk.clone(), hostile.clone(), json!([]), json!(null), json!(true)] {
            let judged = forge.judge(&forge.sign_header(&forge.header_with(name, value)));
            assert_eq!(judged, Err(JwsRefusal::ForbiddenParameter(name).into()), "{name}");
        }
    }
    forge.judge(&forge.sign_header(&forge.header_with("x5t", json!("AAAA")))).unwrap();
    // The attacker's own key, embedded and named: the header's words choose nothing.
    let attacker = SigningKey::generate(crate::domain::Algorithm::EdDsa, &super::SeededRandom::new(66)).unwrap();
    let token = attacker.sign_parts(forge.header().to_string().as_bytes(), claims().to_string().as_bytes()).unwrap();
    assert_eq!(forge.judge(&token), Err(JwsRefusal::BadSignature.into()));
}

#[test]
fn t5_kid_is_mandatory_bounded_and_looked_up_exactly() {
    let forge = forge();
    let own = forge.key.kid().as_str().to_owned();
    let unusable =
        [json!(""), json!("a".repeat(65)), json!("../../etc/passwd"), json!("' OR 1=1 --"), json!("a\0"), json!("é")];
    for kid in unusable {
        let judged = forge.judge(&forge.sign_header(&forge.header_with("kid", kid.clone())));
        assert_eq!(judged, Err(TokenRefusal::NoKid), "{kid}");
    }
    for odd in [json!(null), json!(0), json!([own]), json!({})] {
        assert!(forge.judge(&forge.sign_header(&forge.header_with("kid", odd))).is_err());
    }
    for near in [own.to_uppercase(), own[1..].to_owned(), format!("{own}-"), "unknown".to_owned()] {
        let judged = forge.judge(&forge.sign_header(&forge.header_with("kid", json!(near))));
        assert_eq!(judged, Err(TokenRefusal::UnknownKey(Kid::parse(&near).unwrap())));
    }
    let mut nameless = forge.header();
    nameless.as_object_mut().unwrap().remove("kid");
    assert_eq!(forge.judge(&forge.sign_header(&nameless.to_string())), Err(TokenRefusal::NoKid));
}

#[test]
fn t6_every_required_claim_must_be_there_with_its_type() {
    let forge = forge();
    for name in ["iss", "sub", "aud", "exp", "iat", "jti", "client_id"] {
        assert!(forge.judge_claims(&claims_without(name)).is_err(), "{name} absent");
        let wrong: [Value; 7] =
            [json!(null), json!(true), json!(7.5), json!({}), json!([]), json!(""), json!([[claims()[name]]])];
        for value in wrong {
            assert!(forge.judge_claims(&claims_with(name, value.clone())).is_err(), "{name} {value}");
        }
        let as_text = claims()[name].to_string();
        let other_type = if claims()[name].is_number() { json!(as_text) } else { json!(1_800_000_000) };
        assert!(forge.judge_claims(&claims_with(name, other_type)).is_err(), "{name} as the other type");
    }
    for name in ["nbf", "scope", "sid", "auth_time", "amr", "roles", "preferred_username", "uep", "cep"] {
        for value in [json!(null), json!(true), json!(-1), json!({}), json!([[]])] {
            assert!(forge.judge_claims(&claims_with(name, value.clone())).is_err(), "{name} {value}");
        }
    }
}

#[test]
fn t6_the_claims_of_a_login_stand_together_and_beside_a_user_only() {
    let forge = forge();
    for name in ["sid", "auth_time", "amr", "roles", "preferred_username"] {
        assert!(forge.judge_claims(&claims_without(name)).is_err(), "{name} alone is missing");
    }
    let client = client_claims();
    let token = forge.key.sign_access_token(&client, TokenType::AtJwt).unwrap();
    assert_eq!(forge.judge(token.expose()).unwrap().claims, client);
    assert!(forge.judge_claims(&claims_with("sub", json!("web"))).is_err(), "a client with a session");
    assert!(forge.judge_claims(&claims_with("sid", json!("usr_AAAAAAAAAAAAAAAAAAAAAA"))).is_err());
    let mut impostor = claims();
    for name in ["sid", "auth_time", "amr", "roles", "preferred_username"] {
        impostor.as_object_mut().unwrap().remove(name);
    }
    assert!(forge.judge_claims(&impostor).is_err(), "a user without a session");
    impostor["sub"] = json!("other-client");
    assert!(forge.judge_claims(&impostor).is_err(), "a client for another client");
    impostor["uep"] = json!(0);
    impostor["sub"] = json!("web");
    assert!(forge.judge_claims(&impostor).is_ok());
}

#[test]
fn t7_near_misses_of_the_issuer_are_another_issuer() {
    let forge = forge();
    let near = [
        "https://auth.example.com/",
        "https://auth.example.com//",
        "https://auth.example.com.",
        "https://auth.example.com:443",
        "http://auth.example.com",
        "HTTPS://auth.example.com",
        "https://AUTH.example.com",
        "https://auth.example.co",
        "https://auth.example.comm",
        "https://auth.example.com/.",
        "https://auth.example.com?",
        "https://auth.example.com#",
        " https://auth.example.com",
        "https://auth.example.com ",
        "https://auth.example.com\n",
        "https://auth.example.com\0",
        "https://auth.example.com%2F",
        "https://a@auth.example.com",
        "auth.example.com",
        "//auth.example.com",
        "https://auth\u{2024}example.com",
        "https://аuth.example.com",
        "https://auth.example.com\u{200b}",
        "*",
        "https://",
    ];
    assert_eq!(near.len(), 25);
    for issuer in near {
        assert_eq!(
            forge.judge_claims(&claims_with("iss", json!(issuer))),
            Err(ClaimsRefusal::WrongIssuer.into()),
            "{issuer:?}"
        );
    }
    for shape in [json!([ISSUER]), json!({ ISSUER: 1 }), json!(null), json!([ISSUER, "https://attacker.example"])] {
        assert!(forge.judge_claims(&claims_with("iss", shape)).is_err());
    }
}

#[test]
fn t7_aud_is_a_string_or_an_array_of_strings_with_something_in_it() {
    let forge = forge();
    for good in [json!("one"), json!(["one"]), json!(["one", "https://two.example"])] {
        forge.judge_claims(&claims_with("aud", good)).unwrap();
    }
    let bad = [
        json!(""),
        json!([]),
        json!([""]),
        json!(["one", ""]),
        json!(["one", 7]),
        json!(["one", null]),
        json!([["one"]]),
        json!({"one": true}),
        json!(7),
        json!(null),
        json!("two words"),
        json!(["one", "tab\t"]),
        json!("x".repeat(257)),
    ];
    for aud in bad {
        assert!(forge.judge_claims(&claims_with("aud", aud.clone())).is_err(), "{aud}");
    }
}

#[test]
fn t8_the_boundaries_of_time_hold_to_the_second() {
    let forge = forge();
    let now = NOW.seconds();
    let judge = |exp: i64, iat: i64, nbf: i64| {
        let mut payload = claims();
        (payload["exp"], payload["iat"], payload["nbf"]) = (json!(exp), json!(iat), json!(nbf));
        forge.judge_claims(&payload).map(|_| ())
    };
    let refused = |refusal: ClaimsRefusal| Err(refusal.into());
    let future = |name| refused(ClaimsRefusal::NotYetValid(name));
    let table = [
        // exp: dead from its own second on, no leeway.
        ((now + 1, now - 60, now - 60), Ok(())),
        ((now, now - 60, now - 60), refused(ClaimsRefusal::Expired)),
        ((now - 1, now - 60, now - 60), refused(ClaimsRefusal::Expired)),
        // iat: five seconds ahead at most.
        ((now + 60, now + 4, now), Ok(())),
        ((now + 60, now + 5, now), Ok(())),
        ((now + 60, now + 6, now), future("iat")),
        // nbf: likewise.
        ((now + 60, now, now + 4), Ok(())),
        ((now + 60, now, now + 5), Ok(())),
        ((now + 60, now, now + 6), future("nbf")),
        // exp - iat: an hour at most.
        ((now + 3599, now, now), Ok(())),
        ((now + 3600, now, now), Ok(())),
        ((now + 3601, now, now), refused(ClaimsRefusal::LivesTooLong)),
        // exp after iat.
        ((now + 2, now + 1, now), Ok(())),
        ((now + 1, now + 1, now), refused(ClaimsRefusal::Claim("exp", "is not after `iat`"))),
        ((now + 1, now + 2, now), refused(ClaimsRefusal::Claim("exp", "is not after `iat`"))),
    ];
    for ((exp, iat, nbf), expected) in table {
        assert_eq!(judge(exp, iat, nbf), expected, "exp {} iat {} nbf {}", exp - now, iat - now, nbf - now);
    }
    // The clock has milliseconds: alive until the last of them.
    let token = forge.sign_claims(&claims().to_string());
    let end = user_claims().expires_at.millis();
    assert!(forge.judge_at(&token, Timestamp::from_millis(end - 1)).is_ok());
    assert_eq!(forge.judge_at(&token, Timestamp::from_millis(end)), Err(ClaimsRefusal::Expired.into()));
    forge.judge_claims(&claims_without("nbf")).unwrap();
}

#[test]
fn t8_dates_are_whole_numbers_in_range_and_nothing_else() {
    let forge = forge();
    let exp = user_claims().expires_at.seconds();
    let spellings = [
        format!("{exp}.0"),
        format!("{exp}.5"),
        format!("{exp}e0"),
        "1.8000003e9".to_owned(),
        format!("-{exp}"),
        format!("\"{exp}\""),
        "9007199254740993".to_owned(),
        "18446744073709551615".to_owned(),
        "18446744073709551616".to_owned(),
        "1e300".to_owned(),
        "1e999".to_owned(),
        "-0".to_owned(),
        "null".to_owned(),
        "true".to_owned(),
        format!("[{exp}]"),
        format!("0{exp}"),
        format!("+{exp}"),
        "0x7fffffff".to_owned(),
        "NaN".to_owned(),
        "Infinity".to_owned(),
    ];
    for name in ["exp", "iat", "nbf", "auth_time"] {
        for spelling in &spellings {
            let payload = with_member(&claims_without(name), &format!("\"{name}\":{spelling}"));
            assert!(forge.judge(&forge.sign_claims(&payload)).is_err(), "{name}: {spelling}");
        }
    }
    forge.judge(&forge.sign_claims(&with_member(&claims_without("exp"), &format!("\"exp\":{exp}")))).unwrap();
}

#[test]
fn t9_form_is_judged_before_anything_is_decoded() {
    let forge = forge();
    let token = forge.sign_claims(&claims().to_string());
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!() };
    let misshapen = [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        header.to_owned(),
        format!("{header}.{payload}"),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{signature}"),
        format!(".{payload}.{signature}"),
        format!("{header}..{signature}"),
        format!("{header}.{payload}."),
        format!("{header}.{payload}.{signature}.{payload}.{header}"),
        format!(" {token}"),
        format!("{token} "),
        format!("{token}\n"),
        format!("\u{feff}{token}"),
        format!("{token}\0"),
        format!("{header} .{payload}.{signature}"),
        format!("{token}="),
        token.replace('.', ","),
        format!("Bearer {token}"),
        format!("\"{token}\""),
        ".".repeat(MAX_TOKEN_BYTES),
        token.replacen('.', "%2E", 1),
        format!("{token}é"),
    ];
    for text in misshapen {
        assert_eq!(forge.judge(&text), Err(JwsRefusal::NotCompact.into()), "{text:?}");
    }
    let padded = |length: usize| {
        let empty = forge.sign_claims(&with_member(&claims(), "\"pad\":\"\"")).len();
        let pad = "x".repeat((length - empty) / 4 * 3);
        forge.sign_claims(&with_member(&claims(), &format!("\"pad\":\"{pad}\"")))
    };
    let at_the_limit = padded(MAX_TOKEN_BYTES);
    assert!((MAX_TOKEN_BYTES - 3..=MAX_TOKEN_BYTES).contains(&at_the_limit.len()));
    forge.judge(&at_the_limit).unwrap();
    assert_eq!(forge.judge(&padded(MAX_TOKEN_BYTES + 4)), Err(JwsRefusal::TooLong.into()));
    let header_of =
        |length: usize| forge.sign_header(&with_member(&forge.header(), &format!("\"x\":\"{}\"", "x".repeat(length))));
    let empty = header_of(0).find('.').unwrap();
    forge.judge(&header_of((1024 - empty) / 4 * 3)).unwrap();
    assert_eq!(forge.judge(&header_of((1024 - empty) / 4 * 3 + 4)), Err(JwsRefusal::TooLong.into()));
    assert_eq!(forge.judge(&"a".repeat(10_000_000)), Err(JwsRefusal::TooLong.into()));
}

/// Member names, values and the ways to write a name twice.
fn duplicates(object: &Value) -> Vec<String> {
    let escaped = |name: &str, at: usize| -> String {
        let escape =
            |(index, c): (usize, char)| if index == at { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
        name.chars().enumerate().map(escape).collect()
    };
    let mut texts = Vec::new();
    for (name, value) in object.as_object().unwrap() {
        texts.push(with_member(object, &format!("\"{name}\":{value}")));
        texts.push(with_member(object, &format!("\"{name}\":null")));
        texts.push(with_member(object, &format!("\"{name}\":\"attacker\"")));
        for at in 0..name.len() {
            texts.push(with_member(object, &format!("\"{}\":{value}", escaped(name, at))));
            texts.push(format!("{},\"{}\":{value}}}", object.to_string().trim_end_matches('}'), escaped(name, at)));
        }
    }
    for value in ["1", "\"x\"", "null", "[]", "{}", "true", "-1.5", "[{\"y\":1}]"] {
        for (first, second) in
            [("x", "x"), ("x", "\\u0078"), ("", ""), ("\\u0000", "\\u0000"), ("é", "\\u00e9"), ("\\ud83d\\ude00", "😀")]
        {
            for gap in ["", " ", "\n\t", "\"z\":0,"] {
                texts.push(with_member(object, &format!("\"{first}\":{value},{gap}\"{second}\":{value}")));
                texts.push(with_member(object, &format!("\"deep\":{{\"{first}\":{value},{gap}\"{second}\":1}}")));
                texts.push(with_member(object, &format!("\"deep\":[0,[{{\"{first}\":1,{gap}\"{second}\":{value}}}]]")));
            }
        }
    }
    texts
}

#[test]
fn t10_duplicate_member_names_are_refused_at_any_depth_and_after_unescaping() {
    let forge = forge();
    let payloads = duplicates(&claims());
    let headers = duplicates(&forge.header());
    for payload in &payloads {
        assert!(forge.judge(&forge.sign_claims(payload)).is_err(), "{payload}");
    }
    for header in &headers {
        assert!(forge.judge(&forge.sign_header(header)).is_err(), "{header}");
    }
    assert!(payloads.len() + headers.len() >= 1000, "{} + {}", payloads.len(), headers.len());
    // The same names once each, and the same name at different places, are nobody's duplicates.
    let honest = with_member(&claims(), "\"X\":1,\"x\":{\"x\":[{\"x\":1},{\"x\":2}]},\"\":0,\"e\\u0301\":1,\"é\":2");
    forge.judge(&forge.sign_claims(&honest)).unwrap();
}

#[test]
fn t11_each_part_has_one_base64url_spelling() {
    let forge = Forge::new(es256_key());
    let token = forge.sign_claims(&with_member(&claims(), "\"pad\":\"xxxx\""));
    let parts: Vec<_> = token.split('.').collect();
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for (index, part) in parts.iter().enumerate() {
        let last = part.chars().last().unwrap();
        let head = &part[..part.len() - 1];
        let mut spellings = vec![
            format!("{part}="),
            format!("{part}=="),
            format!("{part}A"),
            format!("{head}"),
            part.replace('-', "+"),
        ];
        spellings.extend(ALPHABET.chars().filter(|other| *other != last).map(|other| format!("{head}{other}")));
        for spelling in spellings.iter().filter(|spelling| spelling != part) {
            let mut changed = parts.clone();
            changed[index] = spelling;
            assert!(forge.judge(&changed.join(".")).is_err(), "part {index}: {spelling}");
        }
    }
}

#[test]
fn t12_payloads_and_headers_are_one_strict_json_object() {
    let forge = forge();
    let honest = claims().to_string();
    let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let texts = [
        String::new(),
        " ".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        "\"text\"".to_owned(),
        "7".to_owned(),
        format!("[{honest}]"),
        format!("\u{feff}{honest}"),
        format!("{honest}{honest}"),
        format!("{honest} x"),
        format!("{honest}\0"),
        format!("{honest},"),
        honest.trim_end_matches('}').to_owned(),
        honest.replace('"', "'"),
        honest.replacen('{', "{,", 1),
        honest.replacen('}', ",}", 1),
        with_member(&claims(), "/* comment */\"x\":1"),
        with_member(&claims(), "// comment\n\"x\":1"),
        with_member(&claims(), "x:1"),
        with_member(&claims(), "\"x\":01"),
        with_member(&claims(), "\"x\":.5"),
        with_member(&claims(), "\"x\":1."),
        with_member(&claims(), "\"x\":+1"),
        with_member(&claims(), "\"x\":NaN"),
        with_member(&claims(), "\"x\":1e999"),
        with_member(&claims(), "\"x\":\"\\ud800\""),
        with_member(&claims(), "\"\\udfff\":1"),
        with_member(&claims(), "\"x\":\"\\x41\""),
        with_member(&claims(), "\"x\":\"a\nb\""),
        with_member(&claims(), "\"x\":\"\u{1}\""),
        with_member(&claims(), &format!("\"x\":{}", deep(12))),
        with_member(&claims(), &format!("\"x\":{}", deep(900))),
        with_member(&claims(), &(0..64).map(|n| format!("\"x{n}\":0")).collect::<Vec<_>>().join(",")),
    ];
    for text in texts {
        assert!(forge.judge(&forge.sign_claims(&text)).is_err(), "{text:?}");
        let header = text.replace(&honest, &forge.header().to_string());
        assert!(forge.judge(&forge.sign_header(&header)).is_err(), "{header:?}");
    }
    for bytes in [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"] {
        let mut payload = with_member(&claims(), "\"x\":\"?\"").into_bytes();
        let at = payload.iter().position(|byte| *byte == b'?').unwrap();
        payload.splice(at..=at, bytes.iter().copied());
        let token = forge.key.sign_parts(forge.header().to_string().as_bytes(), &payload).unwrap();
        assert!(forge.judge(&token).is_err(), "{bytes:?}");
    }
    let spacious = format!("\r\n\t {} \n", with_member(&claims(), &format!(" \"x\" :\t{} ", deep(10))));
    forge.judge(&forge.sign_claims(&spacious)).unwrap();
}

#[test]
fn t13_the_malleable_twin_of_an_es256_token_has_the_same_identity() {
    /// The order of P-256.
    const N: [u8; 32] = [
        0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xBC, 0xE6, 0xFA, 0xAD,
        0xA7, 0x17, 0x9E, 0x84, 0xF3, 0xB9, 0xCA, 0xC2, 0xFC, 0x63, 0x25, 0x51,
    ];
    let forge = Forge::new(es256_key());
    let token = forge.sign_claims(&claims().to_string());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrow = 0;
    for index in (0..32).rev() {
        let difference = i16::from(N[index]) - i16::from(signature[32 + index]) - borrow;
        borrow = i16::from(difference < 0);
        signature[32 + index] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    let twin = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    assert_ne!(twin, token);
    assert_eq!(forge.judge(&twin).unwrap(), forge.judge(&token).unwrap());
}

#[test]
fn t14_claims_are_not_looked_at_before_the_signature_is_valid() {
    let forge = forge();
    for payload in ["not json", "{}", "{\"exp\":\"\"}"] {
        let token = forge.sign_claims(payload);
        let (signed, _) = token.rsplit_once('.').unwrap();
        let unsigned = format!("{signed}.{}", URL_SAFE_NO_PAD.encode([7; 64]));
        assert_eq!(forge.judge(&unsigned), Err(JwsRefusal::BadSignature.into()), "{payload}");
    }
}

#[test]
fn t15_encrypted_nested_and_json_serialised_tokens_are_refused_by_form() {
    let forge = forge();
    let token = forge.sign_claims(&claims().to_string());
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!() };
    let json_forms = [
        json!({"protected": header, "payload": payload, "signature": signature}).to_string(),
        json!({"payload": payload, "signatures": [{"protected": header, "signature": signature}]}).to_string(),
    ];
    let encrypted = format!("{header}.{payload}.{payload}.{payload}.{signature}");
    for form in json_forms.iter().chain([&encrypted]) {
        assert_eq!(forge.judge(form), Err(JwsRefusal::NotCompact.into()));
    }
    assert!(forge.judge(&forge.sign_claims(&token)).is_err());
    assert!(forge.judge(&forge.sign_claims(&format!("\"{token}\""))).is_err());
}

#[test]
fn t16_an_introspection_answer_as_jwt_is_not_an_access_token() {
    let forge = forge();
    let answer = json!({"iss": ISSUER, "aud": "api", "iat": NOW.seconds(), "token_introspection": claims()});
    let token = forge.key.sign_jwt("token-introspection+jwt", &answer).unwrap();
    assert_eq!(forge.judge(&token), Err(TokenRefusal::WrongType));
    // Even with its type changed it lacks everything that an access token has at its top level.
    assert!(forge.judge(&forge.key.sign_jwt("at+jwt", &answer).unwrap()).is_err());
}

#[test]
fn t9_a_token_that_would_be_refused_for_its_length_is_not_signed() {
    let mut claims = user_claims();
    claims.issuer = "x".repeat(4000);
    assert!(matches!(eddsa_key().sign_access_token(&claims, TokenType::AtJwt), Err(super::SigningError::TooLong(_))));
}

proptest! {
    #[test]
    fn t20_no_text_makes_the_verifier_panic_and_none_is_accepted(text in "\\PC{0,200}|[A-Za-z0-9_.-]{0,300}") {
        prop_assert!(forge().judge(&text).is_err());
        let _ = UnverifiedJws::parse(&text);
    }

    #[test]
    fn t20_no_header_or_payload_makes_the_verifier_panic(header in "\\PC{0,80}", payload in "\\PC{0,80}") {
        let forge = forge();
        prop_assert!(forge.judge(&forge.sign(&header, &payload)).is_err());
        prop_assert!(forge.judge(&forge.sign_claims(&payload)).is_err());
        prop_assert!(forge.judge(&forge.sign_header(&header)).is_err());
    }

    #[test]
    fn t1_no_single_changed_character_survives(at: prop::sample::Index, new in "[A-Za-z0-9_.-]") {
        let forge = forge();
        let token = forge.sign_claims(&claims().to_string());
        let at = at.index(token.len());
        prop_assume!(token[at..=at] != new);
        let mut changed = token.clone();
        changed.replace_range(at..=at, &new);
        prop_assert!(forge.judge(&changed).is_err());
    }
}
