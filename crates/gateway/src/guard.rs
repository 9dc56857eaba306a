//! Types that clients do not write through account data, and paths that could reach them by another
//! reading than the route table's.
//!
//! The table splits a path first and decodes each segment once. Proxies and homeservers read more
//! kindly: they decode all of it, some more than once, merge slashes and resolve dot segments, and
//! Synapse does not look at what stands behind a type. So a write is refused wherever any such
//! reading of its path names a guarded type that the table does not see.

use std::borrow::Cow;
use std::iter;

use axum::http::Method;
use kitbag_domain::SERVER_MANAGED;
use percent_encoding::percent_decode;

use crate::mapped;

/// How often a path is decoded on its way, at most: by a proxy or two and by the homeserver.
const DECODINGS_MAX: usize = 3;

/// The segments before the type.
const ACCOUNT_DATA: [&[u8]; 2] = [b"account_data", b"net.zemos.account_data"];

/// A type that clients do not write through account data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guarded {
    /// It holds an entry of a device, at global scope.
    Mapped,
    /// The server manages it, in every scope (MSC4010).
    ServerManaged(&'static str),
}

impl Guarded {
    /// Returns what a type is; `None` for one that anybody may write.
    pub(crate) fn of(event_type: &[u8], is_global: bool) -> Option<Self> {
        if is_global && event_type.starts_with(mapped::PREFIX.as_bytes()) {
            return Some(Self::Mapped);
        }
        let mut types = SERVER_MANAGED.into_iter();
        let known = types.find(|known| known.as_bytes() == event_type);
        known.map(Self::ServerManaged)
    }
}

/// Tells whether a request must not go on since its path could reach a guarded entry by a reading
/// that is not the gateway's. `is_routed` says that the path is in the gateway's own table.
///
/// Below `/user/` nothing goes on that has empty or dot segments, whatever the method.
pub(crate) fn is_ambiguous(method: &Method, path: &str, is_routed: bool) -> bool {
    if below_user(path).is_some_and(|below| below.split('/').any(is_odd)) {
        return true;
    }
    if matches!(*method, Method::GET | Method::HEAD) || is_harmless(path) {
        return false;
    }
    let strict = is_routed.then(|| read_strictly(path)).flatten();
    match strict {
        // Whoever takes the letters of a method for others would write.
        Some(_) if is_misspelled(method) => true,
        // Observed types go on, so that nothing else may be in their path.
        None | Some(Guarded::ServerManaged(_)) => may_read_another(path, strict),
        // Refused whatever else it could mean.
        Some(Guarded::Mapped) => false,
    }
}

/// Returns what stands behind `/user/`, below any prefix of the client-server API.
fn below_user(path: &str) -> Option<&str> {
    let (prefix, rest) = path.strip_prefix("/_matrix/client/")?.split_once('/')?;
    rest.strip_prefix("user/").or_else(|| {
        let has_two_segments = matches!(prefix, "api" | "unstable");
        let (_, rest) = rest.split_once('/').filter(|_| has_two_segments)?;
        rest.strip_prefix("user/")
    })
}

/// Tells whether a segment is empty or one or two dots, however often encoded.
fn is_odd(segment: &str) -> bool {
    let of_dots = |byte: u8| matches!(byte, b'.' | b'%') || byte.is_ascii_hexdigit();
    segment.is_empty()
        // Few begin so: no other one has to be decoded.
        || segment.starts_with(['.', '%'])
            && segment.bytes().all(of_dots)
            && readings(segment.as_bytes()).any(|read| matches!(&*read, b"." | b".."))
}

/// Tells at a glance that no reading of a path names a guarded type: its words are not there, and
/// nothing that words are made of is encoded.
fn is_harmless(path: &str) -> bool {
    let has_type =
        || path.contains(mapped::PREFIX) || SERVER_MANAGED.iter().any(|known| path.contains(known));
    let has_words = path.contains("account_data") && has_type();
    !has_words && !hides_words(path.as_bytes())
}

/// Tells whether a percent sign stands for a letter, a digit or a mark of the words, for another
/// percent sign, or for nothing at all, so that a later reading could give it a meaning.
fn hides_words(path: &[u8]) -> bool {
    let mut rest = path;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        rest = &rest[at + 1..];
        match percent_decode(&path[path.len() - rest.len() - 1..]).next() {
            Some(byte) if byte.is_ascii_alphanumeric() || b"%._-/?#".contains(&byte) => {
                return true;
            }
            _ => {}
        }
    }
    false
}

/// Returns the guarded type of a path of the route table.
pub(crate) fn read_strictly(path: &str) -> Option<Guarded> {
    let segments: Vec<&[u8]> = path.as_bytes().split(|byte| *byte == b'/').collect();
    let (event_type, before) = segments.split_last()?;
    let (account_data, before) = before.split_last()?;
    if !ACCOUNT_DATA.contains(account_data) {
        return None;
    }
    let is_global = before.len() >= 2 && before[before.len() - 2] == b"user";
    let event_type = Cow::from(percent_decode(event_type));
    Guarded::of(&event_type, is_global)
}

/// Tells whether any reading of a path names a guarded type that is not the one that is `known`.
fn may_read_another(path: &str, known: Option<Guarded>) -> bool {
    readings(path.as_bytes())
        .enumerate()
        .any(|(done, reading)| {
            let segments: Vec<&[u8]> = reading.split(|byte| *byte == b'/').skip(1).collect();
            let is_odd = |segment: &&[u8]| matches!(*segment, b"" | b"." | b"..");
            let is_another = |read: Guarded| Some(read) != known;
            if segments.iter().any(is_odd) {
                // Whatever is merged or resolved, and when, what is left stands in this order.
                return named_in_order(&segments).any(is_another);
            }
            // Whoever splits now decodes each segment for itself: a slash in one moves no other.
            (0..=DECODINGS_MAX - done).any(|times| {
                let decoded: Vec<_> = segments.iter().map(|own| decoded(own, times)).collect();
                let segments: Vec<&[u8]> = decoded.iter().map(|own| &**own).collect();
                named_in_place(&segments).any(is_another)
            })
        })
}

/// Returns the guarded types behind the words of an account-data path, whatever stands between.
fn named_in_order<'a>(segments: &'a [&'a [u8]]) -> impl Iterator<Item = Guarded> + 'a {
    let mut rest = segments.iter();
    let has_words = rest.any(|segment| *segment == b"client")
        && rest.any(|segment| *segment == b"user")
        && rest.any(|segment| ACCOUNT_DATA.contains(segment));
    let types = rest.filter(move |_| has_words);
    types.filter_map(|segment| Guarded::of(until_query(segment), true))
}

/// Returns the guarded types that stand where account-data paths have them, whatever is behind them.
///
/// And whatever the prefix is: homeservers match it by patterns, whose dots can be slashes.
fn named_in_place<'a>(segments: &'a [&'a [u8]]) -> impl Iterator<Item = Guarded> + 'a {
    let below = segments.strip_prefix(&[&b"_matrix"[..], b"client"]);
    let mut rest = below.unwrap_or_default().iter();
    let users = iter::from_fn(move || {
        rest.find(|segment| **segment == b"user")?;
        Some(rest.as_slice())
    });
    users.filter_map(|below| match below {
        [_, account_data, event_type, ..] if ACCOUNT_DATA.contains(account_data) => {
            Guarded::of(until_query(event_type), true)
        }
        [_, b"rooms" | b"devices", _, account_data, event_type, ..]
            if ACCOUNT_DATA.contains(account_data) =>
        {
            Guarded::of(until_query(event_type), false)
        }
        _ => None,
    })
}

/// Returns what stands before a query or a fragment: encoded ones end a path that is decoded early.
fn until_query(segment: &[u8]) -> &[u8] {
    let mut parts = segment.split(|byte| matches!(byte, b'?' | b'#'));
    parts.next().unwrap_or_default()
}

/// Returns a text as it is, and decoded once, twice and so on.
fn readings(text: &[u8]) -> impl Iterator<Item = Cow<'_, [u8]>> {
    let first = Some(Cow::Borrowed(text));
    let decoded = iter::successors(first, |before| {
        let next: Vec<u8> = percent_decode(before).collect();
        (next.len() < before.len()).then_some(Cow::Owned(next))
    });
    decoded.take(1 + DECODINGS_MAX)
}

/// Returns a text decoded so many times.
fn decoded(text: &[u8], times: usize) -> Cow<'_, [u8]> {
    let last = readings(text).take(1 + times).last();
    last.unwrap_or(Cow::Borrowed(text))
}

/// Tells whether a method is one that writes, in other letters.
fn is_misspelled(method: &Method) -> bool {
    let mut writes = [Method::PUT, Method::DELETE].into_iter();
    writes.any(|write| *method != write && method.as_str().eq_ignore_ascii_case(write.as_str()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kitbag_http::shared::Metrics;
    use kitbag_testkit::dice::Dice;
    use kitbag_testkit::settings::{is_long, seed};

    use super::*;
    use crate::routes;
    use crate::settings::Settings;

    /// Those of the table, and others that homeservers have or could take for one.
    const PREFIXES: [&str; 7] = [
        "v3",
        "r0",
        "unstable",
        "api/v1",
        "v2",
        "unstable/org.matrix.msc3391",
        "unstable/org/matrix/msc3391",
    ];

    const DRAWS: usize = 20_000;
    const DRAWS_LONG: usize = 2_000_000;

    /// What becomes of a request as far as its path tells.
    #[derive(Debug, PartialEq, Eq)]
    enum Way {
        Nowhere,
        /// To what refuses it, or lets an observed type through.
        Judged,
        On,
    }

    fn way(method: &Method, path: &str) -> Way {
        let router = routes::router(&Settings::default(), &Metrics::default());
        let is_routed = router.find(path).is_some();
        match is_ambiguous(method, path, is_routed) {
            true => Way::Nowhere,
            false if is_routed && read_strictly(path).is_some() => Way::Judged,
            false => Way::On,
        }
    }

    /// A path below `/user/@a:x/`.
    fn own(below: &str) -> String {
        format!("/_matrix/client/v3/user/@a:x/{below}")
    }

    #[test]
    fn below_a_user_nothing_goes_on_with_empty_or_dot_segments() {
        for below in [
            "",
            "account_data//m.direct",
            "account_data/./m.direct",
            "account_data/m.direct/",
            "account_data/m.direct/..",
            "account_data/%2e",
            "account_data/.%2E",
            "filter/%252e%252E",
            "filter/%25252e",
            "filter/%%32e",
            "rooms//account_data/m.direct",
        ] {
            for method in [Method::GET, Method::PUT, Method::OPTIONS] {
                assert_eq!(way(&method, &own(below)), Way::Nowhere, "{method} {below}");
            }
        }
        for prefix in [
            "r0",
            "v1",
            "api/v1",
            "unstable",
            "unstable/org.matrix.msc3391",
        ] {
            let path = format!("/_matrix/client/{prefix}/user//account_data/m.direct");
            assert_eq!(way(&Method::GET, &path), Way::Nowhere, "{prefix}");
        }
    }

    #[test]
    fn other_spellings_of_a_guarded_write_go_nowhere_and_the_tables_own_are_judged() {
        let mapped = "account_data/org.matrix.msc4331.device_account_data.D.a";
        for (path, expected) in [
            (own("account_data/m.push_rules"), Way::Judged),
            (own("account_data/m%2Epush_rules"), Way::Judged),
            (own("rooms/!r/account_data/m.fully%5fread"), Way::Judged),
            (own("devices/D/account_data/m.fully_read"), Way::Judged),
            (own("devices/D/net.zemos.account_data/m.fully_read"), Way::Judged),
            (own(mapped), Way::Judged),
            (own(&mapped.replace('.', "%2e")), Way::Judged),
            // Synapse does not look at what stands behind.
            (own("account_data/m.push_rules/x"), Way::Nowhere),
            (own("rooms/!r/account_data/m.push_rules/x"), Way::Nowhere),
            // What is encoded in one segment moves none of those behind it.
            (own("account_data/m%2Epush_rules/x").replace("@a", "@a%2Fb"), Way::Nowhere),
            (own("account_data/m%252Epush_rules/x").replace("@a", "@a%2Fb"), Way::Nowhere),
            (own(&mapped.replace("org.", "org%2E")).replace("@a", "@a%2Fb") + "/x", Way::Nowhere),
            (own("rooms/!a%2Fb/account_data/m%2Efully_read/x"), Way::Nowhere),
            (own("account_data/m.push_rules%2Fx"), Way::Nowhere),
            (own("account_data/m.push_rules%3Fx"), Way::Nowhere),
            (own("account_data/m.push_rules%23x"), Way::Nowhere),
            (own("account_data/m%252Epush_rules"), Way::Nowhere),
            (own("account_data/m%25252Epush_rules"), Way::Nowhere),
            (own("account_data/m%%32%45push_rules"), Way::Nowhere),
            (own("account_data%2Fm.push_rules"), Way::Nowhere),
            (own("account%5fdata/m.push_rules"), Way::Nowhere),
            (own("account_data/x%2F..%2Fm.push_rules"), Way::Nowhere),
            (own("rooms/!r/%61ccount_data/m.fully_read"), Way::Nowhere),
            (own(&mapped.replace('.', "%252e")), Way::Nowhere),
            (own(&format!("{mapped}/x")), Way::Nowhere),
            ("//_matrix/client/v3/user/@a:x/account_data/m.push_rules".into(), Way::Nowhere),
            ("/x/../_matrix/client/v3/user/@a:x/account_data/m.push_rules".into(), Way::Nowhere),
            ("/_matrix/client/x/..%2Fv3/user/@a:x/account_data/m.push_rules".into(), Way::Nowhere),
            ("/_matrix/client/v3/%75ser/@a:x/account_data/m.push_rules".into(), Way::Nowhere),
            ("/%5Fmatrix/client/v3/user/@a:x/account_data/m.push_rules".into(), Way::Nowhere),
            // A prefix that is not in the table, and which a homeserver may have.
            ("/_matrix/client/v9/user/@a:x/account_data/m.push_rules".into(), Way::Nowhere),
            // Synapse's pattern has a dot for any mark.
            (
                "/_matrix/client/unstable/org/matrix/msc3391/user/@a:x/account_data/m.push_rules"
                    .into(),
                Way::Nowhere,
            ),
            (
                "/_matrix/client/unstable/orgXmatrix.msc3391/user/@a:x/account_data/m.push_rules"
                    .into(),
                Way::Nowhere,
            ),
            // An observed type with another one in its path.
            (
                "/_matrix/client/v3/user/a%2Faccount_data%2Fm.fully_read%2F/account_data/m.push_rules"
                    .into(),
                Way::Nowhere,
            ),
        ] {
            assert_eq!(way(&Method::PUT, &path), expected, "{path}");
            assert_eq!(way(&Method::DELETE, &path), expected, "{path}");
            assert_ne!(way(&Method::GET, &path), Way::Nowhere, "{path}");
        }
        let path = own("account_data/m.push_rules");
        let put = Method::from_bytes(b"Put").unwrap();
        assert_eq!(way(&put, &path), Way::Nowhere);
        assert_eq!(way(&Method::POST, &path), Way::Judged);
        assert_eq!(
            way(&Method::POST, &own("account_data/m.push_rules/x")),
            Way::Nowhere
        );
    }

    #[test]
    fn ordinary_paths_go_on() {
        for path in [
            &own("account_data/a%252Fb"),
            &own("account_data/m.push_rules.x"),
            &own("account_data/x%2Fm.push_rules"),
            &own("account_data/x?m.push_rules"),
            &own("rooms/!r/account_data/org.matrix.msc4331.device_account_data.D.a"),
            &own("rooms/!r/tags/m.push_rules"),
            &own("filter"),
            "/_matrix/client/v3/rooms/!r/state/m.room.name/",
            "/_matrix/client/v3/rooms/!r/state/account_data/m.push_rules",
            // A state event, whose key is empty.
            "/_matrix/client/v3/rooms/!r/state/user/",
            "/_matrix/client/v3/pushrules/global/content/m.push_rules%2F..",
            "/_matrix/federation/v1/send/%31?a=//../account_data/m.push_rules",
            "/_matrix/media/v3//x/../y",
            "*",
            "",
        ] {
            assert_eq!(way(&Method::PUT, path), Way::On, "{path}");
            assert_eq!(way(&Method::GET, path), Way::On, "{path}");
        }
    }

    /// All segments that a path can be read as by somebody who decodes it up to three times, merges
    /// slashes and resolves dot segments, or not, between any two of these steps. What is left of the
    /// three is done to each segment for itself, or is not.
    fn kind_readings(path: &str) -> BTreeSet<Vec<Vec<u8>>> {
        let mut read = BTreeSet::new();
        let mut todo = vec![(path.as_bytes().to_vec(), 0)];
        let mut seen = BTreeSet::new();
        while let Some((path, decodings)) = todo.pop() {
            if !seen.insert((path.clone(), decodings)) {
                continue;
            }
            if decodings < DECODINGS_MAX {
                todo.push((percent_decode(&path).collect(), decodings + 1));
            }
            todo.push((merged(&path), decodings));
            todo.push((resolved(&path), decodings));
            for more in 0..=DECODINGS_MAX - decodings {
                let segments = path.split(|byte| *byte == b'/');
                read.insert(segments.map(|own| decoded_by_itself(own, more)).collect());
            }
        }
        read
    }

    fn decoded_by_itself(segment: &[u8], times: usize) -> Vec<u8> {
        let segment = segment.to_vec();
        (0..times).fold(segment, |segment, _| percent_decode(&segment).collect())
    }

    fn merged(path: &[u8]) -> Vec<u8> {
        let mut merged = path.to_vec();
        merged.dedup_by(|a, b| (*a, *b) == (b'/', b'/'));
        merged
    }

    fn resolved(path: &[u8]) -> Vec<u8> {
        let mut resolved: Vec<&[u8]> = Vec::new();
        for segment in path.split(|byte| *byte == b'/') {
            match segment {
                b"." => {}
                // The empty one before the first slash stays.
                b".." => resolved.truncate(resolved.len().saturating_sub(1).max(1)),
                _ => resolved.push(segment),
            }
        }
        resolved.join(&b'/')
    }

    /// Tells whether a server that looks at no more than it must would write a guarded entry.
    fn would_write(segments: &[Vec<u8>]) -> bool {
        let [root, matrix, client, segments @ ..] = segments else {
            return false;
        };
        if !(root.is_empty() && matrix == b"_matrix" && client == b"client") {
            return false;
        }
        let protected = |segment: &Vec<u8>| matches!(&**segment, b"m.push_rules" | b"m.fully_read");
        let mapped =
            |segment: &Vec<u8>| segment.starts_with(b"org.matrix.msc4331.device_account_data.");
        let is = |place: usize, word: &[u8]| segments.get(place).is_some_and(|own| *own == word);
        // Whatever the prefix is: a dot of a pattern may stand for any mark, slashes among them.
        (1..segments.len()).any(|user| {
            let global = is(user, b"user") && is(user + 2, b"account_data");
            let room = is(user, b"user") && is(user + 2, b"rooms") && is(user + 4, b"account_data");
            let global = global.then(|| segments.get(user + 3)).flatten();
            let room = room.then(|| segments.get(user + 5)).flatten();
            global.is_some_and(|own| protected(own) || mapped(own)) || room.is_some_and(protected)
        })
    }

    /// Spells a path in some strange way.
    fn misspell(dice: &mut Dice, path: &str) -> String {
        let mut path = path.as_bytes().to_vec();
        for _ in 0..=dice.below(5) {
            let at = dice.below(path.len());
            let slashes: Vec<usize> = (0..path.len()).filter(|at| path[*at] == b'/').collect();
            let slash = slashes[dice.below(slashes.len())];
            match dice.below(6) {
                0 | 1 => {
                    let byte = path[at];
                    path.splice(at..=at, format!("%{byte:02X}").bytes());
                }
                2 => {
                    let odd: [&[u8]; 6] = [b"/", b"/.", b"/x/..", b"/%2e", b"/x%2F..", b"/.."];
                    path.splice(slash..slash, odd[dice.below(odd.len())].iter().copied());
                }
                3 => {
                    path.splice(slash..=slash, b"%2F".iter().copied());
                }
                4 => path.extend_from_slice([&b"/"[..], b"/x", b"%2Fx"][dice.below(3)]),
                _ => {
                    let encoded = format!("%{:02x}", path[at]).replace('%', "%25");
                    path.splice(at..=at, encoded.bytes());
                }
            }
        }
        String::from_utf8(path).unwrap()
    }

    #[test]
    fn no_spelling_of_a_guarded_write_goes_on() {
        let seed = seed().unwrap_or(1);
        let draws = if is_long() { DRAWS_LONG } else { DRAWS };
        let mut dice = Dice::new(seed);
        let router = routes::router(&Settings::default(), &Metrics::default());
        let types = [
            "m.push_rules",
            "m.fully_read",
            "org.matrix.msc4331.device_account_data.D.a",
        ];
        let (mut nowhere, mut harmless) = (0, 0);
        for _ in 0..draws {
            let prefix = PREFIXES[dice.below(PREFIXES.len())];
            let scope = ["", "rooms/!r/"][dice.below(2)];
            let event_type = types[dice.below(types.len())];
            let user = ["@a:x", "@a%2Fb:x"][dice.below(2)];
            let path =
                format!("/_matrix/client/{prefix}/user/{user}/{scope}account_data/{event_type}");
            let path = misspell(&mut dice, &path);
            let is_routed = router.find(&path).is_some();
            let is_nowhere = is_ambiguous(&Method::PUT, &path, is_routed);
            let is_judged = is_routed && read_strictly(&path).is_some();
            let would_write = kind_readings(&path).iter().any(|read| would_write(read));
            assert!(
                !would_write || is_nowhere || is_judged,
                "seed {seed}: {path}"
            );
            nowhere += usize::from(is_nowhere && would_write);
            harmless += usize::from(!is_nowhere && !would_write);
        }
        // It is no use to refuse or to pass everything.
        assert!(nowhere > draws / 4, "{nowhere}");
        assert!(harmless > draws / 200, "{harmless}");
    }
}
