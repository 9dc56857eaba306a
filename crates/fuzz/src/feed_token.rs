//! The `since` of the stream of device account data.

use kitbag_domain::{FeedPosition, FeedToken};

/// Reads a token as it came, again with the right checksum, and one made of the bytes: what parses
/// is written in one way only, and holds numbers that a store can have.
pub fn feed_token(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        read(text);
        // Nobody guesses a checksum, so it is given.
        read(&format!("{text}_{:08x}", crc32fast::hash(input)));
    }
    if let Some((fields, _)) = input.split_first_chunk::<24>() {
        let number = |at: usize| u64::from_le_bytes(fields[at..at + 8].try_into().unwrap());
        let position = FeedPosition {
            number: number(8),
            floor: number(16),
        };
        let token = FeedToken {
            epoch: number(0),
            position,
        };
        let is_possible = i64::try_from(position.number.max(position.floor)).is_ok();
        assert_eq!(token.to_string().parse().ok(), is_possible.then_some(token));
    }
}

fn read(text: &str) {
    if let Ok(token) = text.parse::<FeedToken>() {
        assert_eq!(token.to_string(), text);
        assert!(i64::try_from(token.position.number).is_ok());
        assert!(i64::try_from(token.position.floor).is_ok());
    }
}
