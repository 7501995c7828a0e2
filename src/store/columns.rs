//! The columns that are read from each table.
//!
//! No statement uses `*`: the next release may add columns while this one still runs (security.md C10). A previously
//! prepared statement would then return more columns than its caller, the driver and PostgreSQL's plan expect.

/// Columns of `users`.
macro_rules! user_columns {
    () => {
        "users.id, users.username, users.password_hash, users.roles, users.epoch, users.disabled_at, users.created_at, \
         users.last_login_at"
    };
}

/// Columns of `sessions`.
macro_rules! session_columns {
    () => {
        "sessions.id, sessions.user_id, sessions.client_id, sessions.generation, sessions.authenticated_at, \
         sessions.created_at, sessions.rotated_at, sessions.idle_expires_at, sessions.absolute_expires_at, sessions.scope, \
         sessions.audience, sessions.methods, sessions.user_epoch, sessions.client_epoch, \
         sessions.installation_epoch, sessions.ended_at, sessions.end_reason, sessions.family_digest, \
         sessions.marked_generation, sessions.floor_generation, sessions.middle_generation, sessions.middle_at"
    };
}

/// The installation's epoch, as a subquery of another statement.
macro_rules! installation_epoch {
    () => {
        "(SELECT epoch FROM installation)"
    };
}

/// Columns of `clients`.
macro_rules! client_columns {
    () => {
        "clients.id, clients.kind, clients.display_name, clients.grants, clients.audiences, clients.scopes, \
         clients.introspect, clients.access_ttl_ms, clients.algorithm, clients.token_type, clients.jwks, clients.feed, \
         clients.epoch, clients.disabled_at, clients.created_at"
    };
}

/// Columns of `signing_keys`.
macro_rules! key_columns {
    () => {
        "kid, algorithm, sealed, public_jwk, announced_at, signs_from, retires_at, gone_at, withdrawn_at, created_at"
    };
}

/// Columns of `admin_keys`, except the digest.
macro_rules! admin_key_columns {
    () => {
        "id, name, created_at, expires_at, last_used_at"
    };
}

/// Columns of `login_attempts`.
macro_rules! attempt_columns {
    () => {
        "key, failures, window_started_at, last_failure_at, blocked_until, expires_at"
    };
}

/// The text of a user's or session's id, as an expression of PostgreSQL.
macro_rules! id_text {
    ($prefix:literal, $column:literal) => {
        concat!("'", $prefix, "' || translate(rtrim(encode(", $column, ", 'base64'), '='), '+/', '-_')")
    };
}

pub(super) use {
    admin_key_columns, attempt_columns, client_columns, id_text, installation_epoch, key_columns, session_columns,
    user_columns,
};
