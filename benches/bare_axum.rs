//! The framework's ceiling: an axum server that answers the same bytes with no work. `benches/compare` measures the
//! service against it in one interleaved run.
//!
//! `/verify` and `/sign` do one ES256 operation on top: what a token that was never seen, and a token that is issued, cannot
//! cost less than.
//!
//! Arguments: the address to listen on, and a file with the body that every request is answered with.
#![expect(clippy::expect_used, reason = "a benchmark that cannot start has nothing to measure")]
#![expect(clippy::disallowed_methods, reason = "a benchmark has its own randomness")]

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let body = arguments.next().map_or_else(Vec::new, |path| std::fs::read(path).expect("the body's file is readable"));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    runtime.expect("a runtime starts").block_on(serve(&address, Bytes::from(body)));
}

/// One key, and a message of a token's size with its signature.
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

async fn serve(address: &str, body: Bytes) {
    let answer = move || {
        let body = body.clone();
        async move {
            let headers = [
                (CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (CACHE_CONTROL, HeaderValue::from_static("max-age=5")),
            ];
            (headers, body)
        }
    };
    let read_and_answer = {
        let answer = answer.clone();
        move |_: Bytes| answer()
    };
    let empty = || async { [(CACHE_CONTROL, HeaderValue::from_static("max-age=5"))] };
    let work = Arc::new(Es256::new());
    let verify = {
        let (work, answer) = (Arc::clone(&work), answer.clone());
        move |_: Bytes| {
            work.verify();
            answer()
        }
    };
    let sign = {
        let answer = answer.clone();
        move |_: Bytes| {
            work.sign();
            answer()
        }
    };
    let router = Router::new()
        .route("/empty", get(empty))
        .route("/get", get(answer))
        .route("/post", post(read_and_answer))
        .route("/verify", post(verify))
        .route("/sign", post(sign));
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
