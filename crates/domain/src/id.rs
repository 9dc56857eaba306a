//! Identifiers: once parsed they are valid, so nothing has to check them again.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::limits::limit;

/// Why a string is not an identifier.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum IdError {
    /// The string is empty.
    #[error("{kind} must not be empty")]
    Empty {
        /// What the string should have been.
        kind: &'static str,
    },
    /// The string has more bytes than allowed.
    #[error("{kind} is {bytes} bytes long, the limit is {limit}")]
    TooLong {
        /// What the string should have been.
        kind: &'static str,
        /// Its length.
        bytes: usize,
        /// The length allowed.
        limit: usize,
    },
    /// The string has the wrong form.
    #[error("{kind} must {rule}")]
    Malformed {
        /// What the string should have been.
        kind: &'static str,
        /// The rule that it breaks.
        rule: &'static str,
    },
}

fn check_length(kind: &'static str, value: &str, limit: usize) -> Result<(), IdError> {
    match value.len() {
        0 => Err(IdError::Empty { kind }),
        bytes if bytes > limit => Err(IdError::TooLong { kind, bytes, limit }),
        _ => Ok(()),
    }
}

// One macro for what every newtype over a string needs: by hand it is the same 30 lines five times.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the form and keeps the string.
            /// # Errors
            /// [`IdError`] says which rule the string breaks.
            pub fn parse(value: impl AsRef<str> + Into<Arc<str>>) -> Result<Self, IdError> {
                $check(value.as_ref())?;
                Ok(Self(value.into()))
            }

            /// Returns the identifier as it was written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

identifier! {
    /// A device ID: an opaque string, compared byte for byte.
    ///
    /// At most [`limit::DEVICE_ID_BYTES_MAX`] bytes, no control characters.
    DeviceId, check_device_id
}

identifier! {
    /// The type of an entry, such as `m.direct`: a free string.
    ///
    /// At most [`limit::TYPE_BYTES_MAX`] bytes, not empty. May hold `/`, spaces and any Unicode.
    EventType, check_event_type
}

identifier! {
    /// A room ID: `!` and an opaque part; since room version 12 without a domain.
    ///
    /// At most [`limit::ROOM_ID_BYTES_MAX`] bytes, no NUL [spec, appendices "Room IDs"].
    RoomId, check_room_id
}

identifier! {
    /// A server name: host and optional port [spec, appendices "Server Name"].
    ServerName, check_server_name
}

identifier! {
    /// A full user ID, `@localpart:server` [spec, appendices "User Identifiers"].
    ///
    /// The historical grammar: any localpart. New accounts obey [`validate_localpart`].
    UserId, check_user_id
}

impl UserId {
    /// Returns the ID of `localpart` on `server`.
    /// # Errors
    /// [`IdError::TooLong`] over [`limit::USER_ID_BYTES_MAX`] bytes.
    pub fn from_parts(localpart: &str, server: &ServerName) -> Result<Self, IdError> {
        Self::parse(format!("@{localpart}:{server}"))
    }

    /// Returns whom people name by a localpart or a whole user ID, where it is a user of `server`.
    /// # Errors
    /// [`UserNameError`].
    pub fn named(name: &str, server: &ServerName) -> Result<Self, UserNameError> {
        let user = if name.starts_with('@') {
            Self::parse(name)?
        } else {
            Self::from_parts(name, server)?
        };
        if user.server_name() != server.as_str() {
            let server = server.clone();
            return Err(UserNameError::OtherServer { user, server });
        }
        Ok(user)
    }

    /// Returns the ID of a new account, whose localpart obeys [`validate_localpart`].
    /// # Errors
    /// [`LocalpartError`].
    pub fn for_new_account(localpart: &str, server: &ServerName) -> Result<Self, LocalpartError> {
        validate_localpart(localpart)?;
        let limit = limit::USER_ID_BYTES_MAX;
        Self::from_parts(localpart, server).map_err(|_| LocalpartError::TooLong { limit })
    }

    /// Returns the part between `@` and the first colon.
    #[must_use]
    pub fn localpart(&self) -> &str {
        self.split().0
    }

    /// Returns the part behind the first colon.
    #[must_use]
    pub fn server_name(&self) -> &str {
        self.split().1
    }

    fn split(&self) -> (&str, &str) {
        self.0[1..]
            .split_once(':')
            .expect("a parsed user ID has a colon")
    }
}

/// Why a name is not that of a user of this server.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UserNameError {
    /// It names nobody.
    #[error(transparent)]
    Malformed(#[from] IdError),
    /// It names a user of another server.
    #[error("{user} is not a user of the server {server}")]
    OtherServer {
        /// Who is named.
        user: UserId,
        /// This server.
        server: ServerName,
    },
}

fn check_device_id(value: &str) -> Result<(), IdError> {
    const KIND: &str = "a device ID";
    check_length(KIND, value, limit::DEVICE_ID_BYTES_MAX)?;
    if value.chars().any(char::is_control) {
        return Err(IdError::Malformed {
            kind: KIND,
            rule: "not hold control characters",
        });
    }
    Ok(())
}

fn check_event_type(value: &str) -> Result<(), IdError> {
    const KIND: &str = "an event type";
    check_length(KIND, value, limit::TYPE_BYTES_MAX)?;
    if value.contains('\0') {
        return Err(IdError::Malformed {
            kind: KIND,
            rule: "not hold a NUL",
        });
    }
    Ok(())
}

fn check_room_id(value: &str) -> Result<(), IdError> {
    const KIND: &str = "a room ID";
    check_length(KIND, value, limit::ROOM_ID_BYTES_MAX)?;
    let malformed = |rule| Err(IdError::Malformed { kind: KIND, rule });
    let Some(opaque) = value.strip_prefix('!') else {
        return malformed("start with `!`");
    };
    if opaque.is_empty() || opaque.starts_with(':') {
        return malformed("have a part behind the `!`");
    }
    if value.contains('\0') {
        return malformed("not hold a NUL");
    }
    Ok(())
}

fn check_server_name(value: &str) -> Result<(), IdError> {
    const KIND: &str = "a server name";
    check_length(KIND, value, limit::SERVER_NAME_BYTES_MAX)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '[' | ']');
    if !value.chars().all(allowed) || value.starts_with(':') {
        return Err(IdError::Malformed {
            kind: KIND,
            rule: "be a host and an optional port",
        });
    }
    Ok(())
}

fn check_user_id(value: &str) -> Result<(), IdError> {
    const KIND: &str = "a user ID";
    check_length(KIND, value, limit::USER_ID_BYTES_MAX)?;
    let malformed = |rule| Err(IdError::Malformed { kind: KIND, rule });
    let Some((_, server)) = value
        .strip_prefix('@')
        .and_then(|rest| rest.split_once(':'))
    else {
        return malformed("have the form `@localpart:server`");
    };
    if value.contains('\0') {
        return malformed("not hold a NUL");
    }
    check_server_name(server)
}

/// Why a localpart cannot be registered.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LocalpartError {
    /// The localpart is empty.
    #[error("a user name must not be empty")]
    Empty,
    /// The localpart has a character outside the grammar.
    #[error("a user name may only hold the characters a-z, 0-9, and . _ = - / +")]
    Character,
    /// The user ID would be too long.
    #[error("a user name with the server's must have at most {limit} bytes")]
    TooLong {
        /// The length allowed, of the whole ID.
        limit: usize,
    },
}

/// Checks the localpart of a new account [spec, appendices "User Identifiers"].
/// # Errors
/// [`LocalpartError`] for an empty one and for characters outside the grammar; the length is
/// checked by [`UserId::for_new_account`].
pub fn validate_localpart(localpart: &str) -> Result<(), LocalpartError> {
    let allowed = |c: char| {
        c.is_ascii_lowercase()
            || c.is_ascii_digit()
            || matches!(c, '.' | '_' | '=' | '-' | '/' | '+')
    };
    if localpart.is_empty() {
        return Err(LocalpartError::Empty);
    }
    if localpart.chars().all(allowed) {
        Ok(())
    } else {
        Err(LocalpartError::Character)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_named_by_localpart_or_whole_id_of_this_server() {
        let server = ServerName::parse("x.example").unwrap();
        let named = |name: &str| UserId::named(name, &server);
        for name in ["alice", "@alice:x.example"] {
            assert_eq!(named(name).unwrap().as_str(), "@alice:x.example");
        }
        for name in ["@alice:x.example:8448", "@alice:y.example"] {
            let user = UserId::parse(name).unwrap();
            let server = server.clone();
            let error = UserNameError::OtherServer { user, server };
            assert_eq!(named(name), Err(error));
        }
        for name in ["@alice", "@", &"a".repeat(250)] {
            let is_malformed = matches!(named(name), Err(UserNameError::Malformed(_)));
            assert!(is_malformed, "{name}");
        }
    }

    #[test]
    fn room_ids_need_no_domain() {
        for id in [
            "!abc:example.org",
            "!WWBf7tbsQJYI5zWdn1iLVcrdMKFkDpOgT0HnIHJjXnQ",
            "!a b/ü:x",
        ] {
            assert_eq!(RoomId::parse(id).unwrap().as_str(), id);
        }
    }

    #[test]
    fn malformed_room_ids_are_refused() {
        let long = format!("!{}", "a".repeat(limit::ROOM_ID_BYTES_MAX));
        for id in ["", "!", "!:example.org", "#a:b", "a:b", "!a\0:b", &long] {
            assert!(RoomId::parse(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn event_types_are_free_strings() {
        for value in [
            "m.direct",
            "a/b c",
            "ключ",
            &"x".repeat(limit::TYPE_BYTES_MAX),
        ] {
            assert_eq!(EventType::parse(value).unwrap().as_str(), value);
        }
        let bytes = limit::TYPE_BYTES_MAX + 1;
        let error = EventType::parse("x".repeat(bytes)).unwrap_err();
        let limit = limit::TYPE_BYTES_MAX;
        assert_eq!(
            error,
            IdError::TooLong {
                kind: "an event type",
                bytes,
                limit
            }
        );
        assert_eq!(
            EventType::parse(""),
            Err(IdError::Empty {
                kind: "an event type"
            })
        );
    }

    #[test]
    fn user_ids_split_at_the_first_colon() {
        let user = UserId::parse("@alice:localhost:8008").unwrap();
        assert_eq!(
            (user.localpart(), user.server_name()),
            ("alice", "localhost:8008")
        );
        for id in [
            "alice",
            "@alice",
            "alice:x",
            "@alice:",
            "@alice:a b",
            "@al\0ce:x",
        ] {
            assert!(UserId::parse(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn new_localparts_obey_the_strict_grammar() {
        assert_eq!(validate_localpart("a.b_c=d-e/f+0"), Ok(()));
        assert_eq!(validate_localpart(""), Err(LocalpartError::Empty));
        for localpart in ["Alice", "a b", "é", "a:b"] {
            assert_eq!(
                validate_localpart(localpart),
                Err(LocalpartError::Character)
            );
        }
    }

    #[test]
    fn device_ids_are_opaque() {
        assert_eq!(DeviceId::parse("Ä b/c").unwrap().as_str(), "Ä b/c");
        assert!(DeviceId::parse("a\nb").is_err());
        assert!(DeviceId::parse("x".repeat(limit::DEVICE_ID_BYTES_MAX + 1)).is_err());
    }
}
