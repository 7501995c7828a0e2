//! Builds the document from the annotations of the endpoints, and adds what they share.

use std::sync::OnceLock;

use http::StatusCode;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::server::{Server, ServerBuilder, ServerVariableBuilder};
use utoipa::openapi::{ObjectBuilder, OpenApi, RefOr, Required, Type};
use utoipa::{Modify, OpenApi as _};

use crate::http::{admin, health, oauth, openapi, v1, well_known};

/// The servers listed in a document.
#[derive(Debug, Clone, Copy)]
pub struct Servers<'a> {
    /// The issuer's path, empty or with a leading `/`. It is relative, because clients may use the name of a proxy.
    pub base_path: &'a str,
    /// `http` or `https`, of the operations listener.
    pub operations_scheme: &'a str,
    /// The port of the operations listener.
    pub operations_port: u16,
}

impl Servers<'static> {
    /// The servers of the default configuration.
    const DEFAULT: Self = Self { base_path: "", operations_scheme: "http", operations_port: 9090 };
}

impl Servers<'_> {
    fn public(&self) -> Server {
        let path = if self.base_path.is_empty() { "/" } else { self.base_path };
        ServerBuilder::new().url(path).description(Some("The public listener")).build()
    }

    /// The host is a variable, because the service does not know the listener's external address.
    fn operations(&self) -> Server {
        let variable = |value: &str| ServerVariableBuilder::new().default_value(value).build();
        ServerBuilder::new()
            .url(format!("{}://{{host}}:{{port}}", self.operations_scheme))
            .description(Some("The operations listener"))
            .parameter("host", variable("localhost"))
            .parameter("port", variable(&self.operations_port.to_string()))
            .build()
    }

    fn write_into(&self, document: &mut OpenApi) {
        document.servers = Some(vec![self.public()]);
        for (path, item) in &mut document.paths.paths {
            if path.starts_with("/admin/") || path == "/metrics" {
                item.servers = Some(vec![self.operations()]);
            } else if path == "/livez" || path == "/readyz" {
                item.servers = Some(vec![self.public(), self.operations()]);
            }
        }
    }
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Countersign",
        description = "Short-lived access tokens, rotating refresh tokens, and introspection from memory.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        v1::login::login, v1::refresh::refresh, v1::logout::logout,
        v1::me::me, v1::me::change_password, v1::me::sessions, v1::me::end_session, v1::me::end_all_sessions,
        v1::verify::verify, v1::introspect_batch::introspect_batch,
        v1::revocations::revocations, v1::revocations::events,
        oauth::token::token, oauth::introspect::introspect, oauth::revoke::revoke, oauth::authorize::authorize,
        well_known::jwks::jwks, well_known::metadata::oauth, well_known::metadata::openid,
        openapi::json, openapi::root, openapi::page, health::livez, health::readyz, health::metrics,
        admin::users::list, admin::users::create, admin::users::read, admin::users::change, admin::users::set_password,
        admin::users::delete, admin::users::import,
        admin::clients::list, admin::clients::create, admin::clients::read, admin::clients::change,
        admin::clients::new_secret, admin::clients::delete,
        admin::sessions::list, admin::sessions::end,
        admin::revocations::list, admin::revocations::revoke,
        admin::keys::list, admin::keys::rotate, admin::keys::withdraw, admin::keys::import,
        admin::audit::list, admin::status::status,
    ),
    tags(
        (name = "sessions", description = "Tokens for users"),
        (name = "account", description = "The account of the user"),
        (name = "oauth", description = "Tokens for clients (RFC 6749, RFC 7009)"),
        (name = "judging", description = "Is this token active? (RFC 7662, forward-auth)"),
        (name = "discovery", description = "Keys and metadata (RFC 7517, RFC 8414)"),
        (name = "operations", description = "Health and metrics"),
        (name = "administration", description = "Administration, on the operations listener"),
    ),
    components(schemas(crate::http::error::ProblemBody)),
    modifiers(&Shared)
)]
struct Document;

/// Adds what the annotations share.
struct Shared;

impl Modify for Shared {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        components.add_security_scheme("client", SecurityScheme::Http(Http::new(HttpAuthScheme::Basic)));
        // Some gateways append the path of the original request.
        if let Some(mut item) = document.paths.paths.get("/v1/verify").cloned() {
            for (_, operation) in operations(&mut item) {
                operation.parameters.get_or_insert_default().push(RefOr::T(suffix()));
            }
            document.paths.paths.insert("/v1/verify/{path}".to_owned(), item);
        }
        for (path, item) in &mut document.paths.paths {
            for (method, operation) in operations(item) {
                operation.operation_id = Some(operation_id(method, path));
                // An operation without credentials has an empty list, so that a generated client sends none.
                operation.security.get_or_insert_default();
                for (status, answer) in &mut operation.responses.responses {
                    if let RefOr::T(answer) = answer
                        && answer.description.is_empty()
                    {
                        answer.description = reason(status);
                    }
                }
            }
        }
    }
}

fn suffix() -> Parameter {
    ParameterBuilder::new()
        .name("path")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("Any path, slashes included; ignored"))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build()
}

/// `get_v1_me_sessions_sid` for `GET /v1/me/sessions/{sid}`.
fn operation_id(method: &str, path: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("_")
}

fn reason(status: &str) -> String {
    let status = status.parse::<StatusCode>().ok();
    status.and_then(|status| status.canonical_reason()).unwrap_or("An answer").to_owned()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    [
        ("get", &mut item.get),
        ("put", &mut item.put),
        ("post", &mut item.post),
        ("delete", &mut item.delete),
        ("options", &mut item.options),
        ("head", &mut item.head),
        ("patch", &mut item.patch),
        ("trace", &mut item.trace),
    ]
    .into_iter()
    .filter_map(|(method, operation)| operation.as_mut().map(|operation| (method, operation)))
}

/// The document with the default servers, as checked in.
pub fn document() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| document_of(&Servers::DEFAULT))
}

/// The document with `servers`.
pub fn document_of(servers: &Servers<'_>) -> String {
    let mut document = Document::openapi();
    servers.write_into(&mut document);
    document.to_pretty_json().unwrap_or_default() + "\n"
}
