//! `/admin/v1/clients`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Administrator;
use crate::domain::{
    Algorithm, Audience, Client, ClientId, ClientKind, ClientSettings, FeedRight, Grant, Grants, IntrospectRight,
    ScopeSet, StoredSecret, Timestamp, TokenType,
};
use crate::http::JsonBody;
use crate::http::error::{AdminProblems, ApiError, BodyProblems, ProblemBody, ProblemCode};
use crate::http::extract::{Json, OptionalJson, PathSegment, QueryParams};
use crate::http::page;
use crate::http::state::Shared;
use crate::service::ClientError;

/// Default and maximum number of clients on a page.
const PAGE: (u32, u32) = (100, 500);
/// Default time for which previous secrets stay valid.
const DEFAULT_GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// Maximum time for which previous secrets stay valid.
const LONGEST_GRACE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// A client as shown to administrators.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ClientItem {
    client_id: String,
    /// `confidential` or `public`.
    r#type: &'static str,
    display_name: String,
    grants: Vec<&'static str>,
    audiences: Vec<String>,
    scopes: String,
    /// `own`, `any` or `none`.
    introspect: &'static str,
    /// `none`, `revocations` or `edge`.
    feed: &'static str,
    /// Lifetime of access tokens in seconds; `null` for the service's default.
    access_ttl: Option<u64>,
    algorithm: Option<&'static str>,
    token_type: Option<&'static str>,
    /// Public keys for `private_key_jwt`.
    jwks: Option<serde_json::Value>,
    enabled: bool,
    epoch: u32,
    /// Number of secrets that are valid now.
    secrets: usize,
    created_at: String,
}

impl ClientItem {
    /// The client at `now`; expired secrets are not counted.
    pub fn new(client: &Client, now: Timestamp) -> Self {
        let settings = &client.settings;
        let is_accepted = |secret: &&StoredSecret| secret.expires_at.is_none_or(|end| now < end);
        Self {
            client_id: client.id.to_string(),
            r#type: settings.kind.as_str(),
            display_name: settings.display_name.clone(),
            grants: settings.grants.iter().map(Grant::as_str).collect(),
            audiences: settings.audiences.iter().map(ToString::to_string).collect(),
            scopes: settings.scopes.to_string(),
            introspect: settings.introspect.as_str(),
            feed: settings.feed.as_str(),
            access_ttl: settings.access_ttl.map(|ttl| ttl.as_secs()),
            algorithm: settings.algorithm.map(Algorithm::as_str),
            token_type: settings.token_type.map(TokenType::as_str),
            jwks: settings.jwks.as_deref().and_then(|text| serde_json::from_str(text).ok()),
            enabled: !client.disabled,
            epoch: client.epoch,
            secrets: client.secrets.iter().filter(is_accepted).count(),
            created_at: client.created_at.rfc3339(),
        }
    }
}

/// A page of clients.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ClientList {
    /// Clients, ordered by id.
    clients: Vec<ClientItem>,
    /// The `cursor` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Settings of a client. An omitted field keeps its value, or gets its default. `null` selects the service's default,
/// or removes the value.
#[derive(Deserialize, utoipa::ToSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub struct ClientFields {
    /// Only for a new client.
    client_id: Option<String>,
    /// `confidential` or `public`; only for a new client.
    r#type: Option<String>,
    display_name: Option<String>,
    /// Any of `client_credentials`, `refresh_token`, `password_login`.
    grants: Option<Vec<String>>,
    audiences: Option<Vec<String>>,
    /// Scopes, separated by spaces.
    scopes: Option<String>,
    /// `own`, `any` or `none`.
    introspect: Option<String>,
    /// The part of the revocation feed that the client may read: `none`, `revocations` or `edge`.
    feed: Option<String>,
    /// Lifetime of access tokens in seconds, 30 to 3600; `null` or `"default"` for the service's default.
    #[serde(deserialize_with = "crate::json::present")]
    #[schema(value_type = Option<AccessTtl>)]
    access_ttl: Option<Option<AccessTtl>>,
    /// `ES256`, `EdDSA`, `RS256` or `PS256`; `null` or `default` for the service's default.
    #[serde(deserialize_with = "crate::json::present")]
    #[schema(value_type = Option<String>)]
    algorithm: Option<Option<String>>,
    /// `at+jwt` or `JWT`; `null` or `default` for the service's default.
    #[serde(deserialize_with = "crate::json::present")]
    #[schema(value_type = Option<String>)]
    token_type: Option<Option<String>>,
    /// Public keys for `private_key_jwt` (RFC 7517 §5).
    #[serde(deserialize_with = "crate::json::present")]
    #[schema(value_type = Option<Object>)]
    jwks: Option<Option<serde_json::Value>>,
    enabled: Option<bool>,
}

/// Name of the service's default, as on the command line.
const DEFAULT: &str = "default";

/// Lifetime of access tokens.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum AccessTtl {
    /// Seconds, 30 to 3600.
    Seconds(u64),
    /// The service's default.
    Word(AccessTtlWord),
}

/// Keyword for a lifetime of access tokens.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessTtlWord {
    /// The service's default.
    Default,
}

impl AccessTtl {
    /// The lifetime set for the client; `None` for the service's default.
    const fn own(self) -> Option<Duration> {
        match self {
            Self::Seconds(seconds) => Some(Duration::from_secs(seconds)),
            Self::Word(AccessTtlWord::Default) => None,
        }
    }
}

/// A client and its secret. The secret is shown only once.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ClientWithSecret {
    #[serde(flatten)]
    client: ClientItem,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<String>,
}

/// Options for a new secret.
#[derive(Deserialize, utoipa::ToSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub struct NewSecretRequest {
    /// Seconds for which previous secrets stay valid. Default: one day; 0 expires them at once.
    grace: Option<u64>,
}

/// A new secret. It is shown only once.
#[derive(Serialize, utoipa::ToSchema)]
pub struct NewSecretAnswer {
    client_id: String,
    client_secret: String,
    /// Expiry of the previous secrets (RFC 3339).
    former_secrets_expire_at: String,
}

/// Lists clients, ordered by id.
#[utoipa::path(
    get, path = "/admin/v1/clients", tag = "administration",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "Clients on a page"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page"),
    ),
    responses((status = 200, body = ClientList), AdminProblems),
    security(("bearer" = []))
)]
pub async fn list(
    State(shared): State<Arc<Shared>>,
    _: Administrator,
    QueryParams(query): QueryParams,
) -> Result<JsonBody<ClientList>, ApiError> {
    let query = query.only(&["limit", "cursor"])?;
    let after = page::cursor(&query, ClientId::parse)?;
    let (clients, next) = shared.service.clients.clients_after(after.as_ref(), page::limit(&query, PAGE)?);
    let now = shared.service.status.now();
    let clients = clients.iter().map(|client| ClientItem::new(client, now)).collect();
    Ok(JsonBody(ClientList { clients, next_cursor: next.map(|id| id.to_string()) }))
}

/// Creates a client.
#[utoipa::path(
    post, path = "/admin/v1/clients", tag = "administration", request_body = ClientFields,
    responses((status = 201, body = ClientWithSecret), (status = 409, description = "The id is in use", body = ProblemBody, content_type = "application/problem+json"), AdminProblems, BodyProblems),
    security(("bearer" = []))
)]
pub async fn create(
    State(shared): State<Arc<Shared>>,
    Administrator(from): Administrator,
    Json(request): Json<ClientFields>,
) -> Result<(StatusCode, JsonBody<ClientWithSecret>), ApiError> {
    let (Some(id), Some(kind)) = (&request.client_id, &request.r#type) else {
        return Err(ApiError::new(ProblemCode::InvalidRequest).detail("A new client needs `client_id` and `type`."));
    };
    let id = ClientId::parse(id).map_err(|error| ApiError::unparsable("client_id", &error))?;
    let kind = ClientKind::parse(kind).map_err(|error| ApiError::unparsable("type", &error))?;
    let settings = request.apply(ClientSettings::new(kind))?;
    let enabled = request.enabled.unwrap_or(true);
    let (client, secret) = shared.service.clients.create_client(id, settings, enabled, &from).await?;
    let client_secret = secret.map(|secret| secret.0.expose().to_owned());
    Ok((
        StatusCode::CREATED,
        JsonBody(ClientWithSecret { client: ClientItem::new(&client, shared.service.status.now()), client_secret }),
    ))
}

/// Shows a client.
#[utoipa::path(
    get, path = "/admin/v1/clients/{client_id}", tag = "administration",
    params(("client_id" = String, Path)),
    responses((status = 200, body = ClientItem), (status = 404, body = ProblemBody, content_type = "application/problem+json"), AdminProblems),
    security(("bearer" = []))
)]
pub async fn read(
    State(shared): State<Arc<Shared>>,
    _: Administrator,
    PathSegment(id): PathSegment,
) -> Result<JsonBody<ClientItem>, ApiError> {
    let client = shared.service.clients.client(&client_id(&id)?).ok_or(ProblemCode::NotFound)?;
    Ok(JsonBody(ClientItem::new(&client, shared.service.status.now())))
}

/// Changes a client.
#[utoipa::path(
    patch, path = "/admin/v1/clients/{client_id}", tag = "administration", request_body = ClientFields,
    params(("client_id" = String, Path)),
    responses((status = 200, body = ClientItem), (status = 404, body = ProblemBody, content_type = "application/problem+json"), AdminProblems, BodyProblems),
    security(("bearer" = []))
)]
pub async fn change(
    State(shared): State<Arc<Shared>>,
    Administrator(from): Administrator,
    PathSegment(id): PathSegment,
    Json(request): Json<ClientFields>,
) -> Result<JsonBody<ClientItem>, ApiError> {
    if request.client_id.is_some() || request.r#type.is_some() {
        return Err(
            ApiError::new(ProblemCode::InvalidRequest).detail("`client_id` and `type` of a client cannot be changed.")
        );
    }
    let id = client_id(&id)?;
    let edit = |settings| request.apply(settings);
    let client = shared.service.clients.change_client(&id, edit, request.enabled, &from).await?;
    Ok(JsonBody(ClientItem::new(&client, shared.service.status.now())))
}

/// Creates a new secret of a client. Previous secrets stay valid for `grace`.
#[utoipa::path(
    post, path = "/admin/v1/clients/{client_id}/secret", tag = "administration", request_body = Option<NewSecretRequest>,
    params(("client_id" = String, Path)),
    responses((status = 201, body = NewSecretAnswer), (status = 404, body = ProblemBody, content_type = "application/problem+json"), AdminProblems, BodyProblems),
    security(("bearer" = []))
)]
pub async fn new_secret(
    State(shared): State<Arc<Shared>>,
    Administrator(from): Administrator,
    PathSegment(id): PathSegment,
    OptionalJson(request): OptionalJson<NewSecretRequest>,
) -> Result<(StatusCode, JsonBody<NewSecretAnswer>), ApiError> {
    let grace = request.unwrap_or_default().grace.map_or(DEFAULT_GRACE, Duration::from_secs);
    if grace > LONGEST_GRACE {
        return Err(ApiError::invalid_field("grace", "may be at most 90 days (7776000 seconds)"));
    }
    let id = client_id(&id)?;
    let (secret, until) = shared.service.clients.new_client_secret(&id, grace, &from).await?;
    let answer = NewSecretAnswer {
        client_id: id.to_string(),
        client_secret: secret.0.expose().to_owned(),
        former_secrets_expire_at: until.rfc3339(),
    };
    Ok((StatusCode::CREATED, JsonBody(answer)))
}

/// Deletes a client and its sessions.
#[utoipa::path(
    delete, path = "/admin/v1/clients/{client_id}", tag = "administration",
    params(("client_id" = String, Path)),
    responses((status = 204, description = "Deleted"), (status = 409, description = "The built-in client cannot be deleted; disable it instead", body = ProblemBody, content_type = "application/problem+json"), (status = 404, body = ProblemBody, content_type = "application/problem+json"), AdminProblems),
    security(("bearer" = []))
)]
pub async fn delete(
    State(shared): State<Arc<Shared>>,
    Administrator(from): Administrator,
    PathSegment(id): PathSegment,
) -> Result<StatusCode, ApiError> {
    ApiError::no_content(shared.service.clients.delete_client(&client_id(&id)?, &from).await?)
}

impl ClientFields {
    /// Applies the given fields to `settings`.
    fn apply(&self, mut settings: ClientSettings) -> Result<ClientSettings, ApiError> {
        if let Some(name) = &self.display_name {
            settings.display_name.clone_from(name);
        }
        if let Some(grants) = &self.grants {
            settings.grants = Grants::new(each("grants", grants, Grant::parse)?);
        }
        if let Some(audiences) = &self.audiences {
            settings.audiences = each("audiences", audiences, Audience::parse)?;
        }
        if let Some(scopes) = &self.scopes {
            settings.scopes = ScopeSet::parse(scopes).map_err(|error| ApiError::unparsable("scopes", &error))?;
        }
        if let Some(right) = &self.introspect {
            settings.introspect =
                IntrospectRight::parse(right).map_err(|error| ApiError::unparsable("introspect", &error))?;
        }
        if let Some(right) = &self.feed {
            settings.feed = FeedRight::parse(right).map_err(|error| ApiError::unparsable("feed", &error))?;
        }
        if let Some(seconds) = self.access_ttl {
            settings.access_ttl = seconds.and_then(AccessTtl::own);
        }
        if let Some(algorithm) = &self.algorithm {
            let algorithm = own(algorithm).map(Algorithm::parse).transpose();
            settings.algorithm = algorithm.map_err(|error| ApiError::unparsable("algorithm", &error))?;
        }
        if let Some(token_type) = &self.token_type {
            let token_type = own(token_type).map(TokenType::parse).transpose();
            settings.token_type = token_type.map_err(|error| ApiError::unparsable("token_type", &error))?;
        }
        if let Some(jwks) = &self.jwks {
            settings.jwks = jwks.as_ref().map(ToString::to_string);
        }
        Ok(settings)
    }
}

/// A value set for the client; `None` for the service's default.
fn own(choice: &Option<String>) -> Option<&str> {
    choice.as_deref().filter(|text| *text != DEFAULT)
}

fn each<T>(
    field: &'static str,
    texts: &[String],
    parse: fn(&str) -> Result<T, crate::domain::ParseError>,
) -> Result<Vec<T>, ApiError> {
    let parse = |(index, text): (usize, &String)| {
        parse(text).map_err(|error| ApiError::unparsable(format!("{field}[{index}]"), &error))
    };
    texts.iter().enumerate().map(parse).collect()
}

fn client_id(text: &str) -> Result<ClientId, ApiError> {
    ClientId::parse(text).map_err(|_| ProblemCode::NotFound.into())
}

impl From<ClientError> for ApiError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Taken => Self::new(ProblemCode::Conflict).detail("A client with this id exists already."),
            ClientError::BuiltIn => Self::new(ProblemCode::Conflict).detail(
                "The built-in client cannot be deleted, because logins without a client use it. Disable it instead.",
            ),
            ClientError::Unknown => Self::new(ProblemCode::NotFound),
            ClientError::Invalid { field, problem } => Self::invalid_field(field, problem),
            ClientError::Jwks(error) => Self::invalid_field("jwks", error.to_string()),
            ClientError::Failed(failure) => failure.into(),
        }
    }
}
