//! Forged tokens at the public endpoints. Every token differs from a valid one in one respect. Nearly all are validly
//! signed with a published key. Every endpoint that verifies tokens refuses them in the same way (security.md group T).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};

use crate::support::app::{TestApp, machine};
use crate::support::database::{Engine, START, TestDatabase};
use crate::support::forge::{Forge, es256_twin, pem, sign};
use crate::support::judging::*;

/// A service whose keys include the forger's key.
struct Scene {
    app: TestApp,
    forge: Forge,
    batch: Credentials,
}

impl Scene {
    async fn set() -> Self {
        let app = TestApp::start(TestDatabase::fresh(Engine::Sqlite).await).await;
        let batch = app.confidential("batch", machine(&["https://api.example"], "read")).await;
        let honest = app.token_of(&batch).await.access_token;
        let forge = Forge::import(&app, &honest).await;
        // A valid token is accepted, so the refusals below are due to the forgery.
        assert!(app.is_active(&forge.under(&forge.header())).await);
        Self { app, forge, batch }
    }

    /// Whether any endpoint accepts the token. All endpoints must agree, in all their formats.
    async fn is_taken(&self, token: &str) -> bool {
        let gateway = self.app.gateway();
        let answer = self.app.ask(&gateway, token).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let body = answer.text().await.unwrap();
        let is_active = body != INACTIVE;
        assert_eq!(self.app.asked(&gateway, token, Format::Batch).await["active"], is_active);
        if token.trim() != token {
            // White space at the ends of a header's value is not part of it (RFC 9110 §5.5).
            return is_active;
        }
        let Ok(value) = reqwest::header::HeaderValue::from_str(&format!("Bearer {token}")) else { return is_active };
        let verified = self.app.get("/v1/verify").header("authorization", value.clone()).send().await.unwrap();
        assert_eq!(verified.status().as_u16(), if is_active { 200 } else { 401 });
        let admin = format!("http://{}/admin/v1/status", self.app.operations);
        let administered = self.app.http.get(admin).header("authorization", value).send().await.unwrap();
        assert_eq!(administered.status(), 401);
        // A valid token is refused for its audience (i17), every other one without a reason.
        let refusal = administered.text().await.unwrap();
        assert_eq!(refusal.contains("`aud` does not name this service"), is_active, "{refusal}");
        is_active
    }

    async fn none_is_taken(&self, tokens: impl IntoIterator<Item = String>) {
        let mut count = 0;
        for token in tokens {
            assert!(!self.is_taken(&token).await, "taken: {token}");
            count += 1;
        }
        assert!(count > 0);
        assert!(self.is_taken(&self.forge.under(&self.forge.header())).await, "and the honest one still is");
    }
}

#[tokio::test]
async fn t1_alg_none_is_refused_in_every_spelling_and_signature_form() {
    let scene = Scene::set().await;
    let mut tokens = Vec::new();
    for spelling in ["none", "None", "NONE", "nOnE", "noNe", " none", "none ", "none\u{0}", "", "null"] {
        let token = scene.forge.under(&scene.forge.header_with("alg", json!(spelling)));
        let (signed, _) = token.rsplit_once('.').unwrap();
        tokens.extend([
            token.clone(),
            format!("{signed}."),
            signed.to_owned(),
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode([0; 64])),
            format!("{signed}.AA"),
        ]);
    }
    for odd in [json!(null), json!(0), json!(["EdDSA"]), json!({}), json!(true)] {
        tokens.push(scene.forge.under(&scene.forge.header_with("alg", odd)));
    }
    let mut header = scene.forge.header();
    header.as_object_mut().unwrap().remove("alg");
    tokens.push(scene.forge.under(&header));
    scene.none_is_taken(tokens).await;
}

#[tokio::test]
async fn t1_a_public_key_is_never_used_as_an_hmac_secret() {
    let scene = Scene::set().await;
    let jwks = scene.app.jwks().await;
    let mut tokens = Vec::new();
    for key in jwks["keys"].as_array().unwrap() {
        let x = URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap();
        let secrets: Vec<Vec<u8>> = vec![
            x.clone(),
            key["x"].as_str().unwrap().as_bytes().to_vec(),
            key.to_string().into_bytes(),
            serde_json::to_vec_pretty(key).unwrap(),
            jwks.to_string().into_bytes(),
            pem("public").into_bytes(),
            Vec::new(),
            b"secret".to_vec(),
        ];
        for secret in secrets {
            for (name, algorithm) in
                [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)]
            {
                let header = json!({"alg": name, "kid": key["kid"], "typ": "at+jwt"}).to_string();
                let payload = scene.forge.claims().to_string();
                let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
                let tag = hmac::sign(&hmac::Key::new(algorithm, &secret), signed.as_bytes());
                tokens.push(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag)));
            }
        }
    }
    scene.none_is_taken(tokens).await;
}

#[tokio::test]
async fn t1_a_key_verifies_its_own_algorithm_only() {
    let scene = Scene::set().await;
    let names = [
        "ES256", "ES384", "RS256", "RS512", "PS256", "PS384", "Ed25519", "eddsa", "EDDSA", "EdDsa", "EdDSA ", "ES256K",
    ];
    let mut tokens: Vec<_> =
        names.iter().map(|name| scene.forge.under(&scene.forge.header_with("alg", json!(name)))).collect();
    // The header names the service's own key; the forger's key signed.
    let jwks = scene.app.jwks().await;
    let own = jwks["keys"].as_array().unwrap().iter().find(|key| key["alg"] == "ES256").unwrap();
    for alg in ["ES256", "EdDSA"] {
        tokens.push(scene.forge.under(&json!({"alg": alg, "kid": own["kid"], "typ": "at+jwt"})));
    }
    scene.none_is_taken(tokens).await;
}

#[tokio::test]
async fn t2_every_other_token_type_is_refused() {
    let scene = Scene::set().await;
    let types = [
        "JWT",
        "jwt",
        "",
        "at",
        "at-jwt",
        "at+jwt ",
        " at+jwt",
        "at+jwt;v=1",
        "application/at+jwt+jwt",
        "text/at+jwt",
        "id+jwt",
        "rt+jwt",
        "token-introspection+jwt",
        "application/token-introspection+jwt",
        "client-authentication+jwt",
        "dpop+jwt",
        "secevent+jwt",
        "logout+jwt",
        "JOSE",
        "JWE",
        "JWS",
    ];
    let mut tokens: Vec<_> =
        types.iter().map(|typ| scene.forge.under(&scene.forge.header_with("typ", json!(typ)))).collect();
    for odd in [json!(null), json!(1), json!(["at+jwt"]), json!({"at+jwt": 1})] {
        tokens.push(scene.forge.under(&scene.forge.header_with("typ", odd)));
    }
    let mut untyped = scene.forge.header();
    untyped.as_object_mut().unwrap().remove("typ");
    tokens.push(scene.forge.under(&untyped));
    scene.none_is_taken(tokens).await;
    for good in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
        assert!(scene.is_taken(&scene.forge.under(&scene.forge.header_with("typ", json!(good)))).await, "{good}");
    }
}

#[tokio::test]
async fn t3_t4_crit_and_keys_in_the_header_are_refused() {
    let scene = Scene::set().await;
    let mut tokens = Vec::new();
    for crit in [
        json!([]),
        json!(["b64"]),
        json!(["exp"]),
        json!(["x"]),
        json!([1]),
        json!("b64"),
        json!(null),
        json!(false),
        json!({}),
    ] {
        tokens.push(scene.forge.under(&scene.forge.header_with("crit", crit)));
    }
    // The attacker's own unpublished key, embedded in the token or referred to by it.
    let attacker = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[66; 32]).unwrap();
    let jwk = crate::support::forge::jwk(&attacker, &scene.forge.kid);
    let claims = scene.forge.claims();
    for (name, value) in [
        ("jwk", jwk.clone()),
        ("jku", json!("https://attacker.example/jwks.json")),
        ("jku", json!("http://127.0.0.1:1/jwks.json")),
        ("x5u", json!("https://attacker.example/cert.pem")),
        ("x5c", json!(["AAAA"])),
        ("x5t", json!("AAAA")),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("enc", json!("A128GCM")),
        ("p2c", json!(2_000_000_000)),
    ] {
        let header = scene.forge.header_with(name, value);
        tokens.push(sign(&attacker, &header, &claims));
        if !matches!(name, "x5t" | "p2c") {
            tokens.push(scene.forge.under(&header));
        }
    }
    tokens.push(sign(&attacker, &scene.forge.header(), &claims));
    scene.none_is_taken(tokens).await;
}

#[tokio::test]
async fn t5_kids_that_are_paths_sql_or_near_misses_match_no_key() {
    let scene = Scene::set().await;
    let own = scene.forge.kid.clone();
    let kids = [
        json!(""),
        json!("../../../../dev/null"),
        json!("' OR '1'='1"),
        json!("a\u{0}"),
        json!("x".repeat(65)),
        json!("*"),
        json!(own.to_uppercase()),
        json!(&own[1..]),
        json!(format!("{own} ")),
        json!(format!("{own}=")),
        json!(null),
        json!(0),
        json!([own]),
        json!({"kid": own}),
        json!("0"),
        json!("default"),
    ];
    let mut tokens: Vec<_> =
        kids.into_iter().map(|kid| scene.forge.under(&scene.forge.header_with("kid", kid))).collect();
    let mut nameless = scene.forge.header();
    nameless.as_object_mut().unwrap().remove("kid");
    tokens.push(scene.forge.under(&nameless));
    scene.none_is_taken(tokens).await;
}

#[tokio::test]
async fn t6_every_required_claim_must_be_present_with_its_type() {
    let scene = Scene::set().await;
    let mut tokens = Vec::new();
    for name in ["iss", "sub", "aud", "exp", "iat", "jti", "client_id"] {
        tokens.push(scene.forge.saying(&scene.forge.claims_with(name, Value::Null)));
        for value in [json!(true), json!(7.5), json!({}), json!([]), json!(""), json!([[1]]), json!(-1)] {
            tokens.push(scene.forge.saying(&scene.forge.claims_with(name, value)));
        }
        let mut claims = scene.forge.claims();
        claims[name] = Value::Null;
        tokens.push(scene.forge.saying(&claims));
    }
    scene.none_is_taken(tokens).await;
}

#[tokio::test]
async fn t6_t17_sub_is_the_client_itself_or_a_user_with_a_sid() {
    let scene = Scene::set().await;
    let user = claims_of(&scene.app.log_in().await.access_token);
    let mut tokens = Vec::new();
    for subject in
        ["other", "gateway", "usr_AAAAAAAAAAAAAAAAAAAAAA", "ses_AAAAAAAAAAAAAAAAAAAAAA", user["sub"].as_str().unwrap()]
    {
        tokens.push(scene.forge.saying(&scene.forge.claims_with("sub", json!(subject))));
    }
    for client in ["nobody", "gateway", "BATCH", "usr_AAAAAAAAAAAAAAAAAAAAAA"] {
        let mut claims = scene.forge.claims();
        (claims["sub"], claims["client_id"]) = (json!("batch"), json!(client));
        tokens.push(scene.forge.saying(&claims));
        claims["sub"] = json!(client);
        if client != "gateway" {
            tokens.push(scene.forge.saying(&claims));
        }
    }
    for name in ["sid", "auth_time", "amr", "preferred_username"] {
        let mut claims = user.clone();
        claims.as_object_mut().unwrap().remove(name);
        tokens.push(scene.forge.saying(&claims));
    }
    let mut headless = user.clone();
    headless["sub"] = json!("countersign");
    tokens.push(scene.forge.saying(&headless));
    scene.none_is_taken(tokens).await;
}

#[tokio::test]
async fn t7_near_misses_of_issuer_and_audience_are_refused() {
    let scene = Scene::set().await;
    let mut tokens = Vec::new();
    for issuer in [
        "http://localhost:8080/",
        "http://localhost",
        "http://localhost:80",
        "https://localhost:8080",
        "HTTP://localhost:8080",
        "http://LOCALHOST:8080",
        "http://localhost:8080?",
        "http://localhost:8080#",
        " http://localhost:8080",
        "http://localhost:8080 ",
        "http://localhost:8080\u{0}",
        "http://localhost.:8080",
        "http://127.0.0.1:8080",
        "http://[::1]:8080",
        "http://localhost:8080/.",
        "http://localhost:8080%2f",
        "http://a@localhost:8080",
        "//localhost:8080",
        "localhost:8080",
        "http://localhost:80800",
        "",
        "*",
    ] {
        tokens.push(scene.forge.saying(&scene.forge.claims_with("iss", json!(issuer))));
    }
    tokens.push(scene.forge.saying(&scene.forge.claims_with("iss", json!(["http://localhost:8080"]))));
    for audience in [
        json!("https://api.example/"),
        json!("https://api.example:443"),
        json!("HTTPS://api.example"),
        json!("https://API.example"),
        json!("api.example"),
        json!("https://api.exampl"),
        json!("https://api.example "),
        json!("https://api.example\u{0}"),
        json!("*"),
        json!("https://api.example,https://other"),
        json!(["https://other.example"]),
        json!(["https://api.example", ""]),
        json!(["https://api.example", 7]),
        json!(["https://api.example", null]),
        json!([["https://api.example"]]),
        json!({"https://api.example": true}),
        json!([]),
        json!(""),
        json!(7),
    ] {
        tokens.push(scene.forge.saying(&scene.forge.claims_with("aud", audience)));
    }
    scene.none_is_taken(tokens).await;
    let several = scene.forge.claims_with("aud", json!(["https://unknown.example", "https://api.example"]));
    assert!(scene.is_taken(&scene.forge.saying(&several)).await, "one known audience is enough");
}

#[tokio::test]
async fn t8_time_limits_are_exact_to_the_second() {
    let scene = Scene::set().await;
    let now = START.seconds();
    let token = |exp: i64, iat: i64, nbf: i64| {
        let mut claims = scene.forge.claims();
        (claims["exp"], claims["iat"], claims["nbf"]) = (json!(exp), json!(iat), json!(nbf));
        scene.forge.saying(&claims)
    };
    for (exp, iat, nbf, is_good) in [
        (now + 1, now - 60, now - 60, true),
        (now, now - 60, now - 60, false),
        (now - 1, now - 60, now - 60, false),
        (now + 60, now + 5, now, true),
        (now + 60, now + 6, now, false),
        (now + 60, now, now + 5, true),
        (now + 60, now, now + 6, false),
        (now + 3600, now, now, true),
        (now + 3601, now, now, false),
        (now + 3600, now - 1, now, false),
        (now + 1, now + 1, now, false),
        (now + 1, now + 2, now, false),
    ] {
        let taken = scene.is_taken(&token(exp, iat, nbf)).await;
        assert_eq!(taken, is_good, "exp {} iat {} nbf {}", exp - now, iat - now, nbf - now);
    }
    let edge = token(now + 1, now, now);
    assert!(scene.is_taken(&edge).await);
    scene.app.advance(std::time::Duration::from_millis(999)).await;
    assert!(scene.is_taken(&edge).await);
    scene.app.advance(std::time::Duration::from_millis(1)).await;
    assert!(!scene.is_taken(&edge).await, "also when it was in the cache");
}

#[tokio::test]
async fn t8_dates_are_integers_only() {
    let scene = Scene::set().await;
    let exp = START.seconds() + 300;
    let without = scene.forge.claims_with("exp", Value::Null).to_string();
    let spelled = |spelling: &str| format!("{{\"exp\":{spelling},{}", &without[1..]);
    let spellings = [
        format!("{exp}.0"),
        format!("{exp}.5"),
        format!("{exp}e0"),
        format!("\"{exp}\""),
        format!("-{exp}"),
        format!("[{exp}]"),
        "9007199254740993".to_owned(),
        "18446744073709551615".to_owned(),
        "18446744073709551616".to_owned(),
        "1e300".to_owned(),
        "1e999".to_owned(),
        "null".to_owned(),
        "true".to_owned(),
        format!("0{exp}"),
        format!("+{exp}"),
        "NaN".to_owned(),
    ];
    let header = scene.forge.header().to_string();
    scene.none_is_taken(spellings.iter().map(|spelling| scene.forge.sign(&header, &spelled(spelling)))).await;
    assert!(scene.is_taken(&scene.forge.sign(&header, &spelled(&exp.to_string()))).await);
}

#[tokio::test]
async fn t9_t11_t15_anything_but_a_compact_jws_in_strict_base64url_is_refused() {
    let scene = Scene::set().await;
    let honest = scene.forge.under(&scene.forge.header());
    let parts: Vec<&str> = honest.split('.').collect();
    let [header, payload, signature] = parts[..] else { panic!() };
    let pad = |length: usize| {
        let claims = scene.forge.claims_with("pad", json!("x".repeat(length)));
        scene.forge.saying(&claims)
    };
    let too_long = pad((4096 - pad(0).len()) / 4 * 3 + 3);
    assert!(too_long.len() > 4096);
    scene
        .none_is_taken([
            format!("{honest}."),
            format!(".{honest}"),
            format!("{honest}.{signature}"),
            format!("{header}.{payload}"),
            format!("{header}..{signature}"),
            format!("{header}.{payload}.{payload}.{payload}.{signature}"),
            format!(" {honest}"),
            format!("{honest} "),
            format!("{honest}\n"),
            format!("{honest}="),
            format!("{header}=.{payload}.{signature}"),
            format!("{header}.{payload}.{signature}AA"),
            format!("{header}.{payload}.{}", signature.replace('-', "+").replace('_', "/") + "+"),
            format!("{header}.{payload}.{}", &signature[..signature.len() - 1]),
            honest.replacen('.', "%2E", 1),
            format!("Bearer {honest}"),
            format!("\"{honest}\""),
            json!({"protected": header, "payload": payload, "signature": signature}).to_string(),
            json!({"payload": payload, "signatures": [{"protected": header, "signature": signature}]}).to_string(),
            scene.forge.sign(&scene.forge.header().to_string(), &honest),
            ".".repeat(4096),
            "a".repeat(10_000),
            too_long,
        ])
        .await;
    let long = pad((4096 - pad(0).len()) / 4 * 3 - 3);
    assert!(long.len() <= 4096 && scene.is_taken(&long).await);
}

#[tokio::test]
async fn t10_t12_headers_and_claims_are_one_strict_object_without_duplicates() {
    let scene = Scene::set().await;
    let (header, claims) = (scene.forge.header().to_string(), scene.forge.claims().to_string());
    let mut tokens = Vec::new();
    let front = |object: &str, member: &str| format!("{{{member},{}", &object[1..]);
    let back = |object: &str, member: &str| format!("{},{member}}}", &object[..object.len() - 1]);
    for member in [
        "\"exp\":9999999999",
        "\"\\u0065xp\":9999999999",
        "\"sub\":\"batch\"",
        "\"scope\":\"admin\"",
        "\"client_id\":null",
        "\"x\":1,\"x\":1",
        "\"x\":{\"y\":1,\"y\":2}",
        "\"x\":[{\"y\":1,\"\\u0079\":2}]",
        "\"\":1,\"\":2",
    ] {
        tokens.push(scene.forge.sign(&header, &front(&claims, member)));
        tokens.push(scene.forge.sign(&header, &back(&claims, member)));
    }
    for member in ["\"alg\":\"none\"", "\"\\u0061lg\":\"EdDSA\"", "\"kid\":\"x\"", "\"typ\":\"JWT\"", "\"x\":1,\"x\":1"]
    {
        tokens.push(scene.forge.sign(&front(&header, member), &claims));
        tokens.push(scene.forge.sign(&back(&header, member), &claims));
    }
    for payload in [
        String::new(),
        "null".into(),
        "[]".into(),
        "\"x\"".into(),
        format!("[{claims}]"),
        format!("\u{feff}{claims}"),
        format!("{claims}{claims}"),
        format!("{claims} x"),
        format!("{claims},"),
        claims.replace('"', "'"),
        back(&claims, &format!("\"deep\":{}1{}", "[".repeat(200), "]".repeat(200))),
        back(&claims, "\"x\":\"\\ud800\""),
    ] {
        tokens.push(scene.forge.sign(&header, &payload));
        if payload.len() < 600 {
            tokens.push(scene.forge.sign(&payload, &claims));
        }
    }
    scene.none_is_taken(tokens).await;
    let harmless = back(&claims, "\"x\":{\"exp\":1},\"X\":1,\"é\":\"\u{1F600}\"");
    assert!(scene.is_taken(&scene.forge.sign(&header, &harmless)).await, "unknown members are ignored");
}

#[tokio::test]
async fn t13_the_malleable_twin_of_a_token_is_revoked_with_it() {
    let scene = Scene::set().await;
    let token = scene.app.token_of(&scene.batch).await.access_token;
    let twin = es256_twin(&token);
    assert!(scene.is_taken(&token).await && scene.is_taken(&twin).await);
    scene.app.revoke("jti", claims_of(&token)["jti"].as_str().unwrap()).await;
    assert!(!scene.is_taken(&twin).await && !scene.is_taken(&token).await);
}

#[tokio::test]
async fn i4_a_higher_epoch_in_a_token_gains_nothing() {
    let scene = Scene::set().await;
    scene.app.revoke("client", "batch").await;
    let old = scene.forge.under(&scene.forge.header());
    assert!(!scene.is_taken(&old).await);
    let epochs = [json!(0), json!(-1), json!("1"), json!(1.0), json!(true), json!(4_294_967_296_i64), json!([1])];
    for epoch in epochs {
        assert!(!scene.is_taken(&scene.forge.saying(&scene.forge.claims_with("cep", epoch.clone()))).await, "{epoch}");
    }
    assert!(scene.is_taken(&scene.forge.saying(&scene.forge.claims_with("cep", json!(1)))).await);
}
