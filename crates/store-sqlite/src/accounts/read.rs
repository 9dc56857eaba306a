//! Reading accounts, devices, sessions, profiles and filters.

use std::sync::Arc;

use kitbag_domain::{
    Account, Device, DeviceId, DeviceWithEntries, Incarnation, Profile, Scope, Seen, Selector,
    Session, TokenHash, Usage, UserId,
};
use rusqlite::{Connection, Row};

use crate::entries;
use crate::error::Failure;
use crate::rows::{self, all, first, int, unreadable};

pub(super) fn account(connection: &Connection, user: &UserId) -> Result<Option<Account>, Failure> {
    const SQL: &str = "
        SELECT u.name, u.password_hash, u.created_at, u.deactivated_at,
            (SELECT count(*) FROM devices d WHERE d.user = u.id), u.entries, u.bytes
        FROM users u WHERE u.name = ?1";
    first(connection, SQL, [user.as_str()], account_row)
}

pub(super) fn accounts(
    connection: &Connection,
    after: Option<&UserId>,
    limit: usize,
) -> Result<Vec<Account>, Failure> {
    // No name is empty, so that everything stands behind the empty one.
    const SQL: &str = "
        SELECT u.name, u.password_hash, u.created_at, u.deactivated_at,
            (SELECT count(*) FROM devices d WHERE d.user = u.id), u.entries, u.bytes
        FROM users u WHERE u.name > ?1 ORDER BY u.name LIMIT ?2";
    let after = after.map_or("", UserId::as_str);
    all(connection, SQL, (after, int(limit as u64)), account_row)
}

fn account_row(row: &Row<'_>) -> Result<Account, Failure> {
    let user: Arc<str> = row.get(0)?;
    Ok(Account {
        user: UserId::parse(user).map_err(unreadable)?,
        password_hash: row.get(1)?,
        created_at: row.get(2)?,
        deactivated_at: row.get(3)?,
        devices: row.get(4)?,
        usage: Usage {
            entries: row.get(5)?,
            bytes: row.get(6)?,
        },
    })
}

pub(super) fn session(
    connection: &Connection,
    user: &UserId,
    access: TokenHash,
) -> Result<Option<Session>, Failure> {
    const SQL: &str = "
        SELECT d.name, d.incarnation, s.access_expires_at, d.seen_at,
            EXISTS (SELECT 1 FROM sessions o WHERE o.device = s.device AND o.id < s.id)
        FROM users u
            JOIN sessions s ON s.user = u.id AND s.access = ?2
            JOIN devices d ON d.id = s.device
        WHERE u.name = ?1";
    first(connection, SQL, (user.as_str(), access.0), |row| {
        rows::session(row, 0)
    })
}

pub(super) fn devices(connection: &Connection, user: &UserId) -> Result<Vec<Device>, Failure> {
    const SQL: &str = "
        SELECT d.name, d.incarnation, d.display_name, d.seen_at, d.seen_ip, d.seen_user_agent
        FROM users u JOIN devices d ON d.user = u.id
        WHERE u.name = ?1 ORDER BY d.name";
    all(connection, SQL, [user.as_str()], device_row)
}

pub(super) fn device(
    connection: &Connection,
    user: &UserId,
    device: &DeviceId,
) -> Result<Option<Device>, Failure> {
    const SQL: &str = "
        SELECT d.name, d.incarnation, d.display_name, d.seen_at, d.seen_ip, d.seen_user_agent
        FROM users u JOIN devices d ON d.user = u.id AND d.name = ?2
        WHERE u.name = ?1";
    let params = (user.as_str(), device.as_str());
    first(connection, SQL, params, device_row)
}

pub(super) fn devices_with_entries(
    connection: &Connection,
    user: &UserId,
    device: Option<&DeviceId>,
) -> Result<Vec<DeviceWithEntries>, Failure> {
    // Ends when it is dropped; without it devices and entries might be of two snapshots.
    let snapshot = connection.unchecked_transaction()?;
    let (devices, selector) = match device {
        None => (devices(&snapshot, user)?, Selector::AllDevices),
        Some(id) => (
            self::device(&snapshot, user, id)?.into_iter().collect(),
            Selector::Scope(Scope::Device(id.clone())),
        ),
    };
    let entries = entries::list(&snapshot, user, &selector)?;
    Ok(DeviceWithEntries::of(devices, entries))
}

fn device_row(row: &Row<'_>) -> Result<Device, Failure> {
    let id: Arc<str> = row.get(0)?;
    Ok(Device {
        id: DeviceId::parse(id).map_err(unreadable)?,
        incarnation: Incarnation(row.get(1)?),
        display_name: row.get(2)?,
        seen: Seen {
            at: row.get(3)?,
            ip: row.get(4)?,
            user_agent: row.get(5)?,
        },
    })
}

pub(super) fn profile(connection: &Connection, user: &UserId) -> Result<Option<Profile>, Failure> {
    const SQL: &str = "
        SELECT displayname, avatar_url FROM users WHERE name = ?1 AND deactivated_at IS NULL";
    first(connection, SQL, [user.as_str()], |row| {
        Ok(Profile {
            displayname: row.get(0)?,
            avatar_url: row.get(1)?,
        })
    })
}

pub(super) fn filter(
    connection: &Connection,
    user: &UserId,
    id: u64,
) -> Result<Option<Arc<str>>, Failure> {
    const SQL: &str = "
        SELECT f.filter FROM users u JOIN filters f ON f.user = u.id AND f.number = ?2
        WHERE u.name = ?1";
    let params = (user.as_str(), int(id));
    first(connection, SQL, params, |row| Ok(row.get(0)?))
}
