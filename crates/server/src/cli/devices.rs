//! `kitbag devices`.

use clap::{Args, Subcommand};

use super::ConfigArguments;

const DEVICES_LIST_EXAMPLES: &str = "\
Examples:
  kitbag devices list --type org.example.client
  kitbag devices list --type org.example.client --json
      With the contents, one device a line.";

const DEVICES_REPORT_EXAMPLES: &str = "\
Examples:
  kitbag devices report --type org.example.client --pointer /version
      How many devices run which version.
  kitbag devices report --type org.example.rooms --pointer /versions --lacks '\"12\"'
      Which devices do not support room version 12, by name.";

#[derive(Args, Clone, Debug)]
pub(crate) struct DevicesArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    #[command(subcommand)]
    pub(crate) command: DevicesCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum DevicesCommand {
    /// Lists all devices that have an entry of a type.
    #[command(after_long_help = DEVICES_LIST_EXAMPLES)]
    List {
        /// The type.
        #[arg(long = "type", value_name = "TYPE")]
        event_type: String,
        /// Print JSON, one device a line, with the content.
        #[arg(long)]
        json: bool,
    },
    /// Counts devices by the value at one place of their entries of a type.
    #[command(after_long_help = DEVICES_REPORT_EXAMPLES)]
    Report {
        /// The type.
        #[arg(long = "type", value_name = "TYPE")]
        event_type: String,
        /// The place in the content, a JSON pointer such as /version/0; without it the whole of it.
        #[arg(long, default_value = "", hide_default_value = true)]
        pointer: String,
        /// List the devices whose value is neither this, nor an array or object that has it.
        ///
        /// JSON; what is not JSON is text. Devices without an entry of the type are not listed.
        #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
        lacks: Option<String>,
        /// Print JSON: the report, or with --lacks one device a line.
        #[arg(long)]
        json: bool,
    },
}
