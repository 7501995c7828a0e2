//! Rows that cannot be read, and a database that cannot write: dependent requests are refused, all others are served.

use std::sync::Arc;
use std::time::Duration;

use countersign::domain::{Algorithm, ClientKind, ClientSettings, FeedRight, IntrospectRight};
use countersign::service::Requester;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::{PASSWORD, TestApp, USER, machine};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::forge::pem;
use crate::support::judging::*;
use crate::support::process::Home;

/// The problems that `/readyz` and `/admin/v1/status` list.
async fn problems(app: &TestApp) -> Vec<String> {
    let answer = app.http.get(format!("http://{}/readyz", app.operations)).send().await.unwrap();
    assert_eq!(answer.status(), 200, "other replicas have the same rows");
    let ready: Value = answer.json().await.unwrap();
    let status = app.admin(Method::GET, "/admin/v1/status").send().await.unwrap().json::<Value>().await.unwrap();
    let told = ready.get("problems").cloned().unwrap_or(json!([]));
    assert_eq!(status["problems"], told);
    serde_json::from_value(told).unwrap()
}

/// Another replica, with the credentials of the first one's callers.
async fn restarted(app: &TestApp) -> TestApp {
    let mut replica = TestApp::replica(Arc::clone(&app.database), Arc::clone(&app.clock), 7, "").await;
    replica.gateway_secret.clone_from(&app.gateway_secret);
    replica.admin_key.clone_from(&app.admin_key);
    replica
}

/// Corrupts a client's row, and notifies the replicas of the change.
async fn spoil_client(app: &TestApp, id: &str, change: &str) {
    let subject = match app.database.engine {
        Engine::Sqlite => format!("CAST('{id}' AS BLOB)"),
        Engine::Postgres => format!("'{id}'::bytea"),
    };
    let now = app.service.status.now().millis();
    app.database
        .tamper(&format!(
            "UPDATE clients SET {change} WHERE id = '{id}';
             INSERT INTO changes (kind, subject, epoch, created_at, expires_at)
             VALUES ('client_changed', {subject}, 0, {now}, {now} + 600000)"
        ))
        .await;
}

on_both_engines! {
    async fn d18_a_signing_key_that_cannot_be_opened_affects_only_its_own_tokens(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.service.keys.import_key(&pem("ed25519"), None, &Requester::command_line()).await.unwrap();
        let settings = ClientSettings { algorithm: Some(Algorithm::EdDsa), ..machine(&[], "") };
        let batch = app.confidential("batch", settings).await;
        let (concerned, other) = (app.token_of(&batch).await.access_token, app.log_in().await.access_token);
        let zeros = match app.database.engine {
            Engine::Sqlite => "zeroblob(length(sealed))",
            Engine::Postgres => "decode(repeat('00', length(sealed)), 'hex')",
        };
        app.database.tamper(&format!("UPDATE signing_keys SET sealed = {zeros} WHERE algorithm = 'EdDSA'")).await;
        let kid = header_of(&concerned)["kid"].as_str().unwrap().to_owned();

        let replica = restarted(&app).await;
        assert!(replica.is_active(&other).await);
        replica.log_in().await;
        assert_eq!(replica.introspection(&concerned).await.status(), 503);
        assert_eq!(replica.token_request(&batch, &[]).await.status(), 503);
        assert!(!replica.published().await.contains(&kid));
        let told = problems(&replica).await;
        assert!(told.len() == 1 && told[0].contains(&kid) && told[0].contains("keys reseal"), "{told:?}");
        assert_eq!(replica.figure("countersign_unreadable_rows{table=\"signing_keys\"}").await, 1.0);

        // A replica that had opened the key keeps using it, as when another replica seals it under a new master key.
        app.service.keys.rotate_key(Algorithm::Es256, &Requester::command_line()).await.unwrap();
        assert!(app.is_active(&concerned).await && app.is_active(&other).await);
        app.token_of(&batch).await;
        assert_eq!(problems(&app).await.len(), 1);
    }

    async fn d18_an_invalid_key_row_affects_only_its_own_tokens(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.service.keys.import_key(&pem("ed25519"), None, &Requester::command_line()).await.unwrap();
        let settings = ClientSettings { algorithm: Some(Algorithm::EdDsa), ..machine(&[], "") };
        let batch = app.confidential("batch", settings).await;
        let (concerned, other) = (app.token_of(&batch).await.access_token, app.log_in().await.access_token);
        app.database.tamper("UPDATE signing_keys SET announced_at = signs_from + 1 WHERE algorithm = 'EdDSA'").await;
        app.service.keys.rotate_key(Algorithm::Es256, &Requester::command_line()).await.unwrap();
        for replica in [&app, &restarted(&app).await] {
            assert!(replica.is_active(&other).await);
            assert_eq!(replica.introspection(&concerned).await.status(), 503);
            let told = problems(replica).await;
            assert!(told.len() == 1 && told[0].contains("signs_from"), "{told:?}");
        }
        let kid = header_of(&concerned)["kid"].as_str().unwrap().to_owned();
        app.administer(Method::POST, &format!("/admin/v1/keys/{kid}/withdraw"), None).await;
        assert_eq!(app.introspection(&concerned).await.status(), 503, "the row says no more than before");
    }

    async fn d18_an_unreadable_client_affects_only_what_depends_on_it(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let spoilt = app.confidential("spoilt", machine(&[], "")).await;
        let orders = app.confidential("orders", resource_server(&["https://orders.example"], IntrospectRight::Own)).await;
        let caller = app.confidential("caller", machine(&["https://orders.example"], "")).await;
        let (concerned, for_orders) = (app.token_of(&spoilt).await.access_token, app.token_of(&caller).await.access_token);
        let other = app.log_in().await.access_token;
        spoil_client(&app, "spoilt", "audiences = '\"'").await;
        spoil_client(&app, "orders", "kind = 'unheard-of'").await;
        spoil_client(&app, "caller", "audiences = ''").await;
        app.sync().await;
        for replica in [&app, &restarted(&app).await] {
            assert!(replica.is_active(&other).await);
            replica.log_in().await;
            assert_eq!(replica.introspection(&concerned).await.status(), 503, "its client");
            assert_eq!(replica.introspection(&for_orders).await.status(), 503, "its only audience");
            assert_eq!(replica.token_request(&spoilt, &[]).await.status(), 503);
            assert_eq!(replica.ask(&orders, &other).send().await.unwrap().status(), 503);
            let unknown = Credentials { id: "nobody".to_owned(), secret: "x".to_owned() };
            assert_eq!(replica.token_request(&unknown, &[]).await.status(), 401);
            let told = problems(replica).await;
            assert!(told.len() == 2 && told.iter().any(|told| told.contains("audiences")), "{told:?}");
            assert_eq!(replica.figure("countersign_unreadable_rows{table=\"clients\"}").await, 2.0);
        }
        // After the repair, the service works as before.
        spoil_client(&app, "spoilt", "audiences = ''").await;
        spoil_client(&app, "orders", "kind = 'confidential'").await;
        app.sync().await;
        assert!(app.is_active(&concerned).await && app.is_active(&for_orders).await);
        assert_eq!(problems(&app).await, [""; 0]);
    }

    async fn d18_a_repaired_row_is_used_again_without_an_entry_on_the_feed(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let spoilt = app.confidential("spoilt", machine(&[], "")).await;
        let concerned = app.token_of(&spoilt).await.access_token;
        app.service.keys.import_key(&pem("ed25519"), None, &Requester::command_line()).await.unwrap();
        spoil_client(&app, "spoilt", "audiences = '\"'").await;
        app.database.tamper("UPDATE signing_keys SET announced_at = signs_from + 1 WHERE algorithm = 'EdDSA'").await;
        app.sync().await;
        let replica = restarted(&app).await;
        assert_eq!(problems(&replica).await.len(), 2);
        app.database.tamper("UPDATE clients SET audiences = '' WHERE id = 'spoilt'").await;
        app.database.tamper("UPDATE signing_keys SET announced_at = signs_from WHERE algorithm = 'EdDSA'").await;
        replica.follower.reread_unreadable().await.unwrap();
        assert_eq!(problems(&replica).await, [""; 0]);
        assert!(replica.is_active(&concerned).await);
    }

    async fn d18_f1_the_feed_names_an_unreadable_client_unknown_and_announces_its_repair(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.confidential("spoilt", machine(&[], "")).await;
        let settings = ClientSettings { feed: FeedRight::Revocations, ..ClientSettings::new(ClientKind::Confidential) };
        let reader = app.confidential("orders", settings).await;
        let read = async |query: String| {
            let request = app.get(&format!("/v1/revocations{query}")).basic_auth(&reader.id, Some(&reader.secret));
            let feed: Value = request.send().await.unwrap().json().await.unwrap();
            let of_client = feed["items"].as_array().unwrap().iter().rfind(|item| item["client_id"] == "spoilt");
            (of_client.map_or(Value::Null, |item| item["state"].clone()), format!("?cursor={}", feed["cursor"].as_str().unwrap()))
        };
        app.sync().await;
        let (state, before) = read(String::new()).await;
        assert_eq!(state, "active");
        spoil_client(&app, "spoilt", "audiences = '\"'").await;
        app.sync().await;
        let (state, spoilt) = read(before).await;
        assert_eq!((state, read(String::new()).await.0), (json!("unknown"), json!("unknown")));
        app.database.tamper("UPDATE clients SET audiences = '' WHERE id = 'spoilt'").await;
        app.follower.reread_unreadable().await.unwrap();
        assert_eq!((read(spoilt).await.0, read(String::new()).await.0), (json!("active"), json!("active")));
    }

    async fn d18_lists_show_the_readable_rows_and_name_the_others(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let good = app.log_in().await;
        let bad = app.log_in().await;
        let sid = &bad.session_id;
        let id = countersign::domain::SessionId::parse(sid).unwrap();
        let hex: String = id.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let literal = match app.database.engine {
            Engine::Sqlite => format!("x'{hex}'"),
            Engine::Postgres => format!("'\\x{hex}'"),
        };
        app.database.tamper(&format!("UPDATE sessions SET audience = '' WHERE id = {literal}")).await;
        let user = app.user_id(USER).await;
        let list = app.administer(Method::GET, &format!("/admin/v1/sessions?user={user}"), None).await;
        assert_eq!(list["sessions"][0]["id"], good.session_id.as_str());
        assert_eq!(list["sessions"].as_array().unwrap().len(), 1);
        assert!(list["unreadable"][0].as_str().unwrap().contains(&hex), "{list}");
        let own = app.get("/v1/me/sessions").bearer_auth(&good.access_token).send().await.unwrap();
        let own: Value = own.json().await.unwrap();
        assert_eq!((own["sessions"].as_array().unwrap().len(), &own["unreadable"]), (1, &Value::Null));
        let (mut pages, mut cursor) = (0, String::new());
        loop {
            let page = app.administer(Method::GET, &format!("/admin/v1/sessions?user={user}&limit=1{cursor}"), None).await;
            pages += page["sessions"].as_array().unwrap().len();
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(pages, 1);

        // The other tokens of a batch are judged, and this one is neither active nor inactive.
        let tokens = [&*good.access_token, &bad.refresh_token, "no token"];
        let answer: Value = app.batch(&app.gateway(), &tokens).await.json().await.unwrap();
        assert_eq!(answer["results"][0]["active"], true);
        assert_eq!(answer["results"][1], json!({"error": "temporarily_unavailable"}));
        assert_eq!(answer["results"][2], json!({"active": false}));
    }

    async fn d18_an_unreadable_client_leaves_the_other_tokens_of_a_batch_judged(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let spoilt = app.confidential("spoilt", machine(&[], "")).await;
        let concerned = app.token_of(&spoilt).await.access_token;
        let other = app.log_in().await.access_token;
        spoil_client(&app, "spoilt", "audiences = '\"'").await;
        app.sync().await;
        for tokens in [[&*concerned, &*other, "no token"], [&*other, "no token", &*concerned]] {
            let answer: Value = app.batch(&app.gateway(), &tokens).await.json().await.unwrap();
            for (token, result) in tokens.iter().zip(answer["results"].as_array().unwrap()) {
                let expected = match *token {
                    "no token" => json!({"active": false}),
                    token if token == concerned => json!({"error": "temporarily_unavailable"}),
                    _ => result.clone(),
                };
                assert_eq!(*result, expected);
                assert_eq!(result.get("active") == Some(&json!(true)), *token == other);
            }
        }
    }

    async fn d18_an_unreadable_user_is_listed_separately_and_the_others_work(database: TestDatabase) {
        let app = TestApp::start(database).await;
        app.administer(Method::POST, "/admin/v1/users", Some(json!({"username": "bob", "password": PASSWORD}))).await;
        app.database.tamper("UPDATE users SET roles = '\"' WHERE username = 'bob'").await;
        let list = app.administer(Method::GET, "/admin/v1/users", None).await;
        assert_eq!(list["users"].as_array().unwrap().len(), 1);
        assert_eq!(list["users"][0]["username"], USER);
        let unreadable = list["unreadable"][0].as_str().unwrap();
        assert!(unreadable.contains("users") && unreadable.contains("roles"), "{unreadable}");
        let first = app.administer(Method::GET, "/admin/v1/users?limit=1", None).await;
        let cursor = first["next_cursor"].as_str().unwrap();
        let second = app.administer(Method::GET, &format!("/admin/v1/users?limit=1&cursor={cursor}"), None).await;
        let seen = [&first, &second].map(|page| page["users"].as_array().unwrap().len());
        assert_eq!(seen.iter().sum::<usize>(), 1, "{first} {second}");
        let login = json!({"username": "bob", "password": PASSWORD});
        assert_eq!(app.post_json("/v1/login", &login).send().await.unwrap().status(), 503);
        app.log_in().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d6_a_database_that_cannot_write_is_reported_to_operators_until_it_can() {
    if !Engine::Postgres.is_available() {
        return;
    }
    let app = TestApp::start(TestDatabase::alone().await).await;
    let session = app.log_in().await;
    app.database
        .tamper(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = 'could not extend file'; END$$;
             CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON sessions FOR EACH ROW EXECUTE FUNCTION full_disk()",
        )
        .await;
    assert_eq!(app.refresh(&session.refresh_token).await.status(), 503);
    let told = problems(&app).await;
    assert!(
        told.len() == 1 && told[0].contains("cannot write") && told[0].contains("could not extend file"),
        "{told:?}"
    );
    assert!(app.is_active(&session.access_token).await, "what needs no write goes on");
    app.database.tamper("DROP TRIGGER full_disk ON sessions").await;
    app.advance(Duration::from_secs(11)).await;
    assert_eq!(app.refresh(&session.refresh_token).await.status(), 200);
    assert_eq!(problems(&app).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn d4_a_lost_file_beside_its_master_key_is_not_replaced_by_an_empty_database() {
    let home = Home::empty();
    drop(home.serve());
    let folder = home.path().join("countersign-data");
    for file in std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()) {
        if !file.ends_with("master.key") {
            std::fs::remove_file(file).unwrap();
        }
    }
    for command in ["serve", "migrate"] {
        let refused = home.run(&[command]);
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert_eq!(refused.code, Some(1), "{said}");
        assert!(said.contains("is missing") && said.contains("master.key") && said.contains("restore"), "{said}");
    }
    assert!(!folder.join("countersign.db").exists());
    std::fs::remove_file(folder.join("master.key")).unwrap();
    home.serve();
}
