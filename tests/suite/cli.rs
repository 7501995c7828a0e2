//! The commands, each as a process: their output, their exit codes, and the data that they leave unchanged.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use super::support::database::{Engine, TestDatabase, on_both_engines};
use super::support::process::{Home, PASSWORD};
use super::support::write_private;

/// A bcrypt hash, of the password `U*U` (test vector of the reference implementation).
const BCRYPT: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

on_both_engines! {
    async fn users_are_managed_and_their_passwords_never_printed(database: TestDatabase) {
        let home = Home::on(database);
        let id = home.user("Ada");
        assert!(id.starts_with("usr_") && id.len() == 26, "{id}");
        let taken = home.run_with(&["users", "create", "ada", "--password-stdin"], PASSWORD).refusal(1);
        assert!(taken.contains("exists already") && !taken.contains(PASSWORD), "{taken}");
        let weak = home.run_with(&["users", "create", "bob", "--password-stdin"], "Password1234").refusal(1);
        assert!(weak.contains("many people use") && !weak.contains("1234"), "{weak}");

        let ada = home.json(&["users", "set-roles", "ada", "reader,editor"]);
        assert_eq!((&ada["id"], &ada["roles"], &ada["enabled"]), (&json!(id), &json!(["editor", "reader"]), &json!(true)));
        assert_eq!(home.json(&["users", "disable", &id])["enabled"], false);
        assert_eq!(home.json(&["users", "enable", "ADA"])["enabled"], true);
        let epoch = home.json(&["users", "show", "ada"])["epoch"].clone();
        std::fs::write(home.path().join("password"), "another fine passphrase 31\n").unwrap();
        home.out(&["users", "set-password", "ada", "--password-file", "password"]);
        assert_ne!(home.json(&["users", "show", "ada"])["epoch"], epoch, "every session ends");
        assert_eq!(home.json(&["users", "set-roles", "ada", ""])["roles"], json!([]));

        home.user("grace");
        let list = home.json(&["users", "list"]);
        let names: Vec<&Value> = list["users"].as_array().unwrap().iter().map(|user| &user["username"]).collect();
        assert_eq!(names, ["ada", "grace"]);
        let table = home.out(&["users", "list"]);
        assert_eq!(table.lines().count(), 3, "{table}");
        assert!(table.starts_with("USERNAME  ID ") && table.contains(&id));
        let asked = home.run(&["users", "delete", "grace"]).refusal(2);
        assert!(asked.contains("ends 0 sessions") && asked.contains("--yes"), "{asked}");
        home.out(&["users", "delete", "grace", "--yes"]);
        assert!(home.run(&["users", "show", "grace"]).refusal(1).contains("no such user"));
    }

    async fn an_import_reports_every_line_and_resumes_when_run_again(database: TestDatabase) {
        let home = Home::on(database);
        let lines: Vec<String> =
            (0..1203).map(|n| json!({"username": format!("user{n}"), "password_hash": BCRYPT}).to_string()).collect();
        let file = home.path().join("users.jsonl");
        std::fs::write(&file, format!("{}\n", lines[..700].join("\n"))).unwrap();
        let first = home.json(&["users", "import", "users.jsonl"]);
        assert_eq!((&first["created"], &first["errors"]), (&json!(700), &json!([])));

        std::fs::write(&file, format!("{}\nnot a user\n{}", lines[..900].join("\n"), lines[900..].join("\n"))).unwrap();
        let again = home.run(&["users", "import", "users.jsonl", "--json"]);
        assert_eq!(again.code, Some(1), "a line was refused");
        assert!(again.stderr.contains("line 901: "), "{}", again.stderr);
        let report: Value = serde_json::from_str(&again.stdout).unwrap();
        assert_eq!((&report["created"], &report["unchanged"], &report["refused"]), (&json!(503), &json!(700), &json!(1)));
        assert_eq!(report["errors"][0]["line"], 901);
        assert_eq!(home.json(&["users", "list"])["users"].as_array().unwrap().len(), 1203);

        let other = lines[0].replace("CCCCC.E5", "CCCCC.F5");
        let taken = home.run_with(&["users", "import", "-"], &other);
        assert_eq!(taken.code, Some(1), "an account that was left alone is not an import that went well");
        assert!(taken.stdout.contains("taken      1"), "{}", taken.stdout);
    }

    async fn clients_are_managed_and_their_secrets_printed_once(database: TestDatabase) {
        let home = Home::on(database);
        home.out(&["migrate"]);
        let made = home.json(&["clients", "create", "shop", "--type", "confidential", "--grants", "client_credentials",
            "--audience", "https://a.test", "--audience", "https://b.test", "--scopes", "read write", "--introspect", "own",
            "--access-ttl", "10m", "--algorithm", "EdDSA", "--token-type", "JWT", "--display-name", "The shop"]);
        let members: Vec<&String> = made.as_object().unwrap().keys().collect();
        assert_eq!(members, ["client_id", "client_secret"]);
        let secret = made["client_secret"].as_str().unwrap();
        assert!(secret.len() >= 43 && secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)));

        let shown = home.json(&["clients", "show", "shop"]);
        assert_eq!(shown["audiences"], json!(["https://a.test", "https://b.test"]));
        assert_eq!((&shown["access_ttl"], &shown["algorithm"], &shown["secrets"]), (&json!(600), &json!("EdDSA"), &json!(1)));
        assert!(!home.out(&["clients", "show", "shop"]).contains(secret));

        let set = home.json(&["clients", "set", "shop", "--access-ttl", "default", "--audience", "", "--scopes", "read"]);
        assert_eq!((&set["access_ttl"], &set["audiences"], &set["scopes"]), (&Value::Null, &json!([]), &json!("read")));
        assert_eq!(set["algorithm"], "EdDSA", "what is left out stays");

        let renewed = home.json(&["clients", "new-secret", "shop", "--grace", "1h"]);
        assert_ne!(renewed["client_secret"], made["client_secret"]);
        assert_eq!(home.json(&["clients", "show", "shop"])["secrets"], 2, "the old one works for an hour");
        assert_eq!(home.json(&["clients", "disable", "shop"])["enabled"], false);
        assert_eq!(home.json(&["clients", "enable", "shop"])["enabled"], true);

        let app = home.json(&["clients", "create", "app", "--type", "public", "--grants", "password_login,refresh_token"]);
        assert_eq!(app, json!({"client_id": "app"}));
        let public = ["clients", "create", "bad", "--type", "public", "--introspect", "any"];
        assert!(home.run(&public).refusal(1).contains("introspect: only a confidential client"));
        let list = home.json(&["clients", "list"]);
        let ids: Vec<&Value> = list["clients"].as_array().unwrap().iter().map(|client| &client["client_id"]).collect();
        assert_eq!(ids, ["app", "countersign", "shop"]);
        assert!(home.run(&["clients", "delete", "app"]).refusal(2).contains("--yes"));
        home.out(&["clients", "delete", "app", "--yes"]);
        assert!(home.run(&["clients", "delete", "app"]).refusal(1).contains("no such client"));
    }

    async fn a_client_with_public_keys_has_no_secret(database: TestDatabase) {
        let home = Home::on(database);
        let jwk = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k1", "alg": "EdDSA", "use": "sig",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]});
        std::fs::write(home.path().join("keys.json"), jwk.to_string()).unwrap();
        let made = home.json(&["clients", "create", "svc", "--type", "confidential", "--jwks", "keys.json"]);
        assert_eq!(made, json!({"client_id": "svc"}));
        assert_eq!(home.json(&["clients", "show", "svc"])["jwks"], jwk);
        assert_eq!(home.json(&["clients", "set", "svc", "--jwks", "none"])["jwks"], Value::Null);
        let private = jwk.to_string().replace("\"alg\"", "\"d\":\"AAAA\",\"alg\"");
        let refused = home.run_with(&["clients", "set", "svc", "--jwks", "-"], &private).refusal(1);
        assert!(refused.contains("private member"), "{refused}");
    }

    async fn keys_are_rotated_imported_withdrawn_and_resealed(database: TestDatabase) {
        let home = Home::on(database);
        let first = home.json(&["keys", "rotate"]);
        assert_eq!((&first["state"], &first["algorithm"]), (&json!("signing"), &json!("ES256")));
        let second = home.json(&["keys", "rotate"]);
        assert_eq!(second["state"], "announced");
        let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        let imported = home.run_with(&["keys", "import", "-", "--json"], &pem);
        let imported: Value = serde_json::from_str(&imported.ok(&["keys import"])).unwrap();
        assert_eq!((&imported["algorithm"], &imported["state"]), (&json!("EdDSA"), &json!("signing")));
        std::fs::write(home.path().join("key.pem"), &pem).unwrap();
        assert!(home.run(&["keys", "import", "key.pem"]).refusal(1).contains("imported before"));
        assert!(home.run(&["keys", "rotate", "--algorithm", "RS256"]).refusal(1).contains("keys import --algorithm RS256"));
        let kid = second["kid"].as_str().unwrap();
        home.out(&["keys", "withdraw", kid]);
        let list = home.json(&["keys", "list"]);
        let kids: Vec<&Value> = list["keys"].as_array().unwrap().iter().map(|key| &key["kid"]).collect();
        assert!(kids.len() == 2 && !kids.contains(&&second["kid"]), "{list}");

        // A new master key: the old one is the previous one until everything is resealed.
        let home = home
            .with("MASTER_KEY_PREVIOUS", "dGVzdC1maXh0dXJlLW1hc3Rlci1rZXktMDEyMzQ1Njc=")
            .with("MASTER_KEY", "YW5vdGhlci10ZXN0LWZpeHR1cmUta2V5LTAwMDAwMDE=");
        assert_eq!(home.json(&["keys", "reseal"])["resealed"], 3, "the withdrawn key as well");
        assert_eq!(home.json(&["keys", "reseal"])["resealed"], 0);
        let home = home.without("MASTER_KEY_PREVIOUS");
        assert_eq!(home.json(&["keys", "list"])["keys"].as_array().unwrap().len(), 2, "the old key is not needed any more");
        let lost = home.with("MASTER_KEY", "eWV0LWFub3RoZXItdGVzdC1maXh0dXJlLWtleS0wMDI=");
        let advice = lost.run(&["keys", "rotate"]).refusal(1);
        assert!(advice.contains("cannot be opened") && advice.contains("countersign keys withdraw"), "{advice}");
        let list = lost.json(&["keys", "list"]);
        assert_eq!(list["keys"].as_array().unwrap().len(), 2, "what cannot be opened is listed: {list}");
        for key in list["keys"].as_array().unwrap() {
            lost.out(&["keys", "withdraw", key["kid"].as_str().unwrap()]);
        }
        assert_eq!(lost.json(&["keys", "list"])["keys"], json!([]), "nothing is sealed under a key that may be the wrong one");
        assert_eq!(lost.json(&["keys", "rotate"])["state"], "signing", "the advice was followed");
    }

    async fn admin_keys_are_printed_once(database: TestDatabase) {
        let home = Home::on(database);
        let key = home.out(&["admin-key", "create", "ci"]);
        assert!(key.starts_with("cs_admin_") && key.lines().count() == 1, "{key}");
        assert!(home.run(&["admin-key", "create", "ci"]).refusal(1).contains("exists already"));
        let made = home.json(&["admin-key", "create", "nightly", "--expires-in", "30d"]);
        assert!(made["admin_key"].as_str().unwrap().starts_with("cs_admin_"));
        let list = home.out(&["admin-key", "list", "--json"]);
        assert!(!list.contains(key.trim()), "{list}");
        let list: Value = serde_json::from_str(&list).unwrap();
        assert_eq!(list["admin_keys"].as_array().unwrap().len(), 2);
        assert_eq!(list["admin_keys"][0]["expires_at"], Value::Null);
        home.out(&["admin-key", "delete", "ci"]);
        assert!(home.run(&["admin-key", "delete", "ci"]).refusal(1).contains("no such admin key"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_lists_and_applies_pending_migrations() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        if !engine.is_available() {
            continue;
        }
        let home = Home::on(TestDatabase::bare(engine).await);
        assert_eq!(home.run(&["migrate", "--check"]).code, Some(1));
        let applied = home.json(&["migrate"]);
        assert_eq!((&applied["pending"], &applied["schema"]), (&json!(0), &applied["latest"]));
        assert!(applied["applied"].as_u64().unwrap() >= 1);
        assert_eq!(home.json(&["migrate"])["applied"], 0);
        assert!(home.out(&["migrate", "--check"]).starts_with("the schema is at "));
    }
}

#[test]
fn d4_only_serve_and_migrate_create_a_database_and_a_master_key() {
    let home = Home::empty();
    let commands: [&[&str]; 11] = [
        &["users", "list"],
        &["users", "show", "ada"],
        &["clients", "list"],
        &["keys", "list"],
        &["admin-key", "list"],
        &["revoke", "--user", "ada"],
        &["migrate", "--check"],
        &["keys", "rotate"],
        &["users", "create", "ada", "--password-stdin"],
        &["clients", "create", "app", "--type", "public"],
        &["admin-key", "create", "ci"],
    ];
    for command in commands {
        assert!(home.run_with(command, PASSWORD).refusal(1).contains("countersign migrate"), "{command:?}");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "{command:?}");
    }
    let mistyped = Home::empty().with("DATABASE__URL", "sqlite://mistyped/countersign.db");
    assert!(
        mistyped.run_with(&["users", "create", "ada", "--password-stdin"], PASSWORD).refusal(1).contains("mistyped")
    );
    assert_eq!(std::fs::read_dir(mistyped.path()).unwrap().count(), 0);
}

#[test]
fn migrate_creates_what_the_create_commands_need() {
    let home = Home::empty();
    home.out(&["migrate"]);
    assert_eq!(mode(&home.path().join("countersign-data/master.key")), 0o600);
    assert_eq!(mode(&home.path().join("countersign-data/countersign.db")), 0o600);
    home.out(&["clients", "show", "countersign"]);
    home.out(&["keys", "list"]);
    home.user("ada");
}

#[test]
fn a_byte_order_mark_is_stripped_from_passwords_keys_and_imports() {
    let home = Home::empty();
    home.out(&["migrate"]);
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        write_private(&path, &format!("\u{feff}{text}"));
        path.display().to_string()
    };
    let password = file("password", PASSWORD);
    home.out(&["users", "create", "ada", "--password-file", &password]);
    let key = home.path().join("countersign-data/master.key");
    let marked = std::fs::read_to_string(&key).unwrap();
    std::fs::write(&key, format!("\u{feff}{marked}")).unwrap();
    let users = home.json(&["users", "show", "ada"]);
    assert_eq!(users["username"], "ada", "the master key is read");
    let hash = "$2b$04$abcdefghijklmnopqrstuu5Lo0g67CiD3M4RpN1BmBb4Crp5w7dbK";
    let import = file("users.jsonl", &format!("{{\"username\":\"bob\",\"password_hash\":\"{hash}\"}}\n"));
    assert_eq!(home.json(&["users", "import", &import])["created"], 1);
}

#[test]
fn a_lost_master_key_is_not_replaced() {
    let home = Home::empty();
    home.out(&["migrate"]);
    home.out(&["keys", "rotate"]);
    let key = home.path().join("countersign-data/master.key");
    std::fs::remove_file(&key).unwrap();
    for command in [&["keys", "list"][..], &["serve"], &["migrate"]] {
        assert!(home.run(command).refusal(1).contains("bring the file back"), "{command:?}");
        assert!(!key.exists(), "{command:?}");
    }
}

#[test]
fn config_reports_every_error_at_once_and_never_a_secret() {
    let home = Home::empty().with("TOKENS__ACCESS_TTL", "9h").with("ISSUR", "https://a.test");
    let home = home.with("DATABASE__URL", "postgres://app:hunter2@db/cs").with("MASTER_KEY", "hunter2-is-no-key");
    std::fs::write(home.path().join("countersign.toml"), "[keys]\nrotate_evry = \"1d\"\n").unwrap();
    let checked = home.run(&["config", "check", "--json"]);
    assert_eq!(checked.code, Some(1));
    let errors: Value = serde_json::from_str(&checked.stdout).unwrap();
    let named: Vec<&str> =
        errors["mistakes"].as_array().unwrap().iter().map(|error| error["setting"].as_str().unwrap()).collect();
    for setting in ["tokens.access_ttl", "issur", "master_key", "keys.rotate_evry"] {
        assert!(named.contains(&setting), "{setting} in {named:?}");
        assert!(checked.stderr.contains(setting), "{}", checked.stderr);
    }
    for command in [&["serve"][..], &["config", "check"], &["config", "show"], &["users", "list"], &["healthcheck"]] {
        let refused = home.run(command).refusal(1);
        assert!(refused.contains("4 configuration errors") && !refused.contains("hunter2"), "{refused}");
    }
}

#[test]
fn config_check_finds_what_would_fail_a_start_and_a_failed_start_creates_nothing() {
    let home = Home::empty();
    let make = |name: &str| {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        std::fs::write(home.path().join(format!("{name}.pem")), made.cert.pem()).unwrap();
        write_private(&home.path().join(format!("{name}.key")), &made.signing_key.serialize_pem());
        std::fs::copy(home.path().join(format!("{name}.key")), home.path().join(format!("{name}.shown"))).unwrap();
        let shown = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(home.path().join(format!("{name}.shown")), shown).unwrap();
    };
    make("a");
    make("b");
    let files = std::fs::read_dir(home.path()).unwrap().count();
    let mut home = home;
    for (certificate, key, setting, problem) in [
        (
            "none.pem",
            "a.key",
            "public.tls.cert (COUNTERSIGN_PUBLIC__TLS__CERT)",
            "none.pem, which cannot be read (No such",
        ),
        ("a.key", "a.key", "public.tls.cert", "holds no PEM certificate"),
        ("a.pem", "none.key", "public.tls.key", "none.key, which cannot be read (No such"),
        ("a.pem", "b.key", "public.tls.key", "is not the key of the certificate a.pem"),
        ("a.pem", "a.shown", "public.tls.key", "every user of this machine may read"),
    ] {
        home = home.without("PUBLIC__TLS__CERT").without("PUBLIC__TLS__KEY");
        home = home.with("PUBLIC__TLS__CERT", certificate).with("PUBLIC__TLS__KEY", key);
        let checked = home.run(&["config", "check"]).refusal(1);
        assert!(checked.contains(setting) && checked.contains(problem), "{checked}");
        let refused = home.run(&["serve"]).refusal(1);
        assert!(refused.contains(setting.split(' ').next().unwrap()) && refused.contains(problem), "{refused}");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), files, "no database, no key");
    }
    home = home.without("PUBLIC__TLS__KEY").with("PUBLIC__TLS__KEY", "a.key");
    home.out(&["config", "check"]);
    let home = Home::empty().with("MASTER_KEY", "dGVzdC1maXh0dXJlLW1hc3Rlci1rZXktMDEyMzQ1Njc=");
    for url in ["postgres://app:%ff@db/hunter2", "postgres://app:hunter2@db/cs?sslmode=hunter3"] {
        let refused = home.run_on(url, &["config", "check"]);
        assert!(
            refused.contains("database.url (COUNTERSIGN_DATABASE__URL)") && !refused.contains("hunter"),
            "{refused}"
        );
    }
}

#[test]
fn an_issuer_that_cannot_be_a_route_is_refused_by_name() {
    for path in [":x", "*x", "{x}", ".well-known/openid-configuration", ".well-known/oauth-authorization-server"] {
        let home = Home::empty().with("ISSUER", &format!("https://auth.test/{path}"));
        for command in [&["config", "check"][..], &["serve"]] {
            let refused = home.run(command).refusal(1);
            assert!(refused.contains("issuer (COUNTERSIGN_ISSUER) "), "{refused}");
        }
    }
}

#[test]
fn errors_are_plain_sentences() {
    let home = Home::empty();
    home.out(&["migrate"]);
    home.out(&["clients", "create", "app", "--type", "public"]);
    let refused = home.run_with(&["revoke", "--token"], "garbage").refusal(1);
    assert!(refused.contains("not three parts of base64url") && !refused.contains("Refused"), "{refused}");
    assert!(
        home.run(&["admin-key", "create", "k", "--expires-in", "0s"]).refusal(1).contains("at least one millisecond")
    );
    assert_eq!(home.json(&["admin-key", "list"])["admin_keys"], json!([]));
    let refused = home.run(&["--config", "/nonexistent", "config", "check"]).refusal(1);
    assert!(refused.contains("/nonexistent cannot be read (No such file") && !refused.contains("line"), "{refused}");
    let refused = home.run_with(&["token", "verify", "--issuer", "ftp://auth.test"], "a.b.c").refusal(2);
    assert!(refused.contains("--issuer") && refused.contains("https://"), "{refused}");
    std::fs::write(home.path().join("no.db"), "this is a text and no database at all".repeat(100)).unwrap();
    let refused = home.run_on("sqlite://no.db", &["users", "list"]);
    assert!(refused.contains("no.db") && refused.contains("database.url"), "{refused}");
}

#[test]
fn the_built_in_client_can_be_disabled_and_not_deleted() {
    let home = Home::empty();
    home.out(&["migrate"]);
    home.user("ada");
    assert!(home.run(&["clients", "delete", "countersign", "--yes"]).refusal(1).contains("disable it instead"));
    assert_eq!(home.json(&["clients", "show", "countersign"])["enabled"], true);
    assert_eq!(home.json(&["clients", "disable", "countersign"])["enabled"], false);
}

#[test]
fn config_shows_each_effective_value_and_its_origin() {
    let home = Home::empty().with("DATABASE__URL", "postgres://app:hunter2@db/cs").with("TOKENS__ACCESS_TTL", "7m");
    let home = home.with("MASTER_KEY", "dGVzdC1maXh0dXJlLW1hc3Rlci1rZXktMDEyMzQ1Njc=");
    let file = home.path().join("other.toml");
    std::fs::write(&file, "issuer = \"https://auth.test\"\n").unwrap();
    let shown = home.out(&["config", "show", "--config", "other.toml"]);
    assert!(shown.contains("https://auth.test") && shown.contains("other.toml, line 1"), "{shown}");
    assert!(shown.contains("COUNTERSIGN_TOKENS__ACCESS_TTL") && !shown.contains("hunter2") && !shown.contains("dGVzd"));
    let json = home.json(&["config", "show"]);
    assert!(json["settings"].as_array().unwrap().len() > 60);
    assert_eq!(home.json(&["config", "check"])["ok"], true);
    assert!(home.run(&["config", "check", "--config", "nowhere.toml"]).refusal(1).contains("nowhere.toml"));
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md")).unwrap();
    assert_eq!(home.out(&["config", "reference"]), page);
}

#[test]
fn usage_errors_exit_with_2_and_leave_standard_output_empty() {
    let home = Home::empty();
    let wrong: [&[&str]; 13] = [
        &[],
        &["unheard-of"],
        &["serve", "--bogus"],
        &["users", "create"],
        &["users", "create", "ada"],
        &["users", "create", "a b", "--password-stdin"],
        &["users", "create", "ada", "--password", "hunter2"],
        &["users", "create", "ada", "--password-stdin", "--password-file", "f"],
        &["clients", "create", "app"],
        &["clients", "create", "usr_x", "--type", "public"],
        &["keys", "rotate", "--algorithm", "HS256"],
        &["revoke"],
        &["revoke", "--user", "ada", "--jti", "x"],
    ];
    for arguments in wrong {
        home.run(arguments).refusal(2);
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    for arguments in [&["--help"][..], &["--version"], &["users", "create", "--help"]] {
        assert!(!home.out(arguments).is_empty());
    }
}

#[test]
fn the_openapi_document_and_completions_are_printed() {
    let home = Home::empty();
    let document: Value = serde_json::from_str(&home.out(&["openapi"])).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(home.out(&["completions", shell]).contains("new-secret"), "{shell}");
    }
}

#[test]
fn s3_control_characters_in_a_user_name_are_escaped() {
    let home = Home::empty();
    home.out(&["migrate"]);
    home.out(&["clients", "create", "app", "--type", "public", "--display-name", "a\u{1b}[2Jb"]);
    assert!(!home.out(&["clients", "list"]).contains('\u{1b}'));
    assert!(!home.out(&["clients", "list", "--json"]).contains('\u{1b}'));
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
