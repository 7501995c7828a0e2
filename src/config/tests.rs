//! Tests of loading as a whole. The parsing of a single setting is tested in its module.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// 32 bytes that pass the check for randomness.
const KEY: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
const OTHER_KEY: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

fn no_file(_: &Path) -> io::Result<String> {
    Err(io::ErrorKind::NotFound.into())
}

fn load(file: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    let environment: Vec<_> = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Config::load(&Inputs { file: Some(("cs.toml", file)), environment: &environment, read_secret_file: &no_file })
}

fn errors(file: &str, variables: &[(&str, &str)]) -> Vec<ConfigError> {
    load(file, variables).expect_err("the configuration has errors").0
}

fn setting<'a>(loaded: &'a Loaded, name: &str) -> &'a Setting {
    loaded.settings.iter().find(|setting| setting.name == name).expect(name)
}

/// A valid value for every setting that differs from the default. Together, they are a valid configuration.
const OTHERS: [(&str, &str); 76] = [
    ("issuer", "\"http://auth.example.com/tenant\""),
    ("allow_http_issuer", "true"),
    ("database.url", "\"postgres://cs:pw@db/auth\""),
    ("database.create_if_missing", "false"),
    ("database.max_connections", "20"),
    ("database.acquire_timeout", "\"2s\""),
    ("database.statement_timeout", "\"3s\""),
    ("database.pooler", "\"transaction\""),
    ("master_key", "\"AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=\""),
    ("master_key_previous", "\"ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=\""),
    ("public.listen", "\"[::]:8443\""),
    ("public.tls.cert", "\"/tls/cert.pem\""),
    ("public.tls.key", "\"/tls/key.pem\""),
    ("public.trusted_proxies", "[\"10.0.0.0/8\", \"::1\"]"),
    ("public.max_connections", "100"),
    ("public.max_connections_per_address", "30"),
    ("public.header_timeout", "\"5s\""),
    ("public.body_timeout", "\"6s\""),
    ("public.request_timeout", "\"7s\""),
    ("public.idle_timeout", "\"8s\""),
    ("public.write_timeout", "\"9s\""),
    ("operations.listen", "\"0.0.0.0:9443\""),
    ("operations.tls.cert", "\"/tls/cert2.pem\""),
    ("operations.tls.key", "\"/tls/key2.pem\""),
    ("operations.trusted_proxies", "[\"192.168.0.0/16\"]"),
    ("operations.max_connections", "101"),
    ("operations.max_connections_per_address", "31"),
    ("operations.header_timeout", "\"5s\""),
    ("operations.body_timeout", "\"6s\""),
    ("operations.request_timeout", "\"7s\""),
    ("operations.idle_timeout", "\"8s\""),
    ("operations.write_timeout", "\"9s\""),
    ("grpc.listen", "\"[::1]:9191\""),
    ("grpc.tls.cert", "\"/tls/cert3.pem\""),
    ("grpc.tls.key", "\"/tls/key3.pem\""),
    ("grpc.max_connections", "102"),
    ("grpc.max_connections_per_address", "32"),
    ("tokens.access_ttl", "\"10m\""),
    ("tokens.algorithm", "\"EdDSA\""),
    ("tokens.type", "\"JWT\""),
    ("tokens.default_audience", "\"api\""),
    ("sessions.idle_ttl", "\"1d\""),
    ("sessions.absolute_ttl", "\"2d\""),
    ("sessions.max_per_user", "7"),
    ("refresh.retry_window", "0"),
    ("revocation.poll_interval", "\"250ms\""),
    ("revocation.max_lag", "\"2s\""),
    ("introspection.max_age", "0"),
    ("introspection.cache_entries", "0"),
    ("feed.max_readers", "7"),
    ("keys.rotate_every", "\"7d\""),
    ("keys.announce_for", "\"30m\""),
    ("keys.jwks_max_age", "\"60s\""),
    ("passwords.memory_kib", "65536"),
    ("passwords.iterations", "3"),
    ("passwords.parallelism", "2"),
    ("passwords.threads", "4"),
    ("passwords.queue", "10"),
    ("passwords.legacy_cost", "40"),
    ("passwords.legacy_memory_kib", "65536"),
    ("passwords.min_length", "15"),
    ("limits.enabled", "false"),
    ("limits.address.burst", "1"),
    ("limits.address.per_minute", "2"),
    ("limits.account.free", "3"),
    ("limits.pair.free", "5"),
    ("limits.client.burst", "8"),
    ("limits.client.per_minute", "9"),
    ("limits.revocation.burst", "10"),
    ("limits.revocation.per_minute", "11"),
    ("limits.hard_stop", "50"),
    ("limits.hard_stop_for", "\"1h\""),
    ("limits.max_entries", "5000"),
    ("forward_auth.header_prefix", "\"Remote-\""),
    ("forward_auth.allow_preflight", "true"),
    ("cors.allowed_origins", "[\"https://app.example.com\"]"),
];

/// The rest of `OTHERS`.
const MORE: [(&str, &str); 6] = [
    ("log.format", "\"json\""),
    ("log.level", "\"debug,sqlx=warn\""),
    ("log.requests", "false"),
    ("shutdown.delay", "0"),
    ("shutdown.drain", "\"10s\""),
    ("audit.retention", "\"30d\""),
];

fn all_others() -> impl Iterator<Item = (&'static str, &'static str)> {
    OTHERS.into_iter().chain(MORE)
}

#[test]
fn without_configuration_the_documented_defaults_apply() {
    let Loaded { config, settings } = load("", &[]).unwrap();
    assert_eq!(config.issuer.as_str(), "http://localhost:8080");
    assert_eq!(config.database.url.expose(), "sqlite://countersign-data/countersign.db");
    assert_eq!(config.embedded_key_file(), Some("countersign-data/master.key".into()));
    assert!(config.database.create_if_missing && config.master_key.is_none());
    assert_eq!(
        (config.public.listen.to_string(), config.operations.listen.to_string()),
        ("127.0.0.1:8080".into(), "127.0.0.1:9090".into())
    );
    assert_eq!(config.tokens.default_audience.as_str(), "http://localhost:8080");
    assert!(settings.iter().all(|setting| setting.origin == Origin::Default && setting.value == setting.default));
    let promised = [
        ("tokens.access_ttl", "5m"),
        ("tokens.algorithm", "ES256"),
        ("tokens.type", "at+jwt"),
        ("sessions.idle_ttl", "14d"),
        ("sessions.absolute_ttl", "90d"),
        ("refresh.retry_window", "10s"),
        ("revocation.poll_interval", "500ms"),
        ("revocation.max_lag", "3s"),
        ("introspection.max_age", "5s"),
        ("keys.rotate_every", "30d"),
        ("keys.announce_for", "1h"),
        ("keys.jwks_max_age", "5m"),
        ("passwords.memory_kib", "19456"),
        ("passwords.iterations", "2"),
        ("passwords.parallelism", "1"),
        ("passwords.legacy_cost", "24"),
        ("passwords.legacy_memory_kib", "131072"),
        ("passwords.min_length", "12"),
        ("forward_auth.header_prefix", "X-Auth-Request-"),
        ("cors.allowed_origins", "none"),
        ("limits.hard_stop", "100"),
    ];
    let shown: BTreeMap<_, _> =
        settings.iter().map(|setting| (setting.name.as_str(), setting.value.as_str())).collect();
    for (name, value) in promised {
        assert_eq!(shown.get(name), Some(&value), "{name}");
    }
}

#[test]
fn every_setting_can_be_set_in_the_file_and_in_the_environment() {
    let names: Vec<_> = load("", &[]).unwrap().settings.into_iter().map(|setting| setting.name).collect();
    let mut listed: Vec<_> = all_others().map(|(name, _)| name).collect();
    listed.sort_unstable();
    let mut known: Vec<_> = names.iter().map(String::as_str).collect();
    known.sort_unstable();
    assert_eq!(listed, known, "`OTHERS` and `MORE` name every setting");

    let file: String = all_others().map(|(name, value)| format!("{name} = {value}\n")).collect();
    let variables: Vec<_> = all_others()
        .map(|(name, value)| {
            let plain =
                value.trim_start_matches("[\"").trim_end_matches("\"]").trim_matches('"').replace("\", \"", ",");
            (environment::variable_name(name), plain)
        })
        .collect();
    let from_file = load(&file, &[]).unwrap();
    let borrowed: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let from_environment = load("", &borrowed).unwrap();
    assert_eq!(from_file.config, from_environment.config);
    for (line, (name, _)) in all_others().enumerate() {
        let setting = setting(&from_file, name);
        assert!(setting.value != setting.default || name == "database.create_if_missing", "{name}");
        assert_eq!(setting.origin, Origin::File("cs.toml".into(), line + 1), "{name}");
    }
    assert!(from_environment.settings.iter().all(|setting| matches!(setting.origin, Origin::Environment(_))));
}

#[test]
fn the_environment_overrides_the_file_and_the_file_overrides_the_default() {
    let file = "[tokens]\naccess_ttl = \"10m\"\nalgorithm = \"EdDSA\"\n";
    let loaded = load(file, &[("COUNTERSIGN_TOKENS__ACCESS_TTL", "15m")]).unwrap();
    assert_eq!(setting(&loaded, "tokens.access_ttl").value, "15m");
    assert_eq!(setting(&loaded, "tokens.access_ttl").origin.to_string(), "COUNTERSIGN_TOKENS__ACCESS_TTL");
    assert_eq!(setting(&loaded, "tokens.algorithm").origin.to_string(), "cs.toml, line 3");
    assert_eq!(setting(&loaded, "tokens.type").origin.to_string(), "default");
    let empty = load("[cors]\nallowed_origins = [\"https://a.example\"]", &[("COUNTERSIGN_CORS__ALLOWED_ORIGINS", "")]);
    assert!(empty.unwrap().config.cors.allowed_origins.is_empty(), "an empty variable empties a list");
}

#[test]
fn ranges_include_both_ends() {
    let ends = [
        ("tokens.access_ttl", "30s", "29s", "1h", "1h1s"),
        ("refresh.retry_window", "0", "-1s", "60s", "61s"),
        ("introspection.max_age", "0s", "-1s", "1m", "61s"),
        ("keys.jwks_max_age", "1s", "0", "300s", "301s"),
        ("revocation.poll_interval", "50ms", "49ms", "1s", "1001ms"),
        ("revocation.max_lag", "1s", "999ms", "60s", "61s"),
        ("passwords.memory_kib", "19456", "19455", "1048576", "1048577"),
        ("passwords.iterations", "2", "1", "16", "17"),
        ("passwords.parallelism", "1", "0", "16", "17"),
        ("passwords.min_length", "8", "7", "64", "65"),
        ("passwords.threads", "1", "0", "64", "65"),
        ("passwords.legacy_cost", "1", "0", "1000", "1001"),
        ("passwords.legacy_memory_kib", "8192", "8191", "1048576", "1048577"),
        ("passwords.queue", "1", "0", "10000", "10001"),
        ("sessions.max_per_user", "1", "0", "10000", "10001"),
        ("limits.hard_stop", "1", "0", "100", "101"),
        ("public.request_timeout", "1s", "999ms", "5m", "301s"),
        ("database.max_connections", "1", "0", "1000", "1001"),
        ("shutdown.delay", "0", "-1", "300s", "301s"),
        ("audit.retention", "1d", "23h", "3650d", "3651d"),
    ];
    for (name, low, below, high, above) in ends {
        let try_value = |value: &str| load("", &[(&environment::variable_name(name), value)]);
        for good in [low, high] {
            let about_this = |errors: &ConfigErrors| errors.0.iter().any(|error| error.setting == name);
            let is_good = try_value(good).map_or_else(|errors| !about_this(&errors), |_| true);
            assert!(is_good, "{name} = {good}");
        }
        for bad in [below, above] {
            let blamed: Vec<_> = try_value(bad).expect_err(bad).0.into_iter().map(|error| error.setting).collect();
            assert_eq!(blamed, [name], "{name} = {bad}");
        }
    }
}

#[test]
fn p1_weaker_password_hashing_is_a_configuration_error() {
    let message = errors("[passwords]\nmemory_kib = 4096\n", &[])[0].to_string();
    assert_eq!(message, "passwords.memory_kib (cs.toml, line 2) is 4096: write 19456 to 1048576");
}

#[test]
fn all_errors_are_reported_together_with_their_place_and_remedy() {
    let file = "\
        issuer = \"http://auth.example.com\"\n\
        [tokens]\n\
        access_ttl = \"2h\"\n\
        acces_ttl = \"5m\"\n\
        [public]\n\
        listen = 8080\n\
        [database]\n\
        url = \"postgres://cs:topsecret@db/auth\"\n";
    let variables = [
        ("COUNTERSIGN_TOKENS_TYPE", "JWT"),
        ("COUNTERSIGN_PUBLIC__TLS__CERT", "/tls/cert.pem"),
        ("COUNTERSIGN_LIMITS__ENABLED", "yes"),
        ("HOME", "/root"),
    ];
    let text = load(file, &variables).unwrap_err().to_string();
    insta::assert_snapshot!(text);
    assert!(!text.contains("topsecret"));
}

#[test]
fn contradictory_values_are_errors() {
    let first = |file: &str| errors(file, &[]).remove(0).setting;
    assert_eq!(first("revocation.poll_interval = \"600ms\"\nrevocation.max_lag = \"1s\""), "revocation.poll_interval");
    assert_eq!(first("keys.announce_for = \"5m\""), "keys.announce_for");
    assert_eq!(first("keys.announce_for = \"332s\""), "keys.announce_for");
    assert!(load("keys.announce_for = \"333s\"", &[]).is_ok(), "300 s + 3 s + 30 s");
    assert_eq!(first("keys.rotate_every = \"2h59m\""), "keys.rotate_every");
    assert_eq!(first("sessions.idle_ttl = \"91d\""), "sessions.idle_ttl");
    assert_eq!(first("sessions.idle_ttl = \"299s\""), "sessions.idle_ttl");
    assert!(load("sessions.idle_ttl = \"300s\"", &[]).is_ok(), "as long as tokens.access_ttl");
    let postgres = |timeouts: &str| {
        load(&format!("master_key = \"{KEY}\"\ndatabase.url = \"postgres://db/auth\"\n{timeouts}"), &[])
    };
    let late = "database.statement_timeout = \"5s\"\npublic.request_timeout = \"5s\"";
    assert_eq!(postgres(late).unwrap_err().0.remove(0).setting, "database.statement_timeout");
    assert!(postgres("public.request_timeout = \"2001ms\"").is_ok());
    assert_eq!(first("operations.tls.key = \"key.pem\""), "operations.tls.cert");
    assert_eq!(first("operations.listen = \"127.0.0.1:8080\""), "operations.listen");
    let free_ports = "public.listen = \"127.0.0.1:0\"\noperations.listen = \"127.0.0.1:0\"";
    assert!(load(free_ports, &[]).is_ok(), "port 0 is never the same port");
    for taken in ["127.0.0.1:8080", "127.0.0.1:9090"] {
        assert_eq!(first(&format!("grpc.listen = \"{taken}\"")), "grpc.listen");
    }
    assert_eq!(load("", &[]).unwrap().config.grpc.listen, None, "the gRPC listener is off by default");
    assert_eq!(first(&format!("master_key = \"{KEY}\"\nmaster_key_previous = \"{KEY}\"")), "master_key_previous");
}

#[test]
fn s6_postgres_needs_a_master_key_and_a_named_embedded_database_is_not_created_by_default() {
    let errors = errors("", &[("COUNTERSIGN_DATABASE__URL", "postgres://db/auth")]);
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0]
            .to_string()
            .starts_with("master_key is required with PostgreSQL (database.url comes from COUNTERSIGN_DATABASE__URL)"),
        "{}",
        errors[0]
    );
    let named = load("", &[("COUNTERSIGN_DATABASE__URL", "sqlite:///srv/cs.db")]).unwrap().config;
    assert!(!named.database.create_if_missing);
    assert_eq!(named.embedded_key_file(), Some("/srv/master.key".into()));
}

#[test]
fn a_secret_can_be_read_from_a_file_and_must_not_be_set_twice() {
    let read_secret_file = |path: &Path| match path.to_str() {
        Some("/run/key") => Ok(format!("{KEY}\n")),
        _ => Err(io::ErrorKind::PermissionDenied.into()),
    };
    let load = |file: &str, variables: &[(&str, &str)]| {
        let environment: Vec<_> = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Config::load(&Inputs {
            file: Some(("cs.toml", file)),
            environment: &environment,
            read_secret_file: &read_secret_file,
        })
    };
    let loaded = load("master_key_file = \"/run/key\"", &[]).unwrap();
    assert_eq!(loaded.config.master_key, MasterKey::parse(KEY).ok());
    assert_eq!(setting(&loaded, "master_key").origin.to_string(), "file /run/key, named by cs.toml, line 1");
    let wins = load(&format!("master_key = \"{OTHER_KEY}\""), &[("COUNTERSIGN_MASTER_KEY_FILE", "/run/key")]).unwrap();
    assert_eq!(wins.config.master_key, MasterKey::parse(KEY).ok());
    let twice = [("COUNTERSIGN_MASTER_KEY", KEY), ("COUNTERSIGN_MASTER_KEY_FILE", "/run/key")];
    assert!(load("", &twice).unwrap_err().to_string().contains("is given twice"));
    assert!(load("master_key_file = \"/etc/shadow\"", &[]).unwrap_err().to_string().contains("cannot be read"));
}

#[test]
fn s1_no_output_contains_a_secret() {
    let file = format!(
        "master_key = \"{KEY}\"\nmaster_key_previous = \"{OTHER_KEY}\"\ndatabase.url = \"postgres://cs:topsecret@db/auth\""
    );
    let loaded = load(&file, &[]).unwrap();
    let shown = format!("{loaded:?}{}{}", loaded.render_text(), loaded.render_json());
    for secret in [KEY, OTHER_KEY, "topsecret", KEY.trim_end_matches('=')] {
        assert!(!shown.contains(secret));
    }
    assert!(shown.contains("postgres://cs:hidden@db/auth"));
    for broken in [
        "master_key = topsecret",
        "master_key = \"topsecret",
        "master_key = \"topsecret\"",
        "master_kee = \"topsecret\"",
        "master_key = [\"topsecret\"]",
        "master_key_file = [\"topsecret\"]",
        "database.url = \"mysql://topsecret\"",
        "[topsecret",
    ] {
        let errors = load(broken, &[]).unwrap_err();
        assert!(!format!("{errors}{errors:?}").contains("topsecret"), "{broken}: {errors}");
    }
}

#[test]
fn only_the_syntax_errors_of_a_file_that_is_not_toml_are_reported() {
    let file = "[tokens]\naccess_ttl = 5m\n\n[public\nlisten = \"x\"\n";
    let errors = errors(file, &[("COUNTERSIGN_TOKENS__TYPE", "X")]);
    assert!(errors.iter().all(|error| error.setting.is_empty() || error.setting == "tokens.type"), "{errors:?}");
    assert!(errors[0].to_string().starts_with("cs.toml, line 2 is not TOML"), "{}", errors[0]);
    assert_eq!(errors.last().unwrap().setting, "tokens.type", "the environment is checked too");
}

#[test]
fn a_section_is_not_a_setting_but_may_be_empty() {
    assert!(load("[tokens]\n[public.tls]\n", &[]).is_ok());
    assert_eq!(errors("tokens = 5", &[])[0].problem, "is a section, not a setting");
    assert_eq!(errors("[tokenz]", &[])[0].problem, "is unknown");
    assert_eq!(errors("[issuer]\nname = \"x\"", &[])[0].setting, "issuer.name");
    assert_eq!(errors("", &[("COUNTERSIGN_ISSUER", "")])[0].setting, "issuer", "an empty variable is set");
}

#[test]
fn an_empty_variable_leaves_an_optional_setting_unset() {
    let names = [
        "TOKENS__DEFAULT_AUDIENCE",
        "PUBLIC__TLS__CERT",
        "PUBLIC__TLS__KEY",
        "GRPC__LISTEN",
        "PASSWORDS__THREADS",
        "MASTER_KEY",
        "MASTER_KEY_FILE",
        "MASTER_KEY_PREVIOUS",
    ];
    let names: Vec<String> = names.iter().map(|name| format!("COUNTERSIGN_{name}")).collect();
    let empty: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    let mut loaded = load("", &empty).unwrap();
    assert_eq!(loaded, load("", &[]).unwrap());
    let file = format!("master_key = \"{KEY}\"\n[grpc]\nlisten = \"127.0.0.1:7070\"\n");
    loaded = load(&file, &empty).unwrap();
    assert!(loaded.config.master_key.is_some() && loaded.config.grpc.listen.is_some(), "the values of the file apply");
    assert_eq!(errors("", &[("COUNTERSIGN_DATABASE__URL", "")])[0].setting, "database.url", "it has a default");
}

#[test]
fn json_output_contains_the_origin_of_each_setting() {
    let loaded = load("", &[("COUNTERSIGN_ISSUER", "https://auth.example.com")]).unwrap();
    let shown: serde_json::Value = serde_json::from_str(&loaded.render_json()).unwrap();
    assert_eq!(shown["settings"][0]["name"], "issuer");
    assert_eq!(shown["settings"][0]["origin"], "environment");
    assert_eq!(shown["settings"][0]["source"], "COUNTERSIGN_ISSUER");
    assert_eq!(shown["settings"].as_array().unwrap().len(), loaded.settings.len());
    assert_eq!(loaded.render_text().lines().count(), loaded.settings.len());
}

/// Fragments of TOML and of settings, so that the parser gets past the first character.
fn fragments() -> impl Strategy<Value = String> {
    let names: Vec<_> = all_others().map(|(name, _)| name.to_owned()).collect();
    let values: Vec<_> = all_others().map(|(_, value)| value.to_owned()).collect();
    let line = prop_oneof![
        (prop::sample::select(names.clone()), prop::sample::select(values)).prop_map(|(n, v)| format!("{n} = {v}\n")),
        (prop::sample::select(names), "\\PC{0,20}").prop_map(|(name, value)| format!("{name} = \"{value}\"\n")),
        "[\\[\\]a-z.={}\"'#,0-9 \n]{0,30}",
        any::<String>(),
    ];
    prop::collection::vec(line, 0..8).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn load_never_panics_on_any_file_or_environment(
        file in fragments(),
        names in prop::collection::vec("(COUNTERSIGN_)?[A-Z_a-zé]{0,20}", 0..4),
        known in prop::collection::vec(prop::sample::select(OTHERS.to_vec()), 0..4),
        value in "\\PC{0,40}",
    ) {
        let unknown = names.into_iter().map(|name| (name, value.clone()));
        let known = known.into_iter().map(|(name, _)| (environment::variable_name(name), value.clone()));
        let environment: Vec<_> = unknown.chain(known).collect();
        let inputs = Inputs { file: Some(("f", &file)), environment: &environment, read_secret_file: &no_file };
        match Config::load(&inputs) {
            Ok(loaded) => prop_assert!(!loaded.render_text().is_empty()),
            Err(errors) => prop_assert!(!errors.0.is_empty()),
        }
    }
}

#[test]
fn deeply_nested_and_long_files_are_rejected() {
    for file in
        ["a.".repeat(100_000), "[".repeat(100_000), format!("a = {}", "[".repeat(100_000)), "a={b=".repeat(50_000)]
    {
        assert!(load(&file, &[]).is_err());
    }
}
