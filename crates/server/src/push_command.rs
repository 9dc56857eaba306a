//! `kitbag push …`

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use kitbag_push::{
    Changes, Defaults, FlatEvent, MemberContext, RoomContext, explain, find_ruleset, served,
};

use crate::cli::{ExplainArguments, PushArguments, PushCommand};
use crate::output::say;

/// Bytes that are read of a file or of standard input: rules of a user have some 1 MiB.
const INPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;

pub(crate) fn run(arguments: &PushArguments) -> Result<()> {
    let PushCommand::Explain(arguments) = &arguments.command;
    explain_event(arguments)
}

fn explain_event(arguments: &ExplainArguments) -> Result<()> {
    let ExplainArguments {
        event,
        user,
        rules,
        room,
        ..
    } = arguments;
    let readers = [Some(event), rules.as_ref(), room.as_ref()];
    let of_input = readers.into_iter().flatten().filter(|path| is_input(path));
    ensure!(
        of_input.count() <= 1,
        "standard input can be read only once: name a file for the others"
    );
    let rules = match rules {
        Some(path) => rules_of(path)?,
        None => served(&Changes::default(), &Defaults::spec(), user),
    };
    let room: RoomContext = match room {
        Some(path) => serde_json::from_str(&read(path)?)
            .with_context(|| format!("`{}` does not tell of a room", path.display()))?,
        None => RoomContext::default(),
    };
    let text = read(event)?;
    let flat = match &arguments.room_id {
        Some(room_id) => FlatEvent::in_room(&text, room_id),
        None => FlatEvent::parse(&text),
    };
    let flat = flat.with_context(|| format!("`{}` has no event", event.display()))?;
    let member = MemberContext::named(&room, &arguments.display_name);
    let explanation = explain(&rules, user, &flat, &member);
    let mut said = if arguments.json {
        serde_json::to_string(&explanation)?
    } else {
        explanation.to_string()
    };
    if !said.ends_with('\n') {
        said.push('\n');
    }
    Ok(say(said.as_bytes())?)
}

/// Reads rules as any server tells them.
fn rules_of(path: &Path) -> Result<String> {
    let text = read(path)?;
    if find_ruleset(&text).is_some() {
        return Ok(text);
    }
    bail!(
        "`{}` has no push rules: an object with `global` is needed, as GET /pushrules/ has it",
        path.display()
    )
}

fn read(path: &Path) -> Result<String> {
    let open = || -> io::Result<Box<dyn Read>> {
        if is_input(path) {
            return Ok(Box::new(io::stdin()));
        }
        Ok(Box::new(File::open(path)?))
    };
    let cannot = || format!("cannot read `{}`", path.display());
    let mut text = String::new();
    let input = open().with_context(cannot)?;
    let mut input = input.take(INPUT_BYTES_MAX + 1);
    input.read_to_string(&mut text).with_context(cannot)?;
    ensure!(
        text.len() as u64 <= INPUT_BYTES_MAX,
        "`{}` is larger than {INPUT_BYTES_MAX} bytes",
        path.display()
    );
    Ok(text)
}

fn is_input(path: &Path) -> bool {
    path.as_os_str() == "-"
}
