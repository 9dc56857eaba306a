//! What can be wrong with a store.

/// What was done to the store, what the check finds, and what is left after a repair.
pub(crate) struct Harm {
    pub(crate) sql: &'static str,
    pub(crate) found: &'static [&'static str],
    pub(crate) left: &'static [&'static str],
}

pub(crate) const HARMS: &[Harm] = &[
    Harm {
        sql: "UPDATE users SET entries = 9 WHERE name = '@alice:localhost'",
        found: &[
            "usage @alice:localhost the count says 9 entries of 40 bytes, but there are 4 of 40 bytes",
        ],
        left: &[],
    },
    Harm {
        sql: "UPDATE users SET entries = 0, bytes = 0 WHERE name = '@alice:localhost'",
        found: &[
            "usage @alice:localhost the count says 0 entries of 0 bytes, but there are 4 of 40 bytes",
        ],
        left: &[],
    },
    Harm {
        sql: "UPDATE users SET position = 3 WHERE name = '@alice:localhost'",
        found: &["position @alice:localhost the position is 3, but 7 was given out"],
        left: &[],
    },
    Harm {
        sql: "UPDATE users SET position = 0 WHERE name = '@bob:localhost'",
        found: &["position @bob:localhost the position is 0, but 1 was given out"],
        left: &[],
    },
    Harm {
        sql: "UPDATE users SET horizon = 99 WHERE name = '@alice:localhost'",
        found: &["position @alice:localhost the position is 7, but 99 was given out"],
        left: &[],
    },
    Harm {
        sql: "DELETE FROM devices WHERE user = 1",
        found: &[
            "orphan - 1 row of `sessions` names a row of `devices` that is gone",
            "orphan @alice:localhost 2 entries of a device that is gone",
        ],
        left: &[],
    },
    Harm {
        sql: "DELETE FROM users WHERE id = 1",
        found: &[
            "orphan - 1 row of `devices` names a row of `users` that is gone",
            "orphan - 5 rows of `entries` name a row of `users` that is gone",
            "orphan - 1 row of `filters` names a row of `users` that is gone",
            "orphan - 1 row of `sessions` names a row of `users` that is gone",
        ],
        left: &[],
    },
    Harm {
        sql: "UPDATE sessions SET user = 2 WHERE user = 1",
        found: &["orphan @bob:localhost 1 session on another user's device"],
        left: &[],
    },
    Harm {
        sql: "UPDATE users SET deactivated_at = 5 WHERE name = '@alice:localhost'",
        found: &["orphan @alice:localhost it is deactivated, but not all of it was erased"],
        left: &[],
    },
    Harm {
        sql: "UPDATE entries SET content = '[1]' WHERE type = 'a'",
        found: &[
            "unreadable @alice:localhost row 1 of `entries` cannot be read: a content is not a \
             JSON object but Text",
        ],
        left: &[
            "unreadable @alice:localhost row 1 of `entries` cannot be read: a content is not a \
             JSON object but Text",
        ],
    },
    Harm {
        sql: "UPDATE entries SET content = '{\"secret\": }' WHERE type = 'a'",
        found: &[
            "unreadable @alice:localhost row 1 of `entries` cannot be read: the content is not \
             valid JSON",
        ],
        left: &[
            "unreadable @alice:localhost row 1 of `entries` cannot be read: the content is not \
             valid JSON",
        ],
    },
    Harm {
        sql: "UPDATE entries SET scope = 3 WHERE type = 'a';
              UPDATE entries SET writer = 7 WHERE type = 'b';
              UPDATE entries SET type = '' WHERE type = 'c'",
        found: &[
            "unreadable @alice:localhost row 1 of `entries` cannot be read: an entry has the \
             scope 3",
            "unreadable @alice:localhost row 2 of `entries` cannot be read: an entry has a writer \
             of the kind 7",
            "unreadable @alice:localhost row 3 of `entries` cannot be read: an event type must \
             not be empty",
        ],
        left: &[
            "unreadable @alice:localhost row 1 of `entries` cannot be read: an entry has the \
             scope 3",
            "unreadable @alice:localhost row 2 of `entries` cannot be read: an entry has a writer \
             of the kind 7",
            "unreadable @alice:localhost row 3 of `entries` cannot be read: an event type must \
             not be empty",
        ],
    },
    Harm {
        sql: "UPDATE sessions SET access = x'0102' WHERE user = 1;
              UPDATE filters SET filter = 'x';
              UPDATE devices SET name = '' WHERE user = 2",
        found: &[
            "unreadable @bob:localhost row 2 of `devices` cannot be read: a device ID must not be \
             empty",
            "unreadable @alice:localhost row 1 of `sessions` cannot be read: a value is \
             none that Kitbag writes",
            "unreadable @alice:localhost row 1 of `filters` cannot be read: the filter is not a \
             JSON object",
        ],
        left: &[
            "unreadable @bob:localhost row 2 of `devices` cannot be read: a device ID must not be \
             empty",
            "unreadable @alice:localhost row 1 of `sessions` cannot be read: a value is \
             none that Kitbag writes",
            "unreadable @alice:localhost row 1 of `filters` cannot be read: the filter is not a \
             JSON object",
        ],
    },
    Harm {
        sql: "UPDATE users SET position = -1 WHERE id = 2",
        found: &["unreadable - row 2 of `users` cannot be read: the number -1 is out of range"],
        left: &["unreadable - row 2 of `users` cannot be read: the number -1 is out of range"],
    },
    Harm {
        sql: "UPDATE store SET server_name = 'example.org'",
        found: &[
            "identity @alice:localhost the account is not of the server example.org",
            "identity @bob:localhost the account is not of the server example.org",
        ],
        left: &[
            "identity @alice:localhost the account is not of the server example.org",
            "identity @bob:localhost the account is not of the server example.org",
        ],
    },
    Harm {
        sql: "UPDATE store SET server_name = ''",
        found: &["identity - the server name of the store is not a server name"],
        left: &["identity - the server name of the store is not a server name"],
    },
    Harm {
        sql: "DELETE FROM store; UPDATE users SET bytes = 1 WHERE id = 2",
        found: &[
            "identity - the store does not say whose it is",
            "usage @bob:localhost the count says 0 entries of 1 byte, but there are 0 of 0 bytes",
        ],
        left: &["identity - the store does not say whose it is"],
    },
    Harm {
        sql: "UPDATE entries SET feed = NULL WHERE type = 'c';
              UPDATE entries SET feed = 9 WHERE type = 'a'",
        found: &[
            "feed - 1 entry at device scope without a number of its own in the feed",
            "feed - 1 row of `entries` with a number in the feed that is not theirs",
            "feed - the head of the feed is 2, but 9 was given out",
        ],
        left: &[],
    },
    Harm {
        sql: "UPDATE entries SET feed = -3 WHERE type = 'c';
              UPDATE users SET feed = 2 WHERE name = '@bob:localhost'",
        found: &[
            "feed - 2 entries at device scope without a number of its own in the feed",
            "feed - 1 row of `users` with a number in the feed that is not theirs",
        ],
        left: &[],
    },
    Harm {
        sql: "UPDATE store SET feed_head = 1",
        found: &["feed - the head of the feed is 1, but 2 was given out"],
        left: &[],
    },
    Harm {
        sql: "UPDATE store SET feed_head = -1, feed_floor = -1",
        found: &[
            "feed - the head of the feed is -1, but 2 was given out",
            "feed - the floor of the feed is -1, and its head -1",
        ],
        left: &[],
    },
    Harm {
        sql: "UPDATE store SET feed_floor = 3",
        found: &["feed - the floor of the feed is 3, and its head 2"],
        left: &[],
    },
    // A position that is given twice cannot get past the index: only a damage lets it.
    Harm {
        sql: "DROP INDEX entries_by_position;
              UPDATE entries SET position = 3 WHERE position = 4;
              CREATE INDEX entries_by_position ON entries (user, position);
              PRAGMA writable_schema = ON;
              UPDATE sqlite_schema SET sql = replace(sql, 'CREATE INDEX', 'CREATE UNIQUE INDEX')
              WHERE name = 'entries_by_position'",
        found: &["damage - non-unique entry in index entries_by_position"],
        left: &["damage - non-unique entry in index entries_by_position"],
    },
    Harm {
        sql: "DROP TABLE filters; UPDATE users SET entries = 9 WHERE id = 1",
        found: &["schema - the table `filters` is missing"],
        left: &["schema - the table `filters` is missing"],
    },
    Harm {
        sql: "DROP INDEX entries_by_position; DROP INDEX tombstones;
              CREATE INDEX tombstones ON entries (user)",
        found: &[
            "schema - the index `entries_by_position` is missing",
            "schema - the index `tombstones` is not as its format has it",
        ],
        left: &[
            "schema - the index `entries_by_position` is missing",
            "schema - the index `tombstones` is not as its format has it",
        ],
    },
];
