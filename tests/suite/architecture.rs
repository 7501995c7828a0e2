//! Checks the structure of the code (ARCHITECTURE.md): the allowed imports of each module, and the modules that may use
//! each crate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The modules that each module may import. Modules that are not listed (`app`, `cli`, `main`, `lib`) may import all.
const MAY_IMPORT: [(&str, &[&str]); 12] = [
    ("domain", &[]),
    ("clock", &["domain"]),
    ("request_id", &[]),
    ("json", &[]),
    ("crypto", &["domain", "clock", "json"]),
    ("store", &["domain", "clock", "request_id"]),
    ("replica", &["domain", "clock", "crypto", "store"]),
    ("config", &["domain", "crypto"]),
    ("telemetry", &["domain", "clock", "config", "request_id"]),
    ("service", &["domain", "clock", "crypto", "store", "replica"]),
    ("http", &["domain", "clock", "config", "request_id", "telemetry", "service", "json"]),
    // An answer over gRPC has the content of a forward-auth answer.
    ("grpc", &["domain", "clock", "config", "telemetry", "service", "http"]),
];

/// Crates that only one module may name.
const ONLY_IN: [(&str, &[&str]); 11] = [
    ("jsonwebtoken", &["crypto"]),
    ("ring", &["crypto"]),
    ("argon2", &["crypto"]),
    ("bcrypt", &["crypto"]),
    ("scrypt", &["crypto"]),
    ("pbkdf2", &["crypto"]),
    ("sqlx", &["store"]),
    ("axum", &["http", "app", "grpc"]),
    ("tonic", &["grpc"]),
    ("tonic_prost", &["grpc"]),
    ("prost", &["grpc"]),
];

#[test]
fn modules_import_only_what_the_architecture_allows() {
    let rules: BTreeMap<&str, &[&str]> = MAY_IMPORT.into_iter().collect();
    let mut offences = Vec::new();
    for (path, room, code) in sources() {
        let Some(allowed) = rules.get(room.as_str()) else { continue };
        for imported in own_imports(&code) {
            if imported != room && !allowed.contains(&imported.as_str()) {
                offences.push(format!("{} imports crate::{imported}", path.display()));
            }
        }
    }
    assert!(offences.is_empty(), "{offences:#?}");
}

#[test]
fn crates_for_cryptography_and_databases_are_imported_by_one_module() {
    let mut offences = Vec::new();
    for (path, room, code) in sources() {
        for (name, rooms) in ONLY_IN {
            let is_named = code.lines().any(|line| names_crate(line, name));
            if is_named && !rooms.contains(&room.as_str()) {
                offences.push(format!("{} names the crate {name}", path.display()));
            }
        }
    }
    assert!(offences.is_empty(), "{offences:#?}");
}

#[test]
fn the_domain_uses_no_clock_no_wire_format_and_no_io() {
    for (path, room, code) in sources() {
        if room != "domain" {
            continue;
        }
        for forbidden in ["serde", "tokio", "std::fs", "std::net", "std::env", "SystemTime", "Instant"] {
            assert!(!code.contains(forbidden), "{} names {forbidden}", path.display());
        }
    }
}

#[test]
fn only_one_file_distinguishes_the_two_engines() {
    for (path, room, code) in sources() {
        if room == "store" && !path.ends_with("store/db.rs") && !path.starts_with(src().join("store/db")) {
            for engine in ["SqlitePool", "PgPool", "sqlx::Postgres", "sqlx::Sqlite"] {
                assert!(!code.contains(engine), "{} names {engine}", path.display());
            }
        }
    }
}

#[test]
fn both_engines_have_the_same_migrations() {
    let names = |engine: &str| -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(engine);
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert!(!names("sqlite").is_empty());
    assert_eq!(names("sqlite"), names("postgres"));
}

#[test]
fn c10_no_statement_selects_all_columns() {
    // A column that the next release adds would change the result of a `SELECT *` that was prepared before.
    for (path, room, code) in sources() {
        if room != "store" {
            continue;
        }
        let everything = code.match_indices('*').filter(|(at, _)| {
            let before = &code[..*at];
            ["SELECT ", "RETURNING ", "."].iter().any(|word| before.ends_with(word)) && !before.ends_with("head.")
        });
        let lines: Vec<_> =
            everything.map(|(at, _)| code[..at].lines().last().unwrap_or_default().to_owned()).collect();
        assert!(lines.is_empty(), "{}: {lines:#?}", path.display());
    }
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source file with its module and its code without comments and tests.
fn sources() -> Vec<(PathBuf, String, String)> {
    let mut files = Vec::new();
    collect(&src(), &mut files);
    assert!(files.len() > 20, "the sources were not found");
    files
        .into_iter()
        .map(|path| {
            let inside = path.strip_prefix(src()).unwrap();
            let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
            let room = first.trim_end_matches(".rs").to_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let code = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
            (path, room, code)
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The first segment of every `crate::…` path in the code.
fn own_imports(code: &str) -> Vec<String> {
    let mut rooms: Vec<String> = code
        .split("crate::")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .filter(|room: &String| !room.is_empty())
        .collect();
    rooms.sort();
    rooms.dedup();
    rooms
}

fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}
