//! `countersign revoke`: makes tokens and sessions inactive on every replica, within the bound.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::confirmation::{Confirmation, counted};
use super::operator::operator;
use super::workplace::on_database;
use super::{CliError, Common, clients, secret_input, users};
use crate::app::{Core, Creation};
use crate::crypto::looks_like_refresh_token;
use crate::domain::{Jti, SessionId};
use crate::service::{Target, Verdict};

#[derive(Debug, Args)]
#[group(required = true, multiple = false, args = ["user", "client", "session", "jti", "token", "token_file", "everything"])]
pub(super) struct RevokeArgs {
    /// All current tokens and sessions of a user, by name or id
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// All current tokens and sessions of a client
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// A session, with its refresh token and access tokens
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// One access token, by its id
    #[arg(long, value_name = "JTI", allow_hyphen_values = true)]
    jti: Option<String>,
    /// A token, read from a prompt or standard input: an access token, or a refresh token with its session
    #[arg(long)]
    token: bool,
    /// A token, read from a file
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// All tokens and sessions issued so far; for use after a restore from a backup
    #[arg(long)]
    everything: bool,
    #[command(flatten)]
    confirmation: Confirmation,
}

pub(super) fn run(args: RevokeArgs, common: &Common) -> Result<(), CliError> {
    let token = match (args.token, &args.token_file) {
        (false, None) => None,
        (_, file) => Some(secret_input::read_token(file.as_deref())?),
    };
    let jti = parsed(args.jti.as_deref(), Jti::parse)?;
    let session = parsed(args.session.as_deref(), SessionId::parse)?;
    on_database(common, Creation::Forbidden, async |core| {
        if args.everything {
            let sessions = core.service.sessions.count_sessions(None, None).await.map_err(CliError::failed)?;
            let ended = counted(sessions, "session", "sessions");
            args.confirmation
                .ask(&format!("This ends {ended} and makes every token of every user and client inactive."))?;
            let revoked = core.service.revocations.revoke_everything(&operator()).await;
            revoked.map_err(CliError::failed)?;
            return print_summary(
                &json!({"everything": true, "sessions": sessions}),
                "everything that was issued so far",
                common,
            );
        }
        if let Some(token) = token {
            return revoke_token(core, &token, common).await;
        }
        if let Some(text) = &args.user {
            let user = users::find(core, text).await?;
            let json = json!({"user": user.id.to_string()});
            let what = format!("every token and session of {} ({})", user.username, user.id);
            return revoke(core, Target::User(user.id), &json, &what, common).await;
        }
        if let Some(text) = &args.client {
            let client = clients::find(core, &clients::client_id(text)?)?;
            let what = format!("every token and session of {}", client.id);
            let json = json!({"client": client.id.as_str()});
            return revoke(core, Target::Client(client.id), &json, &what, common).await;
        }
        match (jti, session) {
            (Some(jti), _) => revoke_jti(core, jti, common).await,
            (None, Some(session)) => revoke_session(core, session, common).await,
            (None, None) => Err(CliError::Usage("say what to revoke".to_owned())),
        }
    })
}

fn parsed<T, E: std::fmt::Display>(
    text: Option<&str>,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, CliError> {
    text.map(parse).transpose().map_err(|error| CliError::Usage(error.to_string()))
}

/// Revokes a refresh token's session, or a single access token.
async fn revoke_token(core: &Core, token: &str, common: &Common) -> Result<(), CliError> {
    if looks_like_refresh_token(token) {
        let session = core.service.revocations.session_of(token).ok_or_else(|| {
            CliError::failed("this refresh token was not made by this installation, or under another master key")
        })?;
        return revoke_session(core, session, common).await;
    }
    match core.service.judge.judge(token).await.verdict {
        Verdict::Active(token) => revoke_jti(core, token.claims.jti.clone(), common).await,
        Verdict::Inactive(reason) => Err(CliError::failed(format!("the token is not active anyway: {reason}"))),
        Verdict::Unavailable(reason) => Err(CliError::failed(format!("the token cannot be judged now: {reason}"))),
    }
}

async fn revoke_jti(core: &Core, jti: Jti, common: &Common) -> Result<(), CliError> {
    let (json, what) = (json!({"jti": jti.as_str()}), format!("the token {jti}"));
    revoke(core, Target::Jti(jti), &json, &what, common).await
}

async fn revoke_session(core: &Core, session: SessionId, common: &Common) -> Result<(), CliError> {
    let (json, what) = (json!({"session": session.to_string()}), format!("the session {session}"));
    revoke(core, Target::Session(session), &json, &what, common).await
}

async fn revoke(core: &Core, target: Target, json: &Value, what: &str, common: &Common) -> Result<(), CliError> {
    if core.service.revocations.revoke(target, &operator()).await.map_err(CliError::failed)? {
        print_summary(json, what, common)
    } else {
        Err(CliError::failed(format!("{what}: not found")))
    }
}

fn print_summary(json: &Value, what: &str, common: &Common) -> Result<(), CliError> {
    common.output().answer(&json!({"revoked": json}), || format!("revoked {what}\n"))
}
