//! The framework's ceiling: an axum server that answers the same bytes with no work. `benches/compare` measures the
//! service against it in one interleaved run.
//!
//! Arguments: the address to listen on, and a file with the body that every request is answered with.
#![expect(clippy::expect_used, reason = "a benchmark that cannot start has nothing to measure")]

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let body = arguments.next().map_or_else(Vec::new, |path| std::fs::read(path).expect("the body's file is readable"));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    runtime.expect("a runtime starts").block_on(serve(&address, Bytes::from(body)));
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
    let router =
        Router::new().route("/empty", get(empty)).route("/get", get(answer)).route("/post", post(read_and_answer));
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
