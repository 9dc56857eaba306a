//! Facts: what an event says, as numbers to be looked up at once.
//!
//! Nearly all rules do not match an event, and nearly all of them for want of one simple fact: that
//! the type is this, that the body has that word. So a rule is compiled with one such [`Fact`], an
//! event is parsed into a set of its own, and a rule is looked at only where the set may hold its
//! fact. One bit answers nearly all look-ups; what it lets pass is looked up among all facts, by 32
//! bits of their hash. So the set errs once in some million times, and in one direction alone: it
//! may hold a fact that is none of the event's.

use std::hash::{BuildHasher, DefaultHasher, Hash, RandomState};
use std::sync::LazyLock;

use crate::event::Scalar;

/// Bits for each fact: so one bit answers 63 of 64 look-ups of what is not there.
const BITS_A_FACT: usize = 64;
/// The most bits, 8 KiB, which stay in the fastest cache of a processor.
const BITS_MAX: usize = 1 << 16;
const BITS_MIN: usize = 1 << 9;

/// Something that an event may say, by its hash.
///
/// The hash has a key of this process, so that nobody can write an event of facts that collide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fact(u32);

static HASHES: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Returns a hasher of this process.
pub(crate) fn hasher() -> DefaultHasher {
    HASHES.build_hasher()
}

impl Fact {
    /// What is true of every event.
    pub(crate) const TRUTH: Self = Self(0);

    /// The property of this path has a text, whichever.
    pub(crate) fn text(path: u64) -> Self {
        Self::of(("text", path))
    }

    /// The property of this path has this text, given in lower case.
    pub(crate) fn lowered(path: u64, text: &str) -> Self {
        Self::of(("lowered", path, text))
    }

    /// The property of this path has exactly this value.
    pub(crate) fn is(path: u64, value: &Scalar) -> Self {
        Self::of(("is", path, value))
    }

    /// The property of this path is an array with exactly this value.
    pub(crate) fn contains(path: u64, value: &Scalar) -> Self {
        Self::of(("contains", path, value))
    }

    /// The body has this word between boundaries, given in lower case.
    pub(crate) fn word(word: &str) -> Self {
        Self::of(("word", word))
    }

    /// The body has these characters in a row, given in lower case.
    pub(crate) fn run(run: &str) -> Self {
        Self::of(("run", run))
    }

    #[expect(clippy::cast_possible_truncation, reason = "32 of its bits are enough")]
    fn of(what: impl Hash) -> Self {
        Self(HASHES.hash_one(what) as u32)
    }
}

/// The facts of an event.
#[derive(Clone)]
pub(crate) struct Facts {
    bits: Box<[u64]>,
    mask: u32,
    /// All facts in order.
    all: Box<[Fact]>,
}

impl Facts {
    pub(crate) fn new(mut facts: Vec<Fact>) -> Self {
        facts.push(Fact::TRUTH);
        facts.sort_unstable();
        facts.dedup();
        let wanted = (facts.len() * BITS_A_FACT).next_power_of_two();
        let count = wanted.clamp(BITS_MIN, BITS_MAX);
        let mut bits = vec![0_u64; count / 64];
        let mask = u32::try_from(count - 1).expect("a set has few bits");
        for fact in &facts {
            let bit = fact.0 & mask;
            bits[(bit / 64) as usize] |= 1 << (bit % 64);
        }
        Self {
            bits: bits.into(),
            mask,
            all: facts.into(),
        }
    }

    /// Tells whether a fact may be among these; `false` is certain.
    pub(crate) fn may_hold(&self, fact: Fact) -> bool {
        let bit = fact.0 & self.mask;
        let has_bit = self.bits[(bit / 64) as usize] >> (bit % 64) & 1 == 1;
        has_bit && self.all.binary_search(&fact).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_its_facts_and_next_to_no_other() {
        for count in [0, 10, 1_000, 100_000] {
            let word = |number: u32| Fact::word(&number.to_string());
            let facts = Facts::new((0..count).map(word).collect());
            assert!(facts.may_hold(Fact::TRUTH));
            assert!((0..count).all(|number| facts.may_hold(word(number))));
            let others = count..count + 10_000;
            let wrong = others.filter(|number| facts.may_hold(word(*number)));
            assert!(wrong.count() < 5, "{count}");
        }
    }
}
