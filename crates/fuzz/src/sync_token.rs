//! The `since` of /sync.

use kitbag_domain::{Position, SyncToken};

/// Reads a token as it came, again with the right checksum, and one made of the bytes: what parses
/// is written in one way only.
pub fn sync_token(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        read(text);
        // Nobody guesses a checksum, so it is given.
        read(&format!("{text}_{:08x}", crc32fast::hash(input)));
    }
    if let Some((fields, _)) = input.split_first_chunk::<24>() {
        let number = |at: usize| u64::from_le_bytes(fields[at..at + 8].try_into().unwrap());
        let half = |at: usize| u32::from_le_bytes(fields[at..at + 4].try_into().unwrap());
        let token = SyncToken {
            epoch: number(0),
            user: half(8),
            position: Position(number(12)),
            rules: half(20),
        };
        assert_eq!(token.to_string().parse(), Ok(token));
    }
}

fn read(text: &str) {
    if let Ok(token) = text.parse::<SyncToken>() {
        assert_eq!(token.to_string(), text);
    }
}
