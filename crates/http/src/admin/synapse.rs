//! `GET /_synapse/admin/v1/users/{user}/accountdata`, which tools for operators know.
//!
//! Synapse, docs/admin_api/user_admin_api.md, "Account Data".

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use kitbag_domain::{Content, Entry, EventType, Key, PUSH_RULES, RoomId, Scope, Selector};

use super::entries::TargetUser;
use crate::error::ApiError;
use crate::json::{JsonObject, json_response};
use crate::state::App;

/// Returns all contents of a user at global and room scope; of a deactivated one none.
///
/// Unlike Synapse with `m.push_rules`, which is account data as everything else.
pub(crate) async fn account_data(
    State(app): State<App>,
    TargetUser(user): TargetUser,
) -> Result<Response, ApiError> {
    if user.server_name() != app.server_name.as_str() {
        let error = "only users of this server can be looked up"; // 400 on Synapse too
        return Err(ApiError::InvalidParam(error.to_owned()));
    }
    let account = app.store.account(&user).await?;
    let account = account.ok_or(ApiError::NotFound("User not found"))?; // as Synapse words it
    // As an initial sync: all of a user's contents come into memory, twice.
    let _turn = app.sync_turns.full().await;
    let reader = app.data.reader();
    let mut entries = reader.list(&user, Selector::All).await?;
    entries.retain(|entry| entry.key.event_type.as_str() != PUSH_RULES);
    let rules = match account.deactivated_at {
        None => Some(reader.content(&user, &push_rules()).await?),
        Some(_) => None,
    };
    let body = body(&entries, rules.as_ref());
    Ok(json_response(StatusCode::OK, body.finish()))
}

fn body(entries: &[Entry], rules: Option<&Content>) -> JsonObject {
    let mut rooms = BTreeMap::<&RoomId, Vec<(&str, &str)>>::new();
    let mut global = Vec::new();
    global.extend(rules.map(|rules| (PUSH_RULES, rules.as_str())));
    for entry in entries {
        let content = entry
            .content
            .as_ref()
            .map_or("{}", |content| content.as_str());
        let pair = (entry.key.event_type.as_str(), content);
        match &entry.key.scope {
            Scope::Global => global.push(pair),
            Scope::Room(room) => rooms.entry(room).or_default().push(pair),
            Scope::Device(_) => {} // Synapse has none
        }
    }
    let mut body = JsonObject::for_entries(entries, rules);
    body.object("account_data", |out| {
        out.object("global", |out| write(out, &global));
        out.object("rooms", |out| {
            for (room, contents) in &rooms {
                out.object(room.as_str(), |out| write(out, contents));
            }
        });
    });
    body
}

fn push_rules() -> Key {
    let event_type = EventType::parse(PUSH_RULES).expect("the type is well-formed");
    Key::new(Scope::Global, event_type)
}

fn write(out: &mut JsonObject, contents: &[(&str, &str)]) {
    for (event_type, content) in contents {
        out.raw(event_type, content);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kitbag_domain::{Limits, Position, Writer};

    use super::*;

    fn entry(scope: Scope, event_type: &str) -> Entry {
        Entry {
            key: Key::new(scope, EventType::parse(event_type).unwrap()),
            content: Some(content(r#"{"a":1}"#)),
            position: Position(1),
            writer: Writer::Server,
            written_at: 0,
        }
    }

    fn content(text: &str) -> Content {
        Content::parse(Bytes::copy_from_slice(text.as_bytes()), &Limits::default()).unwrap()
    }

    #[test]
    fn a_body_is_not_copied_as_it_grows() {
        let entries: Vec<Entry> = (0..500)
            .map(|number| match number % 2 {
                0 => entry(Scope::Global, &format!("app.{number}")),
                _ => {
                    let room = RoomId::parse(format!("!{number}:x")).unwrap();
                    entry(Scope::Room(room), "app.test")
                }
            })
            .collect();
        let rules = content(&format!(r#"{{"b":"{}"}}"#, "x".repeat(900)));
        let room_bytes = JsonObject::for_entries(&entries, Some(&rules)).capacity();
        assert_eq!(body(&entries, Some(&rules)).capacity(), room_bytes);
    }
}
