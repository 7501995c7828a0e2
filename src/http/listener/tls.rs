//! TLS with certificate and key from files, which are reloaded when they change.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustix::fs::OFlags;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::accept::Protocol;

/// Why certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} cannot be read: {}", .0.display(), .1)]
    Read(PathBuf, io::Error),
    /// A FIFO or device: a read may block forever, and the content cannot be read again.
    #[error("{} is not a regular file: certificate and key must be regular files, because they are read again when they change", .0.display())]
    NotRegular(PathBuf),
    /// Every user of the machine could read or replace the key.
    #[error("{} holds a private key, and every user of this machine may read or write it: run `chmod o=` on it", .0.display())]
    Exposed(PathBuf),
    /// The certificate file holds no PEM certificate.
    #[error("{} holds no PEM certificate", .0.display())]
    NoCertificate(PathBuf),
    /// The key file holds no PEM private key.
    #[error("{} holds no PEM private key", .0.display())]
    NoKey(PathBuf),
    /// Certificate and key do not belong together.
    #[error("the certificate {} does not belong to the key {}", .0.display(), .1.display())]
    OtherKey(PathBuf, PathBuf),
    /// rustls does not support the certificate or the key.
    #[error("the certificate {} cannot be used with the key {}: {}", .0.display(), .1.display(), .2)]
    Unusable(PathBuf, PathBuf, rustls::Error),
}

/// The current certificate chain and its key, from two files.
pub struct TlsIdentity {
    certificate: PathBuf,
    key: PathBuf,
    protocol: Protocol,
    current: ArcSwap<ServerConfig>,
    /// Stamp of the files at the last check, and whether they were usable.
    seen: Mutex<(Stamp, bool)>,
}

/// Detects that a file was written or replaced, or that its permissions changed. For both files: modification time
/// (seconds, nanoseconds), inode, length and the permissions of other users.
type Stamp = [Option<(i64, i64, u64, u64, u32)>; 2];

/// Permission bits of other users. Read permission for a group is allowed: systems share keys with services this way
/// (`ssl-cert` of Debian).
const RIGHTS_OF_OTHERS: u32 = 0o006;

impl TlsIdentity {
    /// Reads both PEM files for HTTP/1. The server's own certificate comes first, followed by intermediates.
    pub fn load(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, TlsError> {
        Self::load_for(Protocol::Http1, certificate, key)
    }

    /// Reads both PEM files for a listener of `protocol`.
    pub fn load_for(
        protocol: Protocol,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, TlsError> {
        let (certificate, key) = (certificate.into(), key.into());
        let stamp = stamp(&certificate, &key);
        let current = ArcSwap::from_pointee(read(protocol, &certificate, &key)?);
        Ok(Self { certificate, key, protocol, current, seen: Mutex::new((stamp, true)) })
    }

    /// Checks whether the files changed, and uses the new ones if they are valid; otherwise the old ones stay in use.
    /// Incomplete files are tried again at the next check but logged once.
    pub fn reload(&self) {
        let stamp = stamp(&self.certificate, &self.key);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_unchanged = seen.0 == stamp;
        if is_unchanged && seen.1 {
            return;
        }
        let result = read(self.protocol, &self.certificate, &self.key);
        *seen = (stamp, result.is_ok());
        match result {
            Ok(config) => {
                self.current.store(Arc::new(config));
                tracing::info!(certificate = %self.certificate.display(), "TLS certificate replaced");
            }
            Err(_) if is_unchanged => {}
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "new TLS certificate rejected, the old one stays in use"
            ),
        }
    }

    pub(super) const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The configuration for the next handshake.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// TLS 1.2 and 1.3, no client certificates, one ALPN protocol.
fn read(protocol: Protocol, certificate: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let chain = CertificateDer::pem_slice_iter(&public_bytes(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| TlsError::NoCertificate(certificate.to_owned()))?;
    let key_bytes = private_bytes(key)?;
    let key_der = PrivateKeyDer::from_pem_slice(&key_bytes).map_err(|_| TlsError::NoKey(key.to_owned()))?;
    let unusable = |error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::OtherKey(certificate.to_owned(), key.to_owned()),
        error => TlsError::Unusable(certificate.to_owned(), key.to_owned(), error),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(unusable)?;
    config.alpn_protocols = vec![protocol.alpn().to_vec()];
    Ok(config)
}

fn public_bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    let (mut file, _) = open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| TlsError::Read(path.to_owned(), error))?;
    Ok(bytes)
}

/// Reads a file that other users must not be able to read or write.
fn private_bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let (mut file, metadata) = open(path)?;
    if metadata.mode() & RIGHTS_OF_OTHERS != 0 {
        return Err(TlsError::Exposed(path.to_owned()));
    }
    // Allocated with its final capacity: a vector that grows leaves copies of the key behind that are not zeroed.
    let length = usize::try_from(metadata.len()).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(length + 1));
    file.read_to_end(&mut bytes).map_err(|error| TlsError::Read(path.to_owned(), error))?;
    Ok(bytes)
}

/// Opens a regular file. Without `O_NONBLOCK`, opening a FIFO waits for its writer.
fn open(path: &Path) -> Result<(File, Metadata), TlsError> {
    let unreadable = |error| TlsError::Read(path.to_owned(), error);
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_file() { Ok((file, metadata)) } else { Err(TlsError::NotRegular(path.to_owned())) }
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    [certificate, key].map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ino(),
            metadata.len(),
            metadata.mode() & RIGHTS_OF_OTHERS,
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write_identity(folder: &Path, name: &str) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
        write_key(&folder.join("key.pem"), &made.signing_key.serialize_pem());
    }

    fn write_key(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(0o640)).unwrap();
    }

    #[test]
    fn k6_a_key_that_everyone_may_read_is_refused_and_one_of_a_group_is_not() {
        let folder = tempfile::tempdir().unwrap();
        write_identity(folder.path(), "a.test");
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let with = |mode| {
            std::fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
            TlsIdentity::load(&certificate, &key)
        };
        for mode in [0o644, 0o604, 0o602] {
            assert!(matches!(with(mode), Err(TlsError::Exposed(_))), "{mode:o}");
        }
        for mode in [0o640, 0o400] {
            assert!(with(mode).is_ok(), "{mode:o}");
        }
        let identity = with(0o600).unwrap();
        let first = identity.current();
        write_identity(folder.path(), "second-name.test");
        std::fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
        identity.reload();
        assert!(Arc::ptr_eq(&first, &identity.current()), "the old certificate stays in use");
        std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        identity.reload();
        assert!(!Arc::ptr_eq(&first, &identity.current()), "the key is used once its permissions are fixed");
    }

    #[test]
    fn a_new_certificate_is_used_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        write_identity(folder.path(), "first.test");
        let identity = TlsIdentity::load(folder.path().join("cert.pem"), folder.path().join("key.pem")).unwrap();
        let first = identity.current();
        identity.reload();
        assert!(Arc::ptr_eq(&first, &identity.current()), "nothing changed");

        std::fs::write(folder.path().join("cert.pem"), "half-writ").unwrap();
        identity.reload();
        assert!(Arc::ptr_eq(&first, &identity.current()), "the old certificate stays in use");

        write_identity(folder.path(), "second-name.test");
        identity.reload();
        assert!(!Arc::ptr_eq(&first, &identity.current()));

        let second = identity.current();
        let other_key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        std::fs::write(folder.path().join("key.pem"), format!("{other_key}\n\n")).unwrap();
        identity.reload();
        assert!(Arc::ptr_eq(&second, &identity.current()), "the key of another certificate is not used");
    }

    #[test]
    fn k6_a_fifo_as_certificate_or_key_is_refused_and_later_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        write_identity(folder.path(), "a.test");
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let (fifo, kept) = (folder.path().join("fifo"), folder.path().join("kept.pem"));
        let made = std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&fifo).status().unwrap();
        assert!(made.success());
        assert!(matches!(TlsIdentity::load(&fifo, &key), Err(TlsError::NotRegular(_))));
        assert!(matches!(TlsIdentity::load(&certificate, &fifo), Err(TlsError::NotRegular(_))));

        let identity = TlsIdentity::load(&certificate, &key).unwrap();
        let first = identity.current();
        std::fs::rename(&certificate, &kept).unwrap();
        std::fs::rename(&fifo, &certificate).unwrap();
        identity.reload();
        assert!(Arc::ptr_eq(&first, &identity.current()), "the old certificate stays in use");
        write_key(&kept, &std::fs::read_to_string(&kept).unwrap());
        std::fs::rename(&kept, &certificate).unwrap();
        identity.reload();
        assert!(!Arc::ptr_eq(&first, &identity.current()), "the next file is read");
    }

    #[test]
    fn each_fault_of_the_files_has_its_own_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert!(matches!(TlsIdentity::load(path("none"), path("none")), Err(TlsError::Read(..))));
        write_identity(folder.path(), "a.test");
        write_key(&path("empty"), "");
        assert!(matches!(TlsIdentity::load(path("empty"), path("key.pem")), Err(TlsError::NoCertificate(_))));
        assert!(matches!(TlsIdentity::load(path("cert.pem"), path("empty")), Err(TlsError::NoKey(_))));
        write_key(&path("no-key"), &std::fs::read_to_string(path("cert.pem")).unwrap());
        assert!(matches!(TlsIdentity::load(path("cert.pem"), path("no-key")), Err(TlsError::NoKey(_))));
        write_key(&path("other"), &rcgen::KeyPair::generate().unwrap().serialize_pem());
        assert!(matches!(TlsIdentity::load(path("cert.pem"), path("other")), Err(TlsError::OtherKey(..))));
    }
}
