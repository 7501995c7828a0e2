//! Envoy's side of `envoy.service.auth.v3`, written from its interface and apart from the service's own messages.

use std::collections::HashMap;
use std::net::SocketAddr;

use http::uri::PathAndQuery;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    pub attributes: Option<AttributeContext>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct AttributeContext {
    /// The peer that sent the request; the service does not read it.
    #[prost(message, optional, tag = "1")]
    pub source: Option<Peer>,
    #[prost(message, optional, tag = "4")]
    pub request: Option<Request>,
    #[prost(map = "string, string", tag = "10")]
    pub context_extensions: HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Peer {
    #[prost(string, tag = "4")]
    pub principal: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    #[prost(message, optional, tag = "2")]
    pub http: Option<HttpRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpRequest {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub method: String,
    #[prost(map = "string, string", tag = "3")]
    pub headers: HashMap<String, String>,
    #[prost(string, tag = "4")]
    pub path: String,
    #[prost(int64, tag = "9")]
    pub size: i64,
    #[prost(string, tag = "11")]
    pub body: String,
    #[prost(message, optional, tag = "13")]
    pub header_map: Option<HeaderMap>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderMap {
    #[prost(message, repeated, tag = "1")]
    pub headers: Vec<HeaderValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
    #[prost(bytes = "vec", tag = "3")]
    pub raw_value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<RpcStatus>,
    #[prost(message, optional, tag = "2")]
    pub denied_response: Option<DeniedHttpResponse>,
    #[prost(message, optional, tag = "3")]
    pub ok_response: Option<OkHttpResponse>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct DeniedHttpResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<HttpStatus>,
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<HeaderValueOption>,
    #[prost(string, tag = "3")]
    pub body: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct OkHttpResponse {
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<HeaderValueOption>,
    #[prost(string, repeated, tag = "5")]
    pub headers_to_remove: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderValueOption {
    #[prost(message, optional, tag = "1")]
    pub header: Option<HeaderValue>,
    #[prost(int32, tag = "3")]
    pub append_action: i32,
}

/// `OVERWRITE_IF_EXISTS_OR_ADD`.
const OVERWRITE: i32 = 2;

/// Envoy's decision about the request that it holds back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// `google.rpc.Code`.
    pub code: i32,
    /// The status that the caller gets; 200 where the request passes.
    pub status: i32,
    /// The headers set on the forwarded request, or on the answer to the caller: sorted pairs.
    pub headers: Vec<(String, String)>,
}

/// One connection to the service, as Envoy keeps it.
#[derive(Clone)]
pub struct Envoy(pub Channel);

impl Envoy {
    /// Connects without TLS.
    pub async fn connect(address: SocketAddr) -> Self {
        Self(Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap())
    }

    /// Checks a request with these headers.
    pub async fn check(&self, headers: &[(&str, &str)], context: &[(&str, &str)]) -> Fate {
        self.ask("/envoy.service.auth.v3.Authorization/Check", question("GET", headers, context)).await.unwrap()
    }

    /// Checks a request with this token.
    pub async fn check_token(&self, token: &str, context: &[(&str, &str)]) -> Fate {
        self.check(&[("authorization", &format!("Bearer {token}"))], context).await
    }

    /// Calls a procedure.
    pub async fn ask(&self, procedure: &'static str, request: CheckRequest) -> Result<Fate, Status> {
        let mut client = tonic::client::Grpc::new(self.0.clone());
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::<CheckRequest, CheckResponse>::default();
        let path = PathAndQuery::from_static(procedure);
        let answer = client.unary(tonic::Request::new(request), path, codec).await?;
        Ok(fate(answer.into_inner()))
    }
}

/// The message that Envoy sends about a request.
pub fn question(method: &str, headers: &[(&str, &str)], context: &[(&str, &str)]) -> CheckRequest {
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let http = HttpRequest {
        id: "7263418294".into(),
        method: method.into(),
        headers: pairs(headers),
        path: "/orders/17?aud=other&role=admin".into(),
        size: -1,
        ..HttpRequest::default()
    };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer { principal: "spiffe://cluster/ns/web".into() }),
            request: Some(Request { http: Some(http) }),
            context_extensions: pairs(context),
        }),
    }
}

fn fate(answer: CheckResponse) -> Fate {
    let code = answer.status.unwrap().code;
    let (status, options) = match (answer.ok_response, answer.denied_response) {
        (Some(ok), None) => {
            assert_eq!((code, ok.headers_to_remove.len()), (0, 0));
            (200, ok.headers)
        }
        (None, Some(denied)) => {
            assert_eq!(denied.body, "");
            (denied.status.unwrap().code, denied.headers)
        }
        _ => panic!("either passes or does not"),
    };
    let mut headers: Vec<_> = options
        .into_iter()
        .map(|option| {
            assert_eq!(option.append_action, OVERWRITE, "what the caller sent under the same name must go");
            let header = option.header.unwrap();
            (header.key, header.value)
        })
        .collect();
    headers.sort();
    Fate { code, status, headers }
}
