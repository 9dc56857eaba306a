//! Facts: what an event says, as numbers to be looked up at once.
//!
//! Nearly all rules do not match an event, and nearly all of them for want of one simple fact: that
//! the type is this, that the body has that word. So a rule is compiled with one such [`Fact`], an
//! event is parsed into a set of its own, and a rule is looked at only where the set may hold its
//! fact. The set can err in one direction alone: it may hold a fact that is none of the event's.

use std::hash::{BuildHasher, DefaultHasher, Hash, RandomState};
use std::sync::LazyLock;

use crate::event::Scalar;

/// Bits of a set for each fact in it, of which it takes two: one look-up in 1,024 or fewer errs.
const BITS_A_FACT: usize = 64;
/// Bits of the largest set, 8 KiB. A body with more words than these can tell apart makes rules be
/// looked at in vain, and nothing worse.
const BITS_MAX: usize = 1 << 16;
const BITS_MIN: usize = 1 << 9;

/// Something that an event may say, by its hash.
///
/// The hash has a key of this process, so that nobody can write an event of facts that collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// The places of the two bits that stand for this fact in a set.
    fn bits(self, mask: u32) -> [u32; 2] {
        [self.0 & mask, (self.0 >> 16) & mask]
    }

    #[expect(clippy::cast_possible_truncation, reason = "32 of its bits are enough")]
    fn of(what: impl Hash) -> Self {
        Self(HASHES.hash_one(what) as u32)
    }
}

/// The facts of an event.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    bits: Box<[u64]>,
    mask: u32,
}

impl Facts {
    pub(crate) fn new(facts: &[Fact]) -> Self {
        let wanted = facts.len().saturating_mul(BITS_A_FACT).next_power_of_two();
        let count = wanted.clamp(BITS_MIN, BITS_MAX);
        let mut bits = vec![0_u64; count / 64];
        let mask = u32::try_from(count - 1).expect("a set has few bits");
        for fact in facts.iter().chain([&Fact::TRUTH]) {
            for bit in fact.bits(mask) {
                bits[(bit / 64) as usize] |= 1 << (bit % 64);
            }
        }
        Self {
            bits: bits.into(),
            mask,
        }
    }

    /// Tells whether a fact may be among these; `false` is certain.
    pub(crate) fn may_hold(&self, fact: Fact) -> bool {
        let mut bits = fact.bits(self.mask).into_iter();
        bits.all(|bit| self.bits[(bit / 64) as usize] >> (bit % 64) & 1 == 1)
    }
}
