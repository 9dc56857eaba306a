//! The `since` and `next_batch` of those who follow the device account data of all users.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::{FeedPosition, token_text};

/// How far a program has come in the stream of changes of all users' device account data.
///
/// Text: `f1_<epoch>_<number>_<floor>_<CRC-32>`, each in hex. The epoch names the store (a restored
/// one has another).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedToken {
    /// The store's epoch.
    pub epoch: u64,
    /// The place in the stream.
    pub position: FeedPosition,
}

/// A string that was never such a token of any Kitbag.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a token of the stream of device account data")]
pub struct FeedTokenError;

const VERSION: &str = "f1";
/// The largest number in a stream, which a store keeps as an `i64`.
const NUMBER_MAX: u64 = i64::MAX as u64;

impl FeedToken {
    /// Returns the place that the token names in the store of this epoch; `None` in any other.
    #[must_use]
    pub fn in_epoch(self, epoch: u64) -> Option<FeedPosition> {
        (self.epoch == epoch).then_some(self.position)
    }
}

impl fmt::Display for FeedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FeedPosition { number, floor } = self.position;
        f.write_str(&token_text::write(VERSION, &[self.epoch, number, floor]))
    }
}

impl FromStr for FeedToken {
    type Err = FeedTokenError;

    fn from_str(text: &str) -> Result<Self, FeedTokenError> {
        let [epoch, number, floor] = token_text::read(VERSION, text).ok_or(FeedTokenError)?;
        if number > NUMBER_MAX || floor > NUMBER_MAX {
            return Err(FeedTokenError);
        }
        let position = FeedPosition { number, floor };
        Ok(Self { epoch, position })
    }
}

#[cfg(test)]
mod tests {
    use kitbag_testkit::dice::Dice;

    use super::*;
    use crate::{Position, SyncToken};

    /// Returns any token; small numbers and large ones are as likely.
    fn any(dice: &mut Dice) -> FeedToken {
        let mut number = || dice.draw() >> (dice.draw() % 64);
        let (epoch, number, floor) = (number(), number() & NUMBER_MAX, number() & NUMBER_MAX);
        let position = FeedPosition { number, floor };
        FeedToken { epoch, position }
    }

    #[test]
    fn reads_back_what_it_wrote() {
        let mut dice = Dice::new(1);
        for _ in 0..2_000 {
            let token = any(&mut dice);
            assert_eq!(token.to_string().parse(), Ok(token));
        }
    }

    #[test]
    fn a_changed_token_is_refused() {
        let mut dice = Dice::new(2);
        for _ in 0..200 {
            let text = any(&mut dice).to_string();
            for at in 0..text.len() {
                let mut changed = text.clone().into_bytes();
                changed[at] ^= 1 << (dice.draw() % 7);
                let changed = String::from_utf8(changed).unwrap();
                let read = changed.parse::<FeedToken>();
                assert_eq!(read, Err(FeedTokenError), "{changed}");
            }
        }
    }

    #[test]
    fn what_no_kitbag_wrote_is_refused() {
        let numbers = [[1, NUMBER_MAX + 1, 0], [1, 0, NUMBER_MAX + 1]];
        for numbers in numbers {
            let text = token_text::write(VERSION, &numbers);
            assert_eq!(text.parse::<FeedToken>(), Err(FeedTokenError), "{text}");
        }
        for body in ["f1_+1_2_3", "f1_01_2_3", "f1_A_2_3", "f1_1_2", "f1_1_2_3_4"] {
            let text = format!("{body}_{:08x}", crc32fast::hash(body.as_bytes()));
            assert_eq!(text.parse::<FeedToken>(), Err(FeedTokenError), "{text}");
        }
        for text in ["", "_", "f1", "f1_1_2_3", &"x".repeat(500)] {
            assert_eq!(text.parse::<FeedToken>(), Err(FeedTokenError), "{text}");
        }
    }

    #[test]
    fn a_token_of_a_sync_is_none_of_the_stream() {
        let sync = SyncToken {
            epoch: 1,
            user: 2,
            position: Position(3),
            rules: 4,
        };
        assert_eq!(sync.to_string().parse::<FeedToken>(), Err(FeedTokenError));
        let position = FeedPosition::default();
        let feed = FeedToken { epoch: 1, position }.to_string();
        assert!(feed.parse::<SyncToken>().is_err());
    }
}
