//! Units of work, so that every refusal costs the same.

use super::limits::Limits;
use super::scheme::{Pbkdf2Digest, Scheme};

/// Maximum number of kinds of work in a refusal. A real export has one to four. A refusal for a hash of a further
/// kind is distinguishable by its time.
const MAX_KINDS: usize = 16;

/// A kind of work, and its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The unit is one hash with these parameters, and the amount is always one: two smaller hashes would not take
    /// the same time.
    Whole(Scheme),
    /// The unit is one iteration; amounts add up exactly. (Django raised its iterations with each release, so an
    /// export has many different counts.)
    Pbkdf2(Pbkdf2Digest),
}

/// An amount of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) kind: Kind,
    pub(super) units: u32,
}

impl Work {
    /// The work of one verification under this scheme.
    pub(super) fn of(scheme: Scheme) -> Self {
        match scheme {
            Scheme::Argon2 { .. } | Scheme::Bcrypt { .. } | Scheme::Scrypt { .. } => {
                Self { kind: Kind::Whole(scheme), units: 1 }
            }
            Scheme::Pbkdf2 { digest, iterations, output } => {
                let blocks = output.div_ceil(digest.block_bytes()).into();
                Self { kind: Kind::Pbkdf2(digest), units: iterations.saturating_mul(blocks) }
            }
        }
    }
}

/// The next step of a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Compare with the stored hash; a match ends the verification.
    Verify,
    /// Work with an unused result.
    Spend(Work),
}

/// The cost of every refused password: for each kind of work, in this order, as much as the most expensive known
/// hash.
#[derive(Debug)]
pub(super) struct RefusalCost {
    kinds: Vec<Work>,
    /// Work that other schemes may still add, in the unit of [`Work::cost`].
    left: u64,
}

impl RefusalCost {
    /// The cost if every hash has the current scheme. Other schemes may add as much as `limits` allow.
    pub(super) fn of(current: Scheme, limits: &Limits) -> Self {
        Self { kinds: vec![Work::of(current)], left: limits.cost() }
    }

    /// Adds the scheme of a stored hash. Returns false and changes nothing if there are too many kinds, or if the
    /// limit is reached.
    pub(super) fn learn(&mut self, scheme: Scheme) -> bool {
        let work = Work::of(scheme);
        let is_full = self.kinds.len() >= MAX_KINDS;
        let known = self.kinds.iter_mut().find(|known| known.kind == work.kind);
        let known_units = known.as_ref().map_or(0, |known| known.units);
        let added = Work { units: work.units.saturating_sub(known_units), ..work }.cost();
        let Some(left) = self.left.checked_sub(added) else { return false };
        match known {
            Some(known) => known.units = known.units.max(work.units),
            None if is_full => return false,
            None => self.kinds.push(work),
        }
        self.left = left;
        true
    }

    /// The steps of a refusal, always in the same order, because earlier work affects the time of later work through
    /// the caches. The step with the work of the stored hash verifies that hash. The current scheme comes first, so
    /// that a match under it costs no other work. A scheme that was not learned is verified alone, so that no refusal
    /// costs more than one hash above the limit.
    pub(super) fn steps(&self, stored: Option<Scheme>) -> Vec<Step> {
        let own = stored.map(Work::of);
        let is_learned = |own: Work| self.kinds.iter().any(|known| known.kind == own.kind && known.units >= own.units);
        if own.is_some_and(|own| !is_learned(own)) {
            return vec![Step::Verify];
        }
        let mut steps = Vec::with_capacity(self.kinds.len() + 1);
        for due in &self.kinds {
            let spent = own.filter(|own| own.kind == due.kind);
            steps.extend(spent.map(|_| Step::Verify));
            let units = due.units.saturating_sub(spent.map_or(0, |own| own.units));
            steps.extend((units > 0).then_some(Step::Spend(Work { kind: due.kind, units })));
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argon2(variant: argon2::Algorithm, memory_kib: u32, passes: u32) -> Scheme {
        Scheme::argon2(variant, argon2::Version::V0x13, memory_kib, passes, 1).unwrap()
    }

    fn limits(cost: u32) -> Limits {
        Limits::new(schemes()[0], cost, 1024 * 1024)
    }

    fn schemes() -> Vec<Scheme> {
        vec![
            argon2(argon2::Algorithm::Argon2id, 19_456, 2),
            argon2(argon2::Algorithm::Argon2id, 19_456, 5),
            argon2(argon2::Algorithm::Argon2i, 4096, 3),
            Scheme::bcrypt(4).unwrap(),
            Scheme::bcrypt(12).unwrap(),
            Scheme::scrypt(14, 8, 1).unwrap(),
            Scheme::scrypt(14, 8, 5).unwrap(),
            Scheme::pbkdf2(Pbkdf2Digest::Sha256, 29_000, 32).unwrap(),
            Scheme::pbkdf2(Pbkdf2Digest::Sha256, 600_000, 64).unwrap(),
            Scheme::pbkdf2(Pbkdf2Digest::Sha1, 1000, 20).unwrap(),
        ]
    }

    /// The work of a refusal in order, with the amounts of one kind added up.
    fn total(cost: &RefusalCost, stored: Option<Scheme>) -> Vec<Work> {
        let mut sum: Vec<Work> = Vec::new();
        for step in cost.steps(stored) {
            let work = match step {
                Step::Verify => Work::of(stored.unwrap()),
                Step::Spend(work) => work,
            };
            match sum.last_mut() {
                Some(last) if last.kind == work.kind => last.units += work.units,
                _ => sum.push(work),
            }
        }
        sum
    }

    #[test]
    fn p6_every_refusal_does_the_same_work_in_the_same_order_whatever_hash_is_stored() {
        let mut cost = RefusalCost::of(schemes()[0], &limits(u32::MAX));
        for scheme in schemes() {
            assert!(cost.learn(scheme));
        }
        let unknown_user = total(&cost, None);
        assert_eq!(unknown_user.len(), 9, "{unknown_user:?}");
        assert_eq!(unknown_user[7], Work { kind: Kind::Pbkdf2(Pbkdf2Digest::Sha256), units: 1_200_000 });
        for scheme in schemes() {
            assert_eq!(total(&cost, Some(scheme)), unknown_user, "{scheme}");
        }
    }

    #[test]
    fn p6_a_refusal_is_one_hash_if_all_hashes_have_the_current_scheme() {
        let current = schemes()[0];
        let cost = RefusalCost::of(current, &limits(u32::MAX));
        assert_eq!(cost.steps(None), [Step::Spend(Work::of(current))]);
        assert_eq!(cost.steps(Some(current)), [Step::Verify]);
    }

    #[test]
    fn a_match_under_the_current_scheme_computes_no_other_hash() {
        let mut cost = RefusalCost::of(schemes()[0], &limits(u32::MAX));
        cost.learn(schemes()[4]);
        assert_eq!(cost.steps(Some(schemes()[0]))[0], Step::Verify);
    }

    #[test]
    fn p5_the_cost_of_a_refusal_stays_bounded_whatever_is_imported() {
        let mut cost = RefusalCost::of(schemes()[0], &limits(u32::MAX));
        for memory_kib in 100..200 {
            cost.learn(argon2(argon2::Algorithm::Argon2d, memory_kib, 1));
        }
        assert_eq!(cost.steps(None).len(), MAX_KINDS);
        assert_eq!(cost.steps(Some(argon2(argon2::Algorithm::Argon2d, 199, 1))), [Step::Verify]);
    }

    #[test]
    fn p13_a_refusal_costs_at_most_the_limit_plus_the_current_hash() {
        let current = Work::of(schemes()[0]).cost();
        let mut cost = RefusalCost::of(schemes()[0], &limits(24));
        let mut stored = schemes();
        stored.extend([Scheme::bcrypt(16).unwrap(), argon2(argon2::Algorithm::Argon2id, 1024 * 1024, 16)]);
        stored.extend((8..16).map(|log_n| Scheme::scrypt(log_n, 8, 16).unwrap()));
        let learned: Vec<_> = stored.iter().map(|scheme| cost.learn(*scheme)).collect();
        assert!(learned.contains(&true) && learned.contains(&false), "{learned:?}");
        let spent: u64 = total(&cost, None).iter().map(Work::cost).sum();
        assert!(spent > current && spent <= 25 * current, "{spent}");
        for scheme in stored {
            let own = Work::of(scheme).cost();
            let spent: u64 = total(&cost, Some(scheme)).iter().map(Work::cost).sum();
            assert!(spent <= own.max(25 * current), "{scheme} costs {spent}");
        }
    }
}
