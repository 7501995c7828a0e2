//! D3, D4: the process is killed at random points during logins, refreshes, logouts and revocations, and the power
//! fails. Every acknowledged change still holds after the restart. Every other change is done completely or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use countersign::crypto::{Random, SeededRandom};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::json;
use tokio::sync::Notify;

use super::support::app::Tokens;
use super::support::database::{Engine, TestDatabase, on_both_engines};
use super::support::power::Disk;
use super::support::process::{Home, Server};
use super::support::size::size;

/// The number of users; each acts independently.
const WORKERS: usize = 4;
/// The maximum number of sessions of a worker.
const SESSIONS: usize = 3;
/// The number of ended sessions that later rounds check again.
const REMEMBERED: usize = 5;
/// A statement that the killed process had sent may still run when the next process starts.
const LATE: Duration = Duration::from_secs(2);

on_both_engines! {
    async fn d3_acknowledged_changes_survive_sigkill_at_any_point(database: TestDatabase) {
        kill_and_check(home_on(database), size(50, 1000), |_| ()).await;
    }
}

#[tokio::test]
async fn d4_acknowledged_changes_survive_a_power_failure_on_sqlite() {
    let database = TestDatabase::fresh(Engine::Sqlite).await;
    let disk = Disk::below(database.file().unwrap().to_owned());
    let home = disk.attached_to(home_on(database));
    let mut lost = 0;
    kill_and_check(home, size(20, 200), |chance| lost += disk.fail(|bound| chance.below(bound))).await;
    assert!(lost > 0, "nothing was lost, ever: the power never failed");
}

fn home_on(database: TestDatabase) -> Home {
    let home = Home::on(database).with("REFRESH__RETRY_WINDOW", "60s").with("TOKENS__ACCESS_TTL", "1h");
    // Limits on guessing are not tested here, and an interrupted attempt counts as a failed one.
    home.with("LIMITS__ENABLED", "false")
}

/// Kills the process the given number of times. `then` runs after each kill.
async fn kill_and_check(home: Home, rounds: usize, mut then: impl FnMut(&Chance)) {
    let chance = Chance(Arc::new(SeededRandom::new(3)));
    let mut workers: Vec<Worker> = (0..WORKERS).map(|number| Worker::new(&home, number)).collect();
    let (secret, admin_key) = (home.gateway(), home.out(&["admin-key", "create", "crash"]).trim().to_owned());
    let mut acknowledged = 0;
    for round in 0..rounds {
        let server = Arc::new(Replica { server: home.serve(), secret: secret.clone(), admin_key: admin_key.clone() });
        for worker in &mut workers {
            worker.check(&server, round).await;
        }
        let (requests, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let last = 1 + chance.below(60);
        let busy: Vec<_> = workers
            .into_iter()
            .map(|worker| {
                let (server, requests, enough) = (Arc::clone(&server), Arc::clone(&requests), Arc::clone(&enough));
                let on_request = move || {
                    if requests.fetch_add(1, Ordering::Relaxed) == last {
                        enough.notify_one();
                    }
                };
                tokio::spawn(worker.work_until_it_breaks(server, chance.clone(), on_request))
            })
            .collect();
        enough.notified().await;
        tokio::time::sleep(Duration::from_micros(chance.below(5000) as u64)).await;
        server.server.signal("KILL");
        workers = Vec::new();
        for worker in busy {
            let (worker, done) = worker.await.unwrap();
            acknowledged += done;
            workers.push(worker);
        }
        drop(server);
        then(&chance);
    }
    let server = Replica { server: home.serve(), secret, admin_key };
    for worker in &mut workers {
        worker.check(&server, rounds).await;
    }
    assert!(acknowledged > 5 * rounds, "too little was going on: {acknowledged} requests in {rounds} rounds");
}

/// A running process, and the credentials for requests to it.
struct Replica {
    server: Server,
    secret: String,
    admin_key: String,
}

/// A user, and the known state of the sessions.
struct Worker {
    name: String,
    id: String,
    sessions: Vec<Session>,
    ended: Vec<Session>,
}

/// A session as its owner knows it.
struct Session {
    /// The newest that was acknowledged.
    tokens: Tokens,
    /// Access tokens with an acknowledged revocation.
    revoked: Vec<String>,
    doubt: Doubt,
}

/// A request whose answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    None,
    /// The session may have ended.
    End,
    /// All sessions of the user may have ended.
    EndOfAll,
    /// The token may have been rotated.
    Rotation,
    /// The access token may have been revoked.
    Revocation,
}

/// The answer was lost, because the process was killed.
struct Lost;

impl Worker {
    fn new(home: &Home, number: usize) -> Self {
        let name = format!("worker{number}");
        Self { id: home.user(&name), name, sessions: Vec::new(), ended: Vec::new() }
    }

    /// Sends requests one after the other until one is not answered. Returns the number of answered requests.
    async fn work_until_it_breaks(
        mut self,
        replica: Arc<Replica>,
        chance: Chance,
        on_request: impl Fn() + Send + 'static,
    ) -> (Self, usize) {
        let mut done = 0;
        loop {
            on_request();
            if self.step(&replica, &chance).await.is_err() {
                return (self, done);
            }
            done += 1;
        }
    }

    /// Sends one request and records the effect that its answer confirms. The possible effect is recorded beforehand.
    async fn step(&mut self, replica: &Replica, chance: &Chance) -> Result<(), Lost> {
        if self.sessions.is_empty() || (self.sessions.len() < SESSIONS && chance.below(8) == 0) {
            let tokens = replica.log_in(&self.name).await?;
            self.sessions.push(Session { tokens, revoked: Vec::new(), doubt: Doubt::None });
            return Ok(());
        }
        let index = chance.below(self.sessions.len());
        let session = &mut self.sessions[index];
        let (access, refresh) = (session.tokens.access_token.clone(), session.tokens.refresh_token.clone());
        match chance.below(20) {
            0 => {
                self.sessions.iter_mut().for_each(|session| session.doubt = Doubt::EndOfAll);
                replica.revoke_user(&self.id).await?;
                self.sessions.drain(..).for_each(|session| self.ended.push(session.settled()));
            }
            1..=2 => {
                session.doubt = Doubt::End;
                replica.log_out(&refresh).await?;
                self.ended.push(self.sessions.swap_remove(index).settled());
            }
            3 => {
                session.doubt = Doubt::End;
                replica.revoke(&refresh).await?;
                self.ended.push(self.sessions.swap_remove(index).settled());
            }
            4..=6 => {
                session.doubt = Doubt::Revocation;
                replica.revoke(&access).await?;
                session.doubt = Doubt::None;
                session.revoked.push(access);
            }
            _ => {
                session.doubt = Doubt::Rotation;
                let answer = replica.refresh(&refresh).await?;
                session.tokens = answer.expect("a live session is refreshed");
                session.doubt = Doubt::None;
            }
        }
        Ok(())
    }

    /// After a restart: everything that was acknowledged holds, and nothing is half done.
    async fn check(&mut self, replica: &Replica, round: usize) {
        let context = format!("round {round}, {}", self.name);
        for session in &self.ended {
            session.check_ended(replica, &context).await;
        }
        let mut living = Vec::new();
        let (mut of_all, mut is_over) = (Vec::new(), false);
        for session in self.sessions.drain(..) {
            let doubt = session.doubt;
            match session.check_living(replica, &context).await {
                Ok(session) if doubt == Doubt::EndOfAll => of_all.push(session),
                Ok(session) => living.push(session),
                Err(ended) => {
                    is_over |= doubt == Doubt::EndOfAll;
                    self.ended.push(ended);
                }
            }
        }
        if is_over {
            // One record ends all sessions: if one has ended, the others have ended or will shortly.
            for session in of_all {
                eventually(&context, async || !replica.is_active(&session.tokens.access_token).await).await;
                self.ended.push(session);
            }
        } else {
            living.append(&mut of_all);
        }
        self.sessions = living;
        self.ended.drain(..self.ended.len().saturating_sub(REMEMBERED));
    }
}

impl Session {
    fn settled(mut self) -> Self {
        self.doubt = Doubt::None;
        self
    }

    async fn check_ended(&self, replica: &Replica, context: &str) {
        assert!(
            !replica.is_active(&self.tokens.access_token).await,
            "{context}: a token of an ended session is active"
        );
        let refreshed = replica.refresh(&self.tokens.refresh_token).await.ok().unwrap();
        assert!(refreshed.is_none(), "{context}: an ended session was refreshed");
    }

    /// Refreshes a session that should be live. Returns it with new tokens, or as an error if it has ended and may
    /// have.
    async fn check_living(mut self, replica: &Replica, context: &str) -> Result<Self, Self> {
        for token in &self.revoked {
            assert!(!replica.is_active(token).await, "{context}: a revoked token is active");
        }
        let Tokens { access_token, refresh_token, .. } = self.tokens.clone();
        let is_revoked = self.revoked.contains(&access_token);
        let refreshed = replica.refresh(&refresh_token).await.ok().unwrap();
        let may_have_ended = matches!(self.doubt, Doubt::End | Doubt::EndOfAll);
        assert!(refreshed.is_some() || may_have_ended, "{context}: a live session is lost ({:?})", self.doubt);
        if self.doubt == Doubt::Revocation {
            if !replica.is_active(&access_token).await {
                self.revoked.push(access_token);
            }
        } else if !is_revoked {
            // A session that refreshes has active access tokens; a session that does not has none.
            let expected = refreshed.is_some();
            eventually(context, async || replica.is_active(&access_token).await == expected).await;
        }
        self.doubt = if self.doubt == Doubt::EndOfAll { Doubt::EndOfAll } else { Doubt::None };
        let Some(tokens) = refreshed else {
            return Err(self.settled());
        };
        let again = replica.refresh(&refresh_token).await.ok().unwrap();
        let again = again.unwrap_or_else(|| panic!("{context}: the retry of a refresh is refused"));
        assert_eq!(again.refresh_token, tokens.refresh_token, "{context}: the retry has another successor");
        assert!(replica.is_active(&tokens.access_token).await, "{context}: the new access token is not active");
        self.tokens = tokens;
        Ok(self.settled())
    }
}

impl Replica {
    async fn log_in(&self, name: &str) -> Result<Tokens, Lost> {
        let body = json!({"username": name, "password": super::support::process::PASSWORD});
        let (_, text) = sent(self.server.post("/v1/login", &body), &[StatusCode::OK]).await?;
        Ok(serde_json::from_str(&text).unwrap())
    }

    /// New tokens, or none where the session has ended.
    async fn refresh(&self, token: &str) -> Result<Option<Tokens>, Lost> {
        let request = self.server.post("/v1/refresh", &json!({"refresh_token": token}));
        let (status, text) = sent(request, &[StatusCode::OK, StatusCode::UNAUTHORIZED]).await?;
        Ok((status == StatusCode::OK).then(|| serde_json::from_str(&text).unwrap()))
    }

    async fn log_out(&self, token: &str) -> Result<(), Lost> {
        let request = self.server.post("/v1/logout", &json!({"refresh_token": token}));
        sent(request, &[StatusCode::NO_CONTENT]).await.map(drop)
    }

    async fn revoke(&self, token: &str) -> Result<(), Lost> {
        let request = self.server.http.post(format!("{}/oauth2/revoke", self.server.public));
        sent(request.form(&[("token", token), ("client_id", "countersign")]), &[StatusCode::OK]).await.map(drop)
    }

    async fn revoke_user(&self, id: &str) -> Result<(), Lost> {
        let request = self.server.http.post(format!("{}/admin/v1/revocations", self.server.operations));
        let request = request.bearer_auth(&self.admin_key).json(&json!({"user": id}));
        sent(request, &[StatusCode::OK, StatusCode::CREATED, StatusCode::NO_CONTENT]).await.map(drop)
    }

    async fn is_active(&self, token: &str) -> bool {
        self.server.introspect(&self.secret, token).await["active"].as_bool().unwrap()
    }
}

/// The answer, if there was one. Any answer that is neither expected nor a retryable refusal is a defect.
async fn sent(request: RequestBuilder, expected: &[StatusCode]) -> Result<(StatusCode, String), Lost> {
    let Ok(answer) = request.send().await else { return Err(Lost) };
    let status = answer.status();
    let Ok(text) = answer.text().await else { return Err(Lost) };
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return Err(Lost);
    }
    assert!(expected.contains(&status), "{status} {text}");
    Ok((status, text))
}

async fn eventually(context: &str, is_reached: impl AsyncFn() -> bool) {
    #[expect(clippy::disallowed_methods, reason = "the process under test has the machine's clock")]
    let started = Instant::now();
    while !is_reached().await {
        assert!(started.elapsed() < LATE, "{context}: half done");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Random numbers from a seed. A run is repeatable only as far as the timing of its processes allows.
#[derive(Clone)]
struct Chance(Arc<SeededRandom>);

impl Chance {
    fn below(&self, bound: usize) -> usize {
        let random: &dyn Random = &*self.0;
        usize::try_from(u32::from_be_bytes(random.bytes())).unwrap() % bound
    }
}
