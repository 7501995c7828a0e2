//! The upper bound that the framework sets: an axum server that answers the same bytes, headers included, without doing any
//! work. `benches/compare` measures the service against it in one interleaved run.
//!
//! The routes below `/verify` and `/sign` add one ES256 operation. It is the minimum cost of introspecting a new token and of
//! issuing one.
//!
//! Arguments: the address to listen on, and files that each hold an answer of the service: header lines, an empty line, the
//! body. A file `name` is answered at `/name`, to GET and, once the body was read, to POST.
#![expect(clippy::expect_used, reason = "a benchmark that cannot start has nothing to measure")]
#![expect(clippy::disallowed_methods, reason = "a benchmark has its own randomness")]

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use axum::routing::{get, post};
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let answers: Vec<_> = arguments.map(|path| Answer::read(Path::new(&path))).collect();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    runtime.expect("a runtime starts").block_on(serve(&address, answers));
}

/// The answer of a route.
#[derive(Clone)]
struct Answer {
    name: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn read(path: &Path) -> Self {
        let name = path.file_name().expect("an answer has a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path).expect("the answer's file is readable");
        let (head, body) = text.split_once("\n\n").expect("an empty line ends the headers");
        let field = |line: &str| {
            let (name, value) = line.split_once(": ").expect("a header line has a colon");
            (HeaderName::try_from(name).expect("a name"), HeaderValue::try_from(value).expect("a value"))
        };
        Self { name, headers: head.lines().map(field).collect(), body: Bytes::from(body.to_owned()) }
    }

    fn respond(&self) -> Response {
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.headers_mut() = self.headers.clone();
        response
    }
}

/// A key, a message as long as a token's signing input, and its signature.
struct Es256 {
    random: SystemRandom,
    key: EcdsaKeyPair,
    message: [u8; 400],
    signature: Vec<u8>,
}

impl Es256 {
    fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key is made");
        let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).expect("the key is read");
        let message = [b'a'; 400];
        let signature = key.sign(&random, &message).expect("it signs").as_ref().to_vec();
        Self { random, key, message, signature }
    }

    fn sign(&self) {
        let signature = self.key.sign(&self.random, &self.message).expect("it signs");
        std::hint::black_box(signature);
    }

    fn verify(&self) {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        key.verify(&self.message, &self.signature).expect("the signature is good");
    }
}

async fn serve(address: &str, answers: Vec<Answer>) {
    let work = Arc::new(Es256::new());
    let router = answers.into_iter().fold(Router::new(), |router, answer| {
        let (signer, verifier) = (Arc::clone(&work), Arc::clone(&work));
        let [of_get, of_post, of_sign, of_verify] = std::array::from_fn(|_| answer.clone());
        let plain = get(move || async move { of_get.respond() }).post(move |_: Bytes| async move { of_post.respond() });
        let sign = post(move |_: Bytes| async move {
            signer.sign();
            of_sign.respond()
        });
        let verify = post(move |_: Bytes| async move {
            verifier.verify();
            of_verify.respond()
        });
        router
            .route(&format!("/{}", answer.name), plain)
            .route(&format!("/sign/{}", answer.name), sign)
            .route(&format!("/verify/{}", answer.name), verify)
    });
    let listener = tokio::net::TcpListener::bind(address).await.expect("the address is free");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let mut server = hyper::server::conn::http1::Builder::new();
            let _ = server.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
