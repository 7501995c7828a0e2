//! `countersign serve --demo`: a temporary service that is removed at the end.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::operator::operator;
use super::output::print;
use super::{CliError, Common, workplace};
use crate::app::App;
use crate::config::{Config, LogLevels, Origin};
use crate::crypto::{Random, SystemRandom, random_secret};
use crate::domain::{ClientId, ClientKind, ClientSettings, IntrospectRight, Password, Username};

const USER: &str = "demo";
const GATEWAY: &str = "gateway";
/// The length of the user's password in characters: 120 bits.
const PASSWORD_LENGTH: usize = 20;
/// The longest delay of a retry in the demo. A production service permits less.
const RETRY_WINDOW: Duration = Duration::from_secs(60);

/// A temporary folder for a database. It is removed when this is dropped.
pub(super) struct Demo {
    folder: PathBuf,
}

impl Demo {
    /// Makes the folder, and a configuration that refers to it. All other configured settings apply.
    pub fn prepare(common: &Common) -> Result<(Self, Config), CliError> {
        let random: &dyn Random = &SystemRandom::default();
        let folder = std::env::temp_dir().join(format!("countersign-demo-{:016x}", u64::from_be_bytes(random.bytes())));
        let made = DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(|error| CliError::about(folder.display(), error))?;
        let demo = Self { folder };
        let loaded = workplace::load_from(common, demo.environment())?;
        let is_set = |name: &str| {
            loaded.settings.iter().any(|setting| setting.name == name && setting.origin != Origin::Default)
        };
        let mut config = loaded.config.clone();
        if !is_set("log.level") {
            config.log.level = LogLevels::all(LevelFilter::WARN);
        }
        if !is_set("shutdown.delay") {
            // A demo has no load balancer.
            config.shutdown.delay = Duration::ZERO;
        }
        if !is_set("refresh.retry_window") {
            // A user who pastes the commands one by one reads in between.
            config.refresh.retry_window = RETRY_WINDOW;
        }
        Ok((demo, config))
    }

    /// The environment without the settings that would select another database.
    fn environment(&self) -> Vec<(OsString, OsString)> {
        let leads_elsewhere = |name: &OsString| {
            let name = name.to_string_lossy();
            name.starts_with("COUNTERSIGN_DATABASE__") || name.starts_with("COUNTERSIGN_MASTER_KEY")
        };
        let url = format!("sqlite://{}", self.folder.join("countersign.db").display());
        std::env::vars_os()
            .filter(|(name, _)| !leads_elsewhere(name))
            .chain([
                ("COUNTERSIGN_DATABASE__URL".into(), url.into()),
                ("COUNTERSIGN_DATABASE__CREATE_IF_MISSING".into(), "true".into()),
            ])
            .collect()
    }

    /// Creates a user and a gateway, and prints instructions for their use.
    pub async fn create_demo_data(&self, app: &App) -> Result<(), CliError> {
        let service = &app.core().service;
        let from = operator();
        let secret = random_secret(&SystemRandom::default());
        let password: String = secret.expose().chars().take(PASSWORD_LENGTH).collect();
        let username = Username::parse(USER).map_err(CliError::failed)?;
        let parsed = Password::parse(&password).map_err(CliError::failed)?;
        service.users.create_user(username, parsed, Vec::new(), &from).await.map_err(CliError::failed)?;
        let settings =
            ClientSettings { introspect: IntrospectRight::Any, ..ClientSettings::new(ClientKind::Confidential) };
        let id = ClientId::parse(GATEWAY).map_err(CliError::failed)?;
        let (_, secret) = service.clients.create_client(id, settings, true, &from).await.map_err(CliError::failed)?;
        let secret = secret.ok_or_else(|| CliError::failed("the gateway has no secret"))?;
        print(&instructions(&Shown {
            public: app.public_address().to_string(),
            operations: app.operations_address().to_string(),
            password,
            secret: secret.0.expose().to_owned(),
        }))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The values for the instructions.
struct Shown {
    public: String,
    operations: String,
    password: String,
    secret: String,
}

/// Commands for any POSIX shell with curl. They can be pasted one by one or as a whole.
fn instructions(shown: &Shown) -> String {
    let Shown { public, operations, password, secret } = shown;
    format!(
        r#"Countersign is running on http://{public} (administration on http://{operations}).
It has a user, {USER}, and a client that may introspect every token, {GATEWAY}. Ctrl-C ends it and removes everything.
The API is documented on http://{public}/docs
Paste this into another terminal:

U=http://{public} G={GATEWAY}:{secret} J='Content-Type: application/json'
pick() {{ sed 's/.*"'"$1"'":"\([^"]*\)".*/\1/'; }}
ask() {{ curl -sS -u "$G" -d "token=$1" "$U/oauth2/introspect"; echo; }}

# Log in
T=$(curl -sS "$U/v1/login" -H "$J" -d '{{"username":"{USER}","password":"{password}"}}'); echo "$T"
A=$(echo "$T" | pick access_token) R=$(echo "$T" | pick refresh_token)

# Introspect the access token, as a gateway does
ask "$A"

# Refresh: a new pair, and the old refresh token is spent
refresh() {{ curl -sS "$U/v1/refresh" -H "$J" -d '{{"refresh_token":"'"$R"'"}}'; }}
N=$(refresh | pick refresh_token); echo "successor: $N"

# Was that answer lost on its way? The same request again, the same successor
M=$(refresh | pick refresh_token); echo "successor: $M"

# Log out with it: the access token is inactive at once
curl -sS "$U/v1/logout" -H "$J" -d '{{"refresh_token":"'"$M"'"}}' -w 'logout: %{{http_code}}\n'
ask "$A"

"#
    )
}
