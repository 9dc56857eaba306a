//! What is noted of the commands that reach a running server, as the admin API notes requests.

use tracing::{info, warn};

use super::copying::Order;
use super::data::{DataCommand, Place};
use super::{AccountCommand, Reply, socket};

/// The target of the audit's lines in the log.
const AUDIT: &str = "kitbag::audit";

/// What is noted of a command, once: when it was carried out, or where it ends before that.
///
/// Names alone: no password, and never what a content says.
pub(super) struct Audit {
    names: Names,
    is_done: Option<bool>,
}

/// What a command is about.
#[derive(Default)]
struct Names {
    command: &'static str,
    user: Option<String>,
    scope: Option<&'static str>,
    place: Option<String>,
    event_type: Option<String>,
    /// The copy that a backup makes.
    file: Option<String>,
}

impl Audit {
    pub(super) fn of_backup(order: &Order) -> Self {
        Self::new(Names {
            command: "backup",
            file: Some(order.file.clone()),
            ..Names::default()
        })
    }

    pub(super) fn of_accounts(command: &AccountCommand) -> Self {
        let (command, user) = match command {
            AccountCommand::AddUser { name, .. } => ("user add", Some(name)),
            AccountCommand::DeactivateUser { name } => ("user deactivate", Some(name)),
            AccountCommand::ListUsers { .. } => ("user list", None),
            AccountCommand::SetPassword { name, .. } => ("user password", Some(name)),
        };
        Self::new(Names {
            command,
            user: user.cloned(),
            ..Names::default()
        })
    }

    pub(super) fn of_data(command: &DataCommand) -> Self {
        Self::new(match command {
            DataCommand::DeleteData { place } => Names::of_entry("data delete", place),
            DataCommand::GetData { place } => Names::of_entry("data get", place),
            DataCommand::PutData { place, .. } => Names::of_entry("data put", place),
            DataCommand::ListData { user, .. } => Names {
                command: "data list",
                user: Some(user.clone()),
                ..Names::default()
            },
            DataCommand::LackingDevices { question, .. }
            | DataCommand::TallyDevices { question } => {
                Names::of_devices("devices report", &question.event_type)
            }
            DataCommand::ListDevices { event_type, .. } => {
                Names::of_devices("devices list", event_type)
            }
        })
    }

    fn new(names: Names) -> Self {
        Self {
            names,
            is_done: None,
        }
    }

    /// Takes what the command came to, for the line.
    pub(super) fn ended(&mut self, reply: &Reply) {
        let is_refused = matches!(reply, Reply::Failed { .. } | Reply::Damaged { .. });
        self.is_done = Some(!is_refused);
    }
}

impl Names {
    fn of_entry(command: &'static str, entry: &Place) -> Self {
        let (scope, place) = match (&entry.room, &entry.device) {
            (Some(room), _) => ("room", Some(room)),
            (None, Some(device)) => ("device", Some(device)),
            (None, None) => ("global", None),
        };
        Self {
            command,
            user: Some(entry.user.clone()),
            scope: Some(scope),
            place: place.cloned(),
            event_type: Some(entry.event_type.clone()),
            ..Self::default()
        }
    }

    fn of_devices(command: &'static str, event_type: &str) -> Self {
        Self {
            command,
            event_type: Some(event_type.to_owned()),
            ..Self::default()
        }
    }
}

impl Drop for Audit {
    /// Also where the caller left, or a content came too late: what was begun may have been done.
    fn drop(&mut self) {
        let names = &self.names;
        let Names { command, scope, .. } = names;
        let admin = socket::FILE;
        let user = names.user.as_deref();
        let place = names.place.as_deref();
        let event_type = names.event_type.as_deref();
        let file = names.file.as_deref();
        match self.is_done {
            Some(true) => info!(
                target: AUDIT, admin, command, user, scope, place, r#type = event_type, file, "done"
            ),
            Some(false) => warn!(
                target: AUDIT, admin, command, user, scope, place, r#type = event_type, file,
                "refused"
            ),
            None => warn!(
                target: AUDIT, admin, command, user, scope, place, r#type = event_type, file,
                "ended without an answer"
            ),
        }
    }
}
