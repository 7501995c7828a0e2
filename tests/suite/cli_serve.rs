//! `serve`, `serve --demo`, `healthcheck` and `token`: the process as a whole.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::support::database::{Engine, TestDatabase, on_both_engines};
use super::support::process::{Home, PASSWORD, SOON, Server};
use super::support::write_private;

on_both_engines! {
    async fn h15_sigterm_lets_requests_in_flight_finish_and_exits_0(database: TestDatabase) {
        let home = Home::on(database);
        home.user("ada");
        let server = home.serve();
        let mut login = half_a_login(&server);
        server.signal("QUIT");
        server.line_with("stopping");
        login.write_all(login_body().as_bytes()).unwrap();
        let mut answer = String::new();
        login.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("access_token"), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
        assert_eq!(server.wait(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_starts_in_an_empty_folder_and_prints_its_addresses() {
    let home = Home::empty();
    let server = home.serve();
    let ready = server.http.get(format!("{}/readyz", server.public)).send().await.unwrap();
    assert_eq!(ready.status(), 200);
    let started = server.printed.lock().unwrap().clone();
    // The port was chosen by the system, and the default issuer has it.
    let issuer = format!("http://localhost:{}", server.public.rsplit(':').next().unwrap());
    for part in ["\"version\":", &format!("\"issuer\":\"{issuer}\""), "\"database\":\"sqlite\""] {
        assert!(started.contains(part), "{started}");
    }
    let metadata = server.http.get(format!("{}/.well-known/openid-configuration", server.public)).send().await.unwrap();
    let metadata: Value = metadata.json().await.unwrap();
    assert_eq!(
        (&metadata["issuer"], &metadata["jwks_uri"]),
        (&json!(issuer), &json!(format!("{issuer}/.well-known/jwks.json")))
    );
    assert!(home.path().join("countersign-data/master.key").exists());
    for name in ["HUP", "USR1", "USR2"] {
        server.signal(name);
        server.line_with(&format!("\"signal\":\"SIG{name}\""));
    }
    server.signal("INT");
    assert_eq!(server.wait(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_on_another_loopback_port_causes_a_warning() {
    let server = Home::empty().with("ISSUER", "http://localhost:1").serve();
    let warning = server.line_with("issuer names another port");
    assert!(warning.contains("WARN") && warning.contains("public.listen"), "{warning}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_aborts_requests_in_flight() {
    let home = Home::empty();
    let server = home.serve();
    let _unfinished = half_a_login(&server);
    server.signal("TERM");
    server.line_with("stopping");
    server.signal("TERM");
    assert_eq!(server.wait(), Some(1));
}

#[test]
fn a_port_in_use_is_an_error_with_a_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let home = Home::empty().with("PUBLIC__LISTEN", &taken.local_addr().unwrap().to_string());
    let refused = home.command(&["serve"]).output().unwrap();
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr.contains("public.listen = 127.0.0.1:") && stderr.contains("COUNTERSIGN_PUBLIC__LISTEN"), "{stderr}");
    // The suggested setting works: the issuer has the port.
    let suggested = stderr.split("COUNTERSIGN_PUBLIC__LISTEN=").nth(1).unwrap().split(". ").next().unwrap();
    let home = Home::empty().with("PUBLIC__LISTEN", suggested);
    let shown: Value = home.json(&["config", "show"]);
    let issuer = shown["settings"].as_array().unwrap().iter().find(|setting| setting["name"] == "issuer").unwrap();
    assert_eq!(issuer["value"], json!(format!("http://localhost:{}", suggested.rsplit(':').next().unwrap())));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn s7_core_dumps_are_disabled_and_the_open_file_limit_is_raised() {
    let home = Home::empty();
    let mut command = Command::new("sh");
    let start = format!("ulimit -Sn 256; ulimit -Hn 2000; exec {} serve", env!("CARGO_BIN_EXE_countersign"));
    command.env_clear().args(["-c", &start]).current_dir(home.path()).stdin(Stdio::null()).stdout(Stdio::piped());
    for (name, value) in home.command(&[]).get_envs() {
        command.env(name, value.unwrap());
    }
    let server = Server::start(command);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let limit = |name: &str| -> Vec<String> {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().take(2).map(str::to_owned).collect()
    };
    assert_eq!(limit("Max core file size"), ["0", "0"]);
    let files = limit("Max open files");
    assert_eq!(files, ["2000", "2000"], "the soft limit is raised to the hard one");
    assert!(
        server.printed.lock().unwrap().contains("public.max_connections needs"),
        "and where that is not enough, it is told"
    );
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn h18_public_connections_leave_file_descriptors_for_the_operations_listener() {
    const FILES: usize = 500;
    let home = Home::empty().with("PUBLIC__MAX_CONNECTIONS_PER_ADDRESS", "10000");
    let mut command = Command::new("sh");
    let start = format!("ulimit -n {FILES}; exec {} serve", env!("CARGO_BIN_EXE_countersign"));
    command.env_clear().args(["-c", &start]).current_dir(home.path()).stdin(Stdio::null()).stdout(Stdio::piped());
    for (name, value) in home.command(&[]).get_envs() {
        command.env(name, value.unwrap());
    }
    let server = Server::start(command);
    let public = server.public.strip_prefix("http://").unwrap();
    let held: Vec<_> = (0..FILES)
        .map(|_| {
            let mut stream = TcpStream::connect(public).unwrap();
            // Not idle, so that it is not evicted.
            stream.write_all(b"GET /livez HT").unwrap();
            stream
        })
        .collect();
    let alive = server.http.get(format!("{}/livez", server.operations)).send().await.unwrap();
    assert_eq!(alive.status(), 200);
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_prints_commands_that_work_and_leaves_nothing_behind() {
    let home = Home::empty();
    let mut demo = home.command(&["serve", "--demo"]).spawn().unwrap();
    let mut stdout = demo.stdout.take().unwrap();
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.ends_with("ask \"$A\"\n\n") {
        let read = stdout.read(&mut buffer).unwrap();
        assert!(read > 0, "{text}");
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    assert!(text.lines().count() <= 30, "in less than a screen: {text}");
    let page = text.lines().find_map(|line| line.strip_prefix("The API is documented on ")).unwrap();
    assert_eq!(reqwest::get(page).await.unwrap().status(), 200);
    let commands = &text[text.find("U=http").unwrap()..];
    for shell in ["sh", "bash"] {
        let pasted = Command::new(shell).arg("-euc").arg(commands).output().unwrap();
        let said = String::from_utf8(pasted.stdout).unwrap();
        assert!(pasted.status.success() && pasted.stderr.is_empty(), "{shell}: {said}");
        let lines: Vec<&str> = said.lines().collect();
        let login: Value = serde_json::from_str(lines[0]).unwrap();
        let introspection: Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!((&introspection["active"], &introspection["username"]), (&true.into(), &"demo".into()));
        let successor = lines[2].strip_prefix("successor: cs_rt_").unwrap();
        assert!(!login["refresh_token"].as_str().unwrap().ends_with(successor), "rotated");
        assert_eq!(lines[3], lines[2], "the retry has the same answer");
        assert_eq!(lines[4..], ["logout: 204", r#"{"active":false}"#]);
    }
    assert!(Command::new("kill").arg(demo.id().to_string()).status().unwrap().success());
    let ended = demo.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8(ended.stderr).unwrap().as_str()), (Some(0), ""), "and quietly");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_exits_0_when_ready_and_1_otherwise() {
    let home = Home::empty();
    let server = home.serve();
    let address = server.operations.trim_start_matches("http://").to_owned();
    let home = home.with("OPERATIONS__LISTEN", &address);
    assert_eq!(home.out(&["healthcheck"]), "ready\n");
    assert_eq!(home.json(&["healthcheck"])["ready"], true);
    let by_name = address.replace("127.0.0.1", "localhost");
    assert_eq!(home.out(&["healthcheck", "--address", &by_name]), "ready\n");
    drop(server);
    assert!(home.run(&["healthcheck"]).refusal(1).contains("/readyz"));

    // A listener that is up, but not ready.
    let stopped = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = stopped.local_addr().unwrap().to_string();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = stopped.accept().unwrap();
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).unwrap();
        let body = r#"{"ready":false,"checks":[{"name":"view_fresh","ok":false}]}"#;
        write!(stream, "HTTP/1.1 503 Service Unavailable\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    });
    let refused = home.run(&["healthcheck", "--address", &address]).refusal(1);
    assert!(refused.contains("not ready") && refused.contains("view_fresh"), "{refused}");
    answering.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_trusts_only_the_configured_certificate() {
    let home = Home::empty();
    let write = |name: &str| {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        std::fs::write(home.path().join(format!("{name}.pem")), made.cert.pem()).unwrap();
        write_private(&home.path().join(format!("{name}.key")), &made.signing_key.serialize_pem());
    };
    write("auth.test");
    write("other.test");
    let home = home.with("OPERATIONS__TLS__CERT", "auth.test.pem").with("OPERATIONS__TLS__KEY", "auth.test.key");
    let server = home.serve();
    let address = server.operations.strip_prefix("https://").unwrap();
    assert_eq!(home.out(&["healthcheck", "--address", address]), "ready\n");
    let astray = home.with("OPERATIONS__TLS__CERT", "other.test.pem");
    assert!(astray.run(&["healthcheck", "--address", address]).refusal(1).contains("not the configured one"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_decoded_and_verified_offline() {
    // Verifiers fetch the keys from the issuer, so the port must be known before the start.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let issuer = format!("http://{free}");
    let home = Home::empty().with("PUBLIC__LISTEN", &free.to_string()).with("ISSUER", &issuer);
    home.out(&["migrate"]);
    home.user("ada");
    let server = home.serve();
    let token = server.log_in("ada").await.access_token;

    let decoded = home.run_with(&["token", "decode", "--json"], &format!("Bearer {token}\n")).ok(&["decode"]);
    let decoded: Value = serde_json::from_str(&decoded).unwrap();
    assert_eq!((&decoded["header"]["typ"], &decoded["claims"]["iss"]), (&"at+jwt".into(), &issuer.as_str().into()));

    let verified = home.run_with(&["token", "verify", "--issuer", &issuer, "--json"], &token).ok(&["verify"]);
    let verified: Value = serde_json::from_str(&verified).unwrap();
    assert_eq!((&verified["valid"], &verified["claims"]), (&true.into(), &decoded["claims"]));
    assert!(home.run_with(&["token", "verify"], &token).ok(&["verify"]).starts_with("valid until "));

    let jwks = server.http.get(format!("{issuer}/.well-known/jwks.json")).send().await.unwrap().text().await.unwrap();
    std::fs::write(home.path().join("jwks.json"), jwks).unwrap();
    std::fs::write(home.path().join("token"), &token).unwrap();
    drop(server);
    home.out(&["token", "verify", "token", "--jwks", "jwks.json"]);
    let elsewhere = home.run(&["token", "verify", "token", "--jwks", "jwks.json", "--issuer", "https://other.test"]);
    assert!(elsewhere.refusal(1).contains("not valid"));
    let cut = home.run_with(&["token", "verify", "--jwks", "jwks.json", "--json"], &token[..token.len() - 2]);
    assert_eq!(cut.code, Some(1));
    assert_eq!(serde_json::from_str::<Value>(&cut.stdout).unwrap()["valid"], false);
    assert!(home.run_with(&["token", "verify"], &token).refusal(1).contains("jwks.json"), "nobody is there to ask");
    assert!(home.run_with(&["token", "decode"], "cs_rt_AAAA").refusal(1).contains("refresh token"));
}

/// A login of which the server has the head and waits for the body.
fn half_a_login(server: &Server) -> TcpStream {
    let address = server.public.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(
        stream,
        "POST /v1/login HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         expect: 100-continue\r\n\r\n",
        login_body().len()
    )
    .unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

fn login_body() -> String {
    serde_json::json!({"username": "ada", "password": PASSWORD}).to_string()
}
