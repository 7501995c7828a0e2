//! Work as a quantity, so that every refusal can be made to cost the same.

use super::scheme::{Pbkdf2Digest, Scheme};

/// Kinds of work that a refusal pays for. A real export has one to four; more than this many would let an import turn every
/// mistyped password into seconds of work, so the surplus stays out, and stays distinguishable.
const MAX_KINDS: usize = 16;

/// Work whose amounts add up: twice the units take twice the time, in whatever portions they are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A unit is one pass over the memory.
    Argon2 { variant: argon2::Algorithm, memory_kib: u32, lanes: u32 },
    /// A unit is one round of the key schedule; powers of two can be had.
    Bcrypt,
    /// A unit is one lane.
    Scrypt { log_n: u8, block: u32 },
    /// A unit is one iteration.
    Pbkdf2(Pbkdf2Digest),
}

/// An amount of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) kind: Kind,
    pub(super) units: u32,
}

impl Work {
    /// What one verification against a hash of this scheme costs.
    pub(super) fn of(scheme: Scheme) -> Self {
        match scheme {
            Scheme::Argon2 { variant, memory_kib, passes, lanes, .. } => {
                Self { kind: Kind::Argon2 { variant, memory_kib, lanes }, units: passes }
            }
            Scheme::Bcrypt { cost } => Self { kind: Kind::Bcrypt, units: 1 << cost },
            Scheme::Scrypt { log_n, block, lanes } => Self { kind: Kind::Scrypt { log_n, block }, units: lanes },
            Scheme::Pbkdf2 { digest, iterations, output } => {
                let blocks = u32::from(output).div_ceil(digest.block_bytes());
                Self { kind: Kind::Pbkdf2(digest), units: iterations.saturating_mul(blocks) }
            }
        }
    }
}

/// What every refused password costs: of each kind of work, as much as the dearest hash known.
#[derive(Debug)]
pub(super) struct RefusalCost(Vec<Work>);

impl RefusalCost {
    /// The cost while every hash has the current scheme.
    pub(super) fn of(current: Scheme) -> Self {
        Self(vec![Work::of(current)])
    }

    /// Takes notice of a scheme that a stored hash has. False when there are too many kinds already.
    pub(super) fn learn(&mut self, scheme: Scheme) -> bool {
        let work = Work::of(scheme);
        if let Some(known) = self.0.iter_mut().find(|known| known.kind == work.kind) {
            known.units = known.units.max(work.units);
        } else if self.0.len() < MAX_KINDS {
            self.0.push(work);
        } else {
            return false;
        }
        true
    }

    /// What is still to be done when a refusal has cost `spent` so far.
    pub(super) fn missing(&self, spent: Option<Work>) -> Vec<Work> {
        let missing = self.0.iter().map(|due| match spent {
            Some(spent) if spent.kind == due.kind => {
                Work { kind: due.kind, units: due.units.saturating_sub(spent.units) }
            }
            _ => *due,
        });
        missing.filter(|work| work.units > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schemes() -> Vec<Scheme> {
        vec![
            Scheme::argon2(argon2::Algorithm::Argon2id, argon2::Version::V0x13, 19_456, 2, 1).unwrap(),
            Scheme::argon2(argon2::Algorithm::Argon2id, argon2::Version::V0x13, 19_456, 5, 1).unwrap(),
            Scheme::argon2(argon2::Algorithm::Argon2i, argon2::Version::V0x10, 4096, 3, 1).unwrap(),
            Scheme::bcrypt(4).unwrap(),
            Scheme::bcrypt(12).unwrap(),
            Scheme::scrypt(14, 8, 1).unwrap(),
            Scheme::scrypt(14, 8, 5).unwrap(),
            Scheme::pbkdf2(Pbkdf2Digest::Sha256, 29_000, 32).unwrap(),
            Scheme::pbkdf2(Pbkdf2Digest::Sha256, 600_000, 64).unwrap(),
            Scheme::pbkdf2(Pbkdf2Digest::Sha1, 1000, 20).unwrap(),
        ]
    }

    /// Everything that a refusal does, summed up by kind.
    fn total(cost: &RefusalCost, spent: Option<Work>) -> Vec<Work> {
        let mut sum = cost.missing(spent);
        if let Some(spent) = spent {
            match sum.iter_mut().find(|work| work.kind == spent.kind) {
                Some(work) => work.units += spent.units,
                None => sum.push(spent),
            }
        }
        sum.sort_by_key(|work| format!("{:?}", work.kind));
        sum
    }

    #[test]
    fn p6_every_refusal_costs_the_same_whatever_hash_the_account_has() {
        let mut cost = RefusalCost::of(schemes()[0]);
        for scheme in schemes() {
            assert!(cost.learn(scheme));
        }
        let nobody = total(&cost, None);
        assert_eq!(nobody.len(), 6, "one amount for each kind: {nobody:?}");
        for scheme in schemes() {
            assert_eq!(total(&cost, Some(Work::of(scheme))), nobody, "{scheme}");
        }
    }

    #[test]
    fn p6_a_refusal_is_one_hash_while_all_have_the_current_scheme() {
        let current = schemes()[0];
        let cost = RefusalCost::of(current);
        assert_eq!(cost.missing(None), [Work::of(current)]);
        assert_eq!(cost.missing(Some(Work::of(current))), []);
    }

    #[test]
    fn p5_the_cost_of_a_refusal_stays_bounded_whatever_is_imported() {
        let mut cost = RefusalCost::of(schemes()[0]);
        for memory_kib in 100..200 {
            let scheme = Scheme::argon2(argon2::Algorithm::Argon2d, argon2::Version::V0x13, memory_kib, 1, 1).unwrap();
            cost.learn(scheme);
        }
        assert_eq!(cost.missing(None).len(), MAX_KINDS);
    }
}
