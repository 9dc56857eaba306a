//! `kitbag devices …`

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use kitbag_domain::Clock as _;
use kitbag_http::admin::{DeviceEntryRow, DeviceRow, Summary};
use serde_json::Value;

use crate::admin::Reply;
use crate::admin::copying::Far;
use crate::admin::data::{DataCommand, Question};
use crate::backup::size;
use crate::cli::{DevicesArguments, DevicesCommand};
use crate::config::Config;
use crate::operator::{Operator, UNEXPECTED};
use crate::output::say;
use crate::system::SystemClock;
use crate::table::{Align, Table, age, share};

/// How long a report may take before a person is told how far it is.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn run(arguments: DevicesArguments) -> Result<()> {
    let operator = Operator::new(Config::load(&arguments.config)?);
    match arguments.command {
        DevicesCommand::List { event_type, json } => list(&operator, &event_type, json),
        DevicesCommand::Report {
            event_type,
            pointer,
            lacks,
            json,
        } => {
            let question = Question {
                event_type,
                pointer,
            };
            match lacks {
                None => report(&operator, question, json),
                Some(value) => lacking(&operator, &question, &value, json),
            }
        }
    }
}

fn list(operator: &Operator, event_type: &str, json: bool) -> Result<()> {
    let now_ms = SystemClock.now_ms();
    let table = Table::new([
        ("USER", Align::Left),
        ("DEVICE", Align::Left),
        ("NAME", Align::Left),
        ("SIZE", Align::Right),
        ("AGE", Align::Right),
    ]);
    let command = |after| DataCommand::ListDevices {
        event_type: event_type.to_owned(),
        after,
    };
    let is_any = operator.print_rows(command, json, table, |row| {
        let row: DeviceEntryRow = read(row)?;
        Ok([
            row.user_id,
            row.device_id,
            row.display_name.unwrap_or_default(),
            size(row.size_bytes),
            age(now_ms, row.written_ts),
        ])
    })?;
    if !is_any && !json {
        println!("no device has `{event_type}`");
    }
    Ok(())
}

fn lacking(operator: &Operator, question: &Question, value: &str, json: bool) -> Result<()> {
    let value = wanted(value);
    if value.is_number() || value.is_boolean() || value.is_null() {
        // Room versions are texts: whoever means one would be told that every device lacks it.
        eprintln!("kitbag: looking for {value} as such; for the text write --lacks '\"{value}\"'");
    }
    let table = Table::new([
        ("USER", Align::Left),
        ("DEVICE", Align::Left),
        ("NAME", Align::Left),
    ]);
    let command = |after| DataCommand::LackingDevices {
        question: question.clone(),
        value: value.to_string(),
        after,
    };
    let is_any = operator.print_rows(command, json, table, |row| {
        let row: DeviceRow = read(row)?;
        let name = row.display_name.unwrap_or_default();
        Ok([row.user_id, row.device_id, name])
    })?;
    if !is_any && !json {
        println!("no device with `{}` lacks {value}", question.event_type);
    }
    Ok(())
}

fn report(operator: &Operator, question: Question, json: bool) -> Result<()> {
    let mut display = Display::new();
    let command = DataCommand::TallyDevices { question };
    let reply = operator.data(command, Bytes::new(), |far| display.show(far));
    display.end();
    let Reply::Rows { rows, .. } = reply? else {
        bail!(UNEXPECTED);
    };
    let row = rows.first().context("the server's answer is empty")?;
    if json {
        return Ok(say(format!("{row}\n").as_bytes())?);
    }
    let Summary {
        event_type,
        devices,
        values,
        others,
        absent,
        ..
    } = read(row)?;
    if devices == 0 {
        println!("no device has `{event_type}`");
        return Ok(());
    }
    let line = |name: &str, count: u64| [name.to_owned(), count.to_string(), share(count, devices)];
    let mut lines: Vec<[String; 3]> = values
        .iter()
        .map(|found| line(found.value.as_str(), found.devices))
        .collect();
    for (name, count) in [("(others)", others), ("(absent)", absent)] {
        if count > 0 {
            lines.push(line(name, count));
        }
    }
    lines.push(line("(all)", devices));
    let mut table = Table::new([
        ("VALUE", Align::Left),
        ("DEVICES", Align::Right),
        ("SHARE", Align::Right),
    ]);
    Ok(say(table.lines(&lines).as_bytes())?)
}

fn read<'a, T: serde::Deserialize<'a>>(row: &'a str) -> Result<T> {
    serde_json::from_str(row).context("the server's answer is not readable")
}

/// Reads a value; what is not JSON is text.
fn wanted(value: &str) -> Value {
    serde_json::from_str(value).unwrap_or_else(|_| Value::from(value))
}

/// Shows a person how far a report is, where it takes its time.
struct Display {
    is_terminal: bool,
    begun: Instant,
    is_shown: bool,
}

impl Display {
    fn new() -> Self {
        Self {
            is_terminal: io::stderr().is_terminal(),
            begun: Instant::now(),
            is_shown: false,
        }
    }

    fn show(&mut self, far: Far) {
        let Far::Counting { devices } = far else {
            return;
        };
        if self.is_terminal && self.begun.elapsed() >= PATIENCE {
            self.is_shown = true;
            eprint!("\r{devices} devices   ");
        }
    }

    /// Clears the line, which was none of the result.
    fn end(&self) {
        if self.is_shown {
            eprint!("\r{:40}\r", "");
        }
    }
}
