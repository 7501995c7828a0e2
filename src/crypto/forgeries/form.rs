//! Forged forms: no compact JWS, no strict base64url, or no strict JSON.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Forge, claims, claims_with, forge, with_member};
use crate::crypto::fixtures::{eddsa_key, es256_key, user_claims};
use crate::crypto::{ClaimsRefusal, JwsRefusal, MAX_TOKEN_BYTES, SigningError, UnverifiedJws};
use crate::domain::TokenType;
use crate::json::JsonError;

#[test]
fn t9_form_is_checked_before_decoding() {
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
        assert_eq!(forge.verify(&text), Err(JwsRefusal::NotCompact.into()), "{text:?}");
    }
    let padded = |length: usize| {
        let empty = forge.sign_claims(&with_member(&claims(), "\"pad\":\"\"")).len();
        let pad = "x".repeat((length - empty) / 4 * 3);
        forge.sign_claims(&with_member(&claims(), &format!("\"pad\":\"{pad}\"")))
    };
    let at_the_limit = padded(MAX_TOKEN_BYTES);
    assert!((MAX_TOKEN_BYTES - 3..=MAX_TOKEN_BYTES).contains(&at_the_limit.len()));
    forge.verify(&at_the_limit).unwrap();
    assert_eq!(forge.verify(&padded(MAX_TOKEN_BYTES + 4)), Err(JwsRefusal::TooLong.into()));
    let header_of =
        |length: usize| forge.sign_header(&with_member(&forge.header(), &format!("\"x\":\"{}\"", "x".repeat(length))));
    let empty = header_of(0).find('.').unwrap();
    forge.verify(&header_of((1024 - empty) / 4 * 3)).unwrap();
    assert_eq!(forge.verify(&header_of((1024 - empty) / 4 * 3 + 4)), Err(JwsRefusal::TooLong.into()));
    assert_eq!(forge.verify(&"a".repeat(10_000_000)), Err(JwsRefusal::TooLong.into()));
}

/// Copies of `object` with one member name twice, in various spellings and positions.
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
        assert!(forge.verify(&forge.sign_claims(payload)).is_err(), "{payload}");
    }
    for header in &headers {
        assert!(forge.verify(&forge.sign_header(header)).is_err(), "{header}");
    }
    assert!(payloads.len() + headers.len() >= 1000, "{} + {}", payloads.len(), headers.len());
    // Each name once per object is no duplicate, whatever the nesting or the letter case.
    let valid = with_member(&claims(), "\"X\":1,\"x\":{\"x\":[{\"x\":1},{\"x\":2}]},\"\":0,\"e\\u0301\":1,\"é\":2");
    forge.verify(&forge.sign_claims(&valid)).unwrap();
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
            assert!(forge.verify(&changed.join(".")).is_err(), "part {index}: {spelling}");
        }
    }
}

#[test]
fn t12_text_with_a_nul_is_refused_wherever_it_is() {
    let forge = forge();
    for (name, value) in [("kid", "a\0"), ("typ", "at+jwt\0"), ("other", "\0")] {
        let result = forge.verify(&forge.sign_header(&forge.header_with(name, json!(value))));
        assert_eq!(result, Err(JwsRefusal::Header(JsonError::Nul).into()), "{name}");
    }
    for (name, value) in [("iss", "https://auth.example.com\0"), ("other", "\0")] {
        let result = forge.verify_claims(&claims_with(name, json!(value)));
        assert_eq!(result, Err(ClaimsRefusal::Json(JsonError::Nul).into()), "{name}");
    }
}

#[test]
fn t12_payloads_and_headers_are_one_strict_json_object() {
    let forge = forge();
    let valid = claims().to_string();
    let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let texts = [
        String::new(),
        " ".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        "\"text\"".to_owned(),
        "7".to_owned(),
        format!("[{valid}]"),
        format!("\u{feff}{valid}"),
        format!("{valid}{valid}"),
        format!("{valid} x"),
        format!("{valid}\0"),
        format!("{valid},"),
        valid.trim_end_matches('}').to_owned(),
        valid.replace('"', "'"),
        valid.replacen('{', "{,", 1),
        valid.replacen('}', ",}", 1),
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
        assert!(forge.verify(&forge.sign_claims(&text)).is_err(), "{text:?}");
        let header = text.replace(&valid, &forge.header().to_string());
        assert!(forge.verify(&forge.sign_header(&header)).is_err(), "{header:?}");
    }
    for bytes in [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"] {
        let mut payload = with_member(&claims(), "\"x\":\"?\"").into_bytes();
        let at = payload.iter().position(|byte| *byte == b'?').unwrap();
        payload.splice(at..=at, bytes.iter().copied());
        let token = forge.key.sign_parts(forge.header().to_string().as_bytes(), &payload).unwrap();
        assert!(forge.verify(&token).is_err(), "{bytes:?}");
    }
    let spacious = format!("\r\n\t {} \n", with_member(&claims(), &format!(" \"x\" :\t{} ", deep(10))));
    forge.verify(&forge.sign_claims(&spacious)).unwrap();
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
    assert_eq!(forge.verify(&twin).unwrap(), forge.verify(&token).unwrap());
}

#[test]
fn t14_claims_are_not_read_before_the_signature_is_verified() {
    let forge = forge();
    for payload in ["not json", "{}", "{\"exp\":\"\"}"] {
        let token = forge.sign_claims(payload);
        let (signed, _) = token.rsplit_once('.').unwrap();
        let unsigned = format!("{signed}.{}", URL_SAFE_NO_PAD.encode([7; 64]));
        assert_eq!(forge.verify(&unsigned), Err(JwsRefusal::BadSignature.into()), "{payload}");
    }
}

#[test]
fn t15_encrypted_nested_and_json_serialized_tokens_are_refused_by_form() {
    let forge = forge();
    let token = forge.sign_claims(&claims().to_string());
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!() };
    let json_forms = [
        json!({"protected": header, "payload": payload, "signature": signature}).to_string(),
        json!({"payload": payload, "signatures": [{"protected": header, "signature": signature}]}).to_string(),
    ];
    let encrypted = format!("{header}.{payload}.{payload}.{payload}.{signature}");
    for form in json_forms.iter().chain([&encrypted]) {
        assert_eq!(forge.verify(form), Err(JwsRefusal::NotCompact.into()));
    }
    assert!(forge.verify(&forge.sign_claims(&token)).is_err());
    assert!(forge.verify(&forge.sign_claims(&format!("\"{token}\""))).is_err());
}

#[test]
fn t9_a_token_that_is_too_long_to_be_accepted_is_not_signed() {
    let mut claims = user_claims();
    claims.issuer = "x".repeat(4000);
    assert!(matches!(eddsa_key().sign_access_token(&claims, TokenType::AtJwt), Err(SigningError::TooLong(_))));
}

proptest! {
    #[test]
    fn t20_no_text_makes_the_verifier_panic_and_none_is_accepted(text in "\\PC{0,200}|[A-Za-z0-9_.-]{0,300}") {
        prop_assert!(forge().verify(&text).is_err());
        let _ = UnverifiedJws::parse(&text);
    }

    #[test]
    fn t20_no_header_or_payload_makes_the_verifier_panic(header in "\\PC{0,80}", payload in "\\PC{0,80}") {
        let forge = forge();
        prop_assert!(forge.verify(&forge.sign(&header, &payload)).is_err());
        prop_assert!(forge.verify(&forge.sign_claims(&payload)).is_err());
        prop_assert!(forge.verify(&forge.sign_header(&header)).is_err());
    }

    #[test]
    fn t1_no_single_changed_character_is_accepted(at: prop::sample::Index, new in "[A-Za-z0-9_.-]") {
        let forge = forge();
        let token = forge.sign_claims(&claims().to_string());
        let at = at.index(token.len());
        prop_assume!(token[at..=at] != new);
        let mut changed = token.clone();
        changed.replace_range(at..=at, &new);
        prop_assert!(forge.verify(&changed).is_err());
    }
}
