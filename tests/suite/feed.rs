//! `GET /v1/revocations` and `GET /v1/revocations/events`: revocation for those who verify tokens offline.

use std::sync::Arc;
use std::time::Duration;

use countersign::clock::Clock;
use countersign::domain::{ClientKind, ClientSettings, FeedRight};
use reqwest::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, RETRY_AFTER, VARY};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::app::{ISSUER, TestApp, error_of, machine};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::judging::{Credentials, claims_of, id_in_feed};
use crate::support::outage::{bring_feed_back, take_feed_away};

const FEED: &str = "/v1/revocations";
const EVENTS: &str = "/v1/revocations/events";

async fn reader(app: &TestApp, id: &str, feed: FeedRight) -> Credentials {
    app.confidential(id, ClientSettings { feed, ..ClientSettings::new(ClientKind::Confidential) }).await
}

fn by(request: RequestBuilder, reader: &Credentials) -> RequestBuilder {
    request.basic_auth(&reader.id, Some(&reader.secret))
}

async fn read(app: &TestApp, reader: &Credentials, query: &str) -> Value {
    let answer = by(app.get(&format!("{FEED}{query}")), reader).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{}", answer.text().await.unwrap());
    answer.json().await.unwrap()
}

/// The items of a type, without the members that differ between runs.
fn items<'a>(feed: &'a Value, kind: &str) -> Vec<&'a Value> {
    feed["items"].as_array().unwrap().iter().filter(|item| item["type"] == kind).collect()
}

async fn beside(first: &TestApp, number: u64) -> TestApp {
    let mut second = TestApp::replica(Arc::clone(&first.database), Arc::clone(&first.clock), number, "").await;
    second.gateway_secret.clone_from(&first.gateway_secret);
    second.admin_key.clone_from(&first.admin_key);
    second
}

async fn revoke(app: &TestApp, owner: &Credentials, token: &str) {
    let request = app.post_form("/oauth2/revoke", &[("token", token)]);
    assert_eq!(by(request, owner).send().await.unwrap().status(), StatusCode::OK);
}

/// A stream, split into events.
struct Events {
    answer: Response,
    text: String,
}

#[derive(Debug, Clone, PartialEq)]
struct Event {
    name: String,
    id: Option<String>,
    data: Value,
}

impl Events {
    async fn open(app: &TestApp, reader: &Credentials, since: Option<&str>) -> Self {
        let mut request = by(app.get(EVENTS), reader);
        if let Some(since) = since {
            request = request.header("last-event-id", since);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[CONTENT_TYPE], "text/event-stream");
        Self { answer, text: String::new() }
    }

    /// The next event; `None` when the stream ends.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    event.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).map(str::to_owned)
                };
                let event = Event {
                    name: field("event").unwrap(),
                    id: field("id"),
                    data: serde_json::from_str(&field("data").unwrap()).unwrap(),
                };
                self.text = rest.to_owned();
                return Some(event);
            }
            let chunk = self.answer.chunk().await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The events up to the next proof of freshness, which is the last of them.
    async fn until_fresh(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await.unwrap();
            let is_fresh = event.name == "fresh";
            events.push(event);
            if is_fresh {
                return events;
            }
        }
    }

    /// The next item of a type.
    async fn item(&mut self, kind: &str) -> Value {
        loop {
            let event = self.next().await.unwrap();
            if event.name == "item" && event.data["type"] == kind {
                return event.data;
            }
        }
    }
}

on_both_engines! {
    async fn f1_a_full_query_answers_every_kind_of_revocation(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let reader = reader(&app, "orders", FeedRight::Revocations).await;
        let worker = app.confidential("worker", machine(&[], "")).await;
        let (token, session, user) =
            (app.token_of(&worker).await.access_token, app.log_in().await, app.log_in().await);
        revoke(&app, &worker, &token).await;
        app.post_json("/v1/logout", &json!({"refresh_token": session.refresh_token})).send().await.unwrap();
        let sub = claims_of(&user.access_token)["sub"].as_str().unwrap().to_owned();
        app.administer(Method::POST, "/admin/v1/revocations", Some(json!({"user": sub}))).await;
        app.administer(Method::PATCH, "/admin/v1/clients/worker", Some(json!({"enabled": false}))).await;
        let key = app.jwks().await["keys"][0]["kid"].as_str().unwrap().to_owned();
        app.administer(Method::POST, &format!("/admin/v1/keys/{key}/withdraw"), None).await;
        app.sync().await;
        let answer = by(app.get(FEED), &reader).send().await.unwrap();
        assert_eq!((&answer.headers()[CACHE_CONTROL], &answer.headers()[VARY]), (&"no-store".parse().unwrap(), &"authorization".parse().unwrap()));
        let etag = answer.headers()[ETAG].to_str().unwrap().to_owned();
        let feed: Value = answer.json().await.unwrap();
        assert_eq!((etag, &feed["full"]), (format!("\"{}\"", feed["cursor"].as_str().unwrap()), &json!(true)));
        assert!(feed["items"].as_array().unwrap().iter().all(|item| item["iss"] == ISSUER));
        let (tokens, sessions) = (items(&feed, "token"), items(&feed, "session"));
        assert_eq!(tokens[0]["id"], id_in_feed(&token));
        assert!(sessions.iter().any(|item| item["sid"] == session.session_id));
        assert!(items(&feed, "subject").iter().any(|item| item["sub"] == sub && item["epoch"] == 1));
        assert!(items(&feed, "key").iter().any(|item| item["kid"] == key));
        let of_worker: Vec<_> = items(&feed, "client").into_iter().filter(|item| item["client_id"] == "worker").collect();
        assert_eq!(of_worker.len(), 1, "each client once");
        assert!(of_worker.iter().all(|item| item["state"] == "disabled" && item["epoch"] == 1));
        assert!(of_worker.iter().any(|item| item["version"].as_i64().unwrap() > 0));
        let lives: Vec<_> = [tokens, sessions].concat().iter().map(|item| item["exp"].as_i64().unwrap()).collect();
        assert!(lives.iter().all(|exp| *exp > app.clock.now().seconds()));
        assert!(items(&feed, "caller").is_empty(), "only edges get digests of secrets");
    }

    async fn f2_only_a_client_with_the_right_reads_the_feed(database: TestDatabase) {
        let app = TestApp::start(database).await;
        for path in [FEED, EVENTS] {
            let refused = by(app.get(path), &app.gateway()).send().await.unwrap();
            assert_eq!(error_of(refused).await, (403, "unauthorized_client".to_owned()));
            let wrong = Credentials { secret: "wrong".to_owned(), ..app.gateway() };
            for answer in [app.get(path).send().await.unwrap(), by(app.get(path), &wrong).send().await.unwrap()] {
                assert_eq!(error_of(answer).await, (401, "invalid_client".to_owned()));
            }
        }
        let order = json!({"client_id": "page", "type": "public", "feed": "revocations"});
        let answer = app.admin(Method::POST, "/admin/v1/clients").json(&order).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        let order = json!({"client_id": "edge", "type": "confidential", "feed": "edge", "introspect": "any"});
        let made = app.administer(Method::POST, "/admin/v1/clients", Some(order)).await;
        assert_eq!(made["feed"], "edge");
        let edge = Credentials { id: "edge".to_owned(), secret: made["client_secret"].as_str().unwrap().to_owned() };
        let feed = read(&app, &edge, "").await;
        let callers = items(&feed, "caller");
        let own = callers.iter().find(|item| item["client_id"] == "edge").unwrap();
        assert_eq!((&own["introspect"], own["secrets"].as_array().unwrap().len()), (&json!("any"), 1));
        assert!(!feed.to_string().contains(&edge.secret));
    }

    async fn f3_a_diff_query_answers_what_the_cursor_does_not_cover_on_any_replica(database: TestDatabase) {
        let a = TestApp::start(database).await;
        let b = beside(&a, 2).await;
        let reader = reader(&a, "orders", FeedRight::Revocations).await;
        let worker = a.confidential("worker", machine(&[], "")).await;
        let tokens = [a.token_of(&worker).await.access_token, a.token_of(&worker).await.access_token];
        revoke(&a, &worker, &tokens[0]).await;
        a.sync().await;
        b.sync().await;
        let first = read(&a, &reader, "").await;
        let cursor = first["cursor"].as_str().unwrap();
        let nothing = read(&b, &reader, &format!("?cursor={cursor}")).await;
        assert_eq!((&nothing["full"], &nothing["items"]), (&json!(false), &json!([])));
        revoke(&b, &worker, &tokens[1]).await;
        a.sync().await;
        b.sync().await;
        for replica in [&a, &b] {
            let feed = read(replica, &reader, &format!("?cursor={cursor}")).await;
            let ids: Vec<_> = items(&feed, "token").iter().map(|item| item["id"].clone()).collect();
            assert_eq!((&feed["full"], ids), (&json!(false), vec![json!(id_in_feed(&tokens[1]))]));
        }
    }

    async fn f3_a_cursor_that_a_replica_cannot_continue_is_answered_in_full(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let reader = reader(&app, "orders", FeedRight::Revocations).await;
        let other = TestApp::start(TestDatabase::bare(app.database.engine).await).await;
        let foreign = self::reader(&other, "orders", FeedRight::Revocations).await;
        let foreign = read(&other, &foreign, "").await["cursor"].as_str().unwrap().to_owned();
        assert_eq!(read(&app, &reader, &format!("?cursor={foreign}")).await["full"], true);
        for (query, field) in [("?cursor=x", "cursor"), ("?wait=26", "wait"), ("?wait=-1", "wait"), ("?since=1", "query")] {
            let answer = by(app.get(&format!("{FEED}{query}")), &reader).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
            let problem: Value = answer.json().await.unwrap();
            assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        }
    }

    async fn f4_a_waiting_query_is_answered_by_the_revocation_that_it_waits_for(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let reader = reader(&app, "orders", FeedRight::Revocations).await;
        let worker = app.confidential("worker", machine(&[], "")).await;
        let token = app.token_of(&worker).await.access_token;
        app.sync().await;
        let cursor = read(&app, &reader, "").await["cursor"].as_str().unwrap().to_owned();
        let waiting = async { read(&app, &reader, &format!("?cursor={cursor}&wait=25")).await };
        let revoking = async {
            while app.service.feed.readers() == 0 {
                tokio::task::yield_now().await;
            }
            revoke(&app, &worker, &token).await;
        };
        let (feed, ()) = tokio::join!(waiting, revoking);
        assert_eq!(items(&feed, "token")[0]["id"], id_in_feed(&token));
    }

    async fn f5_the_proof_never_claims_more_than_the_last_sync(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let reader = reader(&app, "orders", FeedRight::Revocations).await;
        app.sync().await;
        take_feed_away(&app.database).await;
        for ahead in [0, 700, 60_000] {
            app.clock.advance(Duration::from_millis(ahead));
            // With a view that is not fresh, no client is authenticated.
            let answer = by(app.get(FEED), &reader).send().await.unwrap();
            if ahead == 60_000 {
                assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            } else {
                let covered = answer.json::<Value>().await.unwrap()["covered_ms"].as_i64().unwrap();
                assert!((-i64::try_from(ahead).unwrap() - 2..=-i64::try_from(ahead).unwrap() - 1).contains(&covered), "{covered}");
            }
        }
        bring_feed_back(&app.database).await;
    }

    async fn f6_a_stream_begins_with_everything_and_goes_on_with_each_item(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let reader = reader(&app, "orders", FeedRight::Revocations).await;
        let worker = app.confidential("worker", machine(&[], "")).await;
        let tokens = [app.token_of(&worker).await.access_token, app.token_of(&worker).await.access_token];
        revoke(&app, &worker, &tokens[0]).await;
        app.sync().await;
        let mut events = Events::open(&app, &reader, None).await;
        let all = events.until_fresh().await;
        let names: Vec<_> = all.iter().map(|event| event.name.as_str()).collect();
        assert_eq!((names[0], &names[names.len() - 2..]), ("full", &["full-end", "fresh"][..]));
        assert!(all.iter().any(|event| event.data["id"] == id_in_feed(&tokens[0])));
        let fresh = all.last().unwrap();
        assert_eq!(fresh.id.as_deref(), fresh.data["cursor"].as_str());
        assert!(fresh.data["covered_ms"].as_i64().unwrap() < 0);
        revoke(&app, &worker, &tokens[1]).await;
        assert_eq!(events.item("token").await["id"], id_in_feed(&tokens[1]));
        assert!(app.metrics.render().contains("countersign_feed_items_total{type=\"token\"} 2"));
        assert!(app.metrics.render().contains("countersign_feed_readers 1"));
    }

    async fn f6_a_stream_continues_on_another_replica_without_a_gap(database: TestDatabase) {
        let a = TestApp::start(database).await;
        let b = beside(&a, 2).await;
        let reader = reader(&a, "orders", FeedRight::Revocations).await;
        let worker = a.confidential("worker", machine(&[], "")).await;
        let token = a.token_of(&worker).await.access_token;
        a.sync().await;
        b.sync().await;
        let cursor = Events::open(&a, &reader, None).await.until_fresh().await.pop().unwrap().id.unwrap();
        revoke(&a, &worker, &token).await;
        b.sync().await;
        let events = Events::open(&b, &reader, Some(&cursor)).await.until_fresh().await;
        assert!(events.iter().all(|event| event.name != "full"), "{events:?}");
        assert!(events.iter().any(|event| event.data["id"] == id_in_feed(&token)), "{events:?}");
    }

    async fn f7_a_stream_ends_with_its_time_with_the_right_and_when_the_replica_drains(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let reader = reader(&app, "orders", FeedRight::Revocations).await;
        let rest = async |mut events: Events| while events.next().await.is_some() {};
        let stream = Events::open(&app, &reader, None).await;
        app.advance(Duration::from_secs(6 * 60 + 1)).await;
        rest(stream).await;
        let stream = Events::open(&app, &reader, None).await;
        app.administer(Method::PATCH, "/admin/v1/clients/orders", Some(json!({"feed": "none"}))).await;
        rest(stream).await;
        app.administer(Method::PATCH, "/admin/v1/clients/orders", Some(json!({"feed": "revocations"}))).await;
        app.sync().await;
        let stream = Events::open(&app, &reader, None).await;
        // The clock stands still, so that only the drain can end the waiting query.
        let cursor = read(&app, &reader, "").await["cursor"].as_str().unwrap().to_owned();
        let query = format!("?cursor={cursor}&wait=14");
        let (answer, ()) = tokio::join!(read(&app, &reader, &query), async {
            while app.service.feed.readers() < 2 {
                tokio::task::yield_now().await;
            }
            app.service.status.begin_stopping();
        });
        assert_eq!(answer["items"], json!([]), "the waiting query ends as well");
        rest(stream).await;
    }

    async fn f8_readers_above_the_limit_are_refused_for_a_while(database: TestDatabase) {
        let app = TestApp::start_with(database, "[feed]\nmax_readers = 1\n").await;
        let reader = reader(&app, "orders", FeedRight::Revocations).await;
        let mut first = Events::open(&app, &reader, None).await;
        first.until_fresh().await;
        let second = by(app.get(EVENTS), &reader).send().await.unwrap();
        assert!(second.headers().contains_key(RETRY_AFTER));
        assert_eq!(error_of(second).await, (503, "busy".to_owned()));
        drop(first);
        // The end of the first stream is noticed when its next event cannot be written.
        while app.service.feed.readers() > 0 {
            tokio::task::yield_now().await;
        }
        Events::open(&app, &reader, None).await.until_fresh().await;
    }

    async fn f9_a_reader_that_reads_nothing_is_disconnected(database: TestDatabase) {
        let app = TestApp::start_with(database, "[public]\nwrite_timeout = \"1s\"\n").await;
        let reader = reader(&app, "orders", FeedRight::Revocations).await;
        let rows = match app.database.engine {
            Engine::Sqlite => {
                "INSERT INTO changes (kind, subject, epoch, created_at, expires_at)
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
                SELECT 'jti', CAST('fixture-' || i AS BLOB), 0, 0, 9000000000000 FROM n"
            }
            Engine::Postgres => {
                "INSERT INTO changes (kind, subject, epoch, created_at, expires_at)
                SELECT 'jti', convert_to('fixture-' || i, 'UTF8'), 0, 0, 9000000000000 FROM generate_series(1, 60000) AS i"
            }
        };
        app.database.tamper(rows).await;
        app.sync().await;
        let mut socket = tokio::net::TcpStream::connect(app.public).await.unwrap();
        let basic = {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", reader.id, reader.secret))
        };
        let head = format!("GET {EVENTS} HTTP/1.1\r\nhost: localhost\r\nauthorization: Basic {basic}\r\n\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        while app.service.feed.readers() == 0 {
            tokio::task::yield_now().await;
        }
        while app.service.feed.readers() > 0 {
            tokio::task::yield_now().await;
        }
        let mut received = Vec::new();
        let _ = socket.read_to_end(&mut received).await;
        let text = String::from_utf8_lossy(&received);
        assert!(text.contains("event: item") && !text.contains("full-end"), "{} bytes", received.len());
    }
}
