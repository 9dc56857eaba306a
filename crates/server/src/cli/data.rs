//! `kitbag data`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::ConfigArguments;

const DATA_DELETE_EXAMPLES: &str = "\
Examples:
  kitbag data delete alice org.example.theme
  kitbag data delete alice org.example.rooms --device PHONE";

const DATA_GET_EXAMPLES: &str = "\
Examples:
  kitbag data get alice m.direct
  kitbag data get alice m.tag --room '!room:example.org'
  kitbag data get alice org.example.rooms --device PHONE | python3 -m json.tool";

const DATA_LIST_EXAMPLES: &str = "\
Examples:
  kitbag data list alice
      Everything, with its size, its age and who wrote it.
  kitbag data list alice --device PHONE
  kitbag data list alice --scope rooms --json";

const DATA_PUT_EXAMPLES: &str = "\
Examples:
  kitbag data put alice org.example.theme '{\"dark\": true}'
  kitbag data put alice org.example.rooms --device PHONE --file rooms.json
  kitbag data get alice m.direct | kitbag data put bob m.direct -
  kitbag data put alice org.example.theme '{\"m.revision_id\": \"2\"}' --if-revision 1
      Only where nobody wrote another revision meanwhile (MSC4547).";

#[derive(Args, Clone, Debug)]
pub(crate) struct DataArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Deletes an entry; the user's devices are told of it.
    #[command(after_long_help = DATA_DELETE_EXAMPLES)]
    Delete {
        #[command(flatten)]
        entry: EntryArguments,
    },
    /// Prints the content of an entry, byte for byte, and a line break.
    #[command(after_long_help = DATA_GET_EXAMPLES)]
    Get {
        #[command(flatten)]
        entry: EntryArguments,
    },
    /// Lists the entries of a user, without their contents.
    #[command(after_long_help = DATA_LIST_EXAMPLES)]
    List {
        /// The user name, such as `alice`, or the whole ID.
        user: String,
        /// Only entries of this scope.
        #[arg(long, value_enum)]
        scope: Option<ScopeArgument>,
        /// Only entries of this room.
        #[arg(long, value_name = "ROOM", conflicts_with_all = ["scope", "device"])]
        room: Option<String>,
        /// Only entries of this device.
        #[arg(long, value_name = "DEVICE", conflicts_with = "scope")]
        device: Option<String>,
        /// Print JSON, one entry a line.
        #[arg(long)]
        json: bool,
    },
    /// Replaces the content of an entry.
    #[command(after_long_help = DATA_PUT_EXAMPLES)]
    Put {
        #[command(flatten)]
        entry: EntryArguments,
        /// The content, a JSON object; `-` reads it from standard input.
        #[arg(required_unless_present = "file")]
        content: Option<String>,
        /// Read the content from this file.
        #[arg(long, conflicts_with = "content")]
        file: Option<PathBuf>,
        /// Only where the content that is there has this `m.revision_id`, or none.
        #[arg(long, value_name = "REVISION")]
        if_revision: Option<String>,
    },
}

/// Which entry.
#[derive(Args, Clone, Debug)]
pub(crate) struct EntryArguments {
    /// The user name, such as `alice`, or the whole ID.
    pub(crate) user: String,
    /// The type of the entry, such as `m.direct`.
    #[arg(value_name = "TYPE")]
    pub(crate) event_type: String,
    /// The entry of this room, instead of the account's.
    #[arg(long, conflicts_with = "device")]
    pub(crate) room: Option<String>,
    /// The entry of this device, instead of the account's.
    #[arg(long)]
    pub(crate) device: Option<String>,
}

/// A scope, and all entries in it.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ScopeArgument {
    /// Those of the account itself.
    Global,
    /// Those of all rooms.
    Rooms,
    /// Those of all devices.
    Devices,
}
