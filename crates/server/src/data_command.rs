//! `kitbag data …`

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use kitbag_domain::Clock as _;
use kitbag_http::admin::{EntryRow, ScopeKind, WriterKind, WriterRow};
use kitbag_store_sqlite::limit::WRITE_QUEUE_BYTES_MAX;

use crate::admin::Reply;
use crate::admin::data::{DataCommand as Command, Place, Selection};
use crate::backup::size;
use crate::cli::{DataArguments, DataCommand, EntryArguments, ScopeArgument};
use crate::config::Config;
use crate::operator::{Operator, UNEXPECTED};
use crate::output::say;
use crate::system::SystemClock;
use crate::table::{Align, Table, age};

/// Bytes that are read of a file or of standard input: the largest content that settings can allow.
/// The server has the limit in force; this one ends a stream that does not end.
const INPUT_BYTES_MAX: u64 = WRITE_QUEUE_BYTES_MAX;

pub(crate) fn run(arguments: DataArguments) -> Result<()> {
    let operator = Operator::new(Config::load(&arguments.config)?);
    match arguments.command {
        DataCommand::Delete { entry } => delete(&operator, entry),
        DataCommand::Get { entry } => get(&operator, entry),
        DataCommand::List {
            user,
            scope,
            room,
            device,
            json,
        } => {
            let selection = selection(scope, room, device);
            list(&operator, &user, &selection, json)
        }
        DataCommand::Put {
            entry,
            content,
            file,
            if_revision,
        } => {
            let content = read_content(content, file.as_deref())?;
            put(&operator, entry, content, if_revision)
        }
    }
}

fn delete(operator: &Operator, entry: EntryArguments) -> Result<()> {
    let place = place(entry);
    let event_type = place.event_type.clone();
    match operator.data(Command::DeleteData { place }, Bytes::new(), |_| {})? {
        Reply::Deleted {
            user,
            was_there: true,
        } => println!("deleted `{event_type}` of {user}"),
        Reply::Deleted { user, .. } => println!("{user} had no `{event_type}` there"),
        _ => bail!(UNEXPECTED),
    }
    Ok(())
}

fn get(operator: &Operator, entry: EntryArguments) -> Result<()> {
    let place = place(entry);
    match operator.data(Command::GetData { place }, Bytes::new(), |_| {})? {
        Reply::Content { content } => Ok(say(format!("{content}\n").as_bytes())?),
        _ => bail!(UNEXPECTED),
    }
}

fn put(
    operator: &Operator,
    entry: EntryArguments,
    content: Bytes,
    if_revision: Option<String>,
) -> Result<()> {
    let place = place(entry);
    let event_type = place.event_type.clone();
    let command = Command::PutData {
        place,
        content_bytes: content.len() as u64,
        if_revision,
    };
    match operator.data(command, content, |_| {})? {
        Reply::Done { user } => println!("put `{event_type}` of {user}"),
        _ => bail!(UNEXPECTED),
    }
    Ok(())
}

fn list(operator: &Operator, user: &str, selection: &Selection, json: bool) -> Result<()> {
    let table = Table::new([
        ("TYPE", Align::Left),
        ("PLACE", Align::Left),
        ("SIZE", Align::Right),
        ("AGE", Align::Right),
        ("WRITER", Align::Left),
    ]);
    let command = |after| Command::ListData {
        user: user.to_owned(),
        selection: selection.clone(),
        after,
    };
    let now_ms = SystemClock.now_ms();
    let is_any = operator.print_rows(command, json, table, |row| cells(row, now_ms))?;
    if !is_any && !json {
        println!("no account data");
    }
    Ok(())
}

fn cells(row: &str, now_ms: u64) -> Result<[String; 5]> {
    let row: EntryRow = serde_json::from_str(row).context("the server's answer is not readable")?;
    let place = match row.scope {
        ScopeKind::Global => "global".to_owned(),
        ScopeKind::Room => format!("room {}", row.room_id.unwrap_or_default()),
        ScopeKind::Device => format!("device {}", row.device_id.unwrap_or_default()),
    };
    Ok([
        row.event_type,
        place,
        size(row.size_bytes),
        age(now_ms, row.written_ts),
        writer(row.writer),
    ])
}

fn writer(row: WriterRow) -> String {
    match row.kind {
        WriterKind::Admin => "admin".to_owned(),
        WriterKind::Device => row.device_id.unwrap_or_default(),
        WriterKind::Server => "server".to_owned(),
    }
}

fn selection(
    scope: Option<ScopeArgument>,
    room: Option<String>,
    device: Option<String>,
) -> Selection {
    match (scope, room, device) {
        (_, Some(room), _) => Selection::Room(room),
        (_, _, Some(device)) => Selection::Device(device),
        (Some(ScopeArgument::Devices), ..) => Selection::Devices,
        (Some(ScopeArgument::Global), ..) => Selection::Global,
        (Some(ScopeArgument::Rooms), ..) => Selection::Rooms,
        (None, None, None) => Selection::All,
    }
}

fn place(entry: EntryArguments) -> Place {
    Place {
        user: entry.user,
        room: entry.room,
        device: entry.device,
        event_type: entry.event_type,
    }
}

fn read_content(content: Option<String>, file: Option<&Path>) -> Result<Bytes> {
    match (content, file) {
        (_, Some(path)) => {
            let file = File::open(path);
            let file = file.with_context(|| format!("cannot open `{}`", path.display()))?;
            read(file).with_context(|| format!("cannot read `{}`", path.display()))
        }
        (Some(content), None) if content != "-" => Ok(content.into()),
        _ => read(io::stdin().lock()).context("cannot read the content from standard input"),
    }
}

fn read(reader: impl Read) -> Result<Bytes> {
    let mut content = Vec::new();
    reader.take(INPUT_BYTES_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > INPUT_BYTES_MAX {
        bail!("it is larger than {}", size(INPUT_BYTES_MAX));
    }
    Ok(content.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_without_end_is_read_as_far_as_a_content_can_be_large() {
        let error = read(io::repeat(b' ')).unwrap_err();
        assert_eq!(error.to_string(), "it is larger than 64.0 MiB");
        let largest = read(io::repeat(b' ').take(INPUT_BYTES_MAX)).unwrap();
        assert_eq!(largest.len() as u64, INPUT_BYTES_MAX);
    }
}
