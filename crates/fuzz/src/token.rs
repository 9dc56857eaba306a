//! Access and refresh tokens.

use kitbag_domain::{Token, TokenKind, UserId};

/// Reads a token as it came, again with the right checksum, and one made for the user that the
/// bytes name: what parses is exactly what this server could have made.
pub fn token(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    read(text);
    // Nobody guesses a checksum, so it is given.
    read(&format!("{text}_{:08x}", crc32fast::hash(input)));
    if let Ok(user) = UserId::parse(text) {
        for kind in [TokenKind::Access, TokenKind::Refresh] {
            let made = Token::new(kind, user.clone(), [input[0]; 32]);
            assert_eq!(Token::parse(kind, made.reveal()).as_ref(), Ok(&made));
            read(made.reveal());
        }
    }
}

fn read(text: &str) {
    let access = Token::parse(TokenKind::Access, text);
    let refresh = Token::parse(TokenKind::Refresh, text);
    assert!(access.is_err() || refresh.is_err(), "of one kind only");
    let kind = if access.is_ok() {
        TokenKind::Access
    } else {
        TokenKind::Refresh
    };
    let Ok(token) = access.or(refresh) else {
        return;
    };
    assert_eq!(token.reveal(), text);
    let secret = secret_of(text).expect("64 digits in lower-case hex");
    let made = Token::new(kind, token.user().clone(), secret);
    assert_eq!(made.reveal(), text, "this server could have made it");
    assert!(!format!("{token:?}").contains(&text[text.len() - 73..]));
}

fn secret_of(text: &str) -> Option<[u8; 32]> {
    let digits = text.rsplit('_').nth(1)?;
    let mut secret = [0; 32];
    for (at, byte) in secret.iter_mut().enumerate() {
        let pair = digits.get(at * 2..at * 2 + 2)?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(secret)
}
