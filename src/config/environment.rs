//! Settings in environment variables: `COUNTERSIGN_SECTION__KEY`.

use std::collections::BTreeMap;

use super::error::Origin;
use super::raw::{Raw, Written};
use super::sources::FILE_VARIABLE;

/// Every variable with this prefix must name a setting.
const PREFIX: &str = "COUNTERSIGN_";

/// The values of the variables with our prefix, by dotted name.
pub(super) fn read(variables: &[(String, String)]) -> BTreeMap<String, Written> {
    let ours = variables.iter().filter_map(|(name, value)| {
        let rest = name.strip_prefix(PREFIX)?;
        if name == FILE_VARIABLE || is_service_link(rest, value) {
            return None;
        }
        let found = Written { raw: Raw::Loose(value.clone()), origin: Origin::Environment(name.clone()) };
        Some((setting_name(rest), found))
    });
    ours.collect()
}

pub(super) fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX)
}

pub(super) fn variable_name(setting: &str) -> String {
    format!("{PREFIX}{}", setting.replace('.', "__").to_ascii_uppercase())
}

/// The setting that a variable sets. A name with lower-case letters is returned as it is, and is reported as unknown.
fn setting_name(rest: &str) -> String {
    if rest.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return rest.to_owned();
    }
    rest.replace("__", ".").to_ascii_lowercase()
}

/// Whether Kubernetes added this variable for a Service whose name begins with "countersign": `…_SERVICE_HOST`,
/// `…_SERVICE_PORT`, `…_SERVICE_PORT_NAME`, `…_PORT=tcp://…` and `…_PORT_8080_TCP…`. Every pod of the namespace gets
/// these variables. If they were errors, a pod could not start in a namespace with such a Service.
fn is_service_link(rest: &str, value: &str) -> bool {
    let rest = format!("_{rest}");
    let names_a_port = |rest: &str| {
        rest.split("_PORT_").skip(1).any(|tail| {
            let (digits, protocol) = tail.split_once('_').unwrap_or((tail, ""));
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            is_number && ["TCP", "UDP", "SCTP"].iter().any(|name| protocol.starts_with(name))
        })
    };
    rest.ends_with("_SERVICE_HOST")
        || rest.ends_with("_SERVICE_PORT")
        || rest.contains("_SERVICE_PORT_")
        || (rest.ends_with("_PORT") && ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme)))
        || names_a_port(&rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_name_maps_to_a_setting_and_back() {
        assert_eq!(variable_name("public.tls.cert"), "COUNTERSIGN_PUBLIC__TLS__CERT");
        assert_eq!(setting_name("PUBLIC__TLS__CERT"), "public.tls.cert");
        assert_eq!(setting_name("MASTER_KEY_FILE"), "master_key_file");
    }

    #[test]
    fn variables_that_kubernetes_adds_for_a_service_of_our_name_are_not_settings() {
        let links = [
            ("COUNTERSIGN_SERVICE_HOST", "10.0.0.1"),
            ("COUNTERSIGN_SERVICE_PORT", "8080"),
            ("COUNTERSIGN_SERVICE_PORT_HTTP", "8080"),
            ("COUNTERSIGN_PORT", "tcp://10.0.0.1:8080"),
            ("COUNTERSIGN_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("COUNTERSIGN_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("COUNTERSIGN_OPERATIONS_SERVICE_HOST", "10.0.0.1"),
            ("COUNTERSIGN_OPERATIONS_PORT_9090_TCP_PROTO", "tcp"),
            ("COUNTERSIGN_CONFIG", "/etc/countersign.toml"),
            ("PATH", "/bin"),
        ];
        assert!(read(&links.map(|(name, value)| (name.to_owned(), value.to_owned()))).is_empty());
        let error = [("COUNTERSIGN_PORT".to_owned(), "8080".to_owned())];
        assert_eq!(read(&error).len(), 1, "a port number alone is not set by Kubernetes");
    }
}
