//! Lists of entries without their contents.

use kitbag_domain::{EntryDescription, Key, Selector, UserId};
use rusqlite::Connection;

use crate::error::Failure;
use crate::rows::{EntryReader, SCOPE_DEVICE, SCOPE_ROOM, all, int, scope_number};

/// Returns the descriptions of up to `limit` selected live entries behind `after`, by key.
///
/// One range of the index: all selectors are intervals of its order. `octet_length` reads the head of
/// the row alone, and none of the pages that a large content fills.
pub(super) fn page(
    connection: &Connection,
    user: &UserId,
    selector: &Selector,
    after: Option<&Key>,
    limit: usize,
) -> Result<Vec<EntryDescription>, Failure> {
    const SQL: &str = "
        SELECT e.position, e.written_at, e.writer, e.writer_device, e.writer_user_agent,
            octet_length(e.content), e.scope, e.place, e.type
        FROM users u JOIN entries e ON e.user = u.id
        WHERE u.name = ?1 AND (e.scope, e.place, e.type) > (?2, ?3, ?4)
            AND (e.scope, e.place) < (?5, ?6) AND e.content IS NOT NULL
        ORDER BY e.scope, e.place, e.type LIMIT ?7";
    let bounds = Bounds::of(selector);
    let after = after.map(|key| {
        let (scope, place) = (scope_number(&key.scope), key.scope.place());
        (scope, place, key.event_type.as_str())
    });
    // No type is empty, so this is before all of that place.
    let first = (bounds.first.0, bounds.first.1, "");
    let (scope, place, event_type) = after.map_or(first, |after| after.max(first));
    let (end_scope, end_place) = bounds.end;
    let (user, limit) = (user.as_str(), int(limit as u64));
    let params = (user, scope, place, event_type, end_scope, end_place, limit);
    let mut entries = EntryReader::default();
    all(connection, SQL, params, |row| entries.describe(row))
}

/// Between which scopes and places the selected entries lie.
struct Bounds<'a> {
    first: (i64, &'a str),
    /// Not among them any more.
    end: (i64, String),
}

impl<'a> Bounds<'a> {
    fn of(selector: &'a Selector) -> Self {
        let scopes = |first, last: i64| Self {
            first: (first, ""),
            end: (last + 1, String::new()),
        };
        match selector {
            Selector::All => scopes(0, SCOPE_DEVICE),
            Selector::AllDevices => scopes(SCOPE_DEVICE, SCOPE_DEVICE),
            Selector::AllRooms => scopes(SCOPE_ROOM, SCOPE_ROOM),
            Selector::Scope(scope) => {
                let (number, place) = (scope_number(scope), scope.place());
                Self {
                    first: (number, place),
                    // Byte by byte nothing lies between a name and itself with a zero behind it.
                    end: (number, format!("{place}\0")),
                }
            }
        }
    }
}
