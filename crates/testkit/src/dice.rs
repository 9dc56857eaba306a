//! A small seeded source of numbers, for runs that must be the same again.

/// Draws numbers; equal seeds draw equal ones.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Returns the source that `seed` names.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns any number.
    pub fn draw(&mut self) -> u64 {
        // SplitMix64 by Vigna: a few lines, no state but a counter.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from zero up to `bound`, which is not reached.
    pub fn below(&mut self, bound: usize) -> usize {
        let drawn = self.draw() % bound as u64;
        usize::try_from(drawn).unwrap()
    }

    /// Returns true in `percent` of a hundred draws.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}
