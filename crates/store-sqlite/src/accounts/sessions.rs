//! Sessions: each row is one generation of a device's tokens, and a higher id a newer one.

use kitbag_domain::{
    Login, LoginError, Position, RefreshError, Seen, SessionTokens, StoreError, TokenHash, UserId,
};

use crate::entries::UserRow;
use crate::error::{Failure, Halt};
use crate::rows::{first, int, run};
use crate::writer::Tx;

pub(super) fn login(tx: &mut Tx<'_>, user: &UserId, login: &Login) -> Result<(), Halt<LoginError>> {
    const SQL: &str = "
        SELECT id, position, password_hash FROM users WHERE name = ?1 AND deactivated_at IS NULL";
    let row = first(tx.connection, SQL, [user.as_str()], |row| {
        let hash: Option<String> = row.get(2)?;
        Ok((row.get(0)?, Position(row.get(1)?), hash))
    })?;
    let Some((id, position)) = row.and_then(|(id, position, hash)| {
        (hash.as_ref() == Some(&login.verified_hash)).then_some((id, position))
    }) else {
        return Err(Halt::Refused(LoginError::PasswordChanged));
    };
    let limit = tx.limits.devices_max;
    match device_row(tx, id, login)? {
        Some(device) => {
            run(
                tx.connection,
                "DELETE FROM sessions WHERE device = ?1",
                [device],
            )?;
            see(tx, device, &login.seen)?;
            insert_session(tx, id, device, &login.tokens)?;
        }
        None if count_devices(tx, id)? >= limit => {
            return Err(Halt::Refused(LoginError::TooManyDevices { limit }));
        }
        None => {
            let position = add_device(tx, id, position, login)?;
            tx.changed = Some((user.clone(), position));
        }
    }
    Ok(())
}

fn device_row(tx: &Tx<'_>, user: i64, login: &Login) -> Result<Option<i64>, Failure> {
    const SQL: &str = "SELECT id FROM devices WHERE user = ?1 AND name = ?2";
    let params = (user, login.device.as_str());
    first(tx.connection, SQL, params, |row| Ok(row.get(0)?))
}

fn count_devices(tx: &Tx<'_>, user: i64) -> Result<u64, Failure> {
    const SQL: &str = "SELECT count(*) FROM devices WHERE user = ?1";
    let count = first(tx.connection, SQL, [user], |row| Ok(row.get(0)?))?;
    Ok(count.unwrap_or_default())
}

/// Makes a new device with its first session; its incarnation is the position that it takes.
pub(super) fn add_device(
    tx: &Tx<'_>,
    user: i64,
    position: Position,
    login: &Login,
) -> Result<Position, Failure> {
    const SQL: &str = "
        INSERT INTO devices (user, name, incarnation, display_name, seen_at, seen_ip,
            seen_user_agent)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    const MOVE: &str = "UPDATE users SET position = ?2 WHERE id = ?1";
    let position = position.next();
    let seen = &login.seen;
    let params = (
        user,
        login.device.as_str(),
        int(position.0),
        login.display_name.as_deref(),
        int(seen.at),
        seen.ip.as_deref(),
        seen.user_agent.as_deref(),
    );
    run(tx.connection, SQL, params)?;
    let device = tx.connection.last_insert_rowid();
    run(tx.connection, MOVE, (user, int(position.0)))?;
    insert_session(tx, user, device, &login.tokens)?;
    Ok(position)
}

fn insert_session(
    tx: &Tx<'_>,
    user: i64,
    device: i64,
    tokens: &SessionTokens,
) -> Result<(), Failure> {
    const SQL: &str = "
        INSERT INTO sessions (user, device, access, access_expires_at, refresh)
        VALUES (?1, ?2, ?3, ?4, ?5)";
    let expires_at = tokens.access_expires_at.map(int);
    let refresh = tokens.refresh.map(|hash| hash.0);
    let params = (user, device, tokens.access.0, expires_at, refresh);
    run(tx.connection, SQL, params).map(drop)
}

/// Notes when and where from a device was used.
fn see(tx: &Tx<'_>, device: i64, seen: &Seen) -> Result<(), Failure> {
    const SQL: &str = "
        UPDATE devices SET seen_at = ?2, seen_ip = ?3, seen_user_agent = ?4 WHERE id = ?1";
    let (ip, user_agent) = (seen.ip.as_deref(), seen.user_agent.as_deref());
    run(tx.connection, SQL, (device, int(seen.at), ip, user_agent)).map(drop)
}

pub(super) fn touch(
    tx: &mut Tx<'_>,
    user: &UserId,
    access: TokenHash,
    seen: &Seen,
) -> Result<(), Halt<StoreError>> {
    const SQL: &str = "
        SELECT s.id, s.device FROM users u JOIN sessions s ON s.user = u.id AND s.access = ?2
        WHERE u.name = ?1";
    const END_OLDER: &str = "DELETE FROM sessions WHERE device = ?1 AND id < ?2";
    let params = (user.as_str(), access.0);
    let session: Option<(i64, i64)> = first(tx.connection, SQL, params, |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    if let Some((session, device)) = session {
        run(tx.connection, END_OLDER, (device, session))?;
        see(tx, device, seen)?;
    }
    Ok(())
}

pub(super) fn refresh(
    tx: &mut Tx<'_>,
    user: &UserId,
    refresh: TokenHash,
    tokens: &SessionTokens,
    seen: &Seen,
) -> Result<(), Halt<RefreshError>> {
    const SQL: &str = "
        SELECT s.id, s.device, s.user
        FROM users u JOIN sessions s ON s.user = u.id AND s.refresh = ?2
        WHERE u.name = ?1";
    // Older ones end since this one is used; newer ones were never used: their answer was missed.
    const END_OTHERS: &str = "DELETE FROM sessions WHERE device = ?1 AND id <> ?2";
    let params = (user.as_str(), refresh.0);
    let session: Option<(i64, i64, i64)> = first(tx.connection, SQL, params, |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    let Some((session, device, user)) = session else {
        return Err(Halt::Refused(RefreshError::UnknownToken));
    };
    run(tx.connection, END_OTHERS, (device, session))?;
    see(tx, device, seen)?;
    insert_session(tx, user, device, tokens)?;
    Ok(())
}

impl UserRow {
    /// Ends a device's sessions and removes its row.
    pub(super) fn drop_device(&self, tx: &Tx<'_>, device: &str) -> Result<(), Failure> {
        // Its sessions go by the foreign key.
        const SQL: &str = "DELETE FROM devices WHERE user = ?1 AND name = ?2";
        run(tx.connection, SQL, (self.id, device)).map(drop)
    }
}
