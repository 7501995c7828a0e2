//! The real binary as a process, in a folder and on a database of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign::store::Location;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::app::Tokens;
use super::database::TestDatabase;

/// Test fixture: a password that the policy takes.
pub const PASSWORD: &str = "correct horse battery staple 7";
/// The longest wait for any action of a process.
pub const SOON: Duration = Duration::from_secs(20);

/// A folder to run commands in, and the settings that they find in the environment.
pub struct Home {
    folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
    /// Removes the database when dropped.
    _database: Option<TestDatabase>,
}

/// How a command ended.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Home {
    /// An empty folder: every file in it afterwards was made by a command.
    pub fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let environment = Vec::new();
        let home = Self { folder, environment, _database: None };
        home.with("PUBLIC__LISTEN", "127.0.0.1:0")
            .with("OPERATIONS__LISTEN", "127.0.0.1:0")
            .with("SHUTDOWN__DELAY", "0s")
    }

    /// The same on `database`.
    pub fn on(database: TestDatabase) -> Self {
        let url = match &database.settings.location {
            Location::Sqlite { path, .. } => format!("sqlite://{}", path.display()),
            Location::Postgres { url, .. } => url.clone(),
        };
        let home = Self { _database: Some(database), ..Self::empty() };
        // The default issuer has the port of the public listener, which changes with every start.
        home.with("ISSUER", "http://localhost:8080")
            .with("DATABASE__URL", &url)
            .with("DATABASE__CREATE_IF_MISSING", "true")
            .with("DATABASE__ACQUIRE_TIMEOUT", "10s")
            .with("MASTER_KEY", "dGVzdC1maXh0dXJlLW1hc3Rlci1rZXktMDEyMzQ1Njc=")
            .with("PASSWORDS__THREADS", "2")
    }

    /// Adds a setting, named without the prefix.
    pub fn with(self, name: &str, value: &str) -> Self {
        self.with_variable(&format!("COUNTERSIGN_{name}"), value)
    }

    /// Adds an environment variable.
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Removes a setting.
    pub fn without(mut self, name: &str) -> Self {
        self.environment.retain(|(variable, _)| *variable != format!("COUNTERSIGN_{name}"));
        self
    }

    /// The folder in which commands run.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The binary with these arguments, and no environment but the settings.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.args(arguments).current_dir(self.path()).env_clear().envs(self.environment.iter().cloned());
        command.env("TMPDIR", self.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.command(arguments).output().unwrap().into()
    }

    /// Returns the error message of a command that fails on this database.
    pub fn run_on(&self, database: &str, arguments: &[&str]) -> String {
        let mut command = self.command(arguments);
        let ended: Ended = command.env("COUNTERSIGN_DATABASE__URL", database).output().unwrap().into();
        ended.refusal(1)
    }

    /// The same with something on standard input.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Ended {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        // A command may fail before it reads standard input.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap().into()
    }

    /// Standard output of a command that must succeed.
    pub fn out(&self, arguments: &[&str]) -> String {
        self.run(arguments).ok(arguments)
    }

    /// The answer of a command that must succeed, as JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.out(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// Creates a user with [`PASSWORD`], and returns the id.
    pub fn user(&self, name: &str) -> String {
        let arguments = ["users", "create", name, "--password-stdin"];
        self.run_with(&arguments, PASSWORD).ok(&arguments).trim_end().to_owned()
    }

    /// Creates the confidential client `gateway`, which may introspect every token, and returns its secret.
    pub fn gateway(&self) -> String {
        let made = self.json(&["clients", "create", "gateway", "--type", "confidential", "--introspect", "any"]);
        made["client_secret"].as_str().unwrap().to_owned()
    }

    /// Starts the service and waits until it listens.
    pub fn serve(&self) -> Server {
        Server::start(self.command(&["serve"]))
    }
}

impl Ended {
    /// Standard output, if the command succeeded.
    pub fn ok(self, arguments: &[&str]) -> String {
        assert_eq!(self.code, Some(0), "{arguments:?}: {}", self.stderr);
        self.stdout
    }

    /// Standard error, if the command ended with `code` and standard output is empty.
    pub fn refusal(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        assert_eq!(self.stdout, "", "a failure has no answer");
        self.stderr
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// A running service; killed when dropped.
pub struct Server {
    child: Child,
    /// Base URLs.
    pub public: String,
    pub operations: String,
    pub http: reqwest::Client,
    /// Everything that the process printed on standard output so far.
    pub printed: Arc<Mutex<String>>,
    lines: Mutex<Receiver<String>>,
}

impl Server {
    /// Starts a command and waits for the line that says where it listens.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
        let (sender, lines) = channel();
        let printed = Arc::new(Mutex::new(String::new()));
        let (stdout, copy) = (BufReader::new(child.stdout.take().unwrap()), Arc::clone(&printed));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                copy.lock().unwrap().push_str(&format!("{line}\n"));
                let _ = sender.send(line);
            }
        });
        let http = reqwest::Client::builder().no_proxy().timeout(SOON).build().unwrap();
        let mut server =
            Self { child, public: String::new(), operations: String::new(), http, printed, lines: Mutex::new(lines) };
        let started: Value = serde_json::from_str(&server.line_with("\"started\"")).unwrap();
        server.public = started["public"].as_str().unwrap().to_owned();
        server.operations = started["operations"].as_str().unwrap().to_owned();
        server
    }

    /// Waits for the next line that contains `text`.
    pub fn line_with(&self, text: &str) -> String {
        loop {
            let line = self.lines.lock().unwrap().recv_timeout(SOON).unwrap_or_else(|_| panic!("no line with {text}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for the end of the process, and returns the exit code.
    pub fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// A request to the public listener.
    pub fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.http.request(Method::POST, format!("{}{path}", self.public)).json(body)
    }

    /// Logs a user with [`PASSWORD`] in.
    pub async fn log_in(&self, user: &str) -> Tokens {
        let answer = self.post("/v1/login", &json!({"username": user, "password": PASSWORD})).send().await.unwrap();
        super::app::tokens(answer).await
    }

    /// Introspects a token as `gateway`.
    pub async fn introspect(&self, secret: &str, token: &str) -> Value {
        let request = self.http.post(format!("{}/oauth2/introspect", self.public)).form(&[("token", token)]);
        let answer = request.basic_auth("gateway", Some(secret)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
