//! `GET /v1/revocations` and `GET /v1/revocations/events`: the revocation feed for those who verify tokens offline.
//! The terms full query, diff query and cursor are those of RFC 9770.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::{Audience, StoredSecret, Timestamp};
use crate::http::caller;
use crate::http::error::{ApiError, FeedProblems, ProblemCode};
use crate::http::extract::QueryParams;
use crate::http::listener::Streamed;
use crate::http::middleware::{self, RequestContext, RequestFacts};
use crate::http::state::Shared;
use crate::service::{Caller, FeedError, FeedItem, Fresh, FullRead, Part, PublicCursor, Reader};
use crate::telemetry::metrics::FeedItemType;

/// Maximum length of a cursor in bytes. It names the transactions that were open, a few bytes for each.
const MAX_CURSOR: usize = 4096;

/// The longest `wait` in seconds.
const MAX_WAIT: u64 = 25;

/// An answer of the feed.
#[derive(Serialize, utoipa::ToSchema)]
pub struct RevocationFeed<'a> {
    /// The reader's position after this answer, for the next query, on any replica.
    cursor: String,
    /// Everything committed up to this many milliseconds after the request was sent is in the answer, by the reader's
    /// stopwatch. Usually negative.
    covered_ms: i64,
    /// Whether the items are all that are live. The reader then forgets what it had.
    full: bool,
    items: Vec<RevocationItem<'a>>,
}

/// One item. Applying an item twice, or an older one after a newer one, changes nothing.
#[derive(Serialize, utoipa::ToSchema)]
pub struct RevocationItem<'a> {
    /// The issuer of the tokens that the item concerns.
    iss: &'a str,
    #[serde(flatten)]
    kind: ItemKind<'a>,
}

/// The types of items. `exp` is when the reader may forget the item (seconds since 1970).
#[derive(Serialize, utoipa::ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ItemKind<'a> {
    /// Makes one token inactive.
    Token {
        /// The first 16 bytes of SHA-256 of the `jti`, in base64url.
        id: String,
        exp: i64,
    },
    /// Makes the tokens of a session inactive.
    Session { sid: String, exp: i64 },
    /// Makes the user's tokens with a lower epoch (`uep`) inactive.
    Subject { sub: String, epoch: u32, exp: i64 },
    /// Makes the client's tokens with a lower epoch (`cep`) inactive, or all of them. The higher version wins.
    Client {
        client_id: String,
        epoch: u32,
        /// `active`, `disabled`, `deleted`, or `unknown` while the service cannot read the client.
        state: &'static str,
        version: i64,
    },
    /// Makes every token inactive that this key signed.
    Key { kid: String, exp: i64 },
    /// Makes every token of the installation with a lower epoch (`iep`) inactive.
    All { epoch: u32, exp: i64 },
    /// Makes nothing inactive: the JWKS changed.
    Keys {},
    /// Makes nothing inactive: authenticates a caller of introspection. Only for readers with the right `edge`.
    Caller {
        client_id: String,
        /// `own`, `any` or `none`.
        introspect: &'static str,
        audiences: Vec<&'a str>,
        secrets: Vec<SecretItem>,
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<Object>)]
        jwks: Option<&'a RawValue>,
        version: i64,
    },
}

/// A secret of a caller.
#[derive(Serialize, utoipa::ToSchema)]
struct SecretItem {
    /// SHA-256 of the secret, which has 256 random bits, in base64url.
    digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
}

/// Answers everything that is revoked, or with `cursor` what the reader lacks.
#[utoipa::path(
    get, path = "/v1/revocations", tag = "judging",
    params(
        ("cursor" = Option<String>, Query, description = "The position of the last answer. Without it, the answer is full"),
        ("wait" = Option<u64>, Query, description = "With `cursor`: wait up to this many seconds, 25 at most, for an item")
    ),
    responses(
        (status = 200, description = "Items, and how fresh they are", body = RevocationFeed,
         headers(("etag" = String, description = "The cursor"))),
        FeedProblems,
    ),
    security(("client" = []))
)]
pub async fn revocations(
    State(shared): State<Arc<Shared>>,
    context: RequestContext,
    QueryParams(query): QueryParams,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (caller, mut reader) = admit(&shared, &headers, context.client.ip()).await?;
    let query = query.only(&["cursor", "wait"])?;
    let since = cursor_of(query.optional("cursor", MAX_CURSOR)?)?;
    let wait = wait_of(query.optional("wait", 8)?)?.min(shared.settings.longest_wait);
    let answer = match since {
        Some(since) => diff(&shared, &mut reader, &since, wait).await,
        None => None,
    };
    let mut response = answer.unwrap_or_else(|| full(&shared, reader));
    response.extensions_mut().insert(facts(&caller));
    Ok(response)
}

/// Streams the feed as server-sent events: `item`, `full`, `full-end` and `fresh`.
#[utoipa::path(
    get, path = "/v1/revocations/events", tag = "judging",
    params(("last-event-id" = Option<String>, Header, description = "A cursor. Without it, or if the replica cannot continue it, the stream begins with everything")),
    responses(
        (status = 200, description = "Events. `item`: an item of `GET /v1/revocations`. `full`: everything follows, until `full-end`; keep judging with what you had until then. \
                                      `fresh`: `{\"cursor\", \"covered_ms\"}`, at least every 500 ms. The stream ends after about five minutes; continue with the last cursor, on any replica",
         body = String, content_type = "text/event-stream"),
        FeedProblems,
    ),
    security(("client" = []))
)]
pub async fn events(
    State(shared): State<Arc<Shared>>,
    context: RequestContext,
    QueryParams(query): QueryParams,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (caller, reader) = admit(&shared, &headers, context.client.ip()).await?;
    query.only(&[])?;
    if headers.get_all(&LAST_EVENT_ID).iter().count() > 1 {
        return Err(ApiError::invalid_field("last-event-id", "is given twice"));
    }
    let since = match headers.get(&LAST_EVENT_ID).map(|value| value.to_str().unwrap_or("?")) {
        Some(text) if text.len() > MAX_CURSOR => return Err(ApiError::invalid_field("last-event-id", "is too long")),
        text => cursor_of(text.filter(|text| !text.is_empty()))
            .map_err(|_| ApiError::invalid_field("last-event-id", "is not a cursor of this feed"))?,
    };
    let following = shared.service.feed.follow(reader, since.as_ref());
    let chunks = stream::unfold((shared, following), |(shared, mut following)| async move {
        let parts = shared.service.feed.next(&mut following).await?;
        let mut text = String::new();
        for part in &parts {
            write_event(&shared, part, &mut text);
        }
        Some((Ok::<_, Infallible>(Bytes::from(text)), (shared, following)))
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        // nginx forwards the events at once.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    let mut response = (headers, Body::from_stream(chunks)).into_response();
    response.extensions_mut().insert(Streamed);
    response.extensions_mut().insert(facts(&caller));
    Ok(response)
}

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

async fn admit(shared: &Shared, headers: &HeaderMap, address: IpAddr) -> Result<(Caller, Reader), ApiError> {
    let caller = caller::of_rest(shared, headers, address, None).await?;
    if !caller.authenticated {
        return Err(ApiError::new(ProblemCode::InvalidClient));
    }
    match shared.service.feed.admit(&caller) {
        Ok(reader) => Ok((caller, reader)),
        Err(FeedError::NotAllowed) => Err(ApiError::new(ProblemCode::UnauthorizedClient)
            .detail("The client may not read the revocation feed: its setting `feed` is `none`.")),
        Err(error @ FeedError::TooManyReaders) => Err(ApiError::new(ProblemCode::Busy).because(error)),
        Err(error @ FeedError::Unavailable(_)) => {
            Err(ApiError::new(ProblemCode::TemporarilyUnavailable).because(error))
        }
    }
}

fn facts(caller: &Caller) -> RequestFacts {
    RequestFacts { caller: Some(middleware::Principal::Client(Arc::clone(&caller.client))), ..RequestFacts::default() }
}

fn cursor_of(text: Option<&str>) -> Result<Option<PublicCursor>, ApiError> {
    let parse =
        |text| PublicCursor::parse(text).ok_or(ApiError::invalid_field("cursor", "is not a cursor of this feed"));
    text.map(parse).transpose()
}

fn wait_of(text: Option<&str>) -> Result<Duration, ApiError> {
    let Some(text) = text else { return Ok(Duration::ZERO) };
    let seconds = text.parse().ok().filter(|seconds| *seconds <= MAX_WAIT).map(Duration::from_secs);
    seconds.ok_or_else(|| ApiError::invalid_field("wait", format!("must be a number of seconds from 0 to {MAX_WAIT}")))
}

/// The answer to a diff query; `None` if the replica cannot tell what the reader lacks.
async fn diff(shared: &Shared, reader: &mut Reader, since: &PublicCursor, wait: Duration) -> Option<Response> {
    let began_at = shared.clock.elapsed();
    loop {
        let (items, fresh) = shared.service.feed.diff(reader, since)?;
        let rest = (began_at + wait).saturating_sub(shared.clock.elapsed());
        if !items.is_empty() || rest.is_zero() || !shared.service.feed.may_wait(reader) {
            let mut body = head_of(&fresh, false);
            write_items(shared, &items, true, &mut body);
            body.push_str("]}");
            return Some((json_headers(&fresh), body).into_response());
        }
        shared.service.feed.wait(reader, rest).await;
    }
}

/// Everything, written in parts.
fn full(shared: &Arc<Shared>, reader: Reader) -> Response {
    let Some(full) = shared.service.feed.full(&reader) else {
        let error = ApiError::new(ProblemCode::TemporarilyUnavailable);
        return error.because("the revocations are not loaded yet").into_response();
    };
    let headers = json_headers(&full.fresh);
    let head = stream::once(std::future::ready(Ok(Bytes::from(head_of(&full.fresh, true)))));
    let state = Full { shared: Arc::clone(shared), reader, read: Some(full), is_first: true };
    let rest = stream::unfold(state, |mut state| async move {
        let mut read = state.read.take()?;
        let mut text = String::new();
        match state.shared.service.feed.next_of_full(&mut read, &state.reader) {
            Some(items) => {
                write_items(&state.shared, &items, state.is_first, &mut text);
                state.is_first &= items.is_empty();
                state.read = Some(read);
            }
            None => text.push_str("]}"),
        }
        Some((Ok::<_, Infallible>(Bytes::from(text)), state))
    });
    let mut response = (headers, Body::from_stream(stream::StreamExt::chain(head, rest))).into_response();
    response.extensions_mut().insert(Streamed);
    response
}

struct Full {
    shared: Arc<Shared>,
    reader: Reader,
    /// `None` when the end is written.
    read: Option<FullRead>,
    is_first: bool,
}

/// A stored answer would claim the freshness of a later request.
fn json_headers(fresh: &Fresh) -> [(HeaderName, HeaderValue); 4] {
    let etag = HeaderValue::try_from(format!("\"{}\"", fresh.cursor));
    [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (VARY, HeaderValue::from_static("authorization")),
        (ETAG, etag.unwrap_or(HeaderValue::from_static("\"\""))),
    ]
}

fn head_of(fresh: &Fresh, is_full: bool) -> String {
    format!("{{\"cursor\":\"{}\",\"covered_ms\":{},\"full\":{is_full},\"items\":[", fresh.cursor, fresh.covered_millis)
}

fn write_items(shared: &Shared, items: &[FeedItem], is_first: bool, text: &mut String) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 || !is_first {
            text.push(',');
        }
        text.push_str(&render(shared, item));
    }
}

fn write_event(shared: &Shared, part: &Part, text: &mut String) {
    match part {
        Part::FullBegins => text.push_str("event: full\ndata: {}\n\n"),
        Part::FullEnds => text.push_str("event: full-end\ndata: {}\n\n"),
        Part::Items { items, written_at } => {
            for item in items {
                text.push_str("event: item\ndata: ");
                text.push_str(&render(shared, item));
                text.push_str("\n\n");
            }
            if let Some(written_at) = written_at {
                let delay = shared.service.feed.delay_of(*written_at);
                shared.metrics.feed_delivery_seconds.observe(delay.as_secs_f64());
            }
        }
        Part::Fresh(Fresh { cursor, covered_millis }) => {
            let data = format!("{{\"cursor\":\"{cursor}\",\"covered_ms\":{covered_millis}}}");
            text.push_str(&format!("event: fresh\nid: {cursor}\ndata: {data}\n\n"));
        }
    }
}

fn render(shared: &Shared, item: &FeedItem) -> String {
    let seconds = |time: &Timestamp| time.seconds();
    let (label, kind) = match item {
        FeedItem::Token(id, exp) => {
            (FeedItemType::Token, ItemKind::Token { id: URL_SAFE_NO_PAD.encode(id), exp: seconds(exp) })
        }
        FeedItem::Session(id, exp) => {
            (FeedItemType::Session, ItemKind::Session { sid: id.to_string(), exp: seconds(exp) })
        }
        FeedItem::Subject(id, epoch, exp) => {
            (FeedItemType::Subject, ItemKind::Subject { sub: id.to_string(), epoch: *epoch, exp: seconds(exp) })
        }
        FeedItem::Client(client) => (
            FeedItemType::Client,
            ItemKind::Client {
                client_id: client.id.to_string(),
                epoch: client.epoch,
                state: client.state.as_str(),
                version: client.version,
            },
        ),
        FeedItem::Key(kid, exp) => (FeedItemType::Key, ItemKind::Key { kid: kid.to_string(), exp: seconds(exp) }),
        FeedItem::All(epoch, exp) => (FeedItemType::All, ItemKind::All { epoch: *epoch, exp: seconds(exp) }),
        FeedItem::Keys => (FeedItemType::Keys, ItemKind::Keys {}),
        FeedItem::Caller(client, version) => {
            let secret = |secret: &StoredSecret| SecretItem {
                digest: URL_SAFE_NO_PAD.encode(secret.digest.0),
                exp: secret.expires_at.map(Timestamp::seconds),
            };
            let settings = &client.settings;
            let kind = ItemKind::Caller {
                client_id: client.id.to_string(),
                introspect: settings.introspect.as_str(),
                audiences: settings.audiences.iter().map(Audience::as_str).collect(),
                secrets: client.secrets.iter().map(secret).collect(),
                jwks: settings.jwks.as_deref().and_then(|text| serde_json::from_str(text).ok()),
                version: *version,
            };
            (FeedItemType::Caller, kind)
        }
    };
    shared.metrics.feed_items.count(label);
    // Serializing the types of this crate with string keys cannot fail.
    serde_json::to_string(&RevocationItem { iss: shared.service.issuer(), kind }).unwrap_or_default()
}
