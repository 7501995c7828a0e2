//! A session from login to logout, as an application uses it.

use serde_json::json;

use crate::support::app::{TestApp, error_of, tokens};
use crate::support::database::{Engine, TestDatabase, on_both_engines};

on_both_engines! {
    async fn a_session_lasts_from_login_to_logout(database: TestDatabase) {
        let app = TestApp::start(database).await;
        let first = app.log_in().await;
        assert!(app.is_active(&first.access_token).await);
        let second = tokens(app.refresh(&first.refresh_token).await).await;
        assert_ne!(second.refresh_token, first.refresh_token);
        assert_eq!(second.session_id, first.session_id);
        let retried = tokens(app.refresh(&first.refresh_token).await).await;
        assert_eq!(retried.refresh_token, second.refresh_token, "R4: a retry gets the same successor");
        let out = app.post_json("/v1/logout", &json!({"refresh_token": second.refresh_token})).send().await.unwrap();
        assert_eq!(out.status(), 204);
        for token in [&first.access_token, &second.access_token] {
            assert!(!app.is_active(token).await);
        }
        assert_eq!(error_of(app.refresh(&second.refresh_token).await).await, (401, "invalid_refresh_token".into()));
    }
}
