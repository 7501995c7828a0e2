//! The source of the master key: a setting, or a file beside the embedded database.

use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::{Parts, StartError};
use crate::config::Config;
use crate::crypto::MasterKey;
use crate::domain::without_byte_order_mark;

/// The current and the previous master key. With an embedded database, a missing current key is generated if
/// `may_make`. `may_make` requires that nothing is sealed under a lost key.
pub(super) fn master_keys(
    config: &Config,
    parts: &Parts,
    may_make: bool,
) -> Result<(MasterKey, Option<MasterKey>), StartError> {
    let current = match (&config.master_key, config.embedded_key_file()) {
        (Some(key), _) => key.clone(),
        (None, Some(path)) => {
            if may_make {
                make_key_file(&path, parts).map_err(|error| in_key_file(&path, error))?;
            }
            let text = read_key_file(&path).map_err(|error| in_key_file(&path, error))?;
            MasterKey::parse(without_byte_order_mark(&text))?
        }
        (None, None) => return Err(StartError::Setting("master_key: is needed with PostgreSQL".to_owned())),
    };
    Ok((current, config.master_key_previous.clone()))
}

fn in_key_file(path: &Path, error: io::Error) -> StartError {
    let path = path.display().to_string();
    match error.kind() {
        io::ErrorKind::NotFound => StartError::MasterKeyLost(path),
        _ => StartError::MasterKeyFile(path, error),
    }
}

/// Creates the key file with mode 0600 unless it exists. The creation is atomic, even if processes compete or the
/// process is stopped. A truncated key would lock the service out permanently.
fn make_key_file(path: &Path, parts: &Parts) -> io::Result<()> {
    if path.try_exists()? {
        return Ok(());
    }
    let draft = path.with_extension(format!("{:016x}", u64::from_be_bytes(parts.random.bytes())));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let made = file
        .write_all(MasterKey::generate(&*parts.random).to_base64().expose().as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::hard_link(&draft, path));
    std::fs::remove_file(&draft)?;
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => path.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all()),
    }
}

/// Reads the key file. A file that other users can read is refused (security.md K6).
fn read_key_file(path: &Path) -> io::Result<zeroize::Zeroizing<String>> {
    if std::fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        return Err(io::Error::other("others may read it: chmod 600"));
    }
    std::fs::read_to_string(path).map(zeroize::Zeroizing::new)
}
