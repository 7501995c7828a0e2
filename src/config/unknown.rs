//! Errors for unknown settings, with a suggestion.

use std::collections::BTreeSet;

use super::environment::variable_name;
use super::error::{ConfigError, Origin};
use super::raw::{Raw, Written};

/// The error for an unknown `name`, unless it is the empty header of an existing section.
pub(super) fn error(name: &str, found: &Written, known: &BTreeSet<&str>) -> Option<ConfigError> {
    let is_section = known.iter().any(|known| known.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')));
    if is_section && matches!(found.raw, Raw::EmptyTable) {
        return None;
    }
    let spell = |name: &str| match found.origin {
        Origin::Environment(_) => variable_name(name),
        _ => name.to_owned(),
    };
    let (problem, remedy) = match nearest(name, known) {
        _ if is_section => ("is a section, not a setting", "write its settings below it".to_owned()),
        Some(meant) => ("is unknown", format!("did you mean {}?", spell(meant))),
        None => ("is unknown", "remove it; `countersign config show` lists every setting".to_owned()),
    };
    Some(ConfigError { setting: name.to_owned(), origin: found.origin.clone(), problem: problem.into(), remedy })
}

/// The setting that `name` most likely means: the nearest by edit distance, or the only one with the same last part.
fn nearest<'a>(name: &str, known: &BTreeSet<&'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    let distance = |candidate: &str| strsim::damerau_levenshtein(&name, candidate);
    let near = known.iter().copied().map(|candidate| (distance(candidate), candidate)).min();
    let by_edits = near.filter(|(edits, candidate)| *edits <= 1 + candidate.len() / 6).map(|(_, candidate)| candidate);
    by_edits.or_else(|| {
        let last = |name: &str| name.rsplit('.').next().map(str::to_owned);
        let mut same = known.iter().copied().filter(|candidate| last(candidate) == last(&name));
        same.next().filter(|_| same.next().is_none())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_typing_errors_lead_to_the_right_suggestion() {
        let known = BTreeSet::from(["issuer", "tokens.access_ttl", "public.trusted_proxies", "revocation.max_lag"]);
        assert_eq!(nearest("tokens.acces_ttl", &known), Some("tokens.access_ttl"), "a missing letter");
        assert_eq!(nearest("tokens_access_ttl", &known), Some("tokens.access_ttl"), "one underscore in a variable");
        assert_eq!(nearest("access_ttl", &known), Some("tokens.access_ttl"), "a missing section");
        assert_eq!(nearest("sessions.max_lag", &known), Some("revocation.max_lag"), "the wrong section");
        assert_eq!(nearest("ISSUER", &known), Some("issuer"), "capitals");
        assert_eq!(nearest("smtp.host", &known), None, "no similar name");
    }
}
