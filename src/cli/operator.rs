//! The person who runs a command, for the audit trail: the system user and the machine.

use crate::service::Requester;

/// A requester named `cli:USER@HOST`.
pub(super) fn operator() -> Requester {
    let uid = rustix::process::getuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = user_name(&passwd, uid).unwrap_or_else(|| format!("uid-{uid}"));
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    Requester { actor: format!("cli:{}@{}", printable(&user), printable(&host)), ..Requester::command_line() }
}

/// The name of a user id. Users of a directory service may be missing here.
fn user_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// A name that cannot break a log line or imitate another name.
fn printable(name: &str) -> String {
    name.chars().take(64).map(|char| if char.is_ascii_graphic() && char != '@' { char } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_id_is_resolved_to_its_login_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\nbroken\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("ada"));
        assert_eq!(user_name(passwd, 7), None);
        assert_eq!(printable("a b@c\n\u{202e}"), "a?b?c??");
    }
}
