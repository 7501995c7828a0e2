//! Work as a quantity, so that every refusal can be made to cost the same.

use super::scheme::{Pbkdf2Digest, Scheme};

/// Kinds of work that a refusal pays for. A real export has one to four of them; more than this many would let an import
/// turn every mistyped password into seconds of work, so the surplus stays out, and stays distinguishable.
const MAX_KINDS: usize = 16;

/// Work that comes in units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A unit is one hash with just these parameters, and there is never more than one: two halves of it would not take
    /// the time of the whole.
    Whole(Scheme),
    /// A unit is one iteration; portions add up exactly. (Django alone raised its iterations with each release, so an
    /// export holds many of them.)
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

/// What is to be done next about a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Compare it with the stored hash; a match ends the matter.
    Verify,
    /// Work whose result nobody uses.
    Spend(Work),
}

/// What every refused password costs: of each kind of work, as much as the dearest hash known, in this order.
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

    /// The steps of a refusal. The verification takes the place of the same work in the order, because what ran before
    /// shows in the time as well (caches). The current scheme comes first: its users pay for nothing else when they match.
    pub(super) fn steps(&self, stored: Option<Scheme>) -> Vec<Step> {
        let own = stored.map(Work::of);
        let mut steps = Vec::with_capacity(self.0.len() + 1);
        for due in &self.0 {
            let spent = own.filter(|own| own.kind == due.kind);
            steps.extend(spent.map(|_| Step::Verify));
            let units = due.units.saturating_sub(spent.map_or(0, |own| own.units));
            steps.extend((units > 0).then_some(Step::Spend(Work { kind: due.kind, units })));
        }
        if stored.is_some() && !steps.contains(&Step::Verify) {
            steps.push(Step::Verify);
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

    /// Everything that a refusal does, in its order, portions of one kind put together.
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
    fn p6_every_refusal_does_the_same_in_the_same_order_whatever_hash_the_account_has() {
        let mut cost = RefusalCost::of(schemes()[0]);
        for scheme in schemes() {
            assert!(cost.learn(scheme));
        }
        let nobody = total(&cost, None);
        assert_eq!(nobody.len(), 9, "{nobody:?}");
        assert_eq!(nobody[7], Work { kind: Kind::Pbkdf2(Pbkdf2Digest::Sha256), units: 1_200_000 });
        for scheme in schemes() {
            assert_eq!(total(&cost, Some(scheme)), nobody, "{scheme}");
        }
    }

    #[test]
    fn p6_a_refusal_is_one_hash_while_all_have_the_current_scheme() {
        let current = schemes()[0];
        let cost = RefusalCost::of(current);
        assert_eq!(cost.steps(None), [Step::Spend(Work::of(current))]);
        assert_eq!(cost.steps(Some(current)), [Step::Verify]);
    }

    #[test]
    fn a_match_under_the_current_scheme_pays_for_nothing_else() {
        let mut cost = RefusalCost::of(schemes()[0]);
        cost.learn(schemes()[4]);
        assert_eq!(cost.steps(Some(schemes()[0]))[0], Step::Verify);
    }

    #[test]
    fn p5_the_cost_of_a_refusal_stays_bounded_whatever_is_imported() {
        let mut cost = RefusalCost::of(schemes()[0]);
        for memory_kib in 100..200 {
            cost.learn(argon2(argon2::Algorithm::Argon2d, memory_kib, 1));
        }
        assert_eq!(cost.steps(None).len(), MAX_KINDS);
        let surplus = cost.steps(Some(argon2(argon2::Algorithm::Argon2d, 199, 1)));
        assert_eq!((surplus.len(), surplus.last()), (MAX_KINDS + 1, Some(&Step::Verify)));
    }
}
