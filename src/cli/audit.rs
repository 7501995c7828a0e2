//! `countersign audit`: the audit trail.

use clap::Subcommand;

use super::output::{json_of, note, print};
use super::workplace::on_database;
use super::{CliError, Common};
use crate::app::{Core, Creation};
use crate::domain::Timestamp;
use crate::http::AuditItem;

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Print events as JSON lines, oldest first
    Export {
        /// Only events before this: a day (2027-01-31, UTC) or a time of RFC 3339
        #[arg(long, value_name = "DATE", value_parser = date)]
        before: Timestamp,
    },
}

pub(super) fn run(command: &AuditCommand, common: &Common) -> Result<(), CliError> {
    match command {
        AuditCommand::Export { before } => {
            on_database(common, Creation::Forbidden, async |core| export(core, *before).await)
        }
    }
}

async fn export(core: &Core, before: Timestamp) -> Result<(), CliError> {
    let (mut after, mut exported) = (None, 0);
    loop {
        let page = core.service.administration.export_audit(after, before).await.map_err(CliError::failed)?;
        for problem in &page.unreadable {
            note(&format!("not exported: {problem}"));
        }
        let mut lines = String::new();
        for event in page.events {
            lines.push_str(&json_of(&AuditItem::from(event))?.to_string());
            lines.push('\n');
            exported += 1;
        }
        print(&lines)?;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    note(&format!("{exported} events"));
    Ok(())
}

fn date(text: &str) -> Result<Timestamp, String> {
    let time = if text.len() == "2027-01-31".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let parsed = humantime::parse_rfc3339(&time).ok();
    let since_epoch = parsed.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let millis = since_epoch.and_then(|since| i64::try_from(since.as_millis()).ok());
    millis
        .map(Timestamp::from_millis)
        .ok_or_else(|| "is neither a day like 2027-01-31 nor a time of RFC 3339".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_the_start_of_its_day_in_utc() {
        assert_eq!(date("2027-01-31"), Ok(Timestamp::from_seconds(1_801_353_600)));
        assert_eq!(date("2027-01-31T00:00:01Z"), Ok(Timestamp::from_seconds(1_801_353_601)));
        for bad in ["", "2027-13-01", "yesterday", "2027-01-31 00:00", "1969-12-31"] {
            assert!(date(bad).is_err(), "{bad}");
        }
    }
}
