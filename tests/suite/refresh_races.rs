//! Refreshes that race each other, and refreshes that race the end of a session (security.md R2, R11).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use countersign::domain::ClientId;
use countersign::service::{BUILT_IN_CLIENT, Requester};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::app::{TestApp, Tokens, USER, error_of, tokens};
use crate::support::database::{Engine, TestDatabase, on_both_engines};
use crate::support::sessions::*;
use crate::support::size::size;
use crate::support::store::Dice;

async fn three_replicas(database: TestDatabase, settings: &str) -> [Arc<TestApp>; 3] {
    let first = TestApp::start_with(database, settings).await;
    let (second, third) = (first.beside(2, settings).await, first.beside(3, settings).await);
    [Arc::new(first), Arc::new(second), Arc::new(third)]
}

/// Presents one token in this many concurrent requests, spread over the replicas. Returns the tokens of the successes
/// and the codes of the refusals.
async fn at_once(replicas: &[Arc<TestApp>; 3], token: &str, requests: u64) -> (Vec<Tokens>, Vec<String>) {
    let mut racing = JoinSet::new();
    for number in 0..requests {
        let (app, token) = (Arc::clone(&replicas[number as usize % 3]), token.to_owned());
        racing.spawn(async move {
            for _ in 0..1000 {
                let answer = app.refresh(&token).await;
                match answer.status().as_u16() {
                    200 => return Ok(tokens(answer).await),
                    // The replica has reached its limit of concurrent requests, and has not processed this one.
                    503 => tokio::task::yield_now().await,
                    _ => return Err(error_of(answer).await),
                }
            }
            panic!("turned away a thousand times");
        });
    }
    let (mut won, mut refused) = (Vec::new(), Vec::new());
    while let Some(answer) = racing.join_next().await {
        match answer.unwrap() {
            Ok(tokens) => won.push(tokens),
            Err((status, code)) => {
                assert_eq!(status, 401, "{code}");
                refused.push(code);
            }
        }
    }
    (won, refused)
}

on_both_engines! {
    async fn r2_hundreds_of_rounds_of_parallel_refreshes_yield_one_branch(database: TestDatabase) {
        let replicas = three_replicas(database, "").await;
        let (mut current, mut dice) = (replicas[0].log_in().await.refresh_token, Dice::new(2));
        let rounds = size(300, 500);
        for round in 0..rounds {
            let requests = size(8 + dice.below(13), 1000);
            let (won, refused) = at_once(&replicas, &current, requests).await;
            assert_eq!((won.len() as u64, refused.len()), (requests, 0), "round {round}: within the window all are answered");
            let branches: HashSet<_> = won.iter().map(|tokens| tokens.refresh_token.as_str()).collect();
            let access: HashSet<_> = won.iter().map(|tokens| format!("{:?}", marks(&tokens.access_token))).collect();
            assert_eq!((branches.len(), access.len()), (1, 1), "round {round}");
            current.clone_from(&won[0].refresh_token);
        }
        let sessions = Sessions::of(&replicas[0]).await;
        assert_eq!(sessions.state_of(&current).await, (rounds, true), "each round rotated once");
        assert_eq!(replicas[0].audit("session.reused").await, [Value::Null; 0]);
    }

    async fn r2_without_a_retry_window_at_most_one_parallel_refresh_wins_and_the_session_ends(database: TestDatabase) {
        let replicas = three_replicas(database, "[refresh]\nretry_window = \"0s\"\n").await;
        let sessions = Sessions::of(&replicas[0]).await;
        for round in 1..=60 {
            let token = sessions.open(&replicas[0]).await;
            let (won, refused) = at_once(&replicas, &token, 10).await;
            assert_eq!((won.len(), refused.len()), (1, 9), "round {round}: {refused:?}");
            for code in refused {
                assert_eq!(code, "refresh_token_reused", "round {round}");
            }
            let answer = replicas[round % 3].refresh(&won[0].refresh_token).await;
            assert_eq!(error_of(answer).await, (401, "invalid_refresh_token".into()));
            replicas[0].sync().await;
            assert!(!replicas[0].is_active(&won[0].access_token).await);
            assert_eq!(replicas[0].audit("session.reused").await.len(), round, "S4: one event for all of them");
        }
    }

    async fn r4_copies_within_the_window_that_race_the_owner_end_no_session_and_yield_no_branch(database: TestDatabase) {
        let replicas = three_replicas(database, "").await;
        let sessions = Sessions::of(&replicas[0]).await;
        let (mut dice, mut now) = (Dice::new(4), 0);
        let mut held = HashMap::from([(0, sessions.open(&replicas[0]).await)]);
        let mut superseded = HashMap::new();
        for round in 0..size(60, 1000) {
            // Tabs with copies of any age up to the window, the current token among them.
            let copies: Vec<_> = held.values().cloned().collect();
            let mut racing = JoinSet::new();
            for _ in 0..12 {
                let token = copies[dice.below(copies.len() as u64) as usize].clone();
                let app = Arc::clone(&replicas[dice.below(3) as usize]);
                racing.spawn(async move { tokens(app.refresh(&token).await).await.refresh_token });
            }
            for token in racing.join_all().await {
                let known = held.entry(sessions.generation_of(&token)).or_insert_with(|| token.clone());
                assert_eq!(*known, token, "round {round}: one token of each generation");
            }
            let current = *held.keys().max().unwrap();
            for generation in held.keys().filter(|generation| **generation < current) {
                superseded.entry(*generation).or_insert(now);
            }
            if dice.below(3) == 0 {
                now += 4;
                replicas[0].clock.advance(Duration::from_secs(4));
                for replica in &replicas {
                    replica.sync().await;
                }
                held.retain(|generation, _| superseded.get(generation).is_none_or(|at| now - at <= 10));
            }
        }
        assert_eq!(replicas[0].audit("session.reused").await, [Value::Null; 0]);
        let (rotated, is_live) = sessions.state_of(held.values().next().unwrap()).await;
        assert!(is_live && rotated > 20, "{rotated}");
    }

    async fn r3_reuse_that_races_the_owner_leaves_no_branch_active(database: TestDatabase) {
        let replicas = three_replicas(database, "[refresh]\nretry_window = \"0s\"\n").await;
        let sessions = Sessions::of(&replicas[0]).await;
        for round in 1..=40 {
            let old = sessions.open(&replicas[0]).await;
            let middle = replicas[0].refreshed(&old).await.refresh_token;
            let current = replicas[0].refreshed(&middle).await;
            let (thief, owner) = (Arc::clone(&replicas[0]), Arc::clone(&replicas[1]));
            let (stolen, honest) = (old.clone(), current.refresh_token.clone());
            let (stolen, honest) = tokio::join!(
                tokio::spawn(async move { error_of(thief.refresh(&stolen).await).await }),
                tokio::spawn(async move { owner.refresh(&honest).await }),
            );
            assert_eq!(stolen.unwrap(), (401, "refresh_token_reused".into()), "round {round}");
            let mut last = vec![current];
            let honest = honest.unwrap();
            if honest.status() == 200 {
                last.push(tokens(honest).await);
            }
            for replica in &replicas {
                replica.sync().await;
                for tokens in &last {
                    assert_eq!(replica.refresh(&tokens.refresh_token).await.status(), 401, "round {round}");
                    assert!(!replica.is_active(&tokens.access_token).await, "round {round}");
                }
            }
            assert!(!sessions.state_of(&old).await.1);
            assert_eq!(replicas[0].audit("session.reused").await.len(), round);
        }
    }

    async fn r11_once_the_end_of_a_session_is_acknowledged_its_tokens_neither_refresh_nor_are_active(database: TestDatabase) {
        // High limits: otherwise a disabled client that continues its requests gets 429, which is not tested here.
        let replicas = three_replicas(database, "[limits.client]\nburst = 10000\nper_minute = 10000\n").await;
        let sessions = Sessions::of(&replicas[0]).await;
        let mut dice = Dice::new(11);
        let mut refreshed_first = 0;
        let races = size(120, 10_000);
        for round in 0..races {
            let first = replicas[0].refreshed(&sessions.open(&replicas[0]).await).await;
            let ending = Ending::ALL[round % Ending::ALL.len()];
            let (refresher, ender) = (Arc::clone(&replicas[dice.below(3) as usize]), Arc::clone(&replicas[dice.below(3) as usize]));
            let (token, tokens_to_end) = (first.refresh_token.clone(), first.clone());
            let (before_refresh, before_end) = (dice.below(40), dice.below(40));
            let (raced, ()) = tokio::join!(
                async {
                    let racing = tokio::spawn(async move {
                        for _ in 0..before_refresh {
                            tokio::task::yield_now().await;
                        }
                        refresher.refresh(&token).await
                    });
                    racing.await.unwrap()
                },
                async {
                    let racing = tokio::spawn(async move {
                        for _ in 0..before_end {
                            tokio::task::yield_now().await;
                        }
                        ending.perform(&ender, &tokens_to_end).await;
                    });
                    racing.await.unwrap();
                },
            );
            let mut family = vec![first];
            if raced.status() == 200 {
                refreshed_first += 1;
                family.push(tokens(raced).await);
            } else {
                assert_eq!(raced.status(), 401, "{ending:?}");
            }
            for replica in &replicas {
                for tokens in &family {
                    assert_eq!(replica.refresh(&tokens.refresh_token).await.status(), 401, "round {round} {ending:?}");
                }
                replica.sync().await;
                for tokens in &family {
                    assert!(!replica.is_active(&tokens.access_token).await, "round {round} {ending:?}");
                }
            }
            ending.undo(&replicas[0]).await;
            replicas[1].sync().await;
            replicas[2].sync().await;
        }
        assert!((1..races).contains(&refreshed_first), "both orders were met: {refreshed_first}");
    }
}

/// The causes that end a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Logout,
    LogoutByAccessToken,
    LogoutEverywhere,
    OAuthRevocation,
    RevokedByAdministrator,
    UserDisabled,
    ClientDisabled,
    PasswordSet,
}

impl Ending {
    const ALL: [Self; 8] = [
        Self::Logout,
        Self::LogoutByAccessToken,
        Self::LogoutEverywhere,
        Self::OAuthRevocation,
        Self::RevokedByAdministrator,
        Self::UserDisabled,
        Self::ClientDisabled,
        Self::PasswordSet,
    ];

    async fn perform(self, app: &TestApp, tokens: &Tokens) {
        let cli = Requester::command_line();
        let built_in = ClientId::parse(BUILT_IN_CLIENT).unwrap();
        let answer = match self {
            Self::Logout => app.post_json("/v1/logout", &json!({"refresh_token": tokens.refresh_token})).send().await,
            Self::LogoutByAccessToken => {
                app.request(Method::POST, "/v1/logout").bearer_auth(&tokens.access_token).send().await
            }
            Self::LogoutEverywhere => {
                app.request(Method::DELETE, "/v1/me/sessions").bearer_auth(&tokens.access_token).send().await
            }
            Self::OAuthRevocation => {
                let form = [("token", tokens.refresh_token.as_str()), ("client_id", BUILT_IN_CLIENT)];
                app.post_form("/oauth2/revoke", &form).send().await
            }
            Self::RevokedByAdministrator => return app.revoke("session", &tokens.session_id).await,
            Self::UserDisabled => return app.set_enabled(USER, false).await,
            Self::ClientDisabled => {
                app.service.clients.set_client_enabled(&built_in, false, &cli).await.unwrap();
                return;
            }
            Self::PasswordSet => {
                let body = json!({"password": crate::support::app::PASSWORD});
                let path = format!("/admin/v1/users/{}/password", app.user_id(USER).await);
                app.admin(Method::PUT, &path).json(&body).send().await
            }
        };
        assert!(answer.unwrap().status().is_success(), "{self:?}");
    }

    /// Frees capacity for the next round.
    async fn undo(self, app: &TestApp) {
        match self {
            Self::UserDisabled => app.set_enabled(USER, true).await,
            Self::ClientDisabled => {
                let built_in = ClientId::parse(BUILT_IN_CLIENT).unwrap();
                app.service.clients.set_client_enabled(&built_in, true, &Requester::command_line()).await.unwrap();
            }
            _ => {}
        }
    }
}
