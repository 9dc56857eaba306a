//! Answers to initial syncs, remembered for as long as they say all there is to say.
//!
//! The body of such an answer follows from the token that stands in it (store, user, position in the
//! user's stream, default push rules), the filter, and whether device data are told. So a body that
//! was made from a snapshot is right again whenever the head of the stream is the snapshot's: it
//! needs no clearing, and whoever asks with a head that the store tells *now* sees every change that
//! was acknowledged before (law 1).

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use kitbag_domain::{SyncToken, UserId};
use quick_cache::{Weighter, unsync};

use crate::filter::Filter;

/// A larger body is not remembered: a few of these would leave room for nobody else's.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// What one costs besides its texts: itself, its name, and its place in the map.
const ANSWER_BYTES: u64 = 256;
/// What one has as a rule, for the size of the map.
const ANSWER_BYTES_USUAL: u64 = 16 * 1024;

/// The answers that are remembered; see the documentation of the module.
pub(crate) struct Answers(Option<Mutex<Map>>);

type Map = unsync::Cache<Asked, Answered, Weigher>;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asked {
    pub(crate) user: UserId,
    pub(crate) filter: Filter,
    pub(crate) tells_device_data: bool,
}

/// What was answered, and the token in it.
struct Answered {
    token: SyncToken,
    body: Bytes,
}

impl Answers {
    /// Remembers at most about `bytes_max`; nothing where that is 0.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let items = usize::try_from(bytes_max / ANSWER_BYTES_USUAL).unwrap_or(usize::MAX);
        let map = || Mutex::new(Map::with_weighter(items.max(1), bytes_max, Weigher));
        Self((bytes_max > 0).then(map))
    }

    /// Returns the body that answers `asked`, where `now` is the token of an answer of now.
    pub(crate) fn get(&self, asked: &Asked, now: SyncToken) -> Option<Bytes> {
        let map = self.0.as_ref()?.lock();
        let map = map.unwrap_or_else(PoisonError::into_inner);
        let answered = map.get(asked)?;
        (answered.token == now).then(|| answered.body.clone())
    }

    /// Remembers what answered `asked`; `token` is that of the snapshot which it was made from.
    pub(crate) fn remember(&self, asked: Asked, token: SyncToken, body: Bytes) {
        if let Some(map) = &self.0
            && body.len() <= BODY_BYTES_MAX
        {
            let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
            map.insert(asked, Answered { token, body });
        }
    }
}

/// Weighs answers in bytes.
#[derive(Clone, Copy)]
struct Weigher;

impl Weighter<Asked, Answered> for Weigher {
    fn weight(&self, asked: &Asked, answered: &Answered) -> u64 {
        let texts = asked.user.as_str().len() + asked.filter.size_bytes() + answered.body.len();
        ANSWER_BYTES + texts as u64
    }
}

#[cfg(test)]
mod tests {
    use kitbag_domain::Position;

    use super::*;

    const TOKEN: SyncToken = SyncToken {
        epoch: 1,
        user: 2,
        position: Position(3),
        rules: 4,
    };

    fn asked(user: &str, filter: &str, tells_device_data: bool) -> Asked {
        Asked {
            user: UserId::parse(user).unwrap(),
            filter: Filter::parse(filter).unwrap(),
            tells_device_data,
        }
    }

    fn alice() -> Asked {
        asked("@alice:x", "{}", true)
    }

    #[test]
    fn an_answer_is_told_again_to_who_asks_the_same_at_the_same_place() {
        let answers = Answers::new(1 << 20);
        answers.remember(alice(), TOKEN, "body".into());
        assert_eq!(answers.get(&alice(), TOKEN), Some("body".into()));
        let types = r#"{"account_data":{"types":["m.direct"]}}"#;
        let others = [
            asked("@bob:x", "{}", true),
            asked("@alice:x", types, true),
            asked("@alice:x", "{}", false),
        ];
        for other in others {
            assert_eq!(answers.get(&other, TOKEN), None, "{other:?}");
        }
        let tokens = [
            SyncToken { epoch: 9, ..TOKEN },
            SyncToken { user: 9, ..TOKEN },
            SyncToken { rules: 9, ..TOKEN },
            TOKEN.at(Position(2)),
            TOKEN.at(Position(4)),
        ];
        for token in tokens {
            assert_eq!(answers.get(&alice(), token), None, "{token:?}");
        }
    }

    #[test]
    fn what_is_remembered_has_its_bound() {
        let bytes_max = 64 * 1024;
        let answers = Answers::new(bytes_max);
        let body = Bytes::from(vec![b'x'; 8 * 1024]);
        for number in 0..100 {
            let asked = asked(&format!("@u{number}:x"), "{}", true);
            answers.remember(asked, TOKEN, body.clone());
        }
        let map = answers.0.as_ref().unwrap().lock().unwrap();
        assert!(map.weight() <= bytes_max, "{}", map.weight());
        assert!(map.len() > 4, "{}", map.len());
    }

    #[test]
    fn a_large_body_is_not_remembered_and_of_none_nothing_is() {
        let answers = Answers::new(16 * BODY_BYTES_MAX as u64);
        answers.remember(alice(), TOKEN, vec![b'x'; BODY_BYTES_MAX].into());
        assert!(answers.get(&alice(), TOKEN).is_some());
        answers.remember(alice(), TOKEN, "small".into());
        answers.remember(alice(), TOKEN, vec![b'x'; BODY_BYTES_MAX + 1].into());
        assert_eq!(answers.get(&alice(), TOKEN), Some("small".into()));
        let off = Answers::new(0);
        off.remember(alice(), TOKEN, "body".into());
        assert_eq!(off.get(&alice(), TOKEN), None);
    }

    #[test]
    fn a_long_filter_counts() {
        let filter = format!(
            r#"{{"account_data":{{"types":["{}"]}}}}"#,
            "t".repeat(5_000)
        );
        let asked = asked("@a:x", &filter, true);
        let body = Bytes::new();
        let weight = Weigher.weight(&asked, &Answered { token: TOKEN, body });
        assert!(weight > 5_000, "{weight}");
    }
}
