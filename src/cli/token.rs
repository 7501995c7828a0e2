//! `countersign token`: shows a token's contents, and verifies it offline as a resource server does.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;
use url::Url;

use super::fetch::{self, Trust};
use super::output::print;
use super::secret_input::read_token;
use super::workplace::{self, read_text};
use super::{CliError, Common};
use crate::clock::{Clock, SystemClock};
use crate::crypto::{PublicKeySet, UnverifiedToken, looks_like_refresh_token, verify_access_token};

/// A limit above the size of any accepted key set.
const LONGEST_JWKS: u64 = 64 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Show header and claims; nothing is verified
    Decode {
        /// The file that holds the token [default: standard input, or a prompt]
        file: Option<PathBuf>,
    },
    /// Verify signature, issuer and times as a resource server does; only introspection checks revocation
    Verify {
        /// The file that holds the token [default: standard input, or a prompt]
        file: Option<PathBuf>,
        /// Required issuer of the token, whose keys are fetched [default: `issuer` of the configuration]
        #[arg(long, value_name = "URL")]
        issuer: Option<String>,
        /// Read the keys from this file instead of fetching them
        #[arg(long, value_name = "FILE")]
        jwks: Option<PathBuf>,
    },
}

pub(super) fn run(command: &TokenCommand, common: &Common) -> Result<(), CliError> {
    match command {
        TokenCommand::Decode { file } => decode(file.as_deref(), common),
        TokenCommand::Verify { file, issuer, jwks } => {
            verify(file.as_deref(), issuer.as_deref(), jwks.as_deref(), common)
        }
    }
}

fn decode(file: Option<&Path>, common: &Common) -> Result<(), CliError> {
    let token = read_token(file)?;
    if looks_like_refresh_token(&token) {
        return Err(CliError::failed("a refresh token says nothing to anyone but the service"));
    }
    let UnverifiedToken { header, claims } = UnverifiedToken::decode(&token).map_err(CliError::failed)?;
    common.output().answer(&json!({"header": header, "claims": claims}), || format!("{header:#}\n{claims:#}\n"))
}

fn verify(file: Option<&Path>, issuer: Option<&str>, jwks: Option<&Path>, common: &Common) -> Result<(), CliError> {
    let issuer = match issuer {
        Some(issuer) => issuer.to_owned(),
        None => workplace::load(common)?.config.issuer.as_str().to_owned(),
    };
    let token = read_token(file)?;
    let text = match jwks {
        Some(path) => read_text(path, LONGEST_JWKS)?,
        None => fetch_jwks(&issuer)?,
    };
    let keys = PublicKeySet::parse(&text).map_err(CliError::failed)?;
    let verified = match verify_access_token(&token, &keys, &issuer, SystemClock::default().now()) {
        Ok(verified) => verified,
        Err(refusal) => {
            if common.json {
                print(&format!("{}\n", json!({"valid": false, "reason": refusal.as_str()})))?;
            }
            return Err(CliError::about("the token is not valid", refusal));
        }
    };
    let UnverifiedToken { claims, .. } = UnverifiedToken::decode(&token).map_err(CliError::failed)?;
    let json = json!({
        "valid": true, "kid": verified.kid.as_str(), "token_type": verified.token_type.as_str(), "claims": claims,
    });
    common.output().answer(&json, || {
        let until = verified.claims.expires_at.rfc3339();
        format!("valid until {until}, signed with {}\n{claims:#}\n", verified.kid)
    })
}

/// Fetches the keys from the address that every verifier uses.
fn fetch_jwks(issuer: &str) -> Result<String, CliError> {
    let address = format!("{}/.well-known/jwks.json", issuer.trim_end_matches('/'));
    let url = Url::parse(&address).map_err(|error| CliError::Usage(format!("--issuer: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(CliError::Usage("--issuer: write a URL that begins with https:// or http://".to_owned()));
    }
    let answer = workplace::runtime()?.block_on(fetch::get(&url, Trust::WebRoots))?;
    if !answer.status.is_success() {
        return Err(CliError::about(&address, answer.status));
    }
    String::from_utf8(answer.body.into()).map_err(|_| CliError::about(&address, "the answer is not UTF-8"))
}
