//! The pieces of a pattern between its `*`, and how each is searched.

use super::{is_word, steps};
use crate::limits::PATTERN_CHARS_MAX;

/// Characters of a piece with `?` whose search needs no memory of its own: all of conditions.
pub(super) const PIECE_CHARS_ON_STACK: usize = PATTERN_CHARS_MAX;
pub(super) const WORD_BITS: usize = 64;

/// Where a part of a value has to lie between boundaries of words.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) start: bool,
    pub(super) end: bool,
}

impl Bounds {
    pub(super) const NONE: Self = Self {
        start: false,
        end: false,
    };

    pub(super) fn allow(self, value: &str, start: usize, end: usize) -> bool {
        (!self.start || is_boundary(value, start)) && (!self.end || is_boundary(value, end))
    }
}

pub(super) fn is_boundary(value: &str, at: usize) -> bool {
    let bytes = value.as_bytes();
    at == 0 || at == bytes.len() || !is_word(bytes[at - 1]) || !is_word(bytes[at])
}

/// A part of a pattern without `*`.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Empty,
    Literal(Literal),
    Masked(Masked),
}

impl Piece {
    pub(super) fn new(text: &str) -> Self {
        if text.contains('?') {
            Self::Masked(Masked::new(text))
        } else {
            Self::name(text)
        }
    }

    /// The same, with `?` and `*` standing for themselves.
    pub(super) fn name(name: &str) -> Self {
        if name.is_empty() {
            Self::Empty
        } else {
            Self::Literal(Literal::new(name))
        }
    }

    /// Finds the first end of this piece at or behind `from` that the bounds allow.
    pub(super) fn find(&self, value: &str, from: usize, bounds: Bounds) -> Option<usize> {
        match self {
            // First it stands at the start, last it can stand at the end: both are boundaries.
            Self::Empty => Some(from),
            Self::Literal(literal) => literal.find(value, from, bounds),
            Self::Masked(masked) => masked.find(value, from, bounds),
        }
    }

    pub(super) fn end_of_prefix(&self, value: &str) -> Option<usize> {
        match self {
            Self::Empty => Some(0),
            Self::Literal(literal) => {
                let is_prefix = value.as_bytes().starts_with(literal.text.as_bytes());
                is_prefix.then_some(literal.text.len())
            }
            Self::Masked(masked) => {
                let mut chars = value.chars();
                let fits = masked
                    .chars
                    .iter()
                    .all(|wanted| chars.next().is_some_and(|c| fits(*wanted, c)));
                fits.then(|| value.len() - chars.as_str().len())
            }
        }
    }

    pub(super) fn start_of_suffix(&self, value: &str) -> Option<usize> {
        match self {
            Self::Empty => Some(value.len()),
            Self::Literal(literal) => value.strip_suffix(&*literal.text).map(str::len),
            Self::Masked(masked) => {
                let mut chars = value.chars();
                let mut wanted = masked.chars.iter().rev();
                let fits = wanted.all(|wanted| chars.next_back().is_some_and(|c| fits(*wanted, c)));
                fits.then_some(chars.as_str().len())
            }
        }
    }
}

pub(super) fn fits(wanted: char, c: char) -> bool {
    wanted == '?' || wanted == c
}

/// Text, with the table of Knuth, Morris and Pratt.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Literal {
    pub(super) text: Box<str>,
    /// For each count of bytes: how many of its last ones the text begins with, not all of them.
    borders: Box<[u32]>,
}

impl Literal {
    pub(super) fn new(text: &str) -> Self {
        let mut borders = vec![0; text.len() + 1];
        fill_borders(text.as_bytes(), &mut borders);
        Self {
            text: text.into(),
            borders: borders.into(),
        }
    }

    pub(super) fn find(&self, value: &str, from: usize, bounds: Bounds) -> Option<usize> {
        find(self.text.as_bytes(), &self.borders, value, from, bounds)
    }
}

/// Fills in, for each count of first bytes, how many of their last ones the text begins with.
pub(super) fn fill_borders(text: &[u8], borders: &mut [u32]) {
    let mut border = 0_u32;
    for (at, byte) in text.iter().enumerate().skip(1) {
        while border > 0 && text[border as usize] != *byte {
            border = borders[border as usize];
        }
        border += u32::from(text[border as usize] == *byte);
        borders[at + 1] = border;
    }
}

pub(super) fn find(
    text: &[u8],
    borders: &[u32],
    value: &str,
    from: usize,
    bounds: Bounds,
) -> Option<usize> {
    let mut known = 0;
    for (at, byte) in value.bytes().enumerate().skip(from) {
        steps::count(1);
        while known > 0 && text[known] != byte {
            steps::count(1);
            known = borders[known] as usize;
        }
        known += usize::from(text[known] == byte);
        if known == text.len() {
            let end = at + 1;
            if bounds.allow(value, end - text.len(), end) {
                return Some(end);
            }
            known = borders[known] as usize;
        }
    }
    None
}

/// Characters and `?`, with the places of each character.
///
/// Memory is linear in the characters: who stands at fewer places than a set of bits has words is
/// kept as a list, and of the others there are no more than 64.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Masked {
    chars: Box<[char]>,
    /// The places of the `?`, which is all that other characters fit.
    any: Box<[u64]>,
    /// Sorted by character; each set has the places of the `?` too.
    often: Box<[(char, Box<[u64]>)]>,
    /// Sorted by character.
    seldom: Box<[(char, u32)]>,
}

impl Masked {
    /// Returns how much is kept, in words and places.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        let often = self.often.iter().map(|(_, bits)| 1 + bits.len());
        self.any.len() + often.sum::<usize>() + self.seldom.len()
    }

    pub(super) fn new(text: &str) -> Self {
        let chars: Box<[char]> = text.chars().collect();
        let mut places: Vec<(char, u32)> = chars.iter().copied().zip(0..).collect();
        places.sort_unstable();
        let words = chars.len().div_ceil(WORD_BITS);
        let mut any = vec![0; words];
        let wildcards = places.iter().filter(|(c, _)| *c == '?');
        wildcards.for_each(|(_, place)| set(&mut any, *place));
        let mut often = Vec::new();
        let mut seldom = Vec::new();
        for same in places.chunk_by(|(one, _), (other, _)| one == other) {
            let c = same[0].0;
            if c == '?' {
                continue;
            }
            if same.len() < words {
                seldom.extend_from_slice(same);
                continue;
            }
            let mut bits: Box<[u64]> = any.clone().into();
            same.iter().for_each(|(_, place)| set(&mut bits, *place));
            often.push((c, bits));
        }
        Self {
            chars,
            any: any.into(),
            often: often.into(),
            seldom: seldom.into(),
        }
    }

    pub(super) fn find(&self, value: &str, from: usize, bounds: Bounds) -> Option<usize> {
        if value.len() - from < self.chars.len() {
            return None;
        }
        let words = self.any.len();
        if words * WORD_BITS <= PIECE_CHARS_ON_STACK {
            let mut sets = [0; 2 * PIECE_CHARS_ON_STACK / WORD_BITS];
            self.search(value, from, bounds, sets[..2 * words].split_at_mut(words))
        } else {
            let mut sets = vec![0; 2 * words];
            self.search(value, from, bounds, sets.split_at_mut(words))
        }
    }

    /// Bit `n` of the first set says that the characters up to here fit the first `n + 1` of the
    /// piece; the second set is to work with.
    pub(super) fn search(
        &self,
        value: &str,
        from: usize,
        bounds: Bounds,
        (mut begun, mut next): (&mut [u64], &mut [u64]),
    ) -> Option<usize> {
        let last = self.chars.len() - 1;
        for (at, c) in value[from..].char_indices() {
            let at = from + at;
            let begins = !bounds.start || is_boundary(value, at);
            self.step(c, begins, begun, next);
            (begun, next) = (next, begun);
            let end = at + c.len_utf8();
            let whole = begun[last / WORD_BITS] >> (last % WORD_BITS) & 1 == 1;
            if whole && (!bounds.end || is_boundary(value, end)) {
                return Some(end);
            }
        }
        None
    }

    /// Goes on by a character in all places where the piece has begun, and begins it once more.
    pub(super) fn step(&self, c: char, begins: bool, begun: &[u64], next: &mut [u64]) {
        let known = self.often.binary_search_by_key(&c, |(known, _)| *known);
        let fitting = known.map_or(&self.any, |index| &self.often[index].1);
        let mut carry = u64::from(begins);
        for ((next, begun), fitting) in next.iter_mut().zip(begun).zip(fitting) {
            steps::count(1);
            *next = (begun << 1 | carry) & fitting;
            carry = begun >> (WORD_BITS - 1);
        }
        let first = self.seldom.partition_point(|(other, _)| *other < c);
        let places = self.seldom[first..].iter();
        for (_, place) in places.take_while(|(other, _)| *other == c) {
            steps::count(1);
            let fits = match place.checked_sub(1) {
                Some(before) => is_set(begun, before),
                None => begins,
            };
            if fits {
                set(next, *place);
            }
        }
    }
}

pub(super) fn set(bits: &mut [u64], place: u32) {
    let place = place as usize;
    bits[place / WORD_BITS] |= 1 << (place % WORD_BITS);
}

pub(super) fn is_set(bits: &[u64], place: u32) -> bool {
    let place = place as usize;
    bits[place / WORD_BITS] >> (place % WORD_BITS) & 1 == 1
}
