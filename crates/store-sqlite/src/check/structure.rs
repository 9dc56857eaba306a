//! The file itself: its pages, its tables, whose it is, and its references.

use std::collections::BTreeMap;

use kitbag_domain::ServerName;
use rusqlite::{Connection, OptionalExtension as _};

use super::{Kind, Report, counted};
use crate::error::Failure;
use crate::format::{self, Migration, SchemaObject};

/// Lets SQLite look through all pages, indexes and constraints.
pub(super) fn pages(connection: &Connection, report: &mut Report) -> Result<(), Failure> {
    let mut statement = connection.prepare("PRAGMA integrity_check")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let text: String = row.get(0)?;
        if text != "ok" {
            report.add(Kind::Damage, None, text.replace('\n', " "));
        }
    }
    Ok(())
}

/// Compares tables and indexes with those that the steps of the format make.
pub(super) fn schema(
    connection: &Connection,
    migrations: &[Migration],
    report: &mut Report,
) -> Result<(), Failure> {
    let found = format::schema(connection)?;
    let header = format::Header::read(connection)?;
    let steps = migrations.len().min(header.version as usize);
    let expected = format::expected_schema(&migrations[..steps])?;
    for (name, object) in &expected {
        let SchemaObject { kind, sql } = object;
        match found.get(name) {
            None => report.add(
                Kind::Schema,
                None,
                format!("the {kind} `{name}` is missing"),
            ),
            Some(found) if found.sql != *sql => {
                let text = format!("the {kind} `{name}` is not as its format has it");
                report.add(Kind::Schema, None, text);
            }
            Some(_) => {}
        }
    }
    Ok(())
}

pub(super) fn identity(connection: &Connection, report: &mut Report) -> Result<(), Failure> {
    let sql = "SELECT server_name FROM store WHERE id = 1";
    let name = connection.query_row(sql, [], |row| row.get::<_, String>(0));
    let Some(name) = name.optional()? else {
        let text = "the store does not say whose it is".to_owned();
        report.add(Kind::Identity, None, text);
        return Ok(());
    };
    if ServerName::parse(name.as_str()).is_err() {
        let text = "the server name of the store is not a server name".to_owned();
        report.add(Kind::Identity, None, text);
    } else {
        report.server_name = Some(name);
    }
    Ok(())
}

/// Finds rows that name a row which is not there.
pub(super) fn references(connection: &Connection, report: &mut Report) -> Result<(), Failure> {
    let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
    let mut rows = statement.query([])?;
    let mut broken = BTreeMap::<(String, String), u64>::new();
    while let Some(row) = rows.next()? {
        *broken.entry((row.get(0)?, row.get(2)?)).or_default() += 1;
    }
    for ((table, parent), count) in broken {
        let rows = counted(count, "row", "rows");
        let verb = if count == 1 { "names" } else { "name" };
        let text = format!("{rows} of `{table}` {verb} a row of `{parent}` that is gone");
        report.add(Kind::Orphan, None, text);
    }
    Ok(())
}
