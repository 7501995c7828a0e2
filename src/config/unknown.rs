//! Names that are no settings, and what was probably meant.

use std::collections::BTreeSet;

use super::environment::variable_name;
use super::mistake::{Mistake, Origin};
use super::raw::{Found, Raw};

/// The mistake of using `name`, unless it is only the empty header of a section that exists.
pub(super) fn mistake(name: &str, found: &Found, known: &BTreeSet<&str>) -> Option<Mistake> {
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
    Some(Mistake { setting: name.to_owned(), origin: found.origin.clone(), problem: problem.into(), remedy })
}

/// The known name that `name` most likely stands for: the nearest by edits, or the only one with the same last part.
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
    fn slips_of_every_usual_kind_find_what_was_meant() {
        let known = BTreeSet::from(["issuer", "tokens.access_ttl", "public.trusted_proxies", "revocation.max_lag"]);
        assert_eq!(nearest("tokens.acces_ttl", &known), Some("tokens.access_ttl"), "a missing letter");
        assert_eq!(nearest("tokens_access_ttl", &known), Some("tokens.access_ttl"), "one underscore in a variable");
        assert_eq!(nearest("access_ttl", &known), Some("tokens.access_ttl"), "the section left out");
        assert_eq!(nearest("sessions.max_lag", &known), Some("revocation.max_lag"), "the wrong section");
        assert_eq!(nearest("ISSUER", &known), Some("issuer"), "capitals");
        assert_eq!(nearest("smtp.host", &known), None, "nothing like it");
    }
}
