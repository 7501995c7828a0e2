//! Forged claims. Every token here has a valid signature.

use serde_json::{Value, json};

use super::super::access_claims::AccessClaimsJson;
use super::{claims, claims_with, claims_without, forge, with_member};
use crate::crypto::ClaimsRefusal;
use crate::crypto::fixtures::{ISSUER, NOW, client_claims, user_claims};
use crate::domain::{Timestamp, TokenType};

#[test]
fn t6_every_required_claim_must_be_present_with_its_type() {
    let forge = forge();
    for name in ["iss", "sub", "aud", "exp", "iat", "jti", "client_id"] {
        assert!(forge.verify_claims(&claims_without(name)).is_err(), "{name} absent");
        let wrong: [Value; 7] =
            [json!(null), json!(true), json!(7.5), json!({}), json!([]), json!(""), json!([[claims()[name]]])];
        for value in wrong {
            assert!(forge.verify_claims(&claims_with(name, value.clone())).is_err(), "{name} {value}");
        }
        let as_text = claims()[name].to_string();
        let other_type = if claims()[name].is_number() { json!(as_text) } else { json!(1_800_000_000) };
        assert!(forge.verify_claims(&claims_with(name, other_type)).is_err(), "{name} as the other type");
    }
    for name in ["nbf", "scope", "sid", "auth_time", "amr", "roles", "preferred_username", "uep", "cep", "iep"] {
        for value in [json!(null), json!(true), json!(-1), json!({}), json!([[]])] {
            assert!(forge.verify_claims(&claims_with(name, value.clone())).is_err(), "{name} {value}");
        }
    }
}

#[test]
fn t6_the_claims_of_a_login_occur_together_and_for_users_only() {
    let forge = forge();
    for name in ["sid", "auth_time", "amr", "preferred_username"] {
        assert!(forge.verify_claims(&claims_without(name)).is_err(), "{name} alone is missing");
    }
    forge.verify_claims(&claims_without("roles")).unwrap();
    forge.verify_claims(&claims_with("roles", json!([]))).unwrap();
    let client = client_claims();
    let token = forge.key.sign_access_token(&client, TokenType::AtJwt).unwrap();
    assert_eq!(forge.verify(token.expose()).unwrap().claims, client);
    assert!(forge.verify_claims(&claims_with("sub", json!("web"))).is_err(), "a client with a session");
    assert!(forge.verify_claims(&claims_with("sid", json!("usr_AAAAAAAAAAAAAAAAAAAAAA"))).is_err());
    let mut with_roles = serde_json::to_value(AccessClaimsJson::from(&client)).unwrap();
    with_roles["roles"] = json!([]);
    assert!(forge.verify_claims(&with_roles).is_err(), "a client with roles");
    let mut impostor = claims();
    for name in ["sid", "auth_time", "amr", "roles", "preferred_username"] {
        impostor.as_object_mut().unwrap().remove(name);
    }
    assert!(forge.verify_claims(&impostor).is_err(), "a user without a session");
    impostor["sub"] = json!("other-client");
    assert!(forge.verify_claims(&impostor).is_err(), "a client for another client");
    impostor["uep"] = json!(0);
    impostor["sub"] = json!("web");
    assert!(forge.verify_claims(&impostor).is_ok());
}

#[test]
fn t7_variants_of_the_issuer_are_other_issuers() {
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
    assert_eq!(near.len(), 24);
    for issuer in near {
        assert_eq!(
            forge.verify_claims(&claims_with("iss", json!(issuer))),
            Err(ClaimsRefusal::WrongIssuer.into()),
            "{issuer:?}"
        );
    }
    for shape in [json!([ISSUER]), json!({ ISSUER: 1 }), json!(null), json!([ISSUER, "https://attacker.example"])] {
        assert!(forge.verify_claims(&claims_with("iss", shape)).is_err());
    }
}

#[test]
fn t7_aud_is_a_string_or_a_non_empty_array_of_strings() {
    let forge = forge();
    for good in [json!("one"), json!(["one"]), json!(["one", "https://two.example"])] {
        forge.verify_claims(&claims_with("aud", good)).unwrap();
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
        assert!(forge.verify_claims(&claims_with("aud", aud.clone())).is_err(), "{aud}");
    }
}

#[test]
fn t8_the_limits_of_dates_are_exact_to_the_second() {
    let forge = forge();
    let now = NOW.seconds();
    let verify = |exp: i64, iat: i64, nbf: i64| {
        let mut payload = claims();
        (payload["exp"], payload["iat"], payload["nbf"]) = (json!(exp), json!(iat), json!(nbf));
        forge.verify_claims(&payload).map(|_| ())
    };
    let refused = |refusal: ClaimsRefusal| Err(refusal.into());
    let future = |name| refused(ClaimsRefusal::NotYetValid(name));
    let table = [
        // exp: the token has expired in this second; no leeway.
        ((now + 1, now - 60, now - 60), Ok(())),
        ((now, now - 60, now - 60), refused(ClaimsRefusal::Expired)),
        ((now - 1, now - 60, now - 60), refused(ClaimsRefusal::Expired)),
        // iat: at most five seconds ahead.
        ((now + 60, now + 4, now), Ok(())),
        ((now + 60, now + 5, now), Ok(())),
        ((now + 60, now + 6, now), future("iat")),
        // nbf: at most five seconds ahead.
        ((now + 60, now, now + 4), Ok(())),
        ((now + 60, now, now + 5), Ok(())),
        ((now + 60, now, now + 6), future("nbf")),
        // exp - iat: at most an hour.
        ((now + 3599, now, now), Ok(())),
        ((now + 3600, now, now), Ok(())),
        ((now + 3601, now, now), refused(ClaimsRefusal::LivesTooLong)),
        // exp must be after iat.
        ((now + 2, now + 1, now), Ok(())),
        ((now + 1, now + 1, now), refused(ClaimsRefusal::Claim("exp", "is not after `iat`"))),
        ((now + 1, now + 2, now), refused(ClaimsRefusal::Claim("exp", "is not after `iat`"))),
    ];
    for ((exp, iat, nbf), expected) in table {
        assert_eq!(verify(exp, iat, nbf), expected, "exp {} iat {} nbf {}", exp - now, iat - now, nbf - now);
    }
    // The clock has milliseconds; the token is active in the last one.
    let token = forge.sign_claims(&claims().to_string());
    let end = user_claims().expires_at.millis();
    assert!(forge.verify_at(&token, Timestamp::from_millis(end - 1)).is_ok());
    assert_eq!(forge.verify_at(&token, Timestamp::from_millis(end)), Err(ClaimsRefusal::Expired.into()));
    forge.verify_claims(&claims_without("nbf")).unwrap();
}

#[test]
fn t8_dates_are_whole_numbers_in_range() {
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
            assert!(forge.verify(&forge.sign_claims(&payload)).is_err(), "{name}: {spelling}");
        }
    }
    forge.verify(&forge.sign_claims(&with_member(&claims_without("exp"), &format!("\"exp\":{exp}")))).unwrap();
}
