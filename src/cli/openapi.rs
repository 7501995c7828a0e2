//! `countersign openapi`: the document that describes the API.

use super::CliError;
use super::output::print;

pub(super) fn run() -> Result<(), CliError> {
    print(&format!("{}\n", crate::http::openapi::document().trim_end()))
}
