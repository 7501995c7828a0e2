//! Clients as rows.

use std::time::Duration;

use crate::domain::{
    Algorithm, Audience, Client, ClientId, ClientKind, ClientSettings, FeedRight, Grant, Grants, IntrospectRight,
    ScopeSet, SecretDigest, StoredSecret, TokenType,
};
use crate::store::db::{Fields, Row, Value, values};
use crate::store::rows::{joined, words};
use crate::store::{Rows, StoreError};

/// Clients from rows of clients joined with their secrets. There is one row per secret, or one row without a secret.
/// The rows of each client are adjacent.
pub(super) fn collect(rows: &[Row]) -> Rows<Client, ClientId> {
    let mut clients: Rows<Client, ClientId> = Rows::default();
    for row in rows {
        let fields = row.of("clients", "id");
        let id = match fields.parsed("id", ClientId::parse) {
            Ok(id) => id,
            Err(error) => {
                clients.add(|| None, Err(error));
                continue;
            }
        };
        if clients.unreadable.last().is_some_and(|last| last.id.as_ref() == Some(&id)) {
            continue;
        }
        let first = match clients.readable.pop_if(|last| last.id == id) {
            Some(read) => Ok(read),
            None => client(&fields, id.clone()),
        };
        let with_secret = first.and_then(|mut client| {
            client.secrets.extend(secret(row)?);
            Ok(client)
        });
        clients.add(|| Some(id), with_secret);
    }
    clients
}

/// The rows of one client.
pub(super) fn collect_one(rows: &[Row]) -> Result<Option<Client>, StoreError> {
    let Rows { readable, unreadable } = collect(rows);
    match unreadable.into_iter().next() {
        Some(row) => Err(row.error),
        None => Ok(readable.into_iter().next()),
    }
}

/// The operator's settings, in the order of the columns from `kind` to `feed`.
pub(super) fn settings_values(settings: &ClientSettings) -> Vec<Value> {
    let access_ttl = settings.access_ttl.map(|ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
    values![
        settings.kind.as_str(),
        settings.display_name.as_str(),
        joined(settings.grants.iter().map(Grant::as_str)),
        joined(&settings.audiences),
        settings.scopes.to_string(),
        settings.introspect.as_str(),
        access_ttl,
        settings.algorithm.map(Algorithm::as_str),
        settings.token_type.map(TokenType::as_str),
        settings.jwks.clone(),
        settings.feed.as_str(),
    ]
}

fn client(row: &Fields<'_>, id: ClientId) -> Result<Client, StoreError> {
    Ok(Client {
        id,
        settings: ClientSettings {
            kind: row.parsed("kind", ClientKind::parse)?,
            display_name: row.text("display_name")?,
            grants: Grants::new(words(row, "grants", Grant::parse)?),
            audiences: words(row, "audiences", Audience::parse)?,
            scopes: row.parsed("scopes", ScopeSet::parse)?,
            introspect: row.parsed("introspect", IntrospectRight::parse)?,
            access_ttl: access_ttl(row)?,
            algorithm: optional(row, "algorithm", Algorithm::parse)?,
            token_type: optional(row, "token_type", TokenType::parse)?,
            jwks: row.opt_text("jwks")?,
            feed: row.parsed("feed", FeedRight::parse)?,
        },
        secrets: Vec::new(),
        epoch: row.count("epoch")?,
        disabled: row.opt_time("disabled_at")?.is_some(),
        created_at: row.time("created_at")?,
    })
}

fn access_ttl(row: &Fields<'_>) -> Result<Option<Duration>, StoreError> {
    let millis = row.opt_int("access_ttl_ms")?.map(u64::try_from).transpose();
    millis.map(|millis| millis.map(Duration::from_millis)).map_err(|_| row.corrupt("access_ttl_ms", "is negative"))
}

fn optional<T, E>(
    row: &Fields<'_>,
    column: &'static str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, StoreError> {
    let parsed = row.opt_text(column)?.as_deref().map(parse).transpose();
    parsed.map_err(|_| row.corrupt(column, "is not a value of its kind"))
}

fn secret(row: &Row) -> Result<Option<StoredSecret>, StoreError> {
    let row = row.of("client_secrets", "id");
    let Some(digest) = row.opt_bytes("digest")? else { return Ok(None) };
    let digest = digest.try_into().map_err(|_| row.corrupt("digest", "has the wrong length"))?;
    Ok(Some(StoredSecret { digest: SecretDigest(digest), expires_at: row.opt_time("secret_expires_at")? }))
}
