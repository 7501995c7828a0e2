//! Project Wycheproof: every vector that concerns a token service is checked, by label or by a listed reason, and none
//! is skipped silently (security.md sections 4.1 and 8).
//!
//! The JOSE vectors are not in the `wycheproof` crate. They are read from the folder that `WYCHEPROOF_DIR` names
//! (C2SP/wycheproof, `testvectors_v1`); without it those tests report that they were skipped.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "helpers of tests, which fail loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::crypto::{PublicKeySet, SignatureKey, UnverifiedJws, VerifyingKey};
use ring::{hmac, signature};
use serde_json::{Value, json};

/// A vector whose label is not followed, and the reason.
type Exceptions = BTreeMap<u64, &'static str>;

/// tcIds of json_web_signature_test.json (security.md section 4.1).
const JWS_EXCEPTIONS: [(u64, &str); 8] = [
    (346, "labelled valid, but the header says PS384 and the key PS256: one key, one algorithm"),
    (347, "labelled valid, but the key says ES521, which is no algorithm"),
    (350, "labelled valid, but the header says PS384 and the key PS256: one key, one algorithm"),
    (351, "labelled valid, but the key says ES521, which is no algorithm"),
    (367, "labelled invalid, but byte for byte the same token as tcId 357, which is labelled valid"),
    (370, "labelled invalid, but byte for byte the same token as tcId 357, which is labelled valid"),
    (372, "labelled valid, but carries a `?` in its header segment (RFC 8725bis §3.14)"),
    (373, "labelled valid, but carries a `?` in its payload segment (RFC 8725bis §3.14)"),
];

#[test]
fn wycheproof_401_jws_are_judged_as_documented() {
    let Some(vectors) = Vectors::load("json_web_signature_test.json") else { return };
    let exceptions: Exceptions = JWS_EXCEPTIONS.into();
    let (mut judged, mut as_labelled, mut differing) = (0, 0, BTreeSet::new());
    vectors.for_each(|group, id, test| {
        judged += 1;
        let accepted = any_algorithm(group, test);
        if accepted == is_valid(test) {
            as_labelled += 1;
        } else {
            differing.insert(id);
        }
    });
    assert_eq!(differing, exceptions.keys().copied().collect());
    assert_eq!((judged, as_labelled), (401, 393));
}

#[test]
fn wycheproof_jws_the_service_itself_accepts_what_its_four_algorithms_signed_and_nothing_labelled_invalid() {
    let Some(vectors) = Vectors::load("json_web_signature_test.json") else { return };
    let offered = ["ES256", "EdDSA", "RS256", "PS256"];
    let (mut accepted, mut refused) = (0, 0);
    vectors.for_each(|group, id, test| {
        let keys = public_keys(group);
        let alg = keys["keys"][0]["alg"].as_str().unwrap_or_default();
        let expected =
            is_valid(test) && offered.contains(&alg) && !JWS_EXCEPTIONS.iter().any(|(listed, _)| *listed == id);
        assert_eq!(service(group, test), expected, "tcId {id}: {}", test["comment"]);
        *(if expected { &mut accepted } else { &mut refused }) += 1;
    });
    assert_eq!((accepted, refused), (16, 385));
}

#[test]
fn wycheproof_26_key_sets_are_judged_as_labelled() {
    let Some(vectors) = Vectors::load("json_web_key_test.json") else { return };
    let (mut judged, mut symmetric) = (0, Vec::new());
    vectors.for_each(|group, id, test| {
        judged += 1;
        assert_eq!(any_algorithm(group, test), is_valid(test), "tcId {id}: {}", test["comment"]);
        // The service's own reader accepts no symmetric key (security.md T1), so it refuses the four valid HMAC
        // vectors.
        if service(group, test) != is_valid(test) {
            symmetric.push(id);
        }
    });
    assert_eq!((judged, symmetric), (26, vec![2, 13, 14, 15]));
}

#[test]
fn wycheproof_139_encrypted_tokens_are_refused_by_form() {
    let Some(vectors) = Vectors::load("json_web_encryption_test.json") else { return };
    let mut judged = 0;
    vectors.for_each(|_, id, test| {
        judged += 1;
        assert!(UnverifiedJws::parse(&text_of(&test["jwe"])).is_err(), "tcId {id}: {}", test["comment"]);
    });
    assert_eq!(judged, 139);
}

#[test]
fn wycheproof_the_83_older_vectors_are_judged_as_labelled_and_their_encrypted_part_is_refused() {
    let Some(vectors) = Vectors::load("json_web_crypto_test.json") else { return };
    let (mut signed, mut encrypted) = (0, 0);
    vectors.for_each(|group, id, test| {
        if test["jwe"].is_null() {
            signed += 1;
            assert_eq!(any_algorithm(group, test), is_valid(test), "tcId {id}: {}", test["comment"]);
        } else {
            encrypted += 1;
            assert!(UnverifiedJws::parse(&text_of(&test["jwe"])).is_err(), "tcId {id}");
        }
    });
    assert_eq!((signed, encrypted), (49, 34));
}

#[test]
fn wycheproof_151_ed25519_signatures() {
    use wycheproof::eddsa::{TestName, TestSet};
    let mut judged = 0;
    for group in TestSet::load(TestName::Ed25519).unwrap().test_groups {
        let x = encoded(&group.key.pk);
        let key = key_of(&json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x})).unwrap();
        for test in group.tests {
            let accepted = key.accepts(&test.msg, test.sig.to_vec());
            assert_eq!(accepted, !test.result.must_fail(), "tcId {}: {}", test.tc_id, test.comment);
            judged += 1;
        }
    }
    assert_eq!(judged, 151);
}

#[test]
fn wycheproof_262_p256_signatures_in_the_form_of_jose() {
    use wycheproof::ecdsa::{TestName, TestSet};
    let mut judged = 0;
    for group in TestSet::load(TestName::EcdsaSecp256r1Sha256P1363).unwrap().test_groups {
        let (x, y) = (encoded(&group.key.key[1..33]), encoded(&group.key.key[33..]));
        let key = key_of(&json!({"kty": "EC", "crv": "P-256", "kid": "k", "x": x, "y": y})).unwrap();
        for test in group.tests {
            let accepted = key.accepts(&test.msg, test.sig.to_vec());
            assert_eq!(accepted, !test.result.must_fail(), "tcId {}: {}", test.tc_id, test.comment);
            judged += 1;
        }
    }
    assert_eq!(judged, 262);
}

#[test]
fn wycheproof_776_rsa_signatures_and_every_key_with_exponent_3_is_refused() {
    use wycheproof::TestResult;
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    let (mut judged, mut of_refused_keys) = (0, 0);
    for name in [TestName::Rsa2048Sha256, TestName::Rsa3072Sha256, TestName::Rsa4096Sha256] {
        for group in TestSet::load(name).unwrap().test_groups {
            let key = rsa_key("RS256", &group.key.n, &group.key.e);
            assert_eq!(key.is_none(), *group.key.e == [3]);
            for test in group.tests {
                judged += 1;
                match &key {
                    None => of_refused_keys += 1,
                    // Acceptable: a signature whose digest algorithm lacks its NULL parameter. ring refuses it.
                    Some(key) => {
                        let accepted = key.accepts(&test.msg, test.sig.to_vec());
                        assert_eq!(accepted, test.result == TestResult::Valid, "tcId {}: {}", test.tc_id, test.comment);
                    }
                }
            }
        }
    }
    assert_eq!((judged, of_refused_keys), (776, 3));
}

#[test]
fn wycheproof_324_rsa_pss_signatures() {
    use wycheproof::rsa_pss_verify::{TestName, TestSet};
    let sets = [
        TestName::RsaPss2048Sha256Mgf1SaltLen32,
        TestName::RsaPss3072Sha256Mgf1SaltLen32,
        TestName::RsaPss4096Sha256Mgf1SaltLen32,
    ];
    let mut judged = 0;
    for name in sets {
        for group in TestSet::load(name).unwrap().test_groups {
            let key = rsa_key("PS256", &group.key.n, &group.key.e).unwrap();
            for test in group.tests {
                let accepted = key.accepts(&test.msg, test.sig.to_vec());
                assert_eq!(accepted, !test.result.must_fail(), "tcId {}: {}", test.tc_id, test.comment);
                judged += 1;
            }
        }
    }
    assert_eq!(judged, 324);
}

#[test]
fn wycheproof_174_hmacs_whole_and_truncated_as_in_refresh_tokens() {
    use wycheproof::mac::{TestName, TestSet};
    let mut judged = 0;
    for group in TestSet::load(TestName::HmacSha256).unwrap().test_groups {
        for test in group.tests {
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &test.key), &test.msg);
            let equal = countersign::crypto::constant_time_eq(&tag.as_ref()[..group.tag_size / 8], &test.tag);
            assert_eq!(equal, !test.result.must_fail(), "tcId {}: {}", test.tc_id, test.comment);
            judged += 1;
        }
    }
    assert_eq!(judged, 174);
}

/// A file of vectors.
struct Vectors(Value);

impl Vectors {
    fn load(file: &str) -> Option<Self> {
        let Some(folder) = std::env::var_os("WYCHEPROOF_DIR") else {
            eprintln!("SKIPPED: {file} was not judged; set WYCHEPROOF_DIR to the folder that holds it");
            return None;
        };
        let path = PathBuf::from(folder).join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Some(Self(serde_json::from_str(&text).unwrap()))
    }

    /// Returns every test with its group and its tcId, and checks that none is missing.
    fn for_each(&self, mut judge: impl FnMut(&Value, u64, &Value)) {
        let mut count = 0;
        for group in self.0["testGroups"].as_array().unwrap() {
            for test in group["tests"].as_array().unwrap() {
                judge(group, test["tcId"].as_u64().unwrap(), test);
                count += 1;
            }
        }
        assert_eq!(self.0["numberOfTests"], count);
    }
}

fn is_valid(test: &Value) -> bool {
    test["result"] == "valid"
}

/// The token as text: a few vectors are objects, the JSON serialisation.
fn text_of(token: &Value) -> String {
    token.as_str().map_or_else(|| token.to_string(), str::to_owned)
}

/// The group's keys as a set, without the private members of key pairs (symmetric keys stay what they are).
fn public_keys(group: &Value) -> Value {
    let source = if group["public"].is_null() { &group["private"] } else { &group["public"] };
    let mut keys = if source["keys"].is_array() { source["keys"].clone() } else { json!([source]) };
    for key in keys.as_array_mut().unwrap() {
        for name in ["d", "p", "q", "dp", "dq", "qi"] {
            key.as_object_mut().unwrap().remove(name);
        }
    }
    json!({ "keys": keys })
}

/// The verdict of the service's own code: its key-set reader, its strict JWS layer, its four algorithms.
fn service(group: &Value, test: &Value) -> bool {
    PublicKeySet::parse(&public_keys(group).to_string())
        .is_ok_and(|set| verifies(&text_of(&test["jws"]), |kid| set.by_kid(kid)))
}

/// The same verdict, with the algorithms that only these vectors need below the same JWS layer, so that all vectors
/// test its rules.
fn any_algorithm(group: &Value, test: &Value) -> bool {
    service(group, test)
        || VectorKey::set(&public_keys(group))
            .is_some_and(|keys| verifies(&text_of(&test["jws"]), |kid| keys.iter().find(|key| key.kid() == kid)))
}

fn verifies<'a, K: SignatureKey + 'a>(token: &str, find: impl FnOnce(&str) -> Option<&'a K>) -> bool {
    let Ok(jws) = UnverifiedJws::parse(token) else { return false };
    let key = jws.kid().and_then(find);
    key.is_some_and(|key| jws.verify(key).is_ok())
}

/// A key of an algorithm that the service does not offer.
struct VectorKey {
    kid: String,
    alg: String,
    key: Vec<u8>,
    exponent: Vec<u8>,
}

impl VectorKey {
    /// The set, if it is of one kind, for signatures, with unique ids, and each key long enough for its algorithm (RFC 7518 §3.2).
    fn set(keys: &Value) -> Option<Vec<Self>> {
        let keys: Vec<_> = keys["keys"].as_array()?.iter().map(Self::read).collect::<Option<_>>()?;
        let ids: BTreeSet<_> = keys.iter().map(|key| &key.kid).collect();
        let families: BTreeSet<_> = keys.iter().map(|key| key.alg.starts_with("HS")).collect();
        (ids.len() == keys.len() && families.len() == 1).then_some(keys)
    }

    fn read(jwk: &Value) -> Option<Self> {
        let text = |name: &str| jwk[name].as_str();
        let bytes = |name: &str| text(name).and_then(|value| URL_SAFE_NO_PAD.decode(value).ok());
        if text("use").is_some_and(|usage| usage != "sig") {
            return None;
        }
        let shortest = match (text("kty")?, text("alg")?) {
            ("oct", "HS256") => 32,
            ("oct", "HS384") => 48,
            ("oct", "HS512") => 64,
            ("RSA", "RS384" | "RS512" | "PS384" | "PS512") => 256,
            _ => return None,
        };
        let key = bytes("k").or_else(|| bytes("n"))?;
        let (kid, alg) = (text("kid")?.to_owned(), text("alg")?.to_owned());
        (key.len() >= shortest).then(|| Self { kid, alg, key, exponent: bytes("e").unwrap_or_default() })
    }
}

impl SignatureKey for VectorKey {
    fn kid(&self) -> &str {
        &self.kid
    }

    fn algorithm_name(&self) -> &str {
        &self.alg
    }

    fn accepts(&self, message: &[u8], signed: Vec<u8>) -> bool {
        let mac = |algorithm| hmac::verify(&hmac::Key::new(algorithm, &self.key), message, &signed).is_ok();
        let rsa = |parameters| {
            signature::RsaPublicKeyComponents { n: &self.key, e: &self.exponent }
                .verify(parameters, message, &signed)
                .is_ok()
        };
        match self.alg.as_str() {
            "HS256" => mac(hmac::HMAC_SHA256),
            "HS384" => mac(hmac::HMAC_SHA384),
            "HS512" => mac(hmac::HMAC_SHA512),
            "RS384" => rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            "RS512" => rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            "PS384" => rsa(&signature::RSA_PSS_2048_8192_SHA384),
            "PS512" => rsa(&signature::RSA_PSS_2048_8192_SHA512),
            other => panic!("{other} is no algorithm of these vectors"),
        }
    }
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The service's key for a JWK, if it is accepted.
fn key_of(jwk: &Value) -> Option<VerifyingKey> {
    PublicKeySet::parse(&json!({"keys": [jwk]}).to_string()).ok()?.only().cloned()
}

fn rsa_key(alg: &str, n: &[u8], e: &[u8]) -> Option<VerifyingKey> {
    let trimmed = &n[n.iter().take_while(|byte| **byte == 0).count()..];
    key_of(&json!({"kty": "RSA", "alg": alg, "kid": "k", "n": encoded(trimmed), "e": encoded(e)}))
}
