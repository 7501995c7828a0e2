//! Refreshes that fail, are interrupted, or span a restart (security.md R5, R6, R10).

use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::app::{TestApp, error_of};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::outage;
use crate::support::sessions::*;
use crate::support::store::Dice;

const BEYOND_THE_WINDOW: Duration = Duration::from_secs(11);

on_both_engines! {
    async fn r5_a_refresh_that_fails_at_any_statement_consumes_nothing(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let sessions = Sessions::of(&app).await;
        let current = app.refreshed(&sessions.open(&app).await).await.refresh_token;
        for what in ["BEFORE UPDATE", "AFTER UPDATE"] {
            let broken = Broken::on(&app.database, what, "sessions").await;
            for _ in 0..3 {
                let answer = app.refresh(&current).await;
                is_private(&answer);
                assert_eq!(error_of(answer).await, (500, "internal".into()), "{what}");
            }
            broken.mend().await;
            app.advance(BEYOND_THE_WINDOW).await;
            assert_eq!(sessions.state_of(&current).await, (1, true), "{what}");
        }
        outage::take_tables_away(&app.database).await;
        assert!(app.refresh(&current).await.status().is_server_error());
        outage::bring_tables_back(&app.database).await;
        app.advance(BEYOND_THE_WINDOW).await;
        assert_eq!(app.refresh(&current).await.status(), 200);
        assert_eq!(app.audit("session.reused").await, [Value::Null; 0]);
    }

    async fn r5_a_reuse_that_cannot_be_recorded_leaves_no_partial_record_and_is_detected_again(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let sessions = Sessions::of(&app).await;
        for (round, (what, table)) in
            (1..).zip([("BEFORE UPDATE", "sessions"), ("BEFORE INSERT", "changes"), ("AFTER INSERT", "changes"), ("BEFORE INSERT", "audit"), ("AFTER INSERT", "audit")])
        {
            let old = sessions.open(&app).await;
            let middle = app.refreshed(&old).await.refresh_token;
            let current = app.refreshed(&middle).await;
            app.advance(BEYOND_THE_WINDOW).await;
            let broken = Broken::on(&app.database, what, table).await;
            assert_eq!(error_of(app.refresh(&old).await).await, (500, "internal".into()), "{what} {table}");
            broken.mend().await;
            app.sync().await;
            assert_eq!(sessions.state_of(&old).await, (2, true), "{what} {table}");
            assert!(app.is_active(&current.access_token).await, "an error is no verdict");
            assert_eq!(error_of(app.refresh(&old).await).await, (401, "refresh_token_reused".into()));
            assert!(!app.is_active(&current.access_token).await);
            assert_eq!(app.audit("session.reused").await.len(), round);
        }
    }

    async fn r5_while_writes_fail_a_refresh_is_503_and_consumes_nothing(database: TestDatabase) {
        let settings = "[database]\nstatement_timeout = \"300ms\"\nacquire_timeout = \"300ms\"";
        let app = TestApp::start_with(database, settings).await;
        let sessions = Sessions::of(&app).await;
        let token = sessions.open(&app).await;
        let stopped = outage::stop_writes(&app.database).await;
        let answer = app.refresh(&token).await;
        is_private(&answer);
        assert_eq!(answer.status(), 503);
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["code"], "temporarily_unavailable");
        assert_eq!(problem["detail"], "The database is unavailable. Nothing was changed.");
        drop(stopped);
        app.advance(BEYOND_THE_WINDOW).await;
        assert_eq!(app.refresh(&token).await.status(), 200);
    }

    async fn r6_reuse_is_detected_after_a_restart_and_after_sweeping_until_the_session_ends(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let first = app.log_in().await;
        let second = app.refreshed(&first.refresh_token).await;
        let third = app.refreshed(&second.refresh_token).await;
        let (restarted, clock) = (app.beside(3, "").await, std::sync::Arc::clone(&app.clock));
        app.stop().await;
        clock.advance(Duration::from_secs(3 * 3600));
        restarted.sync().await;
        let sessions = Sessions::of(&restarted).await;
        let now = countersign::clock::Clock::now(&*clock);
        while sessions.store.sweep(Some(Duration::from_secs(86_400)), now).await.has_more {}
        let answer = restarted.refresh(&first.refresh_token).await;
        assert_eq!(error_of(answer).await, (401, "refresh_token_reused".into()));
        let answer = restarted.refresh(&third.refresh_token).await;
        assert_eq!(error_of(answer).await, (401, "invalid_refresh_token".into()));
    }

    async fn r10_six_hundred_disconnecting_callers_leave_the_old_or_the_new_state(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let sessions = Sessions::of(&app).await;
        let mut dice = Dice::new(10);
        let mut successors = Vec::new();
        for _ in 0..600 {
            let token = sessions.open(&app).await;
            let body = format!("{{\"refresh_token\":\"{token}\"}}");
            let request = format!(
                "POST /v1/refresh HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let mut connection = TcpStream::connect(app.public).await.unwrap();
            // One in eight sends only a part; the others disconnect during the processing.
            let sent = if dice.below(8) == 0 { dice.below(request.len() as u64) as usize } else { request.len() };
            connection.write_all(&request.as_bytes()[..sent]).await.unwrap();
            for _ in 0..dice.below(400) {
                tokio::task::yield_now().await;
            }
            if dice.below(2) == 0 {
                // A reset instead of an orderly end.
                connection.set_zero_linger().unwrap();
            }
            drop(connection);
            // This request is answered, whether the lost one ran before it, after it or never.
            successors.push((token.clone(), app.refreshed(&token).await.refresh_token));
        }
        app.settled("countersign_database_seconds_count{query=\"session_rotate\"}").await;
        let retried = app.figure("countersign_refreshes_total{result=\"retried\"}").await;
        assert!((1.0..600.0).contains(&retried), "both states were met: {retried}");
        for (number, (token, successor)) in successors.iter().enumerate() {
            assert_eq!(sessions.state_of(token).await, (1, true), "never two steps, never a dead session");
            if number % 10 == 0 {
                assert_eq!(app.refreshed(token).await.refresh_token, *successor);
                assert_eq!(app.refresh(successor).await.status(), 200);
            }
        }
        assert_eq!(app.audit("session.reused").await, [Value::Null; 0]);
    }
}
