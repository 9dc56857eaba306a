//! `GET /_synapse/admin/v1/users/{user}/accountdata`, which tools for operators know.
//!
//! Synapse, docs/admin_api/user_admin_api.md, "Account Data".

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use kitbag_domain::{EventType, Key, PUSH_RULES, RoomId, Scope, Selector};

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
    let mut rooms = BTreeMap::<&RoomId, Vec<(&str, &str)>>::new();
    let mut global = Vec::new();
    let rules = match account.deactivated_at {
        None => Some(reader.content(&user, &push_rules()).await?),
        Some(_) => None,
    };
    global.extend(rules.iter().map(|rules| (PUSH_RULES, rules.as_str())));
    for entry in &entries {
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
    let mut body = JsonObject::new();
    body.object("account_data", |out| {
        out.object("global", |out| write(out, &global));
        out.object("rooms", |out| {
            for (room, contents) in &rooms {
                out.object(room.as_str(), |out| write(out, contents));
            }
        });
    });
    Ok(json_response(StatusCode::OK, body.finish()))
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
