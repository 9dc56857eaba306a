//! The life of accounts and devices, their names, and what they keep besides entries.

use std::sync::Arc;

use kitbag_domain::{
    ApplyError, DeviceId, DeviceSelection, EventType, FilterError, Guard, Key, Login, NewAccount,
    Position, ProfileField, Refusal, RegisterError, Scope, UserId, Write, local_notification_keys,
};

use super::sessions;
use crate::entries::{UserRow, user_row};
use crate::error::{Failure, Halt};
use crate::rows::{SCOPE_DEVICE, all, first, int, run, unreadable};
use crate::writer::Tx;

pub(super) fn register(
    tx: &mut Tx<'_>,
    account: &NewAccount,
    login: Option<&Login>,
) -> Result<(), Halt<RegisterError>> {
    const SQL: &str = "
        INSERT INTO users (name, password_hash, created_at) VALUES (?1, ?2, ?3)
        ON CONFLICT (name) DO NOTHING";
    let (name, created_at) = (account.user.as_str(), int(account.at));
    let params = (name, account.password_hash.as_str(), created_at);
    if run(tx.connection, SQL, params)? == 0 {
        return Err(Halt::Refused(RegisterError::UserInUse));
    }
    if let Some(login) = login {
        let user = tx.connection.last_insert_rowid();
        let position = sessions::add_device(tx, user, Position::ZERO, login)?;
        tx.changed = Some((account.user.clone(), position));
    }
    Ok(())
}

pub(super) fn rename_device(
    tx: &mut Tx<'_>,
    user: &UserId,
    guard: &Guard,
    device: &DeviceId,
    display_name: Option<&str>,
) -> Result<(), Halt<ApplyError>> {
    const SQL: &str = "UPDATE devices SET display_name = ?3 WHERE user = ?1 AND name = ?2";
    let row = user_row(tx, user, guard)?.ok_or(Refusal::SessionGone)?;
    let params = (row.id, device.as_str(), display_name);
    if run(tx.connection, SQL, params)? == 0 {
        return Err(Refusal::NoSuchDevice.into());
    }
    Ok(())
}

pub(super) fn remove_devices(
    tx: &mut Tx<'_>,
    user: &UserId,
    write: &Write,
    devices: &DeviceSelection,
) -> Result<Vec<DeviceId>, Halt<ApplyError>> {
    let row = user_row(tx, user, &write.guard)?.ok_or(Refusal::SessionGone)?;
    row.remove_devices(tx, user, write, devices)
}

pub(super) fn set_password(
    tx: &mut Tx<'_>,
    user: &UserId,
    write: &Write,
    password_hash: &str,
    logout: Option<&DeviceSelection>,
) -> Result<(), Halt<ApplyError>> {
    const SQL: &str = "UPDATE users SET password_hash = ?2 WHERE id = ?1";
    let row = user_row(tx, user, &write.guard)?.ok_or(Refusal::SessionGone)?;
    let id = row.id;
    if let Some(devices) = logout {
        row.remove_devices(tx, user, write, devices)?;
    }
    run(tx.connection, SQL, (id, password_hash))?;
    Ok(())
}

pub(super) fn deactivate(
    tx: &mut Tx<'_>,
    user: &UserId,
    write: &Write,
) -> Result<(), Halt<ApplyError>> {
    const END: &str = "
        UPDATE users SET deactivated_at = ?2, password_hash = NULL, displayname = NULL,
            avatar_url = NULL, position = ?3, horizon = ?3, entries = 0, bytes = 0, feed = ?4
        WHERE id = ?1";
    const DROP: [&str; 3] = [
        "DELETE FROM entries WHERE user = ?1",
        "DELETE FROM devices WHERE user = ?1",
        "DELETE FROM filters WHERE user = ?1",
    ];
    let mut row = user_row(tx, user, &write.guard)?.ok_or(Refusal::SessionGone)?;
    for sql in DROP {
        run(tx.connection, sql, [row.id])?;
    }
    let position = row.take_position();
    let number = tx.feed.take_number(tx.connection)?;
    let params = (row.id, int(write.at), int(position.0), number);
    run(tx.connection, END, params)?;
    tx.changed = Some((user.clone(), position));
    Ok(())
}

pub(super) fn set_profile(
    tx: &mut Tx<'_>,
    user: &UserId,
    guard: &Guard,
    field: ProfileField,
    value: Option<&str>,
) -> Result<(), Halt<ApplyError>> {
    let sql = match field {
        ProfileField::AvatarUrl => "UPDATE users SET avatar_url = ?2 WHERE id = ?1",
        ProfileField::Displayname => "UPDATE users SET displayname = ?2 WHERE id = ?1",
    };
    let row = user_row(tx, user, guard)?.ok_or(Refusal::SessionGone)?;
    run(tx.connection, sql, (row.id, value))?;
    Ok(())
}

pub(super) fn add_filter(
    tx: &mut Tx<'_>,
    user: &UserId,
    guard: &Guard,
    filter: &str,
) -> Result<u64, Halt<FilterError>> {
    // The length is told without reading the text.
    const KNOWN: &str = "
        SELECT number FROM filters
        WHERE user = ?1 AND octet_length(filter) = octet_length(?2) AND filter = ?2";
    const COUNT: &str = "SELECT count(*) FROM filters WHERE user = ?1";
    const INSERT: &str = "INSERT INTO filters (user, number, filter) VALUES (?1, ?2, ?3)";
    let row = user_row(tx, user, guard)?.ok_or(Halt::Refused(FilterError::SessionGone))?;
    let known = first(
        tx.connection,
        KNOWN,
        (row.id, filter),
        |row| Ok(row.get(0)?),
    )?;
    if let Some(number) = known {
        return Ok(number);
    }
    let count: Option<u64> = first(tx.connection, COUNT, [row.id], |row| Ok(row.get(0)?))?;
    let (count, limit) = (count.unwrap_or_default(), tx.limits.filters_max);
    if count >= limit {
        return Err(Halt::Refused(FilterError::TooMany { limit }));
    }
    run(tx.connection, INSERT, (row.id, int(count), filter))?;
    Ok(count)
}

impl UserRow {
    /// Removes devices, their sessions, entries and the entries that name them.
    fn remove_devices(
        mut self,
        tx: &mut Tx<'_>,
        user: &UserId,
        write: &Write,
        devices: &DeviceSelection,
    ) -> Result<Vec<DeviceId>, Halt<ApplyError>> {
        let mut selected = self.device_ids(tx)?;
        selected.retain(|device| devices.contains(device));
        for device in &selected {
            let own = self.device_keys(tx, device)?;
            let keys = own.into_iter().chain(local_notification_keys(device));
            self.delete_entries(tx, write, keys)?;
            self.drop_device(tx, device.as_str())?;
        }
        // Also where no entry went: a waiting sync must look whether its session lives.
        self.take_position();
        self.save(tx, user, write.at)?;
        Ok(selected)
    }

    fn device_ids(&self, tx: &Tx<'_>) -> Result<Vec<DeviceId>, Failure> {
        const SQL: &str = "SELECT name FROM devices WHERE user = ?1 ORDER BY name";
        all(tx.connection, SQL, [self.id], |row| {
            let id: Arc<str> = row.get(0)?;
            DeviceId::parse(id).map_err(unreadable)
        })
    }

    /// Returns the keys of a device's live entries.
    fn device_keys(&self, tx: &Tx<'_>, device: &DeviceId) -> Result<Vec<Key>, Failure> {
        const SQL: &str = "
            SELECT type FROM entries
            WHERE user = ?1 AND scope = ?2 AND place = ?3 AND content IS NOT NULL
            ORDER BY type";
        let params = (self.id, SCOPE_DEVICE, device.as_str());
        all(tx.connection, SQL, params, |row| {
            let event_type: Arc<str> = row.get(0)?;
            let event_type = EventType::parse(event_type).map_err(unreadable)?;
            Ok(Key::new(Scope::Device(device.clone()), event_type))
        })
    }
}
