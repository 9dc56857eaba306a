//! Access and refresh tokens: their text, and the hash under which a store keeps them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::{UserId, hex};

/// Random bytes of a token.
const SECRET_BYTES: usize = 32;
/// Longest text that is looked at: a prefix, a user ID in base64, and two fields in hex.
const TEXT_BYTES_MAX: usize = 512;

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Authenticates requests; text starts with `kt_`.
    Access,
    /// Buys new tokens at `POST /refresh`; text starts with `ktr_`.
    Refresh,
}

impl TokenKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Access => "kt",
            Self::Refresh => "ktr",
        }
    }
}

/// The text of a token: `kt_<user in base64url>_<256 random bits in hex>_<CRC-32 in hex>`.
///
/// It names its user, so that every look-up is by user; the checksum keeps typing errors and random
/// strings away from the store. `Debug` never shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    user: UserId,
    text: String,
}

/// A string that no token of this server can be.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a token of this server")]
pub struct TokenError;

impl Token {
    /// Makes a token of `user` from fresh random bytes.
    #[must_use]
    pub fn new(kind: TokenKind, user: UserId, secret: [u8; SECRET_BYTES]) -> Self {
        let user_part = URL_SAFE_NO_PAD.encode(user.as_str());
        let body = format!("{}_{user_part}_{}", kind.prefix(), in_hex(&secret));
        let checksum = crc32fast::hash(body.as_bytes());
        Self {
            user,
            text: format!("{body}_{checksum:08x}"),
        }
    }

    /// Reads what a client sent; nothing is looked up.
    /// # Errors
    /// [`TokenError`] where the text is not of the form or of another kind.
    pub fn parse(kind: TokenKind, text: &str) -> Result<Self, TokenError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenError);
        }
        let (body, checksum) = text.rsplit_once('_').ok_or(TokenError)?;
        let (head, secret) = body.rsplit_once('_').ok_or(TokenError)?;
        // base64url holds `_` itself: so the ends are split off first.
        let (prefix, user) = head.split_once('_').ok_or(TokenError)?;
        let intact = prefix == kind.prefix()
            && secret.len() == SECRET_BYTES * 2
            && secret
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            && checksum.as_bytes() == hex::checksum(body.as_bytes());
        if !intact {
            return Err(TokenError);
        }
        let mut decoded = [0; TEXT_BYTES_MAX];
        let bytes = URL_SAFE_NO_PAD.decode_slice(user, &mut decoded);
        let user = &decoded[..bytes.map_err(|_| TokenError)?];
        let user = str::from_utf8(user).map_err(|_| TokenError)?;
        let user = UserId::parse(user).map_err(|_| TokenError)?;
        Ok(Self {
            user,
            text: text.to_owned(),
        })
    }

    /// Returns the user whom the token names; only a store can say that it is one of theirs.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// Returns the text to hand to the client.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// Returns the hash under which a store keeps the token.
    ///
    /// A plain SHA-256 suffices: 256 random bits cannot be guessed from it. Equality of hashes may
    /// be tested in any time, since nobody can choose a hash.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token of {}", self.user)
    }
}

/// The SHA-256 of a token's text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// Returns the hash of what may be a token.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

fn in_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(user: &str) -> Token {
        Token::new(
            TokenKind::Access,
            UserId::parse(user).unwrap(),
            [7; SECRET_BYTES],
        )
    }

    #[test]
    fn reads_back_what_it_made() {
        // The second one's base64 holds `_`.
        for user in ["@alice:localhost", "@???>>>ÿÿÿ:x.example"] {
            let token = token(user);
            let read = Token::parse(TokenKind::Access, token.reveal()).unwrap();
            assert_eq!(read.user().as_str(), user);
            assert_eq!(read.hash(), token.hash());
        }
    }

    #[test]
    fn any_changed_character_is_noticed() {
        let text = token("@alice:localhost").reveal().to_owned();
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(
                Token::parse(TokenKind::Access, &changed),
                Err(TokenError),
                "{at}"
            );
        }
        assert_eq!(Token::parse(TokenKind::Refresh, &text), Err(TokenError));
        assert_eq!(
            Token::parse(TokenKind::Access, &"_".repeat(5)),
            Err(TokenError)
        );
    }

    #[test]
    fn a_secret_is_in_hex() {
        for secret in ["z".repeat(64), "AB".repeat(32), "\u{e9}".repeat(32)] {
            let body = format!("kt_QGE6Yg_{secret}");
            let text = format!("{body}_{:08x}", crc32fast::hash(body.as_bytes()));
            assert_eq!(
                Token::parse(TokenKind::Access, &text),
                Err(TokenError),
                "{text}"
            );
        }
    }

    #[test]
    fn debug_hides_the_secret() {
        let token = token("@alice:localhost");
        assert_eq!(
            format!("{token:?} {:?}", token.hash()),
            "Token of @alice:localhost TokenHash"
        );
    }
}
