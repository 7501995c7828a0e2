//! `countersign serve`: starts the service from the configuration, and stops it in order.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use clap::Args;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::demo::Demo;
use super::{CliError, Common, process, workplace};
use crate::app::{App, Memory, Parts, StartError};
use crate::config::{Config, Engine, TlsFiles};
use crate::telemetry::LogSink;

/// The time limit for writing the last log lines.
const FLUSH: Duration = Duration::from_secs(1);
/// The number of open files other than connections: the embedded database, the log, the event queue, `/proc`.
const OTHER_FILES: usize = 64;

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Try the service: an embedded database in a temporary folder, a user, a gateway, and commands to paste
    #[arg(long)]
    demo: bool,
}

/// Runs until SIGTERM, SIGINT or SIGQUIT. A second signal does not wait for requests in flight.
pub(super) fn run(args: &ServeArgs, common: &Common) -> Result<(), CliError> {
    if args.demo {
        let (demo, config) = Demo::prepare(common)?;
        return start(config, LogSink::Stderr, Some(demo));
    }
    start(workplace::load(common)?.config, LogSink::Stdout, None)
}

fn start(mut config: Config, sink: LogSink, demo: Option<Demo>) -> Result<(), CliError> {
    let parts = workplace::parts(sink, &config.log)?;
    let logger = parts.logger.clone();
    fit_connections(&mut config, process::raise_file_limit());
    let runtime = runtime().map_err(|error| CliError::about("no threads", error))?;
    let outcome = runtime.block_on(serve(config, parts, demo));
    logger.flush(FLUSH);
    runtime.shutdown_timeout(FLUSH);
    outcome
}

async fn serve(config: Config, parts: Parts, demo: Option<Demo>) -> Result<(), CliError> {
    let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
    handle_signals(&stop, &abort).map_err(|error| CliError::about("signals", error))?;
    let app = App::build(config, parts).await.map_err(|error| CliError::Failed(explained(&error)))?;
    print_summary(&app);
    if let Some(demo) = &demo {
        demo.create_demo_data(&app).await?;
    }
    tokio::select! {
        () = app.run(stop) => Ok(()),
        () = abort.cancelled() => Err(CliError::failed("stopped at once: requests in flight were given up")),
    }
}

/// One worker per core that this process may use. std respects the affinity mask and the quota of the control group.
fn runtime() -> io::Result<Runtime> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    Builder::new_multi_thread().worker_threads(workers).enable_all().build()
}

/// Lowers `public.max_connections` to fit the limit of open files. Otherwise callers of the public listener could use
/// up all files, and the operations listener could accept no connection either.
fn fit_connections(config: &mut Config, file_limit: Option<u64>) {
    let wanted = config.public.max_connections.unwrap_or_else(|| Memory::of_process().connections());
    let grpc = config.grpc.listen.map_or(0, |_| config.grpc.max_connections);
    let pool = config.database.max_connections as usize;
    let others = config.operations.max_connections.unwrap_or_default() + grpc + pool + OTHER_FILES;
    let limit = file_limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let allowed = limit.saturating_sub(others).clamp(1, wanted.max(1));
    config.public.max_connections = Some(allowed);
    if allowed < wanted {
        tracing::warn!(
            limit,
            wanted,
            allowed,
            "the system allows fewer open files than public.max_connections needs: it is lowered. Raise the limit (LimitNOFILE, \
             ulimit -n)"
        );
    }
}

/// The log line with the version and the addresses of the listeners, for operators and scripts.
fn print_summary(app: &App) {
    let config = app.config();
    let url = |tls: &Option<TlsFiles>, address| {
        let scheme = if tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}")
    };
    let database = match config.database.url.engine() {
        Engine::Sqlite => "sqlite",
        Engine::Postgres => "postgres",
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        public = url(&config.public.tls, app.public_address()),
        operations = url(&config.operations.tls, app.operations_address()),
        grpc = app.grpc_address().map(|address| url(&config.grpc.tls, address)),
        issuer = config.issuer.as_str(),
        database,
        "started"
    );
    let port = app.public_address().port();
    if let Some(issuer_port) = config.issuer.loopback_port().filter(|named| *named != port) {
        tracing::warn!(
            issuer = config.issuer.as_str(),
            issuer_port,
            port,
            "issuer names another port of this machine than public.listen: discovery fails unless a proxy listens there"
        );
    }
}

/// The error's message, with the remedy if it is known.
fn explained(error: &StartError) -> String {
    let StartError::Bind { listener, cause, .. } = error else {
        return error.to_string();
    };
    let variable = format!("COUNTERSIGN_{}__LISTEN", listener.to_uppercase());
    match cause.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{error}\n  Another process listens there, perhaps another countersign: stop it, or choose another port, such as\n  \
             {variable}={}. Set it for other commands too: the default issuer has the port of public.listen.",
            free_address()
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("{error}\n  No network interface of this machine has that address: change {variable}.")
        }
        io::ErrorKind::PermissionDenied => {
            format!("{error}\n  Ports below 1024 are for root: change {variable}, or grant CAP_NET_BIND_SERVICE.")
        }
        _ => error.to_string(),
    }
}

/// An address that is currently free.
fn free_address() -> SocketAddr {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    TcpListener::bind(any).and_then(|listener| listener.local_addr()).unwrap_or(any)
}

/// Installs the signal handlers before anything starts, so that no signal interrupts the start. The first stop signal
/// starts an orderly end; the second ends the process. Signals by which other servers reload or reopen files change
/// nothing here, and are logged.
fn handle_signals(stop: &CancellationToken, abort: &CancellationToken) -> io::Result<()> {
    for (kind, without_effect) in [
        (SignalKind::terminate(), None),
        (SignalKind::interrupt(), None),
        (SignalKind::quit(), None),
        (SignalKind::hangup(), Some("SIGHUP")),
        (SignalKind::user_defined1(), Some("SIGUSR1")),
        (SignalKind::user_defined2(), Some("SIGUSR2")),
    ] {
        let (mut received, stop, abort) = (signal(kind)?, stop.clone(), abort.clone());
        tokio::spawn(async move {
            while received.recv().await.is_some() {
                match without_effect {
                    Some(signal) => tracing::info!(
                        signal,
                        "this signal changes nothing: certificates are read again when they change, settings at a start"
                    ),
                    None if stop.is_cancelled() => abort.cancel(),
                    None => stop.cancel(),
                }
            }
        });
    }
    Ok(())
}
