//! The options of a client.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::CliError;
use super::workplace::read_text;
use crate::domain::{
    Algorithm, Audience, ClientSettings, FeedRight, Grant, Grants, IntrospectRight, ParseError, ScopeSet, TokenType,
};

/// A limit above the size of any accepted key set.
const LONGEST_JWKS: u64 = 64 * 1024;

/// Every option of `create` and `set`. An omitted option leaves its setting unchanged.
#[derive(Debug, Args)]
pub(super) struct ClientOptions {
    /// Display name
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// Ways to obtain tokens: client_credentials, refresh_token, password_login
    #[arg(long, value_name = "A,B", value_parser = grants)]
    grants: Option<Grants>,
    /// Resource server that the client represents, or that its tokens are for; repeat the option for several; an empty
    /// text removes all
    #[arg(long = "audience", value_name = "AUDIENCE")]
    audiences: Option<Vec<String>>,
    /// Scopes that it may request, separated by spaces
    #[arg(long, value_name = "\"A B\"", value_parser = ScopeSet::parse)]
    scopes: Option<ScopeSet>,
    /// Tokens that it may introspect: own (issued to it or for its audiences), any, none
    #[arg(long, value_name = "WHOSE", value_parser = IntrospectRight::parse)]
    introspect: Option<IntrospectRight>,
    /// The part of the revocation feed that it may read: none, revocations, edge
    #[arg(long, value_name = "WHAT", value_parser = FeedRight::parse)]
    feed: Option<FeedRight>,
    /// Lifetime of its access tokens, such as 5m, or `default`
    #[arg(long, value_name = "DURATION", value_parser = or_default(humantime::parse_duration))]
    access_ttl: Option<Choice<Duration>>,
    /// ES256, EdDSA, RS256, PS256, or `default`
    #[arg(long, value_name = "ALGORITHM", value_parser = or_default(Algorithm::parse))]
    algorithm: Option<Choice<Algorithm>>,
    /// `typ` of its access tokens: at+jwt, JWT, or `default`
    #[arg(long, value_name = "TYPE", value_parser = or_default(TokenType::parse))]
    token_type: Option<Choice<TokenType>>,
    /// File with its public keys (a JWK set) for private_key_jwt, instead of a secret; `-` is standard input, `none`
    /// removes them
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
}

/// A value for this client, or the service's default.
#[derive(Debug, Clone)]
struct Choice<T>(Option<T>);

impl ClientOptions {
    /// The settings with the given options applied.
    pub fn apply(&self, mut settings: ClientSettings) -> Result<ClientSettings, CliError> {
        if let Some(name) = &self.display_name {
            settings.display_name.clone_from(name);
        }
        if let Some(grants) = &self.grants {
            settings.grants = grants.clone();
        }
        if let Some(audiences) = &self.audiences {
            let named = audiences.iter().filter(|audience| !audience.is_empty()).map(|text| Audience::parse(text));
            let audiences = named.collect::<Result<_, _>>();
            settings.audiences = audiences.map_err(|error| CliError::Usage(format!("--audience: {error}")))?;
        }
        if let Some(scopes) = &self.scopes {
            settings.scopes = scopes.clone();
        }
        settings.introspect = self.introspect.unwrap_or(settings.introspect);
        settings.feed = self.feed.unwrap_or(settings.feed);
        settings.access_ttl = chosen(self.access_ttl.as_ref(), settings.access_ttl);
        settings.algorithm = chosen(self.algorithm.as_ref(), settings.algorithm);
        settings.token_type = chosen(self.token_type.as_ref(), settings.token_type);
        match &self.jwks {
            Some(path) if path.as_os_str() == "none" => settings.jwks = None,
            Some(path) => settings.jwks = Some(read_text(path, LONGEST_JWKS)?),
            None => {}
        }
        Ok(settings)
    }
}

fn chosen<T: Copy>(choice: Option<&Choice<T>>, otherwise: Option<T>) -> Option<T> {
    choice.map_or(otherwise, |choice| choice.0)
}

fn grants(text: &str) -> Result<Grants, ParseError> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(Grant::parse).collect::<Result<Vec<_>, _>>().map(Grants::new)
}

fn or_default<T, E>(parse: impl Fn(&str) -> Result<T, E> + Clone) -> impl Fn(&str) -> Result<Choice<T>, E> + Clone {
    move |text| if text == "default" { Ok(Choice(None)) } else { parse(text).map(|value| Choice(Some(value))) }
}
