//! The `since` and `next_batch` of /sync.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::{Position, UserId};

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
/// Longest token that is looked at.
const TEXT_BYTES_MAX: usize = 128;

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
        } = self;
        let body = format!("{VERSION}_{epoch:x}_{user:x}_{position:x}_{rules:x}");
        write!(f, "{body}_{:08x}", crc32fast::hash(body.as_bytes()))
    }
}

impl FromStr for SyncToken {
    type Err = SyncTokenError;

    fn from_str(text: &str) -> Result<Self, SyncTokenError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(SyncTokenError);
        }
        let (body, checksum) = text.rsplit_once('_').ok_or(SyncTokenError)?;
        if checksum != format!("{:08x}", crc32fast::hash(body.as_bytes())) {
            return Err(SyncTokenError);
        }
        let fields: Vec<&str> = body.split('_').collect();
        let [VERSION, epoch, user, position, rules] = fields[..] else {
            return Err(SyncTokenError);
        };
        let read = |field| u64::from_str_radix(field, 16).map_err(|_| SyncTokenError);
        let read_u32 = |field| u32::from_str_radix(field, 16).map_err(|_| SyncTokenError);
        let token = Self {
            epoch: read(epoch)?,
            user: read_u32(user)?,
            position: Position(read(position)?),
            rules: read_u32(rules)?,
        };
        // Numbers can be written in other ways, such as `+1` and `01`: no Kitbag writes them so.
        (token.to_string() == text)
            .then_some(token)
            .ok_or(SyncTokenError)
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
        for body in ["k1_+1_2_3_4", "k1_01_2_3_4", "k1_A_2_3_4"] {
            let text = format!("{body}_{:08x}", crc32fast::hash(body.as_bytes()));
            assert_eq!(text.parse::<SyncToken>(), Err(SyncTokenError), "{text}");
        }
        for text in ["", "_", "s72595_4483_1934", "k1_1_2_3_4", &"x".repeat(500)] {
            assert_eq!(text.parse::<SyncToken>(), Err(SyncTokenError), "{text}");
        }
    }
}
