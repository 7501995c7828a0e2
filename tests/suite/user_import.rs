//! Users who are imported with the password hashes of another system, from the import to the first login. The login
//! upgrades their hash to the normal kind.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::{TestApp, error_of};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::sessions::*;

const PASSWORD: &str = "correct horse battery staple";
/// Name and hash as passlib, Django, Werkzeug and argon2-cffi write it.
const HASHES: [(&str, &str); 5] = [
    ("bcrypt", "$2y$04$YkgQGKgFFMPYyx2RxOAlpuLkfbv09c2XXrZJxLiMDVhuc9yfso3lC"),
    ("passlib", "$pbkdf2-sha256$100$Rcj5H.Ock1KKkTIGYOz9Xw$.Ety6uWQ09v8tAQ6h3IMRUwJHvMhZdZ4v/hKJnsdJ5o"),
    ("django", "pbkdf2_sha256$120$7J686MTYVyJN$9+0GAPCC7v9NWYkIHzISF2IB+Ya+TH83FB7OXOpxiuM="),
    ("scrypt", "$scrypt$ln=4,r=8,p=1$DUFIiRGilNLauzcmROg95w$jMONylO1BPc4t6opZQzzi683UltJDx8FUbyNyRIIjW4"),
    ("argon2", "$argon2id$v=19$m=64,t=2,p=1$3P4bDyCzKjn8XicYwbqtcg$fIrWK7JryZcPG/WKr+Nj1/BK7Ez6hFEzsNCISxfFiHY"),
];

fn lines() -> String {
    HASHES
        .iter()
        .map(|(name, hash)| format!("{}\n", json!({"username": name, "password_hash": hash, "roles": ["imported"]})))
        .collect()
}

async fn import(app: &TestApp, lines: String) -> Value {
    let request = app.admin(Method::POST, "/admin/v1/users/import").header("content-type", "application/jsonl");
    let answer = request.body(lines).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    answer.json().await.unwrap()
}

on_both_engines! {
    async fn p1_the_first_login_of_an_imported_user_upgrades_the_hash(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let sessions = Sessions::of(&app).await;
        assert_eq!(import(&app, lines()).await, json!({"created": 5, "skipped": 0, "errors": []}));
        for (name, _) in HASHES {
            let stored = async || sessions.store.users().credentials_by_id(app.user_id(name).await).await.unwrap().unwrap().password_hash;
            let before = stored().await;
            let wrong = app.login(&json!({"username": name, "password": "Correct horse battery staple"})).await;
            assert_eq!(error_of(wrong).await, (401, "invalid_credentials".into()));
            assert_eq!(stored().await, before, "a wrong password upgrades nothing");
            for _ in 0..2 {
                assert_eq!(app.login(&json!({"username": name, "password": PASSWORD})).await.status(), 200, "{name}");
                assert!(stored().await.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{name}");
            }
        }
        assert_eq!(sessions.store.users().password_samples().await.unwrap().len(), 1);
        assert_eq!(import(&app, lines()).await["created"], 0, "nobody is imported over");
        assert_eq!(app.login(&json!({"username": "bcrypt", "password": PASSWORD})).await.status(), 200);
    }

    async fn of_two_lines_with_one_name_the_first_creates_the_user(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let line = |hash: &str| format!("{}\n", json!({"username": "twice", "password_hash": hash}));
        let both = [line(HASHES[0].1), line(HASHES[0].1), line(HASHES[1].1)].concat();
        let report = import(&app, both.clone()).await;
        assert_eq!((&report["created"], &report["skipped"]), (&json!(1), &json!(1)), "{report}");
        assert_eq!(report["errors"].as_array().unwrap().iter().map(|error| &error["line"]).collect::<Vec<_>>(), [3]);
        assert_eq!(import(&app, both).await["created"], 0);
        let events = app.audit("users.imported").await;
        assert_eq!(events.len(), 1, "an import that created nobody is no event: {events:?}");
        assert_eq!(events[0]["detail"]["created"], 1, "{events:?}");
    }

    async fn several_first_logins_at_once_all_succeed(database: TestDatabase) {
        let app = Arc::new(TestApp::start(database).await);
        import(&app, lines()).await;
        let logins: Vec<_> = (0..8)
            .map(|_| {
                let app = Arc::clone(&app);
                tokio::spawn(async move { app.login(&json!({"username": "django", "password": PASSWORD})).await.status().as_u16() })
            })
            .collect();
        for login in logins {
            assert_eq!(login.await.unwrap(), 200);
        }
    }

    async fn a_login_succeeds_although_the_hash_upgrade_cannot_be_written(database: TestDatabase) {
        let app = TestApp::start(database).await;
        import(&app, lines()).await;
        let broken = Broken::on(&app.database, "BEFORE UPDATE OF password_hash", "users").await;
        assert_eq!(app.login(&json!({"username": "bcrypt", "password": PASSWORD})).await.status(), 200);
        broken.mend().await;
        assert_eq!(app.login(&json!({"username": "bcrypt", "password": PASSWORD})).await.status(), 200);
    }

    async fn a_disabled_imported_user_does_not_log_in(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let line = json!({"username": "gone", "password_hash": HASHES[0].1, "disabled": true});
        import(&app, line.to_string()).await;
        let answer = app.login(&json!({"username": "gone", "password": PASSWORD})).await;
        assert_eq!(error_of(answer).await, (401, "invalid_credentials".into()));
        app.set_enabled("gone", true).await;
        assert_eq!(app.login(&json!({"username": "gone", "password": PASSWORD})).await.status(), 200);
    }

    async fn p14_a_login_never_changes_the_set_of_passwords_that_an_imported_hash_accepts(database: TestDatabase) {
        let app = TestApp::start(database).await;
        // bcrypt compares 72 bytes: the system that made this hash also accepted every longer spelling.
        let seventy_two = "012345678901234567890123456789012345678901234567890123456789012345678901";
        let hash = "$2b$04$l.RnhUmRRPNC4cclp4TrpOrfwXP1SRexanciu1qYI31hp4OBYzxj.";
        import(&app, json!({"username": "longwinded", "password_hash": hash}).to_string()).await;
        for typed in [format!("{seventy_two} mistyped"), format!("{seventy_two} as the owner knows it"), seventy_two.to_owned()] {
            for _ in 0..2 {
                let answer = app.login(&json!({"username": "longwinded", "password": typed})).await;
                assert_eq!(answer.status(), 200, "{typed}");
            }
        }
        let answer = app.login(&json!({"username": "longwinded", "password": &seventy_two[..71]})).await;
        assert_eq!(error_of(answer).await, (401, "invalid_credentials".into()));
    }

    async fn p13_a_hash_that_would_make_every_refusal_expensive_is_refused_by_line_parameter_and_limit(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let bcrypt = HASHES[0].1.replace("$2y$04$", "$2y$16$");
        let argon2 = HASHES[4].1.replace("m=64,t=2", "m=1048576,t=1");
        let lines: Vec<_> = [("good", HASHES[0].1), ("slow", &bcrypt), ("large", &argon2)]
            .iter()
            .map(|(name, hash)| json!({"username": name, "password_hash": hash}).to_string())
            .collect();
        let report = import(&app, lines.join("\n")).await;
        let error = |line: u64, detail: &str| json!({"line": line, "detail": detail});
        let errors = [
            error(2, "password_hash: the bcrypt hash has the cost 16; passwords.legacy_cost allows 13 at most"),
            error(3, "password_hash: the argon2id hash has m 1048576; passwords.legacy_memory_kib allows 131072 at most"),
        ];
        assert_eq!(report, json!({"created": 1, "skipped": 0, "errors": errors}));
        // An earlier release imported such a hash: its user is refused, and no memory is allocated for it.
        app.database.tamper(&format!("UPDATE users SET password_hash = '{argon2}' WHERE username = 'good'")).await;
        app.service.passwords.learn_password_schemes().await.unwrap();
        let answer = app.login(&json!({"username": "good", "password": PASSWORD})).await;
        assert_eq!(error_of(answer).await, (401, "invalid_credentials".into()));
    }

    async fn an_import_delays_other_writes_by_one_small_batch_only(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let lines: Vec<_> = (0..120)
            .map(|number| json!({"username": format!("user{number}"), "password_hash": HASHES[0].1}).to_string())
            .collect();
        assert_eq!(import(&app, lines.join("\n")).await["created"], 120);
        let events = app.audit("users.imported").await;
        let created: Vec<_> = events.iter().map(|event| event["detail"]["created"].as_u64().unwrap()).collect();
        assert_eq!((created.iter().sum::<u64>(), created.iter().max()), (120, Some(&50)), "one event for each transaction");
    }
}
