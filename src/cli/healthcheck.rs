//! `countersign healthcheck`: checks whether the service on this machine is ready. It serves containers whose images
//! have no other HTTP client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::Args;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use url::Url;

use super::fetch::{self, Trust};
use super::output::print;
use super::{CliError, Common, workplace};
use crate::config::Listener;

#[derive(Debug, Args)]
pub(super) struct HealthcheckArgs {
    /// Address of the operations listener [default: `operations.listen`]
    #[arg(long, value_name = "ADDRESS:PORT")]
    address: Option<String>,
}

pub(super) fn run(args: &HealthcheckArgs, common: &Common) -> Result<(), CliError> {
    let listener = workplace::load(common)?.config.operations;
    let address = match &args.address {
        Some(text) => named(text)?,
        None if listener.listen.port() == 0 => {
            let text = "operations.listen leaves the port to the system: say it with --address";
            return Err(CliError::Usage(text.to_owned()));
        }
        None => reachable(listener.listen).to_string(),
    };
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    let url = Url::parse(&format!("{scheme}://{address}/readyz")).map_err(CliError::failed)?;
    let answer = workplace::runtime()?.block_on(fetch::get(&url, trust(&listener)?))?;
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    let is_ready = answer.status.is_success();
    if common.json {
        print(&format!("{}\n", json!({"ready": is_ready, "checks": body["checks"]})))?;
    }
    if is_ready {
        if common.json { Ok(()) } else { print("ready\n") }
    } else {
        let failing = body["checks"].as_array().into_iter().flatten().filter(|check| check["ok"] == false);
        let names: Vec<&str> = failing.filter_map(|check| check["name"].as_str()).collect();
        Err(CliError::failed(format!("not ready: {} {}", answer.status, names.join(", "))))
    }
}

/// An address, or a host name that is resolved at the request, with a port.
fn named(text: &str) -> Result<String, CliError> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(reachable(address).to_string());
    }
    let is_name = |host: &str| {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
    };
    match text.rsplit_once(':') {
        Some((host, port)) if is_name(host) && port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(text.to_owned()),
        _ => Err(CliError::Usage(format!(
            "--address {text}: write an address or a name with a port, such as localhost:9090"
        ))),
    }
}

/// The local address under which a listener on every interface can be reached.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The service's own certificate. It names the public host, not this machine's loopback address.
fn trust(listener: &Listener) -> Result<Trust, CliError> {
    let Some(files) = &listener.tls else { return Ok(Trust::WebRoots) };
    let certificate = CertificateDer::from_pem_file(&files.cert);
    certificate.map(Trust::Exactly).map_err(|error| CliError::about(files.cert.display(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_a_name() {
        for (text, asked) in
            [("localhost:9090", "localhost:9090"), ("0.0.0.0:1", "127.0.0.1:1"), ("[::1]:1", "[::1]:1")]
        {
            assert_eq!(named(text).unwrap(), asked);
        }
        for bad in ["localhost", ":9090", "localhost:", "localhost:0", "localhost:70000", "a/b:1", "user@host:1"] {
            assert!(matches!(named(bad), Err(CliError::Usage(_))), "{bad}");
        }
    }

    #[test]
    fn a_listener_on_every_interface_is_probed_on_loopback() {
        for (listen, asked) in
            [("0.0.0.0:9090", "127.0.0.1:9090"), ("[::]:9090", "[::1]:9090"), ("10.0.0.7:1", "10.0.0.7:1")]
        {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
