//! The `since` and `next_batch` of /sync.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::{Position, UserId, token_text};

/// How far a client has come in one user's stream, in one store.
///
/// Text: `k1_<epoch>_<user>_<position>_<rules>_<CRC-32>`, each in hex. The epoch names the store (a
/// restored one has another), the user is a checksum of the user ID, and the last field tells which
/// default push rules the client has seen, so that new defaults reach everyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncToken {
    /// The store's epoch.
    pub epoch: u64,
    /// The CRC-32 of the user's ID.
    pub user: u32,
    /// The place in the user's stream.
    pub position: Position,
    /// The fingerprint of the default push rules.
    pub rules: u32,
}

/// A string that was never a token of any Kitbag.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a sync token")]
pub struct SyncTokenError;

const VERSION: &str = "k1";

impl SyncToken {
    /// Returns the user's mark in tokens.
    #[must_use]
    pub fn user_mark(user: &UserId) -> u32 {
        crc32fast::hash(user.as_str().as_bytes())
    }

    /// Returns the token at another position.
    #[must_use]
    pub fn at(self, position: Position) -> Self {
        Self { position, ..self }
    }
}

impl fmt::Display for SyncToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            epoch,
            user,
            position: Position(position),
            rules,
        } = *self;
        let numbers = [epoch, user.into(), position, rules.into()];
        f.write_str(&token_text::write(VERSION, &numbers))
    }
}

impl FromStr for SyncToken {
    type Err = SyncTokenError;

    fn from_str(text: &str) -> Result<Self, SyncTokenError> {
        let numbers = token_text::read(VERSION, text).ok_or(SyncTokenError)?;
        let [epoch, user, position, rules] = numbers;
        Ok(Self {
            epoch,
            user: u32::try_from(user).map_err(|_| SyncTokenError)?,
            position: Position(position),
            rules: u32::try_from(rules).map_err(|_| SyncTokenError)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_wrote() {
        let user = SyncToken::user_mark(&UserId::parse("@alice:localhost").unwrap());
        for position in [0, 1, u64::MAX] {
            let position = Position(position);
            let token = SyncToken {
                epoch: u64::MAX,
                user,
                position,
                rules: 5,
            };
            assert_eq!(token.to_string().parse(), Ok(token));
        }
    }

    #[test]
    fn garbage_is_refused() {
        let position = Position(77);
        let token = SyncToken {
            epoch: 1,
            user: 2,
            position,
            rules: 3,
        }
        .to_string();
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] ^= 1;
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(
                changed.parse::<SyncToken>(),
                Err(SyncTokenError),
                "{changed}"
            );
        }
        for body in [
            "k1_+1_2_3_4",
            "k1_01_2_3_4",
            "k1_A_2_3_4",
            "k1_1_100000000_3_4",
            "k1_1_2_3_100000000",
            "k1_1_2_3",
            "k1_1_2_3_4_5",
        ] {
            let text = format!("{body}_{:08x}", crc32fast::hash(body.as_bytes()));
            assert_eq!(text.parse::<SyncToken>(), Err(SyncTokenError), "{text}");
        }
        for text in ["", "_", "s72595_4483_1934", "k1_1_2_3_4", &"x".repeat(500)] {
            assert_eq!(text.parse::<SyncToken>(), Err(SyncTokenError), "{text}");
        }
    }

    #[test]
    fn a_token_of_another_kind_or_version_is_refused() {
        let token = |version: &str| {
            let body = format!("{version}_1_2_3_4");
            let text = format!("{body}_{:08x}", crc32fast::hash(body.as_bytes()));
            text.parse::<SyncToken>().is_ok()
        };
        assert!(token("k1"));
        for other in ["k2", "k", "k11", "f1", ""] {
            assert!(!token(other), "{other}");
        }
    }
}
