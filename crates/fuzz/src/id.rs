//! Matrix identifiers.

use kitbag_domain::{
    DeviceId, EventType, IdError, RoomId, ServerName, UserId, limit, validate_localpart,
};

/// Reads the text as an identifier of every kind: what parses keeps its text and has the promised
/// form, and its parts make the same again.
pub fn id(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Some(id) = explained(DeviceId::parse(text)) {
        assert_eq!(id.as_str(), text);
        assert!(text.len() <= limit::DEVICE_ID_BYTES_MAX && !text.chars().any(char::is_control));
    }
    if let Some(id) = explained(EventType::parse(text)) {
        assert_eq!(id.as_str(), text);
        assert!((1..=limit::TYPE_BYTES_MAX).contains(&text.len()) && !text.contains('\0'));
    }
    if let Some(id) = explained(RoomId::parse(text)) {
        assert_eq!(id.to_string(), text);
        assert!(text.starts_with('!') && text.len() <= limit::ROOM_ID_BYTES_MAX);
    }
    if let Some(id) = explained(UserId::parse(text)) {
        assert_eq!(id.as_str(), text);
        let server = ServerName::parse(id.server_name()).expect("a user has a server");
        assert_eq!(UserId::from_parts(id.localpart(), &server), Ok(id));
    }
    if let Some(server) = explained(ServerName::parse(text)) {
        assert_eq!(server.as_str(), text);
        let user = UserId::for_new_account("a", &server).expect("there is place for a name");
        assert_eq!((user.localpart(), user.server_name()), ("a", text));
    }
    new_account(text);
}

fn new_account(localpart: &str) {
    let server = ServerName::parse("localhost").unwrap();
    let user = UserId::for_new_account(localpart, &server);
    let fits = localpart.len() + "@:localhost".len() <= limit::USER_ID_BYTES_MAX;
    assert_eq!(
        user.is_ok(),
        validate_localpart(localpart).is_ok() && fits,
        "{localpart}"
    );
    if let Ok(user) = user {
        assert_eq!(user.localpart(), localpart);
    }
}

fn explained<T>(result: Result<T, IdError>) -> Option<T> {
    result
        .map_err(|error| assert!(!error.to_string().is_empty()))
        .ok()
}
