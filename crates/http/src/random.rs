//! Randomness comes in from outside, so that tests can seed it.

/// A source of random bytes fit for secrets.
pub trait Random: Send + Sync + 'static {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// Characters of generated IDs: no vowels and no look-alikes, so that no words come out.
const ID_CHARACTERS: &[u8; 32] = b"BCDFGHJKLMNPQRSTVWXZ234567890BCD";

impl dyn Random {
    /// Returns `length` random characters from `A`–`Z` and the digits.
    pub(crate) fn id(&self, length: usize) -> String {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes);
        let character = |byte: u8| char::from(ID_CHARACTERS[usize::from(byte) % 32]);
        bytes.into_iter().map(character).collect()
    }
}
