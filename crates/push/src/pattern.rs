//! Glob patterns, and the boundaries of words.
//!
//! `*` stands for any run of characters, an empty one too, and `?` for exactly one; nothing escapes
//! them. A character is a Unicode scalar value, and a line break is one like any other.
//!
//! Case is ignored by Unicode's simple lower-casing, character by character, of pattern and value
//! alike. So lengths in characters stay, which `?` counts; what only full case folding holds equal
//! (`ß` and `SS`, the two lower-case sigmas) stays different. Boundaries of words are looked for in
//! lower case too: the Kelvin sign and `İ`, which are letters of ASCII there, belong to words.
//!
//! Pieces between `*` are searched one behind the other, each from where the one before ended, and
//! no byte of the value is ever asked twice. A piece without `?` is searched by Knuth, Morris and
//! Pratt's way, in some two steps a byte. One with `?` is searched by a set of bits, 64 of its
//! characters in one step, so in a step for each 64 of them and each character of the value: for
//! patterns of conditions, which have at most [`PATTERN_CHARS_MAX`](crate::limits::PATTERN_CHARS_MAX) characters, these are eight.
//! Time and memory of making a pattern are in proportion to its length.

mod piece;

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use piece::{Bounds, Literal, Piece, fill_borders, find};

/// Bytes of a text whose search as words needs no memory of its own; servers allow names of some
/// 256 characters.
const TEXT_BYTES_ON_STACK: usize = 512;

/// A pattern, made ready to be searched many times.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    /// What stands between the `*`; they are one fewer.
    pieces: Box<[Piece]>,
    within: Within,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Whole,
    Words,
}

impl Pattern {
    /// Makes a pattern that has to match a whole value.
    #[must_use]
    pub fn whole(pattern: &str) -> Self {
        Self::new(pattern, Within::Whole)
    }

    /// Makes a pattern that has to match some part of a value between two boundaries of words.
    ///
    /// Such a boundary is the start and the end of the value, and each place beside a character
    /// that is not in `A-Z`, `a-z`, `0-9` and `_`. An empty pattern matches everywhere.
    #[must_use]
    pub fn words(pattern: &str) -> Self {
        Self::new(pattern, Within::Words)
    }

    /// Tells whether the pattern matches a value, whatever the case of both.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        self.matches_lowered(&lower(value))
    }

    /// Tells the same for a value that [`lower`] has passed, without allocating.
    pub(crate) fn matches_lowered(&self, value: &str) -> bool {
        match self.within {
            Within::Whole => self.matches_whole(value),
            Within::Words => self.matches_words(value),
        }
    }

    /// The only value that a pattern of whole values without wildcards matches, in lower case.
    pub(crate) fn literal(&self) -> Option<&str> {
        match (&*self.pieces, self.within) {
            ([Piece::Empty], Within::Whole) => Some(""),
            ([Piece::Literal(literal)], Within::Whole) => Some(&literal.text),
            _ => None,
        }
    }

    /// Makes the pattern of [`whole`](Self::whole) of a name, in which nothing is a wildcard.
    pub(crate) fn whole_name(name: &str) -> Self {
        Self::of_name(name, Within::Whole)
    }

    /// Makes the pattern of [`words`](Self::words) of a name, in which nothing is a wildcard.
    pub(crate) fn words_of_name(name: &str) -> Self {
        Self::of_name(name, Within::Words)
    }

    fn new(pattern: &str, within: Within) -> Self {
        let pieces = lower(pattern).split('*').map(Piece::new).collect();
        Self { pieces, within }
    }

    fn of_name(name: &str, within: Within) -> Self {
        let pieces = [Piece::name(&lower(name))].into();
        Self { pieces, within }
    }

    fn matches_whole(&self, value: &str) -> bool {
        let (first, rest) = self
            .pieces
            .split_first()
            .expect("a split has a first piece");
        let Some(mut at) = first.end_of_prefix(value) else {
            return false;
        };
        let Some((last, middle)) = rest.split_last() else {
            return at == value.len();
        };
        for piece in middle {
            match piece.find(value, at, Bounds::NONE) {
                Some(end) => at = end,
                None => return false,
            }
        }
        last.start_of_suffix(value).is_some_and(|start| at <= start)
    }

    fn matches_words(&self, value: &str) -> bool {
        let last = self.pieces.len() - 1;
        let mut at = 0;
        for (index, piece) in self.pieces.iter().enumerate() {
            let bounds = Bounds {
                start: index == 0,
                end: index == last,
            };
            match piece.find(value, at, bounds) {
                Some(end) => at = end,
                None => return false,
            }
        }
        true
    }
}

impl fmt::Debug for Pattern {
    /// Shows nothing of the text: the keywords of users are nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut pattern = f.debug_struct("Pattern");
        pattern
            .field("within", &self.within)
            .finish_non_exhaustive()
    }
}

/// Lower-cases a text as this crate compares texts: each character for itself, one for one.
pub(crate) fn lower(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Cow::Owned(text.to_ascii_lowercase());
        }
    } else if text.chars().any(|c| lower_char(c) != c) {
        return Cow::Owned(text.chars().map(lower_char).collect());
    }
    Cow::Borrowed(text)
}

/// Tells whether a text stands in a value between boundaries of words, whatever its case.
///
/// The value has passed [`lower`]. Nothing in the text is a wildcard, and an empty one is nowhere.
/// Only a text that has more than [`TEXT_BYTES_ON_STACK`] in lower case needs memory of its own.
pub(crate) fn has_words(value: &str, text: &str) -> bool {
    if text.is_empty() {
        return false;
    }
    let bounds = Bounds {
        start: true,
        end: true,
    };
    let mut lowered = [0; TEXT_BYTES_ON_STACK];
    let mut borders = [0; TEXT_BYTES_ON_STACK + 1];
    match lower_into(text, &mut lowered) {
        Some(bytes) => {
            let text = &lowered[..bytes];
            fill_borders(text, &mut borders);
            find(text, &borders, value, 0, bounds).is_some()
        }
        None => Literal::new(&lower(text)).find(value, 0, bounds).is_some(),
    }
}

/// Writes the lower case of a text and returns its bytes, if it has room.
fn lower_into(text: &str, out: &mut [u8]) -> Option<usize> {
    let mut bytes = 0;
    for c in text.chars().map(lower_char) {
        let room = out.get_mut(bytes..bytes + c.len_utf8())?;
        bytes += c.encode_utf8(room).len();
    }
    Some(bytes)
}

/// Only `İ` becomes two characters in lower case; its simple form is the first of them.
fn lower_char(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

/// Tells whether a byte belongs to a word; those of characters beyond ASCII do not.
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Finds the longest word that each value has, between boundaries, where this pattern of words
/// matches. The pattern is in lower case.
///
/// What stands beside a wildcard may go on in the value, and is no whole word then.
pub(crate) fn required_word(pattern: &str) -> Option<&str> {
    let bytes = pattern.as_bytes();
    let wildcard = |at: Option<usize>| {
        let byte = at.and_then(|at| bytes.get(at));
        byte.is_some_and(|byte| matches!(byte, b'*' | b'?'))
    };
    let mut longest = "";
    let mut start = 0;
    for end in 0..=bytes.len() {
        if bytes.get(end).is_some_and(|byte| is_word(*byte)) {
            continue;
        }
        if end - start > longest.len() && !wildcard(start.checked_sub(1)) && !wildcard(Some(end)) {
            longest = &pattern[start..end];
        }
        start = end + 1;
    }
    (!longest.is_empty()).then_some(longest)
}

/// Characters beyond ASCII in a row that are looked at together: with three of them few texts of a
/// language have the same, and many keywords of some languages have no more than two.
const RUN_CHARS: RangeInclusive<usize> = 2..=3;

/// Finds some characters beyond ASCII, in a row, that each value has where this pattern of words
/// matches: as many as [`runs`] has of them.
pub(crate) fn required_run(pattern: &str) -> Option<&str> {
    let rows = pattern.split(|c: char| c.is_ascii());
    let longest = rows.max_by_key(|row| row.len())?;
    let chars = longest.chars().count().min(*RUN_CHARS.end());
    // The last ones: words of a text begin alike more often than they end.
    runs(longest)
        .filter(|run| run.chars().count() == chars)
        .last()
}

/// Returns all characters beyond ASCII that stand in a row, two and three at a time.
pub(crate) fn runs(text: &str) -> impl Iterator<Item = &str> {
    let starts = text.char_indices().filter(|(_, c)| !c.is_ascii());
    starts.flat_map(move |(start, _)| {
        let row = text[start..]
            .char_indices()
            .take_while(|(_, c)| !c.is_ascii());
        let ends = row.map(move |(at, c)| start + at + c.len_utf8());
        let ends = ends.take(*RUN_CHARS.end()).skip(RUN_CHARS.start() - 1);
        ends.map(move |end| &text[start..end])
    })
}

/// What a search costs, for the tests that hold it to be linear.
mod steps {
    #[cfg(test)]
    thread_local!(static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) });

    #[cfg(test)]
    pub(super) fn count(steps: usize) {
        STEPS.set(STEPS.get() + steps);
    }

    #[cfg(not(test))]
    pub(super) fn count(_steps: usize) {}

    #[cfg(test)]
    pub(super) fn taken(of: impl FnOnce()) -> usize {
        STEPS.set(0);
        of();
        STEPS.get()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::piece::{Masked, PIECE_CHARS_ON_STACK, WORD_BITS};
    use super::*;

    /// What the specification says, by trying all there is to try.
    fn naive(pattern: &[char], value: &[char]) -> bool {
        match pattern.split_first() {
            None => value.is_empty(),
            Some(('*', rest)) => (0..=value.len()).any(|skip| naive(rest, &value[skip..])),
            Some(('?', rest)) => !value.is_empty() && naive(rest, &value[1..]),
            Some((c, rest)) => value.first() == Some(c) && naive(rest, &value[1..]),
        }
    }

    fn naive_words(pattern: &[char], value: &[char]) -> bool {
        let is_word = |c: char| matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '_');
        let bounds: Vec<usize> = (0..=value.len())
            .filter(|at| {
                let before = at.checked_sub(1).map(|before| value[before]);
                let behind = value.get(*at).copied();
                !before.is_some_and(is_word) || !behind.is_some_and(is_word)
            })
            .collect();
        let parts = bounds.iter().enumerate();
        let mut parts = parts.flat_map(|(n, start)| bounds[n..].iter().map(|end| (*start, *end)));
        parts.any(|(start, end)| naive(pattern, &value[start..end]))
    }

    fn chars(text: &str) -> Vec<char> {
        text.chars().map(lower_char).collect()
    }

    #[test]
    fn a_pattern_matches_a_whole_value_whatever_the_case() {
        for (pattern, value, matches) in [
            ("m.notice", "m.notice", true),
            ("M.Notice", "m.nOTICE", true),
            ("m.notice", "m.notices", false),
            ("m.notice", "am.notice", false),
            ("m*notice", "m.notice", true),
            ("m.*", "m.", true),
            ("*", "", true),
            ("**", "x", true),
            ("", "", true),
            ("", "x", false),
            ("?", "", false),
            ("?", "é", true),
            ("?", "\n", true),
            ("??", "é", false),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
            ("ab*ba", "aba", false),
            ("*a?", "aab", true),
            ("a?*?a", "axa", false),
            ("a?*?a", "axya", true),
            ("a.b", "axb", false),
            ("[ab]", "a", false),
            (r"\*", r"\x", true),
            ("ÄÖ*", "äöü", true),
            ("ПРИВЕТ", "привет", true),
            ("İ", "i", true),
            ("ẞ", "ss", false),
            ("line*break", "line\nbreak", true),
        ] {
            let found = Pattern::whole(pattern).matches(value);
            assert_eq!(found, matches, "{pattern:?} and {value:?}");
        }
    }

    #[test]
    fn a_pattern_of_words_matches_between_their_boundaries() {
        for (pattern, value, matches) in [
            ("alice", "hello Alice!", true),
            ("alice", "hello malice", false),
            ("alice", "alice's", true),
            ("alice", "alice_b", false),
            ("alice", "alices and alice", true),
            ("alice", "ÄaliceÖ", true),
            ("ali", "alice", false),
            ("ali*", "hello alice", true),
            ("ali*", "hello malice", false),
            ("*lice", "hello malice!", true),
            ("*lice", "licex", false),
            ("a?ice", "an alice", true),
            ("a?ice", "an alicex", false),
            ("a?a", "aaa", true),
            ("a*b", "b a", false),
            ("@room", "hey @room", true),
            ("@room", "foo@room", true),
            ("@room", "@rooms", false),
            ("a a", "ba a a", true),
            ("x.x", "x.xy x.x", true),
            ("привет", "вприветы", true),
            ("caf", "café", true),
            ("", "anything", true),
            ("*", "", true),
            ("?", "ab", false),
            ("?", "ab c", true),
            ("a*c", "ab bc", true),
            ("a*c", "ab bcd", false),
        ] {
            let found = Pattern::words(pattern).matches(value);
            assert_eq!(found, matches, "{pattern:?} and {value:?}");
        }
    }

    #[test]
    fn a_name_is_found_between_boundaries_and_has_no_wildcards() {
        for (name, value, found) in [
            ("Alice", "hi alice.", true),
            ("Alice", "hi alices", false),
            ("A*e", "alice", false),
            ("A*e", "hi a*e", true),
            ("", "", false),
            ("", "hi", false),
            ("ÄB", "äb", true),
        ] {
            assert_eq!(has_words(value, name), found, "{name:?} and {value:?}");
        }
    }

    #[test]
    fn a_name_too_long_for_the_stack_is_found_too() {
        for chars in [TEXT_BYTES_ON_STACK / 2, TEXT_BYTES_ON_STACK / 2 + 1] {
            let name = "É".repeat(chars);
            let value = format!("x {}", lower(&name));
            assert!(has_words(&value, &name), "{chars}");
            assert!(!has_words(&value[..value.len() - 2], &name), "{chars}");
        }
    }

    #[test]
    fn a_required_word_stands_beside_no_wildcard() {
        for (pattern, word) in [
            ("alice", Some("alice")),
            ("hi alice", Some("alice")),
            ("alice*", None),
            ("hi *alice", Some("hi")),
            ("a?ice the", Some("the")),
            ("é", None),
            ("*", None),
            ("", None),
            ("a-bc-d", Some("bc")),
        ] {
            assert_eq!(required_word(pattern), word, "{pattern:?}");
        }
    }

    #[test]
    fn a_required_run_has_two_or_three_characters_beyond_ascii() {
        for (pattern, run) in [
            ("привет", Some("вет")),
            ("你好", Some("你好")),
            ("при*вета", Some("ета")),
            ("пр?ве", Some("пр")),
            ("é", None),
            ("é é", None),
            ("alice", None),
            ("", None),
        ] {
            let found = required_run(pattern);
            assert_eq!(
                found.map(|run| run.chars().count()),
                run.map(|run| run.chars().count())
            );
            assert!(found.is_none_or(|run| pattern.contains(run)), "{pattern:?}");
        }
        let all: Vec<&str> = runs("aбвгд éx").collect();
        assert_eq!(all, ["бв", "бвг", "вг", "вгд", "гд"]);
    }

    /// A piece is as long as the value's half, so that what is not linear is quadratic at least.
    #[test]
    fn the_steps_are_linear_in_the_value_whatever_the_pattern() {
        let many = 20_000;
        let value = "a".repeat(many);
        let words = "a ".repeat(many / 2);
        let long = "a".repeat(many / 2);
        let bits = many.div_ceil(2).div_ceil(WORD_BITS);
        let seldoms: String = ('а'..)
            .take(bits / 2)
            .collect::<String>()
            .repeat(many / bits * 2);
        let half = seldoms.chars().take(many / 2);
        let seldom: String = half.chain(['?', 'b']).collect();
        for (pattern, value, steps_max) in [
            (Pattern::whole(&"a*".repeat(1_000)), format!("{value}b"), 1),
            (
                Pattern::whole(&format!("{}b", "a*".repeat(1_000))),
                value.clone(),
                1,
            ),
            (Pattern::whole(&format!("*{long}b*")), value.clone(), 2),
            (Pattern::words(&format!("{long}b")), value.clone(), 2),
            (Pattern::words(&long), value.clone(), 2),
            (
                Pattern::words(&"a ".repeat(many / 4)),
                format!("b{words}"),
                2,
            ),
            (
                Pattern::words(&format!("{}b", "a ".repeat(many / 4))),
                words,
                2,
            ),
            (Pattern::words("a*?*a?*?b"), value.clone(), 1),
            (Pattern::words(&format!("?{long}b")), value, bits + 1),
            (Pattern::words(&seldom), seldoms, 2 * bits + 2),
        ] {
            let steps = steps::taken(|| {
                pattern.matches_lowered(&value);
            });
            assert!(steps <= steps_max * (many + 1), "{steps} steps");
        }
    }

    #[test]
    fn the_memory_of_a_piece_is_linear_in_its_characters() {
        for (kinds, chars) in [
            (1, 5_000),
            (63, 5_000),
            (80, 5_000),
            (5_000, 5_000),
            (9, 10),
        ] {
            let text = ('а'..).take(kinds).cycle().take(chars).chain(['?']);
            let masked = Masked::new(&text.collect::<String>());
            let memory = masked.memory();
            assert!(memory <= 3 * (chars + 1), "{kinds} kinds: {memory}");
        }
    }

    #[test]
    fn pieces_of_seldom_and_of_frequent_characters_match() {
        // 1,001 characters: a set has 16 words, so who stands at 16 places is frequent.
        for kinds in [1, 62, 63, 1_000] {
            let text: Vec<char> = ('а'..).take(kinds).cycle().take(1_000).collect();
            let piece: String = ['?'].iter().chain(&text).collect();
            let pattern = Pattern::whole(&format!("*{piece}*"));
            let found: String = text[500..].iter().chain(&['x']).chain(&text).collect();
            assert!(pattern.matches(&lower(&found)), "{kinds}");
            let broken = found.replacen(text[0], "y", 1_000);
            assert!(!pattern.matches(&broken), "{kinds}");
        }
    }

    #[test]
    fn pieces_too_long_for_the_stack_match_too() {
        let value = "ab".repeat(PIECE_CHARS_ON_STACK);
        for chars in [63, 64, 65, PIECE_CHARS_ON_STACK, PIECE_CHARS_ON_STACK + 1] {
            let piece = format!("*?{}x*", &value[1..chars - 1]);
            let found = format!("{value}{}x", &value[..chars - 1]);
            assert!(Pattern::whole(&piece).matches(&found), "{chars}");
            assert!(!Pattern::whole(&piece).matches(&value), "{chars}");
        }
    }

    proptest! {
        #[test]
        fn whole_values_match_as_the_naive_way_says(
            pattern in "[abA*?é]{0,7}",
            value in "[abAé]{0,9}",
        ) {
            let naive = naive(&chars(&pattern), &chars(&value));
            prop_assert_eq!(Pattern::whole(&pattern).matches(&value), naive);
        }

        #[test]
        fn words_match_as_the_naive_way_says(
            pattern in "[abA*?é -]{0,7}",
            value in "[abAé -]{0,12}",
        ) {
            let naive = naive_words(&chars(&pattern), &chars(&value));
            prop_assert_eq!(Pattern::words(&pattern).matches(&value), naive);
        }

        #[test]
        fn names_are_found_as_the_naive_way_says(
            name in "[abA*é -]{1,5}",
            value in "[ab*é -]{0,12}",
        ) {
            // Wildcards of a name are no wildcards: here they are told by another character.
            let literal = |text: &str| chars(&text.replace('*', "+"));
            let naive = naive_words(&literal(&name), &literal(&value));
            prop_assert_eq!(has_words(&value, &name), naive);
        }

        #[test]
        fn a_required_run_is_in_all_that_matches(
            pattern in "[aбвг*?]{0,6}",
            value in "[aбвг ]{0,10}",
        ) {
            if Pattern::words(&pattern).matches(&value) && let Some(run) = required_run(&pattern) {
                prop_assert!(runs(&value).any(|other| other == run), "{run:?}");
            }
        }

        #[test]
        fn a_required_word_is_a_word_of_all_that_matches(
            pattern in "[ab*? ]{0,6}",
            value in "[ab ]{0,10}",
        ) {
            let words: Vec<&str> = value.split(' ').collect();
            if Pattern::words(&pattern).matches(&value) && let Some(word) = required_word(&pattern) {
                prop_assert!(words.contains(&word), "{word:?}");
            }
        }
    }
}
